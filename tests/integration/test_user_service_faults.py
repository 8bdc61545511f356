"""What the user service may do wrong, and what becomes of the audience: nobody lost, doubled, or sent to too early."""

from types import SimpleNamespace

import pytest
from django.utils import timezone

from delivery import counts, erasure, sweep, tasks
from delivery.materialise import attempts, resolving
from delivery.models import Delivery
from schedules.models import Occurrence, OccurrenceState, Recipient, Resolution
from schedules.user_service import client
from schedules.user_service.mirror import mirror
from schedules.user_service.reading import Page, read_profiles
from tests.factories import BY, NOW, RecipientFactory
from tests.service import reasons
from tests.user_service import attempt, named, profile

pytestmark = pytest.mark.django_db


def failures():
    return {key.label: value for key, value in counts.read().items() if key.name == counts.USER_SERVICE_FAILURES}


def seconds_put_off(occurrence):
    return (occurrence.materialise_lease_until - timezone.now()).total_seconds()


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"kind": "status", "status": 500}, "server_error"),
        ({"kind": "status", "status": 503, "retry_after": 1}, "server_error"),
        ({"kind": "status", "status": 429}, "throttled"),
        ({"kind": "half"}, "cut_off"),
        ({"kind": "garbage"}, "no_json"),
        ({"kind": "reset"}, "cut_off"),
        ({"kind": "short"}, "wrong_count"),
        ({"kind": "silence", "seconds": 5}, "timeout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("page", ["", "*.2"], ids=["first", "second"])
def test_what_passes_by_itself_is_lived_through(opened, user_service, settings, naps, rule, code, page):
    settings.USER_SERVICE_PAGE, settings.USER_SERVICE_TIMEOUT_S = 2, 2.0 if code == "timeout" else 20.0
    names = user_service.put_people(4)
    occurrence = opened()
    user_service.fault(**rule, at=page, count=1)
    assert attempt(occurrence).targeted == 4
    assert named(occurrence) == names
    assert (failures(), user_service.pages_asked, len(naps)) == ({code: 1}, 3, 1)
    assert naps[0] >= rule.get("retry_after", 0.25)


def test_a_slow_service_is_waited_for(opened, user_service):
    user_service.put_people(2)
    occurrence = opened()
    user_service.fault("latency", seconds=0.3)
    assert attempt(occurrence).targeted == 2
    assert failures() == {}


def test_while_the_service_is_away_the_run_waits_and_says_why(opened, user_service, naps):
    user_service.put_people(2)
    occurrence = opened()
    user_service.fault("status", status=500)
    after = attempt(occurrence)
    assert (after.state, after.reason) == (OccurrenceState.MATERIALISING, "user_service_away")
    assert (Delivery.objects.count(), user_service.pages_asked, len(naps)) == (0, resolving.TRIES, resolving.TRIES - 1)
    assert attempts.AWAY_S - 5 < seconds_put_off(after) <= 2 * attempts.AWAY_S
    user_service.running.clear_faults()
    after = attempt(occurrence)
    assert (after.targeted, after.reason) == (2, "")


def test_a_service_that_asks_for_more_patience_than_a_worker_has_gets_it(opened, user_service, naps):
    occurrence = opened()
    user_service.fault("status", status=429, retry_after=200)
    assert 190 < seconds_put_off(attempt(occurrence)) <= 200
    assert (user_service.pages_asked, naps) == (1, [])
    user_service.fault("status", status=503, retry_after=100_000)
    assert seconds_put_off(attempt(occurrence)) <= attempts.LONGEST_AWAY_S


def test_an_audience_not_told_before_the_end_of_the_run_is_missed(service, opened, user_service, naps):
    occurrence = opened()
    user_service.fault("status", status=500)
    attempt(occurrence)
    sweep.sweep(now=occurrence.ends_at)
    after = Occurrence.objects.get()
    assert (after.state, after.reason) == (OccurrenceState.MISSED, "not_materialised")


@pytest.mark.parametrize(("status", "code"), [(401, "denied"), (422, "refused"), (404, "not_found")])
def test_a_refusal_is_said_and_not_repeated_at_once(opened, user_service, naps, status, code):
    occurrence = opened()
    user_service.fault("status", status=status)
    after = attempt(occurrence)
    assert (after.state, after.reason) == (OccurrenceState.MATERIALISING, "user_service_refused")
    assert (user_service.pages_asked, naps, failures()) == (1, [], {code: 1})
    assert seconds_put_off(after) > attempts.REFUSED_S - 10


def test_a_cursor_that_is_gone_begins_the_audience_again(opened, user_service, settings):
    settings.USER_SERVICE_PAGE = 2
    names = user_service.put_people(4)
    occurrence = opened()
    user_service.fault("status", status=410, at="*.2", count=1)
    assert attempt(occurrence).targeted == 4
    assert (named(occurrence), user_service.pages_asked, failures()) == (names, 4, {"cursor_gone": 1})


def test_a_cursor_that_is_gone_each_time_is_a_service_away(opened, user_service, settings):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(4)
    occurrence = opened()
    user_service.fault("status", status=410, at="*.2")
    assert attempt(occurrence).reason == "user_service_away"
    assert (Delivery.objects.count(), user_service.pages_asked) == (0, 2 * (1 + resolving.RESTARTS))


def test_a_cursor_that_comes_again_is_refused_at_once(opened, user_service, settings):
    settings.USER_SERVICE_PAGE = 2
    user_service.put_people(6)
    occurrence = opened()
    user_service.fault("repeat", at="*.2")
    after = attempt(occurrence)
    assert (after.reason, Delivery.objects.count()) == ("user_service_refused", 0)
    assert (user_service.pages_asked, failures()) == (2, {"repeating": 1})
    user_service.running.clear_faults()
    assert attempt(occurrence).targeted == 6


def told_by(monkeypatch, pages):
    """The service's pages, each made by ``pages(cursor)``: (profiles, next cursor, total)."""

    def read_page(audience, *, as_of, cursor, limit):
        profiles, following, total = pages(cursor)
        return Page(*read_profiles(profiles), following, total)

    monkeypatch.setattr(client, "read_page", read_page)


def test_a_circle_of_pages_is_noticed_when_it_closes(opened, user_service, monkeypatch):
    following = {None: "b", "b": "c", "c": "d", "d": "b"}
    asked = []

    def pages(cursor):
        asked.append(cursor)
        return [profile(f"person-{cursor}")], following[cursor], None

    occurrence = opened()
    told_by(monkeypatch, pages)
    assert attempt(occurrence).reason == "user_service_refused"
    assert asked == [None, "b", "c", "d"]
    assert not Resolution.objects.exists()


def test_a_circle_under_ever_new_cursors_is_noticed_by_its_people(opened, user_service, monkeypatch):
    asked = []

    def pages(cursor):
        asked.append(cursor)
        return [profile("anna"), profile("bea")], f"c{len(asked)}", None

    occurrence = opened()
    told_by(monkeypatch, pages)
    assert attempt(occurrence).reason == "user_service_refused"
    assert len(asked) == 1 + resolving.BARREN_PAGES
    assert Delivery.objects.count() == 0


@pytest.mark.parametrize("besides", [profile("gone"), {"email": "nobody@example.com"}])
def test_whom_nobody_can_tell_from_others_hides_no_circle(opened, user_service, monkeypatch, besides):
    erasure.forget(recipient_id=RecipientFactory(external_id="gone").pk, by=BY, now=NOW)
    asked = []

    def pages(cursor):
        asked.append(cursor)
        return [profile("anna"), besides], f"c{len(asked)}" if len(asked) < 10 else None, None

    occurrence = opened()
    told_by(monkeypatch, pages)
    assert attempt(occurrence).reason == "user_service_refused"
    assert len(asked) == 1 + resolving.BARREN_PAGES


@pytest.mark.parametrize("who", [profile("gone"), {"email": "nobody@example.com"}])
@pytest.mark.parametrize(("total", "enough"), [(None, 10), (3, 4)])
def test_a_circle_of_such_people_alone_ends_too(opened, user_service, monkeypatch, who, total, enough):
    monkeypatch.setattr(resolving, "IDLE_PAGES", 10)
    erasure.forget(recipient_id=RecipientFactory(external_id="gone").pk, by=BY, now=NOW)
    asked = []

    def pages(cursor):
        asked.append(cursor)
        return [who], f"c{len(asked)}" if len(asked) < 30 else None, total

    occurrence = opened()
    told_by(monkeypatch, pages)
    assert attempt(occurrence).reason == "user_service_refused"
    assert (len(asked), failures()) == (enough, {"repeating": 1})


def test_pages_of_people_who_were_erased_are_gone_through_to_those_who_were_not(opened, user_service, monkeypatch):
    erasure.forget(recipient_id=RecipientFactory(external_id="gone").pk, by=BY, now=NOW)
    asked = []

    def pages(cursor):
        asked.append(cursor)
        is_last = len(asked) == 3 * resolving.BARREN_PAGES
        return [profile("anna" if is_last else "gone")], None if is_last else f"c{len(asked)}", None

    occurrence = opened()
    told_by(monkeypatch, pages)
    assert attempt(occurrence).targeted == 1


def test_a_page_that_comes_twice_among_others_makes_nobody_two(opened, user_service, monkeypatch):
    says = {
        None: ([profile("anna"), profile("bea")], "1", None),
        "1": ([profile("anna"), profile("bea")], "2", None),
        "2": ([profile("cleo")], None, None),
    }
    occurrence = opened()
    told_by(monkeypatch, says.__getitem__)
    assert attempt(occurrence).targeted == 3
    resolution = Resolution.objects.get()
    assert (resolution.people, resolution.repeated) == (3, 2)


def test_somebody_told_of_twice_and_differently_gets_one_row_and_is_as_said_last(opened, user_service, settings):
    settings.USER_SERVICE_PAGE = 3
    names = user_service.put_people(5, locale="de")
    occurrence = opened()
    user_service.fault("contradict", at="*.*")
    assert attempt(occurrence).targeted == 5
    assert named(occurrence) == names
    assert set(Recipient.objects.values_list("locale", flat=True)) == {"de"}
    assert Resolution.objects.get().repeated > 0


def test_fewer_people_than_announced_are_not_sent_to(opened, user_service, monkeypatch):
    short = iter([4, 2])
    occurrence = opened()
    told_by(monkeypatch, lambda cursor: ([profile("anna"), profile("bea")], None, next(short)))
    assert attempt(occurrence).targeted == 2
    assert failures() == {"incomplete": 1}


def test_somebody_whom_another_run_names_in_between_does_not_stand_for_whoever_is_missing(
    opened, user_service, monkeypatch
):
    anna = profile("anna")

    def pages(cursor):
        if cursor:
            mirror(*read_profiles([anna]), by=BY, now=NOW, resolution_id=0)
        return [anna], None if cursor else "b", 2

    occurrence = opened()
    told_by(monkeypatch, pages)
    assert attempt(occurrence).reason == "user_service_away"
    assert failures() == {"incomplete": 1 + resolving.RESTARTS}


def test_fewer_people_than_announced_each_time_are_nobody(opened, user_service, monkeypatch):
    occurrence = opened()
    told_by(monkeypatch, lambda cursor: ([profile("anna")], None, 2))
    after = attempt(occurrence)
    assert (after.reason, after.targeted, Delivery.objects.count()) == ("user_service_away", 0, 0)
    assert failures() == {"incomplete": 1 + resolving.RESTARTS}


def test_people_of_whom_a_part_can_not_be_kept_are_in_the_books(service, provider, opened, user_service):
    user_service.put(profile("anna", email="no address"), profile("bea"))
    occurrence = opened()
    assert attempt(occurrence).targeted == 2
    service.send()
    assert reasons(occurrence.schedule) == {"unaddressable: no_address": 1, "sent: ": 1}
    assert Resolution.objects.get().flawed == 1


def test_a_message_that_names_many_runs_ends_in_time_with_a_slow_service(opened, user_service, naps, monkeypatch):
    user_service.fault("status", status=422)
    runs = [opened() for _ in range(3)]
    seconds = iter([0.0, 32.0, 64.0, 96.0])
    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    tasks.materialise_occurrences(occurrence_ids=[run.pk for run in runs])
    assert user_service.pages_asked == 2
    assert [run.pk for run in Occurrence.objects.filter(reason="")] == [runs[2].pk]
