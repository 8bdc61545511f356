"""People and a message: what every benchmark that sends something sends, and to whom."""

import hashlib
from uuid import UUID

from django.db import connection

from benchmarks.harness import execute
from schedules import encryption, templates
from schedules.fields import place
from schedules.models import Channel, MessageTemplate

SUBJECT = "{{ first_name }}, your {{ plan }} plan in {{ city }}"
TEXT = (
    "Hello {{ first_name }},\n\nyou have {{ points }} points on your {{ plan }} plan, enough for a weekend in"
    " {{ city }}. Your code is {{ coupon }}.\n"
)
_PARAGRAPH = (
    "<p style='margin:0 0 16px;font-family:Georgia,serif;font-size:16px;line-height:24px;color:#1d2327'>Every month we"
    " look at what our members did and choose something that fits. This time it is a short journey: two nights, a"
    " late breakfast, and a train that leaves when you do. Seats are kept for a week, without any obligation.</p>\n"
)
HTML = (
    "<!doctype html><html><head><meta charset='utf-8'></head><body>\n"
    "<h1>Hello {{ first_name }}</h1>\n<p>You have <b>{{ points }}</b> points on your {{ plan }} plan.</p>\n"
    + _PARAGRAPH
    * 5
    + "<p>Off to <b>{{ city }}</b>: <a href='https://example.com/redeem/{{ coupon }}'>redeem {{ coupon }}</a></p>\n"
    "</body></html>\n"
)

# A cap that everybody is counted under, by us as by the peers, and that nobody reaches.
MAX_PER_DAY = 1_000

# The first people are also members of smaller audiences.
GROUPS = {"warm": 2_000, "ten_thousand": 10_000}
# Besides, everyone is in one small audience: people of the same ``cell``, a number from 0 on.
CELL = 20

_REACHED = """
CREATE TEMPORARY TABLE reached (i bigint, email bytea, email_index uuid, token bytea, token_index uuid)
"""
_INSERT = """
INSERT INTO schedules_recipient (external_id, email, email_index, locale, time_zone, attributes, tags, consent)
SELECT 'member-' || i, email, email_index, (ARRAY['en', 'de', 'fr', 'es'])[1 + i %% 4],
       (ARRAY['Europe/Berlin', 'America/New_York', 'Asia/Tokyo', 'Australia/Sydney'])[1 + i %% 4],
       jsonb_build_object(
           'first_name', (ARRAY['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Radia'])[1 + i %% 6],
           'city', (ARRAY['Lisbon', 'Vienna', 'Kyoto', 'Montréal', 'Porto'])[1 + i %% 5],
           'plan', (ARRAY['free', 'plus', 'pro'])[1 + i %% 3],
           'points', i %% 1000, 'coupon', substr(md5(i::text), 1, 10), 'cell', (i - 1) / %(cell)s
       ) || CASE WHEN i <= %(ten_thousand)s THEN '{"ten_thousand": true}' ELSE '{}' END::jsonb
         || CASE WHEN i <= %(warm)s THEN '{"warm": true}' ELSE '{}' END::jsonb,
       '["member"]', '{}'
FROM pg_temp.reached ORDER BY i
"""


_DEVICES = """
INSERT INTO schedules_device (recipient_id, token, token_index, platform, active)
SELECT r.id, p.token, p.token_index, (ARRAY['android', 'ios'])[1 + r.id %% 2], true
FROM pg_temp.reached p JOIN schedules_recipient r ON r.external_id = 'member-' || p.i ORDER BY r.id
"""


def insert(count: int, *, cell: int = CELL) -> None:
    """Insert ``count`` recipients with a device each, ids ascending; ``cell``: people of each cell."""
    execute(_REACHED)
    with connection.cursor() as cursor, cursor.copy("COPY pg_temp.reached FROM STDIN") as copy:
        for number in range(1, count + 1):
            copy.write_row((number, *_reached(number)))
    execute(_INSERT, {**GROUPS, "cell": cell})
    execute(_DEVICES)
    execute("DROP TABLE pg_temp.reached")
    execute("VACUUM ANALYZE schedules_recipient, schedules_device")


def _reached(number: int) -> tuple[bytes, UUID | None, bytes, UUID | None]:
    """Address and token as they are kept. Tokens are as long as Firebase's."""
    address = f"member{number}@example.com"
    noise = [hashlib.sha256(f"{number}{part}".encode()).hexdigest() for part in "iab"]
    token = f"{noise[0][:22]}:APA91b{noise[1]}{noise[2]}"
    return (
        encryption.encrypt(address, place("schedules_recipient", "email")),
        encryption.index_of_address(address),
        encryption.encrypt(token, place("schedules_device", "token")),
        encryption.index_of_token(token),
    )


def save_template(*, now: object) -> MessageTemplate:
    """A message of five tokens: two kilobytes of HTML by e-mail, a few lines in the app and on a device."""
    parts = {"subject": SUBJECT, "text": TEXT, "locale": "en"}
    contents = [{**parts, "channel": channel} for channel in Channel.values]
    for content in contents:
        content["html"] = HTML if content["channel"] == "email" else ""
    return templates.save(name="Benchmark", contents=contents, by="benchmark", now=now)  # type: ignore[arg-type]
