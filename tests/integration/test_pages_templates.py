"""The pages of templates and catalogues: writing with a preview, what is wrong in words, versions, two writers."""

from html import unescape

import pytest
from django.urls import reverse

from audit.models import Action, AuditEvent
from schedules import templates
from schedules.models import Catalogue, MessageTemplate
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, TemplateFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

GREETING = {"channel": "email", "locale": "en", "subject": "Hello", "text": "Dear {{ first_name }}", "html": ""}


def text_of(response) -> str:
    return " ".join(unescape(response.content.decode()).split())


def form(*rows, **changes):
    """What a browser posts for a template."""
    posted = {"default_locale": "en", "contents-TOTAL_FORMS": len(rows), "contents-INITIAL_FORMS": 0, **changes}
    for number, row in enumerate(rows):
        posted |= {f"contents-{number}-{key}": value for key, value in row.items()}
    return posted


@pytest.fixture
def marketer():
    return signed_in(Role.MARKETER)


# The list


def test_the_list_says_what_each_template_says_where_and_who_uses_it(marketer, django_assert_max_num_queries):
    offer = TemplateFactory(name="Offer", channels=["email", "push"])
    ScheduleFactory(template_id=offer.pk)
    ScheduleFactory(template_id=offer.pk)
    for number in range(5):
        TemplateFactory(name=f"Another {number}")
    with django_assert_max_num_queries(15):
        page = marketer.get("/templates/")
    row = page.context["rows"][-1]
    assert (row.template.name, row.speaks, row.used) == (
        "Offer",
        [("E-mail", "en"), ("Push", "en")],
        "by 2 schedules",
    )
    assert "by no schedule that may run" in text_of(page)
    found = marketer.get("/templates/", {"q": "off"}).context["rows"]
    assert [row.template.name for row in found] == ["Offer"]
    assert "No template has that" in text_of(marketer.get("/templates/", {"q": "nothing"}))


def test_a_long_list_goes_on_by_key(marketer, monkeypatch):
    monkeypatch.setattr("frontend.pages.templates.listing.PAGE", 2)
    for name in ("a", "b", "c"):
        TemplateFactory(name=name)
    page = marketer.get("/templates/")
    rest = marketer.get(page.context["following"])
    assert [row.template.name for row in (*page.context["rows"], *rest.context["rows"])] == ["a", "b", "c"]


def test_an_empty_list_has_one_button():
    assert "/templates/new/" in text_of(signed_in(Role.MARKETER).get("/templates/"))
    assert "/templates/new/" not in text_of(signed_in(Role.ANALYST).get("/templates/"))


# Writing


def test_a_new_template_is_published_by_its_operation(marketer):
    response = marketer.post("/templates/new/", form(GREETING, name="Greeting"))
    made = MessageTemplate.objects.get()
    assert response.url == reverse("template", args=[made.pk])
    assert (made.version, made.contents.get().subject) == (1, "Hello")
    assert AuditEvent.objects.latest("id").action == Action.TEMPLATE_PUBLISH
    again = marketer.post("/templates/new/", form(GREETING, name="Greeting"))
    assert again.status_code == 422
    assert "There is a template of that name already" in again.context["head"].errors["name"][0]


def test_an_edit_makes_a_version_and_line_ends_of_browsers_make_none(marketer):
    template = templates.save(name="Greeting", contents=[{**GREETING, "text": "a\nb"}], by=BY, now=NOW)
    page = reverse("template", args=[template.pk])
    same = marketer.post(page, form({**GREETING, "text": "a\r\nb"}, version=1), follow=True)
    assert "there is no new version" in text_of(same)
    done = marketer.post(page, form({**GREETING, "subject": "Good day"}, version=1), follow=True)
    assert "Version 2 is published" in text_of(done)
    template.refresh_from_db()
    assert (template.version, template.contents.get().subject) == (2, "Good day")


def test_a_content_is_added_and_taken_out(marketer):
    template = TemplateFactory(channels=["email", "in_app"])
    page = reverse("template", args=[template.pk])
    added = marketer.post(page, form(GREETING, add="1", version=1))
    assert [each.content()["locale"] for each in added.context["contents"]] == ["en", ""]
    assert template.versions.count() == 1
    out = {"channel": "in_app", "locale": "en", "subject": "x", "DELETE": "on"}
    assert marketer.post(page, form(GREETING, out, version=1)).status_code == 302
    assert [content.channel for content in template.contents.all()] == ["email"]


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ({**GREETING, "text": "one\n{% for %}"}, "text", "Line 2: "),
        ({**GREETING, "subject": "{{ name"}, "subject", "Line 1: cannot be read"),
        ({**GREETING, "html": "{{ x|safe }}"}, "html", "the filter 'safe' is not available"),
        ({**GREETING, "locale": "not a locale"}, "locale", "Use a locale such as"),
        ({**GREETING, "locale": "en"}, "locale", "stand twice"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_with_its_line_and_nothing_is_saved(marketer, row, field, said):
    response = marketer.post("/templates/new/", form(GREETING, row, name="Broken"))
    assert response.status_code == 422
    assert said in response.context["contents"].forms[1].errors[field][0]
    assert response.context["opened"] == [1]
    assert not MessageTemplate.objects.exists()


def test_a_template_without_contents_or_its_default_language_is_refused(marketer):
    for rows, said in (([{**GREETING, "locale": "de"}], "Add email content in en"), ([], "at least one channel")):
        page = marketer.post("/templates/new/", form(*rows, name="Short"))
        assert said in page.context["head"].non_field_errors()[0]
    assert not MessageTemplate.objects.exists()


def test_the_second_of_two_writers_is_shown_what_the_first_has_changed(marketer):
    template = templates.save(name="Greeting", contents=[GREETING], by=BY, now=NOW)
    page = reverse("template", args=[template.pk])
    other = signed_in(Role.ADMIN, name="other")
    assert other.post(page, form({**GREETING, "text": "Theirs"}, version=1)).status_code == 302
    late = marketer.post(page, form({**GREETING, "text": "Mine"}, version=1))
    assert late.status_code == 422
    said = text_of(late)
    assert "other has published a new version meanwhile" in said
    (change,) = late.context["conflict"].changes
    assert change.lines == [("gap", "…"), ("removed", "Dear {{ first_name }}"), ("added", "Theirs")]
    assert "Mine" in said
    again = marketer.post(page, form({**GREETING, "text": "Mine"}, version=late.context["head"]["version"].value()))
    assert again.status_code == 302
    assert template.contents.get().text == "Mine"


def test_versions_tell_who_changed_what(django_assert_max_num_queries):
    admin = signed_in(Role.ADMIN, name="boss")
    template = templates.save(name="Greeting", contents=[{**GREETING, "text": "a\nb"}], by=BY, now=NOW)
    admin.post(reverse("template", args=[template.pk]), form({**GREETING, "text": "a\nc"}, version=1))
    analyst = signed_in(Role.ANALYST)
    with django_assert_max_num_queries(12):
        page = analyst.get(reverse("template-versions", args=[template.pk]))
    newest, first = page.context["rows"]
    assert newest[1] == "by boss"
    assert [(change.place, change.lines) for change in newest[2]] == [
        ("E-mail · en: text", [("gap", "…"), ("same", "a"), ("removed", "b"), ("added", "c")])
    ]
    assert first[3]


def test_a_duplicate_is_a_template_of_its_own(marketer):
    template = TemplateFactory(name="Offer")
    for name in ("Copy of Offer", "Copy of Offer 2"):
        response = marketer.post(reverse("template-duplicate", args=[template.pk]))
        copy = MessageTemplate.objects.latest("id")
        assert (copy.name, response.url) == (name, reverse("template", args=[copy.pk]))
        assert list(copy.contents.values(*templates.PARTS)) == list(template.contents.values(*templates.PARTS))


def test_what_schedules_use_is_not_deleted_and_they_are_named(marketer):
    template = TemplateFactory(name="Offer")
    schedule = ScheduleFactory(name="Spring", template_id=template.pk)
    delete = reverse("template-delete", args=[template.pk])
    refused = marketer.post(delete, {"version": 1})
    assert refused.status_code == 409
    assert "Spring" in text_of(refused)
    schedule.delete()
    assert "Look at it again" in text_of(marketer.post(delete, {"version": 7}, follow=True))
    gone = marketer.post(delete, {"version": 1}, follow=True)
    assert "is deleted" in text_of(gone)
    assert not MessageTemplate.objects.live().exists()
    assert marketer.get(reverse("template", args=[template.pk])).status_code == 404


# How it reads


def test_the_preview_shows_what_is_written_for_one_person_after_another(marketer):
    RecipientFactory(external_id="anna", attributes={"first_name": "Anna"}, locale="de")
    RecipientFactory(external_id="bert", attributes={})
    rows = [
        {**GREETING, "html": "<p>{{ first_name }} at {{ schedule.name }}</p>"},
        {**GREETING, "locale": "de", "text": "Hallo {{ first_name }} {{ recipient.email }}"},
    ]
    preview = reverse("template-preview")
    first = marketer.post(preview, form(*rows)).context["shown"]
    assert (first.person.external_id, first.content_locale, first.missing) == ("anna", "de", [])
    assert first.text == "Hallo Anna anna@example.com"
    assert [(each.name, each.source) for each in first.variables] == [
        ("first_name", "attribute of the person"),
        ("recipient.email", "profile of the person"),
    ]
    asked = {"preview-person": first.person.pk, "preview-step": "next", "preview-language": "en"}
    second = marketer.post(preview, form(*rows, **asked))
    shown = second.context["shown"]
    assert (shown.person.external_id, shown.content_locale, shown.missing) == ("bert", "en", ["first_name"])
    assert "Without a value for this person: <code>first_name</code>" in text_of(second)
    assert ">As bert reads it (en). Without a value for this person: first_name</p>" in text_of(second)
    asked = {"preview-person": shown.person.pk, "preview-step": "next"}
    assert marketer.post(preview, form(*rows, **asked)).context["shown"].person.external_id == "anna"
    assert not MessageTemplate.objects.exists()


def test_a_mistake_is_told_with_its_line_while_it_is_written(marketer):
    RecipientFactory()
    page = marketer.post(reverse("template-preview"), form({**GREETING, "text": "a\n{% if %}"}))
    assert "<strong>Text:</strong>" in text_of(page)
    assert 'id="said" hx-swap-oob="innerHTML">Text: line 2' in text_of(page)
    assert "line 2" in text_of(page)


def test_the_html_comes_as_a_document_without_rights_of_its_own(marketer):
    RecipientFactory(attributes={"first_name": "<b>Anna</b>"})
    rows = [{**GREETING, "html": "<p>Dear {{ first_name }}</p>"}]
    body = marketer.post(reverse("template-preview-body"), form(*rows))
    assert body.content.decode() == "<p>Dear &lt;b&gt;Anna&lt;&#x2f;b&gt;</p>"
    assert "sandbox" in body["Content-Security-Policy"]
    template = templates.save(name="Greeting", contents=rows, by=BY, now=NOW)
    kept = signed_in(Role.ANALYST).get(reverse("template-body", args=[template.pk]))
    assert kept.content == body.content
    assert "sandbox" in kept["Content-Security-Policy"]


def test_keys_that_a_language_lacks_are_marked(marketer):
    RecipientFactory()
    templates.save_catalogue(locale="en", messages={"hello": "Hello"}, by=BY, now=NOW)
    rows = [{**GREETING, "text": '{{ t("hello") }}{{ t("bye") }}'}, {**GREETING, "locale": "de"}]
    shown = marketer.post(reverse("template-preview"), form(*rows)).context["shown"]
    lacking = {key.name: [locale for locale, _link in key.missing] for key in shown.keys}
    assert lacking == {"bye": ["de", "en"], "hello": []}


def test_without_scripts_the_form_shows_the_preview_and_saves_nothing(marketer):
    RecipientFactory(attributes={"first_name": "Anna"})
    template = TemplateFactory()
    page = marketer.post(
        reverse("template", args=[template.pk]), form({**GREETING, "subject": "New"}, preview="1", version=1)
    )
    assert page.context["shown"].subject == "New"
    template.refresh_from_db()
    assert template.version == 1


def test_an_analyst_reads_with_addresses_masked_and_writes_nothing():
    RecipientFactory(external_id="anna")
    row = {**GREETING, "text": "To {{ recipient.email }}"}
    template = templates.save(name="Greeting", contents=[row], by=BY, now=NOW)
    analyst = signed_in(Role.ANALYST)
    page = analyst.get(reverse("template", args=[template.pk]))
    assert "To a…@example.com" in text_of(page)
    assert "<textarea" not in text_of(page)
    for name in ("template-new", "template-preview", "template-preview-body", "catalogue-new"):
        assert analyst.post(reverse(name), form(GREETING)).status_code == 403
    for name in ("template-duplicate", "template-delete"):
        assert analyst.post(reverse(name, args=[template.pk])).status_code == 403
    assert template.versions.count() == 1


# Catalogues


def test_catalogues_tell_what_each_language_lacks(marketer, django_assert_max_num_queries):
    templates.save_catalogue(locale="en", messages={"hello": "Hello", "bye": "Bye"}, by=BY, now=NOW)
    templates.save_catalogue(locale="de", messages={"hello": "Hallo"}, by=BY, now=NOW)
    with django_assert_max_num_queries(12):
        page = marketer.get("/catalogues/")
    assert [(row.language, row.missing) for row in page.context["rows"]] == [("German", 1), ("English", 0)]
    rows = marketer.get("/catalogues/de/").context["rows"]
    assert rows == [("bye", [], [("en", "Bye")]), ("hello", [("", "Hallo")], [("en", "Hello")])]
    assert [row[0] for row in marketer.get("/catalogues/de/", {"q": "HEL"}).context["rows"]] == ["hello"]
    assert marketer.get("/catalogues/fr/").status_code == 404


def test_a_key_is_written_simply_or_with_plural_forms(marketer):
    marketer.post("/catalogues/new/", {"locale": "de_AT", "key": "hello", "simple": "Servus"})
    catalogue = Catalogue.objects.get()
    assert (catalogue.locale, catalogue.messages) == ("de-AT", {"hello": "Servus"})
    assert AuditEvent.objects.latest("id").action == Action.CATALOGUE_SAVE
    plural = {"key": "items", "form_one": "{count} Ding", "form_other": "{count} Dinge"}
    marketer.post("/catalogues/new/", {"locale": "de-AT", **plural})
    catalogue.refresh_from_db()
    assert catalogue.messages["items"] == {"one": "{count} Ding", "other": "{count} Dinge"}
    shown = marketer.get("/catalogues/de-AT/message/", {"key": "items"}).context["form"]
    assert [field.value() for field in shown.plurals()] == ["{count} Ding", "{count} Dinge"]
    edit = "/catalogues/de-AT/message/?key=items"
    marketer.post(edit, {"version": 2, "key": "things", "simple": "Dinge", "was": ""})
    catalogue.refresh_from_db()
    assert catalogue.messages == {"hello": "Servus", "things": "Dinge"}


@pytest.mark.parametrize(
    ("values", "field", "said"),
    [
        ({"locale": "no locale!", "key": "a", "simple": "b"}, "locale", "no known locale"),
        ({"locale": "fr", "key": "hello", "simple": "Salut"}, "key", "has this key already"),
        ({"locale": "de", "key": "a", "simple": ""}, "simple", "either one text or its plural forms"),
        ({"locale": "de", "key": "a", "simple": "b", "form_other": "c"}, "simple", "either one text"),
        ({"locale": "de", "key": "a", "form_one": "c"}, "simple", "other"),
        ({"locale": "de", "key": "a", "simple": "{{ b }}"}, "simple", "no template"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_at_its_field(marketer, values, field, said):
    templates.save_catalogue(locale="fr", messages={"hello": "Bonjour"}, by=BY, now=NOW)
    page = marketer.post("/catalogues/new/", values)
    assert page.status_code == 422
    assert said in page.context["form"].errors[field][0]
    assert Catalogue.objects.get().messages == {"hello": "Bonjour"}


def test_two_may_change_different_keys_and_of_one_key_the_second_is_shown_the_first(marketer):
    templates.save_catalogue(locale="de", messages={"a": "1", "b": "2"}, by=BY, now=NOW)
    edit = "/catalogues/de/message/?key="
    assert marketer.post(f"{edit}a", {"version": 1, "key": "a", "simple": "one", "was": "1"}).status_code == 302
    assert marketer.post(f"{edit}b", {"version": 1, "key": "b", "simple": "two", "was": "2"}).status_code == 302
    late = marketer.post(f"{edit}a", {"version": 1, "key": "a", "simple": "eins", "was": "1"})
    assert late.status_code == 422
    assert "has changed this text meanwhile" in text_of(late)
    assert late.context["conflict"][2] == [("", "one")]
    again = {"version": late.context["form"]["version"].value(), "key": "a", "simple": "eins"}
    assert marketer.post(f"{edit}a", {**again, "was": late.context["was"]}).status_code == 302
    assert Catalogue.objects.get().messages == {"a": "eins", "b": "two"}


def test_keys_and_languages_are_taken_out(marketer):
    templates.save_catalogue(locale="de", messages={"a": "1", "b": "2"}, by=BY, now=NOW)
    marketer.post("/catalogues/de/remove/", {"key": "a"})
    assert Catalogue.objects.live().get().messages == {"b": "2"}
    marketer.post("/catalogues/de/remove/")
    assert not Catalogue.objects.live().exists()
    assert AuditEvent.objects.latest("id").action == Action.CATALOGUE_DELETE
