"""A reader and what it reads, for the tests of rendering."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from delivery.rendering import Shared, compile_content
from delivery.rendering_limits import RenderError
from schedules.content import Content, read_catalogues

CATALOGUES = read_catalogues(
    [
        ("de", {"points": {"one": "{count} Punkt für {name}", "other": "{count} Punkte für {name}"}, "two": "a\nb"}),
        ("en", {"points": "{count} points for {name}", "only": "<only> in English", "twice": "{x}{x}"}),
    ]
)
# Half past nine in Vienna: an hour and a half after the clocks went forward there.
SHARED = Shared(
    schedule_name="Spring <sale>",
    schedule_zone="Asia/Kathmandu",
    occurrence_at=datetime(2026, 3, 29, 7, 30, tzinfo=UTC),
    default_locale="en",
    catalogues=CATALOGUES,
)


def person(locale: str = "en", zone: str = "Europe/Vienna", **attributes: Any) -> dict[str, Any]:
    return {
        "external_id": "u-1",
        "locale": locale,
        "time_zone": zone,
        "email": "ann@example.org",
        "attributes": attributes,
    }


def read(source: str, recipient: Mapping[str, Any] | None = None, *, part: str = "text") -> str:
    content = Content("in_app", "en", **{part: source})
    compiled = compile_content(content=content)
    text: str = getattr(compiled.render(recipient=recipient or person(), shared=SHARED), part)
    return text


def reason(source: str, recipient: Mapping[str, Any] | None = None, *, part: str = "text") -> str:
    with pytest.raises(RenderError) as failed:
        read(source, recipient, part=part)
    return failed.value.reason
