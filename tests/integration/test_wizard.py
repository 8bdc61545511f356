"""The wizard: each step is a saved draft, what is wrong is said in words, and nothing that was typed is lost."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from delivery.models import TestSend
from schedules import operations
from schedules.models import Recipient, Schedule, ScheduleStatus
from schedules.permissions import Role
from schedules.user_service import counting
from tests.accounts import signed_in
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, TemplateFactory, people

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

STEPS = ("basics", "audience", "message", "when", "limits", "review")
EVERYONE = {"who": "everyone"}
LIMITS = {"counts_toward_caps": "on", "recheck_audience": "", "grace": "60", "grace_unit": "minutes"}


@pytest.fixture
def browser():
    return signed_in(Role.MARKETER)


@pytest.fixture
def draft(browser) -> Schedule:
    """As the first step leaves it."""
    browser.post(reverse("wizard"), {"name": "Winter sale", "channel": "email", "go": "next"})
    return Schedule.objects.get()


def text_of(response) -> str:
    return unescape(response.content.decode())


def address(schedule, step: str) -> str:
    return reverse("wizard-step", args=[schedule.pk, step])


def post(browser, schedule, step: str, values: dict, *, go: str = "next", htmx: bool = False, **more):
    """What a browser posts for a step as it saw it."""
    schedule.refresh_from_db()
    headers = {"HX-Request": "true"} if htmx else {}
    data = {"version": schedule.version, **({"do": more.pop("do")} if "do" in more else {"go": go}), **values, **more}
    response = browser.post(address(schedule, step), data, headers=headers)
    schedule.refresh_from_db()
    return response


def rows(*conditions, match: str = "all", nested: tuple = (), nested_match: str = "any") -> dict[str, str]:
    """The audience step with these (field, op, value) as rows; ``nested`` are those of a group."""
    every = [(*each, 0) for each in conditions] + [(*each, 1) for each in nested]
    matches = [match, *([nested_match] if nested else [])]
    data = {"who": "match", "shown": "match", "row-TOTAL_FORMS": len(every), "row-INITIAL_FORMS": 0}
    data |= {"match-TOTAL_FORMS": len(matches), "match-INITIAL_FORMS": 0}
    data |= {f"match-{number}-match": name for number, name in enumerate(matches)}
    for number, (field, op, value, group) in enumerate(every):
        data |= {f"row-{number}-{name}": text for name, text in (("field", field), ("op", op), ("value", value))}
        data |= {f"row-{number}-group": group, f"row-{number}-unit": "d"}
    return {name: str(value) for name, value in data.items()}


def when(**changes) -> dict[str, str]:
    """The time step for tomorrow at noon in Berlin."""
    return {
        "kind": "once",
        "mode": "fixed",
        "run_date": "2026-11-22",
        "run_time": "12:00",
        "repeat": "day",
        "at": "09:00",
        "day_of_month": "1",
        "time_zone": "Europe/Berlin",
        "on_past": "skip",
        **changes,
    }


def whole(browser, draft) -> Schedule:
    """A draft with every step done."""
    people(3)
    post(browser, draft, "audience", EVERYONE)
    post(browser, draft, "message", {"template_id": TemplateFactory().pk})
    post(browser, draft, "when", when())
    post(browser, draft, "limits", LIMITS)
    return draft


# From open to active


def test_six_steps_make_a_schedule_that_runs(browser, draft):
    assert draft.status == ScheduleStatus.DRAFT
    whole(browser, draft)
    page = text_of(browser.get(address(draft, "review")))
    assert "Everyone" in page
    assert "Once, on 2026-11-22 at 12:00 Europe/Berlin (UTC+01:00)" in page
    answer = post(browser, draft, "review", {}, go="activate")
    assert answer["Location"] == reverse("schedule", args=[draft.pk])
    assert draft.status == ScheduleStatus.ACTIVE
    assert draft.run_at == datetime(2026, 11, 22, 11, 0, tzinfo=UTC)


def test_a_draft_begins_on_the_viewers_own_clock(browser):
    browser.cookies["browser_zone"] = "Asia%2FTokyo"
    browser.post(reverse("wizard"), {"name": "Sale", "channel": "push", "go": "next"})
    assert Schedule.objects.get().time_zone == "Asia/Tokyo"


@pytest.mark.parametrize(
    ("step", "values", "said"),
    [
        ("basics", {"name": "", "channel": "email"}, "Give the schedule a name."),
        ("audience", {"who": ""}, "Choose who gets it"),
        ("audience", rows(("", "", "")), "Add at least one condition."),
        ("audience", rows(("locale", "eq", "")), "Write a value."),
        ("audience", {"who": "json", "shown": "json", "json": "{"}, "This is no JSON"),
        ("message", {}, "Choose the template that is sent."),
        ("when", when(run_date="", run_time=""), "Choose the day and the time at which it goes out."),
        ("when", when(run_time=""), "Choose the time of day."),
        ("when", when(run_date="2026-11-20"), "This time has passed already: choose a later one."),
        ("when", when(kind="cron", repeat="cron", cron=""), "Say how often it goes out."),
        ("when", when(kind="cron", repeat="cron", cron="99 * * * *"), "minute is 0 to 59"),
        ("when", when(kind="cron", repeat="week"), "Choose at least one day."),
        ("when", when(kind="cron", end_date="2026-11-01"), "Nothing goes out before the end"),
        ("when", when(mode="user_local", kind="cron", repeat="cron", cron="* * * * *"), "needs times of day"),
        ("limits", LIMITS | {"max_per_user_per_day": "0"}, "Use 1 or more, or leave it empty"),
        ("limits", LIMITS | {"grace": "9", "grace_unit": "days"}, "Use 0 to 7 days"),
    ],
)
def test_what_is_missing_or_wrong_is_refused_with_words_that_say_what_to_do(browser, draft, step, values, said):
    answer = post(browser, draft, step, values)
    assert answer.status_code == 422
    assert said in text_of(answer)
    assert 'aria-invalid="true"' in text_of(answer) or "ns-invalid" in text_of(answer)


def test_without_a_name_there_is_no_draft_yet(browser):
    answer = browser.post(reverse("wizard"), {"name": " ", "channel": "email"})
    assert (answer.status_code, Schedule.objects.count()) == (422, 0)
    assert "Give the schedule a name." in text_of(answer)


def test_the_first_button_pressed_twice_makes_one_draft_and_the_second_press_may_rename_it(browser):
    token = re.search(r'name="token" value="(\w+)"', text_of(browser.get(reverse("wizard")))).group(1)
    first = {"name": "Winter sale", "channel": "email", "go": "next", "token": token}
    assert browser.post(reverse("wizard"), first).url == browser.post(reverse("wizard"), first).url
    browser.post(reverse("wizard"), first | {"name": "Summer sale"})
    assert Schedule.objects.get().name == "Summer sale"
    browser.post(reverse("wizard"), first | {"token": "another"})
    assert Schedule.objects.count() == 2


def test_a_form_that_was_refused_keeps_its_token(browser):
    refused = text_of(browser.post(reverse("wizard"), {"name": "", "channel": "email", "token": "abc"}))
    assert 'name="token" value="abc"' in refused


def test_limits_are_complete_once_somebody_has_seen_or_chosen_them(browser, draft):
    done = r'value="limits" class="ns-done"'
    assert not re.search(done, text_of(browser.get(address(draft, "audience"))))
    post(browser, draft, "limits", LIMITS)
    assert re.search(done, text_of(browser.get(address(draft, "audience"))))
    other = ScheduleFactory(draft=True, max_per_user_per_day=1)
    assert re.search(done, text_of(browser.get(address(other, "audience"))))


def test_review_leads_to_the_step_of_each_problem_and_activates_nothing(browser, draft):
    page = text_of(browser.get(address(draft, "review")))
    for step in ("Audience", "Message", "When"):
        assert f"Go to “{step}”" in page
    assert post(browser, draft, "review", {}, go="activate").status_code == 422
    assert draft.status == ScheduleStatus.DRAFT


def test_who_edits_a_draft_goes_on_where_it_was_left(browser, draft):
    edit = reverse("schedule-edit", args=[draft.pk])
    assert browser.get(edit)["Location"] == address(draft, "audience")
    whole(browser, draft)
    assert browser.get(edit)["Location"] == address(draft, "review")


# Nothing is lost


def test_every_step_is_found_again_as_it_was_left(browser, draft):
    whole(browser, draft)
    post(browser, draft, "limits", LIMITS | {"max_per_user_per_day": "2"}, go="later")
    other = signed_in(Role.MARKETER, name="colleague")  # another browser, another session
    assert 'value="12:00"' in text_of(other.get(address(draft, "when")))
    assert 'name="max_per_user_per_day" value="2"' in text_of(other.get(address(draft, "limits")))
    assert "checked" in text_of(other.get(address(draft, "audience")))


@pytest.mark.parametrize("go", ["back", "limits", "later"])
def test_leaving_a_step_half_done_keeps_even_what_is_no_value_yet(browser, draft, go):
    assert post(browser, draft, "when", when(run_date="tomorrow", run_time="12:00"), go=go).status_code == 302
    page = browser.get(address(draft, "when"))
    assert 'value="tomorrow"' in text_of(page)
    assert "Write a day such as 2026-12-24." in text_of(page)
    assert "What you typed there is not complete" in text_of(browser.get(address(draft, "review")))
    post(browser, draft, "when", when())
    assert "tomorrow" not in text_of(browser.get(address(draft, "when")))


def test_a_step_that_says_nothing_new_makes_no_version(browser, draft):
    post(browser, draft, "when", when())
    version = draft.version
    post(browser, draft, "when", when())
    assert draft.version == version


def test_who_comes_second_sees_what_the_first_has_changed_and_keeps_his_own(browser, draft):
    seen = draft.version
    operations.update(
        schedule_id=draft.pk, changes={"name": "Summer sale", "max_runs": 3}, by=BY, now=NOW + timedelta(minutes=1)
    )
    answer = browser.post(address(draft, "basics"), {"name": "Winter SALE", "channel": "push", "version": seen})
    page = text_of(answer)
    assert answer.status_code == 422
    assert "<del>Winter sale</del> → <ins>Summer sale</ins>" in page
    assert 'value="Winter SALE"' in page
    draft.refresh_from_db()
    assert (draft.name, draft.channel) == ("Summer sale", "email")
    post(browser, draft, "basics", {"name": "Winter SALE", "channel": "push"})
    assert (draft.name, draft.channel, draft.max_runs) == ("Winter SALE", "push", 3)


def test_a_button_pressed_twice_is_no_quarrel_with_oneself(browser, draft):
    twice = {"version": draft.version, "go": "next", **when()}
    answers = [browser.post(address(draft, "when"), twice)["Location"] for _ in range(2)]
    assert set(answers) == {address(draft, "limits")}
    whole(browser, draft)
    last = {"version": draft.version, "go": "activate"}
    answers = [browser.post(address(draft, "review"), last)["Location"] for _ in range(2)]
    assert set(answers) == {reverse("schedule", args=[draft.pk])}


# Audience


@pytest.fixture
def profiles():
    RecipientFactory(locale="de", attributes={"plan": "pro", "logins": 3, "beta": True}, tags=["vip"])
    RecipientFactory(locale="en", attributes={"plan": "free", "logins": 0, "beta": False}, tags=[])


@pytest.mark.parametrize(
    ("posted", "query"),
    [
        (
            rows(("locale", "starts_with", "de"), ("tags", "in", "vip, new")),
            {
                "all": [
                    {"field": "locale", "op": "starts_with", "value": "de"},
                    {"field": "tags", "op": "in", "value": ["vip", "new"]},
                ]
            },
        ),
        (
            rows(("attributes.logins", "gte", "2"), match="any", nested=(("attributes.beta", "eq", "true"),)),
            {
                "any": [
                    {"field": "attributes.logins", "op": "gte", "value": 2},
                    {"any": [{"field": "attributes.beta", "op": "eq", "value": True}]},
                ]
            },
        ),
        (
            rows(("attributes.plan", "eq", "5"), ("attributes.plan", "exists", "yes")),
            {
                "all": [
                    {"field": "attributes.plan", "op": "eq", "value": "5"},
                    {"field": "attributes.plan", "op": "exists", "value": True},
                ]
            },
        ),
        (
            rows(("created_at", "within_last", "30"), ("created_at", "after", "2026-11-01T10:00")),
            {
                "all": [
                    {"field": "created_at", "op": "within_last", "value": "30d"},
                    {"field": "created_at", "op": "after", "value": "2026-11-01T10:00:00Z"},
                ]
            },
        ),
    ],
)
def test_rows_become_a_query_and_come_back_as_the_same_rows(browser, draft, profiles, posted, query):
    post(browser, draft, "audience", posted)
    assert draft.audience_query == query
    page = text_of(browser.get(address(draft, "audience")))
    for name, value in posted.items():
        if name.endswith("-value") and value not in ("yes", "true"):
            assert f'value="{value}"' in page
    version = draft.version
    post(browser, draft, "audience", posted)
    assert draft.version == version


def test_rows_and_groups_are_added_and_removed_without_scripts(browser, draft, profiles):
    one = rows(("locale", "eq", "de"))
    page = text_of(post(browser, draft, "audience", one, do="add-row:0"))
    assert 'name="row-1-field"' in page
    assert 'name="row-2-field"' not in page
    page = text_of(post(browser, draft, "audience", one, do="add-group"))
    assert 'name="match-1-match"' in page
    assert 'name="row-1-group" value="1"' in page
    page = text_of(post(browser, draft, "audience", one, do="remove-row:0"))
    assert 'name="row-0-field"' in page
    assert 'name="row-0-value"' not in page
    assert draft.audience_query == {}


def test_what_rows_can_not_show_opens_as_json_and_says_why(browser, draft):
    query = {"not": {"field": "locale", "op": "eq", "value": "de"}}
    operations.update(schedule_id=draft.pk, changes={"audience_query": query}, by=BY, now=NOW)
    page = text_of(browser.get(address(draft, "audience")))
    assert "go beyond what rows can show" in page
    assert '"not": {' in page


def test_the_json_tab_opens_with_what_the_rows_say_and_leads_back(browser, draft, profiles):
    posted = rows(("locale", "eq", "de")) | {"who": "json"}
    page = text_of(post(browser, draft, "audience", posted, do="refresh"))
    assert '"value": "de"' in page
    query = json.dumps({"any": [{"field": "locale", "op": "eq", "value": "fr"}]})
    back = {"who": "match", "shown": "json", "json": query}
    page = text_of(post(browser, draft, "audience", back, do="refresh"))
    assert 'name="row-0-value" value="fr"' in page


def test_before_anybody_is_there_no_spelling_is_blamed(browser, draft):
    look = reverse("wizard-look", args=[draft.pk, "audience"])
    assert "There is nobody yet to write to" in text_of(browser.post(look, EVERYONE))
    RecipientFactory(tags=["vip"])
    page = text_of(browser.post(look, rows(("tags", "contains", "team"))))
    assert "Nobody matches." in page
    assert "There is nobody yet" not in page


def test_the_audience_is_counted_as_it_is_typed_with_masked_addresses(browser, draft, profiles):
    Recipient.objects.filter(locale="en").update(consent={"email": False})
    look = reverse("wizard-look", args=[draft.pk, "audience"])
    page = text_of(browser.post(look, EVERYONE, headers={"HX-Request": "true"}))
    assert "<strong>2</strong> people" in page
    assert "<dt>have opted out</dt><dd>1</dd>" in page
    assert '<p id="said" hx-swap-oob="innerHTML">2 people</p>' in page
    assert "…@example.com" in page
    assert Recipient.objects.first().email not in page
    assert "<strong>1</strong> person" in text_of(
        browser.post(look, rows(("attributes.plan", "eq", "pro")), headers={"HX-Request": "true"})
    )
    draft.refresh_from_db()
    assert draft.audience_query == {}


def test_of_a_large_audience_some_are_found_without_sorting_it(browser, draft, profiles, monkeypatch):
    monkeypatch.setattr("schedules.audience.preview._SORTED", 3)
    people(20, locale="fr", tags=["many"])
    look = reverse("wizard-look", args=[draft.pk, "audience"])
    page = text_of(browser.post(look, rows(("tags", "contains", "many")), headers={"HX-Request": "true"}))
    assert "<strong>20</strong> people" in page
    shown = re.findall(r"<li><strong>([^<]+)</strong>", page)
    assert 2 <= len(shown) <= 5
    assert Recipient.objects.filter(external_id__in=shown, tags__contains=["many"]).count() == len(shown)


def test_an_audience_that_is_too_slow_to_count_is_said_so(browser, draft, settings, monkeypatch):
    from frontend.wizard import looks
    from schedules.audience.sources import AudienceTooSlow

    def slow(**_):
        raise AudienceTooSlow(timeout_ms=5_000)

    monkeypatch.setattr(looks, "preview_audience", slow)
    page = text_of(browser.post(reverse("wizard-look", args=[draft.pk, "audience"]), EVERYONE))
    assert "takes longer than 5.0 seconds" in page


# Message


def test_a_message_is_shown_as_a_person_of_the_audience_would_get_it(browser, draft):
    RecipientFactory(external_id="anna", attributes={"first_name": "Anna"})
    RecipientFactory(external_id="berta")
    template = TemplateFactory()
    post(browser, draft, "audience", EVERYONE)
    look = reverse("wizard-look", args=[draft.pk, "message"])
    page = text_of(browser.post(look, {"template_id": template.pk}))
    assert "Hello anna" in page
    assert "Dear Anna, it is time." in page
    page = text_of(browser.post(look, {"template_id": template.pk, "do": "reader:1"}))
    assert "Hello berta" in page
    assert "<mark>first_name</mark>" in page


def test_html_of_others_is_a_document_of_its_own_in_a_sandbox(browser, draft):
    from schedules import templates

    html = "<h1>Rich</h1><script>1</script>"
    said = [{"channel": "email", "locale": "en", "subject": "Hi", "text": "", "html": html}]
    template = templates.save(name="Rich", contents=said, by=BY, now=NOW)
    page = text_of(browser.post(reverse("wizard-look", args=[draft.pk, "message"]), {"template_id": template.pk}))
    assert "<iframe" in page
    assert "sandbox" in page
    assert "<h1>Rich" not in page
    answer = browser.get(reverse("wizard-body", args=[draft.pk]), {"template_id": template.pk})
    assert "sandbox" in answer["Content-Security-Policy"]
    assert "<h1>Rich" in text_of(answer)


def test_templates_are_searched_and_those_without_the_channel_say_so(browser, draft):
    TemplateFactory(name="Letter", channels=("email",))
    TemplateFactory(name="Ping", channels=("push",))
    page = text_of(browser.get(reverse("wizard-templates", args=[draft.pk]), {"search": "in"}))
    assert "Ping" in page
    assert "Says nothing for E-mail." in page
    assert "Letter" not in page
    assert "No template has such a name." in text_of(
        browser.get(reverse("wizard-templates", args=[draft.pk]), {"search": "fax"})
    )


def test_before_the_first_template_it_is_said_where_one_is_written(browser, draft):
    page = text_of(browser.get(address(draft, "message")))
    assert "There is no template yet." in page
    assert "No template has such a name." not in page


def test_a_test_is_sent_to_the_address_that_is_typed(browser, draft):
    RecipientFactory(external_id="anna")
    values = {"template_id": TemplateFactory().pk, "to": "me@example.com", "test_reader": "anna"}
    page = text_of(post(browser, draft, "message", values, go="test"))
    assert "The test is on its way" in page
    wish = TestSend.objects.get()
    assert wish.to == "me@example.com"
    TestSend.objects.update(state="sent")
    assert "The test was sent." in text_of(browser.get(reverse("wizard-test", args=[draft.pk, wish.pk])))
    page = text_of(post(browser, draft, "message", values | {"to": "no address"}, go="test"))
    assert TestSend.objects.count() == 1
    assert 'role="alert"' in page


# When


@pytest.mark.parametrize(
    ("posted", "cron", "sentence"),
    [
        (when(kind="cron"), "0 9 * * *", "Every day at 09:00, Europe/Berlin"),
        (when(kind="cron", repeat="workdays", at="18:30"), "30 18 * * 1-5", "Monday to Friday at 18:30"),
        (when(kind="cron", repeat="week", days=["1", "4"]), "0 9 * * 1,4", "Every Monday and Thursday at 09:00"),
        (when(kind="cron", repeat="month", day_of_month="L"), "0 9 L * *", "On the last day of every month"),
        (when(kind="cron", repeat="cron", cron="*/10 * * * *"), "*/10 * * * *", "Every 10 minutes"),
    ],
)
def test_presets_are_crons_with_their_sentence_and_come_back_as_presets(browser, draft, posted, cron, sentence):
    look = reverse("wizard-look", args=[draft.pk, "when"])
    page = text_of(browser.post(look, posted))
    assert sentence in page
    assert page.count(":00 Europe/Berlin (UTC+0") >= 5
    post(browser, draft, "when", posted)
    assert draft.cron == cron
    repeat = posted["repeat"]
    assert f'<option value="{repeat}" selected>' in text_of(browser.get(address(draft, "when")))


def test_the_next_runs_are_told_on_the_schedules_and_the_viewers_clock_with_changes_of_the_clock(browser, draft):
    browser.cookies["browser_zone"] = "Asia%2FTokyo"
    posted = when(kind="cron", at="02:30", start_date="2027-03-28")
    page = text_of(browser.post(reverse("wizard-look", args=[draft.pk, "when"]), posted))
    assert "2027-03-28 03:30:00 Europe/Berlin (UTC+02:00)" in page
    assert "2027-03-28 10:30:00 Asia/Tokyo (UTC+09:00)" in page
    assert "The clock skips 2027-03-28 02:30" in page
    once = when(run_date="2027-03-28", run_time="02:30")
    page = text_of(browser.post(reverse("wizard-look", args=[draft.pk, "when"]), once))
    assert "skips 02:30 on that day: it goes out at 03:30" in page


def test_people_whose_hour_has_passed_are_counted_by_zone(browser, draft):
    people(2, time_zone="Pacific/Auckland")
    people(1, time_zone="Asia/Tokyo")
    people(4, time_zone="America/New_York")
    post(browser, draft, "audience", EVERYONE)
    posted = when(mode="user_local", run_date="2026-11-21", run_time="12:00")  # 10:00 UTC now
    page = text_of(browser.post(reverse("wizard-look", args=[draft.pk, "when"]), posted))
    assert "3 people are past the next time already: they are left out." in page
    page = text_of(browser.post(reverse("wizard-look", args=[draft.pk, "when"]), posted | {"on_past": "send_now"}))
    assert "they get it at once." in page


# Review


def test_review_shows_the_forecast_as_waves_with_their_table(browser, draft):
    whole(browser, draft)
    Recipient.objects.filter(pk=Recipient.objects.first().pk).update(consent={"email": False})
    page = text_of(browser.get(reverse("wizard-look", args=[draft.pk, "review"]), headers={"HX-Request": "true"}))
    assert "<dt>belong to the audience</dt><dd>3</dd>" in page
    assert "<dt>have opted out</dt><dd>1</dd>" in page
    assert "<dt>would get it</dt><dd>2</dd>" in page
    assert '<p id="said" hx-swap-oob="innerHTML">2 people would get it.</p>' in page
    assert page.count("<rect") == 1
    assert "2026-11-22 12:00:00 Europe/Berlin (UTC+01:00)" in page


def people_part(browser, draft) -> str:
    return text_of(browser.get(reverse("wizard-people", args=[draft.pk]), headers={"HX-Request": "true"}))


def test_the_review_comes_without_counting_and_asks_for_the_number_by_itself(browser, draft, monkeypatch):
    whole(browser, draft)
    monkeypatch.setattr(counting, "size", lambda audience, *, now: pytest.fail("a page waits for a count"))
    page = text_of(browser.get(address(draft, "review")))
    assert f'aria-live="polite" hx-get="{reverse("wizard-people", args=[draft.pk])}"' in page
    assert 'name="confirm"' not in page
    assert "They could not be counted just now." in page  # hidden, until they could not


def test_a_draft_that_lacks_something_has_nobody_to_count(browser, draft):
    assert reverse("wizard-people", args=[draft.pk]) not in text_of(browser.get(address(draft, "review")))


@pytest.mark.parametrize(
    ("many", "told", "asks"),
    [(3, "3 people belong to its audience.", False), (2, "3 people belong to its audience. Type its name", True)],
)
def test_the_number_comes_with_the_field_for_the_name_where_people_are_many(browser, draft, settings, many, told, asks):
    settings.CONFIRM_AUDIENCE = many
    whole(browser, draft)
    part = people_part(browser, draft)
    assert told in part
    assert ('name="confirm"' in part) is asks


def test_a_number_that_nobody_can_say_asks_for_the_name_too(browser, draft, monkeypatch):
    whole(browser, draft)
    monkeypatch.setattr(counting, "size", lambda audience, *, now: None)
    part = people_part(browser, draft)
    assert "can't be said quickly. Type its name, “Winter sale”, to activate it:" in part
    assert post(browser, draft, "review", {}, go="activate").status_code == 422
    assert draft.status == ScheduleStatus.DRAFT


def test_for_many_people_the_name_must_be_typed_whatever_the_page_has_shown(browser, draft, settings):
    settings.CONFIRM_AUDIENCE = 2
    whole(browser, draft)
    answer = post(browser, draft, "review", {"confirm": "winter"}, go="activate")
    assert answer.status_code == 422
    assert "3 people belong to its audience." in text_of(answer)
    assert 'value="winter"' in text_of(answer)
    assert draft.status == ScheduleStatus.DRAFT
    post(browser, draft, "review", {"confirm": "Winter sale"}, go="activate")
    assert draft.status == ScheduleStatus.ACTIVE


def test_enter_in_the_field_for_the_name_activates(browser, draft, settings):
    settings.CONFIRM_AUDIENCE = 2
    whole(browser, draft)
    assert post(browser, draft, "review", {"confirm": "summer"}, go="review").status_code == 422
    assert post(browser, draft, "review", {}, go="review")["Location"] == address(draft, "review")
    assert draft.status == ScheduleStatus.DRAFT
    post(browser, draft, "review", {"confirm": "Winter sale"}, go="review")
    assert draft.status == ScheduleStatus.ACTIVE


def test_what_was_changed_after_the_review_was_opened_is_not_activated_unseen(browser, draft):
    whole(browser, draft)
    seen = draft.version
    operations.update(schedule_id=draft.pk, changes={"name": "Other"}, by=BY, now=NOW)
    answer = browser.post(address(draft, "review"), {"go": "activate", "version": seen})
    draft.refresh_from_db()
    assert answer.status_code == 422
    assert draft.status == ScheduleStatus.DRAFT
    assert "<ins>Other</ins>" in text_of(answer)


# In the modal


def test_in_the_modal_each_step_answers_with_the_next_one_and_leaving_leads_to_a_page(browser):
    first = browser.get(reverse("wizard"), headers={"HX-Request": "true", "HX-Target": "modal-content"})
    assert 'name="modal"' in text_of(first)
    assert "<html" not in text_of(first)
    values = {"name": "Sale", "channel": "email", "go": "next", "modal": "1"}
    second = browser.post(reverse("wizard"), values, headers={"HX-Request": "true"})
    assert 'id="step-title"' in text_of(second)
    assert "Who gets it" in text_of(second)
    draft = Schedule.objects.get()
    left = post(browser, draft, "audience", EVERYONE | {"modal": "1"}, go="later", htmx=True)
    assert left["HX-Redirect"] == reverse("schedules")


# Who may


@pytest.mark.parametrize("step", STEPS)
def test_analysts_are_refused_everywhere(draft, step):
    analyst = signed_in(Role.ANALYST)
    for path in (address(draft, step), reverse("wizard-look", args=[draft.pk, step]), reverse("wizard")):
        assert analyst.get(path).status_code == 403
        assert analyst.post(path, {"go": "activate"}).status_code == 403


def test_what_is_no_draft_any_more_is_edited_elsewhere_and_what_is_not_there_is_said_so(browser):
    schedule = ScheduleFactory(run_at=NOW + timedelta(days=1))
    assert browser.get(address(schedule, "when"))["Location"] == reverse("schedule-edit", args=[schedule.pk])
    assert browser.get(reverse("wizard-step", args=[99, "when"])).status_code == 404


@pytest.mark.parametrize("step", STEPS)
def test_no_step_asks_the_database_more_for_more_people_and_templates(browser, draft, step):
    whole(browser, draft)

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert browser.get(address(draft, step)).status_code == 200
        return len(captured)

    queries()
    few = queries()
    people(30, locale="de", attributes={"plan": "pro"})
    for _ in range(10):
        TemplateFactory()
    assert queries() <= few <= 30


# Hours


WINDOW = {
    "max_per_minute": "600",
    "window_days": ["mon", "fri"],
    "window_from": "22:00",
    "window_to": "06:00",
    "wait": "3",
    "wait_unit": "hours",
}


def test_the_hours_in_which_people_are_reached_are_kept_and_told(browser, draft):
    assert post(browser, draft, "limits", LIMITS | WINDOW).status_code == 302
    assert draft.send_window == {"days": ["mon", "fri"], "from": "22:00", "to": "06:00"}
    assert (draft.expires_after_minutes, draft.max_per_minute) == (180, 600)
    page = text_of(browser.get(address(draft, "limits")))
    assert set(re.findall(r'name="window_days" value="(\w+)"[^>]* checked', page)) == {"mon", "fri"}
    told = text_of(browser.get(address(draft, "review")))
    assert (
        "It reaches people only Monday and Friday, 22:00 to 06:00 of the next day, on each person's own clock" in told
    )
    assert "It goes out to at most 600 people a minute" in told
    post(browser, draft, "limits", LIMITS)
    assert (draft.send_window, draft.expires_after_minutes, draft.max_per_minute) == (None, None, None)


def test_half_a_window_is_none(browser, draft):
    answer = post(browser, draft, "limits", LIMITS | {"window_from": "22:00"})
    assert answer.status_code == 422
    assert "Tick a day at least." in text_of(answer)
    assert "Write a time such as 09:00." in text_of(answer)
    assert draft.send_window is None


def test_the_window_that_stands_is_none_new_when_it_means_the_same(browser, draft):
    standing = {"days": ["sun", "mon"], "from": "09:00", "to": "24:00"}
    operations.update(schedule_id=draft.pk, changes={"send_window": standing}, by=BY, now=NOW)
    same = {"window_days": ["mon", "sun"], "window_from": "09:00", "window_to": "00:00"}
    post(browser, draft, "limits", LIMITS | same)
    assert draft.send_window == standing
