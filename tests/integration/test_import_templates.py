"""Importing templates and catalogues, and the command."""

import io
import json
from datetime import UTC, datetime

import pytest
from django.core.management import CommandError, call_command

from audit.models import AuditEvent
from schedules.imports.templates import import_templates
from schedules.models import Catalogue, MessageTemplate

pytestmark = pytest.mark.django_db

NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)
EMAIL = {"channel": "email", "locale": "en", "subject": "Hello {{ first_name }}", "text": "Welcome."}
PUSH = {"channel": "push", "locale": "en", "subject": "Hello"}
WELCOME = {"name": "welcome", "contents": [EMAIL, PUSH]}
GERMAN = {"locale": "de", "messages": {"hello": "Hallo", "items": {"one": "{count} Ding", "other": "{count} Dinge"}}}


@pytest.fixture
def bring(tmp_path):
    """Writes each value to a file of its name below a folder, and imports the folder."""

    def bring(files, **options):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return import_templates(paths=[tmp_path], by="user:1", now=NOON, **options)

    return bring


def with_content(**changes):
    """A template of one e-mail with these parts changed; None takes a part away."""
    parts = {key: value for key, value in {**EMAIL, **changes}.items() if value is not None}
    return {"name": "t", "contents": [parts]}


def test_a_folder_of_templates_and_catalogues_is_published(bring):
    report = bring(
        {"welcome.json": WELCOME, "more/german.json": GERMAN, ".hidden/x.json": b"garbage", "notes.txt": b"x"}
    )
    assert report.problems == []
    assert report.published == ["catalogue de", "template welcome"]
    template = MessageTemplate.objects.get(name="welcome")
    assert (template.version, template.default_locale) == (1, "en")
    assert [(each.channel, each.subject) for each in template.contents.all()] == [
        ("email", "Hello {{ first_name }}"),
        ("push", "Hello"),
    ]
    assert Catalogue.objects.get(locale="de").messages == GERMAN["messages"]
    assert set(AuditEvent.objects.values_list("action", "actor_id", "created_at")) == {
        ("template.publish", "user:1", NOON),
        ("catalogue.save", "user:1", NOON),
    }


def test_what_says_nothing_new_is_left_alone_and_what_does_becomes_a_version(bring):
    bring({"welcome.json": WELCOME, "german.json": GERMAN})
    report = bring({"welcome.json": {**WELCOME, "contents": [EMAIL]}})
    assert (report.published, report.unchanged) == (["template welcome"], ["catalogue de"])
    template = MessageTemplate.objects.get(name="welcome")
    assert template.version == 2
    assert template.contents.count() == 1
    assert bring({}).published == []


def test_texts_may_stand_in_files_beside(bring):
    content = with_content(text=None, text_file="texts/t.txt", html_file="texts/t.html")
    bring({"a/t.json": content, "a/texts/t.txt": b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", "a/texts/t.html": b"<p>Hi</p>\n"})
    saved = MessageTemplate.objects.get(name="t").contents.get()
    assert (saved.text, saved.html) == ("Grüße", "<p>Hi</p>\n")


def test_one_problem_keeps_everything_out_and_all_problems_are_told(bring, tmp_path):
    broken = {**WELCOME, "name": "broken", "contents": [EMAIL, {**EMAIL, "locale": "de", "subject": "{{ name"}]}
    report = bring({"a.json": WELCOME, "b.json": broken, "c.json": {"locale": "de", "messages": {"x/y": 5}}})
    assert [(problem.file.name, problem.pointer) for problem in report.problems] == [
        ("b.json", "/contents/1/subject"),
        ("c.json", "/messages/x~1y"),
    ]
    assert not MessageTemplate.objects.exists()
    assert not AuditEvent.objects.exists()


def test_a_dry_run_finds_problems_and_keeps_nothing(bring):
    report = bring({"a.json": WELCOME}, dry_run=True)
    assert (report.published, report.problems) == (["template welcome"], [])
    assert not MessageTemplate.objects.exists()


@pytest.mark.parametrize(
    ("content", "pointer", "words"),
    [
        (b"", "", "is no JSON (Expecting value"),
        (b'{\n "name": }', "", "is no JSON (Expecting value, line 2, column 10)"),
        (b'{"name": "\\u0000", "contents": []}', "", "a NUL character"),
        (b'{"name": "\\ud800", "contents": []}', "", "half a surrogate pair"),
        ("{}ü".encode("cp1252"), "", "is not valid UTF-8 (line 1): save it as UTF-8"),
        (b"[" * 100_000, "", "nested too deep"),
        (b'"' + b"x" * 21_000_000 + b'"', "", "is larger than 20,971,520 bytes"),
        ([WELCOME], "", "is no template ({name, contents}), no catalogue"),
        ({"name": "x"}, "", "add what is missing"),
        ({"contents": [EMAIL]}, "/name", "is missing"),
        ({"name": "", "contents": [EMAIL]}, "/name", "has 0 characters: 1 to 200 are needed"),
        ({"name": "x" * 201, "contents": [EMAIL]}, "/name", "has 201 characters"),
        ({"name": 5, "contents": [EMAIL]}, "/name", "is no text"),
        ({**WELCOME, "subject": "x"}, "/subject", "is unknown: use name, default_locale, contents"),
        ({**WELCOME, "default_locale": "x" * 36}, "/default_locale", "has 36 characters"),
        ({**WELCOME, "default_locale": "fr"}, "/contents", "Add email content in fr"),
        ({"name": "t", "contents": {}}, "/contents", "is no list"),
        ({"name": "t", "contents": []}, "/contents", "at least one channel"),
        ({"name": "t", "contents": ["x"]}, "/contents/0", "is no object"),
        ({"name": "t", "contents": [EMAIL, PUSH, EMAIL]}, "/contents/2", "stand twice"),
        (with_content(channel="sms"), "/contents/0/channel", "email, push, in_app"),
        (with_content(channel=None), "/contents/0/channel", "is missing"),
        (with_content(locale="english"), "/contents/0/locale", "Use a locale such as"),
        (with_content(locale="de-" + "x" * 40), "/contents/0/locale", "has 43 characters: 1 to 35"),
        (with_content(subject="a\nb"), "/contents/0/subject", "one line"),
        (with_content(subject=""), "/contents/0/subject", "needs a subject"),
        (with_content(text=5), "/contents/0/text", "is no text"),
        (with_content(body="x"), "/contents/0/body", "is unknown: use channel, locale"),
        (with_content(html="{% for x in y %}"), "/contents/0/html", "line 1"),
        (with_content(html_file="none.html"), "/contents/0/html_file", "names none.html, which can't be read: No such"),
        (with_content(html_file="../x.html"), "/contents/0/html_file", "leads out of the folder"),
        (with_content(html_file="/etc/passwd"), "/contents/0/html_file", "leads out of the folder"),
        (with_content(text_file="x.txt"), "/contents/0/text_file", "is given besides text"),
        ({**GERMAN, "locale": "klingon"}, "/locale", "is no known locale"),
        ({**GERMAN, "locale": 5}, "/locale", "is no text"),
        ({"locale": "de", "messages": []}, "/messages", "is an object of messages"),
        ({"locale": "de", "messages": {"a": {"one": "x"}}}, "/messages/a", 'need "other"'),
        ({**GERMAN, "name": "x"}, "/name", "is unknown: use locale, messages"),
    ],
)
def test_a_problem_is_told_with_its_place_and_remedy(bring, content, pointer, words):
    report = bring({"t.json": content})
    assert (pointer, True) in [(problem.pointer, words in problem.message) for problem in report.problems]
    assert report.published == []
    assert not MessageTemplate.objects.exists()
    assert not Catalogue.objects.exists()


def test_a_problem_of_a_text_beside_is_told_of_the_key_that_names_it(bring):
    content = with_content(text=None, html_file="t.html")
    (problem,) = bring({"t.json": content, "t.html": b"{% if %}"}).problems
    assert problem.pointer == "/contents/0/html_file"
    (problem,) = bring({"t.json": content, "t.html": b"a\0b"}).problems
    assert (problem.pointer, "NUL" in problem.message) == ("/contents/0/html_file", True)
    (problem,) = bring({"t.json": content, "t.html": b"a\n\xff"}).problems
    assert problem.message == "names t.html, which is not valid UTF-8 (line 2): save it as UTF-8"


def test_a_link_that_leads_out_of_the_folder_is_refused(bring, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.html").write_text("secret")
    (tmp_path / "inner" / "t.html").symlink_to(tmp_path / "secret.html")
    (problem,) = bring({"inner/t.json": with_content(html_file="t.html")}).problems
    assert "leads out of the folder" in problem.message


def test_two_files_for_one_template_or_catalogue_are_a_problem(bring, tmp_path):
    report = bring({"a.json": WELCOME, "b.json": WELCOME, "c.json": GERMAN, "d.json": {**GERMAN, "locale": "DE"}})
    assert [(each.file.name, each.message) for each in report.problems] == [
        ("b.json", f"says what {tmp_path / 'a.json'} says already: keep one of the two"),
        ("d.json", f"says what {tmp_path / 'c.json'} says already: keep one of the two"),
    ]


def test_a_file_that_is_named_twice_is_read_once(bring, tmp_path):
    bring({"a.json": WELCOME})
    report = import_templates(paths=[tmp_path, tmp_path / "a.json"], by="user:1", now=NOON)
    assert (report.problems, report.unchanged) == ([], ["template welcome"])


def run(*arguments):
    out = io.StringIO()
    call_command("import_templates", *map(str, arguments), stdout=out)
    return out.getvalue()


def test_the_command_tells_what_it_published(bring, tmp_path):
    bring({"german.json": GERMAN})
    path = tmp_path / "welcome.json"
    path.write_text(json.dumps(WELCOME))
    assert run(path, "--dry-run") == "Would publish: template welcome.\n"
    assert run(tmp_path) == "Published: template welcome.\nUnchanged: catalogue de.\n"
    assert AuditEvent.objects.filter(actor_id="system:import_templates").count() == 1


def test_the_command_lists_every_problem_with_file_and_pointer_and_fails(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(with_content(subject="")))
    out = io.StringIO()
    with pytest.raises(CommandError, match="Problems to correct: 2") as error:
        call_command("import_templates", str(path), str(tmp_path / "none.json"), stdout=out)
    assert error.value.returncode == 1
    assert f"{path} /contents/0/subject: an e-mail needs a subject" in out.getvalue()
    assert f"{tmp_path / 'none.json'}: can't be read: No such file or directory" in out.getvalue()


def test_a_folder_without_json_is_a_problem(tmp_path):
    out = io.StringIO()
    with pytest.raises(CommandError, match="Problems to correct: 1"):
        call_command("import_templates", str(tmp_path), stdout=out)
    assert "holds no .json file" in out.getvalue()
