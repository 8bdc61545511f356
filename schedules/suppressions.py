"""Addresses that are not written to any more: who has complained, whose mail comes back, whom somebody has blocked.

An address is known by a keyed fingerprint of it, the same in any use of small letters and large: what its blind index
(``encryption``) has in common. So a suppression holds nothing that anybody could read, it survives the erasure of
whoever had the address, and it holds for the next one who has it. E-mail alone has suppressions: push retires devices.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parseaddr
from typing import Final
from uuid import UUID

from django.db import connection, transaction
from django.db.models import QuerySet

from audit import trail
from audit.models import Action
from schedules import encryption, storable
from schedules.models import Channel, Recipient, SoftBounce, Suppression
from schedules.problems import Problem, say

Reason = Suppression.Reason

# Messages that an address has put off within so long: then it is written to no more.
SOFT_LIMIT: Final = 5
SOFT_WINDOW: Final = timedelta(days=14)
# The weightiest last: a complaint is not made less by a bounce that follows.
_WEIGHTS: Final = {reason.value: weight for weight, reason in enumerate(Reason)}


class InvalidSuppression(ValueError):
    """There is nothing to suppress. ``problems`` name the field and the remedy."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


class NoSuchSuppression(LookupError):
    """The address is not suppressed, or is so no more."""


class NotYours(PermissionError):
    """Somebody has complained: only who may change people takes that back."""


@dataclass(frozen=True)
class Strike:
    """Something that an address gave back to a message: ``reason`` None is a soft bounce, one of several."""

    fingerprint: bytes
    occurrence_id: int
    reason: str | None = None
    detail: str = ""


# --- Fingerprints -----------------------------------------------------------------------------------------------------


def fingerprints(address: str) -> list[bytes]:
    """Of an address as a provider writes it: perhaps with a name, and its domain in Punycode (RFC 3492).

    Profiles may have the domain in either spelling.
    """
    bare = parseaddr(address)[1] or address.strip()
    if "@" not in bare:
        return []
    local, _, domain = bare.rpartition("@")
    spellings = {bare}
    for codec in (_to_ascii, _from_ascii):
        spellings.add(f"{local}@{codec(domain)}")
    return sorted({encryption.fingerprint_of(encryption.range_of_address(each)[0]) for each in spellings})


def _to_ascii(domain: str) -> str:
    try:
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain


def _from_ascii(domain: str) -> str:
    try:
        return domain.encode("ascii").decode("idna")
    except UnicodeError:
        return domain


# --- Asking -----------------------------------------------------------------------------------------------------------


def of_person(person: Recipient) -> Suppression | None:
    """What keeps the person's present address from being written to."""
    if person.email_index is None:
        return None
    found = Suppression.objects.filter(channel=Channel.EMAIL, fingerprint=encryption.fingerprint_of(person.email_index))
    return found.first()


def soft_bounces(person: Recipient, *, now: datetime) -> int:
    """Messages that the person's present address has put off lately."""
    if person.email_index is None:
        return 0
    fingerprint = encryption.fingerprint_of(person.email_index)
    return SoftBounce.objects.filter(fingerprint=fingerprint, created_at__gt=now - SOFT_WINDOW).count()


def listed(*, reason: str | None = None) -> QuerySet[Suppression]:
    """All of them, or those of one reason, the latest first."""
    rows = Suppression.objects.order_by("-pk")
    return rows.filter(reason=reason) if reason else rows


def people_of(suppressions: Collection[Suppression]) -> dict[int, list[Recipient]]:
    """By suppression, who has the address today: one statement, by the index of addresses."""
    if not suppressions:
        return {}
    ranges = {
        each.pk: encryption.range_of_index(encryption.index_with(bytes(each.fingerprint))) for each in suppressions
    }
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT w.id, r.id FROM unnest(%s::bigint[], %s::uuid[], %s::uuid[]) AS w(id, low, high)
            JOIN schedules_recipient r ON r.email_index BETWEEN w.low AND w.high ORDER BY r.id
            """,
            [list(ranges), [low for low, _ in ranges.values()], [high for _, high in ranges.values()]],
        )
        pairs = cursor.fetchall()
    people = Recipient.objects.in_bulk([recipient_id for _, recipient_id in pairs])
    found: dict[int, list[Recipient]] = {pk: [] for pk in ranges}
    for pk, recipient_id in pairs:
        if recipient_id in people:
            found[pk].append(people[recipient_id])
    return found


# --- What providers tell ----------------------------------------------------------------------------------------------


def record(strikes: Sequence[Strike], *, now: datetime) -> int:
    """Suppress the addresses that gave back what must not be repeated; how many became so. In the caller's transaction.

    A soft bounce counts once for each occurrence. Nothing is made less weighty, and each strike may come again.
    """
    soft = {(each.fingerprint, each.occurrence_id): each for each in strikes if each.reason is None}
    hard = [each for each in strikes if each.reason is not None]
    return _suppress([*hard, *_too_many(soft, now=now)], now=now)


def _too_many(soft: dict[tuple[bytes, int], Strike], *, now: datetime) -> list[Strike]:
    """Those of the soft bounces that are the last straw."""
    if not soft:
        return []
    rows = [
        SoftBounce(channel=Channel.EMAIL, fingerprint=fingerprint, occurrence_id=occurrence_id, created_at=now)
        for fingerprint, occurrence_id in sorted(soft)
    ]
    SoftBounce.objects.bulk_create(rows, ignore_conflicts=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT fingerprint FROM schedules_softbounce
            WHERE channel = %s AND fingerprint = ANY(%s) AND created_at > %s GROUP BY fingerprint HAVING count(*) >= %s
            """,
            [Channel.EMAIL.value, sorted({fingerprint for fingerprint, _ in soft}), now - SOFT_WINDOW, SOFT_LIMIT],
        )
        full = {bytes(fingerprint) for (fingerprint,) in cursor.fetchall()}
    last = {fingerprint: strike for (fingerprint, _), strike in soft.items() if fingerprint in full}
    return [
        Strike(key, strike.occurrence_id, Reason.BOUNCED_OFTEN.value, strike.detail) for key, strike in last.items()
    ]


def _suppress(strikes: Iterable[Strike], *, now: datetime) -> int:
    gravest: dict[bytes, Strike] = {}
    for strike in strikes:
        known = gravest.get(strike.fingerprint)
        if known is None or _WEIGHTS[str(strike.reason)] > _WEIGHTS[str(known.reason)]:
            gravest[strike.fingerprint] = strike
    made = [
        Suppression(
            channel=Channel.EMAIL.value,
            fingerprint=fingerprint,
            reason=str(strike.reason),
            source="system:events",
            occurrence_id=strike.occurrence_id,
            detail=strike.detail[:200],
            created_at=now,
        )
        for fingerprint, strike in sorted(gravest.items())
    ]
    return sum(_keep(each) for each in made)


def _keep(made: Suppression) -> bool:
    """Whether the address was free, or suppressed for something less weighty."""
    with connection.cursor() as cursor:
        cursor.execute(
            _KEEP,
            {
                "channel": made.channel,
                "fingerprint": bytes(made.fingerprint),
                "reason": made.reason,
                "source": made.source,
                "occurrence": made.occurrence_id,
                "detail": made.detail,
                "at": made.created_at,
                "weights": list(_WEIGHTS),
            },
        )
        return bool(cursor.rowcount)


_KEEP = """
INSERT INTO schedules_suppression AS s (channel, fingerprint, reason, source, occurrence_id, detail, created_at)
VALUES (%(channel)s, %(fingerprint)s, %(reason)s, %(source)s, %(occurrence)s, %(detail)s, %(at)s)
ON CONFLICT (channel, fingerprint) DO UPDATE SET reason = EXCLUDED.reason, source = EXCLUDED.source,
    occurrence_id = EXCLUDED.occurrence_id, detail = EXCLUDED.detail, created_at = EXCLUDED.created_at
WHERE array_position(%(weights)s::text[], EXCLUDED.reason::text) > array_position(%(weights)s::text[], s.reason::text)
"""


def forget_bounces(person: Recipient) -> int:
    """What the address of somebody who is being erased has put off."""
    if person.email_index is None:
        return 0
    return SoftBounce.objects.filter(fingerprint=encryption.fingerprint_of(person.email_index)).delete()[0]


def follow(table: str, column: str, ids: Sequence[int], indexes: Sequence[UUID | None]) -> int:
    """Rows are about to have other blind indexes, by another key: what is suppressed stays so. How many that were.

    Of an address that nobody has any more the new fingerprint can't be made: it is forgotten with the former key.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH moved AS (
                SELECT {encryption.fingerprint_sql(f"t.{column}")} AS before,
                       {encryption.fingerprint_sql("v.index")} AS after
                FROM {table} t JOIN unnest(%s::bigint[], %s::uuid[]) AS v(id, index) ON v.id = t.id
                WHERE v.index IS NOT NULL AND t.{column} IS NOT NULL
            )
            UPDATE schedules_suppression s SET fingerprint = m.after FROM (SELECT DISTINCT before, after FROM moved) m
            WHERE s.channel = %s AND s.fingerprint = m.before AND m.before <> m.after
              AND NOT EXISTS (SELECT FROM schedules_suppression x WHERE x.channel = %s AND x.fingerprint = m.after)
            """,
            [list(ids), list(indexes), Channel.EMAIL.value, Channel.EMAIL.value],
        )
        return int(cursor.rowcount)


def purge(*, now: datetime) -> int:
    """Forget the soft bounces that count no more."""
    return SoftBounce.objects.filter(created_at__lte=now - SOFT_WINDOW).delete()[0]


# --- What people do ---------------------------------------------------------------------------------------------------


@transaction.atomic
def block(*, fingerprint: bytes, by: str, now: datetime, recipient_id: int | None = None) -> tuple[Suppression, bool]:
    """Write to the address no more, whoever has it; and whether that is new: one that is suppressed stays as it is.

    ``recipient_id``: whose address it is, for the audit.
    """
    is_new = _keep(
        Suppression(
            channel=Channel.EMAIL.value,
            fingerprint=fingerprint,
            reason=Reason.BLOCKED.value,
            source=by,
            created_at=now,
        )
    )
    kept = Suppression.objects.get(channel=Channel.EMAIL, fingerprint=fingerprint)
    if is_new:
        _record(Action.SUPPRESSION_ADD, kept, recipient_id, by=by, now=now)
    return kept, is_new


def fingerprint_to_block(address: str) -> bytes:
    """Raises ``InvalidSuppression`` for what is no address."""
    local, _, domain = address.strip().rpartition("@")
    if not (local and domain) or storable.text_fault(address):
        words = say("That is no e-mail address: there is nothing to suppress.")
        raise InvalidSuppression([Problem("address", "invalid", words)])
    return encryption.fingerprint_of(encryption.range_of_address(address)[0])


@transaction.atomic
def lift(*, suppression_id: int, by: str, now: datetime, may_forgive: bool, recipient_id: int | None = None) -> None:
    """Let the address be written to again; its soft bounces are forgotten.

    ``may_forgive``: whether whoever asks may change people, and so take back a complaint. Raises ``NoSuchSuppression``
    and ``NotYours``.
    """
    held = Suppression.objects.select_for_update().filter(pk=suppression_id).first()
    if held is None:
        raise NoSuchSuppression
    if held.reason == Reason.COMPLAINED and not may_forgive:
        raise NotYours
    SoftBounce.objects.filter(channel=held.channel, fingerprint=bytes(held.fingerprint)).delete()
    Suppression.objects.filter(pk=held.pk).delete()
    _record(Action.SUPPRESSION_REMOVE, held, recipient_id, by=by, now=now)


def _record(action: Action, kept: Suppression, recipient_id: int | None, *, by: str, now: datetime) -> None:
    """The audit names no address: the suppression's number, and the person's where that is known."""
    changes = {
        "suppression": kept.pk,
        "reason": kept.reason,
        "since": f"{kept.created_at:%Y-%m-%d %H:%M:%S} UTC",
        **({"recipient": recipient_id} if recipient_id else {}),
    }
    trail.record(action=action, by=by, now=now, changes=changes)
