"""What a sender does with addresses and devices that it can't read: a key is missing, or a value is damaged."""

import pytest
from django.db import connection
from django.utils import timezone
from structlog.testing import capture_logs

from audit.models import AuditEvent
from delivery.models import Circuit, Delivery, State
from schedules import encryption, recipients
from schedules.models import Recipient
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.service import MINUTE, let_probe, reasons, states

pytestmark = pytest.mark.django_db

OTHER = "5f" * 32


@pytest.mark.parametrize("channel", ["email", "push"])
def test_a_missing_key_keeps_people_waiting_and_costs_them_nothing(service, provider, settings, channel):
    keys = settings.ENCRYPTION_KEYS
    DeviceFactory()
    schedule = ScheduleFactory(channel=channel)
    settings.ENCRYPTION_KEYS = [OTHER]
    service.step()
    row = Delivery.objects.get()
    assert (row.state, row.reason, row.attempt) == (State.PENDING, "key_unknown", 0)
    assert not provider.calls
    settings.ENCRYPTION_KEYS = [OTHER, *keys]
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 1}
    assert Delivery.objects.get().attempt == 1


def test_where_nobody_can_be_read_the_channel_is_held_and_says_so(service, provider, settings):
    keys = settings.ENCRYPTION_KEYS
    people(30)
    schedule = ScheduleFactory()
    missing = encryption.keyset().key_ids[0]
    settings.ENCRYPTION_KEYS = [OTHER]
    with capture_logs() as logs:
        service.step()
    assert [line["key_id"] for line in logs if line["event"] == "undecryptable"] == [missing]
    assert Circuit.objects.get().reason == "key_unknown"
    assert "a key is missing here" in signed_in(Role.ANALYST).get("/schedules/").content.decode()
    for _ in range(5):  # probes in vain, after which the next is as near as before
        let_probe()
        service.after(MINUTE).step()
        assert Circuit.objects.get().probe_at - timezone.now() < MINUTE / 2
    assert AuditEvent.objects.filter(action="circuit.open").count() == 1
    settings.ENCRYPTION_KEYS = [OTHER, *keys]
    let_probe()
    service.after(MINUTE).step()
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 30}
    assert not Circuit.objects.exists()


def test_a_changed_address_is_one_persons_failure_with_a_reason(service, provider):
    people(3)
    schedule = ScheduleFactory()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE schedules_recipient a SET email = b.email FROM schedules_recipient b"
            " WHERE a.id = (SELECT min(id) FROM schedules_recipient) AND b.id = a.id + 1"
        )
        cursor.execute(
            "UPDATE schedules_recipient SET email = substr(email, 1, 30) WHERE id = (SELECT max(id)"
            " FROM schedules_recipient)"
        )
    service.step()
    assert states(schedule) == {"sent": 2, "failed": 1}
    assert Delivery.objects.get(state=State.FAILED).reason == "unreadable"


@pytest.mark.parametrize(("is_damaged", "outcome"), [(False, "pending: key_unknown"), (True, "failed: unreadable")])
def test_whose_address_cannot_be_read_has_not_left_the_audience(service, provider, settings, is_damaged, outcome):
    (person,) = people(1)
    by_email = {"field": "channels", "op": "contains", "value": "email"}
    schedule = ScheduleFactory(audience_query=by_email, recheck_audience=True)
    service.open()
    if is_damaged:
        damage(person, "email")
    else:
        settings.ENCRYPTION_KEYS = [OTHER]
    service.send()
    assert reasons(schedule) == {outcome: 1}


@pytest.mark.parametrize(
    ("text", "outcome"), [("For {{ first_name }}", "sent: "), ("For {{ recipient.email }}", "failed: unreadable")]
)
@pytest.mark.parametrize("channel", ["push", "in_app"])
def test_a_damaged_address_is_in_the_way_of_those_messages_alone_that_read_it(
    service, provider, channel, text, outcome
):
    damage(DeviceFactory().recipient, "email")
    has_email = {"field": "channels", "op": "contains", "value": "email"}
    schedule = ScheduleFactory(
        channel=channel,
        template_id=TemplateFactory(text=text).pk,
        audience_query=has_email,
        recheck_audience=True,
    )
    service.step()
    assert reasons(schedule) == {outcome: 1}


def test_a_damaged_device_is_left_out_and_one_whose_key_is_missing_is_waited_for(service, provider, settings):
    keys = settings.ENCRYPTION_KEYS
    person = RecipientFactory()
    damaged, whole = (DeviceFactory(recipient=person) for _ in range(2))
    damage(damaged, "token")
    schedule = ScheduleFactory(channel="push")
    service.step()
    assert states(schedule) == {"sent": 1}
    assert [target.device_id for message in provider.messages() for target in message.targets] == [whole.pk]
    damage(whole, "token")
    nothing_left = ScheduleFactory(channel="push")
    service.step()
    assert reasons(nothing_left) == {"failed: unreadable": 1}
    readable = DeviceFactory(recipient=person)
    settings.ENCRYPTION_KEYS = [OTHER]
    later = DeviceFactory(recipient=person)
    settings.ENCRYPTION_KEYS = keys
    provider.reset()
    both = ScheduleFactory(channel="push")
    service.step()
    assert reasons(both) == {"pending: key_unknown": 1}
    settings.ENCRYPTION_KEYS = [*keys, OTHER]
    service.after(MINUTE).step()
    assert [target.device_id for message in provider.messages() for target in message.targets] == [
        readable.pk,
        later.pk,
    ]


def test_what_changes_something_else_leaves_the_address_as_it_is_kept(service):
    """Encrypted anew it would be another value, and every index of the row would be written."""
    person = RecipientFactory()
    before = kept(person, "email")
    recipients.register_device(recipient_id=person.pk, platform="ios", token="t-1", by=BY, now=NOW)
    recipients.update(recipient_id=person.pk, changes={"tags": ["new"]}, by=BY, now=NOW)
    assert kept(person, "email") == before
    recipients.update(recipient_id=person.pk, changes={"email": "other@example.com"}, by=BY, now=NOW)
    person.refresh_from_db()
    assert (person.email, person.tags, person.version) == ("other@example.com", ["new"], 4)
    assert Recipient.objects.get(email_index=encryption.index_of_address("other@example.com")) == person


def kept(row, column):
    """What lies in the database."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM {row._meta.db_table} WHERE id = %s", [row.pk])
        return bytes(cursor.fetchone()[0])


def damage(row, column):
    """Change the last bit of what is kept."""
    value = kept(row, column)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {row._meta.db_table} SET {column} = %s WHERE id = %s",
            [value[:-1] + bytes([value[-1] ^ 1]), row.pk],
        )
