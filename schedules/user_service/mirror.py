"""What the user service says of people, into the profiles kept here: a page of them, or what it pushes.

It is the copy's source: what a profile names takes the place of what was kept, as a whole, and what it doesn't name
stays. Consent goes by channel, so that silence takes no objection back. Of statements about one person the newest
counts, by the service's own time; where it tells none, the latest, and within one resolution the first: a page is no
later than its resolution's instant. A device that the push provider has retired is not revived by being named again.
An objection that was made here is taken back only by what the service says to have changed after it.

It happens in the caller's transaction, on the tables of ``imports.staging``, which end with it. Pieces that name other
people go on beside each other. Of those that name the same ones the second waits, at the row that says when the service
told of a person: all take these rows first, in the order of their numbers, and judge by what stands there then. Who is
not known yet has no such row: whoever finds at the end that others were quicker begins once more.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from audit import trail
from audit.models import Action
from schedules import encryption
from schedules.imports import merging, staging
from schedules.imports.merging import Written, is_lost
from schedules.imports.rows import BadLine, Row
from schedules.imports.staging import Said
from schedules.models import MirroredPerson, Recipient

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
# How far the service's clock may be ahead of ours, so that its word is one of the present and none of the future.
_SKEW: Final = timedelta(minutes=1)
# Beginnings of one piece, where others create the same people at the same moment.
_TRIES: Final = 3

_CREATE = """
DROP TABLE IF EXISTS pg_temp.mirror_known, pg_temp.mirror_told, pg_temp.mirror_devices;
CREATE TEMPORARY TABLE mirror_known (line bigint, recipient_id bigint) ON COMMIT DROP;
CREATE TEMPORARY TABLE mirror_told (
    line bigint, external_id text, recipient_id bigint, told_at timestamptz, was_told boolean, counts boolean,
    shrinks boolean, is_new boolean
) ON COMMIT DROP;
CREATE TEMPORARY TABLE mirror_devices (
    device_id bigint, recipient_id bigint, token_index uuid, platform text, is_lost boolean, is_surplus boolean
) ON COMMIT DROP;
"""
# A page is few people among many: each is found by an index, wherever the server believes that its disk turns.
_BY_INDEX = "SELECT set_config('random_page_cost', '1.1', true)"

# Whose row is missing gets one.
_KNOW = """
WITH known AS (
    INSERT INTO pg_temp.mirror_known
    SELECT p.line, r.id FROM pg_temp.import_people p JOIN schedules_recipient r USING (external_id)
    RETURNING recipient_id
)
INSERT INTO schedules_mirroredperson (recipient_id, mirrored_at)
SELECT k.recipient_id, %(now)s FROM known k
WHERE NOT EXISTS (SELECT 1 FROM schedules_mirroredperson m WHERE m.recipient_id = k.recipient_id)
ORDER BY k.recipient_id ON CONFLICT DO NOTHING
"""
_HOLD = """
SELECT count(*) FROM (
    SELECT 1 FROM schedules_mirroredperson m JOIN pg_temp.mirror_known k USING (recipient_id)
    ORDER BY m.recipient_id FOR UPDATE OF m
) held
"""

# What a profile becomes by what it says: as it is kept, and whether that is anything new.
_SAID = {
    "email_index": "CASE WHEN p.email IS NULL THEN r.email_index ELSE p.email_index END",
    "locale": "COALESCE(p.locale, r.locale)",
    "time_zone": "COALESCE(p.time_zone, r.time_zone)",
    "tags": "COALESCE(p.tags, r.tags)",
    "consent": "r.consent || COALESCE(p.consent, '{}')",
    "attributes": "COALESCE(p.attributes, r.attributes)",
}
_IS_NEW = f"""
({", ".join(f"r.{column}" for column in _SAID)}) IS DISTINCT FROM ({", ".join(_SAID.values())})
OR (r.email <> '' AND {is_lost("r.email")})"""

_LISTEN = f"""
INSERT INTO pg_temp.mirror_told
SELECT p.line, p.external_id, r.id, p.said_at, COALESCE(m.resolution_id = %(resolution)s::bigint, false),
       (COALESCE(p.said_at, %(as_of)s::timestamptz) < m.source_updated_at) IS NOT TRUE AND (
           (m.resolution_id = %(resolution)s::bigint) IS NOT TRUE
           OR (p.said_at > COALESCE(m.source_updated_at, '-infinity')) IS TRUE
       ),
       (r.attributes || p.attributes <> p.attributes) IS TRUE, r.id IS NULL OR {_IS_NEW}
FROM pg_temp.import_people p
LEFT JOIN pg_temp.mirror_known k USING (line)
LEFT JOIN schedules_recipient r ON r.id = k.recipient_id AND r.external_id = p.external_id
LEFT JOIN schedules_mirroredperson m ON m.recipient_id = r.id
"""
_DAMAGED_ADDRESSES = "UPDATE pg_temp.mirror_told SET is_new = true WHERE recipient_id = ANY(%s)"
_UNHEARD = "DELETE FROM pg_temp.{0} d USING pg_temp.mirror_told t WHERE t.line = d.line AND NOT t.counts"

# The merge takes attributes one by one: those that are named no more are named as dropped.
_WHOLE_ATTRIBUTES = """
UPDATE pg_temp.import_people p SET dropped = ARRAY(
    SELECT name FROM jsonb_object_keys(r.attributes) AS name WHERE NOT p.attributes ? name
)
FROM pg_temp.mirror_told t JOIN schedules_recipient r ON r.id = t.recipient_id WHERE t.shrinks AND p.line = t.line
"""

# Of two who are told to have one device the newer statement, which stands first, is right.
_ONE_OWNER = """
DELETE FROM pg_temp.import_devices d USING (
    SELECT token_index, min(line) AS line FROM pg_temp.import_devices GROUP BY token_index HAVING count(*) > 1
) f WHERE d.token_index = f.token_index AND d.line > f.line
"""
# Surplus are those that are told of nobody any more. One that is told of somebody else moves. One that nobody can read
# is written anew by the merge, which makes it active: not one that was retired.
_STANDING_DEVICES = f"""
INSERT INTO pg_temp.mirror_devices
SELECT v.id, v.recipient_id, v.token_index, v.platform, v.active AND {is_lost("v.token")},
       NOT EXISTS (SELECT 1 FROM pg_temp.import_devices d WHERE d.token_index = v.token_index)
FROM pg_temp.import_people p JOIN pg_temp.mirror_told t USING (line)
JOIN schedules_device v ON v.recipient_id = t.recipient_id WHERE p.devices IS NOT NULL
"""
_DAMAGED_DEVICES = """
UPDATE pg_temp.mirror_devices s SET is_lost = true FROM schedules_device v
WHERE v.id = ANY(%s) AND v.id = s.device_id AND v.active
"""
_KNOWN_DEVICES = """
DELETE FROM pg_temp.import_devices d USING pg_temp.mirror_told t, pg_temp.mirror_devices s
WHERE t.line = d.line AND s.token_index = d.token_index AND s.recipient_id = t.recipient_id
  AND s.platform = d.platform AND NOT s.is_lost
"""
# All that the merge will lock as well, at once and in the order of everybody who locks devices.
_LOCK = """
SELECT count(*) FROM (
    SELECT 1 FROM schedules_device WHERE id = ANY(ARRAY(
        SELECT device_id FROM pg_temp.mirror_devices WHERE is_surplus
        UNION SELECT v.id FROM schedules_device v JOIN pg_temp.import_devices d USING (token_index)
    )) ORDER BY id FOR UPDATE
) locked
"""
_TAKE_SURPLUS = """
WITH taken AS (
    DELETE FROM schedules_device v USING pg_temp.mirror_devices s
    WHERE s.is_surplus AND v.id = s.device_id AND v.recipient_id = s.recipient_id RETURNING v.recipient_id
)
INSERT INTO pg_temp.import_changed SELECT DISTINCT recipient_id FROM taken
"""

# In most people nothing is new, on most days: those need not be looked at again.
_NOTHING_NEW = """
DELETE FROM pg_temp.import_people p USING pg_temp.mirror_told t
WHERE t.line = p.line AND NOT t.is_new
  AND NOT EXISTS (SELECT 1 FROM pg_temp.import_devices d WHERE d.line = p.line)
  AND NOT EXISTS (SELECT 1 FROM pg_temp.import_changed c WHERE c.recipient_id = t.recipient_id)
"""

_NOTE = """
WITH told AS MATERIALIZED (
    SELECT r.id, t.told_at, t.was_told FROM pg_temp.mirror_told t JOIN schedules_recipient r USING (external_id)
), noted AS (
    INSERT INTO schedules_mirroredperson AS m (recipient_id, mirrored_at, source_updated_at, resolution_id)
    SELECT id, %(now)s, told_at, %(resolution)s::bigint FROM told ORDER BY id
    ON CONFLICT (recipient_id) DO UPDATE SET
        mirrored_at = EXCLUDED.mirrored_at,
        source_updated_at = GREATEST(m.source_updated_at, EXCLUDED.source_updated_at),
        resolution_id = COALESCE(EXCLUDED.resolution_id, m.resolution_id)
)
SELECT COALESCE(array_agg(id ORDER BY id) FILTER (WHERE NOT was_told), '{}'), count(*) FILTER (WHERE was_told) FROM told
"""


class Told(NamedTuple):
    """``ids``: of the people of these rows who are kept here, each once, but for whom the resolution had told before.

    ``repeated``: statements beyond the first about a person, in these rows or earlier in the resolution. ``flawed``:
    profiles of which a part could not be kept. ``unreadable``: those whose person can't be made out. ``left_out``:
    people who were erased here and don't come back.
    """

    ids: list[int]
    repeated: int = 0
    flawed: int = 0
    unreadable: int = 0
    left_out: int = 0
    written: Written = Written()


class Overlapping(Exception):
    """Others create the same people at this moment, again and again; nothing was written."""


def mirror(
    rows: Iterable[Row | BadLine],
    updated: Mapping[int, datetime],
    *,
    by: str,
    now: datetime,
    said_at: datetime | None = None,
    as_of: datetime | None = None,
    resolution_id: int | None = None,
) -> Told:
    """Bring the profiles kept here up to what the service says in ``rows``; only what changes is written.

    ``rows`` may hold a ``BadLine`` beside the ``Row`` of the same profile, whose bad members are left out. ``updated``:
    when the service last changed the person, by line. What has no such time was said at ``said_at`` or, where that is
    not known either, no earlier than ``as_of``. ``resolution_id``: the resolution of which this is a page. Raises
    ``Overlapping``.
    """
    people: list[Row] = []
    bad: set[int] = set()
    for row in rows:
        if isinstance(row, Row):
            people.append(row)
        else:
            bad.add(row.line)
    flawed = len(bad.intersection(row.line for row in people))
    at = updated if said_at is None else {row.line: updated.get(row.line, said_at) for row in people}
    chosen = _chosen(people, at)
    repeated = len(people) - len(chosen)
    if not chosen:
        return Told([], repeated, flawed, len(bad) - flawed)
    said = {
        number: Said(min(at[row.line], now), row.line in updated and at[row.line] <= now + _SKEW)
        for number, row in enumerate(chosen, start=1)
        if row.line in at
    }
    merged = _merged(chosen, said, by=by, now=now, parameters={"resolution": resolution_id, "as_of": as_of, "now": now})
    told = Told(merged.ids, repeated + merged.again, flawed, len(bad) - flawed, merged.written.left_out, merged.written)
    _record(told, lines=len(people) + told.unreadable, by=by, now=now)
    return told


def _chosen(people: list[Row], at: Mapping[int, datetime]) -> list[Row]:
    """One statement of each person: the newest, else the first. The newest of all stand first."""
    found: dict[str, Row] = {}
    for row in people:
        known = found.setdefault(row.external_id, row)
        if known is not row and at.get(row.line, _NEVER) > at.get(known.line, _NEVER):
            found[row.external_id] = row
    chosen = list(found.values())
    if at:
        chosen.sort(key=lambda row: at.get(row.line, _NEVER), reverse=True)
    return chosen


class _Merged(NamedTuple):
    """``again``: how many of them the resolution had told of before."""

    ids: list[int]
    again: int
    written: Written


class _Overtaken(Exception):
    """Somebody who was not known has been created, or erased, by others meanwhile."""


def _merged(
    chosen: list[Row], said: Mapping[int, Said], *, by: str, now: datetime, parameters: Mapping[str, Any]
) -> _Merged:
    for _ in range(_TRIES):
        with suppress(_Overtaken), transaction.atomic(), connection.cursor() as cursor:
            return _merge(cursor, chosen, said, by=by, now=now, parameters=parameters)
    raise Overlapping


def _merge(
    cursor: Any,
    chosen: list[Row],
    said: Mapping[int, Said],
    *,
    by: str,
    now: datetime,
    parameters: Mapping[str, Any],
) -> _Merged:
    cursor.execute(_BY_INDEX)
    staging.look_up_few(cursor, rows=len(chosen))
    staging.fill(_numbered(chosen), on_bad=_never, progress=_never, said=said)
    has_devices = staging.spread_devices()
    cursor.execute(_CREATE)
    merging.take_turn(with_pieces=True)
    cursor.execute(_KNOW, parameters)
    staging.analyze(cursor, "mirror_known (line, recipient_id)", rows=len(chosen))
    cursor.execute(_HOLD)
    unknown = _listen(cursor, rows=len(chosen), parameters=parameters)
    if has_devices or any(row.devices for row in chosen):
        _compare_devices(cursor)
    cursor.execute(_NOTHING_NEW)
    unchanged = cursor.rowcount
    if unchanged:
        staging.analyze(cursor, "import_people (external_id)", rows=len(chosen))
    written = merging.merge(now=now, by=by, is_told=True)
    if written.created != unknown - written.left_out:
        raise _Overtaken
    cursor.execute(_NOTE, parameters)
    ids, again = cursor.fetchone()
    return _Merged(ids, again, written._replace(unchanged=written.unchanged + unchanged))


def _numbered(chosen: Iterable[Row]) -> Iterator[Row]:
    return (Row(number, *row[1:]) for number, row in enumerate(chosen, start=1))


def _never(_: object) -> None:
    """Nothing is bad any more, and nobody watches."""


def _listen(cursor: Any, *, rows: int, parameters: Mapping[str, Any]) -> int:
    """Keep who is told of, and pass over what is older than what is known, or was said in this resolution before; how
    many of them are not known."""
    cursor.execute(_LISTEN, {**parameters, "heads": encryption.keyset().heads})
    staging.analyze(cursor, "mirror_told (line, recipient_id, counts, shrinks, is_new)", rows=rows)
    cursor.execute(_UNHEARD.format("import_people"))
    if cursor.rowcount:
        cursor.execute(_UNHEARD.format("import_devices"))
    if damaged := merging.damaged_emails(cursor):
        cursor.execute(_DAMAGED_ADDRESSES, [damaged])
    cursor.execute(_WHOLE_ATTRIBUTES)
    cursor.execute("SELECT count(*) FROM pg_temp.mirror_told WHERE recipient_id IS NULL")
    unknown: int = cursor.fetchone()[0]
    return unknown


def _compare_devices(cursor: Any) -> None:
    """Take away those that are told of nobody any more, and leave to the merge those that are new or change."""
    cursor.execute(_ONE_OWNER)
    cursor.execute(_STANDING_DEVICES, {"heads": encryption.keyset().heads})
    if damaged := merging.damaged_tokens(cursor):
        cursor.execute(_DAMAGED_DEVICES, [damaged])
    cursor.execute(_KNOWN_DEVICES)
    if cursor.rowcount:
        staging.analyze(cursor, "import_devices (token_index, external_id)", rows=cursor.rowcount)
    cursor.execute("SELECT EXISTS (SELECT 1 FROM pg_temp.mirror_devices WHERE is_surplus)")
    if cursor.fetchone()[0]:
        cursor.execute(_LOCK)
        cursor.execute(_TAKE_SURPLUS)


def drop_strays() -> None:
    """What is left of people who were erased in the moment in which the service told of them."""
    MirroredPerson.objects.exclude(Exists(Recipient.objects.filter(pk=OuterRef("pk")))).delete()


def _record(told: Told, *, lines: int, by: str, now: datetime) -> None:
    written = told.written
    if any(written._replace(unchanged=0, left_out=0)):
        skipped = told.repeated + told.flawed + told.unreadable
        changes = {"lines": lines, "skipped": skipped, **written._asdict()}
        trail.record(action=Action.RECIPIENT_IMPORT, by=by, now=now, changes=changes)
