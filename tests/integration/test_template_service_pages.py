"""Templates that a template service keeps, on pages and in the API: shown with what is known of them, never changed."""

from html import unescape

import pytest
from django.urls import reverse

from delivery import renderers
from schedules.models import MessageTemplate, Schedule, TemplateVersion
from schedules.permissions import Role
from schedules.template_service.mirror import mirror_all
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import NOW, RecipientFactory, TemplateFactory
from tests.template_service import template

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

WELCOME = template(
    "welcome",
    name="Welcome",
    contents=[
        {
            "channel": "email",
            "locale": locale,
            "subject": f"{hello} {{{{ first_name }}}}",
            "text": f"{hello} {{{{ first_name }}}}, {{{{ recipient.external_id }}}}: {{{{ plan }}}}",
            "html": f"<p>{hello} {{{{ first_name }}}}</p>",
        }
        for locale, hello in (("en", "Hello"), ("de", "Hallo"))
    ],
)
KEPT = "The template service keeps “Welcome”: change it there."


@pytest.fixture
def welcome(template_service) -> MessageTemplate:
    renderers.of_version.cache_clear()
    template_service.put(WELCOME)
    mirror_all(now=NOW)
    RecipientFactory(external_id="anna", locale="de-AT", attributes={"first_name": "Anna"})
    return MessageTemplate.objects.get(service_id="welcome")


@pytest.fixture
def marketer():
    return signed_in(Role.MARKETER)


@pytest.fixture
def api() -> Api:
    return Api(token())


def version(template: MessageTemplate) -> str:
    """As the service calls it."""
    return template.versions.latest("version").service_version


def text_of(response) -> str:
    return " ".join(unescape(response.content.decode()).split())


# Pages


def test_the_list_says_where_a_template_comes_from(marketer, welcome):
    TemplateFactory(name="Ours")
    page = marketer.get("/templates/")
    ours, theirs = page.context["rows"]
    assert (ours.template.name, theirs.template.name) == ("Ours", "Welcome")
    assert theirs.speaks == [("E-mail", "de, en")]
    assert text_of(page).count('<span class="ns-badge">template service</span>') == 1


@pytest.mark.parametrize("role", [Role.MARKETER, Role.ANALYST])
def test_its_page_shows_version_locales_tokens_and_how_it_reads_and_offers_no_change(welcome, role):
    page = text_of(signed_in(role).get(reverse("template", args=[welcome.pk])))
    for words in ("<code>welcome</code>", version(welcome), "de, en", "<code>recipient.external_id</code>"):
        assert words in page
    assert "Hallo Anna, anna:" in page
    assert "Without a value for this person: <code>plan</code>" in page
    for name in ("template-duplicate", "template-delete"):
        assert reverse(name, args=[welcome.pk]) not in page
    assert "<textarea" not in page


def test_the_preview_is_read_in_another_language_and_as_a_body(marketer, welcome):
    page = marketer.get(reverse("template", args=[welcome.pk]), {"preview-language": "en"})
    assert "Hello Anna, anna:" in text_of(page)
    assert "<p>Hello Anna</p>" in text_of(marketer.get(page.context["body"]))


def test_a_preview_while_the_service_is_away_says_so(marketer, welcome, template_service):
    template_service.fault("status", status=503)
    page = text_of(marketer.get(reverse("template", args=[welcome.pk])))
    assert "The template service has an error of its own: try again in a moment." in page
    assert version(welcome) in page


def test_its_page_says_that_no_service_is_set_up_any_more(marketer, welcome, settings):
    settings.TEMPLATE_SERVICE_URL = ""
    assert "an admin has to set TEMPLATE_SERVICE_URL" in text_of(marketer.get(reverse("template", args=[welcome.pk])))


@pytest.mark.parametrize("name", ["template", "template-duplicate", "template-delete"])
def test_nothing_of_it_is_changed_on_a_page(marketer, welcome, name):
    answer = marketer.post(reverse(name, args=[welcome.pk]), {"version": 1, "default_locale": "de"})
    assert answer.status_code == 409
    assert KEPT in text_of(answer)
    kept = MessageTemplate.objects.get()
    assert (kept.version, kept.default_locale, kept.deleted_at) == (1, "en", None)


def test_its_versions_say_what_changed_as_far_as_it_is_known_here(marketer, welcome, template_service):
    (english, _german) = WELCOME["contents"]
    template_service.put({**WELCOME, "contents": [english, {**english, "channel": "push", "text": "{{ city }}"}]})
    mirror_all(now=NOW)
    page = text_of(marketer.get(reverse("template-versions", args=[welcome.pk])))
    for words in ("Version 2", "E-mail · de", "Push · en", "city", version(welcome)):
        assert words in page
    added, _first = marketer.get(reverse("template-versions", args=[welcome.pk])).context["rows"]
    lines = {change.place: change.lines for change in added[2]}
    assert ("removed", "E-mail · de") in lines["Says something in"]
    assert ("added", "Push · en") in lines["Says something in"]
    assert ("added", "city") in lines["Variables"]


def test_the_wizard_offers_it_and_shows_how_it_reads(marketer, welcome):
    marketer.post(reverse("wizard"), {"name": "Winter sale", "channel": "email", "go": "next"})
    TemplateFactory(name="Ours", channels=["push"])
    draft = Schedule.objects.get().pk
    page = text_of(marketer.get(reverse("wizard-templates", args=[draft])))
    assert '<strong>Welcome</strong> <span class="ns-badge">template service</span><small>E-mail: de, en' in page
    assert "Says nothing for E-mail." in page
    look = marketer.post(reverse("wizard-look", args=[draft, "message"]), {"template_id": welcome.pk})
    assert "Hallo Anna, anna:" in text_of(look)
    assert look.context["locales"] == ["de", "en"]


# The API


def test_the_api_shows_whose_a_template_is(api, welcome):
    ours = TemplateFactory(name="Ours")
    theirs, mine = sorted(api.get("templates").json()["items"], key=lambda each: each["serviceId"] or "~")
    assert (theirs["serviceId"], mine["serviceId"]) == ("welcome", None)
    assert theirs["contents"] == [{"channel": "email", "locale": locale, "subject": ""} for locale in ("de", "en")]
    found = api.get(f"templates/{welcome.pk}").json()
    assert (found["serviceId"], found["serviceVersion"]) == ("welcome", version(welcome))
    assert found["tokens"] == ["first_name", "plan", "recipient.external_id"]
    assert found["contents"] == [{"channel": "email", "locale": locale} for locale in ("de", "en")]
    kept = api.get(f"templates/{ours.pk}").json()
    assert (kept["serviceId"], kept["serviceVersion"], kept["tokens"]) == (None, None, None)
    (head,) = api.get(f"templates/{welcome.pk}/versions").json()["items"]
    assert head["serviceVersion"] == version(welcome)
    one = api.get(f"templates/{welcome.pk}/versions/1").json()
    assert (one["tokens"], one["contents"]) == (found["tokens"], found["contents"])


def test_the_api_changes_nothing_of_it_and_says_where_to(api, welcome):
    path = f"templates/{welcome.pk}"
    content = {"channel": "email", "locale": "en", "subject": "Hi", "text": "Hi"}
    for answer in (
        api.put(path, {"name": "Welcome", "contents": [content]}, if_match="*"),
        api.patch(path, {"defaultLocale": "de"}, if_match="*"),
        api.delete(path, if_match="*"),
    ):
        assert answer.status_code == 409, answer.json()
        assert answer.json()["detail"].startswith(KEPT)
    assert TemplateVersion.objects.count() == 1
    assert MessageTemplate.objects.live().exists()


def test_the_api_previews_it(api, welcome, template_service):
    asked = {"templateId": welcome.pk, "channel": "email", "recipient": "anna"}
    assert api.post("templates:preview", asked).json()["subject"] == "Hallo Anna"
    template_service.fault("status", status=500)
    answer = api.post("templates:preview", {**asked, "locale": "en"})
    assert answer.status_code == 503
    assert "The template service has an error of its own: try again in a moment." in answer.json()["detail"]
    assert answer["Retry-After"] == "5"
