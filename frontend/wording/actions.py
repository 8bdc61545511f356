"""Who acts, what they may and what is done, by name."""

from collections.abc import Mapping

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from audit.models import Action
from frontend.wording.reasons import Words
from schedules.permissions import Role, Scope

ROLES: Mapping[str, Words] = {
    Role.MARKETER: gettext_lazy("marketer"),
    Role.ADMIN: gettext_lazy("admin"),
    Role.ANALYST: gettext_lazy("analyst"),
}
SCOPES: Mapping[str, Words] = {
    Scope.READ: gettext_lazy("read"),
    Scope.WRITE: gettext_lazy("read and change"),
    Scope.INBOX: gettext_lazy("read a person's own inbox"),
}
# The parts of the service that act by themselves.
PARTS: Mapping[str, Words] = {
    "system:tick": gettext_lazy("the service"),
    "system:brake": gettext_lazy("the failure brake"),
    "system:user_service": gettext_lazy("the user service"),
    "system:template_service": gettext_lazy("the template service"),
    "system:circuit": gettext_lazy("the service"),
    "system:sign_in": gettext_lazy("the sign-in"),
    "system:shell": gettext_lazy("a command on the server"),
    "system:import_recipients": gettext_lazy("an import on the server"),
    "system:events": gettext_lazy("what the provider told"),
    "system:person": gettext_lazy("the person"),
    "system:subscribers": gettext_lazy("the service"),
    "system:import_templates": gettext_lazy("an import on the server"),
}
_BY_PARTS: Mapping[str, Words] = {
    "system:user_service": gettext_lazy("by the user service"),
    "system:template_service": gettext_lazy("by the template service"),
    "system:person": gettext_lazy("by the person"),
    "system:shell": gettext_lazy("by a command on the server"),
    "system:import_recipients": gettext_lazy("by an import on the server"),
    "system:import_templates": gettext_lazy("by an import on the server"),
}
ACTIONS: Mapping[Action, Words] = {
    Action.SCHEDULE_CREATE: gettext_lazy("Schedule made"),
    Action.SCHEDULE_UPDATE: gettext_lazy("Schedule changed"),
    Action.SCHEDULE_DELETE: gettext_lazy("Schedule deleted"),
    Action.SCHEDULE_ACTIVATE: gettext_lazy("Schedule activated"),
    Action.SCHEDULE_PAUSE: gettext_lazy("Schedule paused"),
    Action.SCHEDULE_RESUME: gettext_lazy("Schedule resumed"),
    Action.SCHEDULE_CANCEL: gettext_lazy("Schedule cancelled"),
    Action.SCHEDULE_RUN_NOW: gettext_lazy("Schedule run at once"),
    Action.SCHEDULE_TEST_SEND: gettext_lazy("Test sent"),
    Action.SCHEDULE_BREAK: gettext_lazy("Schedule broken"),
    Action.SCHEDULE_FINISH: gettext_lazy("Schedule finished"),
    Action.SCHEDULE_BULK: gettext_lazy("Several schedules at once"),
    Action.OCCURRENCE_HOLD: gettext_lazy("Run held"),
    Action.OCCURRENCE_RELEASE: gettext_lazy("Run let go on"),
    Action.OCCURRENCE_MISS: gettext_lazy("Run missed"),
    Action.OCCURRENCE_FINISH: gettext_lazy("Run finished"),
    Action.DELIVERY_RETRY: gettext_lazy("Failures tried again"),
    Action.TEMPLATE_PUBLISH: gettext_lazy("Template published"),
    Action.TEMPLATE_DELETE: gettext_lazy("Template deleted"),
    Action.CATALOGUE_SAVE: gettext_lazy("Translations changed"),
    Action.CATALOGUE_DELETE: gettext_lazy("Translations deleted"),
    Action.TOPIC_CREATE: gettext_lazy("Topic made"),
    Action.TOPIC_UPDATE: gettext_lazy("Topic changed"),
    Action.TOPIC_ARCHIVE: gettext_lazy("Topic archived"),
    Action.TOPIC_RESTORE: gettext_lazy("Topic offered again"),
    Action.CLIENT_CREATE: gettext_lazy("Program let in"),
    Action.CLIENT_REVOKE: gettext_lazy("Program signed out"),
    Action.CLIENT_DELETE: gettext_lazy("Program removed"),
    Action.RECIPIENT_SAVE: gettext_lazy("Person changed"),
    Action.RECIPIENT_ERASE: gettext_lazy("Person erased"),
    Action.RECIPIENT_IMPORT: gettext_lazy("People imported"),
    Action.SUPPRESSION_ADD: gettext_lazy("Address blocked"),
    Action.SUPPRESSION_REMOVE: gettext_lazy("Address written to again"),
    Action.SENDING_STOP: gettext_lazy("Sending stopped"),
    Action.SENDING_GO: gettext_lazy("Sending let go on"),
    Action.CIRCUIT_OPEN: gettext_lazy("Provider refuses"),
    Action.CIRCUIT_CLOSE: gettext_lazy("Provider takes messages again"),
    Action.ACCOUNT_CREATE: gettext_lazy("Account made"),
    Action.ACCOUNT_UPDATE: gettext_lazy("Account changed"),
    Action.ACCOUNT_ROLES: gettext_lazy("Roles changed"),
    Action.ACCOUNT_DELETE: gettext_lazy("Account deleted"),
    Action.ACCOUNT_SIGN_IN: gettext_lazy("Signed in"),
    Action.ACCOUNT_REFUSE: gettext_lazy("Sign-in refused"),
    Action.ACCOUNT_FACTOR_ON: gettext_lazy("Second factor turned on"),
    Action.ACCOUNT_FACTOR_OFF: gettext_lazy("Second factor turned off"),
    Action.ACCOUNT_FACTOR_RESET: gettext_lazy("Second factor reset"),
    Action.ACCOUNT_FACTOR_REFUSE: gettext_lazy("Code refused"),
    Action.ACCOUNT_END_SESSIONS: gettext_lazy("Signed out everywhere"),
    Action.CLOCK_UPDATE: gettext_lazy("Clock changed"),
    Action.CLOCK_CREATE: gettext_lazy("Interval of the clock made"),
    Action.EXPORT_FILE: gettext_lazy("File taken"),
    Action.ENDPOINT_CREATE: gettext_lazy("Endpoint made"),
    Action.ENDPOINT_UPDATE: gettext_lazy("Endpoint changed"),
    Action.ENDPOINT_ROTATE: gettext_lazy("Endpoint's secret renewed"),
    Action.ENDPOINT_REPLAY: gettext_lazy("Events sent again"),
    Action.ENDPOINT_ON: gettext_lazy("Endpoint switched on"),
    Action.ENDPOINT_OFF: gettext_lazy("Endpoint switched off"),
    Action.ENDPOINT_DELETE: gettext_lazy("Endpoint deleted"),
}
SENTENCES: Mapping[Action, Words] = {
    Action.SCHEDULE_CREATE: gettext_lazy("{actor} made the schedule {what}"),
    Action.SCHEDULE_UPDATE: gettext_lazy("{actor} changed {what}"),
    Action.SCHEDULE_DELETE: gettext_lazy("{actor} deleted {what}"),
    Action.SCHEDULE_ACTIVATE: gettext_lazy("{actor} activated {what}"),
    Action.SCHEDULE_PAUSE: gettext_lazy("{actor} paused {what}"),
    Action.SCHEDULE_RESUME: gettext_lazy("{actor} resumed {what}"),
    Action.SCHEDULE_CANCEL: gettext_lazy("{actor} cancelled {what}"),
    Action.SCHEDULE_RUN_NOW: gettext_lazy("{actor} let {what} run at once"),
    Action.SCHEDULE_TEST_SEND: gettext_lazy("{actor} sent a test of {what} to {whom}"),
    Action.SCHEDULE_BREAK: gettext_lazy("{actor} could not tell the next run of {what}, and stopped planning it"),
    Action.SCHEDULE_FINISH: gettext_lazy("{actor} finished {what}: it has no more runs"),
    Action.SCHEDULE_BULK: gettext_lazy("{actor} did the same for several schedules"),
    Action.OCCURRENCE_HOLD: gettext_lazy("{actor} held {run} of {what}"),
    Action.OCCURRENCE_RELEASE: gettext_lazy("{actor} let {run} of {what} go on"),
    Action.OCCURRENCE_MISS: gettext_lazy("{actor} found {run} of {what} too late for everyone"),
    Action.OCCURRENCE_FINISH: gettext_lazy("{actor} finished {run} of {what}"),
    Action.DELIVERY_RETRY: gettext_lazy("{actor} tried again, in {run} of {what}, for {people} where it had failed"),
    Action.TEMPLATE_PUBLISH: gettext_lazy("{actor} published {version} of the template {what}"),
    Action.TEMPLATE_DELETE: gettext_lazy("{actor} deleted the template {what}"),
    Action.CATALOGUE_SAVE: gettext_lazy("{actor} changed the translations for {what}"),
    Action.CATALOGUE_DELETE: gettext_lazy("{actor} deleted the translations for {what}"),
    Action.TOPIC_CREATE: gettext_lazy("{actor} made the topic {what}"),
    Action.TOPIC_UPDATE: gettext_lazy("{actor} changed the topic {what}"),
    Action.TOPIC_ARCHIVE: gettext_lazy("{actor} archived the topic {what}"),
    Action.TOPIC_RESTORE: gettext_lazy("{actor} offered the topic {what} again"),
    Action.CLIENT_CREATE: gettext_lazy("{actor} let the program {what} in"),
    Action.CLIENT_REVOKE: gettext_lazy("{actor} signed the program {what} out"),
    Action.CLIENT_DELETE: gettext_lazy("{actor} removed the program {what}"),
    Action.RECIPIENT_SAVE: gettext_lazy("{actor} changed the profile of {whom}"),
    Action.RECIPIENT_ERASE: gettext_lazy("{actor} erased a person"),
    Action.RECIPIENT_IMPORT: gettext_lazy("{actor} imported profiles"),
    Action.SUPPRESSION_ADD: gettext_lazy("{actor} blocked the address of {whom}"),
    Action.SUPPRESSION_REMOVE: gettext_lazy("{actor} let the address of {whom} be written to again"),
    Action.SENDING_STOP: gettext_lazy("{actor} stopped {what}"),
    Action.SENDING_GO: gettext_lazy("{actor} let {what} go on"),
    Action.CIRCUIT_OPEN: gettext_lazy("{actor} holds {what}, as all of it is refused or unanswered"),
    Action.CIRCUIT_CLOSE: gettext_lazy("{actor} lets {what} go on, as it is answered again"),
    Action.ACCOUNT_CREATE: gettext_lazy("{actor} made an account for {what}"),
    Action.ACCOUNT_UPDATE: gettext_lazy("{actor} changed the account of {what}"),
    Action.ACCOUNT_ROLES: gettext_lazy("{actor} changed the roles of {what}"),
    Action.ACCOUNT_DELETE: gettext_lazy("{actor} deleted the account of {what}"),
    Action.ACCOUNT_SIGN_IN: gettext_lazy("{actor} signed in"),
    Action.ACCOUNT_REFUSE: gettext_lazy("{actor} refused to sign {what} in"),
    Action.ACCOUNT_FACTOR_ON: gettext_lazy("{actor} turned the second factor of {what} on"),
    Action.ACCOUNT_FACTOR_OFF: gettext_lazy("{actor} turned the second factor of {what} off"),
    Action.ACCOUNT_FACTOR_RESET: gettext_lazy("{actor} reset the second factor of {what}"),
    Action.ACCOUNT_FACTOR_REFUSE: gettext_lazy("{actor} refused a wrong code for {what}"),
    Action.ACCOUNT_END_SESSIONS: gettext_lazy("{actor} signed {what} out everywhere"),
    Action.CLOCK_UPDATE: gettext_lazy("{actor} changed the clock's entry {what}"),
    Action.CLOCK_CREATE: gettext_lazy("{actor} made the interval {what} for the clock"),
    Action.EXPORT_FILE: gettext_lazy("{actor} took the file {what}"),
    Action.ENDPOINT_CREATE: gettext_lazy("{actor} made the endpoint {what}"),
    Action.ENDPOINT_UPDATE: gettext_lazy("{actor} changed the endpoint {what}"),
    Action.ENDPOINT_ROTATE: gettext_lazy("{actor} gave the endpoint {what} a new secret"),
    Action.ENDPOINT_REPLAY: gettext_lazy("{actor} sent the endpoint {what} events again"),
    Action.ENDPOINT_ON: gettext_lazy("{actor} switched the endpoint {what} on"),
    Action.ENDPOINT_OFF: gettext_lazy("{actor} switched the endpoint {what} off"),
    Action.ENDPOINT_DELETE: gettext_lazy("{actor} deleted the endpoint {what}"),
}


def by_whom(actor: str, name: str) -> str:
    """Behind what was done: “by anna”, “by the template service”. ``name``: the actor's, if it is no part of ours."""
    if actor in _BY_PARTS:
        return str(_BY_PARTS[actor])
    kind, _colon, part = actor.partition(":")
    if kind == "system":
        return _("by the service (%(part)s)") % {"part": part.replace("_", " ")}
    return _("by %(who)s") % {"who": name}
