"""``{% outcome_bar counted %}``: what became of the people of a run, as a bar and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import template
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from delivery.models import State

register = template.Library()

_OPEN = ("pending", "sending", "unknown")
# The least a part is wide, in per cent, so that one person in a million is seen.
_LEAST = 1.5


@dataclass(frozen=True)
class Part:
    """A stretch of the bar; ``x`` and ``width`` in per cent, written with a point."""

    css: str
    words: str
    x: str
    width: str


@register.inclusion_tag("frontend/outcome_bar.html")
def outcome_bar(counted: Mapping[str, int] | None) -> dict[str, Any]:
    """``counted``: people by the name of their state, as ``delivery.books.counted`` has them; None: not run yet."""
    groups = [(css, people, words) for css, people, words in outcome_groups(counted or {}) if people]
    total = sum(people for _css, people, _words in groups)
    shares = [max(100 * people / total, _LEAST) for _css, people, _words in groups]
    scale, x, parts = 100 / (sum(shares) or 1), 0.0, []
    for (css, _people, words), share in zip(groups, shares, strict=True):
        parts.append(Part(css, words, f"{x:.2f}", f"{share * scale:.2f}"))
        x += share * scale
    return {"parts": parts, "words": ", ".join(words for *_rest, words in groups) or _("nobody")}


def outcome_groups(counted: Mapping[str, int]) -> list[tuple[str, int, str]]:
    """(css, people, words) of who got it, who failed, who was left out for a reason, and who still waits."""
    sent, failed = counted.get("sent", 0), counted.get("failed", 0)
    still = sum(counted.get(name, 0) for name in _OPEN)
    left_out = sum(counted.get(state.label, 0) for state in State) - sent - failed - still
    return [
        ("sent", sent, _("%(n)s sent") % {"n": _number(sent)}),
        ("failed", failed, _("%(n)s failed") % {"n": _number(failed)}),
        ("left_out", left_out, ngettext("%(n)s left out", "%(n)s left out", left_out) % {"n": _number(left_out)}),
        ("open", still, ngettext("%(n)s still waits", "%(n)s still wait", still) % {"n": _number(still)}),
    ]


def _number(value: int) -> str:
    return number_format(value, use_l10n=True, force_grouping=True)
