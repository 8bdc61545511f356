"""Why somebody got a message or did not, in sentences; every instant on the clock that the viewer has chosen."""

from collections.abc import Mapping

from django.conf import settings
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from delivery import caps
from delivery.explain import OF_SEARCH, Audience, Code, Explanation, Limit, Obstacle, Promise, Quieted, Story
from delivery.models import CONFIRMED
from delivery.retry import MAX_RETRIES
from frontend.instants import show
from frontend.wording import feedback
from frontend.wording.audiences import clause_in_words
from frontend.wording.reasons import OF_RUNS, Words, number, reason
from frontend.zones import Display, Zones
from schedules import clock
from schedules.audience.tree import Clause
from schedules.models import Channel

# For programs and for whoever has chosen nothing: each instant in the zone of what it belongs to.
OWN = Zones(Display.SCHEDULE, "UTC")

# Answers that need no more than their code.
_OF_CODE: Mapping[Code, Words] = {
    Code.BEING_SENT: gettext_lazy("It is being sent at this moment."),
    Code.ABOUT_TO_BE_SENT: gettext_lazy("It is due, and is about to be sent."),
    Code.RUN_HELD: gettext_lazy("It waits with the whole run, which is held until somebody lets it go on."),
    Code.SCHEDULE_PAUSED: gettext_lazy("It waits: the schedule is paused."),
    Code.SENDING_STOPPED: gettext_lazy("It waits: somebody has stopped sending."),
    Code.PROVIDER_REFUSES: gettext_lazy(
        "It waits with the whole channel: the provider refuses the account at present."
    ),
    Code.TEMPLATE_SERVICE_AWAY: gettext_lazy(
        "It waits with the whole run: the template service, which renders the message, does not answer at present."
        " It is asked again by itself."
    ),
    Code.TEMPLATE_SERVICE_REFUSED: gettext_lazy(
        "It waits with the whole run: the template service refuses to render the message. Whoever runs it, or this"
        " service, has to mend that. It is asked again by itself."
    ),
    Code.FINDING_RECIPIENTS: gettext_lazy("The run is finding its people at this moment."),
    Code.POSTPONED: gettext_lazy("The run has been given another time, and finds its people then."),
    Code.OUTCOME_UNKNOWN: gettext_lazy(
        "Nobody knows whether it arrived: the provider had the message and never answered for it."
        " So it was not repeated, and counts as failed."
    ),
    Code.NOT_FOUND_THEN: gettext_lazy(
        "The profile matches the audience today, yet was not among its people when the run found them:"
        " an address, a device or a consent that counts has changed since."
    ),
    Code.RUN_CANCELLED: gettext_lazy("The run was cancelled."),
    Code.PAST_RETENTION: gettext_lazy("The run is past the ledger's retention: who got it is no longer kept."),
    Code.SCHEDULE_DRAFT: gettext_lazy("The schedule is a draft, and so has never run."),
    Code.SCHEDULE_FINISHED: gettext_lazy("The schedule is finished without a run that the service still knows of."),
    Code.SCHEDULE_CANCELLED: gettext_lazy("The schedule was cancelled before it ran."),
    Code.SCHEDULE_DELETED: gettext_lazy("The schedule was deleted before it ran."),
}

# What keeps a whole run waiting.
_OBSTACLES: Mapping[Obstacle, Words] = {
    Obstacle.HELD: gettext_lazy("Nothing is sent: the run is held until somebody lets it go on."),
    Obstacle.PAUSED: gettext_lazy("Nothing is sent: the schedule is paused."),
    Obstacle.STOPPED: gettext_lazy("Nothing is sent: somebody has stopped sending."),
    Obstacle.REFUSED: gettext_lazy("Nothing is sent at present: the provider refuses the account."),
    Obstacle.TEMPLATES_AWAY: gettext_lazy(
        "Nothing is sent at present: the template service, which renders the message, does not answer."
    ),
    Obstacle.TEMPLATES_REFUSED: gettext_lazy(
        "Nothing is sent at present: the template service refuses to render the message."
    ),
}


def obstacle(found: Obstacle) -> str:
    return str(_OBSTACLES[found])


def limit(found: Limit) -> str:
    return _in_person(_limit(found))


def _limit(found: Limit) -> str:
    """As the end of a sentence, so that it can follow a colon as well."""
    is_daily = found.cap == caps.DAILY
    if found.most is None:
        if is_daily:
            return _("the person is at the limit of messages in 24 hours.")
        return _("the person is at the limit of messages in 7 days.")
    if is_daily:
        words = ngettext(
            "the person is at the limit of %(most)s message in 24 hours.",
            "the person is at the limit of %(most)s messages in 24 hours.",
            found.most,
        )
    else:
        words = ngettext(
            "the person is at the limit of %(most)s message in 7 days.",
            "the person is at the limit of %(most)s messages in 7 days.",
            found.most,
        )
    return words % {"most": number(found.most)}


def _in_person(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:]}"


def explanation(found: Explanation, *, zones: Zones = OWN) -> str:
    """One sentence or a few."""
    return story(found.story, zones=zones) if found.story else _absent(found, zones)


def story(told: Story, *, zones: Zones = OWN) -> str:
    """What became of a delivery, or what it waits for; and what the provider told afterwards."""
    shown_in = zones.of(told.zone_name)
    heard = feedback.sentence(told.feedback, shown_in=shown_in) if told.feedback else ""
    return _join(_story(told, shown_in), _quieted(told.quieted, zones), heard)


def _story(told: Story, shown_in: str) -> str:
    row = told.delivery
    why = reason(row.reason, row.state) if row.reason else ""
    facts = {
        "at": show(row.settled_at, shown_in),
        "attempt": row.attempt,
        "most": MAX_RETRIES + 1,
        "why": why,
        "next": _next_try(told, shown_in),
        "limit": _limit(told.limit) if told.limit else "",
    }
    match told.code:
        case Code.SENT if row.reason == CONFIRMED:
            return _("Nobody answered for the call, but the provider told at %(at)s that it had taken it.") % facts
        case Code.BOUNCED | Code.BOUNCED_OFTEN | Code.COMPLAINED | Code.BLOCKED:
            return _join(_("Not sent. %(why)s") % facts, feedback.since(told.since, shown_in=shown_in))
        case Code.SENT:
            return (_sent_late(told) if row.attempt > 1 else _sent(told)) % facts
        case Code.UNANSWERED:
            return _unanswered(told, shown_in)
        case Code.NOT_DUE_YET:
            return _("It waits for its time.")
        case Code.WAITS_FOR_CAP if told.limit:
            return _("It waits. %(limit)s") % {"limit": limit(told.limit)}
        case Code.WILL_BE_RETRIED:
            return _("Attempt %(attempt)s of %(most)s failed. %(why)s %(next)s") % facts
        case Code.PUT_OFF | Code.WAITS_FOR_WINDOW | Code.WAITS_FOR_QUIET_HOURS:
            return _put_off(told.code) % {**facts, "until": show(row.due_at, shown_in)}
        case Code.FAILED:
            return _("Failed, and trying again by itself would not help. %(why)s") % facts
        case Code.FAILED_AFTER_RETRIES:
            words = ngettext(
                "Failed after %(attempt)s attempt. The last time: %(why)s",
                "Failed after %(attempt)s attempts. The last time: %(why)s",
                row.attempt,
            )
            return words % {**facts, "why": f"{why[:1].lower()}{why[1:]}"}
        case Code.AT_CAP if told.limit:
            return _("Not sent, at %(at)s: %(limit)s") % facts
    return _of_code(told.code) or _("Not sent. %(why)s") % facts


def _put_off(code: Code) -> str:
    if code is Code.WAITS_FOR_WINDOW:
        return _("It waits for an hour at which it may reach the person: %(until)s.")
    if code is Code.WAITS_FOR_QUIET_HOURS:
        return _("It waits for the end of the person's quiet hours: %(until)s.")
    return _("It waits. %(why)s %(next)s")


def _quieted(found: Quieted | None, zones: Zones) -> str:
    if found is None:
        return ""
    words = _("The person's quiet hours, from %(from)s to %(to)s, kept it from coming at %(at)s.")
    return words % {**found.hours, "at": show(found.meant_at, zones.of(found.zone_name))}


def _of_code(code: Code) -> str:
    if code in OF_SEARCH.values():
        return _("The run has no people yet. %(why)s") % {"why": OF_RUNS[code.value]}
    if code is Code.NOT_FOUND_THEN and settings.USER_SERVICE_URL:
        return _(
            "The profile matches the audience today, yet the user service did not name the person when the run"
            " asked it, or an address, a device or a consent that counts has changed since."
        )
    return str(_OF_CODE.get(code, ""))


def _sent(told: Story) -> str:
    if _is_in_app(told):
        return _("It lies in the person's inbox since %(at)s.")
    if told.delivery.provider_id or told.delivery.reached:
        return _("The provider took it at %(at)s.")
    return _("It was sent at %(at)s.")


def _sent_late(told: Story) -> str:
    if _is_in_app(told):
        return _("It lies in the person's inbox since %(at)s, at attempt %(attempt)s.")
    if told.delivery.provider_id or told.delivery.reached:
        return _("The provider took it at %(at)s, at attempt %(attempt)s.")
    return _("It was sent at %(at)s, at attempt %(attempt)s.")


def _is_in_app(told: Story) -> bool:
    return told.occurrence is not None and told.occurrence.schedule.channel == Channel.IN_APP


def _unanswered(told: Story, shown_in: str) -> str:
    leased_until = told.delivery.leased_until
    begin = _("The provider had the message and did not answer, so nobody knows whether it arrived.")
    if not leased_until:
        return begin + " " + _("It waits: a late answer still counts. Then it has failed.")
    words = _("It waits until %(until)s: a late answer still counts. Then it has failed.")
    return begin + " " + words % {"until": show(leased_until + clock.shift(), shown_in)}


def _next_try(told: Story, shown_in: str) -> str:
    if not told.is_ahead:
        return _("The next try is due now.")
    return _("The next try is at %(at)s.") % {"at": show(told.delivery.due_at, shown_in)}


# --- Where the run has nothing for the person, or there is no run -----------------------------------------------------


def _absent(found: Explanation, zones: Zones) -> str:
    run = found.occurrence
    shown_in = zones.of()
    found_at = show(run.materialised_at, shown_in) if run else ""
    match found.code:
        case Code.NOT_DUE_YET:
            return _join(
                _("The schedule has not run yet."),
                _promised(found.promise, zones),
                _quieted(found.quieted, zones),
                _at_present(found.audience),
            )
        case Code.NOT_MATCHED:
            words = _("The person was not in the audience when the run found its people at %(found)s.")
            return _join(words % {"found": found_at}, _by(found.audience))
        case Code.CREATED_LATER if found.person:
            words = _("The run found its people at %(found)s, and the profile was made later, at %(made)s.")
            return words % {"found": found_at, "made": show(found.person.created_at, shown_in)}
        case Code.CHANGED_LATER if found.audience:
            words = _(
                "The profile matches the audience today, but the run found its people at %(found)s,"
                " and the profile was changed later, at %(changed)s."
            )
            return words % {"found": found_at, "changed": show(found.audience.changed_at, shown_in)}
        case Code.RUN_MISSED if run:
            return _("Nobody got this run. %(why)s") % {"why": reason(run.reason)}
        case Code.SCHEDULE_BROKEN:
            return _join(_("The schedule is broken and runs no more until it is mended."), found.schedule.status_reason)
        case Code.SCHEDULE_PAUSED:
            return _join(_("The schedule is paused, and has not run yet."), _at_present(found.audience))
    return _of_code(found.code) or _("Not sent.")


def _join(*sentences: str) -> str:
    return " ".join(each for each in sentences if each)


def _promised(promise: Promise | None, zones: Zones) -> str:
    if promise is None:
        return ""
    return _("The person is due at %(at)s.") % {"at": show(promise.due_at, zones.of(promise.zone_name))}


def _at_present(audience: Audience | None) -> str:
    if audience is None or audience.matches:
        return ""
    return _join(_("At present the person is not in its audience."), _by(audience))


def _by(audience: Audience | None) -> str:
    """Which clauses keep the person out."""
    if audience is None or audience.matches:
        return ""
    clauses = [clause_in_words(each.node) for each in audience.decisive if isinstance(each.node, Clause)]
    return _("This decides: people %(clauses)s.") % {"clauses": "; ".join(clauses)} if clauses else ""
