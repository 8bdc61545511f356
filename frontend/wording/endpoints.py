"""Subscribers' endpoints in words: what they are told, what came of a call, why one is off or can't be kept."""

from collections.abc import Mapping

from django.utils.translation import gettext_lazy

from delivery.endpoint_models import Endpoint, EventType, Posting
from frontend.wording.reasons import Words

TYPES: Mapping[str, Words] = {
    EventType.SCHEDULE_CHANGED: gettext_lazy("A schedule was changed"),
    EventType.OCCURRENCE_STARTED: gettext_lazy("A run has started"),
    EventType.OCCURRENCE_FINISHED: gettext_lazy("A run has ended, with its books"),
    EventType.DELIVERIES_SETTLED: gettext_lazy("What became of messages"),
    EventType.DELIVERIES_REPORTED: gettext_lazy("What providers report of messages"),
    EventType.TEST: gettext_lazy("Test"),
}
STATES: Mapping[str, Words] = {
    Posting.State.WAITING: gettext_lazy("waits"),
    Posting.State.DELIVERED: gettext_lazy("delivered"),
    Posting.State.FAILED: gettext_lazy("failed for good"),
}
OFF: Mapping[str, Words] = {
    Endpoint.Off.PERSON: gettext_lazy("Somebody has switched it off."),
    Endpoint.Off.GONE: gettext_lazy("It has answered that it is gone (410)."),
    Endpoint.Off.FAILING: gettext_lazy("Every call has failed for five days."),
}
# What stands in the way of an address, by the codes of ``schedules.outgoing``.
FLAWS: Mapping[str, Words] = {
    "malformed": gettext_lazy("That is no address of the web: let it look like https://shop.example.com/path."),
    "scheme": gettext_lazy("It does not begin with https://."),
    "port": gettext_lazy("It has a port that this service does not call."),
    "not_public": gettext_lazy("It leads to where no user may have this service call."),
    "unresolved": gettext_lazy("Its name leads nowhere at the moment: check it, or try again later."),
}
# How a call ended.
OUTCOMES: Mapping[str, Words] = {
    **FLAWS,
    "delivered": gettext_lazy("taken"),
    "redirected": gettext_lazy("It sends us elsewhere, and redirects are not followed: enter the address it leads to."),
    "refused": gettext_lazy("It refuses the event."),
    "failing": gettext_lazy("It has failed."),
    "gone": gettext_lazy("It says that it is gone."),
    "busy": gettext_lazy("It asks us to come later."),
    "odd": gettext_lazy("Its answer is none that there is."),
    "certificate": gettext_lazy("It shows a certificate that can't be trusted."),
    "unreachable": gettext_lazy("It can't be reached."),
    "timeout": gettext_lazy("It did not answer within 15 seconds."),
    "cut_off": gettext_lazy("It ended the connection before its answer was whole."),
    "too_large": gettext_lazy("Its answer is too large."),
}
