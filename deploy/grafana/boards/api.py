"""API: traffic, errors, latency, and what is left of the month's budget of errors."""

from deploy.grafana.boards.shared import API, API_ERRORS, NOT_API
from deploy.grafana.files import Board
from deploy.grafana.panels import NUMBER, REQUESTS, SECONDS, SHARE, Panel, Query, stat

_ANSWERS = "django_http_responses_total_by_status_view_method_total"
_LATENCY = "django_http_requests_latency_seconds_by_view_method_bucket"
_P95 = f"histogram_quantile(0.95, sum by (view, le) (rate({_LATENCY}{{{API}}}[$__rate_interval])))"
_BUDGET = 0.001

BOARD = Board(
    "API",
    "Requests of programs: how many, how many fail, how long they take, and what is left of the budget of errors.",
    [
        stat(
            "Budget left",
            f'1 - (sum(increase({_ANSWERS}{{{API}, status=~"5.."}}[30d])) or vector(0))'
            f" / (sum(increase({_ANSWERS}{{{API}}}[30d])) > 0) / {_BUDGET}",
            unit=SHARE,
            alert="ApiErrorBudgetBurnsSlowly",
            limit=0,
            bad_below=True,
            about="Of the one in a thousand answers that may fail in thirty days.",
            width=6,
        ),
        stat("Requests now", "api:responses:rate5m", unit=REQUESTS, width=6),
        stat("p95 now", "api:latency_seconds:p95_5m", unit=SECONDS, alert="ApiSlow", limit=0.5, width=6),
        stat("Errors in an hour", "api:errors:increase1h", alert="ApiErrorBudgetBurnsFast", limit=10, width=6),
        Panel(
            "Requests",
            [Query(f"sum by (method) (rate({_ANSWERS}{{{API}}}[$__rate_interval]))", "{{method}}")],
            unit=REQUESTS,
            stacked=True,
        ),
        Panel(
            "Answers by status",
            [Query(f"sum by (status) (rate({_ANSWERS}{{{API}}}[$__rate_interval]))", "{{status}}")],
            unit=REQUESTS,
            about="4xx are the callers' own: 429 is a client that asks more than API_RATE times a second.",
        ),
        API_ERRORS,
        Panel(
            "Errors by address",
            [
                Query(
                    f'sum by (view, status) (increase({_ANSWERS}{{{API}, status=~"5.."}}[$__rate_interval]))',
                    "{{view}} {{status}}",
                )
            ],
            alert="ApiErrorBudgetBurnsFast",
            about="Empty while there was none since the web servers started.",
        ),
        Panel(
            "Latency",
            [Query(f"api:latency_seconds:{share}_5m", share) for share in ("p50", "p95", "p99")],
            unit=SECONDS,
            alert="ApiSlow",
            limit=0.5,
            about="Of all addresses together; 0.2 s is the aim for schedules, the line is the alert's.",
        ),
        Panel(
            "Latency by address",
            [Query(f"topk(10, {_P95})", "{{view}}")],
            unit=SECONDS,
            about="p95 of the ten slowest.",
        ),
        Panel(
            "Budget burnt",
            [
                Query(f"api:errors:ratio_rate{window} / {_BUDGET}", legend)
                for window, legend in (("1h", "over an hour"), ("6h", "over six hours"), ("3d", "over three days"))
            ],
            unit=NUMBER,
            alert="ApiErrorBudgetBurnsFast",
            limit=14.4,
            about="How many times too fast: at 1 the month's budget lasts just the month, at 14.4 two days.",
        ),
        Panel(
            "Pages and the rest",
            [
                Query(
                    f"sum by (status) (rate({_ANSWERS}{{{NOT_API}}}[$__rate_interval]))",
                    "{{status}}",
                )
            ],
            unit=REQUESTS,
            about="Answers of everything that is not the API.",
        ),
    ],
    page="/api/docs",
)
