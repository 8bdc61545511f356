"""Which devices that the user service tells of are to be written, and which of those kept here it tells of no more."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from schedules import encryption
from schedules.imports.staging import StagedDevice
from schedules.user_service.standing import Device, array

# All that the merge will lock as well, at once and in the order of everybody who locks devices.
_LOCK = """
SELECT count(*) FROM (
    SELECT 1 FROM schedules_device WHERE id = ANY(ARRAY(SELECT unnest(%s::bigint[]){0})) ORDER BY id FOR UPDATE
) locked
"""
_AND_NEW = " UNION SELECT v.id FROM schedules_device v JOIN pg_temp.import_devices d USING (token_index)"
_TAKE = """
DELETE FROM schedules_device v USING unnest(%s::bigint[], %s::bigint[]) AS s(id, recipient_id)
WHERE v.id = s.id AND v.recipient_id = s.recipient_id RETURNING v.recipient_id
"""


class Owner(NamedTuple):
    """Somebody of whom it is said which devices there are: ``listed`` is JSON as in ``Row``. ``kept``: those of them
    that are kept here."""

    line: int
    external_id: str
    listed: str
    kept: Sequence[Device] = ()
    recipient_id: int | None = None


class DeviceNews(NamedTuple):
    """``new``: to be written. ``surplus``: of nobody any more, with whom had them, by number. ``changed``: the numbers
    of those who are known and get one."""

    new: list[StagedDevice]
    surplus: dict[int, int]
    changed: set[int]

    @property
    def surplus_owners(self) -> set[int]:
        return set(self.surplus.values())


def compare(owners: Iterable[Owner]) -> DeviceNews:
    """``owners``: the newest statement first. Of two who are said to have one device the first is right; one that is
    kept as somebody else's moves. One that nobody can read is written anew, but not if it was retired: that would
    revive it."""
    claimed: set[str] = set()
    said = [(owner, _claim(owner, claimed)) for owner in owners]
    indexes = cache(lambda: {encryption.index_of_token(token) for token in claimed})
    news = DeviceNews([], {}, set())
    for owner, platforms in said:
        stands = _standing(owner.kept)
        new = [(token, platform) for token, platform in platforms.items() if not stands(token, platform)]
        news.new.extend(StagedDevice(owner.line, owner.external_id, platform, token) for token, platform in new)
        if owner.recipient_id is None:
            continue
        if new:
            news.changed.add(owner.recipient_id)
        for device in owner.kept:
            if device.token not in claimed if device.token is not None else device.token_index not in indexes():
                news.surplus[device.id] = owner.recipient_id
    return news


def take_surplus(cursor: Any, surplus: Mapping[int, int], *, has_new: bool) -> set[int]:
    """Take them away, and lock those that will be written (``has_new``: they are staged); whose they were, but for
    those that have gone elsewhere."""
    cursor.execute(_LOCK.format(_AND_NEW if has_new else ""), [array(surplus)])
    cursor.execute(_TAKE, [array(surplus), array(surplus.values())])
    return {owner for (owner,) in cursor.fetchall()}


def _claim(owner: Owner, claimed: set[str]) -> dict[str, str]:
    """The platforms of those that nobody before has claimed, by token."""
    platforms = {each["token"]: each["platform"] for each in orjson.loads(owner.listed)}
    mine = {token: platform for token, platform in platforms.items() if token not in claimed}
    claimed.update(mine)
    return mine


def _standing(kept: Sequence[Device]) -> Callable[[str, str], bool]:
    """Whether the person has this device already."""
    readable = {device.token: device for device in kept}
    unreadable: dict[UUID | None, Device] = {device.token_index: device for device in kept if device.token is None}

    def stands(token: str, platform: str) -> bool:
        device = readable.get(token)
        if device is None and unreadable:
            device = unreadable.get(encryption.index_of_token(token))
        if device is None or device.platform != platform:
            return False
        return device.token is not None or not device.active

    return stands
