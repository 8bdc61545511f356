"""What keeps words readable on a page: lines that break where they may, and whose doing something was."""

import pytest
from django.utils import translation

from frontend.templatetags.showing import unbroken
from frontend.wording.actions import by_whom


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("Since 2026-11-21 10:00:00 UTC.", 'Since <span class="ns-whole">2026-11-21 10:00:00</span> UTC.'),
        ("From 2026-11-21 on", 'From <span class="ns-whole">2026-11-21</span> on'),
        ("Lima (UTC-05:00)", 'Lima <span class="ns-whole">(UTC-05:00)</span>'),
        ("<b>2026</b> & more", "&lt;b&gt;2026&lt;/b&gt; &amp; more"),
    ],
)
def test_days_and_offsets_stay_in_one_line_and_words_are_escaped(words, shown):
    assert unbroken(words) == shown


@pytest.mark.parametrize(
    ("actor", "in_english", "in_german"),
    [
        ("user:3", "by anna", "von anna"),
        ("system:template_service", "by the template service", "vom Vorlagendienst"),
        ("system:demo", "by the service (demo)", "vom Dienst (demo)"),
    ],
)
def test_whose_doing_it_was_is_said_with_its_grammar(actor, in_english, in_german):
    told = []
    for language in ("en", "de"):
        with translation.override(language):
            told.append(by_whom(actor, "anna"))
    assert told == [in_english, in_german]
