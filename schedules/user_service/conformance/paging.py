"""Do the pages of an answer hold everybody, once, and can one be asked for again?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from schedules.imports.rows import BadLine
from schedules.remote.checking import Check, Failed, Skipped
from schedules.user_service.client import MAX_PAGE
from schedules.user_service.conformance.subject import EVERYBODY, MOST_PAGES, Sheet, Subject
from schedules.user_service.reading import read_profiles

_LEAST: Final = 3  # people, for three pages
_SHOWN: Final = 3
_NAME: Final = re.compile(r"[A-Za-z_][\w.]{0,39}", re.ASCII)
_NO_CURSOR: Final = "a-cursor-that-was-never-given-out"


def _people(subject: Subject) -> str:
    found = len(subject.sample())
    if found < _LEAST:
        raise Failed(f"{found} of everybody can be used")
    return f"{found} people sampled"


def _profiles(subject: Subject) -> str:
    sheet = subject.page(EVERYBODY, limit=1000)
    if sheet.bad:
        kinds = Counter((_field(bad), bad.reason) for bad in sheet.bad).most_common(_SHOWN)
        told = "; ".join(f"{field} {reason} ({count:,})" for (field, reason), count in kinds)
        raise Failed(f"{len(sheet.bad):,} of {len(sheet.envelope.profiles):,} are flawed: {told}")
    return f"{len(sheet.rows):,} profiles without a flaw"


def _consent_time(subject: Subject) -> str:
    _, updated, consented, _ = read_profiles(subject.page(EVERYBODY, limit=1000).envelope.profiles)
    dated = {line: at for line, at in consented.items() if at is not None}
    if not dated:
        raise Skipped("nobody's profile says when the consent was changed")
    if late := [line for line, at in dated.items() if line in updated and at > updated[line]]:
        raise Failed(f"{len(late):,} of {len(dated):,} profiles are older than the consent in them")
    return f"{len(dated):,} profiles say when their consent was changed"


def _page_count(subject: Subject) -> str:
    for sheet in (subject.page(subject.sampled(), limit=subject.third), subject.page(EVERYBODY, limit=2)):
        held = len(sheet.envelope.profiles)
        if sheet.envelope.counted != held:
            raise Failed(f"count says {sheet.envelope.counted:,}, and the page holds {held:,}")
    return "count is what the page holds"


def _limit(subject: Subject) -> str:
    for limit in (1, 2):
        found = len(subject.page(EVERYBODY, limit=limit).envelope.profiles)
        if found > limit:
            raise Failed(f"{found:,} people where at most {limit} were asked for")
    return "no more people than were asked for"


def _progress(subject: Subject) -> str:
    given: set[str] = set()
    sheets = []
    for number, sheet in enumerate(subject.pages(subject.sampled(), limit=subject.third), start=1):
        sheets.append(sheet)
        cursor = sheet.envelope.next_cursor
        if cursor is None:
            return f"{number} pages"
        if cursor in given:
            raise Failed(f"page {number} names a cursor that was named before")
        if not sheet.envelope.profiles:
            raise Failed(f"page {number} holds nobody, and isn't the last")
        given.add(cursor)
    raise Failed(f"{len(sheets)} pages for {len(subject.sample())} people, and no end")


def _everybody_named(subject: Subject) -> str:
    wanted = {each.external_id for each in subject.sample()}
    found = {external_id for sheet in _walk(subject) for external_id in sheet.ids}
    if missing := wanted - found:
        raise Failed(f"{subject.people(missing)} of {len(wanted)} on no page")
    if surplus := found - wanted:
        raise Failed(f"{subject.people(surplus)} who weren't asked for")
    return f"all {len(wanted)} people"


def _nobody_twice(subject: Subject) -> str:
    named: set[str] = set()
    for number, sheet in enumerate(_walk(subject), start=1):
        if again := named.intersection(sheet.ids):
            raise Failed(f"page {number} names {subject.people(again)} for the second time")
        if len(set(sheet.ids)) < len(sheet.ids):
            raise Failed(f"page {number} names somebody twice")
        named.update(sheet.ids)
    return f"{len(named)} people, each once"


def _cursor_again(subject: Subject) -> str:
    audience, limit = subject.sampled(), subject.third
    cursor = _cursor(subject.page(audience, limit=limit))
    second = subject.page(audience, limit=limit, cursor=cursor)
    if (further := second.envelope.next_cursor) is not None:
        subject.page(audience, limit=limit, cursor=further)
    again = subject.page(audience, limit=limit, cursor=cursor)
    if set(again.ids) != set(second.ids):
        different = set(again.ids) ^ set(second.ids)
        raise Failed(f"another page than before: it differs in {subject.people(different)}")
    return "the same page"


def _side_by_side(subject: Subject) -> str:
    audience, limit = subject.sampled(), subject.third
    sheet, beside = subject.page(audience, limit=limit), subject.page(EVERYBODY, limit=limit)
    found = set(sheet.ids)
    for _ in range(MOST_PAGES):
        if (cursor := sheet.envelope.next_cursor) is None:
            break
        sheet = subject.page(audience, limit=limit, cursor=cursor)
        found.update(sheet.ids)
        if (other := beside.envelope.next_cursor) is not None:
            beside = subject.page(EVERYBODY, limit=limit, cursor=other)
    if different := found ^ {each.external_id for each in subject.sample()}:
        raise Failed(f"the pages of one answer differ in {subject.people(different)} when another is read beside it")
    return "each answer has its own pages"


def _unknown_cursor(subject: Subject) -> str:
    answer = subject.post_page(subject.sampled(), limit=subject.third, cursor=_NO_CURSOR)
    if answer.status != 410:
        raise Failed(f"{answer.status}")
    return "410"


def _total(subject: Subject) -> str:
    sheet = subject.page(subject.sampled(), limit=subject.third)
    if sheet.envelope.total is None:
        raise Skipped("the pages tell no total")
    if sheet.envelope.total != len(subject.sample()):
        raise Failed(f"total says {sheet.envelope.total:,}, and the pages hold {len(subject.sample()):,} people")
    return f"{sheet.envelope.total:,}"


def _count_agrees(subject: Subject) -> str:
    found = subject.count(subject.sampled())
    if found != len(subject.sample()):
        raise Failed(f"count says {found:,}, and the pages hold {len(subject.sample()):,} people")
    return f"{found:,}"


def _full_page(subject: Subject) -> str:
    sheet = subject.page(EVERYBODY, limit=MAX_PAGE)
    return f"{len(sheet.envelope.profiles):,} people, {sheet.size / 1e6:.1f} MB in {sheet.seconds:.2f} s"


def _walk(subject: Subject) -> Iterator[Sheet]:
    return subject.pages(subject.sampled(), limit=subject.third)


def _cursor(sheet: Sheet) -> str:
    if sheet.envelope.next_cursor is None:
        raise Failed("no further page")
    return sheet.envelope.next_cursor


def _field(bad: BadLine) -> str:
    """Its name, unless that may be somebody's data."""
    if not bad.field:
        return "the profile"
    return bad.field if _NAME.fullmatch(bad.field) else "a member"


CHECKS: Final = (
    Check(
        "people",
        f"Everybody is at least {_LEAST} people, so that there are pages to look at.",
        "Let the checks run against a service with people in it, such as a copy.",
        _people,
        ("page",),
    ),
    Check(
        "profiles",
        "A profile has externalId and nothing beside what the schema Profile names, each in its form.",
        "What is your own goes into attributes. A flawed member is left out, and the message may miss its person.",
        _profiles,
        ("people",),
    ),
    Check(
        "consent_time",
        "consentUpdatedAt is when consent was last changed, and so no later than updatedAt.",
        "Write both when consent changes, and updatedAt alone when anything else does: by consentUpdatedAt objections "
        "made at the scheduler are taken back.",
        _consent_time,
        ("people",),
    ),
    Check(
        "page_count",
        "count is the number of profiles on that very page.",
        "Count what you send, not what the audience has (that is total): a page that lost people is noticed by it.",
        _page_count,
        ("people",),
    ),
    Check(
        "limit",
        "A page holds at most limit people.",
        "Cut the page at limit. A larger one is thrown away.",
        _limit,
        ("people",),
    ),
    Check(
        "progress",
        "Each page but the last holds somebody and names a cursor that is new; the last one names null.",
        "Let the cursor hold where the next page begins, such as the last id. A service that finds nobody on a stretch "
        "goes on to the next one by itself.",
        _progress,
        ("people",),
    ),
    Check(
        "everybody_named",
        "The pages of an answer together hold everybody of the audience, and nobody else.",
        "Begin each page right behind the last person of the one before, in an order that is unique.",
        _everybody_named,
        ("progress",),
    ),
    Check(
        "nobody_twice",
        "Nobody stands on two pages of one answer.",
        "Begin each page right behind the last person of the one before, in an order that is unique.",
        _nobody_twice,
        ("progress",),
    ),
    Check(
        "cursor_again",
        "A cursor may be asked for again, for an hour, and gives the same people: so a page is read that was lost.",
        "Let a cursor say where it begins, and don't use it up.",
        _cursor_again,
        ("progress", "everybody_named", "nobody_twice"),
    ),
    Check(
        "side_by_side",
        "Several answers are read at the same time, each by its own cursors.",
        "Keep nothing per client: two schedules fall due at once.",
        _side_by_side,
        ("cursor_again",),
    ),
    Check(
        "unknown_cursor",
        "A cursor that is not known is answered with 410, and the scheduler begins again.",
        "Answer 410, also to what can't be read as a cursor. Beginning again by yourself would name people twice.",
        _unknown_cursor,
        ("people",),
    ),
    Check(
        "total",
        "total, where it is told, is how many people all pages of the answer hold, exactly.",
        "Leave total out, or count the people of this audience: with fewer on the pages nobody is sent to.",
        _total,
        ("everybody_named",),
    ),
    Check(
        "count_agrees",
        "/audience/count says of an audience as many people as its pages hold.",
        "Answer both from one and the same selection.",
        _count_agrees,
        ("count", "everybody_named"),
    ),
    Check(
        "full_page",
        f"A page of {MAX_PAGE:,} people comes within USER_SERVICE_TIMEOUT_S, and has at most 64 MiB.",
        "An index in the order of the pages helps; else lower USER_SERVICE_PAGE, or raise USER_SERVICE_TIMEOUT_S.",
        _full_page,
        ("page",),
    ),
)
