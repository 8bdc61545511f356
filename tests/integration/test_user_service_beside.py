"""What the user service tells of people at one moment, and what else is done to them then: nobody waits but for who
names the same person, nobody locks another out, and the newest statement counts."""

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from delivery import erasure
from schedules.imports import merging
from schedules.models import Device, MirroredPerson, Recipient
from schedules.user_service import mirror as mirroring
from schedules.user_service import standing
from schedules.user_service.mirror import Overlapping, mirror
from schedules.user_service.reading import read_profiles
from tests.factories import BY, NOW
from tests.service import in_threads
from tests.user_service import profile, said_at

pytestmark = pytest.mark.django_db(transaction=True)


@transaction.atomic
def told(*profiles):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '15s'")
    return mirror(*read_profiles(profiles), by="system:user_service", now=NOW)


def said(external_id, locale, day, **members):
    return profile(external_id, locale=locale, updatedAt=said_at(day), **members)


def locale_of(external_id):
    return Recipient.objects.get(external_id=external_id).locale


def test_who_names_others_waits_for_nobody(meeting):
    told(profile("anna"), profile("bea"))
    gate = meeting.gate(merging, "merge", behind=True)
    rival = meeting.rival(lambda: told(said("anna", "de", 1)))
    gate.wait()
    told(said("bea", "fr", 1), said("cleo", "it", 1))
    assert [locale_of("bea"), locale_of("cleo"), locale_of("anna")] == ["fr", "it", ""]
    gate.open()
    rival.result()
    assert locale_of("anna") == "de"


@pytest.mark.parametrize("is_known", [True, False], ids=["somebody known", "somebody new"])
@pytest.mark.parametrize(("first", "second"), [(("de", 1), ("fr", 2)), (("fr", 2), ("de", 1))])
def test_of_two_at_once_the_newer_statement_counts(meeting, is_known, first, second):
    if is_known:
        told(profile("anna"))
    gate = meeting.gate(merging, "merge", behind=True)
    rivals = [meeting.rival(lambda: told(said("anna", *first)))]
    gate.wait()
    rivals.append(meeting.rival(lambda: told(said("anna", *second), profile("bea"))))
    rivals[1].wait_for_lock()
    gate.open()
    found = [rival.result() for rival in rivals]
    assert locale_of("anna") == "fr"
    assert MirroredPerson.objects.get(recipient_id=found[0].ids[0]).source_updated_at.isoformat() == said_at(2)
    assert set(found[1].ids) == set(Recipient.objects.values_list("pk", flat=True))


def test_a_file_is_merged_alone(meeting):
    gate = meeting.gate(merging, "merge")
    piece = meeting.rival(lambda: told(profile("anna")))
    gate.wait()
    file = meeting.rival(transaction.atomic(merging.take_turn))
    file.wait_for_lock()
    late = meeting.rival(lambda: told(profile("bea")))
    late.wait_for_lock()  # or pieces without end would keep the file waiting
    gate.open()
    for rival in (piece, file, late):
        rival.result()
    assert Recipient.objects.count() == 2


def test_somebody_is_erased_while_the_service_tells_of_him(meeting):
    (anna,) = told(profile("anna")).ids
    gate = meeting.gate(merging, "merge")
    rival = meeting.rival(lambda: told(said("anna", "de", 1), said("bea", "de", 1)))
    gate.wait()
    erasing = meeting.rival(lambda: erasure.forget(recipient_id=anna, by=BY, now=NOW))
    erasing.wait_for_lock()
    gate.open()
    rival.result()
    erasing.result()
    assert [each.external_id for each in Recipient.objects.all()] == ["bea"]
    assert not MirroredPerson.objects.filter(recipient_id=anna).exists()


def test_somebody_is_told_of_while_he_is_erased(meeting):
    (anna,) = told(profile("anna")).ids
    gate = meeting.gate(erasure, "_forget_tests")
    erasing = meeting.rival(lambda: erasure.forget(recipient_id=anna, by=BY, now=NOW))
    gate.wait()
    rival = meeting.rival(lambda: told(said("anna", "de", 1), said("bea", "de", 1)))
    rival.wait_for_lock()
    gate.open()
    erasing.result()
    found = rival.result()
    assert (found.left_out, len(found.ids)) == (1, 1)
    assert [each.external_id for each in Recipient.objects.all()] == ["bea"]


def test_who_is_overtaken_again_and_again_gives_up_and_has_written_nothing(monkeypatch):
    merge = merging.merge
    monkeypatch.setattr(merging, "merge", lambda **arguments: merge(**arguments)._replace(created=0))
    with pytest.raises(Overlapping):
        told(profile("anna"))
    assert not Recipient.objects.exists()
    assert mirroring._TRIES > 1


def test_who_is_overtaken_changes_nobody_before_beginning_once_more(monkeypatch):
    told(said("anna", "de", 1))
    hold, held = standing.hold, []

    def as_if_new(cursor, names, *, now):
        held.append(names)
        return {} if len(held) == 1 else hold(cursor, names, now=now)

    monkeypatch.setattr(standing, "hold", as_if_new)
    with CaptureQueriesContext(connection) as asked:
        told(said("anna", "fr", 2))
    assert Recipient.objects.get().locale == "fr"
    assert len(held) == 2
    assert len([each for each in asked if each["sql"].lstrip().startswith("UPDATE schedules_recipient")]) == 1


def test_the_same_people_in_opposite_orders_lock_nobody_out():
    names = [f"person-{number}" for number in range(60)]

    def piece(locale, day, order):
        devices = {name: [{"platform": "ios", "token": f"{name}-{day % 2}"}] for name in names}
        return lambda: told(*(said(name, locale, day, devices=devices[name]) for name in order))

    for day in (0, 2, 4):
        in_threads(
            piece("de", day, names), piece("fr", day + 1, names[::-1]), piece("de", day, names[30:] + names[:30])
        )
        assert set(Recipient.objects.values_list("locale", flat=True)) == {"fr"}
        assert Recipient.objects.count() == MirroredPerson.objects.count() == Device.objects.count() == len(names)
