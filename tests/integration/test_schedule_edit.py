"""Changing a schedule that runs: what a change does is shown before it is saved, and saved is what was shown."""

from datetime import timedelta

import pytest
from django.urls import reverse

from audit.models import AuditEvent
from schedules import operations
from schedules.models import Occurrence, Schedule
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.integration.test_wizard import rows, text_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]


@pytest.fixture
def browser():
    return signed_in(Role.MARKETER)


def values(schedule: Schedule, **changes) -> dict:
    """What a browser posts for a schedule to everyone as it stands."""
    return {
        "version": schedule.version,
        "name": schedule.name,
        "channel": schedule.channel,
        "who": "everyone",
        "template_id": schedule.template_id,
        "kind": schedule.schedule_type,
        "mode": schedule.time_zone_mode,
        "run_date": f"{schedule.run_at:%Y-%m-%d}" if schedule.run_at else "",
        "run_time": f"{schedule.run_at:%H:%M}" if schedule.run_at else "",
        "repeat": "day",
        "at": "09:00",
        "day_of_month": "1",
        "time_zone": schedule.time_zone,
        "on_past": schedule.on_past,
        "counts_toward_caps": "on",
        "recheck_audience": "",
        "grace": "1",
        "grace_unit": "hours",
        **changes,
    }


def post(browser, schedule, go: str = "preview", **changes):
    changes = values(schedule, **changes) | {"go": go}
    return browser.post(reverse("schedule-edit", args=[schedule.pk]), changes)


def seal_of(page: str) -> str:
    return page.partition('name="seal" value="')[2][:32]


def test_a_change_is_told_in_words_and_nothing_is_written_before_it_is_saved(browser):
    schedule = ScheduleFactory(name="Mornings", cron="0 9 * * *")
    events = AuditEvent.objects.count()
    page = text_of(post(browser, schedule, name="Evenings", at="18:00", max_per_user_per_day="2"))
    assert "<del>Mornings</del> → <ins>Evenings</ins>" in page
    assert "<del>Every day at 09:00</del> → <ins>Every day at 18:00</ins>" in page
    assert "<del>no limit</del> → <ins>2</ins>" in page
    schedule.refresh_from_db()
    assert (schedule.name, schedule.version, AuditEvent.objects.count()) == ("Mornings", 1, events)
    answer = post(browser, schedule, "save", name="Evenings", at="18:00", max_per_user_per_day="2", seal=seal_of(page))
    assert answer["Location"] == reverse("schedule", args=[schedule.pk])
    schedule.refresh_from_db()
    assert (schedule.name, schedule.cron, schedule.max_per_user_per_day) == ("Evenings", "0 18 * * *", 2)


def test_what_was_not_shown_is_shown_rather_than_saved(browser):
    schedule = ScheduleFactory(cron="0 9 * * *")
    seal = seal_of(text_of(post(browser, schedule, name="One")))
    page = text_of(post(browser, schedule, "save", name="Two", seal=seal))
    assert "Something has changed since you looked" in page
    schedule.refresh_from_db()
    assert schedule.version == 1


def test_it_is_told_whom_of_a_run_that_has_begun_a_change_touches(browser, started):
    schedule, _ = started
    schedule.refresh_from_db()
    run = Occurrence.objects.get()
    page = text_of(post(browser, schedule, name="Better"))
    assert "has begun, and ends as it began" in page
    assert "70 people have not got it yet" in page
    assert "50 are done" in page
    page = text_of(post(browser, schedule, name="Better", apply_to="unsent"))
    assert "goes out with the change" in page
    run.refresh_from_db()
    assert run.version == 1
    post(browser, schedule, "save", name="Better", apply_to="unsent", seal=seal_of(page))
    run.refresh_from_db()
    assert run.version == 2


def test_a_new_audience_is_counted_beside_the_old_one(browser):
    people(3)
    people(2, locale="de")
    schedule = ScheduleFactory(cron="0 9 * * *")
    page = text_of(post(browser, schedule, **rows(("locale", "eq", "de"))))
    assert "At present 2 people belong to the audience, where it was 5." in page


def test_who_comes_second_sees_the_first_ones_change_and_puts_his_own_on_top(browser):
    schedule = ScheduleFactory(name="Mornings", cron="0 9 * * *")
    operations.update(schedule_id=schedule.pk, changes={"cron": "0 7 * * *"}, by=BY, now=NOW)
    answer = post(browser, schedule, name="Evenings")
    page = text_of(answer)
    assert answer.status_code == 422
    assert "<del>Every day at 09:00</del> → <ins>Every day at 07:00</ins>" in page
    assert 'name="version" value="2"' in page
    assert 'value="Evenings"' in page
    schedule.refresh_from_db()
    assert schedule.name == "Mornings"
    assert 'value="07:00"' in page  # what he did not touch shows what stands now
    page = text_of(post(browser, schedule, name="Evenings", at="07:00"))
    post(browser, schedule, "save", name="Evenings", at="07:00", seal=seal_of(page))
    schedule.refresh_from_db()
    assert (schedule.name, schedule.cron) == ("Evenings", "0 7 * * *")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "Give the schedule a name."),
        ({"repeat": "cron", "cron": "* * *"}, "needs five"),
        ({"max_per_user_per_day": "0"}, "Use 1 or more"),
        ({"template_id": ""}, "Choose the template that is sent."),
        ({"end_date": "2026-11-01"}, "Nothing goes out before the end"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_saved(browser, changes, said):
    schedule = ScheduleFactory(cron="0 9 * * *")
    answer = post(browser, schedule, **changes)
    assert answer.status_code == 422
    assert said in text_of(answer)


def test_saving_without_a_change_says_so_and_makes_no_version(browser):
    schedule = ScheduleFactory(run_at=NOW + timedelta(days=1))
    assert "Nothing is different from what is saved." in text_of(post(browser, schedule))
    schedule.refresh_from_db()
    assert schedule.version == 1


def test_what_has_ended_leads_to_its_page_and_an_analyst_is_refused(browser):
    schedule = ScheduleFactory(run_at=NOW + timedelta(days=1))
    address = reverse("schedule-edit", args=[schedule.pk])
    analyst = signed_in(Role.ANALYST)
    assert (analyst.get(address).status_code, analyst.post(address).status_code) == (403, 403)
    operations.cancel(schedule_id=schedule.pk, by=BY, now=NOW)
    assert browser.get(address)["Location"] == reverse("schedule", args=[schedule.pk])
