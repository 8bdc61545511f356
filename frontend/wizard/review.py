"""The last step: what a draft says, what it lacks, and how many people it is for.

Counting them may take seconds (a scan of everybody, a user service), so the page comes without the number and asks for
it by itself. Activating counts again, whatever the page has shown.
"""

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from frontend.wizard import drafts
from frontend.wizard.drafts import FORMS, TITLES
from frontend.wizard.forms import Around
from frontend.wording import number, timings
from frontend.wording.audiences import query_in_words, size_in_words
from frontend.wording.problems import problem_in_words
from frontend.wording.schedules import CHANNELS, hours_in_words
from frontend.wording.topics import PURPOSES
from schedules import topics
from schedules.definition import Definition
from schedules.models import Schedule
from schedules.user_service import counting


def told(request: HttpRequest, schedule: Schedule, around: Around) -> dict[str, Any]:
    """What the page says: the answers, what is wrong with them, and whether nothing is."""
    definition = Definition.of(schedule)
    problems = drafts.problems_by_step(definition, around)
    lacking = [
        {"step": step, "title": TITLES[step], "problems": list(dict.fromkeys(map(problem_in_words, problems[step])))}
        for step in FORMS
        if step in problems
    ]
    left = [{"step": step, "title": TITLES[step]} for step in drafts.unsaved(request, schedule.pk)]
    return {
        "facts": _facts(schedule, definition),
        "problems": lacking,
        "left": left,
        "can_activate": not lacking and not left,
    }


def _facts(schedule: Schedule, definition: Definition) -> list[tuple[str, str, list[str]]]:
    """Step, label and sentences of each row."""
    template = schedule.template
    return [
        ("basics", _("What"), [schedule.name, str(CHANNELS.get(schedule.channel, schedule.channel))]),
        ("audience", _("To whom"), [query_in_words(definition.audience_query)]),
        (
            "message",
            _("Message"),
            [template.name if template else _("No template has been chosen yet"), _about(definition)],
        ),
        ("when", _("When"), [timings.of_definition(definition)]),
        ("limits", _("Limits"), limits_in_words(definition)),
    ]


def _about(definition: Definition) -> str:
    """What it is for, and what whoever unsubscribes gets no more of."""
    if definition.is_transactional:
        return str(PURPOSES[definition.purpose])
    if definition.topic is None:
        return _("About no topic: whoever unsubscribes gets no more of the channel")
    return _("About the topic “%(name)s”") % {"name": topics.name_of(definition.topic)}


def limits_in_words(definition: Definition) -> list[str]:
    """The caps as sentences; that there are none, where there are none."""
    day, week = definition.max_per_user_per_day, definition.max_per_user_per_week
    told = []
    if day:
        words = ngettext(
            "At most %(n)s message per person in 24 hours", "At most %(n)s messages per person in 24 hours", day
        )
        told.append(words % {"n": number(day)})
    if week:
        words = ngettext(
            "At most %(n)s message per person in 7 days", "At most %(n)s messages per person in 7 days", week
        )
        told.append(words % {"n": number(week)})
    if not definition.counts_toward_caps:
        told.append(_("These messages use up nobody's limits"))
    return [*(told or [_("No limit per person")]), *hours_in_words(definition)]


def people(schedule: Schedule, *, now: datetime) -> dict[str, Any]:
    """How many it is for, in words, and whether the name has to be typed before so many get it."""
    size = counting.size(schedule.audience_query, now=now)
    confirms = counting.is_large(size)
    asks = _("Type its name, “%(name)s”, to activate it:") % {"name": schedule.name} if confirms else ""
    return {"counted": size_in_words(size), "asks": asks, "confirms": confirms}
