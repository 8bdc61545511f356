"""The SES stub itself: as strict as the service model, and nothing accepted is missing from its log."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from stubs.testing import RunningStub, running_ses

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=0"}
CONTENT = {"Subject": "Hi {{name}}", "Text": "Dear {{name}}"}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("ses") / "sent.ndjson"


@pytest.fixture(scope="module")
def running(log):
    with running_ses(log=log) as stub:
        yield stub


@pytest.fixture
def stub(running):
    running.fault()
    return running


@pytest.fixture
def client(stub, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", stub.url)
    return boto3.client("sesv2", region_name="eu-central-1", config=Config(retries={"total_max_attempts": 1}))


def bulk(*entries, content=CONTENT, **fields):
    template = {"TemplateContent": content, "TemplateData": '{"name": "friend"}'}
    return {
        "FromEmailAddress": "shop@example.com",
        "DefaultContent": {"Template": template},
        "BulkEmailEntries": list(entries) or [entry()],
        **fields,
    }


def entry(to="ann@example.com", data=None, tags=()):
    found = {"Destination": {"ToAddresses": [to]}, "ReplacementTags": list(tags)}
    if data is not None:
        replacement = {"ReplacementTemplate": {"ReplacementTemplateData": data}}
        found["ReplacementEmailContent"] = replacement
    return found


def ask(stub, method, path, body=None, headers=SIGNED):
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urlopen(Request(stub.url + path, data, headers, method=method), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def post_bulk(stub, body, headers=SIGNED):
    return ask(stub, "POST", "/v2/email/outbound-bulk-emails", body, headers)


def test_botocore_understands_the_answer_to_a_bulk_call(stub, client):
    answer = client.send_bulk_email(**bulk(entry("a@example.com"), entry("b@example.com", '{"name": "Bo"}')))
    results = answer["BulkEmailEntryResults"]
    assert [r["Status"] for r in results] == ["SUCCESS", "SUCCESS"]
    newest, before = stub.messages(limit=2)
    assert [before["message_id"], newest["message_id"]] == [r["MessageId"] for r in results]
    assert (before["subject"], before["text"]) == ("Hi friend", "Dear friend")
    assert (newest["subject"], newest["text"]) == ("Hi Bo", "Dear Bo")


@pytest.mark.parametrize(
    "content",
    [
        {"Simple": {"Subject": {"Data": "Hi"}, "Body": {"Text": {"Data": "T"}, "Html": {"Data": "<p>"}}}},
        {
            "Template": {
                "TemplateContent": {"Subject": "{{s}}", "Text": "T", "Html": "<p>"},
                "TemplateData": '{"s": "Hi"}',
            }
        },
    ],
    ids=["simple", "template"],
)
def test_a_single_mail_is_taken_in_its_forms(stub, client, content):
    destination, tags = {"ToAddresses": ["one@example.com"]}, [{"Name": "delivery", "Value": "k-1"}]
    answer = client.send_email(
        FromEmailAddress="shop@example.com", Destination=destination, Content=content, EmailTags=tags
    )
    (message,) = stub.messages(limit=1)
    assert message["message_id"] == answer["MessageId"]
    assert (message["subject"], message["text"], message["html"]) == ("Hi", "T", "<p>")
    assert (message["to"], message["delivery"]) == ("one@example.com", "k-1")


def test_a_single_mail_is_taken_as_mime(stub):
    raw = b64encode("Subject: Hällo\nContent-Type: text/plain; charset=utf-8\n\nText\n".encode()).decode()
    body = {
        "FromEmailAddress": "shop@example.com",
        "Destination": {"ToAddresses": ["raw@example.com"]},
        "Content": {"Raw": {"Data": raw}},
    }
    assert ask(stub, "POST", "/v2/email/outbound-emails", body)[0] == 200
    (message,) = stub.messages(limit=1)
    assert (message["to"], message["subject"], message["text"]) == ("raw@example.com", "Hällo", "Text\n")


def test_what_is_not_signed_is_refused(stub):
    status, answer = post_bulk(stub, bulk(), headers={})
    assert (status, json.loads(answer)) == (403, {"message": "Missing Authentication Token"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "an object is expected"),
        ({"FromEmailAddress": "a@b.example"}, "/DefaultContent: is missing"),
        (bulk(Surprise=1), "/Surprise: unknown member of SendBulkEmailRequest"),
        (bulk(ConfigurationSetName=5), "/ConfigurationSetName: a string is expected"),
        (bulk(FromEmailAddress=""), "/FromEmailAddress: is missing"),
        (bulk(TenantName=""), "/TenantName: 1 to inf characters"),
        (bulk({"Destination": {}, "To": "x"}), "/BulkEmailEntries/0/To: unknown member of BulkEmailEntry"),
        (bulk(*[entry()] * 51), "1 to 50 entries are allowed, not 51"),
        (bulk(BulkEmailEntries=[]), "1 to 50 entries are allowed, not 0"),
        (bulk(entry(tags=[{"Name": "delivery", "Value": "a b"}])), "tag 'delivery'"),
        (bulk(entry(tags=[{"Name": "delivery"}])), "/ReplacementTags/0/Value: is missing"),
        (bulk(entry(data="x" * 262_145)), "0 to 262144 characters are allowed"),
        (bulk(content={"Subject": "Hi"}), "Text or Html is needed"),
        (bulk(content={"Subject": "Hi", "Text": "{{#if a}}b{{/if}}"}), "unsupported operations"),
        (bulk(DefaultContent={}), "a template is needed"),
    ],
)
def test_a_request_that_breaks_the_model_is_refused_with_its_place(stub, body, words):
    before = stub.stats()["accepted"]
    status, answer = post_bulk(stub, body)
    assert status == 400
    assert words in json.loads(answer)["message"]
    assert stub.stats()["accepted"] == before


def test_a_refusal_reaches_the_client_as_the_error_of_the_model(client):
    with pytest.raises(client.exceptions.BadRequestException, match="unsupported operations"):
        client.send_bulk_email(**bulk(content={"Subject": "Hi", "Text": "{{#each a}}"}))


def test_more_than_a_megabyte_of_inline_content_is_refused(stub):
    entries = [entry(data=json.dumps({"name": "x" * 250_000}))] * 5
    assert post_bulk(stub, bulk(*entries))[0] == 413


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (entry(to="nobody"), "INVALID_PARAMETER"),
        (entry(to="ann@example.com\r\nBcc: eve@example.com"), "INVALID_PARAMETER"),
        (entry(data="{"), "INVALID_PARAMETER"),
        (entry(to="Ann <ann@example.com>"), "SUCCESS"),
    ],
)
def test_a_bad_entry_does_not_spoil_the_others(stub, given, status):
    answer = json.loads(post_bulk(stub, bulk(entry(), given))[1])
    assert [r["Status"] for r in answer["BulkEmailEntryResults"]] == ["SUCCESS", status]


def test_stored_templates_are_not_found(stub):
    body = bulk(DefaultContent={"Template": {"TemplateName": "welcome"}})
    (result,) = json.loads(post_bulk(stub, body)[1])["BulkEmailEntryResults"]
    assert result["Status"] == "TEMPLATE_NOT_FOUND"


def test_a_variable_without_a_value_is_accepted_and_reported_as_a_failure(stub):
    post_bulk(stub, bulk(content={"Subject": "{{missing}}", "Text": "x"}))
    assert "'missing' is not present" in stub.messages(limit=1)[0]["failure"]


def test_the_log_has_a_line_for_each_message_and_hashes_for_its_parts(stub, log):
    post_bulk(stub, bulk(entry("logged@example.com", tags=[{"Name": "delivery", "Value": "k-7"}])))
    line = json.loads(log.read_text().splitlines()[-1])
    assert line["to"] == "logged@example.com"
    assert line["delivery"] == "k-7"
    assert line["subject"] == "Hi friend"
    assert line["text_sha256"] == hashlib.sha256(b"Dear friend").hexdigest()
    assert line["at"].endswith("+00:00")
    assert "text" not in line


def test_nothing_accepted_is_missing_from_the_log_after_a_kill(tmp_path):
    path = tmp_path / "sent.ndjson"
    with running_ses(log=path) as stub:
        answers = [json.loads(post_bulk(stub, bulk(*[entry()] * 50))[1]) for _ in range(5)]
        stub.process.kill()
        stub.process.wait(60)
    ids = [result["MessageId"] for answer in answers for result in answer["BulkEmailEntryResults"]]
    assert [json.loads(line)["message_id"] for line in path.read_text().splitlines()] == ids


def test_the_log_of_an_earlier_run_is_continued(tmp_path):
    path = tmp_path / "sent.ndjson"
    for _ in range(2):
        with running_ses(log=path) as stub:
            post_bulk(stub, bulk())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["message_id"] for line in lines}) == 2


def test_the_stub_ends_by_sigterm_even_while_a_call_hangs(tmp_path):
    with running_ses() as stub:
        stub.fault({"kind": "silence"})
        with pytest.raises(TimeoutError):
            urlopen(
                Request(f"{stub.url}/v2/email/outbound-bulk-emails", json.dumps(bulk()).encode(), SIGNED),
                timeout=0.3,
            )
        stub.process.send_signal(signal.SIGTERM)
        assert stub.process.wait(60) == 0


def test_the_stub_ends_with_the_process_that_started_it(tmp_path):
    script = (
        "import os, signal; from stubs.testing import RunningStub, running_ses\n"
        "with running_ses() as stub:\n"
        "    print(stub.process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).resolve().parents[2]
    starter = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    pid = int(starter.stdout)
    deadline = time.monotonic() + 60
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


def _is_running(pid):
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_mailbox_shows_messages_without_running_them(stub):
    evil = '<script>alert(1)</script>"><b>'
    content = {"Subject": evil, "Text": evil, "Html": evil}
    post_bulk(stub, bulk(entry("page@example.com"), content=content))
    index = ask(stub, "GET", "/?to=page%40")[1]
    assert "&lt;script&gt;" in index
    assert "<script>" not in index
    message_id = stub.messages(limit=1)[0]["message_id"]
    assert f'href="/mail/{message_id}"' in index
    with urlopen(f"{stub.url}/mail/{message_id}", timeout=10) as answer:
        page, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert "<iframe sandbox " in page
    assert "<script>" not in page
    assert "default-src 'none'" in policy
    assert ask(stub, "GET", "/mail/unknown")[0] == 404


def test_the_mailbox_can_be_filtered_limited_and_emptied(stub):
    post_bulk(stub, bulk(*(entry(f"box{n}@example.com") for n in range(5))))
    assert [m["to"] for m in stub.messages(to="box", limit=2)] == ["box4@example.com", "box3@example.com"]
    assert ask(stub, "GET", "/messages?limit=many")[0] == 400
    assert ask(stub, "DELETE", "/messages")[0] == 204
    assert stub.messages() == []


def test_a_seed_repeats_the_same_faults(stub):
    def hit():
        stub.fault({"kind": "bulk_entry_status", "rate": 0.3}, seed=7)
        answers = [json.loads(post_bulk(stub, bulk(*[entry()] * 20))[1]) for _ in range(3)]
        return [r["Status"] for answer in answers for r in answer["BulkEmailEntryResults"]]

    first = hit()
    assert set(first) == {"SUCCESS", "TRANSIENT_FAILURE"}
    assert hit() == first


def test_a_rule_ends_after_its_count_and_concerns_only_what_it_matches(stub):
    stub.fault({"kind": "status", "count": 1, "match": {"to": "*@slow.example", "operation": "SendBulkEmail"}})
    assert [post_bulk(stub, bulk(entry(to)))[0] for to in ("a@b.example", "a@slow.example")] == [200, 503]
    assert post_bulk(stub, bulk(entry("a@slow.example")))[0] == 200


def test_faults_end_when_they_are_deleted(stub):
    stub.fault({"kind": "status"})
    assert ask(stub, "DELETE", "/faults")[0] == 204
    assert post_bulk(stub, bulk())[0] == 200


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rules": [{"kind": "flood"}]}, "'flood' is none of latency, status"),
        ({"rules": [{"kind": "status", "rate": "often"}]}, "rate: a number"),
        ({"rules": [{"kind": "status", "colour": 1}]}, "colour"),
        ({"rules": [{"kind": "status", "match": {"from": "x"}}]}, "match: an object"),
        ({"rules": ["silence"]}, "each rule is an object"),
        ({"rules": [{"kind": "refuse"}]}, "refuse: needs seconds"),
        ({"rules": [{"kind": "refuse", "seconds": 1, "match": {"to": "x"}}]}, "takes nothing else"),
        ([], "An object is expected"),
        (b"{", "Expecting"),
    ],
)
def test_a_fault_that_cannot_be_meant_is_refused_with_its_remedy(stub, given, words):
    status, answer = ask(stub, "POST", "/faults", given)
    assert status == 400
    assert words in answer


def test_every_error_of_a_fault_is_the_models_for_the_client(stub, client):
    stub.fault({"kind": "status", "status": 429, "error": "TooManyRequestsException", "message": "slow"})
    with pytest.raises(ClientError) as caught:
        client.send_bulk_email(**bulk())
    assert isinstance(caught.value, client.exceptions.TooManyRequestsException)


def test_a_refusal_of_the_service_may_hide_that_the_mail_was_taken(stub):
    stub.fault({"kind": "status", "status": 503, "accept": True})
    before = stub.stats()["accepted"]
    assert post_bulk(stub, bulk(entry(), entry()))[0] == 503
    assert stub.stats()["accepted"] == before + 2


def test_rules_may_be_in_force_from_the_start(tmp_path):
    rules = json.dumps([{"kind": "status", "status": 500}])
    command = [sys.executable, "-m", "stubs.ses", "--until-stdin-closes", "--faults", rules]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().split()[-1]
        try:
            assert post_bulk(RunningStub(url, process), bulk())[0] == 500
        finally:
            process.terminate()
