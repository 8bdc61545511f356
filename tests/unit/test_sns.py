"""Messages of Amazon SNS are believed when a certificate of SNS has signed them, and in no other case.

Keys and certificates are real; the hosts of Amazon are in memory.
"""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from delivery.events import sns
from schedules import outgoing
from stubs.sns import Certified, Sns, body_of
from tests.told_by_ses import ORIGIN, TOPIC, Web

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def authority():
    return Certified("An authority", begins=NOW - YEAR, ends=NOW + YEAR)


@pytest.fixture(scope="module")
def certified(authority):
    return Certified(issuer=authority, begins=NOW - YEAR, ends=NOW + YEAR)


@pytest.fixture(params=["1", "2"])
def server(request, certified):
    return Sns(ORIGIN, TOPIC, certified=certified, version=request.param)


@pytest.fixture(autouse=True)
def web(server, settings, monkeypatch):
    settings.SNS_TOPICS, settings.SNS_ENDPOINT, settings.SNS_CA_FILE = [TOPIC], "", ""
    web = Web(server)
    monkeypatch.setattr(outgoing, "fetch", web.fetch)
    sns.forget_certificates()
    return web


def opened(message, *, now=NOW):
    return sns.opened(message if isinstance(message, bytes) else body_of(message), now=now)


def refused(message, *, now=NOW):
    with pytest.raises(sns.SnsError) as caught:
        opened(message, now=now)
    return type(caught.value), caught.value.code


FORGED = (sns.Refused, "forged")


def test_the_text_that_is_signed_is_that_of_the_guide():
    message = {
        "Type": "Notification",
        "MessageId": "4d4dc071-ddbf-465d-bba8-08f81c89da64",
        "TopicArn": "arn:aws:sns:us-east-2:123456789012:s4-MySNSTopic-1G1WEFCOXTC0P",
        "Subject": "My subject",
        "Message": "My Test Message",
        "Timestamp": "2019-01-31T04:37:04.321Z",
    }
    assert sns.to_sign(message).decode() == (
        "Message\nMy Test Message\n"
        "MessageId\n4d4dc071-ddbf-465d-bba8-08f81c89da64\n"
        "Subject\nMy subject\n"
        "Timestamp\n2019-01-31T04:37:04.321Z\n"
        "TopicArn\narn:aws:sns:us-east-2:123456789012:s4-MySNSTopic-1G1WEFCOXTC0P\n"
        "Type\nNotification\n"
    )
    del message["Subject"]
    assert b"Subject" not in sns.to_sign(message)


@pytest.mark.parametrize("changes", [{}, {"Subject": None}, {"Message": 'lines\nand "signs" ä 🎉'}])
def test_a_signed_notification_is_believed(server, changes):
    text = changes.get("Message", "{}")
    message = server.notification(**{"text": text, "at": NOW, **{k: v for k, v in changes.items() if k != "Message"}})
    found = opened(message)
    assert (found.type, found.topic, found.text, found.origin) == (sns.NOTIFICATION, TOPIC, text, ORIGIN)
    assert found.message_id == message["MessageId"]


@pytest.mark.parametrize("kind", [sns.SUBSCRIPTION, sns.UNSUBSCRIBED])
def test_a_signed_confirmation_is_believed(server, kind):
    found = opened(server.confirmation(kind=kind, at=NOW))
    assert (found.type, found.token) == (kind, server.token)


@pytest.mark.parametrize("field", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type", "Signature"])
def test_whatever_is_changed_on_the_way_is_refused(server, settings, field):
    message = server.notification("{}", at=NOW)
    others = {
        "Timestamp": "2026-11-22T12:00:01.000Z",
        "TopicArn": TOPIC + "s",
        "Type": "UnsubscribeConfirmation",
        "Signature": base64.b64encode(b"x" * 256).decode(),
    }
    settings.SNS_TOPICS = [TOPIC, TOPIC + "s"]
    extra = {"Token": "t", "SubscribeURL": "u"} if field == "Type" else {}
    assert refused({**message, **extra, field: others.get(field, "another")}) == FORGED


def test_a_subject_that_is_taken_away_is_missed(server):
    message = server.notification("{}", at=NOW)
    del message["Subject"]
    assert refused(message) == FORGED


@pytest.mark.parametrize("field", ["Token", "SubscribeURL", "Message"])
def test_a_confirmation_that_was_changed_is_refused(server, field):
    assert refused({**server.confirmation(at=NOW), field: "another"}) == FORGED


def test_a_version_is_not_taken_for_another(server):
    message = server.notification("{}", at=NOW)
    for version in {"1", "2", "3", ""} - {server.version}:
        assert refused({**message, "SignatureVersion": version}) == FORGED


@pytest.mark.parametrize("signature", ["", "no base64!", "AAAA", "ÄÖ", "=" * 100_000])
def test_a_signature_that_is_none_is_refused(server, signature):
    assert refused({**server.notification("{}", at=NOW), "Signature": signature}) == FORGED


def test_a_key_of_somebody_elses_is_refused(server, web, certified):
    other = Sns(ORIGIN, TOPIC, certified=Certified(issuer=Certified("Another")), version=server.version)
    message = other.notification("{}", at=NOW)
    assert refused(message) == FORGED  # nothing lies at that address
    message["SigningCertURL"] = server.origin + server.path
    assert refused(message) == FORGED


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com{path}",
        "https://sns.us-east-1.amazonaws.com{path}",
        "https://sns.eu-central-1.amazonaws.com.cn.evil.example{path}",
        "https://sns.eu-central-1.amazonaws.com.evil.example{path}",
        "https://evil.example/sns.eu-central-1.amazonaws.com{path}",
        "https://sns.eu-central-1.amazonaws.com@evil.example{path}",
        "https://me:word" + "@sns.eu-central-1.amazonaws.com{path}",
        "https://sns.eu-central-1.amazonaws.com:8443{path}",
        "https://sns.eu-central-1.amazonaws.com\\.evil.example{path}",
        "https://sns.eu-central-1.evilamazonaws.com{path}",
        "https://snsxeu-central-1.amazonaws.com{path}",
        "https://sns.eu-central-1.amazonaws.com/bucket{path}",
        "https://sns.eu-central-1.amazonaws.com/bucket/..{path}",
        "https://sns.eu-central-1.amazonaws.com{path}?x=1",
        "https://sns.eu-central-1.amazonaws.com{path}#x",
        "https://sns.eu-central-1.amazonaws.com/?Action=GetTopicAttributes&X=.pem",
        "https://sns.eu-central-1.amazonaws.com/other.pem",
        "https://sns.eu-central-1.amazonaws.com{path}\n",
        " https://sns.eu-central-1.amazonaws.com{path}",
        "HTTPS://sns.eu-central-1.amazonaws.com{path}",
        "https://SNS.eu-central-1.amazonaws.com{path}",
        "https://sns.éu-central-1.amazonaws.com{path}",
        "file:///etc/passwd",
        "/SimpleNotificationService-0.pem",
        "",
    ],
)
def test_a_certificate_of_another_address_is_not_even_asked_for(server, web, url):
    address = url.replace("{path}", server.path)
    web.pages[address] = outgoing.Answer(200, {}, server.certified.pem)
    message = server.notification("{}", at=NOW, SigningCertURL=address)
    assert refused(message) == FORGED
    assert web.calls == []


def test_a_topic_in_china_is_signed_for_there(server, web, settings):
    topic = TOPIC.replace("arn:aws:sns:eu-central-1", "arn:aws-cn:sns:cn-north-1")
    origin = "https://sns.cn-north-1.amazonaws.com.cn"
    other = Sns(origin, topic, certified=Certified("sns.cn-north-1.amazonaws.com.cn", issuer=Certified("Another")))
    settings.SNS_TOPICS = [topic]
    web.pages[origin + other.path] = outgoing.Answer(200, {}, other.certified.pem)
    now = datetime.now(UTC)
    assert opened(other.notification("{}", at=now), now=now).origin == origin


def test_a_topic_of_others_is_refused_before_anything_is_fetched(server, web, settings):
    settings.SNS_TOPICS = [TOPIC + "2"]
    assert refused(server.notification("{}", at=NOW)) == (sns.Refused, "topic")
    assert refused(server.confirmation(at=NOW)) == (sns.Refused, "topic")
    assert web.calls == []


@pytest.mark.parametrize(
    ("at", "is_taken"),
    [
        (NOW - sns.OLDEST, True),
        (NOW - sns.OLDEST - timedelta(seconds=1), False),
        (NOW + timedelta(minutes=15), True),
        (NOW + timedelta(minutes=15, seconds=1), False),
    ],
)
def test_a_message_is_taken_for_as_long_as_sns_would_send_it(server, web, at, is_taken):
    message = server.notification("{}", at=at)
    if is_taken:
        assert opened(message)
    else:
        assert refused(message) == (sns.Refused, "stale")
        assert web.calls == []


@pytest.mark.parametrize("timestamp", ["", "yesterday", "2026-11-22T12:00:00", "2026-02-30T12:00:00Z"])
def test_a_time_that_is_none_is_refused(server, timestamp):
    assert refused(server.notification("{}", Timestamp=timestamp)) == (sns.Malformed, "malformed")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"Type": "Other"}', b'{"Type": []}',
        b'{"Type": {"Notification": 1}}', b'{"Type": "Notification"}', b'{"Type": "SubscriptionConfirmation"}',
    ],
    ids=range(13),
)  # fmt: skip
def test_what_sns_would_never_send_is_refused(body):
    assert refused(body) == (sns.Malformed, "malformed")


@pytest.mark.parametrize("kind", ["notification", "confirmation"])
@pytest.mark.parametrize("wrong", [None, 7, [], {}, True, ["x"]], ids=repr)
def test_a_field_that_is_missing_or_no_text_is_refused(server, web, kind, wrong):
    message = server.notification("{}", at=NOW) if kind == "notification" else server.confirmation(at=NOW)
    for field in message.keys() - {"UnsubscribeURL"}:
        if field == "Subject" and wrong is None:
            continue  # as good as absent, and then the signature is another
        assert refused({**message, field: wrong}) == (sns.Malformed, "malformed")
    assert web.calls == []


@pytest.mark.parametrize(("begins", "ends"), [(-YEAR, timedelta(seconds=-1)), (timedelta(seconds=1), YEAR)])
def test_a_certificate_out_of_its_time_is_refused(server, web, authority, begins, ends):
    expired = Certified(issuer=authority, begins=NOW + begins, ends=NOW + ends)
    other = Sns(ORIGIN, TOPIC, certified=expired, version=server.version)
    web.pages[other.origin + other.path] = outgoing.Answer(200, {}, expired.pem)
    assert refused(other.notification("{}", at=NOW)) == FORGED


def test_a_certificate_that_is_known_expires_all_the_same(server, web, certified):
    assert opened(server.notification("{}", at=NOW))
    later = NOW + 2 * YEAR
    assert refused(server.notification("{}", at=later), now=later) == FORGED


@pytest.mark.parametrize(
    "name",
    ["evil.example", "sns.amazonaws.com.evil.example", "amazonaws.com", "ses.amazonaws.com", "snsxamazonaws.com"],
)
def test_a_certificate_of_another_name_is_refused(server, web, authority, name):
    foreign = Certified(name, issuer=authority, begins=NOW - YEAR, ends=NOW + YEAR)
    other = Sns(ORIGIN, TOPIC, certified=foreign, version=server.version)
    web.pages[other.origin + other.path] = outgoing.Answer(200, {}, foreign.pem)
    assert refused(other.notification("{}", at=NOW)) == FORGED


def test_a_weak_key_is_refused(server, web, authority):
    weak = Certified(issuer=authority, begins=NOW - YEAR, ends=NOW + YEAR, bits=1024)
    other = Sns(ORIGIN, TOPIC, certified=weak, version=server.version)
    web.pages[other.origin + other.path] = outgoing.Answer(200, {}, weak.pem)
    assert refused(other.notification("{}", at=NOW)) == FORGED


def test_what_lies_there_may_be_no_certificate(server, web):
    for content in (b"", b"<html>", server.certified.pem[:200], server.certified.pem[:-60], b"\xff" * 100):
        web.pages[server.origin + server.path] = outgoing.Answer(200, {}, content)
        assert refused(server.notification("{}", at=NOW)) == FORGED
        sns.forget_certificates()


@pytest.mark.parametrize(("status", "expected"), [(404, FORGED), (302, FORGED), (500, "away"), (429, "away")])
def test_an_address_that_answers_otherwise_is_away_or_wrong(server, web, status, expected):
    web.pages[server.origin + server.path] = outgoing.Answer(status, {}, server.certified.pem)
    found = refused(server.notification("{}", at=NOW))
    assert found == ((sns.Away, "away") if expected == "away" else expected)


@pytest.mark.parametrize(
    "error",
    [outgoing.Unavailable("timeout", "did not answer"), outgoing.Refused("not_public", "leads into a private network")],
)
def test_who_signed_is_asked_again_where_it_could_not_be_found_out(server, web, error):
    web.error = error
    assert refused(server.notification("{}", at=NOW)) == (sns.Away, "away")
    web.error = None
    assert opened(server.notification("{}", at=NOW))


def test_a_certificate_is_fetched_once(server, web):
    for _ in range(3):
        opened(server.notification("{}", at=NOW))
    assert web.calls == [server.origin + server.path]


def test_a_stranger_can_not_have_us_call_for_ever(server, web):
    codes = {
        refused(server.notification("{}", at=NOW, SigningCertURL=f"{ORIGIN}/SimpleNotificationService-{number}.pem"))
        for number in range(30)
    }
    assert codes == {FORGED, (sns.Away, "away")}
    assert len(web.calls) == 10


def test_a_chain_is_asked_for_where_authorities_are_named(server, web, authority, settings, tmp_path):
    file = tmp_path / "authorities.pem"
    settings.SNS_CA_FILE = str(file)
    file.write_bytes(Certified("Somebody else").pem)
    assert refused(server.notification("{}", at=NOW)) == FORGED
    file.write_bytes(authority.pem)
    assert opened(server.notification("{}", at=NOW))


def test_a_subscription_is_confirmed_at_sns_alone(server, web):
    elsewhere = "https://evil.example/?Action=ConfirmSubscription"
    sns.confirm(opened(server.confirmation(at=NOW, SubscribeURL=elsewhere)))
    assert web.confirmed == {"Action": ["ConfirmSubscription"], "TopicArn": [TOPIC], "Token": [server.token]}
    assert all(call.startswith(f"{ORIGIN}/") for call in web.calls)


def test_a_confirmation_that_does_not_arrive_is_asked_for_again(server, web):
    message = opened(server.confirmation(at=NOW))
    web.error = outgoing.Unavailable("timeout", "did not answer")
    with pytest.raises(sns.Away):
        sns.confirm(message)


def test_a_double_stands_in_where_it_is_named_and_amazon_is_not_believed_beside_it(server, web, settings):
    settings.SNS_ENDPOINT = "http://127.0.0.1:8025"
    double = Sns("http://127.0.0.1:8025", TOPIC, certified=server.certified, version=server.version)
    web.pages[double.origin + double.path] = outgoing.Answer(200, {}, server.certified.pem)
    assert opened(double.notification("{}", at=NOW)).origin == double.origin
    assert refused(server.notification("{}", at=NOW)) == FORGED


def test_what_is_said_of_a_refusal_quotes_nothing(server):
    message = server.notification(json.dumps({"to": "eva@example.com"}), at=NOW)
    with pytest.raises(sns.SnsError) as caught:
        opened({**message, "Message": "eva@example.com"})
    assert "eva" not in str(caught.value)
