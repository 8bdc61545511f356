"""The pages beside the admin: ledger, outbox and inbox."""

import re
from dataclasses import replace
from datetime import date, timedelta
from html import unescape
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.translation import override

from delivery import erasure, listing
from delivery.listing import Filters, Key
from delivery.models import Delivery, InboxMessage, OutboxMessage, State
from delivery.providers.base import Verdict
from frontend.instants import show, show_seconds
from frontend.pages import ledger
from frontend.wording import reason
from frontend.wording.timings import ago, how_long
from schedules import templates
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.service import only_occurrence

pytestmark = pytest.mark.django_db

PAGES = ["/ledger/", "/outbox/", "/inbox/"]


def text_of(response) -> str:
    """The page as people read it."""
    without_markup = re.sub(
        r"<[^>]+>", " ", re.sub(r"<(script|style).*?</\1>", "", response.content.decode(), flags=re.S)
    )
    return " ".join(unescape(without_markup).split())


def rows_of(response):
    return response.context["rows"]


# Who comes in


@pytest.mark.parametrize("page", [*PAGES, "/occurrences/1/", "/outbox/1/", "/inbox/1/"])
def test_strangers_are_sent_to_the_login_and_people_without_a_role_are_refused(client, page):
    response = client.get(page)
    assert response.headers["Location"] == f"/admin/login/?next={page}"
    assert signed_in(None).get(page).status_code == 403


@pytest.mark.parametrize("role", Role)
def test_every_role_reads_every_page_and_an_empty_service_says_so(role):
    client = signed_in(role)
    for page in PAGES:
        response = client.get(page)
        assert response.status_code == 200
        assert "it fills when a schedule runs" in text_of(response)


def test_the_front_door_leads_inside_or_to_the_login(client):
    assert client.get("/").headers["Location"] == "/admin/login/"
    assert signed_in(Role.ANALYST).get("/").headers["Location"] == "/schedules/"


@pytest.mark.parametrize("page", [f"/{kind}/{n}/" for kind in ("occurrences", "outbox", "inbox") for n in (99, 10**30)])
def test_what_does_not_exist_is_not_found(page):
    assert signed_in(Role.ADMIN).get(page).status_code == 404


# The ledger


def test_a_row_says_who_got_what_when_in_both_zones_and_how_late(service):
    anna = RecipientFactory(external_id="anna", time_zone="Asia/Kathmandu")
    schedule = ScheduleFactory(name="Morning", cron="0 9 * * *", time_zone_mode="user_local", now=NOW)
    service.run_to(NOW + timedelta(hours=30))
    row = Delivery.objects.filter(recipient_id=anna.pk, state=State.SENT).get()
    page = text_of(signed_in(Role.ANALYST).get(f"/ledger/?occurrence={row.occurrence_id}"))
    assert "2026-11-22 09:00:00 Asia/Kathmandu (UTC+05:45) by the profile's zone" in page
    assert f"anna Morning run {row.occurrence_id}" in page
    assert "sent What happened 1 0 ms Read" in page
    assert schedule.occurrences.filter(pk=row.occurrence_id).exists()


def test_a_zone_that_is_missing_or_invalid_is_said(service):
    RecipientFactory(external_id="nowhere", time_zone="Not/AZone")
    RecipientFactory(external_id="without", time_zone="")
    ScheduleFactory(cron="0 9 * * *", time_zone_mode="user_local", time_zone="Europe/Berlin")
    service.run_to(NOW + timedelta(hours=30))
    page = text_of(signed_in(Role.ANALYST).get("/ledger/"))
    assert "by the schedule's zone, as the profile's is unknown" in page
    assert "by the schedule's zone, as the profile has none" in page
    assert "Europe/Berlin (UTC+01:00)" in page


def test_an_erased_person_is_a_number(service):
    anna = RecipientFactory(external_id="anna")
    people(2)
    ScheduleFactory(channel="in_app")
    service.step()
    erasure.forget(recipient_id=anna.pk, by="user:1", now=NOW)
    client = signed_in(Role.ADMIN)
    page = text_of(client.get("/ledger/"))
    assert f"erased person #{anna.pk}" in page
    assert "anna" not in page
    by_number = client.get("/ledger/", {"recipient": f"#{anna.pk}"})
    assert [row.delivery.recipient_id for row in rows_of(by_number)] == [anna.pk]
    assert "Nobody has this external id." in text_of(client.get("/ledger/", {"recipient": "anna"}))


def test_a_row_of_an_occurrence_that_is_gone_is_still_shown(service):
    person = RecipientFactory()
    schedule = ScheduleFactory()
    service.step()
    Delivery.objects.update(occurrence_id=0)
    page = text_of(signed_in(Role.ADMIN).get("/ledger/", {"recipient": f"#{person.pk}"}))
    Delivery.objects.update(occurrence_id=only_occurrence(schedule).pk)
    assert "run 0, gone" in page


@pytest.fixture
def mixed(service):
    """Two finished runs: seven people by mail (one without an address, one opted out), all by in-app."""
    people(5)
    RecipientFactory(external_id="no-address", email="")
    RecipientFactory(external_id="opted-out", consent={"email": False})
    mail = ScheduleFactory(name="Mail")
    note = ScheduleFactory(name="Note", channel="in_app")
    service.step()
    return mail, note


def test_the_ledger_filters_by_occurrence_schedule_recipient_state_and_reason(mixed):
    mail, note = mixed
    client = signed_in(Role.ANALYST)

    def found(**query):
        return {
            (row.person.external_id, row.occurrence.schedule.name) for row in rows_of(client.get("/ledger/", query))
        }

    assert len(found()) == 14
    assert {name for _, name in found(occurrence=only_occurrence(note).pk)} == {"Note"}
    assert {name for _, name in found(schedule=mail.pk)} == {"Mail"}
    assert found(recipient="opted-out") == {("opted-out", "Mail"), ("opted-out", "Note")}
    assert found(recipient="opted-out", schedule=mail.pk) == {("opted-out", "Mail")}
    assert found(recipient="opted-out", occurrence=only_occurrence(note).pk) == {("opted-out", "Note")}
    assert found(state=int(State.UNADDRESSABLE)) == {("no-address", "Mail")}
    assert found(reason="opted_out") == {("opted-out", "Mail")}
    assert found(state=int(State.SENT), recipient="no-address") == {("no-address", "Note")}
    assert found(state=int(State.FAILED)) == set()


def test_reasons_are_told_in_plain_words(mixed):
    page = text_of(signed_in(Role.ANALYST).get("/ledger/"))
    assert "no address The profile has no address for this channel." in page
    assert "suppressed Opted out of this channel." in page


@pytest.mark.parametrize(
    "query",
    [
        "occurrence=x",
        "occurrence=-1",
        "occurrence=" + "9" * 30,
        "schedule=" + "9" * 30,
        "recipient=who",
        "recipient=%23" + "9" * 30,
        "recipient=%239999999999999999999",
        "recipient=%00",
        "state=999",
        "reason=made-up",
        "reason=made_up",
        "after=nonsense",
        "after=20261121.1.99999999999999999999999",
        "after=20261121.9999999999999999999999.1",
        "recipient=no-address&after=20261121.9999999999999999999999.1",
    ],
)
def test_a_senseless_question_is_answered_with_a_page(mixed, query):
    assert signed_in(Role.ANALYST).get(f"/ledger/?{query}").status_code == 200


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 14])
@pytest.mark.parametrize("query", ["", "state=10", "recipient=no-address"])
def test_paging_by_key_shows_every_row_once_whatever_the_page_size(mixed, monkeypatch, size, query):
    monkeypatch.setattr(ledger, "PAGE", size)
    client = signed_in(Role.ANALYST)
    address, seen = f"/ledger/?{query}", []
    while address:
        response = client.get(address)
        assert len(rows_of(response)) <= size
        seen += [row.delivery.pk for row in rows_of(response)]
        address = response.context["following"]
    monkeypatch.setattr(ledger, "PAGE", 100)
    everything = [row.delivery.pk for row in rows_of(client.get(f"/ledger/?{query}"))]
    assert seen == everything
    assert len(set(seen)) == len(seen) > 1


def test_a_search_through_much_goes_on_with_the_next_page(service, mixed, monkeypatch):
    ScheduleFactory(audience_query={"all": [{"field": "external_id", "op": "eq", "value": "opted-out"}]})
    service.step()
    monkeypatch.setattr(listing, "BATCHES_A_PAGE", 1)
    first = listing.page(Filters(reason="no_address"), now=NOW, limit=50)
    assert (first.rows, first.following is None) == ([], False)
    second = listing.page(Filters(reason="no_address"), now=NOW, limit=50, after=first.following)
    assert [row.reason for row in second.rows] == ["no_address"]


def test_a_key_survives_its_way_through_an_address():
    key = Key(date(2026, 11, 22), 15, 1200)
    assert str(key) == "20261122.15.1200"
    assert Key.read(str(key)) == key
    assert Key.read(str(replace(key, batch_id=7))) == replace(key, batch_id=7)
    assert Key.read("20261122.15.") is None
    assert Key.read("") is None


@pytest.mark.parametrize("query", ["", "state=10", "recipient=no-address", "schedule=1", "reason=opted_out"])
def test_no_question_counts_the_ledger_and_every_one_names_the_day(mixed, query):
    client = signed_in(Role.ANALYST)
    with CaptureQueriesContext(connection) as queries:
        client.get(f"/ledger/?{query}")
    on_ledger = [item["sql"] for item in queries if re.search(r'FROM "?delivery_delivery\b', item["sql"])]
    assert on_ledger or query == "schedule=1"
    for sql in on_ledger:
        assert "COUNT(" not in sql.upper()
        assert re.search(r"\bday\b", sql.partition("WHERE ")[2])
        assert "LIMIT" in sql


def test_a_question_that_takes_too_long_is_cut_off_and_says_what_to_do(mixed, monkeypatch):
    def slow(*_, **__):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(5)")

    monkeypatch.setattr("frontend.pages.ledger.page", slow)
    monkeypatch.setattr("frontend.pages.ledger._TIMEOUT_MS", 50)
    page = text_of(signed_in(Role.ANALYST).get("/ledger/"))
    assert "That took too long. Name a run or a recipient." in page


def test_rows_of_a_page_cost_a_fixed_number_of_queries(mixed, django_assert_max_num_queries):
    client = signed_in(Role.ANALYST)
    client.get("/ledger/")
    with django_assert_max_num_queries(16):
        client.get("/ledger/")


def test_what_cannot_be_known_is_not_made_up(service, provider):
    provider.answers(Verdict.TRANSIENT, "unreachable")
    people(1)
    ScheduleFactory()
    service.step()
    page = text_of(signed_in(Role.ANALYST).get("/ledger/"))
    assert "pending The provider could not be reached." in page
    assert ", gone" not in page  # as of a run that was dropped


# Messages


def test_the_outbox_lists_the_newest_first_and_pages_by_key(service, monkeypatch):
    monkeypatch.setattr("frontend.pages.messages.PAGE", 2)
    people(5)
    ScheduleFactory(name="Mail")
    service.step()
    client = signed_in(Role.MARKETER)
    address, seen = "/outbox/", []
    while address:
        response = client.get(address)
        seen += [message.pk for message in response.context["messages_shown"]]
        address = response.context["following"]
    assert seen == sorted(OutboxMessage.objects.values_list("pk", flat=True), reverse=True)
    assert len(seen) == 5
    page = text_of(client.get("/outbox/"))
    assert "E-mail Mail 2026-11-21 10:00:00 UTC" in page


def test_messages_are_filtered_by_occurrence_and_recipient(mixed):
    mail, _ = mixed
    client = signed_in(Role.MARKETER)
    someone = OutboxMessage.objects.first().recipient

    def count(**query):
        return len(client.get("/outbox/", query).context["messages_shown"])

    assert count(occurrence=only_occurrence(mail).pk) == 5
    assert count(occurrence=10**9) == 0
    assert count(recipient=someone.external_id) == 1
    assert "Nobody has this external id." in text_of(client.get("/outbox/", {"recipient": "who"}))
    for query in ({"before": "x"}, {"before": 10**30}, {"occurrence": 10**30}, {"recipient": "\0"}):
        assert client.get("/outbox/", query).status_code == 200


def test_listing_messages_counts_nothing(mixed):
    client = signed_in(Role.MARKETER)
    with CaptureQueriesContext(connection) as queries:
        client.get("/outbox/")
        client.get("/inbox/")
    assert not [query for query in queries if "COUNT(" in query["sql"].upper()]


def html_message(service) -> OutboxMessage:
    contents = [
        {
            "channel": "email",
            "locale": "en",
            "subject": "Hello",
            "text": "Plain words",
            "html": '<p>Rich words</p><script>alert("x")</script>',
        }
    ]
    template = templates.save(name="Rich", contents=contents, by="user:1", now=NOW)
    RecipientFactory(external_id="anna", email="anna@example.com")
    ScheduleFactory(template_id=template.pk)
    service.step()
    return OutboxMessage.objects.get()


def test_the_html_of_a_message_is_shown_in_a_sandbox_with_a_policy_of_its_own(service):
    message = html_message(service)
    page = signed_in(Role.MARKETER).get(f"/outbox/{message.pk}/").content.decode()
    (frame,) = re.findall(r"<iframe[^>]*>", page)
    assert 'sandbox=""' in frame
    assert f'src="/outbox/{message.pk}/body"' in frame
    assert "<script>alert" not in page
    body = signed_in(Role.ANALYST).get(f"/outbox/{message.pk}/body")
    assert body.content.decode() == message.html
    policy = body["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy.split("; ")
    assert "script-src" not in policy


def test_a_message_leads_to_the_newer_and_the_older_one(mixed):
    middle = OutboxMessage.objects.order_by("pk")[2]
    client = signed_in(Role.MARKETER)
    context = client.get(f"/outbox/{middle.pk}/").context
    assert (context["older"], context["newer"]) == (middle.pk - 1, middle.pk + 1)
    newest = OutboxMessage.objects.order_by("-pk").first()
    assert client.get(f"/outbox/{newest.pk}/").context["newer"] is None


def test_an_analyst_reads_messages_but_no_address(service):
    message = html_message(service)
    analyst = signed_in(Role.ANALYST)
    for page in ("/outbox/", f"/outbox/{message.pk}/"):
        assert "anna@example.com" not in text_of(analyst.get(page))
        assert "a…@example.com" in text_of(analyst.get(page))
    assert "anna@example.com" in text_of(signed_in(Role.MARKETER).get("/outbox/"))


def test_the_inbox_is_shown_likewise(mixed):
    message = InboxMessage.objects.first()
    client = signed_in(Role.ANALYST)
    assert len(client.get("/inbox/").context["messages_shown"]) == 7
    page = text_of(client.get(f"/inbox/{message.pk}/"))
    assert message.title in page
    assert "In-app" in page
    assert "<iframe" not in client.get(f"/inbox/{message.pk}/").content.decode()


# Words


def test_every_page_of_ours_is_free_of_inline_scripts_and_handlers():
    for template in Path("frontend/templates").rglob("*.html"):
        source = template.read_text()
        assert not re.search(r"<script(?! src=)|\son\w+=|javascript:|style=", source), template


def test_a_reason_without_a_sentence_is_shown_readably():
    assert reason("some_new_thing") == "some new thing"
    assert reason("down") == "The service did not run at the promised time."


@pytest.mark.parametrize(
    ("zone", "shown"),
    [
        ("UTC", "2026-11-21 10:00:00 UTC"),
        ("Asia/Kathmandu", "2026-11-21 15:45:00 Asia/Kathmandu (UTC+05:45)"),
        ("America/New_York", "2026-11-21 05:00:00 America/New_York (UTC-05:00)"),
        ("Not/AZone", "2026-11-21 10:00:00 UTC"),
    ],
)
def test_an_instant_is_shown_with_zone_and_offset(zone, shown):
    assert show(NOW, zone) == shown


def test_no_instant_and_no_length_are_a_dash():
    assert show(None) == "—"
    assert show_seconds(None) == "—"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 ms"),
        (0.1204, "120 ms"),
        (-0.5, "-500 ms"),
        (-0.0001, "0 ms"),
        (3.42, "3.4 s"),
        (119, "119 s"),
        (600, "10 min"),
        (72_000, "20 h"),
        (8_280, "2.3 h"),
    ],
)
def test_a_length_of_time_is_shown_in_the_unit_that_fits(seconds, shown):
    assert show_seconds(seconds) == shown


def test_a_length_of_time_is_written_and_said_in_the_viewers_language():
    with override("de"):
        assert (show_seconds(8_280), how_long(8_280), ago(95)) == ("2,3 h", "2 Stunden", "vor 95 Sekunden")
    assert [how_long(each) for each in (0.057, 1, 57.4, 5_400)] == [
        *("less than a second", "1 second", "57 seconds", "90 minutes")
    ]
