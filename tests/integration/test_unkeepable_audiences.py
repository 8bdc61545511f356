"""An audience typed as JSON that Python would choke on or PostgreSQL can't keep is refused in words."""

import pytest
from django.urls import reverse

from schedules.models import Schedule
from schedules.permissions import Role
from tests.accounts import signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

UNKEEPABLE = {
    "nul": r'{"all": [{"field": "locale", "op": "eq", "value": "x\u0000"}]}',
    "nul in a key": r'{"x\u0000": "a"}',
    "half a pair": r'{"all": [{"field": "locale", "op": "eq", "value": "\ud800"}]}',
    "endless": "[" * 100_000,
    "deep": '{"not":' * 3_000 + "1" + "}" * 3_000,
    "nan": '{"all": [{"field": "attributes.a", "op": "gt", "value": NaN}]}',
    "infinity": '{"all": [{"field": "attributes.a", "op": "gt", "value": -Infinity}]}',
    "beyond a float": '{"all": [{"field": "attributes.a", "op": "gt", "value": 1e999}]}',
    "long number": '{"all": [{"field": "attributes.a", "op": "gt", "value": ' + "9" * 5_000 + "}]}",
    "no json": '{"all": }',
}


@pytest.mark.parametrize("go", ["next", "back", "leave"])
@pytest.mark.parametrize("text", UNKEEPABLE.values(), ids=UNKEEPABLE)
def test_an_audience_that_can_not_be_kept_is_refused_in_words(text, go):
    browser = signed_in(Role.MARKETER)
    browser.post(reverse("wizard"), {"name": "Winter sale", "channel": "email", "go": "next"})
    draft = Schedule.objects.get()
    posted = {"version": draft.version, "who": "json", "shown": "json", "json": text, "go": go}
    answer = browser.post(reverse("wizard-step", args=[draft.pk, "audience"]), posted)
    assert answer.status_code in ((200, 422) if go == "next" else (200, 302, 422))
    if go == "next":
        assert answer.context["form"].errors["json"]
    draft.refresh_from_db()
    assert draft.audience_query == {}
    again = browser.get(reverse("wizard-step", args=[draft.pk, "audience"]))
    assert again.status_code == 200
