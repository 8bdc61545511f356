"""A run's page, the list of runs, the people of a run as a file, and why somebody got it or not."""

import csv
import io
import re
from datetime import date, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.models import Action, AuditEvent
from delivery import books
from delivery.models import Delivery, State
from delivery.providers.base import Answer, Verdict
from frontend.zones import TIMES_COOKIE, ZONE_COOKIE
from schedules.models import Occurrence, OccurrenceState, Recipient, ScheduleStatus
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.integration.test_pages import text_of
from tests.service import DAY, HOUR, only_occurrence, states

pytestmark = pytest.mark.django_db

HTMX = {"HTTP_HX_REQUEST": "true"}


def page_of(schedule, role=Role.ANALYST, **query):
    return text_of(signed_in(role).get(f"/occurrences/{only_occurrence(schedule).pk}/", query))


@pytest.fixture
def mail(service):
    """A finished run by mail: five who got it, one without an address, one who opted out."""
    people(5)
    RecipientFactory(external_id="no-address", email="")
    RecipientFactory(external_id="opted-out", consent={"email": False})
    schedule = ScheduleFactory(name="Mail")
    service.step()
    return schedule


@pytest.fixture
def half(service):
    """A run of 60 people at two hours: 40 have it, 20 wait for the hour of Kathmandu's neighbours."""
    people(40, time_zone="Asia/Kathmandu")
    people(20, time_zone="Europe/Berlin")
    schedule = ScheduleFactory(name="Half", time_zone_mode="user_local", run_at=NOW + timedelta(hours=20), now=NOW)
    service.run_to(NOW + timedelta(hours=15))
    assert states(schedule) == {"sent": 40, "pending": 20}
    return schedule


# The page


@pytest.mark.parametrize("role", Role)
def test_a_run_shows_its_figures_books_reasons_and_punctuality(mail, role):
    page = page_of(mail, role)
    assert "5 sent, 2 left out" in page
    assert "People 7 Sent 5 Failed 0 Left out 2 Still waiting 0 Done 100%" in page
    assert "The books close: 7 targeted, 7 accounted for." in page
    assert "7 targeted = 5 sent + 1 suppressed + 1 no address" in page
    assert "sent 5 5" in page
    assert "no address The profile has no address for this channel. Add what is missing to the profiles" in page
    assert "2026-11-21 10:00:00 UTC 7 5 0 ms 0 ms 0 ms" in page


def test_books_that_do_not_close_are_said_loudly(mail):
    run = only_occurrence(mail)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE schedules_occurrence SET targeted = targeted + 1 WHERE id = %s", [run.pk])
        page = page_of(mail)
        cursor.execute("UPDATE schedules_occurrence SET targeted = targeted - 1 WHERE id = %s", [run.pk])
    assert "The books do not close: 8 targeted, 7 counted." in page


def test_an_open_run_says_that_it_is_open_and_a_run_of_nobody_has_books_too(service):
    people(3)
    waits = ScheduleFactory(run_at=NOW + timedelta(seconds=30), now=NOW)
    service.open()
    page = page_of(waits)
    assert "Still open. So far 3 targeted, 3 accounted for." in page
    assert "pending 3 3" in page
    Recipient.objects.all().delete()
    nobody = ScheduleFactory()
    service.step()
    client = signed_in(Role.MARKETER)
    page = text_of(client.get(f"/occurrences/{only_occurrence(nobody).pk}/"))
    assert "The books close: 0 targeted, 0 accounted for." in page


def test_of_a_large_run_the_rows_are_read_only_when_asked_for(mail, monkeypatch):
    monkeypatch.setattr(books, "AT_ONCE", 3)
    address = f"/occurrences/{only_occurrence(mail).pk}/"
    client = signed_in(Role.ANALYST)
    with CaptureQueriesContext(connection) as queries:
        page = text_of(client.get(address))
    on_rows = [query["sql"] for query in queries if "delivery_delivery" in query["sql"]]
    assert all("delivery_batch" in sql for sql in on_rows)  # a sample of batches, never the whole run
    assert "The books close: 7 targeted, 7 accounted for." in page
    assert "sent 5 5" not in page
    assert "Read the rows: reasons, books and punctuality" in page
    assert "sent 5 5" in text_of(client.get(f"{address}?rows=1"))


def test_each_zone_of_a_user_local_run_has_its_line_on_its_own_clock(half):
    page = page_of(half)
    assert "2026-11-22 06:00:00 on each recipient's own clock" in page
    assert "Asia/Kathmandu 2026-11-22 06:00:00 Asia/Kathmandu (UTC+05:45) 40 40 0 0 ms done" in page
    assert "Europe/Berlin 2026-11-22 06:00:00 Europe/Berlin (UTC+01:00) 20 0 20 — ahead" in page
    assert "Still waiting 20 Done 66%" in page


def test_instants_follow_the_clock_that_the_viewer_has_chosen(half):
    client = signed_in(Role.ANALYST)
    client.cookies[TIMES_COOKIE], client.cookies[ZONE_COOKIE] = "mine", "Asia/Tokyo"
    page = text_of(client.get(f"/occurrences/{only_occurrence(half).pk}/"))
    assert "Europe/Berlin 2026-11-22 14:00:00 Asia/Tokyo (UTC+09:00) 20 0 20" in page
    person = Recipient.objects.filter(time_zone="Asia/Kathmandu").first()
    told = text_of(client.get(f"/ledger/{only_occurrence(half).pk}/{person.pk}/"))
    assert "It was sent at 2026-11-22 09:15:00 Asia/Tokyo (UTC+09:00)." in told


def test_a_page_costs_a_fixed_number_of_queries(half, django_assert_max_num_queries):
    client = signed_in(Role.MARKETER)
    address = f"/occurrences/{only_occurrence(half).pk}/"
    client.get(address)
    with django_assert_max_num_queries(26):
        client.get(address)


# Progress


def poll(client, schedule):
    """What the page asks for every two seconds, as its last look would."""
    run = only_occurrence(schedule)
    page = client.get(f"/occurrences/{run.pk}/").content.decode()
    return re.search(r'hx-get="([^"]+/progress[^"]*)"', page)[1]


def test_figures_change_without_reloading_at_the_cost_of_counters(service, half, django_assert_max_num_queries):
    client = signed_in(Role.ANALYST)
    address = poll(client, half)
    client.get(address, **HTMX)
    with django_assert_max_num_queries(14), CaptureQueriesContext(connection) as queries:
        answer = client.get(address, **HTMX)
    assert "HX-Retarget" not in answer.headers
    assert 'hx-trigger="every 2s"' in answer.content.decode()
    assert "<html" not in answer.content.decode()
    assert not [query for query in queries if "GROUP BY d.wave_at" in query["sql"] and "batch" not in query["sql"]]
    with connection.cursor() as cursor:  # as workers do meanwhile
        cursor.execute("UPDATE delivery_batch SET pending = pending - 5, sent = sent + 5 WHERE pending >= 20")
        text = text_of(client.get(address, **HTMX))
        cursor.execute("UPDATE delivery_batch SET pending = pending + 5, sent = sent - 5 WHERE pending >= 15")
    assert "45 sent, 15 still wait" in text
    assert "The run is 70 per cent done." in text


def test_a_run_that_is_over_is_shown_whole_and_asks_no_more(service, half):
    client = signed_in(Role.ANALYST)
    address = poll(client, half)
    service.run_to(NOW + timedelta(hours=20))
    answer = client.get(address, **HTMX)
    assert (answer.headers["HX-Retarget"], answer.headers["HX-Reswap"]) == ("#run", "outerHTML")
    assert "every 2s" not in answer.content.decode()
    assert "The books close: 60 targeted, 60 accounted for." in text_of(answer)
    assert "every 2s" not in client.get(f"/occurrences/{only_occurrence(half).pk}/").content.decode()


# The schedule at hand


def decide(client, schedule, verb, **form):
    return client.post(f"/occurrences/{only_occurrence(schedule).pk}/schedule/{verb}/", form, follow=True)


def test_a_run_is_paused_resumed_and_cancelled_where_one_watches_it(half):
    client = signed_in(Role.MARKETER)
    page = text_of(client.get(f"/occurrences/{only_occurrence(half).pk}/"))
    assert "Pausing belongs to the schedule “Half”" in page
    page = text_of(decide(client, half, "pause", reason="The offer is wrong"))
    assert "The schedule is paused: no call to the provider starts any more." in page
    assert "Nothing is sent: the schedule is paused. Reason: The offer is wrong" in page
    assert "once the schedule is resumed" in page
    assert "Yes, pause the schedule" not in page
    assert "The schedule goes on where it stopped." in text_of(decide(client, half, "resume"))
    page = text_of(decide(client, half, "cancel"))
    assert "The schedule is cancelled" in page
    assert "Yes, cancel the schedule" not in page
    half.refresh_from_db()
    assert half.status == ScheduleStatus.CANCELLED
    assert list(AuditEvent.objects.order_by("-id").values_list("action", flat=True)[:3]) == [
        Action.SCHEDULE_CANCEL,
        Action.SCHEDULE_RESUME,
        Action.SCHEDULE_PAUSE,
    ]
    assert "The schedule is cancelled." in text_of(decide(client, half, "resume"))


def test_what_makes_no_sense_changes_nothing(half):
    client = signed_in(Role.MARKETER)
    assert decide(client, half, "explode").status_code == 404
    assert "at most 500 characters" in text_of(decide(client, half, "pause", reason="x" * 501))
    assert "Reason: Null characters are not allowed" in text_of(decide(client, half, "pause", reason="a\0b"))
    half.refresh_from_db()
    assert half.status == ScheduleStatus.ACTIVE


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_an_analyst_watches_and_decides_nothing(half, verb):
    client = signed_in(Role.ANALYST)
    page = client.get(f"/occurrences/{only_occurrence(half).pk}/").content.decode()
    assert f"/schedule/{verb}/" not in page
    assert decide(client, half, verb).status_code == 403
    assert client.get(f"/occurrences/{only_occurrence(half).pk}/schedule/{verb}/").status_code == 405


# The people as a file


def table(response):
    text = b"".join(response.streaming_content).decode()
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:])))


@pytest.fixture
def failures(service, provider):
    """Three whom the provider rejects, one of them with a name that a spreadsheet would compute; one who got it."""
    rejected = [*people(2), RecipientFactory(external_id="=cmd|' /C calc'!A0", email="anna@example.com")]
    people(1)
    ids = {person.pk for person in rejected}
    refused = (Verdict.PERMANENT, "message_rejected", "", "550 no such user")
    provider.answer = staticmethod(lambda m: Answer(m.key, *(refused if m.recipient_id in ids else (Verdict.SENT, ""))))
    schedule = ScheduleFactory()
    service.step()
    return schedule


def test_who_failed_by_a_reason_is_a_file_of_those_people_and_nobody_else(failures):
    client = signed_in(Role.MARKETER)
    page = client.get(f"/occurrences/{only_occurrence(failures).pk}/").content.decode()
    (link,) = re.findall(r'href="([^"]+people\.csv\?[^"]+)"', page)
    response = client.get(link.replace("&amp;", "&"))
    assert f'filename="run-{only_occurrence(failures).pk}-message_rejected.csv"' in response["Content-Disposition"]
    rows = table(response)
    assert len(rows) == 3
    assert {row["Reason"] for row in rows} == {"The provider rejected the message."}
    assert {row["The provider's own words"] for row in rows} == {"550 no such user"}
    assert len(table(client.get(f"/occurrences/{only_occurrence(failures).pk}/people.csv"))) == 4


def test_no_cell_is_a_formula_and_no_address_is_given_to_an_analyst(failures):
    address = f"/occurrences/{only_occurrence(failures).pk}/people.csv?state=11"
    rows = {row["External id"]: row for row in table(signed_in(Role.ANALYST).get(address))}
    assert rows["'=cmd|' /C calc'!A0"]["Address"] == "a…@example.com"
    assert "anna@example.com" in {row["Address"] for row in table(signed_in(Role.MARKETER).get(address))}


def test_a_file_is_read_in_pieces_and_asks_for_what_there_is(failures, monkeypatch):
    monkeypatch.setattr("frontend.pages.people_csv._AT_ONCE", 1)
    client = signed_in(Role.ANALYST)
    address = f"/occurrences/{only_occurrence(failures).pk}/people.csv"
    assert len({row["External id"] for row in table(client.get(address))}) == 4
    assert len(table(client.get(f"{address}?state=11"))) == 3
    for senseless in ("?state=x", "?state=99", "?reason='--"):
        assert client.get(address + senseless).status_code == 400
    assert client.get("/occurrences/999999/people.csv").status_code == 404


# One person


def test_one_person_of_a_run_is_looked_up_with_the_whole_story(mail):
    page = page_of(mail, person="no-address")
    assert "no address Not sent. The profile has no address for this channel." in page
    assert "What happened" in page
    client = signed_in(Role.MARKETER)
    address = f"/occurrences/{only_occurrence(mail).pk}/person"
    answer = client.get(address, {"person": "opted-out"}, **HTMX)
    assert "Not sent. Opted out of this channel." in text_of(answer)
    assert '<p id="said" hx-swap-oob="innerHTML">Not sent.' in answer.content.decode()
    assert "<html" not in answer.content.decode()
    assert "<html" in client.get(address, {"person": "opted-out"}).content.decode()
    assert "Nobody has this external id." in text_of(client.get(address, {"person": "who"}, **HTMX))
    assert "Say who is meant" in text_of(client.get(address, **HTMX))


def test_who_was_not_in_the_run_is_told_by_which_clause(service):
    query = {"all": [{"field": "attributes.plan", "op": "eq", "value": "pro"}]}
    people(1, attributes={"plan": "pro"})
    anna = RecipientFactory(external_id="anna", attributes={"plan": "anna@example.com"})
    Recipient.objects.filter(pk=anna.pk).update(created_at=NOW - DAY)
    schedule = ScheduleFactory(audience_query=query)
    service.step()
    page = page_of(schedule, person="anna")
    assert "The person was not in the audience when the run found its people at 2026-11-21 10:00:00 UTC." in page
    assert "whose plan is “pro” a…@example.com no decides" in page


# Why


def test_why_is_asked_by_name_and_answered_for_the_latest_run(mail):
    client = signed_in(Role.ANALYST)
    assert "Name a person and a schedule" in text_of(client.get("/explain/"))
    said = "Not sent. Opted out of this channel."
    for schedule in ("Mail", "mai", str(mail.pk)):
        assert said in text_of(client.get("/explain/", {"recipient": "opted-out", "schedule": schedule}))
    latest = text_of(client.get("/explain/", {"recipient": "opted-out"}))
    assert "The latest to this person" in latest
    assert "suppressed Opted out of this channel." in latest


def test_what_is_not_clear_is_asked_back(mail):
    other = ScheduleFactory(name="Mail to friends", run_at=NOW + DAY)
    client = signed_in(Role.ANALYST)

    def asked(**query):
        return text_of(client.get("/explain/", query))

    assert "Which schedule is meant?" in asked(recipient="opted-out", schedule="ail")
    link = f"/explain/?recipient=opted-out&amp;schedule={other.pk}"
    assert link in client.get("/explain/", {"recipient": "opted-out", "schedule": "ail"}).content.decode()
    assert "The schedule has not run yet. The person is due at" in asked(recipient="opted-out", schedule=other.pk)
    assert "No schedule is called so." in asked(recipient="opted-out", schedule="never")
    assert "Nobody has this external id." in asked(recipient="who", schedule="Mail")
    assert "Say who is meant" in asked(schedule="Mail")
    assert "Nobody is known by this name." in asked(recipient="#999999", schedule="Mail")
    assert "No run of the last weeks had this person in it." in asked(recipient="#999999")
    assert "There is no" not in asked(recipient="\0", schedule="9" * 30)


# The list of runs


def test_runs_under_way_stand_first_then_the_newest(service, mail):
    people(3)
    ahead = ScheduleFactory(name="Soon", run_at=NOW + timedelta(minutes=1), now=NOW)
    service.open()
    page = text_of(signed_in(Role.ANALYST).get("/occurrences/"))
    assert page.index("Under way and ahead") < page.index("Soon") < page.index("Over") < page.index("Mail run")
    assert "5 sent, 2 left out" in page
    assert "10 still wait" in page
    assert only_occurrence(ahead).state == OccurrenceState.RUNNING


def test_runs_are_filtered_in_the_address(service, mail):
    note = ScheduleFactory(name="Note", channel="in_app", cron="0 * * * *")
    service.run_to(NOW + HOUR)
    Occurrence.objects.filter(schedule=note).update(
        held_reason="failures", held_at=NOW, closed_at=None, state="running"
    )
    client = signed_in(Role.ANALYST)

    def found(**query):
        return {line.run.schedule.name for line in client.get("/occurrences/", query).context["lines"]}

    assert found(schedule="ote") == found(channel="in_app") == found(state="held") == found(state="open") == {"Note"}
    assert found(schedule=mail.pk) == found(state="finished") == found(channel="email") == {"Mail"}
    assert found(since="2026-11-22") == set()
    assert found(since="2026-11-21", until="2026-11-21") == {"Mail", "Note"}
    assert "No run fits." in text_of(client.get("/occurrences/", {"schedule": "never"}))
    assert client.get("/occurrences/", {"state": "x"}).status_code == 200
    assert "Begin anew" in text_of(client.get("/occurrences/", {"after": "nonsense"}))


def test_runs_are_paged_by_key_and_cost_a_fixed_number_of_queries(service, monkeypatch, django_assert_max_num_queries):
    people(1)
    schedule = ScheduleFactory(name="Hourly", cron="0 * * * *")
    service.run_to(NOW + timedelta(hours=5))
    monkeypatch.setattr("frontend.pages.occurrences.PAGE", 2)
    client = signed_in(Role.ANALYST)
    address, seen = "/occurrences/", []
    while address:
        with django_assert_max_num_queries(16), CaptureQueriesContext(connection) as queries:
            response = client.get(address)
        assert not [query for query in queries if "COUNT(" in query["sql"].upper()]
        seen += [line.run.pk for line in response.context["lines"]]
        address = response.context["following"]
    assert seen == list(schedule.occurrences.order_by("-occurrence_at").values_list("pk", flat=True))
    assert len(seen) == 5


def test_no_run_at_all_says_where_to_begin():
    assert "Nothing has run yet." in text_of(signed_in(Role.ANALYST).get("/occurrences/"))


def test_a_user_local_run_in_the_list_tells_the_wall_time(half):
    page = text_of(signed_in(Role.ANALYST).get("/occurrences/"))
    assert "2026-11-22 06:00:00 on each recipient's own clock" in page
    assert Delivery.objects.filter(state=State.SENT, day=date(2026, 11, 22)).count() == 40
