"""An audience that the user service tells: who is in it, in pages, resumed, doubled and overtaken.

The service is its reference over HTTP; what it may do wrong is in ``test_user_service_faults``.
"""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from delivery import advance, counts, erasure, materialise
from delivery.materialise import resolving
from delivery.models import Delivery, ZoneSource
from schedules import encryption, operations
from schedules.models import (
    EVERYBODY,
    MirroredPerson,
    Occurrence,
    OccurrenceState,
    Recipient,
    Resolution,
    ResolutionPage,
    ResolutionUse,
)
from schedules.user_service.mirror import mirror
from schedules.user_service.reading import read_profiles
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, people
from tests.service import HOUR, MINUTE, only_occurrence, reasons, row_of, states
from tests.user_service import Crash, attempt, crash, interrupting, named, profile, said_at

pytestmark = pytest.mark.django_db

VIPS = {"field": "tags", "op": "contains", "value": "vip"}
OTHERS = {"not": VIPS}


# --- Who is in it -----------------------------------------------------------------------------------------------------


def test_the_audience_is_whom_the_service_names_and_they_are_kept(service, provider, user_service):
    user_service.put(
        profile("anna", tags=["vip"], attributes={"first_name": "Anna"}),
        profile("bea"),
        profile("cleo", tags=["vip"], consent={"email": False}),
    )
    RecipientFactory(external_id="kept-here", tags=["vip"])
    schedule = ScheduleFactory(audience_query=VIPS)
    service.step()
    occurrence = only_occurrence(schedule)
    assert (occurrence.targeted, named(occurrence)) == (2, ["anna", "cleo"])
    assert reasons(schedule) == {"sent: ": 1, "suppressed: opted_out": 1}
    assert Recipient.objects.get(external_id="anna").attributes == {"first_name": "Anna"}
    assert not Recipient.objects.filter(external_id="bea").exists()


def test_each_is_due_at_the_wall_time_of_the_zone_that_the_service_tells(service, user_service):
    user_service.put(profile("anna", timeZone="Asia/Kolkata"), profile("bea", timeZone=""))
    schedule = ScheduleFactory(time_zone_mode="user_local", time_zone="UTC", run_at=NOW + 10 * HOUR)
    service.at(NOW - 4 * HOUR).open()
    row = row_of(schedule, Recipient.objects.get(external_id="anna"))
    assert (row.wave_at, row.zone_source) == (NOW + timedelta(hours=4.5), ZoneSource.PROFILE)
    assert row_of(schedule, Recipient.objects.get(external_id="bea")).zone_source == ZoneSource.MISSING


def test_an_audience_comes_in_pages_and_what_is_left_of_them_are_figures(service, user_service, settings):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(5)
    schedule = ScheduleFactory()
    service.open()
    assert named(only_occurrence(schedule)) == names
    assert user_service.pages_asked == 3
    use = ResolutionUse.objects.get(occurrence_id=only_occurrence(schedule).pk)
    resolution = use.resolution
    assert (resolution.pages, resolution.people, resolution.total, resolution.cursor) == (3, 5, 5, "")
    assert (use.used_at, resolution.audience) == (NOW, "")
    assert not ResolutionPage.objects.exists()


def test_an_audience_of_nobody_is_one(service, user_service):
    schedule = ScheduleFactory(audience_query=VIPS)
    service.open()
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.targeted) == (OccurrenceState.RUNNING, 0)


def test_while_people_are_kept_here_no_statement_is_about_the_service(service, settings):
    assert settings.USER_SERVICE_URL == ""
    people(3)
    schedule = ScheduleFactory()
    with CaptureQueriesContext(connection) as caught:
        service.open()
    assert only_occurrence(schedule).targeted == 3
    of_the_service = ("schedules_resolution", "schedules_mirroredperson", "schedules_leftalone")
    assert not [each["sql"] for each in caught if any(table in each["sql"] for table in of_the_service)]


def test_people_of_before_an_edit_of_the_time_are_not_asked_for_again(service, provider, user_service):
    user_service.put_people(3)
    schedule = ScheduleFactory(audience_query={"all": []})
    service.open()
    Occurrence.objects.update(begun_at=NOW)
    asked = user_service.pages_asked
    service.update(schedule, run_at=NOW + MINUTE)
    service.open()
    assert only_occurrence(schedule).state == OccurrenceState.RUNNING
    assert (states(schedule), user_service.pages_asked) == ({"pending": 3}, asked)


# --- Resumed, doubled, overtaken --------------------------------------------------------------------------------------


def test_a_worker_that_dies_between_two_pages_is_followed_by_one_that_goes_on_there(
    opened, user_service, settings, monkeypatch
):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(5)
    occurrence = opened()
    with monkeypatch.context() as patched:
        interrupting(patched, 3, crash)
        with pytest.raises(Crash):
            attempt(occurrence)
    assert (user_service.pages_asked, Delivery.objects.count()) == (2, 0)
    assert attempt(occurrence).targeted == 5
    assert (named(occurrence), user_service.pages_asked) == (names, 3)


def test_a_worker_that_dies_within_a_page_has_kept_nothing_of_it(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(4)
    occurrence = opened()
    with monkeypatch.context() as patched:
        patched.setattr(resolving, "_count_page", lambda told: crash() if Recipient.objects.count() == 4 else None)
        with pytest.raises(Crash):
            attempt(occurrence)
    assert Recipient.objects.count() == MirroredPerson.objects.count() == 2
    assert Resolution.objects.get().pages == 1
    assert attempt(occurrence).targeted == 4


def test_nobody_waits_until_a_page_lies_on_the_disk(opened, user_service, monkeypatch):
    user_service.put_people(1)
    seen = []

    def look(_):
        with connection.cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            seen.append(cursor.fetchone()[0])

    monkeypatch.setattr(resolving, "_count_page", look)
    assert attempt(opened()).targeted == 1
    assert seen == ["off"]


def test_of_two_workers_at_one_page_the_second_gives_way(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(5)
    occurrence = opened()
    with monkeypatch.context() as patched:
        interrupting(patched, 2, lambda: attempt(occurrence))
        attempt(occurrence)
    assert (named(occurrence), user_service.pages_asked) == (names, 4)
    resolution = Resolution.objects.get()
    assert (resolution.pages, resolution.people, resolution.repeated) == (3, 5, 0)


def test_an_edit_of_the_audience_in_between_begins_another_resolution(
    service, opened, user_service, settings, monkeypatch
):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(5)
    user_service.put(*(profile(f"vip-{number}", tags=["vip"]) for number in range(3)))
    occurrence = opened(audience_query=OTHERS)
    with monkeypatch.context() as patched:
        interrupting(patched, 2, lambda: service.update(occurrence.schedule, audience_query=VIPS))
        attempt(occurrence)
    assert Delivery.objects.count() == 0
    assert attempt(occurrence).targeted == 3
    assert named(occurrence) == ["vip-0", "vip-1", "vip-2"]


def test_an_edit_of_anything_else_lets_it_go_on_where_it_was(service, opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(6)
    occurrence = opened()
    with monkeypatch.context() as patched:
        interrupting(
            patched, 2, lambda: service.update(occurrence.schedule, name="Another name", max_per_user_per_day=3)
        )
        attempt(occurrence)
    assert Delivery.objects.count() == 0
    assert (attempt(occurrence).targeted, user_service.pages_asked) == (6, 3)


def test_a_cancellation_in_between_ends_it(service, opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(6)
    occurrence = opened()
    interrupting(monkeypatch, 2, lambda: service.cancel(occurrence.schedule))
    assert attempt(occurrence).state == OccurrenceState.CANCELLED
    assert (Delivery.objects.count(), user_service.pages_asked) == (0, 2)
    materialise.purge(before=NOW - HOUR)
    assert not Resolution.objects.exists()


def test_what_has_lain_for_an_hour_is_begun_again(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(4)
    occurrence = opened()
    with monkeypatch.context() as patched:
        interrupting(patched, 2, crash)
        with pytest.raises(Crash):
            attempt(occurrence)
    user_service.put(profile("late"))
    Resolution.objects.update(last_page_at=NOW - timedelta(minutes=61))
    assert attempt(occurrence).targeted == 5


def test_a_run_that_finds_its_people_again_asks_again(service, user_service):
    user_service.put_people(3, tags=["vip"])
    schedule = ScheduleFactory(audience_query=VIPS)
    service.open()
    user_service.put(profile("bea"))
    service.update(schedule, audience_query=OTHERS)
    service.materialise()
    assert reasons(schedule) == {"pending: ": 1, "cancelled: edited": 3}
    service.update(schedule, audience_query={"all": []})
    service.materialise()
    assert states(schedule) == {"pending": 4}


def test_an_audience_too_large_for_one_attempt_takes_several(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(5)
    occurrence = opened()
    with monkeypatch.context() as patched:
        seconds = iter(range(0, 10_000, 150))
        patched.setattr(resolving, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
        after = attempt(occurrence)
    assert (after.state, after.materialise_lease_until, Resolution.objects.get().pages) == ("materialising", None, 1)
    assert (attempt(occurrence).targeted, user_service.pages_asked) == (5, 3)


def test_a_page_is_as_young_as_the_moment_in_which_it_came(service, opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2

    def changed(minutes, locale):
        return profile("person-003", locale=locale, updatedAt=(NOW + minutes * MINUTE).isoformat())

    def meanwhile():
        service.at(NOW + 3 * MINUTE)
        mirror(*read_profiles([changed(1, "de")]), by=BY, now=NOW + MINUTE)

    user_service.put_people(2)
    user_service.put(changed(2, "fr"))
    occurrence = opened()
    interrupting(monkeypatch, 2, meanwhile)
    attempt(occurrence)
    assert Recipient.objects.get(external_id="person-003").locale == "fr"
    assert Resolution.objects.get().last_page_at == NOW + 3 * MINUTE


def test_a_pause_in_between_is_why_somebody_is_late(service, opened, user_service, monkeypatch):
    user_service.put_people(1)
    occurrence = opened()

    def pause():
        operations.pause(schedule_id=occurrence.schedule_id, by=BY, now=NOW)
        service.at(NOW + 2 * HOUR)

    interrupting(monkeypatch, 1, pause)
    attempt(occurrence)
    assert reasons(occurrence.schedule) == {"expired: paused": 1}


# --- People who are gone ----------------------------------------------------------------------------------------------


def test_who_is_erased_while_pages_come_gets_no_row(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(4)

    def erase():
        erasure.forget(recipient_id=Recipient.objects.get(external_id=names[0]).pk, by=BY, now=NOW)

    occurrence = opened()
    interrupting(monkeypatch, 2, erase)
    assert attempt(occurrence).targeted == 3
    assert named(occurrence) == names[1:]


def test_who_was_erased_here_and_is_still_named_there_is_left_out(opened, user_service):
    gone = RecipientFactory(external_id="anna")
    erasure.forget(recipient_id=gone.pk, by=BY, now=NOW)
    user_service.put(profile("anna"), profile("bea"))
    occurrence = opened()
    assert attempt(occurrence).targeted == 1
    assert named(occurrence) == ["bea"]
    assert Resolution.objects.get().left_out == 1


def test_nothing_is_left_of_whoever_was_erased_in_that_very_moment(user_service):
    anna = RecipientFactory(external_id="anna")
    for person in (anna.pk, anna.pk + 1):
        MirroredPerson.objects.create(recipient_id=person, mirrored_at=NOW)
    materialise.purge(before=NOW - HOUR)
    assert MirroredPerson.objects.get().recipient_id == anna.pk


# --- Around it --------------------------------------------------------------------------------------------------------


def test_a_cursor_is_kept_unreadable(opened, user_service, settings, monkeypatch):
    settings.USER_SERVICE_PAGE = 1
    user_service.put_people(2)
    occurrence = opened()
    cursors = []

    def look():
        with connection.cursor() as cursor:
            cursor.execute("SELECT cursor FROM schedules_resolution")
            cursors.append(bytes(cursor.fetchone()[0]))

    interrupting(monkeypatch, 2, look)
    attempt(occurrence)
    (kept,) = cursors
    assert kept.startswith(encryption.keyset().head)
    assert encryption.decrypt(kept, b"schedules_resolution.cursor").endswith(".1")


def test_pages_people_and_failures_are_counted(opened, user_service, settings, naps):
    settings.USER_SERVICE_PAGE = 2
    gone = RecipientFactory(external_id="anna")
    erasure.forget(recipient_id=gone.pk, by=BY, now=NOW)
    user_service.put(profile("anna"), profile("bea", email="no address"), profile("cleo"))
    occurrence = opened()
    user_service.fault("status", status=500, count=2)
    attempt(occurrence)
    found = {(key.name, key.label): value for key, value in counts.read().items() if key.name.startswith("user_")}
    assert found == {
        ("user_service_pages_total", ""): 2,
        ("user_service_people_total", "named"): 2,
        ("user_service_people_total", "flawed"): 1,
        ("user_service_people_total", "left_out"): 1,
        ("user_service_failures_total", "server_error"): 2,
    }


def test_the_test_clock_says_for_whom_it_waits(opened, user_service, naps, monkeypatch):
    occurrence = opened()
    user_service.fault("status", status=401)
    attempt(occurrence)
    with pytest.raises(advance.NobodyWorks, match=rf"The user service does not tell .* occurrence {occurrence.pk}:"):
        advance._refuse_slow()


def test_old_figures_are_dropped_and_young_ones_stay(opened, user_service):
    user_service.put_people(1)
    attempt(opened())
    materialise.purge(before=NOW - HOUR)
    assert Resolution.objects.count() == 1
    materialise.purge(before=NOW + HOUR)
    assert Resolution.objects.count() == 0


# --- Everybody --------------------------------------------------------------------------------------------------------


def mirror_people(capsys):
    call_command("mirror_people")
    return capsys.readouterr().out


def test_the_command_keeps_everybody_whom_the_service_knows(service, user_service, settings, capsys):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(5)
    RecipientFactory(external_id="kept-here")
    said = mirror_people(capsys)
    assert "has told of 5 people on 3 pages" in said
    assert not ResolutionPage.objects.exists()
    assert "1 people are kept here whom the user service doesn't name" in said
    assert set(Recipient.objects.values_list("external_id", flat=True)) == {*names, "kept-here"}
    user_service.put(profile("person-001", locale="de", updatedAt=said_at(1)))
    mirror_people(capsys)
    assert Recipient.objects.get(locale="de").external_id == "person-001"


def test_those_who_are_not_named_are_found_in_one_go_however_many_they_are(user_service):
    """What is no join reads all that the service named for each person kept here, once that fits no memory."""
    with CaptureQueriesContext(connection) as caught, connection.cursor() as cursor:
        call_command("mirror_people")
        (counted,) = [each["sql"] for each in caught if "COUNT(*)" in each["sql"] and "mirrored_at" in each["sql"]]
        cursor.execute(f"EXPLAIN {counted}")
        assert "Anti Join" in "".join(line for (line,) in cursor.fetchall())


def test_the_command_goes_on_where_it_was_stopped(service, user_service, settings, monkeypatch, capsys):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(6)

    def stop():
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        interrupting(patched, 3, stop)
        with pytest.raises(CommandError, match="goes on from here"):
            call_command("mirror_people")
    assert ResolutionUse.objects.get().occurrence_id == EVERYBODY
    assert "told of 6 people on 3 pages" in mirror_people(capsys)
    assert user_service.pages_asked == 3


def test_the_command_says_what_is_wrong(service, user_service, settings, naps):
    user_service.fault("status", status=401)
    with pytest.raises(CommandError, match="USER_SERVICE_TOKEN"):
        call_command("mirror_people")
    settings.USER_SERVICE_URL = ""
    with pytest.raises(CommandError, match="USER_SERVICE_URL"):
        call_command("mirror_people")
