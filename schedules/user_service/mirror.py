"""What the user service says of people, into the profiles kept here: a page of them, or what it pushes.

It is the copy's source: what a profile names takes the place of what was kept, as a whole, and what it doesn't name
stays. Consent goes by channel, so that silence takes no objection back. Of statements about one person the newest
counts, by the service's own time; where it tells none, the latest, and within one resolution the first: a page is no
later than its resolution's instant. A device that the push provider has retired is not revived by being named again.
An objection that was made here is taken back only by what the service says to have changed after it.

It happens in the caller's transaction. What is new in what is said goes through the tables of ``imports.staging``, and
where nothing is there are none. Pieces that name other people go on beside each other. Of those that name the same ones
the second waits, at the row that says when the service told of a person: all take these rows first, in the order of
their numbers, and judge by what stands there then (``standing``). Who is not known yet has no such row: whoever finds
at the end that others were quicker begins once more.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from audit import trail
from audit.models import Action
from schedules.imports import merging, staging
from schedules.imports.merging import Written
from schedules.imports.rows import BadLine, Row
from schedules.imports.staging import StagedPerson
from schedules.models import MirroredPerson, Recipient
from schedules.user_service import devices, standing

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
# How far the service's clock may be ahead of ours, so that its word is one of the present and none of the future.
_SKEW: Final = timedelta(minutes=1)
# Beginnings of one piece, where others create the same people at the same moment.
_TRIES: Final = 3

# Of those who are known, and of those who are new.
_NOTE = """
UPDATE schedules_mirroredperson m
SET mirrored_at = %(now)s, source_updated_at = GREATEST(m.source_updated_at, t.told_at),
    resolution_id = COALESCE(%(resolution)s::bigint, m.resolution_id)
FROM unnest(%(ids)s::bigint[], %(at)s::timestamptz[]) AS t(id, told_at) WHERE m.recipient_id = t.id
"""
_NOTE_NEW = """
INSERT INTO schedules_mirroredperson AS m (recipient_id, mirrored_at, source_updated_at, resolution_id)
SELECT r.id, %(now)s, t.told_at, %(resolution)s::bigint
FROM unnest(string_to_array(%(names)s, E'\\n'), %(at)s::timestamptz[]) AS t(external_id, told_at)
JOIN schedules_recipient r USING (external_id) ORDER BY r.id
ON CONFLICT (recipient_id) DO UPDATE SET
    mirrored_at = EXCLUDED.mirrored_at,
    source_updated_at = GREATEST(m.source_updated_at, EXCLUDED.source_updated_at),
    resolution_id = COALESCE(EXCLUDED.resolution_id, m.resolution_id)
RETURNING recipient_id
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


class Saying(NamedTuple):
    """What the service says of a person. ``at``: when it last changed the person, where that is known. ``agreed_at``:
    objections made here before it are taken back by what it says of consent. ``quieted_at``: quiet hours set here
    before it give way to those that it says."""

    row: Row
    at: datetime | None
    agreed_at: datetime | None
    quieted_at: datetime | None


class Overlapping(Exception):
    """Others create the same people at this moment, again and again; nothing was written."""


def mirror(
    rows: Iterable[Row | BadLine],
    updated: Mapping[int, datetime],
    consented: Mapping[int, datetime | None],
    quieted: Mapping[int, datetime | None],
    *,
    by: str,
    now: datetime,
    said_at: datetime | None = None,
    as_of: datetime | None = None,
    resolution_id: int | None = None,
) -> Told:
    """Bring the profiles kept here up to what the service says in ``rows``; only what changes is written.

    ``rows`` may hold a ``BadLine`` beside the ``Row`` of the same profile, whose bad members are left out. ``updated``:
    when the service last changed the person, by line; ``consented`` what the person agrees to, and ``quieted`` the
    quiet hours, as in ``Profiles``. What has no such time was said at ``said_at`` or, where that is not known either,
    no earlier than ``as_of``.
    ``resolution_id``: the resolution of which this is a page. Raises ``Overlapping``.
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
    agreed, quiet = {**updated, **consented}, {**updated, **quieted}
    sayings = [
        Saying(
            row._replace(line=number),
            min(at[row.line], now) if row.line in at else None,
            _believed(agreed.get(row.line), now=now),
            _believed(quiet.get(row.line), now=now),
        )
        for number, row in enumerate(chosen, start=1)
    ]
    merged = _merged(_Piece(sayings, by=by, now=now, as_of=as_of, resolution_id=resolution_id))
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


def _believed(at: datetime | None, *, now: datetime) -> datetime | None:
    """A time that is still to come is none."""
    return min(at, now) if at is not None and at <= now + _SKEW else None


class _Merged(NamedTuple):
    """``again``: how many of them the resolution had told of before."""

    ids: list[int]
    again: int
    written: Written


class _Overtaken(Exception):
    """Somebody who was not known has been created, or erased, by others meanwhile."""


class _Piece:
    """People whom the service tells of at once, each once, the newest statement first."""

    def __init__(
        self,
        sayings: Sequence[Saying],
        *,
        by: str,
        now: datetime,
        as_of: datetime | None,
        resolution_id: int | None,
    ) -> None:
        self._sayings = sayings
        self._by, self._now, self._as_of, self._resolution_id = by, now, as_of, resolution_id

    def merge(self, cursor: Any) -> _Merged:
        """Into the profiles, and note that the service has told of them. Raises ``_Overtaken``."""
        staging.find_by_index(cursor, rows=len(self._sayings))
        merging.take_turn(with_pieces=True)
        known = standing.hold(cursor, (each.row.external_id for each in self._sayings), now=self._now)
        new = [each for each in self._sayings if each.row.external_id not in known]
        heard = [each for each in self._sayings if self._counts(each, known.get(each.row.external_id))]
        written = self._write(cursor, heard, known, new=len(new))
        return self._note(cursor, known, new, written)

    def _counts(self, saying: Saying, kept: standing.Person | None) -> bool:
        """Whether nothing newer is known and, within a resolution, nothing was said before."""
        if kept is None:
            return True
        dated = saying.at or self._as_of
        if dated is not None and kept.told_at is not None and dated < kept.told_at:
            return False
        if not self._came_before(kept):
            return True
        return saying.at is not None and (kept.told_at is None or saying.at > kept.told_at)

    def _came_before(self, kept: standing.Person) -> bool:
        return self._resolution_id is not None and kept.resolution_id == self._resolution_id

    def _write(
        self, cursor: Any, heard: Sequence[Saying], known: Mapping[str, standing.Person], *, new: int
    ) -> Written:
        """What is new in it."""
        found = self._device_news(cursor, heard, known)
        changed = found.changed | found.surplus_owners
        staged: list[StagedPerson] = []
        damaged: list[int] = []
        for row, _, agreed_at, quieted_at in heard:
            kept = known.get(row.external_id)
            if kept is None:
                staged.append(StagedPerson(row, agreed_at, quieted_at, True))
                continue
            news = standing.news(row, kept)
            if news.is_damaged:
                damaged.append(kept.id)
            if news.row is not None or kept.id in changed:
                said = news.row or standing.without_address(row)
                gone = standing.surplus_attributes(row, kept)
                staged.append(StagedPerson(said._replace(dropped=gone), agreed_at, quieted_at, False))
        unchanged = len(heard) - len(staged)
        if not staged:
            return Written(unchanged=unchanged)
        staging.stage(staged, found.new)
        if found.surplus:
            changed = found.changed | devices.take_surplus(cursor, found.surplus, has_new=bool(found.new))
        piece = merging.Piece(new, len(staged) - new, bool(found.new), changed, damaged)
        written = merging.merge(now=self._now, by=self._by, piece=piece)
        if written.created != new - written.left_out:
            raise _Overtaken
        return written._replace(unchanged=written.unchanged + unchanged)

    def _device_news(
        self, cursor: Any, heard: Sequence[Saying], known: Mapping[str, standing.Person]
    ) -> devices.DeviceNews:
        naming = [(row, known.get(row.external_id)) for row, *_ in heard if row.devices is not None]
        ids = [kept.id for _, kept in naming if kept]
        kept_here = standing.devices_of(cursor, ids) if ids else {}
        return devices.compare(
            devices.Owner(row.line, row.external_id, row.devices or "[]", kept_here.get(kept.id, ()), kept.id)
            if kept
            else devices.Owner(row.line, row.external_id, row.devices or "[]")
            for row, kept in naming
        )

    def _note(
        self, cursor: Any, known: Mapping[str, standing.Person], new: Sequence[Saying], written: Written
    ) -> _Merged:
        """That the service has told of them; who is new among them for the resolution."""
        noted = {"now": self._now, "resolution": self._resolution_id}
        ids: list[int] = []
        again = 0
        if known:
            told = [(kept, each.at) for each in self._sayings if (kept := known.get(each.row.external_id))]
            numbers = standing.array(kept.id for kept, _ in told)
            cursor.execute(_NOTE, {**noted, "ids": numbers, "at": _instants(at for _, at in told)})
            ids = [kept.id for kept, _ in told if not self._came_before(kept)]
            again = len(told) - len(ids)
        if new and written.created:
            names, at = standing.names(each.row.external_id for each in new), _instants(each.at for each in new)
            cursor.execute(_NOTE_NEW, {**noted, "names": names, "at": at})
            ids += [pk for (pk,) in cursor.fetchall()]
        return _Merged(sorted(ids), again, written)


def _merged(piece: _Piece) -> _Merged:
    for _ in range(_TRIES):
        with suppress(_Overtaken), transaction.atomic(), connection.cursor() as cursor:
            return piece.merge(cursor)
    raise Overlapping


def _instants(instants: Iterable[datetime | None]) -> str:
    """An array as PostgreSQL reads it."""
    return f"{{{','.join('NULL' if at is None else at.isoformat() for at in instants)}}}"


def drop_strays() -> None:
    """What is left of people who were erased in the moment in which the service told of them."""
    MirroredPerson.objects.exclude(Exists(Recipient.objects.filter(pk=OuterRef("pk")))).delete()


def _record(told: Told, *, lines: int, by: str, now: datetime) -> None:
    written = told.written
    if any(written._replace(unchanged=0, left_out=0)):
        skipped = told.repeated + told.flawed + told.unreadable
        changes = {"lines": lines, "skipped": skipped, **written._asdict()}
        trail.record(action=Action.RECIPIENT_IMPORT, by=by, now=now, changes=changes)
