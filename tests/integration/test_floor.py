"""The benchmarks' floor sends what the service would and leaves the same rows: else its ratio would tell nothing."""

from datetime import timedelta

import pytest
from django.conf import settings
from django.db import connection
from psycopg.conninfo import make_conninfo

from benchmarks.floor import Loop
from delivery.models import Batch, Delivery, State
from schedules import encryption
from schedules.models import Occurrence
from stubs.testing import running_ses
from tests.factories import NOW, RecipientFactory, ScheduleFactory


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("overlap", [1, 2])
def test_everyone_is_sent_to_once_and_every_row_says_so(service, monkeypatch, overlap):
    people = {person.email for person in RecipientFactory.create_batch(90, attributes={"first_name": "Ada"})}
    run = Occurrence.objects.create(
        schedule=ScheduleFactory(),
        version=1,
        occurrence_at=NOW,
        opens_at=NOW,
        opened_at=NOW,
        ends_at=NOW + timedelta(days=7),
        state="running",
        cursor="end",
        targeted=len(people),
    )
    given = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    day = run.day.isoformat()
    with running_ses(bodies=True) as stub:
        for name, value in stub.variables().items():
            monkeypatch.setenv(name, value)
        loop = Loop(
            {
                "database": make_conninfo(**{name: given[name] for name in names}),
                "counters": settings.COUNTERS_URL,
                "ses": stub.url,
                "region": settings.AWS_REGION,
                "sender": settings.EMAIL_FROM,
                "templates": dict.fromkeys(["subject", "text", "html"], "Hello {{ first_name }}"),
                "key": encryption.from_settings().encryption[0].hex(),
            }
        )
        batches = loop.write(run.pk, day, NOW.isoformat())
        assert loop.send(run.pk, day, batches, overlap) == len(people)
        arrived = stub.messages()
        loop.close()
    assert sorted(message["to"] for message in arrived) == sorted(people)
    assert {message["subject"] for message in arrived} == {"Hello Ada"}
    assert {row.state for row in Delivery.objects.filter(day=run.day, occurrence_id=run.pk)} == {State.SENT}
    assert [(batch.pending, batch.sent) for batch in Batch.objects.filter(occurrence_id=run.pk)] == [(0, len(people))]
