"""Integrations: the organisation's own services, what providers tell, programs that are told, and open inboxes."""

from deploy.grafana.boards.shared import rate_by, risen_by
from deploy.grafana.files import Board
from deploy.grafana.panels import PER_SECOND, SECONDS, Panel, Query

_RENDERED = "sum by (le) (rate(template_service_seconds_bucket[$__rate_interval]))"

BOARD = Board(
    "Integrations",
    "Services that name people or render messages, events of providers, programs that are told, streams of inboxes.",
    [
        Panel(
            "User service",
            [
                Query("sum(increase(user_service_pages_total[$__rate_interval]))", "pages"),
                risen_by("code", "user_service_failures_total"),
            ],
            alert="UserServiceAway",
            about="Pages of people that it has told, and answers that were none.",
        ),
        Panel(
            "People told by the user service",
            [rate_by("result", "user_service_people_total")],
            unit=PER_SECOND,
        ),
        Panel(
            "Template service",
            [risen_by("result", "template_service_calls_total")],
            alert="TemplateServiceAway",
            about="Calls that had it render for a run, by how they ended.",
        ),
        Panel(
            "Template service, latency",
            [
                Query(
                    f"histogram_quantile({share}, {_RENDERED})",
                    f"p{int(share * 100)}",
                )
                for share in (0.5, 0.95, 0.99)
            ],
            unit=SECONDS,
            about="Empty while it is not called.",
        ),
        Panel(
            "Messages wanted of the template service",
            [rate_by("result", "template_service_messages_total")],
            unit=PER_SECOND,
        ),
        Panel(
            "Template service, what waits",
            [
                Query("template_service_waiting_templates", "templates that wait"),
                Query("template_service_listed_seconds", "seconds since its list was read"),
            ],
            alert="TemplateServiceAway",
            limit=600,
        ),
        Panel(
            "Provider events",
            [Query("sum by (result, kind) (increase(provider_events_total[$__rate_interval]))", "{{kind}} {{result}}")],
            about="Events of providers that were read, by what the ledger made of them.",
        ),
        Panel(
            "Ways of provider events",
            [risen_by("result", "provider_hooks_total")],
            alert="ProviderHooksForged",
            about="What else comes by them: confirmed, ended, refused.",
        ),
        Panel(
            "Queue of provider events",
            [Query("provider_queue_polled_seconds", "since it was last asked")],
            unit=SECONDS,
            alert="ProviderEventsNotPolled",
            limit=300,
            about="Empty where SES_EVENTS_QUEUE_URL names none.",
        ),
        Panel(
            "Calls of endpoints",
            [risen_by("result", "endpoint_calls_total")],
            alert="EndpointEventsLate",
            page="/endpoints/",
            about="Calls of other programs, by how they ended.",
        ),
        Panel(
            "Events waiting",
            [Query("endpoint_events_waiting", "waiting"), Query("endpoints_given_up", "endpoints switched off")],
            alert="EndpointsGivenUp",
            page="/endpoints/",
        ),
        Panel(
            "Oldest event",
            [Query("endpoint_oldest_event_seconds", "since it was made")],
            unit=SECONDS,
            alert="EndpointEventsLate",
            limit=3600,
        ),
        Panel(
            "Open streams",
            [Query("inbox_streams_open", "{{instance}}")],
            about="Streams of inboxes, by server.",
        ),
        Panel(
            "Told by streams",
            [
                rate_by("event", "inbox_stream_events_total"),
                Query("sum by (reason) (rate(inbox_streams_ended_total[$__rate_interval]))", "ended: {{reason}}"),
                Query("sum by (status) (rate(inbox_streams_refused_total[$__rate_interval]))", "refused: {{status}}"),
            ],
            unit=PER_SECOND,
        ),
        Panel(
            "Streams, signs of life",
            [
                Query("inbox_streams_looked_seconds", "{{instance}} looked"),
                Query("inbox_streams_listening", "{{instance}} listens"),
            ],
            unit=SECONDS,
            alert="StreamsHearNothing",
            limit=60,
            about="Since inboxes were last looked at; and 1 while word of new messages is heard.",
        ),
    ],
)
