"""What became of one person's message, in plain words, and what people may decide about it."""

import ast
import itertools
import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client

from audit.models import Action, AuditEvent
from delivery import circuits, counts, erasure
from delivery.models import Delivery, FailedAttempt, State
from delivery.providers import fcm, ses
from delivery.providers.base import Answer, Verdict
from frontend.wording import HELD, REASONS, reason
from schedules import operations
from schedules.models import OccurrenceState
from schedules.permissions import Role
from tests.accounts import account, signed_in
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people
from tests.integration.test_pages import text_of
from tests.service import HOUR, MINUTE, only_occurrence, row_of, states

pytestmark = pytest.mark.django_db


_readers = itertools.count()


def address(schedule, person):
    return f"/ledger/{only_occurrence(schedule).pk}/{person.pk}/"


def story(schedule, person, role=Role.MARKETER):
    """The page as ``role`` reads it, from its title on."""
    return text_of(signed_in(role, name=f"reader-{next(_readers)}").get(address(schedule, person)))


def run(service, provider, *answers, **fields):
    """One person's run to whom the provider says these in turn, the last of them for ever."""
    person = RecipientFactory(external_id="anna", email="anna@example.com")
    schedule = ScheduleFactory(name="News", **fields)
    for verdict, slug, more in answers:
        provider.answers(verdict, slug, **more)
        service.step()
        row = row_of(schedule, person)
        if row.state == State.PENDING:
            service.at(row.due_at)
    return schedule, person


BUSY = (Verdict.TRANSIENT, "transient_failure", {"detail": "try later"})
NO = (Verdict.PERMANENT, "message_rejected", {"detail": "550 no such user"})
YES = (Verdict.SENT, "", {"provider_id": "id-7"})
SILENCE = (Verdict.UNKNOWN, "no_answer", {"detail": "ReadTimeoutError"})


# Attempts


def test_each_attempt_is_told_with_its_time_the_answer_and_the_providers_own_words(service, provider):
    schedule, person = run(service, provider, BUSY, BUSY, YES)
    page = story(schedule, person)
    assert "sent The provider took it at 2026-11-21 10:00:" in page
    assert "UTC, at attempt 3." in page
    told = "attempt 1: failed The provider failed for a moment. try later"
    assert f"2026-11-21 10:00:00 UTC promised 2026-11-21 10:00:00 UTC {told}" in page
    assert page.index("attempt 1: failed") < page.index("attempt 2: failed") < page.index("attempt 3: sent")
    assert "Accepted. Its id there: id-7" in page


def test_who_waits_for_a_retry_is_told_when_it_comes(service, provider):
    schedule, person = run(service, provider)
    provider.answers(*BUSY[:2])
    service.step()
    due = row_of(schedule, person).due_at
    said = f"Attempt 1 of 4 failed. The provider failed for a moment. The next try is at {due:%Y-%m-%d %H:%M:%S} UTC."
    page = story(schedule, person)
    assert said in page
    assert f"{due:%Y-%m-%d %H:%M:%S} UTC next try" in page


def test_being_throttled_is_waiting_and_no_attempt(service, provider):
    schedule, person = run(service, provider)
    provider.answers(Verdict.THROTTLED, "throttled", retry_after=60.0)
    service.step()
    page = story(schedule, person)
    assert "It waits. The provider asked to slow down. The next try is at 2026-11-21 10:01:" in page
    assert "attempt 1" not in page


def test_who_failed_after_every_retry_and_who_failed_at_once_are_told_apart(service, provider):
    schedule, person = run(service, provider, BUSY, BUSY, BUSY, BUSY)
    assert "Failed after 4 attempts. The last time: the provider failed for a moment." in story(schedule, person)
    service.at(NOW)
    FailedAttempt.objects.all().delete()
    Delivery.objects.update(attempt=1, reason="message_rejected")
    said = "Failed, and trying again by itself would not help. The provider rejected the message."
    assert said in story(schedule, person)


def test_an_unknown_outcome_says_how_long_it_waits_and_what_sending_again_may_do(service, provider, settings):
    settings.UNKNOWN_S = 60.0
    schedule, person = run(service, provider, SILENCE)
    page = story(schedule, person)
    assert "nobody knows whether it arrived. It waits until " in page
    assert "attempt 1: no answer" in page
    assert "Send again" not in page
    Delivery.objects.update(leased_until=NOW - timedelta(days=1))
    service.sweep()
    page = story(schedule, person)
    assert "So it was not repeated, and counts as failed." in page
    assert "Send again Nobody knows whether the first one arrived, so it may arrive twice. Yes, send again" in page


@pytest.mark.parametrize(
    ("hindrance", "said"),
    [
        ("held", "It waits with the whole run, which is held until somebody lets it go on."),
        ("paused", "It waits: the schedule is paused."),
        ("open", "It waits with the whole channel: the provider refuses the account at present."),
        ("none", "It is due, and is about to be sent."),
        ("early", "It waits for its time."),
    ],
)
def test_what_holds_the_whole_run_is_told_to_each_person(service, hindrance, said):
    person = RecipientFactory()
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.at(NOW + (timedelta(0) if hindrance == "early" else MINUTE)).open()
    {
        "held": lambda: schedule.occurrences.update(held_reason="failures", held_at=NOW),
        "paused": lambda: service.pause(schedule),
        "open": lambda: circuits.open_circuit("email", reason="daily_quota", detail="", now=NOW),
    }.get(hindrance, lambda: None)()
    assert said in story(schedule, person)


def test_the_promise_is_told_on_the_persons_clock_with_zone_and_offset(service):
    person = RecipientFactory(time_zone="Asia/Kathmandu")
    schedule = ScheduleFactory(time_zone_mode="user_local", run_at=NOW + timedelta(hours=20), now=NOW)
    service.run_to(NOW + timedelta(hours=30))
    page = story(schedule, person)
    said = "2026-11-22 06:00:00 Asia/Kathmandu (UTC+05:45) by the profile's zone"
    assert f"Promised for {said}" in page
    assert "It was sent at 2026-11-22 06:00:00 Asia/Kathmandu (UTC+05:45)." in page
    assert "The message" in page


# Limits


@pytest.fixture
def limited(service, provider):
    """A newsletter under a cap of one a day, to somebody who got a preview just before."""
    person = RecipientFactory(external_id="anna")
    preview = ScheduleFactory(name="Preview")
    service.step()
    news = ScheduleFactory(name="News", max_per_user_per_day=1, run_at=NOW + HOUR)
    service.at(NOW + HOUR).step()
    assert states(news) == {"rate_limited": 1}
    return preview, news, person


def test_who_was_at_the_limit_is_told_which_messages_used_it_and_when_there_is_room(limited):
    preview, news, person = limited
    page = story(news, person)
    assert "Not sent, at 2026-11-21 11:00:00 UTC: the person is at the limit of 1 message in 24 hours." in page
    assert "It is used up by: “Preview” on 2026-11-21 10:00:00 UTC sent" in page
    assert "There is room for another message from: 2026-11-22 10:00:00 UTC" in page
    link = f'href="{address(preview, person)}">“Preview”'
    assert link in signed_in(Role.ANALYST).get(address(news, person)).content.decode()


def test_who_waits_for_the_limit_is_told_so(service, limited):
    _, _, person = limited
    soon = ScheduleFactory(name="Soon", max_per_user_per_day=1, run_at=NOW + timedelta(hours=23, minutes=57))
    service.at(NOW + timedelta(hours=23, minutes=57)).step()
    page = story(soon, person)
    assert "pending It waits. The person is at the limit of 1 message in 24 hours." in page
    assert "There is room for another message from: 2026-11-22 10:00:00 UTC" in page


@pytest.mark.parametrize(
    "detail", ["", "nonsense", "{}", '{"limit": 1, "used": ["x"]}', '{"limit": 1, "used": [7]}', "[]"]
)
def test_a_limit_of_which_little_is_known_is_told_all_the_same(limited, detail):
    _, news, person = limited
    Delivery.objects.filter(occurrence_id=only_occurrence(news).pk).update(detail=detail)
    assert "the person is at the limit of messages in 24 hours." in story(news, person)


def test_a_message_that_the_ledger_has_lost_is_named_by_its_run(limited):
    _, news, person = limited
    detail = '{"limit": 1, "used": ["20261120-999"]}'
    Delivery.objects.filter(occurrence_id=only_occurrence(news).pk).update(detail=detail)
    page = story(news, person)
    assert "run 999 of 2026-11-20, no longer in the ledger" in page
    assert "There is room" not in page


# People and devices


def test_of_somebody_erased_the_story_is_told_by_number(service, provider):
    schedule, person = run(service, provider, BUSY, NO)
    erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
    page = story(schedule, person)
    assert f"erased person #{person.pk}" in page
    assert "attempt 2: refused The provider rejected the message. 550 no such user" in page
    assert "anna" not in page


def test_an_analyst_reads_the_story_with_a_masked_address_and_is_offered_nothing(service, provider):
    schedule, person = run(service, provider, NO)
    assert "anna@example.com" in story(schedule, person)
    page = story(schedule, person, Role.ANALYST)
    assert "anna@example.com" not in page
    assert "a…@example.com" in page
    assert "Send again" not in page


def test_of_a_push_each_device_is_told_apart(service, provider):
    person = RecipientFactory()
    devices = [DeviceFactory(recipient=person, token=f"token-secret-00{n}") for n in range(3)]
    schedule = ScheduleFactory(channel="push")
    reached, gone = (devices[0].pk,), (devices[1].pk,)
    provider.answer = staticmethod(
        lambda m: Answer(m.key, Verdict.TRANSIENT, "provider_error", reached=reached, gone=gone)
    )
    service.step()
    page = story(schedule, person)
    assert "Android …et-000 has the message" in page
    assert "Android …et-001 is no longer registered with the provider" in page
    assert "Android …et-002 has not got it yet" in page
    assert "secret" not in page
    devices[0].delete()
    assert "A device that is gone since has the message" in story(schedule, person)


@pytest.mark.parametrize("role", Role)
def test_every_row_of_the_ledger_leads_to_its_story(service, role):
    persons = [*people(2), RecipientFactory(email=""), RecipientFactory(consent={"email": False})]
    schedule = ScheduleFactory()
    service.step()
    client = signed_in(role)
    links = re.findall(r'href="(/ledger/\d+/\d+/)">What happened', client.get("/ledger/").content.decode())
    assert sorted(links) == sorted(address(schedule, person) for person in persons)
    pages = " ".join(text_of(client.get(link)) for link in links)
    assert "Not sent. The profile has no address for this channel." in pages
    assert "Not sent. Opted out of this channel." in pages


def test_what_the_ledger_does_not_have_is_not_found(service):
    person = RecipientFactory()
    schedule = ScheduleFactory()
    service.step()
    client = signed_in(Role.ANALYST)
    pk = only_occurrence(schedule).pk
    for page in (
        f"/ledger/{pk}/{person.pk + 1}/",
        "/ledger/9999/1/",
        f"/ledger/{pk}/{10**30}/",
        f"/ledger/{10**30}/1/",
    ):
        assert client.get(page).status_code == 404
    assert Client().get(address(schedule, person)).headers["Location"].startswith("/admin/login/")
    assert signed_in(None).get(address(schedule, person)).status_code == 403


# Sending again


def again(client, schedule, **form):
    return client.post(f"/occurrences/{only_occurrence(schedule).pk}/again/", form, follow=True)


@pytest.mark.parametrize("role", [Role.MARKETER, Role.ADMIN])
def test_one_person_is_sent_to_again_and_the_story_goes_on(service, provider, role):
    schedule, person = run(service, provider, NO)
    marketer = account(role)
    client = Client()
    client.force_login(marketer)
    response = again(client, schedule, recipient=person.pk)
    assert response.redirect_chain[0][0] == address(schedule, person)
    assert "1 person is being tried again." in text_of(response)
    assert "Somebody had it tried again." in text_of(response)
    provider.reset()
    service.step()
    page = text_of(client.get(address(schedule, person)))
    assert "attempt 1: refused" in page
    assert re.search(r"Somebody had it tried again\. 2026-11-21 \S+ UTC attempt 1: sent Accepted\.", page)
    event = AuditEvent.objects.get(action=Action.DELIVERY_RETRY)
    assert (event.actor_id, event.payload_diff["people"]) == (f"user:{marketer.pk}", 1)


@pytest.fixture
def failures(service, provider):
    """Three whom the provider rejects, two of whom nobody knows, one who got it."""
    rejected, silent, _ = people(3), people(2), people(1)
    fate = {p.pk: (Verdict.PERMANENT, "message_rejected") for p in rejected}
    fate |= {p.pk: (Verdict.UNKNOWN, "no_answer") for p in silent}
    provider.answer = staticmethod(lambda m: Answer(m.key, *fate.get(m.recipient_id, (Verdict.SENT, ""))))
    schedule = ScheduleFactory()
    service.step()
    Delivery.objects.filter(state=State.UNKNOWN).update(leased_until=NOW - timedelta(days=1))
    service.sweep()
    assert states(schedule) == {"failed": 5, "sent": 1}
    return schedule


def test_an_occurrence_offers_to_try_again_by_reason_and_all_together(failures):
    page = text_of(signed_in(Role.MARKETER).get(f"/occurrences/{only_occurrence(failures).pk}/"))
    assert "then try again. 3 Retry these 3 3 people did not get it." in page
    assert "Retry these 2 These 2 may have it already, which nobody knows, and so may get it twice." in page
    assert "Retry all 5 that failed 2 of these 5 people may have it already" in page


def test_the_people_of_one_reason_are_tried_again_and_nobody_else(failures):
    response = again(signed_in(Role.MARKETER), failures, reason="message_rejected")
    assert "3 people are being tried again." in text_of(response)
    assert states(failures) == {"pending": 3, "failed": 2, "sent": 1}
    assert only_occurrence(failures).state == OccurrenceState.RUNNING


def test_all_who_failed_are_tried_again_and_a_second_click_does_no_harm(failures):
    client = signed_in(Role.MARKETER)
    assert "5 people are being tried again." in text_of(again(client, failures))
    assert "Nothing was changed: nobody of them is failed any more." in text_of(again(client, failures))
    assert states(failures) == {"pending": 5, "sent": 1}


def test_what_cannot_be_tried_again_is_said_in_words(service, failures):
    service.at(NOW + timedelta(days=8))
    client = signed_in(Role.MARKETER)
    assert "has reached the end of its seven days" in text_of(again(client, failures))
    assert "Retry these" not in text_of(client.get(f"/occurrences/{only_occurrence(failures).pk}/"))
    assert states(failures) == {"failed": 5, "sent": 1}


@pytest.mark.parametrize(
    "form", [{"recipient": "x"}, {"recipient": "0"}, {"reason": "'; --"}, {"recipient": str(10**30)}]
)
def test_a_senseless_request_changes_nothing(failures, form):
    assert again(signed_in(Role.MARKETER), failures, **form).status_code == 400
    assert states(failures) == {"failed": 5, "sent": 1}


@pytest.mark.parametrize("verb", ["again", "release"])
def test_only_who_edits_schedules_decides_by_a_form_of_our_own(failures, verb):
    failures.occurrences.update(state=OccurrenceState.RUNNING, closed_at=None, held_reason="failures", held_at=NOW)
    page = f"/occurrences/{only_occurrence(failures).pk}/{verb}/"
    assert Client().post(page).headers["Location"].startswith("/admin/login/")
    assert signed_in(Role.ANALYST).post(page).status_code == 403
    marketer = account(Role.MARKETER)
    checked, unchecked = Client(enforce_csrf_checks=True), Client()
    checked.force_login(marketer)
    unchecked.force_login(marketer)
    assert checked.post(page).status_code == 403
    assert unchecked.get(page).status_code == 405
    assert states(failures) == {"failed": 5, "sent": 1}
    assert only_occurrence(failures).held_reason == "failures"
    assert unchecked.post(f"/occurrences/99999/{verb}/").status_code == 404


# Held runs, open circuits


@pytest.fixture
def held(service, provider):
    """A run of which three failed and two wait for a retry, held by the brake."""
    rejected, _ = people(3), people(2)
    ids = {person.pk for person in rejected}
    provider.answer = staticmethod(
        lambda m: Answer(m.key, *((Verdict.PERMANENT, "refused") if m.recipient_id in ids else BUSY[:2]))
    )
    schedule = ScheduleFactory(name="Old list")
    service.step()
    occurrence_id = only_occurrence(schedule).pk
    operations.hold_occurrence(occurrence_id=occurrence_id, reason="failures", by="system:brake", now=NOW, changes={})
    return schedule


def places(schedule):
    return [
        "/schedules/",
        f"/occurrences/{only_occurrence(schedule).pk}/",
        f"/schedules/{schedule.pk}/",
    ]


def test_a_held_run_is_told_with_figures_wherever_somebody_may_decide(held):
    client, analyst = signed_in(Role.MARKETER), signed_in(Role.ANALYST)
    for place in places(held):
        page = text_of(client.get(place))
        assert "“Old list” is held. Held since 2026-11-21 10:00:00 UTC. Most of its latest messages failed." in page
        assert "Of 3 people it was tried for, 3 failed; 2 people wait." in page
        assert "It goes on with the 2 people who wait. Is the cause gone?" in page
        assert page.count("Yes, let it go on") == 1
        assert "is held" in text_of(analyst.get(place))
        assert "Yes, let it go on" not in text_of(analyst.get(place))


def test_a_run_that_has_grown_is_told_with_the_run_before(service):
    person = RecipientFactory()
    schedule = ScheduleFactory(cron="0 * * * *")
    service.run_to(NOW + HOUR)
    people(11)
    service.at(NOW + 2 * HOUR).open()
    latest = schedule.occurrences.first()
    schedule.occurrences.filter(pk=latest.pk).update(held_reason="audience_grown", held_at=service.now)
    page = text_of(signed_in(Role.MARKETER).get(f"/occurrences/{latest.pk}/"))
    assert "It has 12 people, the run before 1; 12 people wait." in page
    assert "It goes out to 12 people. Is this really the audience that is meant?" in page
    assert "once the run goes on" in page
    assert person.pk


def test_a_held_run_is_let_go_on_by_a_marketer(service, provider, held):
    client = signed_in(Role.MARKETER)
    page = f"/occurrences/{only_occurrence(held).pk}/release/"
    assert "The run goes on where it stopped." in text_of(client.post(page, follow=True))
    assert "Nothing was changed: this run is not held." in text_of(client.post(page, follow=True))
    provider.reset()
    service.at(NOW + MINUTE).step()
    assert states(held) == {"failed": 3, "sent": 2}
    assert not any("is held" in text_of(client.get(place)) for place in places(held))


def test_an_open_circuit_is_told_on_every_page_with_its_next_try(service):
    people(2)
    schedule = ScheduleFactory()
    service.open()
    circuits.open_circuit("email", reason="daily_quota", detail="", now=NOW)
    client = signed_in(Role.ANALYST)
    for page in ("/admin/", "/ledger/", f"/occurrences/{only_occurrence(schedule).pk}/"):
        shown = text_of(client.get(page))
        assert "E-mail waits: the provider refuses the account since 2026-11-21 10:00:00 UTC." in shown
        assert "The provider's daily quota is used up. The next try is made at" in shown
        assert "Meanwhile no attempt is used up. People whose time passes by more than" in shown
    assert "once the provider takes messages again 2" in shown


def test_an_occurrence_groups_who_waits_by_why_and_counts_what_was_in_vain(service, provider):
    busy, slow = people(3), people(2)
    ids = {person.pk for person in busy}
    provider.answer = staticmethod(
        lambda m: (
            Answer(m.key, *BUSY[:2])
            if m.recipient_id in ids
            else Answer(m.key, Verdict.THROTTLED, "throttled", retry_after=60.0)
        )
    )
    schedule = ScheduleFactory()
    service.step()
    assert len(slow) == 2
    page = text_of(signed_in(Role.ANALYST).get(f"/occurrences/{only_occurrence(schedule).pk}/"))
    assert re.search(
        r"pending The provider failed for a moment\. 2026-11-21 10:00:\d\d UTC to 2026-\S+ \S+ UTC 3", page
    )
    assert re.search(r"pending The provider asked to slow down\. 2026-11-21 10:01:\d\d UTC to 2026-\S+ \S+ UTC 2", page)
    assert "The provider failed for a moment. 3 3" in page


# Words

_SLUG = re.compile(r"[a-z]+(_[a-z]+)*")


def _is_verdict(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.value.id in ("Verdict", "State")
    return isinstance(node, ast.Name) and node.id in ("_PERMANENT", "_MISCONFIGURED")


def _slugs_after_verdicts(tree: ast.AST) -> set[str]:
    """What follows ``Verdict.X`` or ``State.X`` (or a name for one) in a call or a tuple, if it looks like a reason."""
    found = set()
    for node in ast.walk(tree):
        parts = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.Tuple) else []
        found |= {
            after.value
            for before, after in itertools.pairwise(parts)
            if _is_verdict(before) and isinstance(after, ast.Constant) and _SLUG.fullmatch(str(after.value))
        }
    return found


def _slugs_of_functions(tree: ast.AST, names: set[str], position: int) -> set[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names]
    given = [call.args[position] for call in calls if len(call.args) > position]
    return {each.value for each in given if isinstance(each, ast.Constant)}


# Said of calls that never began, whose people are pending again with no reason, and of a test send that was none.
NEVER_IN_THE_LEDGER = {"permit_expired", "next_call", "", "gone", "stopped"}


def test_every_reason_that_the_ledger_can_hold_has_a_sentence():
    used = {slug for classes in counts.REASON_CLASSES.values() for slug in classes}
    used -= {"rendering", "refused", "retries_exhausted"}  # classes, not reasons
    for path in Path("delivery").rglob("*.py"):
        tree = ast.parse(path.read_text())
        used |= _slugs_after_verdicts(tree)
        used |= _slugs_of_functions(tree, {"RenderError"}, 0)
        used |= _slugs_of_functions(tree, {"not_sent", "_held_up"}, 1)
    used |= {slug for _, slug in (*ses.STATUSES.values(), *ses.ERRORS.values(), *fcm.ERRORS.values())}
    assert {"unregistered", "database_away", "counters_away", "internal_error", "provider_raised", "no_content"} <= used
    assert used - set(REASONS) - NEVER_IN_THE_LEDGER == set()


def test_every_reason_to_hold_a_run_has_a_sentence():
    source = Path("delivery/brake.py").read_text()
    assert set(HELD) == set(re.search(r"FAILURES, GREW = (.*)", source)[1].replace('"', "").split(", "))


def test_a_reason_may_mean_something_else_while_a_person_waits():
    assert reason("worker_lost", State.PENDING) != reason("worker_lost", State.UNKNOWN)
    assert "tried again" in reason("worker_lost", State.PENDING)
    assert reason("throttled", State.PENDING) == reason("throttled")
