"""How the service is, in words: what is well, what is not, and what to do."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from delivery import heartbeats
from delivery.health import Health, Line
from delivery.models import ProviderAccount
from frontend.instants import show_seconds
from frontend.wording import number, reason, remedy, timings
from frontend.wording.schedules import CHANNELS
from schedules.models import Channel

# Real seconds without a sign of life after which something is taken to stand still.
_TICK_S, _SWEEP_S = 15.0, 60.0
# Seconds of business time for which somebody who may go may wait, before it is worth a look.
_WAITS_S = 60.0
# The share of a day's quota below which it is worth a word, and a rate above which it limits nobody.
_SHORT = 0.1
_ANY_PER_S = 10_000

FINE, ATTENTION, TROUBLE = "fine", "attention", "trouble"
# Those that come with the service; one of somebody else's keeps its own name.
PROVIDERS = {
    "ses": "Amazon SES",
    "fcm": "Firebase Cloud Messaging",
    "smtp": gettext_lazy("mail server (SMTP)"),
    "webhook": gettext_lazy("own program (webhook)"),
    "outbox": gettext_lazy("Outbox"),
    "in_app": gettext_lazy("Inbox"),
}
LEVELS = {FINE: gettext_lazy("fine"), ATTENTION: gettext_lazy("attention"), TROUBLE: gettext_lazy("trouble")}


@dataclass(frozen=True)
class Sign:
    """``what`` is how: ``words``; ``remedy`` says what to do, and ``link`` where, if anywhere."""

    what: str
    level: str
    words: str
    remedy: str = ""
    link: str = ""

    @property
    def level_in_words(self) -> str:
        return str(LEVELS[self.level])


@dataclass(frozen=True)
class Queue:
    """What waits in a channel, as a row of a table."""

    channel: str
    provider: str
    queued: str
    due: str
    held_back: str
    oldest: str
    consumed: str


def signs(health: Health) -> list[Sign]:
    """The worst first; what is fine at the end."""
    found = [
        *_of_the_clock(health),
        *_of_queues(health),
        *(sign for line in health.lines for sign in _of_channel(line)),
        *_of_the_rest(health),
    ]
    return sorted(found, key=lambda sign: [TROUBLE, ATTENTION, FINE].index(sign.level))


def queues(health: Health) -> list[Queue]:
    return [
        Queue(
            str(CHANNELS[line.channel]),
            ", ".join(provider_name(each.strip()) for each in line.provider.split(",")),
            number(line.waiting.queued),
            number(line.waiting.due),
            number(line.waiting.held_back),
            show_seconds(line.waiting.oldest_due_s) if line.waiting.oldest_due_s else "—",
            _ago(health.queues[line.channel].consumed_ago),
        )
        for line in health.lines
    ]


def _ago(seconds: float | None) -> str:
    return timings.ago(seconds) if seconds is not None else _("never")


def _of_the_clock(health: Health) -> Iterator[Sign]:
    clock = _("Clock")
    if health.tick_ago is None:
        words = _("It has never ticked, so nothing is started.")
    elif health.tick_ago > _TICK_S:
        words = _("Its last tick was %(ago)s: nothing new is started.") % {"ago": _ago(health.tick_ago)}
    elif health.sweep_ago is None or health.sweep_ago > _SWEEP_S:
        words = _("It ticks, but was last swept up %(ago)s: lost messages are not found again.") % {
            "ago": _ago(health.sweep_ago)
        }
    else:
        yield Sign(clock, FINE, _("Last tick %(ago)s.") % {"ago": _ago(health.tick_ago)})
        return
    todo = _("Start beat and the worker of the queue “clock”, or read in their logs why they stand still.")
    yield Sign(clock, TROUBLE, words, todo, reverse("admin:django_celery_beat_periodictask_changelist"))


def _of_queues(health: Health) -> Iterator[Sign]:
    silent = [name for name, life in health.queues.items() if life.silent > heartbeats.patience(name)]
    for name in silent:
        yield Sign(
            _("Worker of “%(queue)s”") % {"queue": name},
            TROUBLE,
            _("Nobody has answered for %(time)s.") % {"time": show_seconds(health.queues[name].silent)},
            _("Start a worker of this queue. What it has to do waits, and nothing is lost."),
        )
    never = [name for name, life in health.queues.items() if life.consumed_ago is None and name not in silent]
    if never:
        words = _("Nobody has taken anything up yet from: %(queues)s.") % {"queues": ", ".join(never)}
        yield Sign(
            _("Workers"), ATTENTION, words, _("Right after the start that is so for half a minute; later, start them.")
        )
    elif not silent:
        yield Sign(_("Workers"), FINE, _("Every queue is being worked on."))


def _of_channel(line: Line) -> Iterator[Sign]:
    channel = str(CHANNELS[line.channel])
    if line.is_stopped:
        yield Sign(
            channel,
            ATTENTION,
            _("Somebody has stopped it. Who is due waits."),
            _("Let it go on once the cause is gone."),
            reverse("admin:schedules_stopswitch_changelist"),
        )
    if line.circuit:
        yield Sign(
            channel,
            TROUBLE,
            _("It waits: the provider refuses the account. %(why)s") % {"why": reason(line.circuit.reason)},
            remedy(line.circuit.reason) or _("Put the account with the provider right; it is tried again by itself."),
        )
    for circuit in line.passed_over:
        yield Sign(
            channel,
            ATTENTION,
            _("%(provider)s is passed over, and another provider takes its calls. %(why)s")
            % {"provider": provider_name(circuit.scope.partition(":")[2]), "why": reason(circuit.reason)},
            _("Put it right; it is asked now and then, and comes back by itself."),
        )
    if is_short(line.account):
        yield Sign(
            channel,
            ATTENTION,
            _allowed(line.account),
            _("Ask the provider for a higher quota, or send the rest tomorrow."),
        )
    if line.rate is not None:
        yield Sign(
            channel,
            ATTENTION,
            _("The provider has asked to slow down: %(rate)s people a second at present.")
            % {"rate": number(round(line.rate)) if line.rate >= 10 else number(round(line.rate, 1))},
            _("Nothing: it grows again by itself. If it stays low, ask the provider for a higher limit."),
        )
    if line.waiting.oldest_due_s > _WAITS_S and not line.circuit:
        people = line.waiting.queued + line.waiting.due
        waits = ngettext("%(n)s person waits", "%(n)s people wait", people) % {"n": number(people)}
        yield Sign(
            channel,
            ATTENTION,
            _("%(waits)s, the first of them for %(time)s.")
            % {"waits": waits, "time": show_seconds(line.waiting.oldest_due_s)},
            _("If it grows, let more workers send; if nothing moves, look at the signs above."),
        )
    if not (line.is_stopped or line.circuit or line.rate is not None or line.waiting.oldest_due_s > _WAITS_S):
        taken = _inside(line) if line.channel == Channel.IN_APP else _("The provider takes messages.")
        yield Sign(channel, FINE, taken if is_short(line.account) else f"{taken} {_allowed(line.account)}".rstrip())


def is_short(account: ProviderAccount | None) -> bool:
    """Whether hardly anything is left of the 24 hours."""
    return bool(account and account.per_day and account.left is not None and account.left < _SHORT * account.per_day)


def _allowed(account: ProviderAccount | None) -> str:
    """What the provider's account allows; nothing where it sets no limits, or none that could matter."""
    if account is None or (account.left is None and (account.per_s is None or account.per_s >= _ANY_PER_S)):
        return ""
    facts = {
        "per_s": number(round(account.per_s or 0, 1)),
        "left": number(account.left or 0),
        "per_day": number(account.per_day or 0),
    }
    if account.left is None:
        return _("The account allows %(per_s)s people a second.") % facts
    if account.per_s is None:
        return _("Of the account's %(per_day)s people in 24 hours %(left)s are left.") % facts
    return _("The account allows %(per_s)s people a second, and of %(per_day)s in 24 hours %(left)s are left.") % facts


def provider_name(setting: str) -> str:
    """For people; one of somebody else's keeps its own name."""
    return str(PROVIDERS.get(setting, setting))


def _inside(line: Line) -> str:
    return _("Messages are laid into inboxes.")


def _of_the_rest(health: Health) -> Iterator[Sign]:
    if not health.counters_up:
        yield Sign(
            _("Limits"),
            TROUBLE,
            _("Their counters are away: whoever is under a limit waits."),
            _("Bring the Redis of COUNTERS_URL back. Nobody is lost, and no limit is passed meanwhile."),
        )
    if health.held_runs:
        words = ngettext("%(n)s run waits for a decision.", "%(n)s runs wait for a decision.", health.held_runs)
        yield Sign(
            _("Runs"),
            ATTENTION,
            words % {"n": number(health.held_runs)},
            _("Open it, and let it go on or cancel it."),
            reverse("occurrences"),
        )
    if health.strays:
        yield Sign(
            _("Ledger"),
            TROUBLE,
            _("Rows have no day to belong to: the hourly task has not made it in time."),
            _("See that the clock's entry “ledger days and zone data” runs."),
            reverse("admin:django_celery_beat_periodictask_changelist"),
        )
