"""A user service that gives no answer is left alone for a while: by every process, whoever has found out.

After that one may ask again, and nobody else until it is known how that went. It is about one kind of question each,
since who counts people is less patient than who needs them. All times are real.
"""

from typing import Final, NamedTuple
from uuid import UUID

from django.conf import settings
from django.db import connection

from schedules import encryption
from schedules.models import LeftAlone

PAGES: Final = "pages"
COUNTS: Final = "counts"

_ASK = """
WITH probe AS (
    UPDATE schedules_leftalone SET asked_until = clock_timestamp() + make_interval(secs => %(within_s)s)
    WHERE question = %(question)s AND until <= clock_timestamp()
      AND (asked_until IS NULL OR asked_until <= clock_timestamp())
    RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM probe),
       extract(epoch FROM GREATEST(until, asked_until) - clock_timestamp())::float
FROM schedules_leftalone WHERE question = %(question)s
"""
# The failures of those who had asked before it was known are one.
_FAILED = """
INSERT INTO schedules_leftalone AS l (question, failures, until)
VALUES (%(question)s, 1, clock_timestamp() + make_interval(secs => GREATEST(%(first_s)s, %(least_s)s)))
ON CONFLICT (question) DO UPDATE SET
    failures = l.failures + 1, asked_until = NULL,
    until = clock_timestamp() + make_interval(
        secs => GREATEST(LEAST(%(first_s)s * 2 ^ LEAST(l.failures, 10), %(longest_s)s), %(least_s)s))
WHERE l.until <= clock_timestamp()
"""


class Leave(NamedTuple):
    """``wait_s``: seconds for which nobody is to ask; 0 where one may. ``is_probe``: and is the only one."""

    wait_s: float = 0.0
    is_probe: bool = False


def ask(question: str, *, within_s: float) -> Leave:
    """Whether it may be asked. ``within_s``: seconds in which a probe tells how it went; after them another follows."""
    with connection.cursor() as cursor:
        cursor.execute(_ASK, {"question": _key(question), "within_s": within_s})
        found = cursor.fetchone()
    if found is None:
        return Leave()
    is_probe, wait_s = found
    return Leave(is_probe=True) if is_probe else Leave(wait_s=max(wait_s, 0.1))


def failed(question: str, *, first_s: float, longest_s: float, least_s: float = 0.0) -> None:
    """No answer came: it is left alone for ``first_s``, each further time for twice as long up to ``longest_s``, and
    for ``least_s`` at least."""
    with connection.cursor() as cursor:
        cursor.execute(
            _FAILED,
            {"question": _key(question), "first_s": first_s, "longest_s": longest_s, "least_s": least_s},
        )


def answered(question: str) -> None:
    """Everybody may ask."""
    LeftAlone.objects.filter(question=_key(question)).delete()


def _key(question: str) -> UUID:
    """Of this question to this service: another one at another address is not left alone."""
    key = encryption.index_of_token(f"{question} {settings.USER_SERVICE_URL}")
    assert key is not None
    return key
