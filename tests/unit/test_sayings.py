"""What the rooms below say: English for whoever keeps it, and another language for whoever shows it."""

import json

import pytest
from django.utils import translation

from delivery.rendering_limits import RenderError
from frontend.wording.sayings import translated
from schedules.imports import values
from schedules.problems import Saying, packed, say, unpacked
from schedules.recurrence import InvalidTiming
from schedules.recurrence.crons import parse
from schedules.template_language import SourceError, check_source


def test_it_is_english_wherever_nobody_translates_it():
    with translation.override("de"):
        made = say("has %(size)s tags, %(rest)s", size=1204, rest=say("a number"))
        assert made == "has 1,204 tags, a number"
        assert json.dumps({"words": made}) == '{"words": "has 1,204 tags, a number"}'
        assert f"{made}." == "has 1,204 tags, a number."


def test_a_page_says_it_in_its_readers_language_with_what_stands_inside():
    message = say("holds %(size)s tags; at most %(most)s are allowed", size=1204, most=200)
    with translation.override("de"):
        assert translated(message) == "enthält 1.204 Schlagwörter; erlaubt sind höchstens 200"
        with pytest.raises(SourceError) as caught:
            check_source(part="text", source="one\n{{ x|safe }}")
        assert translated(str(caught.value)).startswith("Zeile 2: Filter 'safe' gibt es nicht; es gibt abs,")
        with pytest.raises(InvalidTiming) as wrong:
            parse("0 9 * *")
        assert translated(wrong.value.problem.message).startswith("der Cron hat 4 Felder und braucht fünf")
    with translation.override("en"):
        assert translated(message) == message


def test_what_nobody_translated_and_what_is_no_saying_stays_as_it_is():
    with translation.override("de"):
        assert translated(say("100 % of nothing known")) == "100 % of nothing known"
        assert translated("100 % somebody's own words") == "100 % somebody's own words"


def test_an_error_knows_how_its_words_were_made_and_what_is_kept_of_them_is_plain():
    error = RenderError("too_large", say("%(part)s: %(words)s", part=say("text"), words="x" * 300))
    assert isinstance(error.words, Saying)
    assert (len(error.detail), type(error.detail)) == (200, str)


def test_it_is_kept_as_json_and_comes_back():
    problem = values.problem_of("tags", say("holds %(size)s tags; at most %(most)s are allowed", size=1204, most=200))
    kept = json.loads(json.dumps(packed(problem.message)))
    again = unpacked(kept)
    assert again == "It holds 1,204 tags; at most 200 are allowed."
    with translation.override("de"):
        assert translated(again) == "Die Angabe enthält 1.204 Schlagwörter; erlaubt sind höchstens 200."
    assert unpacked(packed("somebody's own words")) == "somebody's own words"
