"""Where definitions name a person by the external id, and how they stop doing so when the person is erased.

Every definition that a schedule has ever had stands in its versions, the present one too, so an index of the versions
finds them all. Whoever wrote a name or an address into a text of a template wrote it there for everybody who is sent
that text; texts are not searched, since a name is a word like others.
"""

from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from schedules.audience.tree import Field
from schedules.models import NAMED_IDS, Schedule, ScheduleVersion

# As the index has it, so that it serves.
_NAMING = f"""
SELECT id, schedule_id FROM schedules_scheduleversion
WHERE jsonb_path_query_array(definition, '{NAMED_IDS}') @> to_jsonb(%s::text) ORDER BY id
"""


@dataclass(frozen=True)
class Mentions:
    """Schedules whose audience named the person, and how many definitions, past ones included, do so no more."""

    schedule_ids: tuple[int, ...]
    definitions: int

    def and_also(self, other: "Mentions") -> "Mentions":
        """Both together, of one person under two ids."""
        return Mentions(tuple(sorted({*self.schedule_ids, *other.schedule_ids})), self.definitions + other.definitions)


def schedules_naming(*, external_id: str) -> list[int]:
    """Ids of the schedules in whose audience, present or past, the person stands by name: a millisecond."""
    return sorted(set(_versions_naming(external_id).values()))


@transaction.atomic
def forget(*, external_id: str, recipient_id: int) -> Mentions:
    """Put a word that fits nobody in place of the id, in schedules and in every version of theirs.

    Nobody is added to an audience or taken out of it by that, so no version number rises, and what is said of others
    stays as it was.
    """
    instead = f"erased person #{recipient_id}"
    named: set[int] = set()
    definitions = 0
    locked: set[int] = set()
    # Looked for again after each wait for a lock: an edit that was under way has left another version by now, maybe of
    # a schedule that named the person nowhere before. Versions are added under their schedule's lock alone.
    while fresh := set((versions := _versions_naming(external_id)).values()) - locked:
        for schedule in Schedule.objects.filter(pk__in=fresh).order_by("id").select_for_update(no_key=True):
            after = _replaced(schedule.audience_query, external_id, instead)
            if after != schedule.audience_query:
                Schedule.objects.filter(pk=schedule.pk).update(audience_query=after)
                named.add(schedule.pk)
                definitions += 1
        locked |= fresh
    for version in ScheduleVersion.objects.filter(pk__in=versions).order_by("id"):
        after = _replaced(version.definition, external_id, instead)
        if after != version.definition:
            ScheduleVersion.objects.filter(pk=version.pk).update(definition=after)
            named.add(version.schedule_id)
            definitions += 1
    return Mentions(tuple(sorted(named)), definitions)


def _versions_naming(external_id: str) -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(_NAMING, [external_id])
        return dict(cursor.fetchall())


def _replaced(data: Any, external_id: str, instead: str) -> Any:
    """A draft's query may be half a query: whatever says ``external_id`` and the id is meant."""
    if isinstance(data, list):
        return [_replaced(each, external_id, instead) for each in data]
    if not isinstance(data, dict):
        return data
    after = {key: _replaced(value, external_id, instead) for key, value in data.items()}
    if data.get("field") == Field.EXTERNAL_ID:
        value = data.get("value")
        if value == external_id:
            after["value"] = instead
        elif isinstance(value, list):
            after["value"] = [instead if each == external_id else each for each in value]
    return after
