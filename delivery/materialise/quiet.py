"""The quiet hours that people have, by zone: few, however many the people.

They are asked for before the people are found. Whoever sets or changes them between the two is placed without them, as
somebody who does so a moment later, and it is the claim that judges.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from delivery.models import ZoneSource
from delivery.windows import allowed_in
from schedules import quiet_hours
from schedules.definition import Definition
from schedules.recurrence import ZONE_NAMES
from schedules.recurrence.windows import Window

# Hours and zones that are placed: a second's work. With more of them the claim moves the people of the others.
MOST: Final = 10_000

# A probe of the index for each pair that there is: DISTINCT would read everybody who has any.
_STANDING = """
WITH RECURSIVE pair AS (
    (SELECT quiet_hours AS hours, time_zone AS zone FROM schedules_recipient
     WHERE quiet_hours IS NOT NULL ORDER BY quiet_hours, time_zone LIMIT 1)
    UNION ALL
    SELECT n.* FROM pair p CROSS JOIN LATERAL (
        SELECT quiet_hours, time_zone FROM schedules_recipient
        WHERE quiet_hours IS NOT NULL AND (quiet_hours, time_zone) > (p.hours, p.zone)
        ORDER BY quiet_hours, time_zone LIMIT 1
    ) n
)
SELECT hours ->> 'from', hours ->> 'to', zone FROM pair LIMIT %s
"""


class Pair(NamedTuple):
    """Quiet hours, and the zone as the profiles that have them name it, valid or not."""

    begins: str
    ends: str
    zone: str

    @property
    def awake(self) -> Window | None:
        return quiet_hours.awake({"from": self.begins, "to": self.ends})

    @property
    def zone_source(self) -> ZoneSource:
        if self.zone in ZONE_NAMES:
            return ZoneSource.PROFILE
        return ZoneSource.INVALID if self.zone else ZoneSource.MISSING


class Moved(NamedTuple):
    """When people of a pair are due and would be due at once. ``is_never``: no hour is left of the send window."""

    due_at: datetime
    at_once: datetime
    is_never: bool


def standing(cursor: Any, definition: Definition) -> list[Pair]:
    """Those that there are, if the schedule heeds them."""
    if not definition.heeds_quiet_hours:
        return []
    cursor.execute(_STANDING, [MOST])
    return [Pair(*row) for row in cursor.fetchall()]


def moved(pair: Pair, due: datetime, *, definition: Definition, now: datetime) -> Moved:
    """What becomes of those of a pair who are due by the schedule at ``due``."""
    at = allowed_in(pair.zone, due, definition=definition, quiet=pair.awake)
    at_once = allowed_in(pair.zone, now, definition=definition, quiet=pair.awake)
    return Moved(at or due, at_once or now, at is None)
