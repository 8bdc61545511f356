"""Sending: how much, how late, what became of it, and what providers say."""

from deploy.grafana.boards.shared import (
    CHANNEL,
    LATENESS,
    NOT_SENT,
    OUTCOMES,
    THROUGHPUT,
    by_channel,
    rate_by,
    risen_by,
)
from deploy.grafana.files import Board
from deploy.grafana.panels import PER_SECOND, SECONDS, SHARE, Panel, Query

BOARD = Board(
    "Sending",
    "What is sent, how late, what became of it and why, and what the providers say.",
    [
        THROUGHPUT,
        LATENESS,
        Panel(
            "Lateness, distribution",
            [
                Query(
                    f"sum by (le) (increase(notifications_send_lateness_seconds_bucket{CHANNEL}[$__rate_interval]))",
                    "{{le}}",
                )
            ],
            kind="heatmap",
            unit=SECONDS,
            about="People by how late their first call started.",
        ),
        OUTCOMES,
        Panel(
            "Failures by class",
            [risen_by("reason_class", "notifications_failed_total", of=CHANNEL)],
            alert="FailuresHigh",
            page="/ledger/",
            about="People who have failed for good, by why.",
        ),
        Panel(
            "Share of failures",
            [Query(f"channel:notifications_failed:ratio_rate15m{CHANNEL}", "{{channel}}")],
            unit=SHARE,
            alert="FailuresHigh",
            limit=0.05,
            about="Of those sent to or failed, over a quarter of an hour.",
        ),
        Panel(
            "Not sent, and why",
            [
                Query(
                    f"sum by (reason_class) (increase(notifications_{state}_total{CHANNEL}[$__rate_interval]))",
                    f"{state.replace('_', ' ')}: {{{{reason_class}}}}",
                )
                for state in NOT_SENT
            ],
            page="/ledger/",
            about="People whom nobody tried to send to: limits, objections, no address, too late.",
        ),
        Panel(
            "Retries",
            [Query(f"channel:notifications_retries:ratio_rate15m{CHANNEL}", "{{channel}}")],
            unit=SHARE,
            alert="RetriesGrowing",
            limit=0.1,
            about="What was tried in vain and will be tried again, against what was sent, over a quarter of an hour.",
        ),
        Panel(
            "Unanswered",
            [Query(f"channel:notifications_unknown:increase15m{CHANNEL}", "{{channel}}")],
            alert="UnknownOutcomesGrowing",
            limit=100,
            about="People in calls that got no answer, in a quarter of an hour. Each becomes sent or failed later.",
        ),
        Panel(
            "Held and stopped",
            [
                Query(f"provider_circuit_open{CHANNEL}", "{{channel}} held: {{reason}}"),
                Query(f"notifications_stopped{CHANNEL}", "{{channel}} stopped"),
            ],
            alert="ProviderCircuitOpen",
            limit=1,
            page="/admin/delivery/circuit/",
            about="1: the provider refuses the account, or somebody has stopped the channel.",
        ),
        Panel(
            "Passed over",
            [Query(f"provider_passed_over{CHANNEL}", "{{channel}}: {{provider}} {{reason}}")],
            alert="ProviderPassedOver",
            limit=1,
            about="1: another of the channel's providers takes its calls. Empty where each channel has one provider.",
        ),
        Panel(
            "Put off by the provider",
            [rate_by("channel", "provider_throttled_total", of=CHANNEL)],
            unit=PER_SECOND,
            alert="ProviderThrottled",
            about="People a second who wait because the provider asked to slow down.",
        ),
        Panel(
            "Rate that the provider allows",
            [
                Query("provider_account_people_per_second", "{{scope}}: the account"),
                Query(f"provider_pace_people_per_second{CHANNEL}", "{{channel}}: slowed down"),
            ],
            unit=PER_SECOND,
            about="As the account said when it was asked last; and where the provider has asked to slow down.",
        ),
        Panel(
            "Quota left",
            [Query("scope:provider_account_people_left:ratio", "{{scope}}")],
            unit=SHARE,
            alert="ProviderQuotaNearlyUsed",
            limit=0.1,
            bad_below=True,
            about="Of the people whom the account allows in 24 hours.",
        ),
        Panel(
            "Run lag",
            [
                Query(
                    f"histogram_quantile({share}, sum by (channel, le)"
                    f" (rate(occurrence_run_lag_seconds_bucket{CHANNEL}[$__rate_interval])))",
                    f"{{{{channel}}}} p{int(share * 100)}",
                )
                for share in (0.5, 0.99)
            ],
            unit=SECONDS,
            about="From the earliest instant promised to anybody of a run to its first claim. Empty while none begins.",
        ),
        Panel(
            "Bounces and complaints",
            [
                Query(f"channel:notifications_bounced_hard:ratio_increase1d{CHANNEL}", "{{channel}} bounced for good"),
                Query(f"channel:notifications_complained:ratio_increase1d{CHANNEL}", "{{channel}} called spam"),
            ],
            unit=SHARE,
            alert="BouncesHigh",
            limit=0.04,
            about="Of a day's messages, by the providers' word.",
        ),
        Panel(
            "Delivered, by the provider's word",
            [by_channel("notifications_delivered_total")],
            about="Messages that the person's mail server took, since the service was set up.",
        ),
    ],
    by_channel=True,
)
