"""What ``/metrics`` says of the service: counters as rows of the database, gauges found at the moment of asking.

Nothing here reads the ledger's rows: batches that wait lie in two partial indexes, and the rest are tables of a few
rows. No label names a schedule, an occurrence or a person.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils import timezone
from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from audit import seals
from delivery import books, circuits, continuity, counts, health, heartbeats, partitions
from delivery.counts import Counter, Histogram, Key
from delivery.models import ProviderAccount
from delivery.providers import registry
from schedules.models import Channel, OccurrenceState

log = structlog.get_logger(__name__)

# Real time for each question. Whoever asks comes again in a quarter of a minute.
TIMEOUT_MS = 2_000


class Figures(Collector):
    """Everything at once.

    What the database does not answer is left out, and ``notification_database_up`` is 0 then. ``now`` tells business
    time; it may ask the database.
    """

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now

    def collect(self) -> Iterator[Metric]:
        """The families, in no order that matters."""
        parts: list[Callable[[], Iterable[Metric]]] = [
            _counted, self._waiting, _occurrences, _books, _circuits, _accounts, _counters, _endpoints, _life,
            self._days, self._audit,
        ]  # fmt: skip
        up = True
        for part in parts:
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute("SET LOCAL statement_timeout = %s", [TIMEOUT_MS])
                    found = list(part())
            except DatabaseError as error:
                up = False
                log.warning("metrics_incomplete", part=part.__name__, error=error)
                if _is_away(error):
                    break  # each further question would wait for the connection
            else:
                yield from found
        yield GaugeMetricFamily("notification_database_up", "Whether the database answered every question.", float(up))

    def _waiting(self) -> Iterable[Metric]:
        return _batches(now=self._now())

    def _days(self) -> Iterable[Metric]:
        return _strays(today=self._now().date())

    def _audit(self) -> Iterable[Metric]:
        return _seals(now=self._now())


def page(*, now: Callable[[], datetime]) -> bytes:
    """All of it in Prometheus's text format, UTF-8."""
    return generate_latest(Figures(now=now))


def _is_away(error: DatabaseError) -> bool:
    return isinstance(error, InterfaceError) or (isinstance(error, OperationalError) and not connection.is_usable())


def _counted() -> Iterator[Metric]:
    rows: dict[str, dict[Key, float]] = defaultdict(dict)
    for key, value in counts.read().items():
        rows[key.name][key] = value
    for histogram, text in counts.HISTOGRAMS.items():
        sums, buckets = rows.pop(f"{histogram.name}_sum", {}), rows.pop(f"{histogram.name}_bucket", {})
        yield _histogram(histogram, text, {**sums, **buckets})
    for name in counts.COUNTERS.keys() | rows.keys():
        yield _counter(name, counts.COUNTERS.get(name, Counter("", "label")), rows[name])


def _counter(name: str, counter: Counter, rows: dict[Key, float]) -> Metric:
    """All that can be counted is there from the start, as zero: an alarm on what is absent sees no rise."""
    channels = counter.firsts if counter.has_channel else [""]
    zeros = {Key(name, channel, value): 0.0 for channel in channels for value in counter.values}
    labels = [*([counter.first] if counter.has_channel else []), *([counter.label] if counter.label else [])]
    family = CounterMetricFamily(name, counter.help, labels=labels)
    for key, value in sorted({**zeros, **rows}.items()):
        values = [*([key.channel] if counter.has_channel else []), *([key.label] if counter.label else [])]
        family.add_metric(values, value)
    return family


def _histogram(histogram: Histogram, text: str, rows: dict[Key, float]) -> Metric:
    family = HistogramMetricFamily(histogram.name, text, labels=["channel"])
    for channel in Channel.values:
        cumulative, buckets = 0.0, []
        for label in histogram.labels:
            cumulative += rows.get(histogram.bucket(channel, label), 0.0)
            buckets.append((label, cumulative))
        family.add_metric([channel], buckets, rows.get(Key(f"{histogram.name}_sum", channel), 0.0))
    return family


def _batches(*, now: datetime) -> Iterator[Metric]:
    waits = health.waiting(now=now)

    def each(of: Callable[[health.Waiting], float]) -> dict[str, float]:
        return {channel: of(found) for channel, found in waits.items()}

    yield _by_channel("notifications_queued", "Deliveries in the queue of their channel.", each(lambda w: w.queued))
    yield _by_channel(
        "notifications_due", "Deliveries that may be due and are not in a queue yet.", each(lambda w: w.due)
    )
    yield _by_channel(
        "notifications_held_back", "Deliveries that may be due, but for a pause or stop.", each(lambda w: w.held_back)
    )
    yield _by_channel(
        "notifications_oldest_due_seconds",
        "Since the oldest delivery that may go became due; 0: none is due.",
        each(lambda w: w.oldest_due_s),
    )


def _by_channel(name: str, text: str, values: dict[str, float]) -> Metric:
    return _gauge(name, text, "channel", values)


def _gauge(name: str, text: str, label: str, values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


_OPEN = (OccurrenceState.WAITING, OccurrenceState.MATERIALISING, OccurrenceState.RUNNING)


def _occurrences() -> Iterator[Metric]:
    """By the partial index of the open ones."""
    states = {state.value: 0.0 for state in _OPEN}
    held = 0.0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT state, count(*), count(*) FILTER (WHERE held_reason <> '') FROM schedules_occurrence"
            " WHERE closed_at IS NULL GROUP BY state"
        )
        for state, number, number_held in cursor.fetchall():
            states[state] = number
            held += number_held
    yield _gauge("occurrences_open", "Occurrences that are not closed.", "state", states)
    yield GaugeMetricFamily("occurrences_held", "Open occurrences that wait for a person to let them go on.", held)


def _books() -> Iterator[Metric]:
    text = "Runs whose books don't balance, of those that are open and of some batches looked at by chance."
    yield GaugeMetricFamily("books_unbalanced_occurrences", text, books.unbalanced())


def _circuits() -> Iterator[Metric]:
    held = GaugeMetricFamily(
        "provider_circuit_open", "1 while a channel is held because of its provider.", labels=["channel", "reason"]
    )
    passed_over = GaugeMetricFamily(
        "provider_passed_over",
        "1 while another of the channel's providers takes its calls.",
        labels=["channel", "provider", "reason"],
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT scope, reason FROM delivery_circuit")
        reasons = dict(cursor.fetchall())
        for channel in Channel.values:
            held.add_metric([channel, reasons.get(channel, "")], float(channel in reasons))
            for provider in registry.several(channel):
                scope = circuits.of_provider(channel, provider)
                passed_over.add_metric([channel, provider, reasons.get(scope, "")], float(scope in reasons))
        templates = sum(scope.startswith(circuits.OF_TEMPLATE) for scope in reasons)
        cursor.execute("SELECT scope FROM schedules_stopswitch WHERE scope NOT LIKE 'schedule:%%'", [])
        stopped = {scope.removeprefix("channel:") for (scope,) in cursor.fetchall()}
    yield held
    yield passed_over
    text = "Templates that wait for the template service, which renders them for nobody."
    yield GaugeMetricFamily("template_service_waiting_templates", text, templates)
    stops = {channel: float(bool(stopped & {"all", channel})) for channel in Channel.values}
    yield _by_channel("notifications_stopped", "1 while a person has stopped the channel, or all.", stops)
    text = "1 while this database was restored and nobody has settled what was sent after the backup."
    yield GaugeMetricFamily("database_restored", text, float(continuity.restored() is not None))


def _accounts() -> Iterator[Metric]:
    rows = list(ProviderAccount.objects.values_list("scope", "per_s", "per_day", "left"))
    rates = {scope: per_s for scope, per_s, *_ in rows if per_s is not None}
    yield _gauge("provider_account_people_per_second", "What the account of a provider lets through.", "scope", rates)
    per_day = {scope: float(per_day) for scope, _, per_day, _ in rows if per_day is not None}
    yield _gauge("provider_account_people_per_day", "What the account allows in any 24 hours.", "scope", per_day)
    left = {scope: float(left) for scope, *_, left in rows if left is not None}
    yield _gauge("provider_account_people_left", "Of 24 hours, when the account was asked last.", "scope", left)


def _counters() -> Iterator[Metric]:
    rates = health.rates()
    text = "Whether the Redis of caps and rates answered."
    yield GaugeMetricFamily("counters_up", text, float(rates is not None))
    slowed = {channel: per_s for channel, per_s in (rates or {}).items() if per_s is not None}
    text = "At which a provider is called that has asked to slow down; absent: it has not."
    yield _by_channel("provider_pace_people_per_second", text, slowed)


def _endpoints() -> Iterator[Metric]:
    """By the partial index of what waits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), COALESCE(extract(epoch FROM clock_timestamp() - min(v.created_at)), 0)::float8"
            " FROM delivery_posting p JOIN delivery_event v ON v.id = p.event_id"
            " JOIN delivery_endpoint e ON e.id = p.endpoint_id WHERE p.state = 'waiting' AND e.off_reason = ''"
        )
        waiting, oldest = cursor.fetchone()
        cursor.execute("SELECT count(*) FROM delivery_endpoint WHERE off_reason NOT IN ('', 'person')")
        (given_up,) = cursor.fetchone()
    yield GaugeMetricFamily("endpoint_events_waiting", "Events on their way to subscribers' endpoints.", waiting)
    text = "Since the oldest of these was made; 0: none waits."
    yield GaugeMetricFamily("endpoint_oldest_event_seconds", text, oldest)
    text = "Endpoints that the service has switched off, since they are gone or fail."
    yield GaugeMetricFamily("endpoints_given_up", text, given_up)


def _life() -> Iterator[Metric]:
    ages = heartbeats.ages()
    for name in (heartbeats.TICK, heartbeats.SWEEP):
        if name in ages:
            yield GaugeMetricFamily(f"last_{name}_seconds", f"Since the {name} last came to its end.", ages[name])
    if settings.TEMPLATE_SERVICE_URL and heartbeats.TEMPLATES in ages:
        text = "Since the template service last told all of its list."
        yield GaugeMetricFamily("template_service_listed_seconds", text, ages[heartbeats.TEMPLATES])
    if settings.SES_EVENTS_QUEUE_URL and heartbeats.SES_EVENTS in ages:
        text = "Since the queue of what SES tells was last asked."
        yield GaugeMetricFamily("provider_queue_polled_seconds", text, ages[heartbeats.SES_EVENTS])
    lives = heartbeats.of_queues(ages)
    consumed = {queue: life.consumed_ago for queue, life in lives.items() if life.consumed_ago is not None}
    yield _gauge("queue_consumed_seconds", "Since a worker last took anything from the queue.", "queue", consumed)
    silent = {queue: life.silent for queue, life in lives.items()}
    yield _gauge("queue_silent_seconds", "For how long a queue was asked and did not answer.", "queue", silent)


def _strays(*, today: date) -> Iterator[Metric]:
    text = "Days, this one the first, for which the ledger has its partitions."
    yield GaugeMetricFamily("ledger_partitions_ahead", text, partitions.days_ahead(today=today))
    yield GaugeMetricFamily(
        "ledger_default_partition_rows",
        "Rows whose day has no partition (counted up to 3,000): any means that it was not made in time.",
        partitions.rows_in_default(),
    )


def _seals(*, now: datetime) -> Iterator[Metric]:
    number, written = seals.unsealed()
    text = "Rows of the audit that are younger than its last seal."
    yield GaugeMetricFamily("audit_unsealed_rows", text, number)
    waits = max((now - written).total_seconds(), 0.0) if written else 0.0
    yield GaugeMetricFamily("audit_oldest_unsealed_seconds", "Since the oldest of these was written; 0: none.", waits)
    if settings.AUDIT_EXPORT_BUCKET:
        _number, oldest = seals.unexported()
        age = (timezone.now() - oldest).total_seconds() if oldest else 0.0
        text = "Since the oldest seal was made that is not exported; 0: none."
        yield GaugeMetricFamily("audit_oldest_unexported_seconds", text, age)
