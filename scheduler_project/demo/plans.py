"""The demo's schedules: one of each kind that is worth watching."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from scheduler_project.demo import content
from scheduler_project.demo.people import PARTNER, PREFIX
from schedules.definition import Definition
from schedules.recurrence import firing_at

EVERYONE: Mapping[str, Any] = {"all": []}
# Who imports people of his own counts their mails, and should find his own alone.
THE_INVENTED: Mapping[str, Any] = {"field": "external_id", "op": "starts_with", "value": PREFIX}
AT_NINE = "Nine o’clock, everywhere"
EACH_MINUTE = "Bulletin for the team, each minute"
BULLETINS_FOR = timedelta(hours=3)
NEWSLETTER, PREVIEW, PARTNERS = "Newsletter to everyone", "Preview for VIPs", "Offer to a partner’s list"
STARTS_IN = timedelta(seconds=20)
# Long enough after the newsletter for it to be seen alone.
PARTNERS_IN = timedelta(seconds=60)
# The first wave of the user-local one-off is this far ahead at least.
_SOONEST = timedelta(minutes=5)


@dataclass(frozen=True)
class Plan:
    """A schedule to create, and what is done with it then."""

    definition: Definition
    then: Literal["run", "pause", "keep as draft"] = "run"


def plans(*, now: datetime, template_ids: Mapping[str, int]) -> Iterator[Plan]:
    """All but the bulletin, as of ``now``; ``template_ids`` by the names in ``content``."""
    # It goes first, so that its readers are at the limit of the newsletter.
    yield Plan(
        Definition(
            name=PREVIEW,
            channel="email",
            template_id=template_ids[content.PREVIEW],
            topic=content.OFFERS,
            schedule_type="once",
            run_at=now + timedelta(seconds=1),
            audience_query={"field": "tags", "op": "contains", "value": "vip"},
        )
    )
    yield Plan(
        Definition(
            name=NEWSLETTER,
            channel="email",
            template_id=template_ids[content.NEWSLETTER],
            topic=content.NEWS,
            schedule_type="once",
            run_at=now + STARTS_IN,
            audience_query=EVERYONE,
            max_per_user_per_day=1,
            max_per_user_per_week=3,
        )
    )
    # Its addresses fail, most of them at once: the brake holds it before the last are tried for the fourth time.
    yield Plan(
        Definition(
            name=PARTNERS,
            channel="email",
            template_id=template_ids[content.PREVIEW],
            schedule_type="once",
            run_at=now + PARTNERS_IN,
            audience_query={"field": "tags", "op": "contains", "value": PARTNER},
        )
    )
    yield Plan(
        Definition(
            name=AT_NINE,
            channel="email",
            template_id=template_ids[content.GOOD_MORNING],
            schedule_type="once",
            run_at=next_nine(now=now),
            time_zone_mode="user_local",
            audience_query=THE_INVENTED,
        )
    )
    yield Plan(
        Definition(
            name="Evening digest, daily at six on each clock",
            channel="push",
            template_id=template_ids[content.DIGEST],
            schedule_type="cron",
            cron="0 18 * * *",
            time_zone_mode="user_local",
            audience_query={"field": "channels", "op": "contains", "value": "push"},
        )
    )
    yield Plan(
        Definition(
            name="Basket reminder, twenty past each hour",
            channel="push",
            template_id=template_ids[content.REMINDER],
            schedule_type="cron",
            cron="20 * * * *",
            audience_query={
                "all": [
                    {"field": "attributes.plan", "op": "eq", "value": "pro"},
                    {"field": "attributes.cart_items", "op": "gte", "value": 1},
                    {"field": "channels", "op": "contains", "value": "push"},
                ]
            },
        )
    )
    yield Plan(
        Definition(
            name="Letter to readers of German, Mondays at ten",
            channel="email",
            template_id=template_ids[content.NEWSLETTER],
            schedule_type="cron",
            cron="0 10 * * MON",
            time_zone="Europe/Berlin",
            audience_query={"field": "locale", "op": "starts_with", "value": "de"},
        ),
        then="pause",
    )
    yield Plan(
        Definition(
            name="Summer sale (no date yet)",
            channel="email",
            template_id=template_ids[content.NEWSLETTER],
            schedule_type="once",
            audience_query={"field": "tags", "op": "contains", "value": "vip"},
        ),
        then="keep as draft",
    )


def bulletin(*, now: datetime, template_id: int) -> Definition:
    """The cron of each minute. It ends, because advancing the test clock halts at every one of its firings."""
    return Definition(
        name=EACH_MINUTE,
        channel="in_app",
        template_id=template_id,
        schedule_type="cron",
        cron="* * * * *",
        end_at=now + BULLETINS_FOR,
        counts_toward_caps=False,
        audience_query={"field": "tags", "op": "contains", "value": "team"},
    )


def next_nine(*, now: datetime) -> datetime:
    """The first nine o'clock, as a clock reading in UTC, that still lies ahead in every time zone."""
    nine = datetime.combine(now.date(), datetime.min.time(), tzinfo=UTC).replace(hour=9)
    while firing_at(nine, "user_local").opens_at < now + _SOONEST:
        nine += timedelta(days=1)
    return nine
