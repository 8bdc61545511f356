"""Queues and workers: what waits, who works, and what the service stands on."""

from deploy.grafana.boards.shared import CHANNEL, OLDEST_DUE, RUNS, SIGNS_OF_LIFE, WAITING, risen_by
from deploy.grafana.files import Board
from deploy.grafana.panels import SECONDS, Panel, Query, stat

BOARD = Board(
    "Queues & workers",
    "What waits and for how long, whether somebody works for each queue, and what the service stands on.",
    [
        stat("Database", "notification_database_up", alert="DatabaseNotAnswering", limit=1, bad_below=True, width=4),
        stat("Restored", "database_restored", alert="DatabaseRestored", limit=1, width=4),
        stat("Counters", "counters_up", alert="CountersAway", limit=1, bad_below=True, width=4),
        stat(
            "Days of the ledger", "ledger_partitions_ahead", alert="LedgerDaysRunOut", limit=7, bad_below=True, width=4
        ),
        stat("Rows without a day", "ledger_default_partition_rows", alert="LedgerDefaultPartition", limit=1, width=4),
        stat("Processes", 'count(up{job=~"service|web|streams"} == 1)', alert="ProcessNotScraped", width=4),
        WAITING,
        OLDEST_DUE,
        Panel(
            "Silence of queues",
            [Query("queue_silent_seconds", "{{queue}}")],
            unit=SECONDS,
            alert="QueueSilent",
            limit=60,
            about="For how long a queue was asked and did not answer. Materialising may take six minutes.",
        ),
        Panel(
            "Work taken up",
            [Query("queue_consumed_seconds", "{{queue}}")],
            unit=SECONDS,
            about="Since a worker last took anything from the queue. Each is asked every 15 seconds.",
        ),
        SIGNS_OF_LIFE,
        RUNS,
        Panel(
            "Settled by the sweep",
            [risen_by("step", "swept_total")],
            alert="SweepStandsStill",
            about="Rows, batches, runs and schedules: leases of dead workers, lost messages, what ended.",
        ),
        Panel(
            "Missed runs",
            [risen_by("reason", "occurrences_missed_total")],
            alert="RunsMissed",
            page="/occurrences/",
            about="Runs that nobody got.",
        ),
        Panel(
            "Expired people",
            [risen_by("reason_class", "notifications_expired_total", of=CHANNEL)],
            alert="PeopleExpired",
            about="People who were not sent to, since it became too late.",
        ),
        Panel(
            "Audit",
            [
                Query("audit_oldest_unsealed_seconds", "oldest row without a seal"),
                Query("audit_oldest_unexported_seconds", "oldest seal that is not in the bucket"),
            ],
            unit=SECONDS,
            alert="AuditUnsealed",
            limit=900,
            page="/audit/",
        ),
    ],
    by_channel=True,
)
