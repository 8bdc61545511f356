"""Unsubscribing by one click from a message in the outbox, and the page on which people set what they are sent."""

import re
from html import unescape
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from django.test import Client as Browser

from audit.models import AuditEvent
from delivery import erasure
from delivery.models import OutboxMessage
from frontend import preferences as door
from schedules import links, suppressions, templates
from schedules.links import Link
from schedules.models import Recipient
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TopicFactory, people
from tests.service import DAY, HOUR, reasons

pytestmark = pytest.mark.django_db

HTML = '<p>News.</p><p><a href="{{ unsubscribe_url }}">Unsubscribe</a> <a href="{{ preferences_url }}">Choose</a></p>'


@pytest.fixture(autouse=True)
def public(settings, monkeypatch):
    settings.PUBLIC_URL = "https://mail.example"
    monkeypatch.setattr(door, "_OF_GUESSES", (1000.0, 1000))
    settings.EMAIL_FROM = "The Shop <news@shop.example>"


@pytest.fixture
def browser() -> Browser:
    return Browser(enforce_csrf_checks=True)


@pytest.fixture
def anna():
    return RecipientFactory(external_id="anna", email="anna@example.com", locale="de-AT")


def template(text="Unsubscribe: {{ unsubscribe_url }}", html=HTML):
    content = {"channel": "email", "locale": "en", "subject": "News", "text": text, "html": html}
    return templates.save(name="With links", contents=[content], by=BY, now=NOW)


def link_of(person, topic=None, channel="email"):
    return links.sign(Link(person.pk, channel, topic))


def path_of(url):
    assert url.startswith("https://mail.example/")
    return urlsplit(url).path


# --- One click --------------------------------------------------------------------------------------------------------


def _post(live_server, path):
    """As a mailbox does it: no cookie, no referrer, one form field (RFC 8058, 3.2)."""
    connection = HTTPConnection(urlsplit(live_server.url).netloc, timeout=60)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", path, "List-Unsubscribe=One-Click", headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


@pytest.mark.django_db(transaction=True)
def test_who_unsubscribes_from_a_message_in_the_outbox_by_one_click_is_not_written_to_again(
    service, live_server, settings
):
    settings.ALLOWED_HOSTS = ["*"]
    TopicFactory()
    anna, ben = (RecipientFactory(external_id=name, locale="en") for name in ("anna", "ben"))
    news = {"topic": "news", "template_id": template().pk}
    ScheduleFactory(**news)
    service.step()
    message = OutboxMessage.objects.get(recipient=anna)
    assert message.unsubscribe_url == f"https://mail.example/u/{link_of(anna, 'news')}"
    assert message.unsubscribe_url in message.text
    html = unescape(message.html)
    assert f'href="{message.unsubscribe_url}"' in html
    assert f'href="https://mail.example/p/{link_of(anna, "news")}"' in html
    for _ in range(2):  # a mailbox may do it twice
        answer, body = _post(live_server, path_of(message.unsubscribe_url))
        assert (answer.status, answer.getheader("Set-Cookie"), answer.getheader("Location")) == (200, None, None)
        assert "You are unsubscribed" in body
    again = ScheduleFactory(run_at=service.after(HOUR).now, **news)
    service.step()
    assert reasons(again) == {"sent: ": 1, "suppressed: opted_out_of_topic": 1}
    assert set(OutboxMessage.objects.values_list("recipient_id", flat=True).filter(created_at=service.now)) == {ben.pk}
    other = ScheduleFactory(run_at=service.after(HOUR).now)
    service.step()
    assert reasons(other) == {"sent: ": 2}
    saved = AuditEvent.objects.filter(action="recipient.save", payload_diff__recipient=anna.pk)
    assert [(event.actor_id, event.payload_diff["consent"]) for event in saved] == [("system:person", "changed")]


def test_an_objection_made_while_a_run_is_being_sent_holds_for_who_is_not_claimed_yet(service, provider, browser):
    TopicFactory()
    anna, ben = people(2)
    schedule = ScheduleFactory(topic="news")
    service.open()
    assert browser.post(f"/u/{link_of(anna, 'news')}").status_code == 200
    service.send()
    assert reasons(schedule) == {"sent: ": 1, "suppressed: opted_out_of_topic": 1}
    assert set(provider.reached()) == {ben.pk}


def test_opening_the_link_changes_nothing_and_offers_one_button(browser, anna):
    TopicFactory(names={"de": "Neues"})
    path = f"/u/{link_of(anna, 'news')}"
    for method in (browser.get, browser.head):
        answer = method(path)
        assert answer.status_code == 200
        anna.refresh_from_db()
        assert anna.consent == {}
    page = browser.get(path).content.decode()
    assert page.count("<button") == 1
    assert '<html lang="de" dir="ltr">' in page
    assert "„Neues“ (E-Mail)" in page
    assert "The Shop" in page
    assert "a…@example.com" in page
    assert browser.put(path).status_code == 405


@pytest.mark.parametrize("consent", [{"news:email": False}, {"email": False}])
def test_whoever_has_said_no_already_is_not_asked_again(browser, anna, consent):
    TopicFactory()
    Recipient.objects.update(consent=consent)
    page = browser.get(f"/u/{link_of(anna, 'news')}").content.decode()
    assert "Sie haben abbestellt" in page
    assert "<button" not in page
    other = browser.get(f"/u/{link_of(anna)}").content.decode()
    assert ("<button" in other) is (consent == {"news:email": False})


def test_without_a_topic_the_whole_channel_is_unsubscribed_from(service, provider, browser, anna):
    assert browser.post(f"/u/{link_of(anna)}").status_code == 200
    anna.refresh_from_db()
    assert anna.consent == {"email": False}
    TopicFactory()
    schedule = ScheduleFactory(topic="news")
    service.step()
    assert reasons(schedule) == {"suppressed: opted_out": 1}


def test_whoever_unsubscribed_still_gets_a_receipt_but_after_a_complaint_nothing(service, provider, browser, anna):
    browser.post(f"/u/{link_of(anna)}")
    receipt = ScheduleFactory(purpose="transactional")
    service.step()
    assert reasons(receipt) == {"sent: ": 1}
    fingerprint = suppressions.fingerprint_to_block("anna@example.com")
    suppressions.record([suppressions.Strike(fingerprint, 1, "complained")], now=service.now)
    again = ScheduleFactory(purpose="transactional", run_at=service.after(HOUR).now)
    service.step()
    assert reasons(again) == {"suppressed: complained": 1}


def test_a_transactional_message_has_no_way_to_unsubscribe_but_one_to_the_preferences(service, anna):
    ScheduleFactory(purpose="transactional", template_id=template("{{ preferences_url }}").pk)
    service.step()
    (message,) = OutboxMessage.objects.all()
    assert message.unsubscribe_url == ""
    assert message.text == f"https://mail.example/p/{link_of(anna)}"
    assert 'href=""' in message.html


def test_an_objection_made_by_a_link_is_dated_and_said_by_the_person(browser, anna, service):
    TopicFactory()
    browser.post(f"/u/{link_of(anna, 'news')}")
    first = Recipient.objects.get(pk=anna.pk)
    assert first.objected_at == {"news:email": NOW.isoformat()}
    assert first.consent_source == {"news:email": {"by": "system:person", "at": NOW.isoformat()}}
    assert first.updated_by == "system:person"
    service.after(DAY)
    browser.post(f"/u/{link_of(anna, 'news')}")
    again = Recipient.objects.get(pk=anna.pk)
    assert again.objected_at == {"news:email": (NOW + DAY).isoformat()}
    assert (again.version, again.consent_source) == (first.version, first.consent_source)


# --- Links that are none ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["u", "p"])
def test_a_link_that_is_none_changes_nothing_and_tells_nothing(browser, anna, path):
    good = link_of(anna)
    for token in (good[:-1], good[:20], f"{good[:-1]}{'A' if good[-1] != 'A' else 'B'}", "x", "..", "%00" * 40):
        for ask in (browser.get, browser.post):
            answer = ask(f"/{path}/{token}")
            assert answer.status_code in (301, 404), token
            assert b"anna" not in answer.content
            assert b"a\xe2\x80\xa6@example" not in answer.content
    anna.refresh_from_db()
    assert anna.consent == {}


def test_a_sample_link_says_what_it_is(browser):
    for path in ("/u/sample", "/p/sample"):
        answer = browser.post(path)
        assert answer.status_code == 200
        assert b"a preview or a test" in answer.content


@pytest.mark.parametrize("path", ["u", "p"])
def test_after_an_erasure_the_link_leads_to_kind_words(browser, anna, path):
    token = link_of(anna)
    erasure.forget(recipient_id=anna.pk, by=BY, now=NOW)
    for ask in (browser.get, browser.post):
        answer = ask(f"/{path}/{token}")
        assert answer.status_code == 200
        assert b"We keep nothing of you" in answer.content


@pytest.mark.parametrize("path", ["u", "p"])
def test_pages_are_kept_by_nobody_and_tell_no_other_site_where_one_comes_from(browser, anna, path):
    for token in (link_of(anna), "sample", "nothing"):
        answer = browser.get(f"/{path}/{token}")
        assert answer["Cache-Control"] == "no-store"
        assert answer["Referrer-Policy"] == "no-referrer"
        assert answer["X-Robots-Tag"] == "noindex, nofollow"
        assert not answer.cookies
        assert "Set-Cookie" not in answer
        assert "script-src 'self'" in answer["Content-Security-Policy"]
        assert b"<script" not in answer.content
        assert b"public.css" in answer.content  # dark where the system is


def test_whoever_asks_too_often_with_one_link_or_by_guessing_waits_and_mailboxes_do_not(monkeypatch):
    browser = Browser(REMOTE_ADDR="198.51.100.7")
    monkeypatch.setattr(door, "_OF_LINK", (0.001, 3))
    monkeypatch.setattr(door, "_OF_GUESSES", (0.001, 3))
    monkeypatch.setattr(door, "_OF_ADDRESS", (0.001, 3))
    token = link_of(RecipientFactory(pk=2**40))
    assert [browser.post(f"/u/{token}").status_code for _ in range(4)] == [200, 200, 200, 429]
    slow = browser.post(f"/u/{token}")
    assert int(slow["Retry-After"]) > 0
    assert [browser.get(f"/u/none-{number}").status_code for number in range(4)] == [404, 404, 404, 429]
    many = [RecipientFactory(pk=2**41 + number) for number in range(5)]
    assert {browser.post(f"/u/{link_of(person)}").status_code for person in many} == {200}
    assert [browser.get(f"/p/{link_of(person)}").status_code for person in many] == [200, 200, 200, 429, 429]


# --- The page of preferences ------------------------------------------------------------------------------------------


def fields_of(page):
    """The form as a browser would send it untouched."""
    hidden = [(name, value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page)]
    on = re.findall(r'name="on" value="([^"]+)" checked', page)
    found = {name: [value for each, value in hidden if each == name] for name in ("switch", "was")}
    return {**found, "on": on}


def test_a_person_turns_topics_on_and_off_by_channel(browser, anna, service):
    TopicFactory(names={"de": "Neues"})
    TopicFactory(key="offers", name="Offers", default="opted_out")
    path = f"/p/{link_of(anna, 'news')}"
    page = browser.get(path).content.decode()
    form = fields_of(page)
    assert sorted(form["switch"]) == ["email", "news:email", "offers:email"]
    assert sorted(form["on"]) == sorted(form["was"]) == ["email", "news:email"]
    assert "Neues" in page
    kept = browser.post(path, {**form, "on": ["email", "offers:email"]})
    assert kept.status_code == 200
    assert "Set-Cookie" not in kept
    anna.refresh_from_db()
    assert anna.consent == {"news:email": False, "offers:email": True}
    assert sorted(fields_of(kept.content.decode())["on"]) == ["email", "offers:email"]


def test_a_page_that_was_open_for_long_takes_nothing_back_of_what_was_said_since(browser, anna):
    TopicFactory()
    path = f"/p/{link_of(anna, 'news')}"
    stale = fields_of(browser.get(path).content.decode())
    browser.post(f"/u/{link_of(anna, 'news')}")
    browser.post(path, {**stale, "on": stale["on"]})
    anna.refresh_from_db()
    assert anna.consent == {"news:email": False}


def test_what_the_form_does_not_offer_is_not_kept(browser, anna):
    TopicFactory()
    hostile = {"switch": ["news:sms", "attributes", "x:email", "news:push"], "was": [], "on": ["news:sms", "x:email"]}
    assert browser.post(f"/p/{link_of(anna)}", hostile).status_code == 200
    anna.refresh_from_db()
    assert anna.consent == {}


def test_channels_by_which_a_person_is_reached_are_shown(browser, anna):
    TopicFactory()
    assert sorted(fields_of(browser.get(f"/p/{link_of(anna)}").content.decode())["switch"]) == ["email", "news:email"]
    DeviceFactory(recipient=anna)
    shown = fields_of(browser.get(f"/p/{link_of(anna)}").content.decode())["switch"]
    assert sorted(shown) == ["email", "news:email", "news:push", "push"]


def hours_of(page):
    """The fields of the quiet hours as a browser would send them untouched."""
    return {name: re.search(rf'name="{name}" value="([^"]*)"', page)[1] for name in HOURS}


HOURS = ("quiet_from", "quiet_to", "quiet_before")


def test_a_person_sets_the_own_quiet_hours_and_takes_them_away(browser, anna, service):
    anna.time_zone = "Europe/Vienna"
    anna.save()
    path = f"/p/{link_of(anna)}"
    page = browser.get(path).content.decode()
    assert hours_of(page) == dict.fromkeys(HOURS, "")
    assert "Ihrer Uhr (Europe/Vienna)" in page
    kept = browser.post(path, {**hours_of(page), "quiet_from": "22:00", "quiet_to": "07:00"})
    assert kept.status_code == 200
    assert hours_of(kept.content.decode()) == {
        "quiet_from": "22:00",
        "quiet_to": "07:00",
        "quiet_before": "22:00-07:00",
    }
    anna.refresh_from_db()
    assert anna.quiet_hours == {"from": "22:00", "to": "07:00"}
    assert anna.quiet_hours_source == {"by": "system:person", "at": NOW.isoformat()}
    (event,) = AuditEvent.objects.filter(action="recipient.save")
    assert (event.actor_id, event.payload_diff) == (
        "system:person",
        {"recipient": anna.pk, "quiet_hours": "changed"},
    )
    shown = signed_in(Role.ANALYST).get(f"/recipients/{anna.pk}/").content.decode()
    assert "22:00 to 07:00" in shown
    assert "by the person" in shown
    browser.post(path, {**hours_of(kept.content.decode()), "quiet_from": "", "quiet_to": ""})
    anna.refresh_from_db()
    assert anna.quiet_hours is None


@pytest.mark.parametrize(("begins", "ends"), [("22:00", ""), ("", "07:00"), ("07:00", "07:00"), ("x" * 500, "07:00")])
def test_what_are_no_quiet_hours_is_said_and_the_switches_are_kept_all_the_same(browser, anna, begins, ends):
    path = f"/p/{link_of(anna)}"
    page = browser.get(path).content.decode()
    form = {**fields_of(page), **hours_of(page), "on": [], "quiet_from": begins, "quiet_to": ends}
    refused = browser.post(path, form)
    assert refused.status_code == 422
    answer = refused.content.decode()
    assert 'role="alert"' in answer
    assert 'role="status"' in answer  # the switches are
    assert 'role="status"' not in browser.post(path, {**form, "on": [], "was": []}).content.decode()
    assert "Die Ruhezeit ist, wie sie war" in answer
    assert hours_of(answer) == {"quiet_from": begins[:20], "quiet_to": ends, "quiet_before": ""}
    anna.refresh_from_db()
    assert (anna.quiet_hours, anna.consent) == (None, {"email": False})


def test_a_page_that_was_open_for_long_leaves_quiet_hours_as_they_were_set_since(browser, anna):
    path = f"/p/{link_of(anna)}"
    stale = browser.get(path).content.decode()
    Recipient.objects.update(quiet_hours={"from": "20:00", "to": "08:00"})
    browser.post(path, {**fields_of(stale), **hours_of(stale)})
    browser.post(path, fields_of(stale))  # as a page from before there were any
    anna.refresh_from_db()
    assert anna.quiet_hours == {"from": "20:00", "to": "08:00"}


def test_without_a_zone_the_page_says_whose_clock_it_is(browser, anna):
    for zone in ("", "Mars/Olympus"):
        Recipient.objects.update(time_zone=zone)
        page = browser.get(f"/p/{link_of(anna)}").content.decode()
        assert "Uhr des Absenders" in page
        assert "Mars" not in page


def test_nothing_is_told_of_the_person_but_the_masked_address(browser):
    person = RecipientFactory(
        external_id="user-4711", email="anna@example.com", attributes={"first_name": "Annabella"}, tags=["vip"]
    )
    for path in ("u", "p"):
        page = browser.get(f"/{path}/{link_of(person)}").content.decode()
        assert "a…@example.com" in page
        assert not re.search("user-4711|anna@|Annabella|vip", page)


# --- Where it is looked at --------------------------------------------------------------------------------------------


def test_the_outbox_shows_the_headers_and_the_link_to_be_opened(service, anna):
    TopicFactory()
    ScheduleFactory(topic="news", template_id=template().pk)
    service.step()
    message = OutboxMessage.objects.get()
    page = signed_in(Role.ADMIN).get(f"/outbox/{message.pk}/").content.decode()
    assert f'href="{message.unsubscribe_url}"' in page
    assert "List-Unsubscribe=One-Click" in page


def test_a_person_who_may_not_act_for_others_sees_no_link_that_does(service, anna):
    ScheduleFactory(template_id=template().pk)
    service.step()
    message = OutboxMessage.objects.get()
    for path in (f"/outbox/{message.pk}/", f"/outbox/{message.pk}/body"):
        page = signed_in(Role.ANALYST, name=f"analyst{path[-3]}").get(path).content.decode()
        assert link_of(anna) not in page
