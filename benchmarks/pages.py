"""How long the server takes for each of the pages, with as much behind them as they should bear.

    python -m benchmarks.pages [--people 1000000] [--rows 10000000] [--schedules 500000] [--events 1000000]
                               [--requests 40] [--only NAME]

``page_p95_ms`` is the slowest page's 95th percentile, in one process, from the request to the last byte of the answer;
standard error tells each page's. Pages are those of ``tests.pages``, asked by an admin in a browser that is signed in.
``part_p95_ms`` is the same of what pages load beside themselves: previews, counts, progress.

Afterwards every statement is explained: one that counts or sums the rows of the ledger, of the schedules, of the audit
or of the people, rather than a page of them, ends the benchmark. Parts may count people, which is what they are for.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.test import Client

from benchmarks import plans, questions
from benchmarks.harness import emit, execute, note, prepare, query
from benchmarks.runs import Wrong, ending
from delivery import figures, listing
from delivery.listing import Filters
from delivery.models import InboxMessage, OutboxMessage, State
from schedules import clock, encryption, operations, templates
from schedules.fields import place
from schedules.models import MessageTemplate, Occurrence, Recipient, Schedule
from schedules.permissions import Ability
from tests.pages import PAGES, PARTS, Values, addresses

NAME = "pages"
# Rows that a page may have to look at: what the planner expects of one page of a list, and some more.
A_PAGE = 20_000
HUGE = ("delivery_delivery", "schedules_schedule", "notification_audit")
PEOPLE = "schedules_recipient"
# What pages load beside themselves; files are left out, whose length is theirs.
LOADED = (
    "wizard-look",
    "wizard-people",
    "wizard-templates",
    "schedule-forecast",
    "schedule-people",
    "occurrence-progress",
    "occurrence-person",
    "dashboard-health",
)
# A page that takes longer than this many milliseconds at its 95th percentile is told as too slow.
PROMISED_MS = 300

_EVENTS = """
INSERT INTO notification_audit (action, actor_id, schedule_id, payload_diff, request_id, created_at)
SELECT (ARRAY['schedule.create', 'schedule.update', 'schedule.pause', 'schedule.resume'])[1 + i %% 4],
       'client:' || i %% 100, %(first)s + i %% %(schedules)s, '{"name": ["Before", "After"]}', md5(i::text),
       now() - (%(count)s - i) * interval '5 seconds'
FROM generate_series(1, %(count)s) AS i
"""
_MESSAGES = """
INSERT INTO {table} ({columns}, recipient_id, occurrence_id, created_at)
SELECT {values}, id, %(occurrence)s, now() FROM schedules_recipient ORDER BY id LIMIT %(count)s
"""
MESSAGES = 100_000


def fill(*, people: int, rows: int, schedules: int, events: int) -> Values:
    """Everything that pages show, and what their addresses are made of."""
    questions.fill(count=people, rows=rows)
    template = MessageTemplate.objects.get()
    plans.insert(schedules, template_id=template.pk)
    templates.save_catalogue(locale="de", messages={"greeting": "Guten Tag"}, by="benchmark", now=clock.now())
    run = Occurrence.objects.earliest("-occurrence_at")
    draft = operations.duplicate(schedule_id=run.schedule_id, by="benchmark", now=clock.now())
    middle = Schedule.objects.filter(pk__gte=run.schedule_id + schedules // 2).earliest("pk")
    note(f"Inserting {events:,} events")
    execute(_EVENTS, {"first": run.schedule_id, "schedules": schedules, "count": events})
    said = {"to": "a@example.com", "subject": "Hello", "text": "Words", "html": "<p>Words</p>"}
    _write_messages("delivery_outboxmessage", said, run)
    _write_messages("delivery_inboxmessage", {"title": "Hello", "body": "Words"}, run)
    execute("VACUUM ANALYZE notification_audit, delivery_outboxmessage, delivery_inboxmessage")
    note("Counting the figures")
    _count_figures()
    failed = listing.page(Filters(state=State.FAILED), now=clock.now(), limit=1).rows[0].recipient_id
    return {
        "schedule_id": [middle.pk, run.schedule_id],
        "occurrence_id": run.pk,
        "recipient_id": [Recipient.objects.latest("pk").pk, failed],
        "message_id": OutboxMessage.objects.latest("pk").pk,
        "inbox-message message_id": InboxMessage.objects.latest("pk").pk,
        "template_id": template.pk,
        "locale": "de",
        "schedule-do verb": ["pause", "cancel", "run-now"],
        "schedule-edit schedule_id": middle.pk,
        **{
            f"{name} schedule_id": draft.pk
            for name in ("wizard-step", "wizard-look", "wizard-people", "wizard-templates")
        },
        "wizard-look step": ["audience", "message", "when", "review"],
        "wizard-step step": ["basics", "audience", "message", "when", "limits", "review"],
        **{key: [] for key in ("import_id", "test_send_id", "endpoint_id", "key")},  # a page of one row
    }


def _write_messages(table: str, said: dict[str, str], run: Occurrence) -> None:
    names = ", ".join(f'"{name}"' for name in said)
    statement = _MESSAGES.format(table=table, columns=names, values=", ".join(f"%({name})s" for name in said))
    kept = {name: encryption.encrypt(text, place(table, name)) for name, text in said.items()}
    execute(statement, {"occurrence": run.pk, "count": MESSAGES, **kept})


def _count_figures() -> None:
    while query("SELECT 1 FROM delivery_batch WHERE NOT is_counted LIMIT 1"):
        figures.count()
    execute("VACUUM ANALYZE delivery_figure, delivery_batch")


class Asked:
    """The statements of the pages, each once with the values it was first asked with."""

    def __init__(self) -> None:
        self.statements: dict[str, tuple[Any, str]] = {}
        self.page = ""

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.lstrip().upper().startswith(("SELECT", "WITH")):
            self.statements.setdefault(sql, (params, self.page))
        return execute(sql, params, many, context)

    def large(self, tables: tuple[str, ...]) -> Iterator[str]:
        """What reckons over more than a page of these tables."""
        for sql, (params, page) in self.statements.items():
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", params)
                ((found,),) = cursor.fetchall()
                plan = found if isinstance(found, list) else json.loads(found)
            for table, rows in _reckoned(plan[0]["Plan"], tables, is_reckoning=False):
                yield f"{page}: about {rows:,} rows of {table} for {sql[:400]}"


def _reckoned(
    plan: dict[str, Any], tables: tuple[str, ...], *, is_reckoning: bool, read: float = 1.0
) -> Iterator[tuple[str, int]]:
    """Tables and rows of them that an aggregate reads. ``read``: the share of this part's rows that is asked for.

    A part that costs more than what it is a part of is not read to its end: a limit or a merge join stops before.
    """
    kind = plan["Node Type"]
    is_reckoning = (is_reckoning or kind in ("Aggregate", "WindowAgg")) and kind != "Limit"
    table = plan.get("Relation Name", "")
    rows = round(plan["Plan Rows"] * read)
    if is_reckoning and table.startswith(tables) and rows > A_PAGE:
        yield table, rows
    for each in plan.get("Plans", ()):
        share = min(1.0, plan["Total Cost"] / each["Total Cost"]) if each["Total Cost"] else 1.0
        yield from _reckoned(each, tables, is_reckoning=is_reckoning, read=read * share)


def p95_ms(client: Client, path: str, *, requests: int) -> float:
    """Raises ``Wrong`` where the answer isn't the page."""
    taken = []
    for _ in range(requests):
        started = time.perf_counter()
        answer = client.get(path)
        taken.append(time.perf_counter() - started)
        if answer.status_code != 200:
            raise Wrong(f"{path}: {answer.status_code}")
    return sorted(taken)[min(len(taken) - 1, int(len(taken) * 0.95))] * 1000


def measure(
    names: Mapping[str, Ability], values: Values, *, uncounted: tuple[str, ...], requests: int, only: str
) -> dict[str, float]:
    """Milliseconds by path. Raises ``Wrong`` where a statement counts the rows of a table that is to stay uncounted."""
    client = Client(SERVER_NAME="localhost")
    client.force_login(get_user_model().objects.get_or_create(username="benchmark", is_superuser=True)[0])
    asked, found = Asked(), {}
    for name, path in addresses(names, values):
        if only in name:
            asked.page = path
            with connection.execute_wrapper(asked):
                client.get(path)
            found[path] = p95_ms(client, path, requests=requests)
            note(f"  {path}: {found[path]:.0f} ms{' (too slow)' if found[path] > PROMISED_MS else ''}")
    if large := list(asked.large(uncounted)):
        raise Wrong("\n".join(["statements that read too much:", *large]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="The server's time for pages.")
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the ledger")
    parser.add_argument("--schedules", type=int, default=500_000)
    parser.add_argument("--events", type=int, default=1_000_000, help="of the audit")
    parser.add_argument("--requests", type=int, default=40, help="for each page")
    parser.add_argument("--only", default="", help="pages whose address has a name with this in it")
    options = parser.parse_args()
    prepare()
    values = fill(people=options.people, rows=options.rows, schedules=options.schedules, events=options.events)
    parts = {name: PARTS[name] for name in LOADED}
    for figure, names, uncounted in (("page_p95_ms", PAGES, (*HUGE, PEOPLE)), ("part_p95_ms", parts, HUGE)):
        if found := measure(names, values, uncounted=uncounted, requests=options.requests, only=options.only):
            emit(NAME, figure, max(found.values()), "ms")


if __name__ == "__main__":
    ending(main)
