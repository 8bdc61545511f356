"""In which zone the pages show a time: the viewer's, the schedule's, or UTC, as he has chosen in the header.

Kept in cookies, not in the account: who looks from another desk looks at another clock. ``browser_zone`` is written by
the page's script.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import unquote

from django.conf import settings
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from schedules.recurrence import ZONE_NAMES

TIMES_COOKIE = f"{settings.COOKIE_PREFIX}times"
ZONE_COOKIE = f"{settings.COOKIE_PREFIX}zone"
_BROWSER_COOKIE = "browser_zone"


class Display(StrEnum):
    SCHEDULE = "schedule"
    MINE = "mine"
    UTC = "utc"


@dataclass(frozen=True)
class Zones:
    """What one viewer has chosen. ``chosen`` is empty where his browser's zone is his."""

    display: Display
    browser: str
    chosen: str = ""

    @property
    def mine(self) -> str:
        return self.chosen or self.browser

    def of(self, own: str = "") -> str:
        """The zone to show an instant in whose own zone (its schedule's, its recipient's) is ``own``."""
        if self.display == Display.MINE:
            return self.mine
        return own if own and self.display == Display.SCHEDULE else "UTC"

    @property
    def choices(self) -> Sequence[tuple[str, str]]:
        return (
            (Display.SCHEDULE, _("Schedule's zone")),
            (Display.MINE, _("Mine: %(zone)s") % {"zone": self.mine}),
            (Display.UTC, "UTC"),
        )

    @property
    def options(self) -> SafeString:
        """Every zone, for a ``<select>``."""
        return _options(self.chosen)


def zones_of(request: HttpRequest) -> Zones:
    """What the request's cookies say; whatever in them is unknown is as if it were not there."""
    cookies = request.COOKIES
    display = cookies.get(TIMES_COOKIE, "")
    return Zones(
        Display(display) if display in list(Display) else Display.SCHEDULE,
        _known(unquote(cookies.get(_BROWSER_COOKIE, ""))) or "UTC",
        _known(cookies.get(ZONE_COOKIE, "")),
    )


@lru_cache(maxsize=32)
def _options(chosen: str) -> SafeString:
    """Made once for all pages: six hundred turns of a template's loop take longer than the rest of most of them."""
    other, selected = "<option>{}</option>", "<option selected>{}</option>"
    return format_html_join(
        "", "{}", ((format_html(selected if name == chosen else other, name),) for name in sorted(ZONE_NAMES))
    )


def _known(name: str) -> str:
    return name if name in ZONE_NAMES else ""
