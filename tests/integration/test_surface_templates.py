"""Hostile templates at every door: saving, both previews, and a run that sends what was let in."""

import json

import pytest
from django.urls import reverse

from delivery import dispatch, materialise, sending
from delivery.models import Delivery, State
from delivery.rendering_limits import MAX_PART, MAX_SUBJECT
from schedules.content import CONTROL
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.corpora import corpus
from tests.factories import NOW, RecipientFactory, ScheduleFactory
from tests.unit.test_hostile_templates import HOSTILE, LEAKS, READER

pytestmark = pytest.mark.django_db

SETTLED = {State.SENT, State.FAILED}
# Every so-manieth line goes through the previews too, which ask the same code.
STEP = 4
# The unit test has every line in every part.
THIRD = 3


def _contents(source, *, subject):
    return {"channel": "email", "locale": "en", "subject": subject, "text": source or "T", "html": source}


def _form(source):
    sections = {f"contents-0-{name}": value for name, value in _contents(source, subject="S").items()}
    return {"contents-TOTAL_FORMS": "1", "contents-INITIAL_FORMS": "0", "preview-channel": "email", **sections}


def _check_refusal(answer, source):
    told = answer.json()
    assert answer.status_code == 400, source
    assert answer["Content-Type"] == "application/problem+json"
    pointers = [error["pointer"] for error in told.get("errors", ())]
    assert all(each.startswith("/contents/0") for each in pointers), (source, pointers)
    assert pointers or told["type"].endswith("#unreadable"), source
    assert all(len(error["detail"]) > 10 for error in told.get("errors", ()))


@pytest.fixture
def reader(service, settings):
    settings.API_RATE, settings.API_BURST = 1e6, 1_000_000
    attributes = {**READER["attributes"], "deep": [[[["bottom"]]]], "items": ["a", {"name": HOSTILE}, 3]}
    return RecipientFactory.create(external_id="ann", attributes=attributes)


def test_what_is_let_in_is_sent_or_fails_alone_and_the_rest_is_refused_in_words(service, provider, reader):
    api, page = Api(token()), signed_in(Role.MARKETER)
    saved = []
    for number, source in enumerate(corpus("templates")[::THIRD]):
        for subject in (source, "S"):
            contents = [_contents(source, subject=subject)]
            answer = api.post("templates", {"name": f"T{number}", "contents": contents})
            if answer.status_code == 201:
                saved.append(answer.json()["id"])
                break
            _check_refusal(answer, source)
        if number % STEP == 1:
            answer = api.post("templates:preview", {"contents": contents, "channel": "email", "recipient": "ann"})
            if answer.status_code != 200:
                _check_refusal(answer, source)
            else:
                assert "<script>pwned" not in answer.json()["html"].lower()
        if number % STEP == 0 and "\ud800" not in source:
            told = page.post(reverse("template-preview"), _form(source))
            assert told.status_code == 200, source
            assert b"<script>pwned" not in told.content.lower()
            body = page.post(reverse("template-preview-body"), _form(source))
            assert (body.status_code, "sandbox" in body["Content-Security-Policy"]) == (200, True), source
    assert len(saved) >= 40
    for template_id in saved:
        ScheduleFactory.create(template_id=template_id)
    # As the service's steps, but with one look at the books, at the end: there are hundreds of runs.
    dispatch.open_due(now=NOW)
    for occurrence_id in dispatch.to_materialise():
        assert materialise.lease(occurrence_id)
        materialise.materialise(occurrence_id=occurrence_id, now=NOW)
    while handouts := dispatch.take_due(now=NOW):
        for handout in handouts:
            sending.send(batch_ids=handout.batch_ids)
    rows = Delivery.objects.values_list("state", "reason")
    assert len(rows) == len(saved)
    assert {state for state, _ in rows} == SETTLED
    reasons = {reason for state, reason in rows if state == State.FAILED}
    assert reasons <= {"template_error", "fuel_exhausted", "too_large", "header_injection"}
    sent = provider.messages()
    assert len(sent) == sum(state == State.SENT for state, _ in rows)
    for message in sent:
        assert len(message.subject) <= MAX_SUBJECT
        assert not CONTROL.search(message.subject)
        assert max(len(message.text.encode()), len(message.html.encode())) <= MAX_PART
        said = json.dumps([message.subject, message.text, message.html]).lower()
        assert not [word for word in LEAKS if word in said]
        assert "<script>pwned" not in message.html.lower()
