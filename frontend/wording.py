"""States and reasons of the ledger in plain words.

A reason is a slug in the database, since programs and tests compare it; people read the sentence kept here.
"""

from delivery import brake
from delivery.models import OUTCOME_UNKNOWN, State

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
