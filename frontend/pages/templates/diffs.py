"""What has changed between two versions of a template, line by line."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from django.utils.translation import gettext as _

from schedules.models import Channel, TemplateVersion

_MOST_LINES = 2_000  # of a text; comparing takes their square at worst
_AROUND = 2  # lines that stayed, shown beside those that changed
_PARTS = ("subject", "text", "html")

Line = tuple[str, str]  # "added", "removed", "same" or "gap", and the line


@dataclass(frozen=True)
class Change:
    """One part of one content; ``words`` stand in the place of lines where there are too many."""

    place: str
    lines: list[Line]
    words: str = ""


def between(before: TemplateVersion | None, after: TemplateVersion) -> list[Change]:
    """Everything that differs; without ``before`` everything there is."""
    old = _parts(before.contents) if before else {}
    new = _parts(after.contents)
    found = []
    if before and before.default_locale != after.default_locale:
        lines: list[Line] = [("removed", before.default_locale), ("added", after.default_locale)]
        found.append(Change(_("Default language"), lines))
    if after.service_version:
        found += _of_service(before, after)
    labels = {"subject": _("subject"), "text": _("text"), "html": _("HTML")}
    for key in sorted({*old, *new}):
        channel, locale, part = key
        was, is_now = old.get(key, ""), new.get(key, "")
        if was != is_now:
            place = f"{dict(Channel.choices).get(channel, channel)} · {locale}: {labels[part]}"
            found.append(_change(place, was, is_now))
    return found


def _of_service(before: TemplateVersion | None, after: TemplateVersion) -> list[Change]:
    """What is known here of a version that the template service keeps: its words are not."""
    old = _known(before) if before else {}
    found = [(place, list(_lines(old.get(place, []), told))) for place, told in _known(after).items()]
    return [Change(place, lines) for place, lines in found if lines]


def _known(version: TemplateVersion) -> dict[str, list[str]]:
    labels = dict(Channel.choices)
    says = [f"{labels.get(each['channel'], each['channel'])} · {each['locale']}" for each in version.contents]
    return {
        _("Version of the template service"): [version.service_version],
        _("Says something in"): sorted(says),
        _("Variables"): sorted(version.tokens),
    }


def _parts(contents: Iterable[Mapping[str, str]]) -> dict[tuple[str, str, str], str]:
    return {
        (content["channel"], content["locale"], part): content[part]
        for content in contents
        for part in _PARTS
        if content.get(part)
    }


def _change(place: str, was: str, is_now: str) -> Change:
    old, new = was.splitlines(), is_now.splitlines()
    if max(len(old), len(new)) > _MOST_LINES:
        return Change(place, [], _("It is too long to be compared line by line."))
    return Change(place, list(_lines(old, new)))


def _lines(old: list[str], new: list[str]) -> Iterator[Line]:
    kinds = {"+": "added", "-": "removed", " ": "same", "@": "gap"}
    for line in list(difflib.unified_diff(old, new, n=_AROUND, lineterm=""))[2:]:
        kind = kinds.get(line[:1], "same")
        if kind == "gap":
            yield "gap", "…"
        else:
            yield kind, line[1:]
