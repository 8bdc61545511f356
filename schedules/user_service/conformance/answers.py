"""Does it answer at all, in the form that was agreed, and refuse what it doesn't understand?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from schedules.remote.checking import Check, Failed, Skipped
from schedules.user_service.client import COUNT, PAGE, Answer, check_status
from schedules.user_service.conformance.subject import EVERYBODY, Subject, problem_of
from schedules.user_service.errors import UserServiceError
from schedules.user_service.reading import read_count_body, read_envelope

_REFUSALS: Final = (400, 422)
_DENIALS: Final = (401, 403)
_KNOWN: Final[Mapping[str, Any]] = {"field": "locale", "op": "starts_with", "value": "d"}
_UNKNOWN_FIELD: Final[Mapping[str, Any]] = {"field": "shoe_size", "op": "eq", "value": 44}
_UNKNOWN_OPERATOR: Final[Mapping[str, Any]] = {"field": "locale", "op": "sounds_like", "value": "de"}


def _reachable(subject: Subject) -> str:
    answer = subject.post_count(EVERYBODY)
    if 300 <= answer.status < 400 or answer.status in (404, 405, *_DENIALS):
        check_status(answer)
    return f"an answer in {answer.seconds:.2f} s"


def _token(subject: Subject) -> str:
    if not subject.has_token:
        raise Skipped("no token was given")
    for how, said in (("no token", ""), ("a wrong token", "Bearer wrong-on-purpose")):
        answer = subject.post_count(EVERYBODY, headers={"Authorization": said})
        if answer.status not in _DENIALS:
            raise Failed(f"{answer.status} with {how}")
    return "401 or 403 without the token"


def _count(subject: Subject) -> str:
    return f"{subject.count(EVERYBODY):,} people"


def _page(subject: Subject) -> str:
    answer = subject.post_page(EVERYBODY, limit=10)
    check_status(answer)
    return f"a page of {len(read_envelope(answer.body).profiles)}"


def _media_type(subject: Subject) -> str:
    answers = [subject.post_count(EVERYBODY), subject.post_page(EVERYBODY, limit=1)]
    for answer in answers:
        _expect_type(answer, "application/json")
    return "application/json"


def _unknown_field(subject: Subject) -> str:
    return _expect_refusal(subject, {"all": [_KNOWN, _UNKNOWN_FIELD]})


def _unknown_operator(subject: Subject) -> str:
    return _expect_refusal(subject, {"all": [_KNOWN, _UNKNOWN_OPERATOR]})


def _empty_audience(subject: Subject) -> str:
    return _expect_refusal(subject, {})


def _no_json(subject: Subject) -> str:
    for path in (COUNT, PAGE):
        answer = subject.post_text(path, '{"audience": ')
        if answer.status not in _REFUSALS:
            raise Failed(f"{answer.status}")
    return "400 or 422"


def _problem(subject: Subject) -> str:
    answer = subject.post_page({"all": [_KNOWN, _UNKNOWN_FIELD]}, limit=10)
    _expect_type(answer, "application/problem+json")
    errors = problem_of(answer).get("errors")
    pointers = [each.get("pointer") for each in errors if isinstance(each, dict)] if isinstance(errors, list) else []
    if not any(str(pointer).startswith("/audience/all/1") for pointer in pointers):
        raise Failed(f"a problem with {len(pointers)} pointers, and none of them leads to /audience/all/1/field")
    return "a problem that points at the field"


def _expect_refusal(subject: Subject, audience: Mapping[str, Any]) -> str:
    for answer in (subject.post_count(audience), subject.post_page(audience, limit=10)):
        if answer.status == 200:
            raise Failed(f"200{_how_many(answer)}")
        if answer.status not in _REFUSALS:
            raise Failed(f"{answer.status}")
    return "400 or 422"


def _how_many(answer: Answer) -> str:
    with suppress(UserServiceError):  # of a page that is the number of its own people
        return f", and {read_count_body(answer.body):,} people"
    return ""


def _expect_type(answer: Answer, wanted: str) -> None:
    found = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if found != wanted:
        raise Failed(f"Content-Type: {found or 'none'}")


CHECKS: Final = (
    Check(
        "reachable",
        "POST {URL}/audience/count is answered at that very address, over TLS with a certificate that is trusted, and "
        "takes the token.",
        "Look at USER_SERVICE_URL (what stands before /audience), the token, the certificate (SSL_CERT_FILE names an "
        "authority of your own), and what lies between: redirects are not followed, proxies not used.",
        _reachable,
    ),
    Check(
        "token",
        "A request without the token, or with another one, is answered with 401 or 403.",
        "Compare the Authorization header before anything else: whoever finds the address could read every profile.",
        _token,
        ("reachable",),
    ),
    Check(
        "count",
        'POST /audience/count answers 200 with {"count": n}, a whole number; {"all": []} is everybody.',
        "Answer a JSON object with the member count.",
        _count,
        ("reachable",),
    ),
    Check(
        "page",
        "POST /audience/page answers 200 with an object of profiles (a list), count (a whole number), nextCursor (null "
        "or a text), and total (a whole number, null or left out).",
        "Answer a JSON object in UTF-8 with all of these members, nextCursor null on the last page.",
        _page,
        ("reachable",),
    ),
    Check(
        "media_type",
        "Answers say Content-Type: application/json.",
        "Set the header: what lies between may otherwise look at the body, or change it.",
        _media_type,
        ("count", "page"),
    ),
    Check(
        "unknown_field",
        "An audience with a field that is not known is refused with 400 or 422.",
        "Never leave a clause out: the audience would be larger than what somebody meant, or empty.",
        _unknown_field,
        ("count", "page"),
    ),
    Check(
        "unknown_operator",
        "An audience with an operator that is not known is refused with 400 or 422.",
        "Never leave a clause out: the audience would be larger than what somebody meant, or empty.",
        _unknown_operator,
        ("count", "page"),
    ),
    Check(
        "empty_audience",
        'The audience {} is refused with 400 or 422; everybody is {"all": []}.',
        "A forgotten audience must not be everybody: refuse an object without members.",
        _empty_audience,
        ("count", "page"),
    ),
    Check(
        "no_json",
        "A body that is no JSON is refused with 400 or 422.",
        "A 500 would be asked again and again: answer 400 where the body can't be read.",
        _no_json,
        ("count", "page"),
    ),
    Check(
        "problem",
        "A refusal is application/problem+json, and errors[].pointer leads to what is refused, such as "
        "/audience/all/1/field.",
        "Say where the fault is: the pointer is all of a refusal that the scheduler shows to people.",
        _problem,
        ("unknown_field",),
    ),
)
