"""Overview: is it well, and what is late."""

from deploy.grafana.boards.shared import (
    API_ERRORS,
    LATENESS,
    OLDEST_DUE,
    OUTCOMES,
    RUNS,
    SIGNS_OF_LIFE,
    THROUGHPUT,
    WAITING,
)
from deploy.grafana.files import Board
from deploy.grafana.panels import SECONDS, SHARE, stat

BOARD = Board(
    "Overview",
    "Whether the service is well: traffic, errors, lateness, what waits, and whether the books balance.",
    [
        stat("Alerts", 'count(ALERTS{alertstate="firing"}) or vector(0)', limit=1, about="That fire at this moment."),
        stat("Last tick", "last_tick_seconds", unit=SECONDS, alert="TickStandsStill", limit=30),
        stat(
            "Silent queues",
            'count(queue_silent_seconds{queue!="materialise"} > 60 or queue_silent_seconds{queue="materialise"} > 360)'
            " or vector(0)",
            alert="QueueSilent",
            limit=1,
            about="Queues that were asked and did not answer.",
        ),
        stat("Longest wait", "max(notifications_oldest_due_seconds)", unit=SECONDS, alert="SendBacklog", limit=120),
        stat(
            "Unbalanced books",
            "books_unbalanced_occurrences",
            alert="BooksDoNotBalance",
            limit=1,
            about="Runs of which the people targeted are not the sum of what became of them.",
        ),
        stat(
            "API without errors",
            "1 - api:errors:ratio_rate1h",
            unit=SHARE,
            limit=0.999,
            bad_below=True,
            alert="ApiErrorBudgetBurnsFast",
            about="Over an hour; the promise is 99.9 % of a month.",
        ),
        THROUGHPUT,
        LATENESS,
        OLDEST_DUE,
        OUTCOMES,
        WAITING,
        API_ERRORS,
        RUNS,
        SIGNS_OF_LIFE,
    ],
    by_channel=True,
)
