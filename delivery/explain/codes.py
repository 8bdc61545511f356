"""Every answer that explaining has, and those that follow from a row's outcome or a schedule's status alone."""

from enum import StrEnum

from delivery.models import WAITED_TOO_LONG, WINDOW_IS_QUIET, State
from schedules import consents
from schedules.models import ScheduleStatus, Suppression


class Code(StrEnum):
    """Every answer there is."""

    # He got it, or it is on its way.
    SENT = "sent"
    BEING_SENT = "being_sent"
    UNANSWERED = "unanswered"
    ABOUT_TO_BE_SENT = "about_to_be_sent"
    NOT_DUE_YET = "not_due_yet"
    WILL_BE_RETRIED = "will_be_retried"
    WAITS_FOR_CAP = "waits_for_cap"
    WAITS_FOR_WINDOW = "waits_for_window"
    WAITS_FOR_QUIET_HOURS = "waits_for_quiet_hours"
    PUT_OFF = "put_off"
    # The whole run waits.
    RUN_HELD = "run_held"
    SCHEDULE_PAUSED = "schedule_paused"
    SENDING_STOPPED = "sending_stopped"
    PROVIDER_REFUSES = "provider_refuses"
    TEMPLATE_SERVICE_AWAY = "template_service_away"
    TEMPLATE_SERVICE_REFUSED = "template_service_refused"
    FINDING_RECIPIENTS = "finding_recipients"
    AUDIENCE_TOO_SLOW = "audience_too_slow"
    USER_SERVICE_AWAY = "user_service_away"
    USER_SERVICE_REFUSED = "user_service_refused"
    POSTPONED = "postponed"
    # He did not get it.
    FAILED = "failed"
    FAILED_AFTER_RETRIES = "failed_after_retries"
    OUTCOME_UNKNOWN = "outcome_unknown"
    AT_CAP = "at_cap"
    OPTED_OUT = "opted_out"
    OPTED_OUT_OF_TOPIC = "opted_out_of_topic"
    NOT_OPTED_IN = "not_opted_in"
    BOUNCED = "bounced"
    BOUNCED_OFTEN = "bounced_often"
    COMPLAINED = "complained"
    BLOCKED = "blocked"
    LEFT_AUDIENCE = "left_audience"
    NO_ADDRESS = "no_address"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    EDITED_OUT = "edited_out"
    ERASED = "erased"
    SERVICE_DOWN = "service_down"
    PAUSED_OVER = "paused_over_its_time"
    PAST_IN_ZONE = "past_in_zone"
    RUN_ENDED = "run_ended"
    WAITED_TOO_LONG = "waited_too_long"
    WINDOW_IN_QUIET_HOURS = "window_in_quiet_hours"
    OTHERWISE = "not_sent"
    # The run has nothing for him.
    NOT_MATCHED = "not_matched"
    CREATED_LATER = "created_later"
    CHANGED_LATER = "changed_later"
    NOT_FOUND_THEN = "not_found_then"
    RUN_MISSED = "run_missed"
    RUN_CANCELLED = "run_cancelled"
    PAST_RETENTION = "past_retention"
    # There is no run.
    SCHEDULE_DRAFT = "schedule_draft"
    SCHEDULE_BROKEN = "schedule_broken"
    SCHEDULE_FINISHED = "schedule_finished"
    SCHEDULE_CANCELLED = "schedule_cancelled"
    SCHEDULE_DELETED = "schedule_deleted"


# Of a run that still looks for its people: its own reason is the code.
OF_SEARCH = {str(code): code for code in (Code.AUDIENCE_TOO_SLOW, Code.USER_SERVICE_AWAY, Code.USER_SERVICE_REFUSED)}
OF_REASON = {
    **{(State.SUPPRESSED, reason): Code(reason) for reason in consents.REASONS},
    (State.SUPPRESSED, "left_audience"): Code.LEFT_AUDIENCE,
    **{(State.SUPPRESSED, reason.value): Code(reason.value) for reason in Suppression.Reason},
    (State.UNADDRESSABLE, "no_address"): Code.NO_ADDRESS,
    (State.CANCELLED, "cancelled"): Code.CANCELLED,
    (State.CANCELLED, "deleted"): Code.DELETED,
    (State.CANCELLED, "edited"): Code.EDITED_OUT,
    (State.EXPIRED, "down"): Code.SERVICE_DOWN,
    (State.EXPIRED, "paused"): Code.PAUSED_OVER,
    (State.EXPIRED, "past_zone"): Code.PAST_IN_ZONE,
    (State.EXPIRED, "occurrence_ended"): Code.RUN_ENDED,
    (State.EXPIRED, WAITED_TOO_LONG): Code.WAITED_TOO_LONG,
    (State.EXPIRED, WINDOW_IS_QUIET): Code.WINDOW_IN_QUIET_HOURS,
}
OF_STATE = {
    State.SENT: Code.SENT,
    State.SENDING: Code.BEING_SENT,
    State.UNKNOWN: Code.UNANSWERED,
    State.RATE_LIMITED: Code.AT_CAP,
    State.ERASED: Code.ERASED,
}
OF_STATUS = {
    ScheduleStatus.DRAFT: Code.SCHEDULE_DRAFT,
    ScheduleStatus.ACTIVE: Code.NOT_DUE_YET,
    ScheduleStatus.PAUSED: Code.SCHEDULE_PAUSED,
    ScheduleStatus.FINISHED: Code.SCHEDULE_FINISHED,
    ScheduleStatus.CANCELLED: Code.SCHEDULE_CANCELLED,
    ScheduleStatus.DELETED: Code.SCHEDULE_DELETED,
    ScheduleStatus.BROKEN: Code.SCHEDULE_BROKEN,
}
