"""Looking for somebody: in every table, in both Redis, in the files that leave and in the pages that show people."""

import json
from collections.abc import Collection, Iterator

from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.urls import reverse
from redis import Redis

from schedules.fields import Encrypted
from schedules.models import Occurrence


def tables() -> list[str]:
    """Every table of the database, partitions through the tables they belong to."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition"
            " AND relnamespace = 'public'::regnamespace ORDER BY relname"
        )
        return [name for (name,) in cursor.fetchall()]


def decrypted() -> Iterator[tuple[str, str]]:
    """Table and contents of each value that is kept encrypted."""
    for model in apps.get_models():
        names = [each.name for each in model._meta.fields if isinstance(each, Encrypted)]
        for values in model.objects.values_list(*names) if names else ():
            said = (each.decode(errors="replace") if isinstance(each, bytes) else each for each in values)
            yield model._meta.db_table, "\n".join(said).lower()


def found_in_tables(words: Collection[str]) -> list[tuple[str, str, int]]:
    """Rows as text; bytes are looked at as bytes, what is encrypted is decrypted, and sessions are what they say."""
    found = []
    with connection.cursor() as cursor:
        for table in tables():
            for word in words:
                spelt = [word.lower(), word.encode().hex()]
                cursor.execute(
                    f'SELECT count(*) FROM "{table}" t WHERE strpos(lower(t::text), %s) > 0'
                    " OR strpos(lower(t::text), %s) > 0",
                    spelt,
                )
                if count := cursor.fetchone()[0]:
                    found.append((table, word, count))
    sessions = json.dumps([session.get_decoded() for session in Session.objects.all()]).lower()
    for table, said in decrypted():
        found += [(table, word, 1) for word in words if word.lower() in said]
    return found + [("sessions", word, 1) for word in words if word.lower() in sessions]


def found_in_redis(words: Collection[str]) -> list[tuple[bytes, str]]:
    """Keys of the counters and of the broker, with what they hold."""
    found = []
    for url in {settings.COUNTERS_URL, settings.BROKER_URL}:
        with Redis.from_url(url) as redis:
            for key in redis.scan_iter(count=1000):
                said = (key + (redis.dump(key) or b"")).lower()
                found += [(key, word) for word in words if word.lower().encode() in said]
    return found


def found_in_files(words: Collection[str], admin: Client, *, people: Collection[int] = ()) -> list[tuple[str, str]]:
    """Files and lists that ``admin`` may have, and the old pages of ``people``."""
    addresses = [reverse("audit-csv"), reverse("recipients"), reverse("ledger")]
    addresses += [reverse("recipient", args=[pk]) for pk in people]
    addresses += [reverse("occurrence-people", args=[pk]) for pk in Occurrence.objects.values_list("pk", flat=True)]
    found = []
    for address in addresses:
        answer = admin.get(address)
        assert answer.status_code == 200, address
        said = (answer.getvalue() if answer.streaming else answer.content).decode().lower()
        found += [(address, word) for word in words if word.lower() in said]
    return found
