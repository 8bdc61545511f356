"""Audiences that try to ask more than their language lets them: refused with a pointer, or they fit nobody.

No line of the corpus fits anybody of ``planted``, read as the language reads it: whoever is found by one was let in by
an operator, a quote, a wildcard or a type that meant something else.
"""

import json
from typing import Any

import pytest
from django.db import connection

from schedules.audience.parser import InvalidAudience, parse_text
from schedules.storable import json_fault
from tests.api import Api, token
from tests.corpora import corpus
from tests.factories import NOW, DeviceFactory, RecipientFactory, TemplateFactory
from tests.surface.test_hostile import Refusals

pytestmark = pytest.mark.django_db

ATTRIBUTES = {
    "plan": "pro", "age": 30, "zero": 0, "flag": True, "nothing": None, "list": ["a", "b"], "nested": {"plan": "pro"},
    "garbled": "2026-02-30T00:00:00Z", "overflowing": "9999-12-31T23:59:59-14:59x",
}  # fmt: skip


@pytest.fixture
def planted(service) -> None:
    """People of every kind of value, whom hostile queries would find."""
    ann = RecipientFactory.create(external_id="ann", tags=["vip", "team"], attributes=ATTRIBUTES)
    DeviceFactory.create(recipient=ann)
    RecipientFactory.create(external_id="bob", locale="de", time_zone="Europe/Berlin", email="", created_at=NOW)
    RecipientFactory.create(external_id="eve", locale="", time_zone="", attributes={"plan": "", "age": -1})


def _reads(text: str) -> bool:
    try:
        parse_text(text)
    except InvalidAudience as error:
        return not (error.problems and all(each.code and each.message for each in error.problems))
    return True


def _is_keepable(text: str) -> bool:
    """JSON by itself, as other programs read it too, and no value in it that PostgreSQL would refuse."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        return not json_fault(json.loads(text, object_pairs_hook=distinct))
    except (ValueError, RecursionError):
        return False


def _said(answer: Any) -> tuple[bool, list[str]]:
    """Whether the audience was taken, and the pointers of what is wrong with it."""
    assert answer.status_code < 500
    told = answer.json()
    if answer.status_code == 200:
        return told.get("valid", True), [error["pointer"] for error in told.get("errors", ())]
    assert answer["Content-Type"] == "application/problem+json"
    assert told["detail"]
    return False, [error["pointer"] for error in told.get("errors", ())]


def test_the_corpus_is_large_and_no_line_stands_twice():
    lines = corpus("audiences")
    assert len(set(lines)) == len(lines) >= 200


def test_every_line_is_refused_at_its_place_or_fits_nobody(planted, settings):
    settings.API_RATE, settings.API_BURST = 1e6, 1_000_000
    api = Api(token())
    schedule = {
        "name": "S", "channel": "email", "templateId": TemplateFactory.create().pk, "scheduleType": "once",
        "runAt": "2026-12-01T09:00:00Z",
    }  # fmt: skip
    head = json.dumps(schedule)[1:-1].encode()
    watch, wrong = Refusals(), []
    taken = 0
    with connection.execute_wrapper(watch):
        for text in corpus("audiences"):
            query = text.encode(errors="surrogatepass")
            previewed = api.call("POST", "audiences:preview", b'{"sample": 50, "audienceQuery": ' + query + b"}")
            validated = api.call("POST", "schedules:validate", b"{" + head + b', "audienceQuery": ' + query + b"}")
            reads = _reads(text)
            for answer in (previewed, validated):
                is_taken, pointers = _said(answer)
                if is_taken != reads:
                    wrong.append(f"{answer.status_code}, read by the parser: {reads}: {text[:150]}")
                if not is_taken and _is_keepable(text):
                    unnamed = [each for each in pointers if not each.startswith("/audienceQuery")]
                    if unnamed or not pointers:
                        wrong.append(f"refused at {pointers}: {text[:150]} {answer.content[:300]!r}")
            if previewed.status_code == 200 and (found := previewed.json()["count"]):
                wrong.append(f"finds {found}: {text[:150]}")
            taken += reads
    assert wrong == []
    assert watch.found == []
    assert taken >= 60, "hardly a line gets as far as the database"
