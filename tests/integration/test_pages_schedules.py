"""The schedules' pages: the list, what is done from it, one schedule, its versions, its tests, and the calendar."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from delivery import agenda
from delivery.models import TestSend
from frontend.wording.timings import cron_in_words
from schedules import operations
from schedules.audience.parser import parse
from schedules.models import Occurrence, OccurrenceState, Schedule, ScheduleStatus
from schedules.permissions import Role
from schedules.user_service import counting
from tests.accounts import account, signed_in
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.integration.test_pages import text_of
from tests.service import MINUTE, only_occurrence

pytestmark = pytest.mark.django_db

MONDAYS = {"cron": "0 9 * * MON", "time_zone": "Europe/Berlin"}


@pytest.fixture
def marketer():
    return signed_in(Role.MARKETER)


def names(response) -> list[str]:
    return [row.schedule.name for row in response.context["rows"]]


# The list


def test_home_leads_to_the_schedules(marketer):
    assert marketer.get("/").headers["Location"] == "/schedules/"


def test_without_schedules_there_is_one_sentence_and_one_button(service, marketer):
    page = text_of(marketer.get("/schedules/"))
    assert "There are no schedules yet." in page
    assert page.count("New schedule") == 2  # on top, and where the list would be
    assert "New schedule" not in text_of(signed_in(Role.ANALYST).get("/schedules/"))


def test_before_the_first_schedule_it_is_said_what_is_still_needed(service, marketer):
    page = text_of(marketer.get("/schedules/"))
    assert "People to write to: an admin imports them." in page
    assert "Import people" not in page
    assert "Import people" in text_of(signed_in(Role.ADMIN).get("/schedules/"))
    RecipientFactory()
    TemplateFactory()
    page = text_of(marketer.get("/schedules/"))
    assert "complete: People to write to" in page
    assert "complete: A template" in page
    assert "New template" not in page


# Each with what it says while there is nothing.
EMPTY = {
    "/schedules/": "There are no schedules yet.",
    "/calendar/": "Nothing was sent in this month, and nothing is planned in it.",
    "/calendar/?view=agenda": "Nothing was sent in these days, and nothing is planned in them.",
    "/templates/": "There is no template yet",
    "/catalogues/": "There are no translations yet.",
    "/recipients/": "There is nobody yet",
    "/recipients/import/": "No file was uploaded in the last thirty days.",
    "/dashboard/": "Nothing was settled in this time.",
    "/occurrences/": "Nothing has run yet.",
    "/audit/": "Nothing has happened yet.",
}


@pytest.mark.parametrize("address", EMPTY)
def test_a_new_installation_says_on_each_page_what_will_be_there(service, address):
    assert EMPTY[address] in text_of(signed_in(Role.ADMIN).get(address))


def test_what_fits_no_filter_offers_the_way_back(service, marketer):
    ScheduleFactory()
    page = marketer.get("/schedules/?text=nothing+of+that+name")
    assert "No schedule fits" in text_of(page)
    assert "Show all schedules" in text_of(page)


def test_a_row_tells_in_words_how_a_schedule_stands(service, provider, marketer):
    people(3)
    RecipientFactory(external_id="gone", email="")
    ScheduleFactory(name="Weekly digest", **MONDAYS)
    sent = ScheduleFactory(name="Launch")
    service.step()
    page = text_of(marketer.get("/schedules/"))
    assert "Every Monday at 09:00, Europe/Berlin" in page
    assert "2026-11-23 09:00:00 Europe/Berlin (UTC+01:00)" in page
    assert "not counted yet" in page
    assert "4 people at the last run" in page
    assert "3 sent, 1 left out" in page
    assert f"/occurrences/{only_occurrence(sent).pk}/" in marketer.get("/schedules/").content.decode()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("status=paused", ["B"]),
        ("channel=push", ["A"]),
        ("schedule_type=cron", ["B"]),
        ("created_by=user:77", ["C"]),
        ("text=b", ["B"]),
        ("order=name", ["A", "B", "C"]),
        ("order=-name", ["C", "B", "A"]),
        ("order=next&status=active", ["C", "A"]),
    ],
)
def test_filters_and_orders_stand_in_the_address(service, marketer, asked, found):
    ScheduleFactory(name="A", channel="push", run_at=NOW + timedelta(days=2))
    paused = ScheduleFactory(name="B", **MONDAYS)
    operations.pause(schedule_id=paused.pk, by=BY, now=NOW)
    third = ScheduleFactory(name="C", run_at=NOW + timedelta(days=1))
    Schedule.objects.filter(pk=third.pk).update(created_by="user:77")
    assert names(marketer.get(f"/schedules/?{asked}")) == found


def test_a_schedule_is_found_by_its_number_and_the_deleted_by_nothing(service, marketer):
    first, second = ScheduleFactory(name="One"), ScheduleFactory(name="Two")
    assert names(marketer.get(f"/schedules/?text={first.pk}")) == ["One"]
    operations.delete(schedule_id=second.pk, by=BY, now=NOW)
    assert names(marketer.get("/schedules/")) == ["One"]
    assert marketer.get(f"/schedules/{second.pk}/").status_code == 404


def test_pages_follow_each_other_without_gap_whatever_the_order(service, marketer, monkeypatch):
    monkeypatch.setattr("frontend.pages.schedules.listing.PAGE", 2)
    for name in "ABCDE":
        ScheduleFactory(name=name, draft=True, run_at=None)
    seen, link = [], "/schedules/?order=name&status=draft"
    while link:
        response = marketer.get(link)
        seen += names(response)
        link = response.context["following"]
    assert seen == list("ABCDE")


def test_a_place_in_another_order_leads_to_the_first_page(service, marketer):
    ScheduleFactory()
    assert marketer.get("/schedules/?after=nonsense&order=name").headers["Location"] == "/schedules/?order=name"


def test_the_list_asks_as_many_statements_for_fifty_rows_as_for_one(service, provider, marketer):
    people(2)
    template = TemplateFactory()

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as asked:
            assert marketer.get("/schedules/").status_code == 200
        assert not [each for each in asked if "COUNT(" in each["sql"].upper() and "schedules_schedule" in each["sql"]]
        return len(asked)

    ScheduleFactory(template_id=template.pk)
    service.step()
    few = queries()
    for _ in range(10):
        ScheduleFactory(template_id=template.pk)
    service.step()
    assert queries() == few
    assert few <= 14


# What is done from it


@pytest.mark.parametrize(
    ("verb", "status"),
    [("pause", "paused"), ("cancel", "cancelled"), ("delete", "deleted")],
)
def test_an_action_tells_what_it_does_and_does_it_when_told_again(service, marketer, verb, status):
    schedule = ScheduleFactory(name="Launch")
    asked = marketer.get(f"/schedules/{schedule.pk}/do/{verb}/")
    assert "“Launch”" in text_of(asked)
    assert "No, leave it as it is" in text_of(asked)
    schedule.refresh_from_db()
    assert schedule.status == "active"
    done = marketer.post(f"/schedules/{schedule.pk}/do/{verb}/", {"version": 1})
    assert done.status_code == 302
    schedule.refresh_from_db()
    assert schedule.status == status
    assert "“Launch”" in text_of(marketer.get("/schedules/"))


def test_a_confirmation_says_how_many_still_wait(service, marketer):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    assert "people who have not got it yet: 3." in text_of(marketer.get(f"/schedules/{schedule.pk}/do/cancel/"))


def test_for_the_modal_the_question_comes_alone_and_goes_back_to_where_it_was_asked(service, marketer):
    schedule = ScheduleFactory()
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/schedules/?status=active"}
    asked = marketer.get(f"/schedules/{schedule.pk}/do/pause/", headers=headers)
    assert "<html" not in asked.content.decode()
    assert asked.context["next"] == "http://testserver/schedules/?status=active"
    foreign = marketer.post(f"/schedules/{schedule.pk}/do/pause/", {"next": "https://elsewhere.example/"})
    assert foreign.headers["Location"] == f"/schedules/{schedule.pk}/"


def test_a_pause_keeps_its_reason(service, marketer):
    schedule = ScheduleFactory()
    marketer.post(f"/schedules/{schedule.pk}/do/pause/", {"reason": "The stock is gone"})
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/"))
    assert "Reason given: The stock is gone" in page
    assert "Nothing is sent until somebody resumes it." in page


def test_what_its_state_does_not_admit_is_refused_in_words(service, marketer):
    schedule = ScheduleFactory()
    operations.cancel(schedule_id=schedule.pk, by=BY, now=NOW)
    refused = text_of(marketer.get(f"/schedules/{schedule.pk}/do/resume/"))
    assert "It is cancelled, so this can't be done." in refused
    assert "It goes on where it stopped" not in refused
    marketer.post(f"/schedules/{schedule.pk}/do/resume/")
    assert "It is cancelled, so this can't be done." in text_of(marketer.get("/schedules/"))


def test_whoever_deletes_what_somebody_else_has_changed_is_told_so(service, marketer):
    schedule = ScheduleFactory()
    someone = account(Role.MARKETER, name="olivia")
    operations.update(
        schedule_id=schedule.pk, changes={"name": "Changed"}, by=f"user:{someone.pk}", now=NOW, expected_version=1
    )
    marketer.post(f"/schedules/{schedule.pk}/do/delete/", {"version": 1})
    assert "olivia has changed it meanwhile (version 2)" in text_of(marketer.get("/schedules/"))
    schedule.refresh_from_db()
    assert schedule.status == "active"


def test_a_copy_and_a_run_at_once_lead_to_what_was_made(service, marketer):
    schedule = ScheduleFactory(**MONDAYS)
    answer = marketer.post(f"/schedules/{schedule.pk}/do/duplicate/")
    copy = Schedule.objects.latest("pk")
    assert answer.headers["Location"] == f"/schedules/{copy.pk}/"
    assert copy.status == ScheduleStatus.DRAFT
    assert copy.name == f"Copy of {schedule.name}"
    marketer.post(f"/schedules/{schedule.pk}/do/duplicate/", headers={"Accept-Language": "de"})
    assert Schedule.objects.latest("pk").name == f"Kopie von {schedule.name}"
    answer = marketer.post(f"/schedules/{schedule.pk}/do/run-now/")
    assert answer.headers["Location"] == f"/occurrences/{only_occurrence(schedule).pk}/"


def test_a_draft_says_what_is_missing_and_is_activated_where_all_of_it_is_reviewed(service, marketer):
    draft = ScheduleFactory(draft=True, run_at=None, template_id=None, audience_query={})
    page = marketer.get(f"/schedules/{draft.pk}/")
    assert "Choose the template that is sent." in text_of(page)
    assert "Nobody has been chosen yet" in text_of(page)
    review = f"/schedules/{draft.pk}/build/review/"
    assert f'href="{review}"' in page.content.decode()
    assert marketer.post(f"/schedules/{draft.pk}/do/activate/").headers["Location"] == review
    draft.refresh_from_db()
    assert draft.status == ScheduleStatus.DRAFT


def test_a_broken_schedule_that_was_mended_is_activated(service, marketer):
    schedule = ScheduleFactory(**MONDAYS)
    Schedule.objects.filter(pk=schedule.pk).update(status="broken", time_zone="Mars/Base")
    marketer.post(f"/schedules/{schedule.pk}/do/activate/", {"version": 1})
    assert "Choose a time zone from the list." in text_of(marketer.get("/schedules/"))
    Schedule.objects.filter(pk=schedule.pk).update(time_zone="Europe/Berlin")
    marketer.post(f"/schedules/{schedule.pk}/do/activate/", {"version": 1})
    schedule.refresh_from_db()
    assert schedule.status == ScheduleStatus.ACTIVE


def test_before_many_people_get_it_at_once_the_name_is_typed(service, marketer, settings, monkeypatch):
    settings.CONFIRM_AUDIENCE = 2
    people(3)
    schedule = ScheduleFactory(name="Launch", **MONDAYS)
    address, part = f"/schedules/{schedule.pk}/do/run-now/", f"/schedules/{schedule.pk}/size/"
    with monkeypatch.context() as patch:  # the question itself waits for no count
        patch.setattr(counting, "size", lambda audience, *, now: pytest.fail("a page waits for a count"))
        assert f'hx-get="{part}"' in marketer.get(address).content.decode()
    told = text_of(marketer.get(part, headers={"HX-Request": "true"}))
    assert "3 people belong to its audience." in told
    assert "Type the schedule's name" in told
    refused = marketer.post(address, {"name": "launch"})
    assert refused.status_code == 422
    assert "Type the name as it stands above: “Launch”." in text_of(refused)
    assert not schedule.occurrences.exists()
    marketer.post(address, {"name": "Launch "})
    assert schedule.occurrences.exists()
    settings.CONFIRM_AUDIENCE = 3
    told = text_of(marketer.get(part))
    assert "3 people belong to its audience." in told
    assert "Type the schedule's name" not in told


def test_several_at_once_are_asked_first_and_told_one_by_one(service, marketer):
    one, two = ScheduleFactory(name="One"), ScheduleFactory(name="Two")
    operations.cancel(schedule_id=two.pk, by=BY, now=NOW)
    chosen = {"verb": "pause", "schedule": [one.pk, two.pk], "next": "/schedules/?order=name"}
    asked = text_of(marketer.post("/schedules/bulk/", chosen))
    assert "Pause: 1 of 2 schedules" in asked
    assert "It is done for these One" in asked
    assert "Two : cancelled" in asked
    assert Schedule.objects.get(pk=one.pk).status == "active"
    done = marketer.post("/schedules/bulk/", {**chosen, "sure": "1"})
    assert done.headers["Location"] == "/schedules/?order=name"
    page = text_of(marketer.get("/schedules/"))
    assert "“Two”: It is cancelled, so this can't be done." in page
    assert "Pause: done for 1 schedule." in page
    assert Schedule.objects.get(pk=one.pk).status == "paused"


def test_several_at_once_tell_how_many_still_wait_and_take_a_reason(service, marketer):
    people(3)
    chosen = [ScheduleFactory(name=name).pk for name in ("One", "Two")]
    service.open()
    asked = {"verb": "pause", "schedule": chosen}
    assert "2 runs are going on at present; people who have not got it yet: 6." in text_of(
        marketer.post("/schedules/bulk/", asked)
    )
    refused = marketer.post("/schedules/bulk/", {**asked, "sure": "1", "reason": "r" * 501})
    assert refused.status_code == 422
    assert not Schedule.objects.filter(status="paused").exists()
    marketer.post("/schedules/bulk/", {**asked, "sure": "1", "reason": "Sold out"})
    assert {schedule.status_reason for schedule in Schedule.objects.filter(status="paused")} == {"Sold out"}
    page = text_of(marketer.post("/schedules/bulk/", asked))
    assert "None of them is in a state that admits it." in page
    assert "yes, these" not in page


@pytest.mark.parametrize("chosen", [{}, {"verb": "pause"}, {"verb": "explode", "schedule": ["1"]}, {"schedule": ["x"]}])
def test_nothing_ticked_changes_nothing_and_says_so(service, marketer, chosen):
    marketer.post("/schedules/bulk/", chosen)
    assert "Nothing was changed: tick the schedules first" in text_of(marketer.get("/schedules/"))


def test_an_analyst_sees_no_control_and_is_refused(service):
    schedule, analyst = ScheduleFactory(), signed_in(Role.ANALYST)
    for page in ("/schedules/", f"/schedules/{schedule.pk}/"):
        html = analyst.get(page).content.decode()
        assert "/do/" not in html
        assert 'name="schedule"' not in html
    for address in (f"/schedules/{schedule.pk}/do/pause/", "/schedules/bulk/", f"/schedules/{schedule.pk}/test/"):
        assert analyst.post(address).status_code == 403
    schedule.refresh_from_db()
    assert schedule.status == "active"


# One schedule


def test_a_schedule_tells_what_to_whom_when_and_within_which_limits(service, marketer):
    query = {
        "all": [
            {"field": "attributes.plan", "op": "eq", "value": "pro"},
            {"not": {"field": "tags", "op": "exists", "value": True}},
        ]
    }
    template = TemplateFactory(name="Digest")
    schedule = ScheduleFactory(
        name="Weekly", audience_query=query, template_id=template.pk, max_per_user_per_day=2, **MONDAYS
    )
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/"))
    assert "People whose plan is “pro” and who are not among those who have tags" in page
    assert "Message Digest" in page
    assert "A person who has got 2 messages in the last 24 hours is left out." in page
    assert "2026-11-23 09:00:00 Europe/Berlin (UTC+01:00)" in page
    assert "2026-11-23 08:00:00 UTC" in page  # in the viewer's zone
    assert page.count("09:00:00 Europe/Berlin") >= 5


def test_the_next_runs_tell_of_a_change_of_the_clock(service, marketer):
    schedule = ScheduleFactory(cron="30 2 * 3 *", time_zone="Europe/Berlin", start_at=NOW + timedelta(days=124))
    assert "The clock skips 2027-03-28 02:30" in text_of(marketer.get(f"/schedules/{schedule.pk}/"))


def test_everybody_at_their_own_time_is_told_by_the_wall_clock(service, marketer):
    schedule = ScheduleFactory(cron="0 9 * * *", time_zone_mode="user_local")
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/"))
    assert "Every day at 09:00, on each person's own clock" in page
    assert "2026-11-23 09:00 on each person's own clock" in page
    assert "2026-11-22 19:00:00 UTC" in page  # when the first people get it


def test_runs_are_listed_with_what_became_of_the_people(service, provider, marketer):
    people(3)
    schedule = ScheduleFactory()
    service.step()
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/"))
    assert "3 sent" in page
    assert "It has run as often as it was meant to." in page
    assert re.search(r"No run lies ahead", page)


def test_runs_come_by_pages(service, marketer, monkeypatch):
    monkeypatch.setattr("frontend.pages.schedules.detail.RUNS", 2)
    schedule = ScheduleFactory(**MONDAYS)
    for _ in range(5):
        operations.run_now(schedule_id=schedule.pk, by=BY, now=NOW)
    seen, link = [], f"/schedules/{schedule.pk}/"
    while link:
        response = marketer.get(link)
        seen += [run.occurrence.pk for run in response.context["runs"]]
        following = response.context["following"]
        link = f"/schedules/{schedule.pk}/{following}" if following else ""
    assert sorted(seen, reverse=True) == [each.pk for each in Occurrence.objects.order_by("-pk")]


def test_a_broken_schedule_says_what_to_do(service, marketer):
    schedule = ScheduleFactory(**MONDAYS)
    Schedule.objects.filter(pk=schedule.pk).update(
        status="broken", status_reason="Unknown zone", next_run_at=None, next_occurrence_at=None
    )
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/"))
    assert "Unknown zone" in page
    assert "then choose “Activate”" in page


def test_the_page_of_a_schedule_asks_few_statements(service, provider, marketer):
    people(2)
    schedule = ScheduleFactory(**MONDAYS)
    for _ in range(8):
        operations.run_now(schedule_id=schedule.pk, by=BY, now=NOW)
    with CaptureQueriesContext(connection) as asked:
        assert marketer.get(f"/schedules/{schedule.pk}/").status_code == 200
    assert len(asked) <= 16


def test_whom_it_would_reach_is_counted_when_asked(service, marketer):
    people(3)
    RecipientFactory(external_id="mute", consent={"email": False})
    schedule = ScheduleFactory(**MONDAYS)
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/forecast/"))
    assert "4 people fit" in page
    assert "3 of them would be sent a message." in page
    assert "1 opted out of this channel" in page
    part = marketer.get(f"/schedules/{schedule.pk}/forecast/", headers={"HX-Request": "true"})
    assert "<html" not in part.content.decode()


def test_of_a_schedule_that_runs_the_run_after_that_is_counted_and_told_by_its_form(service, marketer):
    people(2, time_zone="Pacific/Kiritimati")  # it is midnight there already
    template = TemplateFactory()
    schedule = ScheduleFactory(cron="0 18 * * *", time_zone_mode="user_local", template_id=template.pk)
    service.step()
    assert only_occurrence(schedule).occurrence_at == NOW.replace(hour=18)
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/forecast/"))
    assert "2 people fit , and all would be sent a message." in page
    look = text_of(marketer.get(f"/schedules/{schedule.pk}/look/when/"))
    assert "2026-11-22 18:00" in look
    assert "2026-11-21 18:00" not in look


def test_a_draft_can_not_be_counted_yet_and_says_why(service, marketer):
    draft = ScheduleFactory(draft=True, run_at=None, template_id=None)
    assert "Choose the template that is sent." in text_of(marketer.get(f"/schedules/{draft.pk}/forecast/"))


# Its versions


def test_versions_tell_who_changed_what_from_what_to_what(service, provider, marketer):
    people(1)
    olivia = account(Role.MARKETER, name="olivia")
    schedule = ScheduleFactory(name="Old name", **MONDAYS)
    changes = {
        "name": "New name",
        "cron": "0 10 * * *",
        "audience_query": {"all": [{"field": "locale", "op": "eq", "value": "de"}]},
    }
    operations.update(schedule_id=schedule.pk, changes=changes, by=f"user:{olivia.pk}", now=NOW)
    operations.run_now(schedule_id=schedule.pk, by=BY, now=NOW)
    page = text_of(marketer.get(f"/schedules/{schedule.pk}/history/"))
    assert "Version 2 the present one olivia" in page
    assert "1 run used it" in page
    assert "no run used it" in page
    assert "Name Old name New name" in page
    assert "Audience Everyone People whose language is “de”" in page
    assert "Repeats Every Monday at 09:00 Every day at 10:00" in page
    assert "{" not in page


# A test send


def test_a_test_goes_to_oneself_and_its_fate_is_shown(service, marketer):
    RecipientFactory(external_id="anna")
    schedule = ScheduleFactory(name="Launch")
    asked = text_of(marketer.get(f"/schedules/{schedule.pk}/test/"))
    assert "The message of “Launch” is sent once" in asked
    answer = marketer.post(f"/schedules/{schedule.pk}/test/", {"external_id": "anna", "to": "me@example.com"})
    wish = TestSend.objects.get()
    assert (wish.to, answer.headers["Location"]) == ("me@example.com", f"/schedules/{schedule.pk}/test/{wish.pk}/")
    assert "It waits for a worker" in text_of(marketer.get(answer.headers["Location"]))
    TestSend.objects.update(state="failed", reason="template_error", detail="line 3")
    told = text_of(marketer.get(answer.headers["Location"]))
    assert "It could not be sent. The template failed on this person's data." in told
    assert "line 3" in told


def test_what_is_wrong_with_a_test_stands_beside_its_field(service, marketer):
    schedule = ScheduleFactory()
    answer = marketer.post(f"/schedules/{schedule.pk}/test/", {"external_id": "nobody", "to": "me@example.com"})
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == ["external_id"]
    answer = marketer.post(f"/schedules/{schedule.pk}/test/", {"external_id": "anna"})
    assert list(answer.context["form"].errors) == ["to"]  # it would go to the customer
    bare = ScheduleFactory(draft=True, template_id=None, run_at=None)
    RecipientFactory(external_id="anna")
    answer = marketer.post(f"/schedules/{bare.pk}/test/", {"external_id": "anna", "to": "me@example.com"})
    assert "choose one first" in text_of(answer)


# The calendar


def entries(response, day: str) -> list[tuple[str, str, bool]]:
    (cell,) = [cell for cell in response.context["cells"] if str(cell.day.date) == day]
    return [(told.entry.name, told.clock, told.entry.is_often) for told in cell.entries]


def test_the_month_shows_what_was_sent_and_what_will_be(service, provider, marketer):
    people(2)
    sent = ScheduleFactory(name="Launch")
    service.step()
    ScheduleFactory(name="Weekly", **MONDAYS)
    ScheduleFactory(name="Own", cron="0 7 * * WED", time_zone_mode="user_local")
    ScheduleFactory(name="Often", cron="*/15 * 25 11 *")
    ScheduleFactory(name="A draft", draft=True, run_at=None)
    month = marketer.get("/calendar/")
    assert entries(month, "2026-11-21") == [("Launch", "10:00 +00:00", False)]
    assert entries(month, "2026-11-23") == [("Weekly", "09:00 +01:00", False)]
    assert entries(month, "2026-11-30") == [("Weekly", "09:00 +01:00", False)]
    assert entries(month, "2026-11-25") == [("Often", "00:00 +00:00", True), ("Own", "07:00", False)]
    html = month.content.decode()
    assert f'href="/occurrences/{only_occurrence(sent).pk}/"' in html
    assert "A draft" not in text_of(month)


def test_the_zone_is_the_one_chosen_in_the_header(service, marketer):
    ScheduleFactory(name="Late", cron="30 23 * * MON", time_zone="America/New_York")
    assert entries(marketer.get("/calendar/"), "2026-11-23") == [("Late", "23:30 -05:00", False)]
    marketer.cookies["times"] = "utc"
    assert entries(marketer.get("/calendar/"), "2026-11-24") == [("Late", "04:30 +00:00", False)]


def test_a_later_month_is_worked_out_from_the_crons(service, marketer):
    ScheduleFactory(name="Weekly", **MONDAYS)
    ScheduleFactory(name="Thrice", cron="0 9 * * MON", max_runs=3)
    later = marketer.get("/calendar/?view=month&day=2027-04-10")
    assert entries(later, "2027-04-12") == [("Weekly", "09:00 +02:00", False)]
    assert entries(marketer.get("/calendar/?day=2026-12-01"), "2026-12-07") == [
        ("Thrice", "09:00 +00:00", False),
        ("Weekly", "09:00 +01:00", False),
    ]
    assert entries(marketer.get("/calendar/?day=2026-12-01"), "2026-12-14") == [("Weekly", "09:00 +01:00", False)]


def test_what_is_too_much_for_a_day_is_summed_up(service, marketer):
    for number in range(7):
        ScheduleFactory(name=f"S{number}", run_at=NOW + timedelta(days=3))
    month = text_of(marketer.get("/calendar/"))
    assert "S3" in month
    assert "S4" not in month
    assert "and 3 more" in month
    agenda_page = text_of(marketer.get("/calendar/?view=agenda&day=2026-11-24"))
    assert "S6" in agenda_page
    assert "not known yet" in agenda_page


def test_rows_that_are_not_read_are_said_to_be_there(service):
    for number in range(4):
        ScheduleFactory(name=f"S{number}", run_at=NOW + timedelta(hours=1))
    asked = {"first": NOW.date(), "count": 2, "shown": 2, "read": 3, "zone_of": lambda own: "UTC", "now": NOW}
    first, second = agenda.days(**asked)
    assert ([entry.name for entry in first.entries], first.more, first.is_cut) == (["S0", "S1"], 2, True)
    assert not second.is_cut


def test_the_load_of_a_day_counts_runs_and_expects_the_rest(service, provider, marketer):
    people(2)
    RecipientFactory(time_zone="Asia/Tokyo")
    daily = ScheduleFactory(cron="0 12 * * *", now=NOW)
    own = ScheduleFactory(cron="0 12 * * *", time_zone_mode="user_local", now=NOW - timedelta(days=1))
    ScheduleFactory(cron="30 20 * * *", name="First time", now=NOW)
    service.run_to(NOW + timedelta(hours=2, minutes=1))
    load = agenda.load(day=NOW.date(), zone_name="UTC", read=50, now=service.now)
    people_at = {hour.at.hour: (hour.people, hour.expected) for hour in load.hours if hour.people or hour.expected}
    assert people_at[12] == (3 + 2, 0)  # the daily one, and who lives in UTC
    assert load.unknown == 1
    tomorrow = agenda.load(day=NOW.date() + timedelta(days=1), zone_name="UTC", read=50, now=service.now)
    expected = {hour.at.hour: hour.expected + hour.people for hour in tomorrow.hours if hour.expected + hour.people}
    assert expected[12] == 5
    assert expected[3] == 1  # noon in Tokyo
    assert {daily.pk, own.pk} <= set(Occurrence.objects.values_list("schedule", flat=True))
    page = text_of(marketer.get("/calendar/?day=2026-11-21"))
    assert "The busiest hour has 5." in page


@pytest.mark.parametrize("asked", ["day=nonsense", "day=0001-01-01", "day=9999-12-31", "view=year", "day=2026-02-30"])
def test_a_place_that_is_none_shows_this_month(service, marketer, asked):
    assert "November 2026" in text_of(marketer.get(f"/calendar/?{asked}"))


def test_the_calendar_asks_as_many_statements_for_many_as_for_one(service, provider, marketer):
    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            assert marketer.get("/calendar/").status_code == 200
        return len(asked)

    people(1)
    template = TemplateFactory()
    ScheduleFactory(template_id=template.pk, cron="0 11 * * *")
    ScheduleFactory(template_id=template.pk)
    service.step()
    few = queries()
    for number in range(10):
        ScheduleFactory(template_id=template.pk, cron=f"{number} 9 * * *")
        ScheduleFactory(template_id=template.pk)
    service.step()
    assert queries() == few
    assert few <= 16


# Words


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 9 * * MON", "Every Monday at 09:00"),
        ("0 9 * * 0,6", "Every Saturday and Sunday at 09:00"),
        ("30 8 * * 1-5", "Monday to Friday at 08:30"),
        ("0 9,17 * * *", "Every day at 09:00 and 17:00"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("0 9 1 * *", "On day 1 of every month at 09:00"),
        ("0 9 L * *", "On the last day of every month at 09:00"),
        ("0 9 * * MON#2", None),
        ("0 9 1 1 *", None),
        ("0 9 1 * MON", None),
    ],
)
def test_the_usual_crons_have_sentences_of_their_own(cron, words):
    assert cron_in_words(cron) == words


def test_every_clause_of_the_language_has_words():
    from frontend.wording.audiences import in_words
    from schedules.audience.tree import RULES, Field, Kind

    values = {
        Kind.TEXT: "a", Kind.TEXTS: ["a", "b"], Kind.TAGS: ["a"], Kind.SCALAR: True, Kind.SCALARS: [1, "a"],
        Kind.NUMBER: 5, Kind.BOOLEAN: False, Kind.INSTANT: "2026-03-01T09:00:00Z", Kind.DURATION: "90m",
        Kind.CHANNEL: "email", Kind.CHANNELS: ["email", "push"],
    }  # fmt: skip
    with translation.override("en"):
        for field, operators in RULES.items():
            name = "attributes.plan" if field is Field.ATTRIBUTE else field.value
            for operator, kind in operators.items():
                words = in_words(parse({"field": name, "op": operator.value, "value": values[kind]}))
                assert words.startswith("People who")
                assert "%" not in words


def test_a_waiting_occurrence_is_no_last_run(service, marketer):
    schedule = ScheduleFactory(**MONDAYS)
    operations.run_now(schedule_id=schedule.pk, by=BY, now=NOW)
    Occurrence.objects.update(state=OccurrenceState.WAITING)
    (row,) = marketer.get("/schedules/").context["rows"]
    assert row.run is None


def test_the_last_result_is_of_a_run_that_has_begun_though_the_next_has_its_people(service, provider, marketer):
    people(2)
    schedule = ScheduleFactory(cron="* * * * *", time_zone="UTC")
    service.after(MINUTE).step()
    begun, ahead = Occurrence.objects.filter(schedule=schedule).order_by("occurrence_at")
    assert begun.opens_at <= service.now < ahead.opens_at
    assert ahead.state != OccurrenceState.WAITING
    assert marketer.get("/schedules/").context["rows"][0].run == begun
    Occurrence.objects.filter(pk=begun.pk).update(opens_at=ahead.opens_at)
    assert marketer.get("/schedules/").context["rows"][0].run == ahead
