"""Panels that more than one board has, and parts of their queries."""

from deploy.grafana.panels import NUMBER, PER_SECOND, SECONDS, Panel, Query

# Outcomes of people whom nobody tried to send to.
NOT_SENT = ("rate_limited", "suppressed", "unaddressable", "cancelled", "erased", "expired")
CHANNEL = '{channel=~"$channel"}'
# The API's own addresses, and signing in by program; as in recording.yml.
_OF_API = "frontend[.]api[.].+|oauth2_provider:.+"
API, NOT_API = f'view=~"{_OF_API}"', f'view!~"{_OF_API}"'


def by_channel(metric: str, legend: str = "{{channel}}") -> Query:
    return Query(f"sum by (channel) ({metric}{CHANNEL})", legend)


def rate_by(label: str, metric: str, *, of: str = "") -> Query:
    """A second, by the values of ``label``."""
    return Query(f"sum by ({label}) (rate({metric}{of}[$__rate_interval]))", f"{{{{{label}}}}}")


def risen_by(label: str, metric: str, *, of: str = "") -> Query:
    """How many in each step of the graph, by the values of ``label``."""
    return Query(f"sum by ({label}) (increase({metric}{of}[$__rate_interval]))", f"{{{{{label}}}}}")


THROUGHPUT = Panel(
    "Throughput",
    [Query(f"channel:notifications_sent:rate5m{CHANNEL}", "{{channel}}")],
    unit=PER_SECOND,
    about="Messages that providers took, a second, over five minutes.",
)
LATENESS = Panel(
    "Lateness",
    [
        Query(f"channel:notifications_send_lateness_seconds:{share}_5m{CHANNEL}", f"{{{{channel}}}} {share}")
        for share in ("p50", "p95", "p99")
    ],
    unit=SECONDS,
    alert="SendsLate",
    limit=5,
    about="From the instant promised to a person to the start of the first call. Empty while nobody is sent to.",
)
OLDEST_DUE = Panel(
    "Oldest due",
    [by_channel("notifications_oldest_due_seconds")],
    unit=SECONDS,
    alert="SendBacklog",
    limit=120,
    about="Since the oldest who may go became due. Whoever is paused, stopped or held is not counted.",
)
WAITING = Panel(
    "Waiting",
    [
        by_channel("notifications_queued", "{{channel}} in the queue"),
        by_channel("notifications_due", "{{channel}} due"),
        by_channel("notifications_held_back", "{{channel}} held back"),
    ],
    unit=NUMBER,
    about="People at most: in a queue or with a worker; due and in no queue yet; kept by a pause, a stop or a hold.",
)
OUTCOMES = Panel(
    "Outcomes",
    [
        Query(f"sum(rate(notifications_{state}_total{CHANNEL}[$__rate_interval]))", state.replace("_", " "))
        for state in ("sent", "failed", "unknown", *NOT_SENT)
    ],
    unit=PER_SECOND,
    page="/dashboard/",
    about="What became of people, a second. An unknown outcome becomes sent or failed later.",
)
SIGNS_OF_LIFE = Panel(
    "Signs of life",
    [
        Query("last_tick_seconds", "since the last tick"),
        Query("last_sweep_seconds", "since the last sweep"),
    ],
    unit=SECONDS,
    alert="TickStandsStill",
    limit=30,
    about="The tick opens runs and hands out what is due, each second; the sweep settles what nobody holds any more.",
)
RUNS = Panel(
    "Open runs",
    [Query("occurrences_open", "{{state}}"), Query("occurrences_held", "held: waits for a person")],
    alert="RunHeld",
    page="/occurrences/",
    about="Runs that are not closed, by state. Held ones wait until somebody lets them go on or cancels them.",
)
API_ERRORS = Panel(
    "Share of errors",
    [
        Query("api:errors:ratio_rate5m", "five minutes"),
        Query("api:errors:ratio_rate1h", "an hour"),
        Query("api:errors:ratio_rate6h", "six hours"),
    ],
    unit="percentunit",
    alert="ApiErrorBudgetBurnsFast",
    limit=0.0144,
    about="Answers of the API that are errors of its own (5xx). The promise is 0.1 %; the line is where it burns fast.",
)
