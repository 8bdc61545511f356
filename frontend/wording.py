"""States and reasons of the ledger in plain words.

A reason is a slug in the database, since programs and tests compare it; people read the sentence kept here.
"""

import json
from collections.abc import Mapping

from delivery import brake, caps
from delivery.explain import Audience, Code, Explanation, Limit, Promise, Story
from delivery.models import OUTCOME_UNKNOWN, State
from delivery.retry import MAX_RETRIES
from frontend.instants import show
from schedules import clock
from schedules.audience.tree import to_json
from schedules.models import Channel

STATES = {
    State.PENDING: "pending",
    State.SENDING: "being sent",
    State.UNKNOWN: "unanswered",
    State.SENT: "sent",
    State.FAILED: "failed",
    State.RATE_LIMITED: "rate limited",
    State.SUPPRESSED: "suppressed",
    State.UNADDRESSABLE: "no address",
    State.CANCELLED: "cancelled",
    State.ERASED: "erased",
    State.EXPIRED: "expired",
}

REASONS = {
    # The limits of a person
    "daily_cap": "The limit of messages to one person in 24 hours is used up.",
    "weekly_cap": "The limit of messages to one person in 7 days is used up.",
    "counters_away": "The counters of the limits are away: everybody waits, and no attempt is used up.",
    # The schedule and its people
    "cancelled": "The schedule was cancelled.",
    "deleted": "The schedule was deleted.",
    "edited": "An edit took this person out of the run.",
    "left_audience": "No longer matched the audience when it was sent.",
    "no_address": "The profile has no address for this channel.",
    "opted_out": "Opted out of this channel.",
    "profile_gone": "The profile was erased.",
    # Time
    "down": "The service did not run at the promised time.",
    "paused": "The schedule was paused over the promised time.",
    "past_zone": "The local time had already passed in this person's zone.",
    "occurrence_ended": "The run reached its end before this could be sent.",
    # Rendering
    "fuel_exhausted": "The template took too much computing for one message.",
    "header_injection": "The subject would have contained a line break.",
    "line_break_in_header": "An address or the subject contains a line break.",
    "no_content": "The template says nothing for this channel and locale.",
    "template_error": "The template failed on this person's data.",
    "too_large": "The message is larger than the provider takes.",
    # This service
    "database_away": "The database was away for a moment; no attempt is used up.",
    "internal_error": "This service had an error of its own with this message.",
    "provider_raised": "This service failed while it spoke to the provider: a mistake of its own, for its makers.",
    "worker_lost": "The worker died during the call; it may have arrived.",
    # The provider
    "access_denied": "The provider denied access: its credentials or rights are wrong.",
    "account_suspended": "The provider has suspended the account.",
    "address_not_ascii": "The provider takes only ASCII addresses.",
    "aws_settings": "The provider's settings are incomplete or wrong.",
    "bad_request": "The provider could not read the request.",
    "clock_skew": "The provider takes our requests for too old or too new: this machine's clock is wrong.",
    "configuration_set_not_found": "The provider does not know the configuration set.",
    "fcm_credentials": "The credentials for push can't be used: correct FCM_CREDENTIALS.",
    "failed": "The provider says that sending failed.",
    "daily_quota": "The provider's daily quota is used up.",
    "identity_not_verified": "The provider has not verified the sender.",
    "invalid_parameter": "The provider refused a value of this message.",
    "invalid_sending_pool": "The provider does not know the sending pool.",
    "invalid_token": "The device's token is not valid: the app has to register it anew.",
    "limit_exceeded": "A limit of the provider's account is reached.",
    "message_rejected": "The provider rejected the message.",
    "no_answer": "The provider did not answer after it had the request.",
    OUTCOME_UNKNOWN: "Nobody can say whether it arrived; it was not repeated.",
    "project_not_found": "The provider does not know the project.",
    "provider_error": "The provider had an error of its own.",
    "refused": "The provider refused it.",
    "sender_mismatch": "The device belongs to another project's app.",
    "sending_paused": "The provider has paused sending for the account.",
    "template_not_found": "The provider does not know the template.",
    "third_party_auth": "The provider's own access to Apple or the browser's push service is wrong or has expired.",
    "throttled": "The provider asked to slow down.",
    "transient_failure": "The provider failed for a moment.",
    "unexpected_status": "The provider answered in a way nobody expected.",
    "unreachable": "The provider could not be reached.",
    "unregistered": "The app was removed from the device, or its registration has ended.",
    "unreadable_answer": "The provider's answer could not be read.",
}

# Reasons of a whole run, which no delivery has.
_OF_RUNS = {
    "audience_too_slow": "Finding its people takes too long: add a clause that an index serves. It is tried again.",
    "not_materialised": "Its people could not be found within the run's seven days.",
}

# Where the same reason means something else in this state.
_IN_STATE = {
    (
        State.PENDING,
        "worker_lost",
    ): "The worker died during the call; as a repeat does no harm, it is tried again.",
    (State.PENDING, "no_answer"): "The provider did not answer; as a repeat does no harm, it is tried again.",
    (State.FAILED, "worker_lost"): "The worker died during the call, as often as it was tried.",
}

# Why the failure brake holds an occurrence.
HELD = {
    brake.FAILURES: "Most of its latest messages failed.",
    brake.GREW: "It has found many times the people of the run before.",
}


def reason(slug: str, state: int | None = None) -> str:
    """The sentence for a reason; one that has none yet is shown as it stands, readable enough."""
    told = _IN_STATE.get((State(state), slug)) if state is not None else None
    return told or REASONS.get(slug) or _OF_RUNS.get(slug) or slug.replace("_", " ")


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 person``, ``1,204 people``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def state(value: int) -> str:
    return STATES[State(value)]


# --- Why somebody got it or did not -----------------------------------------------------------------------------------

_WINDOWS = {caps.DAILY: "24 hours", caps.WEEKLY: "7 days"}

# Answers that need no more than their code.
_OF_CODE = {
    Code.BEING_SENT: "It is being sent at this moment.",
    Code.ABOUT_TO_BE_SENT: "It is due, and is about to be sent.",
    Code.RUN_HELD: "It waits with the whole run, which is held until somebody lets it go on.",
    Code.SCHEDULE_PAUSED: "It waits: the schedule is paused.",
    Code.SENDING_STOPPED: "It waits: somebody has stopped sending.",
    Code.PROVIDER_REFUSES: "It waits with the whole channel: the provider refuses the account at present.",
    Code.FINDING_RECIPIENTS: "The run is finding its people at this moment.",
    Code.AUDIENCE_TOO_SLOW: f"The run has no people yet. {_OF_RUNS['audience_too_slow']}",
    Code.POSTPONED: "The run has been given another time, and finds its people then.",
    Code.OUTCOME_UNKNOWN: (
        "Nobody knows whether it arrived: the provider had the message and never answered for it."
        " So it was not repeated, and counts as failed."
    ),
    Code.NOT_FOUND_THEN: (
        "The profile matches the audience today, yet was not among its people when the run found them:"
        " an address, a device or a consent that counts has changed since."
    ),
    Code.RUN_CANCELLED: "The run was cancelled.",
    Code.PAST_RETENTION: "The run is past the ledger's retention: who got it is no longer kept.",
    Code.SCHEDULE_DRAFT: "The schedule is a draft, and so has never run.",
    Code.SCHEDULE_FINISHED: "The schedule is finished without a run that the service still knows of.",
    Code.SCHEDULE_CANCELLED: "The schedule was cancelled before it ran.",
    Code.SCHEDULE_DELETED: "The schedule was deleted before it ran.",
}


def limit(found: Limit) -> str:
    most = count(found.most, "message") if found.most is not None else "messages"
    return f"The person is at the limit of {most} in {_WINDOWS[found.cap]}."


def explanation(found: Explanation) -> str:
    """One sentence or a few; every instant with its zone."""
    return story(found.story) if found.story else _absent(found)


def story(told: Story) -> str:
    """What became of a delivery, or what it waits for."""
    row, zone_name = told.delivery, told.zone_name
    why = reason(row.reason, row.state) if row.reason else ""
    settled = show(row.settled_at, zone_name)
    match told.code:
        case Code.SENT:
            return f"{_sent(told)} {settled}" + (f", at attempt {row.attempt}." if row.attempt > 1 else ".")
        case Code.UNANSWERED:
            until = f" until {show(row.leased_until + clock.shift(), zone_name)}" if row.leased_until else ""
            return (
                "The provider had the message and did not answer, so nobody knows whether it arrived."
                f" It waits{until}: a late answer still counts. Then it has failed."
            )
        case Code.NOT_DUE_YET:
            return "It waits for its time."
        case Code.WAITS_FOR_CAP if told.limit:
            return f"It waits. {limit(told.limit)}"
        case Code.WILL_BE_RETRIED:
            return f"Attempt {row.attempt} of {MAX_RETRIES + 1} failed. {why} {_next_try(told)}"
        case Code.PUT_OFF:
            return f"It waits. {why} {_next_try(told)}"
        case Code.FAILED:
            return f"Failed, and trying again by itself would not help. {why}"
        case Code.FAILED_AFTER_RETRIES:
            return f"Failed after {count(row.attempt, 'attempt')}. The last time: {_begun_small(why)}"
        case Code.AT_CAP if told.limit:
            return f"Not sent, at {settled}: {_begun_small(limit(told.limit))}"
    return _OF_CODE.get(told.code) or f"Not sent. {why}"


def _sent(told: Story) -> str:
    channel = told.occurrence.schedule.channel if told.occurrence else ""
    if channel == Channel.IN_APP:
        return "It lies in the person's inbox since"
    return "The provider took it at" if told.delivery.provider_id or told.delivery.reached else "It was sent at"


def _next_try(told: Story) -> str:
    if not told.is_ahead:
        return "The next try is due now."
    return f"The next try is at {show(told.delivery.due_at, told.zone_name)}."


def _begun_small(sentence: str) -> str:
    return f"{sentence[:1].lower()}{sentence[1:]}"


def _absent(found: Explanation) -> str:
    """Why the run has nothing for the person, or why there is no run."""
    run = found.occurrence
    found_at = show(run.materialised_at) if run else ""
    match found.code:
        case Code.NOT_DUE_YET:
            return f"The schedule has not run yet.{_promised(found.promise)}{_at_present(found.audience)}"
        case Code.NOT_MATCHED:
            return (
                f"The person was not in the audience when the run found its people at {found_at}.{_by(found.audience)}"
            )
        case Code.CREATED_LATER if found.person:
            created = show(found.person.created_at)
            return f"The run found its people at {found_at}, and the profile was made later, at {created}."
        case Code.CHANGED_LATER if found.audience:
            changed = show(found.audience.changed_at)
            return (
                f"The profile matches the audience today, but the run found its people at {found_at},"
                f" and the profile was changed later, at {changed}."
            )
        case Code.RUN_MISSED if run:
            return f"Nobody got this run. {reason(run.reason)}"
        case Code.SCHEDULE_BROKEN:
            return (
                f"The schedule is broken and runs no more until it is mended. {found.schedule.status_reason}".rstrip()
            )
        case Code.SCHEDULE_PAUSED:
            return f"The schedule is paused, and has not run yet.{_at_present(found.audience)}"
    return _OF_CODE.get(found.code, "Not sent.")


def _promised(promise: Promise | None) -> str:
    return f" The person is due at {show(promise.due_at, promise.zone_name)}." if promise else ""


def _at_present(audience: Audience | None) -> str:
    if audience is None or audience.matches:
        return ""
    return f" At present the person is not in its audience.{_by(audience)}"


def _by(audience: Audience | None) -> str:
    """Which clauses keep the person out."""
    if audience is None or audience.matches:
        return ""
    clauses = [_clause(each.pointer, to_json(each.node)) for each in audience.decisive]
    return f" What keeps the person out is {' and '.join(clauses)}." if clauses else ""


def _clause(pointer: str, clause: Mapping[str, object]) -> str:
    value = json.dumps(clause["value"], ensure_ascii=False)
    return f"“{clause['field']} {clause['op']} {value}” ({pointer or '/'})"
