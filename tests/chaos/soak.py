"""An hour's traffic at twenty times its speed: ``make soak SEED=17 ARGS="--minutes 60"``.

Two providers of e-mail in a row, the first with an account of so many a second that tells what becomes of its messages.
Of a hundred addresses four bounce and one calls it spam; one call in a hundred is not answered; for ten of the sixty
minutes the first provider refuses connections. Then an oracle that shares no code with the service counts, and for each
figure a line of JSON goes to standard output:

    {"figure": "soak.lost", "value": 0, "seed": 17}

Ends with 1 where a figure is not what it must be (docs/chaos.md).
"""

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from scheduler_project.local.fleet import beat, worker
from scheduler_project.local.supervisor import Process
from stubs.log import Accepted as Message
from stubs.ses_events import Fates
from tests.chaos.oracle import Accepted, Schedule, digest_of
from tests.chaos.reporting import figure, fresh_root, leave_on_signals, note
from tests.chaos.scene import Scene
from tests.chaos.world import Door, SmallWorld
from tests.running import read_log, running_service
from tests.smtp_double import Mail, SmtpDouble

SPEED = 20
"""Minutes of traffic go by in so many seconds: 60 / SPEED."""
RATE = 200
"""E-mails a second that the first provider's account allows."""
FATES = [{"event": "bounce", "rate": 0.04}, {"event": "complaint", "rate": 0.01}]
EVENTS_PACE = 1 / SPEED
SILENT_CALLS = 0.01
# Minutes: when the first provider goes away and comes again, when two equal runs begin, when small ones run beside one
# that goes to all.
OUTAGE = (25, 35)
EQUAL_AT, CROWD_AT = 5, 45
SLICES, SLICE = 20, 200
PROCESSES = 3
# Seconds within which an address is left alone once its bounce was published: the queue's poll, and the last call.
LEFT_ALONE_S = 10.0
# The queue is away with the provider, and is asked again after pauses of up to half a minute.
HEARD_AGAIN_S = 35.0
# Of two runs that want the same, and of what fairness asks: how far their shares may be from a half.
SHARE = 0.1
_TOLD_WITHIN_S = 60.0


@dataclass
class Soak(Scene):
    """The scene, with what the second provider took."""

    second: SmtpDouble = field(default_factory=SmtpDouble)
    away: tuple[datetime, datetime] | None = None

    def accepted(self) -> list[Accepted]:
        return [*super().accepted(), *self.of_second()]

    def of_second(self) -> list[Accepted]:
        return [
            Accepted(mail.at, "email", mail.to, mail.message["Subject"], digest=digest_of(_text(mail)))
            for mail in [*self.second.mails]
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make soak", description="An hour's traffic, and what an hour brings.")
    parser.add_argument("--seed", type=int, default=None, help="of everything random here (default: a new one)")
    parser.add_argument("--minutes", type=int, default=60, help="of traffic")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    note(f"seed {seed}")
    leave_on_signals()
    root = fresh_root("soak")
    try:
        with _running_world(root) as soak:
            soak.chance = random.Random(seed)
            is_fine = _run(soak, options.minutes, seed=seed)
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    if not is_fine:
        note(f"not in order. The processes' output and the stubs' logs are in {root}")
    return 0 if is_fine else 1


@contextmanager
def _running_world(root: Path) -> Iterator[Soak]:
    told = ["--events", json.dumps(FATES), "--events-pace", str(EVENTS_PACE), "--max-send-rate", str(RATE)]
    with SmtpDouble() as second:
        shown = {
            "EMAIL_PROVIDER": "ses,smtp",
            "SMTP_URL": second.url,
            # Twenty times as quick as they are.
            "RETRY_FIRST_DELAY_S": "0.5",
            "UNKNOWN_S": "45",
            "BRAKE_FAILURES": "1000000000",
        }
        with running_service(root, _processes, settings=shown, stub_options=told) as running:
            door = Door(running.env)
            try:
                door.open()
                yield Soak(SmallWorld(running, door, is_quick=False), "soak", random.Random(0), second=second)
            finally:
                door.close()


def _processes(env: dict[str, str]) -> list[Process]:
    env["AWS_ENDPOINT_URL_SQS"] = env["AWS_ENDPOINT_URL_SESV2"]
    env["SES_EVENTS_QUEUE_URL"] = f"{env['AWS_ENDPOINT_URL_SQS']}/123456789012/events"
    poll = Process("poll", (sys.executable, "manage.py", "poll_ses_events"), env=env)
    queues = {"clock": 1, "materialise": 1, "email": PROCESSES, "push": 1, "in_app": 1}
    return [beat(env=env), poll, *(worker(name, concurrency=count, env=env) for name, count in queues.items())]


# What happens


def _run(soak: Soak, minutes: int, *, seed: int) -> bool:
    for number in range(SLICES):
        halves = (f"half-{number % 2}",)
        soak.people(SLICE, group=f"slice-{number}", also=("all", *halves), has_device=number % 5 == 0)
    soak.world.running.stub.fault({"kind": "silence", "rate": SILENT_CALLS})
    soak.world.door.await_ready()
    begun = time.monotonic()
    equal: list[Schedule] = []
    small: list[Schedule] = []
    special: dict[int, Callable[[], None]] = {
        EQUAL_AT: lambda: equal.extend(_equal(soak)),
        OUTAGE[0]: lambda: _outage(soak),
        CROWD_AT: lambda: small.extend(_crowd(soak)),
    }
    for minute in range(minutes):
        time.sleep(max(begun + _seconds(minute) - time.monotonic(), 0))
        note(f"minute {minute}")
        _ordinary(soak, minute)
        special.get(minute, bool)()
        soak.world.running.assert_books_close()
    soak.drain(seconds=300, hurries=False)
    deadline = time.monotonic() + _TOLD_WITHIN_S
    while _untold(soak) and time.monotonic() < deadline:
        time.sleep(1)
    return _report(soak, equal, small, seed=seed)


def _ordinary(soak: Soak, minute: int) -> None:
    """What any minute brings: a mail to a part, in between a push, and a word in the app."""
    soak.schedules(group=f"slice-{minute % SLICES}", seconds=1)
    if minute % 5 == 2:
        soak.schedules(channel="push", group="half-0", seconds=1)
    if minute % 10 == 3:
        soak.schedules(channel="in_app", group="half-1", seconds=1)


def _equal(soak: Soak) -> list[Schedule]:
    """Two runs of as many people at one instant."""
    return [soak.schedules(group=f"half-{number}", seconds=4, label=f"equal-{number}")[0] for number in (0, 1)]


def _crowd(soak: Soak) -> list[Schedule]:
    """A run to everybody, and five small ones a minute later."""
    soak.schedules(group="all", seconds=2, label="crowd")
    return [
        soak.schedules(group=f"slice-{number}", seconds=2 + _seconds(1), label=f"small-{number}")[0]
        for number in range(5)
    ]


def _outage(soak: Soak) -> None:
    """Calls in flight are cut off: whether the provider had taken them nobody can say, but where an event does."""
    lasts = _seconds(OUTAGE[1] - OUTAGE[0])
    soak.let_die(PROCESSES)
    began = datetime.now(UTC)
    soak.away = (began, began + timedelta(seconds=lasts))
    soak.world.running.stub.fault({"kind": "refuse", "seconds": lasts})


def _seconds(minutes: float) -> float:
    return minutes * 60 / SPEED


# What is counted


def _report(soak: Soak, equal: Sequence[Schedule], small: Sequence[Schedule], *, seed: int) -> bool:
    first = [*_of_stub(soak)]
    barred = barred_by([(each.at, each.to) for each in first], away=soak.away)
    soak.plan.barred = {person.name: at for person in soak.plan.people.values() if (at := barred.get(person.email))}
    verdict = soak.verdict()
    moments = sorted(each.at.timestamp() for each in first)
    figures: dict[str, tuple[float, bool]] = {}
    for kind in ("lost", "doubled", "ghost", "stuck"):
        cases = getattr(verdict, kind)
        figures[kind] = (len(cases), not cases)
        for case in cases[:10]:
            note(f"  {kind}: {case}")
    untold = _untold(soak)
    figures["untold"] = (len(untold), not untold)
    over = over_quota(moments, rate=RATE)
    figures["over_quota_people"] = (over, over <= 2 * RATE)
    if equal:
        uneven = unevenness(first, [each.spans[0].words for each in equal])
        figures["unevenness"] = (round(uneven, 3), uneven <= SHARE)
    if small:
        figures["small_p99_lateness_s"] = (round(_lateness(first, small), 1), True)
    failed_over = len(soak.of_second())
    figures["failed_over"] = (failed_over, (failed_over > 0) == (soak.away is not None))
    figures["barred"] = (len(soak.plan.barred), bool(soak.plan.barred))
    for name, (value, _) in figures.items():
        figure(f"soak.{name}", value, seed=seed)
    note(f"  {verdict.expected:,} expected, {verdict.accepted:,} accepted, {verdict.unclear:,} unclear")
    wrong = [name for name, (_, holds) in figures.items() if not holds]
    note("in order" if not wrong else f"NOT IN ORDER: {', '.join(wrong)}")
    return not wrong


def barred_by(
    taken: Iterable[tuple[datetime, str]], *, away: tuple[datetime, datetime] | None = None
) -> dict[str, datetime]:
    """From when on an address is left alone, by what becomes of the messages that the first provider took for it.

    While the provider is ``away`` nobody hears of it.
    """
    fates = Fates(FATES, pace=EVENTS_PACE)
    found: dict[str, datetime] = {}
    for at, address in sorted(taken):
        for happening in fates.of(_message(address)):
            if happening.kind in ("Bounce", "Complaint"):
                told = at + timedelta(seconds=happening.after_s)
                if away and away[0] <= told <= away[1]:
                    told = away[1] + timedelta(seconds=HEARD_AGAIN_S)
                found.setdefault(address, told + timedelta(seconds=LEFT_ALONE_S))
    return found


def over_quota(moments: Sequence[float], *, rate: float) -> int:
    """The most people that any stretch of time had beyond ``rate``; ``moments`` (seconds) are in order."""
    most = low = -math.inf
    for number, at in enumerate(moments):
        low = max(low, rate * at - number)
        most = max(most, number + 1 - rate * at + low)
    return max(math.ceil(most), 0) if moments else 0


def unevenness(taken: Sequence[Accepted], words: Sequence[str]) -> float:
    """How far the shares of two runs are apart when half of both has gone: 0.0 is even, 1.0 one after the other."""
    mine = sorted(each for each in taken if each.words in words)
    shares = Counter(each.words for each in mine[: len(mine) // 2])
    return abs(shares[words[0]] - shares[words[1]]) / max(shares.total(), 1)


def _lateness(taken: Sequence[Accepted], small: Sequence[Schedule]) -> float:
    due = {each.spans[0].words: each.spans[0].at for each in small}
    late = sorted((each.at - due[each.words]).total_seconds() for each in taken if each.words in due)
    return late[math.ceil(len(late) * 0.99) - 1] if late else 0.0


def _of_stub(soak: Soak) -> Iterator[Accepted]:
    for line in read_log(soak.world.running.log):
        yield Accepted(datetime.fromisoformat(line["at"]), "email", line["to"], line["subject"])


def _message(address: str) -> Message:
    return Message(at="", message_id="", to=address, subject="", delivery="", text="", html="")


def _text(mail: Mail) -> str:
    body = mail.message.get_body(("plain",))
    return body.get_content().rstrip("\r\n") if body else ""


def _untold(soak: Soak) -> list[str]:
    """Messages that the first provider took and of which the ledger does not know what became, or knows otherwise."""
    fates = Fates(FATES, pace=EVENTS_PACE)
    rows = soak.world.running.sql(
        "SELECT s.name, f.recipient_id, f.bounced_hard_at IS NOT NULL, f.complained_at IS NOT NULL,"
        " f.delivered_at IS NOT NULL FROM delivery_feedback f JOIN schedules_occurrence o ON o.id = f.occurrence_id"
        " JOIN schedules_schedule s ON s.id = o.schedule_id"
    )
    known = {(name, recipient): news for name, recipient, *news in rows}
    schedules = {span.words: schedule.name for schedule in soak.plan.schedules.values() for span in schedule.spans}
    recipients = {person.email: soak.recipients[person.name] for person in soak.plan.people.values() if person.email}
    wrong = []
    for each in _of_stub(soak):
        kinds = {happening.kind for happening in fates.of(_message(each.to))}
        expected = [kind in kinds for kind in ("Bounce", "Complaint", "Delivery")]
        if known.get((schedules[each.words], recipients[each.to])) != expected:
            wrong.append(f"{each.words} to {each.to}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
