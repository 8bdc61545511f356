"""Erasing a person with what the doors keep: stored answers of the API, half-typed steps of the wizard in sessions."""

import json
import re
from collections.abc import Collection
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_plus

from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connection, transaction

from delivery import erasure
from delivery.receipts import Receipt
from schedules.fields import legible
from schedules.models import Device, Recipient
from schedules.recipients import NoSuchRecipient

UNSAVED_STEPS: Final = "unsaved_steps"  # in a session: what was posted, by draft and step
_INSTEAD: Final = "erased"


@transaction.atomic
def erase(*, recipient_id: int, by: str, now: datetime, expected_version: int | None = None) -> Receipt:
    """As ``delivery.erasure.forget``, which it raises as."""
    person = Recipient.objects.filter(pk=recipient_id).first()
    if person is None:
        raise NoSuchRecipient
    tokens = Device.objects.filter(recipient=person).values_list("token", flat=True)
    identifiers = legible([person.email, *tokens])
    elsewhere = {
        "storedAnswers": _clean_answers(person.external_id, identifiers),
        "sessions": _clean_sessions(person.external_id, identifiers),
    }
    return erasure.forget(
        recipient_id=recipient_id, by=by, now=now, expected_version=expected_version, elsewhere=elsewhere
    )


def _clean_answers(external_id: str, identifiers: Collection[str]) -> int:
    """Kept answers say ``erased`` instead; the key stays, or the POST sent again would be done again.

    The external id is replaced where it is a whole JSON text, since a short one is a part of many others.
    """
    # json.dumps wrote the answers, so it spells what is looked for; an address is a part of other texts too.
    words = [json.dumps(external_id), *(json.dumps(each)[1:-1] for each in identifiers)]
    cleaned = "body"
    parameters: dict[str, Any] = {"words": words}
    for number, word in enumerate(words):
        parameters[f"w{number}"] = word
        parameters[f"i{number}"] = json.dumps(_INSTEAD) if word is words[0] else _INSTEAD
        cleaned = f"replace({cleaned}, %(w{number})s, %(i{number})s)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE frontend_idempotencykey SET body = {cleaned}"
            " WHERE EXISTS (SELECT 1 FROM unnest(%(words)s::text[]) w WHERE strpos(body, w) > 0)",
            parameters,
        )
        return int(cursor.rowcount)


def _clean_sessions(external_id: str, identifiers: Collection[str]) -> int:
    """Steps typed by halves that name the person are dropped; they may say it in any form, so a whole word will do."""
    named = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in (external_id, *identifiers)))
    count = 0
    for session in Session.objects.iterator():
        kept = session.get_decoded()
        if not _drop_steps(kept, named):
            continue
        session.session_data = SessionStore().encode(kept)
        session.save(update_fields=["session_data"])
        count += 1
    return count


def _drop_steps(session: dict[str, Any], named: re.Pattern[str]) -> bool:
    is_any = False
    for steps in session.get(UNSAVED_STEPS, {}).values():
        for step in [step for step, posted in steps.items() if named.search(unquote_plus(posted))]:
            del steps[step]
            is_any = True
    return is_any
