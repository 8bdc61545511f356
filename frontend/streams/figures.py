"""What ``/metrics`` of a streams' server says: of its own process, as nobody else knows it."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from frontend.streams.hub import Hub
from frontend.streams.stream import End

_EVENTS = ("message", "unread", "reset")
_ENDS = ("left", *End)
_REFUSALS = ("401", "403", "404", "429", "503")


class Figures(Collector):
    """``refused`` counts answers that were no stream by their status."""

    def __init__(self, hub: Hub, refused: Counter[str]) -> None:
        self._hub, self._refused = hub, refused

    def collect(self) -> Iterator[Metric]:
        hub = self._hub
        yield GaugeMetricFamily("inbox_streams_open", "Streams of inboxes that are open.", len(hub.streams))
        yield _counted("inbox_stream_events", "Events told.", "event", _EVENTS, hub.events)
        yield _counted("inbox_streams_ended", "Streams that ended, by why.", "reason", _ENDS, hub.ends)
        yield _counted("inbox_streams_refused", "Requests not let in, by status.", "status", _REFUSALS, self._refused)
        text = "1 while word of new messages is heard from Redis; else inboxes are looked at every few seconds alone."
        yield GaugeMetricFamily("inbox_streams_listening", text, float(hub.is_listening))
        text = "Since inboxes were last looked at."
        yield GaugeMetricFamily("inbox_streams_looked_seconds", text, time.monotonic() - hub.looked_at)


def _counted(name: str, text: str, label: str, known: tuple[str, ...], counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value in sorted({*known, *counts}):
        family.add_metric([value], counts.get(value, 0))
    return family
