"""What is wrong with a schedule, for people: no name of a field on the wire, and in the viewer's language.

The check is made below; here its codes get their sentences. One without a sentence keeps the check's own, translated.
"""

from collections.abc import Mapping

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from frontend.wording.sayings import translated
from schedules.problems import Problem

_OF: Mapping[tuple[str, str], Promise] = {
    ("name", "required"): _("Give the schedule a name."),
    ("name", "invalid"): _("Use at most 200 printable characters on one line."),
    ("channel", "immutable"): _("The channel can't change once a schedule runs: duplicate it instead."),
    ("audienceQuery", "empty_query"): _("Choose who gets it: everyone, or the people who match conditions."),
    ("templateId", "required"): _("Choose the template that is sent."),
    ("templateId", "no_content"): _(
        "This template says nothing for the channel of this schedule: choose another, or add content to it."
    ),
    ("templateId", "not_found"): _("This template has been deleted: choose another."),
    ("topic", "not_found"): _("There is no such topic: choose another."),
    ("topic", "archived"): _("This topic is archived: choose another."),
    ("topic", "transactional"): _(
        "A transactional message has no topic, since nobody can unsubscribe from it: choose none."
    ),
    ("scheduleType", "immutable"): _("Once a run exists, “once” and “repeating” can't change: duplicate it instead."),
    ("runAt", "required"): _("Choose the day and the time at which it goes out."),
    ("runAt", "past"): _("This time has passed already: choose a later one."),
    ("runAt", "already_ran"): _("It has gone out already: duplicate the schedule to send it again."),
    ("runAt", "out_of_range"): _("Choose a year between 1970 and 8999."),
    ("cron", "required"): _("Say how often it goes out."),
    ("cron", "elapsed_in_user_local"): _(
        "At each person's own hour a schedule needs times of day, such as 9 and 18 o'clock: “every so many minutes”"
        " can't be counted on everybody's own clock."
    ),
    ("cron", "too_frequent"): _(
        "At each person's own hour there must be 6 hours or more between two runs: choose fewer times."
    ),
    ("cron", "never_fires"): _("No date of the next 50 years matches: change the day or the month."),
    ("endAt", "before_start"): _("The end lies before the start: move one of them."),
    ("endAt", "no_firing"): _("Nothing goes out before the end: move the end."),
    ("timeZone", "unknown_zone"): _("Choose a time zone from the list."),
    ("misfireGraceMinutes", "out_of_range"): _("Use 0 to 7 days: a run lives no longer."),
    ("maxPerUserPerDay", "out_of_range"): _("Use a number from 1 to 1,000,000, or leave it empty for no limit."),
    ("maxPerUserPerWeek", "out_of_range"): _("Use a number from 1 to 1,000,000, or leave it empty for no limit."),
    ("maxRuns", "out_of_range"): _("Use a number from 1 to 1,000,000, or leave it empty for no limit."),
}
_OF_CODE: Mapping[str, Promise] = {
    "empty_value": _("Write a value."),
    "empty_list": _("Write at least one value."),
    "empty_any": _("Add at least one condition."),
    "invalid_attribute": _("Write the attribute's name: letters, digits, _ and - only."),
    "unknown_channel": _("Choose e-mail, push or in-app."),
    "identifier_field": _(
        "Addresses can't be asked about. Ask by external id, or for who can be reached by a channel."
    ),
}


def problem_in_words(problem: Problem) -> str:
    wire = problem.field.partition("/")[0]
    told = _OF.get((wire, problem.code)) or (_OF_CODE.get(problem.code) if wire == "audienceQuery" else None)
    if told:
        return str(told)
    words = translated(problem.message)
    return f"{words[:1].upper()}{words[1:]}"
