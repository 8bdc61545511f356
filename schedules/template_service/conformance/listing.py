"""What does it have? That it answers at all, the list, one template, and what it doesn't understand."""

from __future__ import annotations

from collections import Counter
from typing import Final

from schedules.remote.checking import Check, Failed, Skipped
from schedules.remote.http import Answer, check_status
from schedules.template_service.client import KIND, MAX_PAGE, path_of, written
from schedules.template_service.conformance.subject import (
    MOST_PAGES,
    Subject,
    asking,
    flawed,
    item,
    problem_of,
    usable,
)
from schedules.template_service.reading import read_templates_body

_REFUSALS: Final = (400, 422)
_DENIALS: Final = (401, 403)
_SHOWN: Final = 3
_NO_CURSOR: Final = "a-cursor-that-was-never-given-out"
NOBODYS: Final = "an-id-that-no-template-ever-had"


def _reachable(subject: Subject) -> str:
    answer = subject.get_list(limit=1)
    if 300 <= answer.status < 400 or answer.status in (404, 405, 410, *_DENIALS):
        check_status(KIND, answer)
    return f"an answer in {answer.seconds:.2f} s"


def _token(subject: Subject) -> str:
    if not subject.has_token:
        raise Skipped("no token was given")
    for how, said in (("no token", ""), ("a wrong token", "Bearer wrong-on-purpose")):
        headers = {"Authorization": said}
        for answer in (
            subject.get_list(limit=1, headers=headers),
            subject.post_render({"template": NOBODYS}, headers=headers),
        ):
            if answer.status not in _DENIALS:
                raise Failed(f"{answer.status} with {how}")
    return "401 or 403 without the token"


def _list(subject: Subject) -> str:
    answer = subject.get_list(limit=MAX_PAGE)
    check_status(KIND, answer)
    return f"a page of {len(read_templates_body(answer.body, limit=MAX_PAGE * MOST_PAGES).templates)}"


def _media_type(subject: Subject) -> str:
    _expect_type(subject.get_list(limit=1), "application/json")
    for template in subject.sample()[:1]:
        _expect_type(subject.get(path_of(template.id)), "application/json")
    for spoken in subject.contents()[:1]:
        _expect_type(subject.post_render(asking(spoken.template, spoken.channel, [item(spoken)])), "application/json")
    return "application/json"


def _templates(subject: Subject) -> str:
    page = subject.page(limit=MAX_PAGE)
    if bad := flawed(page):
        kinds = Counter(each.reason for each in bad).most_common(_SHOWN)
        told = "; ".join(f"it {reason} ({count:,})" for reason, count in kinds)
        raise Failed(f"{len(bad):,} of {len(page.templates):,} are flawed: {told}")
    if not any(each.contents for each in usable(page)):
        raise Failed("no template says anything for e-mail, push or in-app")
    return f"{len(page.templates):,} templates without a flaw"


def _limit(subject: Subject) -> str:
    for limit in (1, 2):
        found = len(subject.page(limit=limit).templates)
        if found > limit:
            raise Failed(f"{found:,} templates where at most {limit} were asked for")
    return "no more templates than were asked for"


def _progress(subject: Subject) -> str:
    given: set[str] = set()
    number = 0
    for number, page in enumerate(subject.pages(limit=2), start=1):
        if page.next_cursor is None:
            return f"{number} pages"
        if page.next_cursor in given:
            raise Failed(f"page {number} names a cursor that was named before")
        given.add(page.next_cursor)
    raise Failed(f"{number} pages, and no end")


def _each_once(subject: Subject) -> str:
    whole = [each.id for page in subject.pages(limit=MAX_PAGE) for each in page.templates if each.id]
    pieces = [each.id for page in subject.pages(limit=2) for each in page.templates if each.id]
    for found in (whole, pieces):
        if again := [name for name, count in Counter(found).items() if count > 1]:
            raise Failed(f"{again[0]} stands on the list more than once")
    if missing := set(whole) - set(pieces):
        raise Failed(f"{len(missing)} of {len(whole)} are on no page of two, such as {min(missing)}")
    if surplus := set(pieces) - set(whole):
        raise Failed(f"{len(surplus)} are on pages of two alone, such as {min(surplus)}")
    return f"{len(whole):,} templates, each once"


def _unknown_cursor(subject: Subject) -> str:
    return _expect_gone(subject.get_list(limit=2, cursor=_NO_CURSOR))


def _one(subject: Subject) -> str:
    if not subject.sample():
        raise Skipped("no template says anything")
    for listed in subject.sample():
        if (found := subject.one(listed.id)) != listed:
            other = next(name for name in listed._fields if getattr(found, name) != getattr(listed, name))
            raise Failed(f"{listed.id} has another {other} than on the list")
    return "as on the list"


def _unknown_id(subject: Subject) -> str:
    return _expect_gone(subject.get(path_of(NOBODYS)))


def _no_json(subject: Subject) -> str:
    answer = subject.post_text('{"template": ')
    if answer.status not in _REFUSALS:
        raise Failed(f"{answer.status}")
    return "400 or 422"


def _problem(subject: Subject) -> str:
    if not subject.contents():
        raise Skipped("no template says anything")
    spoken = subject.contents()[0]
    said = asking(spoken.template, spoken.channel, [item(spoken)])
    without = {name: value for name, value in written(item(spoken)).items() if name != "tokens"}
    answer = subject.post_render({**said, "items": [*said["items"], without]})
    if answer.status not in _REFUSALS:
        raise Failed(f"{answer.status}")
    _expect_type(answer, "application/problem+json")
    errors = problem_of(answer).get("errors")
    pointers = [each.get("pointer") for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
    if not any(str(pointer).startswith("/items/1") for pointer in pointers):
        raise Failed(f"a problem with {len(pointers)} pointers, and none of them leads to /items/1/tokens")
    return "a problem that points at the member"


def _expect_gone(answer: Answer) -> str:
    if answer.status != 410:
        raise Failed(f"{answer.status}")
    return "410"


def _expect_type(answer: Answer, wanted: str) -> None:
    found = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != wanted:
        raise Failed(f"Content-Type: {found or 'none'}")


CHECKS: Final = (
    Check(
        "reachable",
        "GET {URL}/templates is answered at that very address, over TLS with a certificate that is trusted, and takes "
        "the token.",
        "Look at TEMPLATE_SERVICE_URL (what stands before /templates), the token, the certificate (SSL_CERT_FILE names "
        "an authority of your own), and what lies between: redirects are not followed, proxies not used.",
        _reachable,
    ),
    Check(
        "token",
        "A request without the token, or with another one, is answered with 401 or 403.",
        "Compare the Authorization header before anything else, at each address: whoever finds it could read what you "
        "say before you say it.",
        _token,
        ("reachable",),
    ),
    Check(
        "list",
        "GET /templates?limit=200 answers 200 with an object of templates (a list) and nextCursor (null or a text).",
        "Answer a JSON object in UTF-8 with both members, nextCursor null on the last page.",
        _list,
        ("reachable",),
    ),
    Check(
        "media_type",
        "Answers say Content-Type: application/json.",
        "Set the header: what lies between may otherwise look at the body, or change it.",
        _media_type,
        ("list",),
    ),
    Check(
        "templates",
        "Each template has id, version, name, defaultLocale, contents with channel and locale, and tokens with dotted "
        "names; at least one of them says something.",
        "Compare with the schema Template: one that is flawed can't be chosen.",
        _templates,
        ("list",),
    ),
    Check(
        "limit",
        "A page holds at most as many templates as limit says.",
        "Take limit from the query: a page that is larger is not used.",
        _limit,
        ("list",),
    ),
    Check(
        "progress",
        "Each page names a cursor that no page named before, or null, and the pages end.",
        "Let a cursor say where the next page begins, and nextCursor be null on the last one.",
        _progress,
        ("limit",),
    ),
    Check(
        "each_once",
        "All pages together hold every template once, however large they are.",
        "Order the templates by their id: what is on no page counts as gone, and schedules that have it send nothing.",
        _each_once,
        ("progress",),
    ),
    Check(
        "unknown_cursor",
        "A cursor that is not known (any more) is answered with 410.",
        "Begin nothing anew by yourself, and answer no 404: the list is then asked for again from its first page.",
        _unknown_cursor,
        ("list",),
    ),
    Check(
        "one",
        "GET /templates/{id} answers the template as the list has it.",
        "Make both of one thing: a run opens with what this address says, and people choose by the list.",
        _one,
        ("list",),
    ),
    Check(
        "unknown_id",
        "GET /templates/{id} answers 410 where there is no such template.",
        "Answer 410, no 404: that is what a wrong TEMPLATE_SERVICE_URL looks like, and counts as nobody's fault.",
        _unknown_id,
        ("list",),
    ),
    Check(
        "no_json",
        "A body that is no JSON is refused with 400 or 422.",
        "A 500 would be asked again and again: answer 400 where the body can't be read.",
        _no_json,
        ("list",),
    ),
    Check(
        "problem",
        "A request that is not understood is refused with 400 or 422 and application/problem+json, and "
        "errors[].pointer leads to what is refused, such as /items/1/tokens.",
        "Say where the fault is: the pointer is all of a refusal that the scheduler shows to people.",
        _problem,
        ("no_json",),
    ),
)
