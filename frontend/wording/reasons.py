"""States and reasons of the ledger in plain words, and what one can do about them.

A reason is a slug in the database, since programs and tests compare it; people read the sentence kept here, in the
language that is active when it is read.
"""

from collections.abc import Mapping

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from delivery import brake
from delivery.models import (
    CONFIRMED,
    OUTCOME_UNKNOWN,
    OUTSIDE_WINDOW,
    QUIET_HOURS,
    WAITED_TOO_LONG,
    WINDOW_IS_QUIET,
    State,
)
from schedules.models import OccurrenceState

Words = str | Promise

STATES: Mapping[State, Words] = {
    State.PENDING: _("pending"),
    State.SENDING: _("being sent"),
    State.UNKNOWN: _("unanswered"),
    State.SENT: _("sent"),
    State.FAILED: _("failed"),
    State.RATE_LIMITED: _("rate limited"),
    State.SUPPRESSED: _("suppressed"),
    State.UNADDRESSABLE: _("no address"),
    State.CANCELLED: _("cancelled"),
    State.ERASED: _("erased"),
    State.EXPIRED: _("expired"),
}

REASONS: Mapping[str, Words] = {
    # The limits of a person
    "daily_cap": _("The limit of messages to one person in 24 hours is used up."),
    "weekly_cap": _("The limit of messages to one person in 7 days is used up."),
    "counters_away": _("The counters of the limits are away: everybody waits, and no attempt is used up."),
    # The schedule and its people
    "cancelled": _("The schedule was cancelled."),
    "deleted": _("The schedule was deleted."),
    "edited": _("An edit took this person out of the run."),
    "blocked": _("Somebody has blocked this address."),
    "bounced": _("An earlier message to this address came back: it takes no mail."),
    "bounced_often": _("Several messages to this address came back within a fortnight."),
    "complained": _("An earlier message to this address was called spam."),
    "left_audience": _("No longer matched the audience when it was sent."),
    "no_address": _("The profile has no address for this channel."),
    "opted_out": _("Opted out of this channel."),
    "opted_out_of_topic": _("Opted out of this topic."),
    "not_opted_in": _("Has not agreed to this topic, which needs a yes."),
    "profile_gone": _("The profile was erased."),
    # Time
    "down": _("The service did not run at the promised time."),
    "paused": _("The schedule was paused over the promised time."),
    "past_zone": _("The local time had already passed in this person's zone."),
    "occurrence_ended": _("The run reached its end before this could be sent."),
    OUTSIDE_WINDOW: _("At this hour the schedule sends nothing to this person; no attempt is used up."),
    QUIET_HOURS: _("The person has quiet hours at this time; no attempt is used up."),
    WINDOW_IS_QUIET: _("All the hours at which the schedule sends are quiet hours of this person."),
    WAITED_TOO_LONG: _("It could not be sent within the time that the schedule lets people wait."),
    # Rendering
    "fuel_exhausted": _("The template took too much computing for one message."),
    "header_injection": _("The subject would have contained a line break."),
    "line_break_in_header": _("An address or the subject contains a line break."),
    "no_content": _("The template says nothing for this channel and locale."),
    "template_error": _("The template failed on this person's data."),
    "template_gone": _("The template service no longer has the version of the template with which this run began."),
    "template_service_away": _("The template service does not answer: everybody waits, and no attempt is used up."),
    "template_service_error": _("The template service fails on this one message, again and again."),
    "template_service_refused": _(
        "The template service refuses to write messages: whoever runs it, or this service, has to mend that."
        " Everybody waits, and no attempt is used up."
    ),
    "too_large": _("The message is larger than the provider takes."),
    # This service
    "database_away": _("The database was away for a moment; no attempt is used up."),
    "internal_error": _("This service had an error of its own with this message."),
    "key_unknown": _("The key is missing under which this person's address is kept; no attempt is used up."),
    "provider_raised": _("This service failed while it spoke to the provider: a mistake of its own, for its makers."),
    "unreadable": _("The address or device was changed in the database behind this service's back."),
    "worker_lost": _("The worker died during the call; it may have arrived."),
    # The provider
    "access_denied": _("The provider denied access: its credentials or rights are wrong."),
    "account_suspended": _("The provider has suspended the account."),
    "address_not_ascii": _("The provider takes only ASCII addresses."),
    "aws_settings": _("The provider's settings are incomplete or wrong."),
    "bad_request": _("The provider could not read the request."),
    CONFIRMED: _("Nobody answered for the call; the provider told afterwards that it took the message."),
    "clock_skew": _("The provider takes our requests for too old or too new: this machine's clock is wrong."),
    "configuration_set_not_found": _("The provider does not know the configuration set."),
    "fcm_credentials": _("The credentials for push can't be used: correct FCM_CREDENTIALS."),
    "failed": _("The provider says that sending failed."),
    "daily_quota": _("The provider's daily quota is used up."),
    "identity_not_verified": _("The provider has not verified the sender."),
    "invalid_parameter": _("The provider refused a value of this message."),
    "invalid_sending_pool": _("The provider does not know the sending pool."),
    "invalid_token": _("The device's token is not valid: the app has to register it anew."),
    "limit_exceeded": _("A limit of the provider's account is reached."),
    "message_rejected": _("The provider rejected the message."),
    "no_answer": _("The provider did not answer after it had the request."),
    OUTCOME_UNKNOWN: _("Nobody can say whether it arrived; it was not repeated."),
    "endpoint_gone": _("The program that takes the messages says that it is gone: correct WEBHOOK_URL."),
    "project_not_found": _("The provider does not know the project."),
    "provider_error": _("The provider had an error of its own."),
    "recipient_refused": _("The mail server does not deliver to this address, or its mailbox is full."),
    "refused": _("The provider refused it."),
    "rendering_failure": _("The provider could not fill in the message."),
    "sender_refused": _("The mail server does not let us send under our address: EMAIL_FROM or the account is wrong."),
    "smtp_settings": _("The connection to the mail server can't be made safely: correct SMTP_URL or SMTP_CA_FILE."),
    "sender_mismatch": _("The device belongs to another project's app."),
    "sending_paused": _("The provider has paused sending for the account."),
    "template_not_found": _("The provider does not know the template."),
    "third_party_auth": _("The provider's own access to Apple or the browser's push service is wrong or has expired."),
    "throttled": _("The provider asked to slow down."),
    "transient_failure": _("The provider failed for a moment."),
    "unexpected_status": _("The provider answered in a way nobody expected."),
    "unreachable": _("The provider could not be reached."),
    "unregistered": _("The app was removed from the device, or its registration has ended."),
    "unreadable_answer": _("The provider's answer could not be read."),
}

# Reasons that no delivery has: of a whole run, and of a test send.
OF_RUNS: Mapping[str, Words] = {
    "audience_too_slow": _("Finding its people takes too long: add a clause that an index serves. It is tried again."),
    "user_service_away": _("The user service, which names its people, does not answer. It is asked again by itself."),
    "user_service_refused": _(
        "The user service refuses to name its people: whoever runs it, or this service, has to mend that."
        " It is asked again by itself."
    ),
    "not_materialised": _("Its people could not be found within the run's seven days."),
    "gone": _("The schedule, its template or the person is gone."),
    "stopped": _("Somebody has stopped sending."),
}

# Where the same reason means something else in this state.
_IN_STATE: Mapping[tuple[State, str], Words] = {
    (
        State.PENDING,
        "worker_lost",
    ): _("The worker died during the call; as a repeat does no harm, it is tried again."),
    (State.PENDING, "no_answer"): _("The provider did not answer; as a repeat does no harm, it is tried again."),
    (State.FAILED, "worker_lost"): _("The worker died during the call, as often as it was tried."),
}

# Why the failure brake holds an occurrence.
HELD: Mapping[str, Words] = {
    brake.FAILURES: _("Most of its latest messages failed."),
    brake.GREW: _("It has found many times the people of the run before."),
}

# A run's state as one reads it in a list, and held above all.
RUN_STATES: Mapping[str, Words] = {
    OccurrenceState.WAITING: _("waits for its new time"),
    OccurrenceState.MATERIALISING: _("finds its people"),
    OccurrenceState.RUNNING: _("running"),
    OccurrenceState.FINISHED: _("finished"),
    OccurrenceState.CANCELLED: _("cancelled"),
    OccurrenceState.MISSED: _("missed"),
}

_MEND_TEMPLATE = _("Mend the template: runs from then on use it. Trying again repeats this run's version of it.")
_MEND_ACCOUNT = _("An admin has to put the account with the provider right; then try again.")
_PROVIDER_TROUBLE = _("The provider had trouble. Try again once it has recovered.")
_TRY_AND_TELL = _("Try again; if it happens once more, tell the people who run this service.")
_CORRECT = _("Read the provider's own words in one of the stories, correct what they name, then try again.")
_TOO_LATE = _("The time has passed: duplicate the schedule to reach them all the same.")
_NOTHING = _("Nothing needs to be done.")

# What one can do for the people of a reason.
REMEDIES: Mapping[str, Words] = {
    "daily_cap": _("Nothing needs to be done; the schedule's limits say how many messages are too many."),
    "weekly_cap": _("Nothing needs to be done; the schedule's limits say how many messages are too many."),
    "left_audience": _NOTHING,
    "blocked": _("Let the address be written to again, on the person's page."),
    "bounced": _("Correct the address in the profile. If it takes mail again, say so on the person's page."),
    "bounced_often": _("Once the address takes mail again, say so on the person's page."),
    "complained": _("Nothing: the person does not want messages here."),
    "opted_out": _("Nothing: the person does not want messages here."),
    "opted_out_of_topic": _("Nothing: the person does not want messages of this topic."),
    "not_opted_in": _("Nothing here: the person has to agree first, such as in your app or on the preference page."),
    "no_address": _("Add what is missing to the profiles: the next run finds it there."),
    "profile_gone": _NOTHING,
    "edited": _NOTHING,
    "cancelled": _("Duplicate the schedule to send to them."),
    "deleted": _NOTHING,
    "down": _TOO_LATE,
    "paused": _TOO_LATE,
    "past_zone": _("Choose an earlier day, or let those whose time has passed get it at once."),
    "occurrence_ended": _TOO_LATE,
    WINDOW_IS_QUIET: _("Widen the hours among the schedule's limits: the quiet ones are the person's own."),
    WAITED_TOO_LONG: _("Let them wait longer, or widen the hours: both are among the schedule's limits."),
    "fuel_exhausted": _MEND_TEMPLATE,
    "header_injection": _MEND_TEMPLATE,
    "line_break_in_header": _("Correct the address in the profile or the subject, then try again."),
    "no_content": _MEND_TEMPLATE,
    "template_error": _MEND_TEMPLATE,
    "template_gone": _(
        "Have the template service keep its versions for eight days; duplicate the schedule to send now."
    ),
    "template_service_away": _(
        "Nothing needs to be done here: it goes on by itself once the template service answers."
    ),
    "template_service_error": _("Have the template service's own log looked at, then try again."),
    "template_service_refused": _("An admin has to look at TEMPLATE_SERVICE_URL and TEMPLATE_SERVICE_TOKEN."),
    "too_large": _MEND_TEMPLATE,
    "internal_error": _TRY_AND_TELL,
    "key_unknown": _("An admin has to put the missing key back: ENCRYPTION_KEYS. Then it goes on by itself."),
    "unreadable": _("Save the person's address or device anew, then try again."),
    "provider_raised": _TRY_AND_TELL,
    "worker_lost": _("Try again, knowing that it may arrive twice."),
    OUTCOME_UNKNOWN: _("Ask one of them whether it arrived. Trying again may send it twice."),
    "no_answer": _("Ask one of them whether it arrived. Trying again may send it twice."),
    "access_denied": _MEND_ACCOUNT,
    "account_suspended": _MEND_ACCOUNT,
    "aws_settings": _MEND_ACCOUNT,
    "configuration_set_not_found": _MEND_ACCOUNT,
    "daily_quota": _("Try again tomorrow, or have the provider raise the quota."),
    "endpoint_gone": _MEND_ACCOUNT,
    "fcm_credentials": _MEND_ACCOUNT,
    "identity_not_verified": _MEND_ACCOUNT,
    "invalid_sending_pool": _MEND_ACCOUNT,
    "limit_exceeded": _MEND_ACCOUNT,
    "project_not_found": _MEND_ACCOUNT,
    "recipient_refused": _("Correct the address in the profile, then try again."),
    "sender_mismatch": _MEND_ACCOUNT,
    "sender_refused": _MEND_ACCOUNT,
    "sending_paused": _MEND_ACCOUNT,
    "smtp_settings": _MEND_ACCOUNT,
    "third_party_auth": _MEND_ACCOUNT,
    "address_not_ascii": _("Correct the addresses in the profiles, then try again."),
    "invalid_token": _("The person has to open the app once; the device then registers anew."),
    "unregistered": _("The person has to install or open the app again; the device is not tried any more."),
    "message_rejected": _CORRECT,
    "rendering_failure": _MEND_TEMPLATE,
    "invalid_parameter": _CORRECT,
    "provider_error": _PROVIDER_TROUBLE,
    "throttled": _PROVIDER_TROUBLE,
    "transient_failure": _PROVIDER_TROUBLE,
    "unexpected_status": _PROVIDER_TROUBLE,
    "unreachable": _PROVIDER_TROUBLE,
    "unreadable_answer": _PROVIDER_TROUBLE,
}


def reason(slug: str, state: int | None = None) -> str:
    """The sentence for a reason; one that has none yet is shown as it stands, readable enough."""
    told = _IN_STATE.get((State(state), slug)) if state is not None else None
    return str(told or REASONS.get(slug) or OF_RUNS.get(slug) or slug.replace("_", " "))


def remedy(slug: str) -> str:
    """What one can do about a reason; empty where there is nothing to say."""
    return str(REMEDIES.get(slug, ""))


def state(value: int) -> str:
    return str(STATES[State(value)])


def number(value: float) -> str:
    """``1,204``, as the viewer's language groups it."""
    return number_format(value, force_grouping=True)
