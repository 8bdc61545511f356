"""The floor of ``throughput``: the least that sends the same e-mails and leaves the same rows behind.

A bare loop of psycopg, redis-py and boto3 in as many processes as the service has. It writes the rows and batches of
everyone in one statement, then claims fifty rows, reserves them with ZADD, decrypts the addresses, renders, calls SES
in bulk and records, in the tables of the service. It knows no pause, no edit, no cap, no retry and no failure, and what
a crash interrupts is lost. Nothing of ours is imported here, and nothing of Django or Celery.

One request is a line of JSON on standard input, and its answer one on standard output: first the settings, then
``{"write": occurrence}`` for one of the processes, then ``{"send": occurrence, "batches": [...], "overlap": 1}``.
"""

import json
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import boto3
import psycopg
import redis
from botocore.config import Config
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from minijinja import Environment

CALL = 50
BUCKETS = 64
HEAD, NONCE = 5, 12  # bytes before an address as it is kept encrypted
FRAME = {"Subject": "{{subject}}", "Text": "{{text}}", "Html": "{{html}}"}

WRITE = """
WITH people AS (
    SELECT id, (row_number() OVER (ORDER BY id %% 64, id) - 1) / 500 AS number FROM schedules_recipient
), sizes AS MATERIALIZED (
    SELECT number, count(*) AS size, nextval(pg_get_serial_sequence('delivery_batch', 'id')) AS id
    FROM people GROUP BY number
), written AS (
    INSERT INTO delivery_batch (id, occurrence_id, day, channel, wave_at, size, pending, next_due_at, sending, unknown,
        sent, failed, rate_limited, suppressed, unaddressable, cancelled, erased, expired)
    OVERRIDING SYSTEM VALUE
    SELECT id, %(occurrence)s, %(day)s, 'email', %(at)s, size, size, %(at)s, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM sizes
), rows AS (
    INSERT INTO delivery_delivery (day, occurrence_id, recipient_id, batch_id, wave_at, due_at, zone_source)
    SELECT %(day)s, %(occurrence)s, p.id, s.id, %(at)s, %(at)s, 0
    FROM people p JOIN sizes s USING (number) ORDER BY p.id
)
SELECT id FROM sizes ORDER BY id
"""

CLAIM = """
UPDATE delivery_delivery d SET state = 1, attempt = 1, claim_token = %(token)s, claimed_at = now(),
       leased_until = now() + interval '30 seconds'
FROM schedules_recipient r
WHERE d.day = %(day)s AND d.occurrence_id = %(occurrence)s AND r.id = d.recipient_id AND d.recipient_id = ANY(ARRAY(
    SELECT recipient_id FROM delivery_delivery
    WHERE day = %(day)s AND batch_id = %(batch)s AND state = 0 LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING d.recipient_id, r.email, r.attributes
"""

RECORD = """
UPDATE delivery_delivery d SET state = 10, provider_id = v.provider_id, called_at = %(called)s, settled_at = now(),
       claim_token = NULL, leased_until = NULL
FROM unnest(%(ids)s::bigint[], %(provider_ids)s::text[]) AS v(recipient_id, provider_id)
WHERE d.day = %(day)s AND d.occurrence_id = %(occurrence)s AND d.recipient_id = ANY(%(ids)s::bigint[])
  AND d.recipient_id = v.recipient_id AND d.state = 1 AND d.claim_token = %(token)s
"""

COUNT = """
UPDATE delivery_batch SET pending = pending - %(count)s, sent = sent + %(count)s,
       next_due_at = CASE WHEN pending > %(count)s THEN next_due_at END
WHERE id = %(batch)s
"""


class Claimed(NamedTuple):
    """Fifty rows: (recipient id, address, attributes) of each."""

    batch: int
    token: uuid.UUID
    rows: list[tuple[int, bytes, dict[str, Any]]]


class Sent(NamedTuple):
    claimed: Claimed
    called: datetime
    provider_ids: list[str]


class Loop:
    """One of the processes that send."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._database = psycopg.connect(settings["database"])
        self._counters = redis.Redis.from_url(settings["counters"])
        # boto3 as quick as it is by its settings alone; its check of the parameters would double the time of a call.
        config = Config(retries={"total_max_attempts": 1}, parameter_validation=False, max_pool_connections=32)
        self._ses = boto3.client("sesv2", region_name=settings["region"], endpoint_url=settings["ses"], config=config)
        self._sender = settings["sender"]
        self._templates = Environment(templates=settings["templates"])
        self._key = AESGCM(bytes.fromhex(settings["key"]))

    def close(self) -> None:
        self._database.close()
        self._counters.close()

    def write(self, occurrence: int, day: str, at: str) -> list[int]:
        """The rows and batches of everyone; the batches' ids."""
        rows = self._database.execute(WRITE, {"occurrence": occurrence, "day": day, "at": at}).fetchall()
        self._database.commit()
        self._database.execute("ANALYZE delivery_delivery")  # or each claim would read the whole day
        self._database.commit()
        return [pk for (pk,) in rows]

    def send(self, occurrence: int, day: str, batches: list[int], overlap: int) -> int:
        """Send all of these batches, with ``overlap`` calls in flight; how many were sent."""
        count = 0
        of = {"occurrence": occurrence, "day": day}
        if overlap == 1:
            for claimed in self._claims(of, batches):
                self._record(of, self._call(of, claimed))
                self._database.commit()
                count += len(claimed.rows)
            return count
        with ThreadPoolExecutor(overlap) as callers:
            in_flight: list[Future[Sent]] = []
            for claimed in self._claims(of, batches):
                in_flight.append(callers.submit(self._call, of, claimed))
                count += len(claimed.rows)
                if len(in_flight) >= overlap:  # recorded in the transaction of the next claim
                    self._record(of, in_flight.pop(0).result())
            for future in in_flight:
                self._record(of, future.result())
            self._database.commit()
        return count

    def _claims(self, of: dict[str, Any], batches: list[int]) -> Iterator[Claimed]:
        for batch in batches:
            while True:
                token = uuid.uuid4()
                rows = self._database.execute(CLAIM, {**of, "batch": batch, "token": token, "limit": CALL}).fetchall()
                self._database.commit()
                if rows:
                    yield Claimed(batch, token, rows)
                if len(rows) < CALL:
                    break

    def _call(self, of: dict[str, Any], claimed: Claimed) -> Sent:
        prefix = f"{of['day'].replace('-', '')}-{of['occurrence']}"
        pipeline = self._counters.pipeline(transaction=False)
        for recipient_id, _, _ in claimed.rows:
            pipeline.zadd(f"{{c{recipient_id % BUCKETS}}}:u{recipient_id}", {prefix: time.time() * 1000})
        pipeline.execute()
        called = datetime.now(UTC)
        answer = self._ses.send_bulk_email(
            FromEmailAddress=self._sender,
            DefaultContent={"Template": {"TemplateContent": FRAME, "TemplateData": "{}"}},
            BulkEmailEntries=[self._entry(prefix, *row) for row in claimed.rows],
        )
        return Sent(claimed, called, [result["MessageId"] for result in answer["BulkEmailEntryResults"]])

    def _entry(self, prefix: str, recipient_id: int, email: bytes, attributes: dict[str, Any]) -> dict[str, Any]:
        filling = {part: self._templates.render_template(part, **attributes) for part in ("subject", "text", "html")}
        nonce, kept = email[HEAD : HEAD + NONCE], email[HEAD + NONCE :]
        address = self._key.decrypt(nonce, kept, b"schedules_recipient.email").decode()
        return {
            "Destination": {"ToAddresses": [address]},
            "ReplacementTags": [{"Name": "delivery", "Value": f"{prefix}-{recipient_id}"}],
            "ReplacementEmailContent": {"ReplacementTemplate": {"ReplacementTemplateData": json.dumps(filling)}},
        }

    def _record(self, of: dict[str, Any], sent: Sent) -> None:
        ids = [row[0] for row in sent.claimed.rows]
        answers = {"ids": ids, "provider_ids": sent.provider_ids, "called": sent.called, "token": sent.claimed.token}
        self._database.execute(RECORD, {**of, **answers})
        self._database.execute(COUNT, {"batch": sent.claimed.batch, "count": len(ids)})


def main() -> None:
    loop = Loop(json.loads(sys.stdin.readline()))
    _answer({})
    for line in sys.stdin:
        request = json.loads(line)
        if "write" in request:
            _answer({"batches": loop.write(request["write"], request["day"], request["at"])})
        else:
            sent = loop.send(request["send"], request["day"], request["batches"], request["overlap"])
            _answer({"sent": sent})
    loop.close()


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
