"""What has arrived since somebody last looked: each message once, whatever the order in which its ids commit."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from delivery import arrivals
from delivery.arrivals import Arrived, Cursor, Watched, look
from delivery.models import InboxMessage
from tests.factories import NOW, RecipientFactory

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def transactions(count: int) -> Iterator[list[BaseDatabaseWrapper]]:
    """So many connections of their own."""
    opened = [connection.copy() for _ in range(count)]
    try:
        for each in opened:
            each.set_autocommit(False)
        yield opened
    finally:
        for each in opened:
            each.close()


def lay(person, number, at=connection) -> int:
    """A message, in the transaction of ``at``; its id."""
    with at.cursor() as cursor:
        cursor.execute(
            "INSERT INTO delivery_inboxmessage (recipient_id, occurrence_id, title, body, created_at)"
            " VALUES (%s, %s, '', '', %s) RETURNING id",
            [person.pk, number, NOW],
        )
        return cursor.fetchone()[0]


def seen(person, cursor: Cursor | None) -> Arrived:
    return look([Watched(person.pk, cursor)])[0]


def ids(arrived: Arrived) -> list[int]:
    return [message.pk for message, _ in arrived.messages]


def test_a_smaller_id_that_commits_late_is_told_then_and_once():
    eva = RecipientFactory.create()
    start = seen(eva, None)
    with transactions(1) as (slow,):
        small = lay(eva, 1, slow)
        large = lay(eva, 2)
        assert small < large
        first = seen(eva, start.cursor)
        assert (ids(first), first.unread) == ([large], 1)
        slow.commit()
    second = seen(eva, first.cursor)
    assert (ids(second), second.unread) == ([small], 2)
    assert ids(seen(eva, second.cursor)) == []


def test_who_breaks_off_in_the_middle_goes_on_there():
    eva = RecipientFactory.create()
    start = seen(eva, None)
    with transactions(1) as (slow,):
        late = lay(eva, 0, slow)
        there = [lay(eva, number) for number in (1, 2, 3)]
        first = seen(eva, start.cursor)
        slow.commit()
        new = lay(eva, 4)
        for place, (_, cursor) in enumerate(first.messages, start=1):
            again = seen(eva, Cursor.parse(str(cursor)))
            assert ids(again) == [*there[place:], late, new]
            # Once more in the middle, of the rest and of the news.
            for further, (_, further_on) in enumerate(again.messages, start=1):
                assert ids(seen(eva, Cursor.parse(str(further_on)))) == ids(again)[further:]


@pytest.mark.parametrize("seed", range(4))
def test_in_any_order_of_writing_committing_and_breaking_off_each_is_told_once(seed):
    chance = random.Random(seed)
    eva = RecipientFactory.create()
    cursor, told, expected = seen(eva, None).cursor, [], set()
    with transactions(4) as writers:
        under_way: dict[int, list[int]] = {number: [] for number in range(4)}
        for number in range(80):
            which = chance.randrange(4)
            match chance.choice(["write", "write", "commit", "roll back", "read", "read"]):
                case "write":
                    under_way[which].append(lay(eva, number, writers[which]))
                case "commit":
                    writers[which].commit()
                    expected |= set(under_way.pop(which))
                    under_way[which] = []
                case "roll back":
                    writers[which].rollback()
                    under_way[which] = []
                case "read":
                    arrived = seen(eva, Cursor.parse(str(cursor)))
                    cut = chance.randint(0, len(arrived.messages))
                    told += ids(arrived)[:cut]
                    if cut == len(arrived.messages):
                        cursor = arrived.cursor
                    elif cut:
                        cursor = arrived.messages[cut - 1][1]
        for writer, open_ids in zip(writers, under_way.values(), strict=True):
            writer.commit()
            expected |= set(open_ids)
    told += ids(seen(eva, cursor))
    assert len(told) == len(set(told))
    assert set(told) == expected


def test_everybody_is_told_their_own_at_one_moment():
    eva, max_ = RecipientFactory.create(), RecipientFactory.create()
    start = look([Watched(eva.pk, None), Watched(max_.pk, None)])
    hers, his = lay(eva, 1), lay(max_, 1)
    new = look([Watched(max_.pk, start[1].cursor), Watched(eva.pk, start[0].cursor), Watched(eva.pk, None)])
    assert [ids(each) for each in new] == [[his], [hers], []]
    assert [each.unread for each in new] == [1, 1, 1]
    assert len({each.cursor for each in new}) == 1


def test_what_is_archived_or_erased_meanwhile_is_not_told():
    eva = RecipientFactory.create()
    start = seen(eva, None).cursor
    archived, erased, read = lay(eva, 1), lay(eva, 2), lay(eva, 3)
    InboxMessage.objects.filter(pk=archived).update(archived_at=NOW)
    InboxMessage.objects.filter(pk=erased).delete()
    InboxMessage.objects.filter(pk=read).update(read_at=NOW)
    found = seen(eva, start)
    assert (ids(found), found.unread) == ([read], 0)


def test_who_missed_more_than_is_told_one_by_one_reads_the_list(monkeypatch):
    monkeypatch.setattr(arrivals, "MOST", 3)
    eva = RecipientFactory.create()
    start = seen(eva, None).cursor
    for number in range(3):
        lay(eva, number)
    assert len(seen(eva, start).messages) == 3
    lay(eva, 3)
    cut = seen(eva, start)
    assert (cut.is_cut, cut.messages, cut.unread) == (True, [], 4)
    assert not seen(eva, cut.cursor).is_cut


def test_a_place_of_another_database_is_none_here():
    eva = RecipientFactory.create()
    lay(eva, 1)
    ahead = Cursor.parse(f"{10**18}:{10**18}:")
    assert ahead is not None
    assert seen(eva, ahead).is_cut


def test_messages_of_a_database_that_counted_further_are_old_ones():
    eva = RecipientFactory.create()
    lay(eva, 1)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE delivery_inboxmessage SET written_in = '{2**60}'")
    start = seen(eva, None).cursor
    new = lay(eva, 2)
    assert ids(seen(eva, start)) == [new]


@pytest.mark.parametrize(
    "text",
    ["", "17", "17:16:", "17:18:19", "17:20:19,18", "0:1:", f"1:{2**40}:", "a:b:c", "17:18:/17:18:", f"1:{2**63}:",
     "1:2:" + "," * 9, f"1:{10**18}:" + ",".join(map(str, range(2, 900))), "1:2:/1:1:/x", "1:2:\x00"],
)  # fmt: skip
def test_what_is_no_place_is_none(text):
    assert Cursor.parse(text) is None


def test_a_snapshot_too_long_for_a_header_shows_less_and_leaves_nothing_out(monkeypatch):
    monkeypatch.setattr(arrivals, "_LONG", 10)
    eva = RecipientFactory.create()
    with transactions(2) as writers:
        late = [lay(eva, number, writer) for number, writer in enumerate(writers)]
        start = seen(eva, None).cursor
        assert start.seen.endswith(":")
        for writer in writers:
            writer.commit()
        monkeypatch.undo()
        assert ids(seen(eva, start)) == late
