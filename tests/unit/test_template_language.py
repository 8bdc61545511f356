"""The language that template sources are held to: what it can say, and what never reaches the engine."""

import pytest

from schedules.content import validate_content
from schedules.template_language import MAX_ELIFS, MAX_TAGS, SourceError, survey_source


def refusal(source: str) -> str:
    with pytest.raises(SourceError) as refused:
        survey_source(source)
    return refused.value.code


@pytest.mark.parametrize(
    "source",
    [
        "no tag } } %} #}",
        "{{ first_name }} {{- recipient.attributes['city'] -}} {{ items[0].name[:3] }}",
        "{% if plan in ['pro', 'team'] and not (points < 3 or x is not defined) %}a{% elif b %}b{% else %}c{% endif %}",
        "{%- for key, item in items if item.price > 3 -%}{{ loop.index }}{% else %}none{%- endfor -%}",
        "{% set name = first_name|default('friend')|title %}{{ name }}",
        "{{ t('points', count=points, name=first_name or 'you') }} {{ price|times(3)|currency('EUR') }}",
        "{{ 'Hi ' ~ first_name ~ ' %} }} ' ~ \"it's {% raw %}\" }}{# {% include 'x' %} #}",
        "{% for n in range(1, 10, 2) %}{{ n is divisibleby(3) }}{% endfor %}",
        "{{ a.t }} {{ a.in }} {{ -3 - 4 // 2 % 3 / 1.5 }}",
    ],
)
def test_what_newsletters_need_is_in_the_language(source: str) -> None:
    assert validate_content(channel="email", subject="s", text=source) == []


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("{% include 'other' %}", "unknown_tag"),
        ("{% import 'other' as o %}", "unknown_tag"),
        ("{% extends 'other' %}", "unknown_tag"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(0) }}", "unknown_tag"),
        ("{% autoescape false %}{{ x }}{% endautoescape %}", "unknown_tag"),
        ("{% raw %}{{ x }}{% endraw %}", "unknown_tag"),
        ("{% %}", "unknown_tag"),
        ("{% set x %}{{ x }}{{ x }}{% endset %}", "unknown_tag"),
        ("{% set ns.a = 1 %}", "unknown_tag"),
        ("{% for x in y recursive %}{{ loop(x) }}{% endfor %}", "unknown_tag"),
        ("{{ x|safe }}", "unknown_filter"),
        ("{{ x|indent(1000000000) }}", "unknown_filter"),
        ("{{ '%1000000000d'|format(1) }}", "unknown_filter"),
        ("{% if false %}{{ x|uper }}{% endif %}", "unknown_filter"),
        ("{{ x is odious }}", "unknown_test"),
        ("{{ recipient.clear() }}", "unknown_function"),
        ("{{ recipient['clear']() }}", "unknown_function"),
        ("{{ (recipient.clear)() }}", "unknown_function"),
        ("{{ recipient.t() }}", "unknown_function"),
        ("{{ recipient.in() }}", "unknown_function"),
        ("{{ debug() }}", "unknown_function"),
        ("{{ namespace(a=1) }}", "unknown_function"),
        ("{{ 'x' * 100000000 }}", "operator"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "operator"),
        ("{% set a = a ~ a %}", "operator"),
        ("{% set a = a + a %}", "operator"),
        ("{% set a = [a, a] %}", "operator"),
        ("{% set a = (a, a) %}", "operator"),
        ("{% set a = a, a %}", "operator"),
        ("{% for a in [[b, b]] %}{% endfor %}", "operator"),
        ("{% for a in b, b %}{% endfor %}", "operator"),
        ("{{ a" + " ~ a" * 11 + " }}", "operator"),
        ("{{ {'a': 1} }}", "template_syntax"),
        ("{{ a %}", "template_syntax"),
        ("{{ `a` }}", "template_syntax"),
        ("{{ 'a }}", "template_syntax"),
        ("{{ " + "-" * 50_000 + "1 }}", "too_large"),
        ("{{ a" + ".a" * 50_000 + " }}", "too_large"),
        ("{{ a" + "|upper" * 50_000 + " }}", "too_large"),
        ("{% if a %}" + "{% elif b %}" * (MAX_ELIFS + 1) + "{% endif %}", "too_large"),
        ("{{ a }}" * (MAX_TAGS + 1), "too_large"),
    ],
)
def test_what_could_exhaust_or_escape_the_engine_is_refused(source: str, code: str) -> None:
    assert refusal(source) == code


def test_names_are_read_also_where_the_engine_overlooks_them() -> None:
    survey = survey_source(
        "{{ items[:2] }}{% set zz = zz|default(q.r) %}{% for a, b in c.d if a is odd %}{{ t('k', n=m) }}{% endfor %}"
        "{{ true and x is not none }}{{ y|join(z) }}"
    )
    assert survey.names == {"items", "zz", "q.r", "c.d", "a", "m", "x", "y", "z"}
    assert survey.assigned == {"zz", "a", "b"}
