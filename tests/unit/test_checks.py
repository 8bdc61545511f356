"""``manage.py check --deploy``: a deployment as it should be passes, and each single fault in it is named."""

import os
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from django.db import OperationalError

from audit import roles
from audit.bucket import Bucket, BucketAway
from delivery.providers import registry
from stubs.google_account import write_account

pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")

OURS = ("scheduler_project.", "delivery.", "audit.", "schedules.", "frontend.", "oauth2_provider.")
KEY = "3f1c5a0e9b7d42688c1f6e5d4a3b2c1d0e9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b"
DATABASE = "postgresql://app@db.example.com/scheduler?sslmode=verify-full&sslrootcert=system"
ENVIRONMENT = {
    "DATABASE_URL": DATABASE,
    "BROKER_URL": "rediss://broker.example.com:6379/0?ssl_ca_certs=/etc/ssl/ca.pem",
    "COUNTERS_URL": "rediss://one.example.com:6379/0,rediss://two.example.com:6379/0",
    "SECRET_KEY": KEY,
    "ENCRYPTION_KEYS": KEY,
    "BLIND_INDEX_KEY": KEY[::-1],
    "AUDIT_SEAL_KEY": KEY,
    "ERASURE_KEY": KEY[1:] + "0",
    "ALLOWED_HOSTS": "notify.example.com",
    "CSRF_TRUSTED_ORIGINS": "https://notify.example.com",
    "HTTPS": "true",
    "HSTS_SECONDS": "31536000",
    "EMAIL_PROVIDER": "ses",
    "PUBLIC_URL": "https://notify.example.com",
    "EMAIL_FROM": "Shop <shop@example.com>",
    "SES_CONFIGURATION_SET": "shop",
    "SNS_TOPICS": "arn:aws:sns:eu-central-1:123456789012:ses-events",
    "PUSH_PROVIDER": "fcm",
}


@pytest.fixture(scope="module")
def account(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("fcm") / "account.json"
    write_account(path, url="https://oauth2.example.com", project="shop")
    return path


@pytest.fixture
def good(settings, monkeypatch, account) -> Any:
    """The settings of a deployment as it should be."""
    for name in [name for name in os.environ if name.startswith("AWS_ENDPOINT_URL")]:
        monkeypatch.delenv(name)
    database = deepcopy(settings.DATABASES)
    database["default"] |= {"HOST": "db.example.com", "OPTIONS": {"sslmode": "verify-full", "sslrootcert": "system"}}
    wanted: Mapping[str, Any] = {
        "DATABASES": database,
        "BROKER_URL": ENVIRONMENT["BROKER_URL"],
        "COUNTERS_URL": ENVIRONMENT["COUNTERS_URL"],
        "SECRET_KEY": KEY,
        "ALLOWED_HOSTS": ["notify.example.com"],
        "CSRF_TRUSTED_ORIGINS": ["https://notify.example.com"],
        "SECURE_SSL_REDIRECT": True,
        "SECURE_HSTS_SECONDS": 31_536_000,
        "SESSION_COOKIE_SECURE": True,
        "CSRF_COOKIE_SECURE": True,
        "PROVIDERS": {"email": "ses", "push": "fcm", "in_app": "in_app"},
        "PUBLIC_URL": "https://notify.example.com",
        "SES_CONFIGURATION_SET": "shop",
        "SNS_TOPICS": ["arn:aws:sns:eu-central-1:123456789012:ses-events"],
        "FCM_CREDENTIALS": str(account),
        "OAUTH2_PROVIDER": settings.OAUTH2_PROVIDER | {"ALLOWED_REDIRECT_URI_SCHEMES": ["https"]},
        "AUDIT_SEAL_KEY": KEY,
        "AUDIT_EXPORT_BUCKET": "audit-of-the-shop",
    }
    monkeypatch.setattr(Bucket, "fault", lambda bucket: "")
    monkeypatch.setattr(roles, "changeable", list)
    for name, value in wanted.items():
        setattr(settings, name, value)
    registry.chain.cache_clear()
    yield settings
    registry.chain.cache_clear()


def _problems() -> list[checks.CheckMessage]:
    found = checks.run_checks(include_deployment_checks=True)
    return [each for each in found if str(each.id).startswith(OURS)]


def test_a_good_deployment_has_no_fault(good):
    assert _problems() == []


def _changed(name: str, **changes: Any) -> Any:
    """The setting ``name``, a dict, with ``changes`` in it."""
    return lambda settings: getattr(settings, name) | changes


def _database(**options: str) -> Any:
    def made(settings: Any) -> Any:
        given = deepcopy(settings.DATABASES)
        given["default"]["OPTIONS"] = {"sslmode": "verify-full", **options}
        return given

    return made


def _policy(**directives: list[str]) -> Any:
    return lambda settings: {"DIRECTIVES": settings.CONTENT_SECURITY_POLICY["DIRECTIVES"] | directives}


# The setting, what is wrong in it (a function makes it from the good settings), the check, and what its hint names.
FAULTS: list[tuple[str, Any, str, str]] = [
    ("DATABASES", _database(sslmode="require"), "E001", "DATABASE_URL"),
    ("DATABASES", _database(sslmode="verify-ca"), "E001", "sslmode=verify-full"),
    ("DATABASES", _database(ssl_min_protocol_version="TLSv1.1"), "E002", "ssl_min_protocol_version"),
    ("BROKER_URL", "redis://broker.example.com:6379/0", "E003", "BROKER_URL"),
    ("COUNTERS_URL", "rediss://one.example.com/0,redis://two.example.com/0", "E003", "COUNTERS_URL"),
    ("BROKER_URL", "rediss://broker.example.com:6379/0?ssl_cert_reqs=none", "E004", "BROKER_URL"),
    ("COUNTERS_URL", "rediss://one.example.com/0?ssl_check_hostname=false", "E004", "COUNTERS_URL"),
    ("FCM_ENDPOINT", "http://fcm.example.com", "E005", "FCM_ENDPOINT"),
    ("USER_SERVICE_URL", "http://users.example.com", "E005", "USER_SERVICE_URL"),
    ("TEMPLATE_SERVICE_URL", "http://templates.example.com", "E005", "TEMPLATE_SERVICE_URL"),
    ("SMTP_URL", "smtp://mail.example.com", "E005", "submission://"),
    ("SES_EVENTS_QUEUE_URL", "http://sqs.example.com/123456789012/events", "E005", "SES_EVENTS_QUEUE_URL"),
    ("SNS_TOPICS", ["ses-events"], "E045", "arn:aws:sns:"),
    ("SNS_TOPICS", ["arn:aws:sqs:eu-central-1:123456789012:ses-events"], "E045", "arn:aws:sns:"),
    ("SNS_ENDPOINT", "https://sns.example.com", "E046", "SNS_ENDPOINT"),
    ("SNS_CA_FILE", "/nowhere/amazon.pem", "E047", "SNS_CA_FILE"),
    ("SECURE_SSL_REDIRECT", False, "E006", "HTTPS=true"),
    ("SECURE_HSTS_SECONDS", 0, "E007", "HSTS_SECONDS"),
    ("SECURE_HSTS_SECONDS", 86_400, "E007", "HSTS_SECONDS"),
    ("SESSION_COOKIE_SECURE", False, "E008", "SESSION_COOKIE_SECURE"),
    ("CSRF_COOKIE_SECURE", False, "E008", "CSRF_COOKIE_SECURE"),
    ("SESSION_COOKIE_HTTPONLY", False, "E009", "SESSION_COOKIE_HTTPONLY"),
    ("CSRF_TRUSTED_ORIGINS", ["http://notify.example.com"], "E010", "CSRF_TRUSTED_ORIGINS"),
    ("CORS_ALLOWED_ORIGINS", ["https://shop.example", "http://shop.example"], "E010", "INBOX_ORIGINS"),
    ("SECURE_PROXY_SSL_HEADER", ("HTTP_X_FORWARDED_PROTO", "https"), "E021", "TRUSTED_PROXIES"),
    ("SECRET_KEY", KEY[:32], "E011", "SECRET_KEY"),
    ("SECRET_KEY", "changeme" * 10, "E011", "SECRET_KEY"),
    ("SECRET_KEY", "django-insecure-" + KEY, "E011", "SECRET_KEY"),
    ("SECRET_KEY_FALLBACKS", ["old"], "E011", "SECRET_KEY_FALLBACKS"),
    ("ERASURE_KEY", KEY, "E022", "ERASURE_KEY"),
    ("DEBUG", True, "E012", "DEBUG"),
    ("PROVIDERS", _changed("PROVIDERS", email="outbox"), "E013", "EMAIL_PROVIDER"),
    ("PROVIDERS", _changed("PROVIDERS", push="outbox"), "E013", "PUSH_PROVIDER"),
    ("ALLOWED_HOSTS", ["notify.example.com", "*"], "E014", "ALLOWED_HOSTS"),
    ("ALLOWED_HOSTS", [], "E014", "ALLOWED_HOSTS"),
    (
        "OAUTH2_PROVIDER",
        _changed("OAUTH2_PROVIDER", ALLOWED_REDIRECT_URI_SCHEMES=["https", "http"]),
        "E015",
        "ALLOWED_REDIRECT_URI_SCHEMES",
    ),
    ("OAUTH2_PROVIDER", _changed("OAUTH2_PROVIDER", ACCESS_TOKEN_EXPIRE_SECONDS=36_000), "E016", "ACCESS_TOKEN_S"),
    ("OAUTH2_PROVIDER", _changed("OAUTH2_PROVIDER", REFRESH_TOKEN_EXPIRE_SECONDS=None), "E017", "REFRESH_TOKEN_S"),
    ("OAUTH2_PROVIDER", _changed("OAUTH2_PROVIDER", ROTATE_REFRESH_TOKEN=False), "E018", "ROTATE_REFRESH_TOKEN"),
    ("AUDIT_SEAL_KEY", "", "E030", "queue clock"),
    ("AUDIT_SEAL_KEY", KEY[:32], "E030", "AUDIT_SEAL_KEY"),
    ("AUDIT_SEAL_KEY", "ab" * 32, "E030", "openssl rand"),
    ("AUDIT_EXPORT_ENDPOINT", "http://s3.example.com", "E032", "AUDIT_EXPORT_ENDPOINT"),
    ("AUDIT_EXPORT_PROFILE", "nobodys", "E033", "nobodys"),
    ("CONTENT_SECURITY_POLICY", None, "E019", "CONTENT_SECURITY_POLICY_REPORT_ONLY"),
    ("CONTENT_SECURITY_POLICY", _policy(**{"script-src": ["'self'", "'unsafe-inline'"]}), "E020", "script-src"),
]


@pytest.mark.parametrize(
    ("name", "wrong", "check", "named"), FAULTS, ids=[f"{check} {name}" for name, _, check, _ in FAULTS]
)
def test_a_single_fault_is_named_with_its_remedy(good, name, wrong, check, named):
    setattr(good, name, wrong(good) if callable(wrong) else wrong)
    found = [each for each in _problems() if str(each.id).startswith("scheduler_project.")]
    assert [each.id for each in found] == [f"scheduler_project.{check}"]
    assert found[0].level == checks.ERROR
    assert named in f"{found[0].msg} {found[0].hint}"
    assert found[0].hint


def test_a_policy_that_is_only_reported_is_a_fault(good):
    good.CONTENT_SECURITY_POLICY_REPORT_ONLY = good.CONTENT_SECURITY_POLICY
    assert _problems() == []
    good.CONTENT_SECURITY_POLICY = None
    assert [each.id for each in _problems()] == ["scheduler_project.E019"]


def test_a_relay_on_the_same_machine_may_be_spoken_to_in_clear(good):
    good.SMTP_URL = "smtp://localhost"
    assert _problems() == []


def test_a_machine_that_users_may_have_called_is_a_fault(good):
    good.OUTGOING_ALLOWED_NETWORKS = [ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8")]
    (found,) = _problems()
    assert (found.id, found.level) == ("schedules.E010", checks.ERROR)


def test_an_address_that_boto3_reads_by_itself_is_looked_at(good, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", "http://10.0.0.1")
    (found,) = _problems()
    assert found.id == "scheduler_project.E005"
    assert "AWS_ENDPOINT_URL_SESV2" in str(found.hint)


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("https://users.example.com", True),
        ("https://users.example.com:8443/below", True),
        ("https://[2001:db8::1]/below", True),
        ("users.example.com", False),
        ("reference", False),
        ("https://", False),
        ("https://me:word" + "@users.example.com", False),
        ("https://users.example.com/?key=word", False),
        ("https://users.example.com:port", False),
        ("https://[2001:db8::1", False),
    ],
)
@pytest.mark.parametrize(("name", "check"), [("USER_SERVICE_URL", "E003"), ("TEMPLATE_SERVICE_URL", "E004")])
def test_an_address_of_a_service_that_nobody_can_call_is_a_fault(good, name, check, url, is_one):
    setattr(good, name, url)
    found = [each for each in _problems() if str(each.id) == f"schedules.{check}"]
    assert bool(found) is not is_one
    assert not any("word" in f"{each.msg} {each.hint}" for each in found)


@pytest.mark.parametrize(
    ("name", "value", "check"), [("SNS_TOPICS", [], "W048"), ("SES_CONFIGURATION_SET", "", "W049")]
)
def test_a_deployment_that_hears_nothing_of_its_messages_is_warned(good, name, value, check):
    setattr(good, name, value)
    (found,) = _problems()
    assert (found.id, found.level) == (f"scheduler_project.{check}", checks.WARNING)
    assert name in str(found.hint)


def test_a_deployment_that_would_send_by_ses_in_need_is_warned_too(good):
    good.PROVIDERS, good.SNS_TOPICS = {**good.PROVIDERS, "email": "smtp, ses"}, []
    good.SMTP_URL = "smtps://mail.example.com"
    registry.chain.cache_clear()
    assert "scheduler_project.W048" in [each.id for each in _problems()]


@pytest.mark.parametrize(
    ("url", "check", "named"),
    [
        ("", "W012", "PUBLIC_URL"),
        ("http://notify.example.com", "E010", "https://"),
        ("notify.example.com", "E010", "https://"),
        ("https://notify.example.com/below?x=1", "E010", "https://"),
        ("https://elsewhere.example.com", "E011", "ALLOWED_HOSTS"),
    ],
)
def test_links_that_lead_people_nowhere_are_named(good, url, check, named):
    good.PUBLIC_URL = url
    (found,) = _problems()
    assert found.id == f"delivery.{check}"
    assert named in str(found.hint)


def test_a_queue_alone_hears_them_too(good):
    good.SNS_TOPICS, good.SES_EVENTS_QUEUE_URL = [], "https://sqs.eu-central-1.amazonaws.com/123456789012/events"
    assert _problems() == []


def test_a_bucket_that_locks_nothing_is_a_fault(good, monkeypatch):
    monkeypatch.setattr(Bucket, "fault", lambda bucket: f"The bucket {bucket.name} has no Object Lock.")
    (found,) = _problems()
    assert (found.id, "audit-of-the-shop has no Object Lock" in found.msg) == ("scheduler_project.E033", True)


def test_a_bucket_that_is_away_stops_nobody(good, monkeypatch):
    def away(bucket):
        raise BucketAway("asking for its Object Lock: timed out")

    monkeypatch.setattr(Bucket, "fault", away)
    (found,) = _problems()
    assert (found.id, found.level) == ("scheduler_project.W034", checks.WARNING)


def test_an_audit_that_is_not_exported_is_warned_of_and_asks_no_bucket(good, monkeypatch):
    monkeypatch.delattr(Bucket, "fault")
    good.AUDIT_EXPORT_BUCKET = ""
    (found,) = _problems()
    assert (found.id, found.level) == ("scheduler_project.W031", checks.WARNING)


def test_a_role_that_could_change_the_audit_is_warned_of(good, monkeypatch):
    monkeypatch.setattr(roles, "changeable", lambda: ["notification_audit"])
    (found,) = _problems()
    assert (found.id, found.level) == ("scheduler_project.W035", checks.WARNING)
    assert "notification_audit" in found.msg
    assert "manage.py grant_roles" in str(found.hint)


def test_a_database_that_is_away_is_not_warned_of(good, monkeypatch):
    def away():
        raise OperationalError("connection refused")

    monkeypatch.setattr(roles, "changeable", away)
    assert _problems() == []


def test_the_test_clock_is_a_fault(good):
    good.TEST_CLOCK = True
    assert [each.id for each in _problems()] == ["delivery.E002"]


def test_a_database_in_a_folder_of_sockets_needs_no_tls(good):
    good.DATABASES["default"] |= {"HOST": "/run/postgresql", "OPTIONS": {}}
    assert _problems() == []


def _checked(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """``check --deploy`` in a process of its own, with nothing but ``environment``."""
    root = Path(__file__).resolve().parents[2]
    given = {"PATH": os.environ["PATH"], "LOG_LEVEL": "ERROR", **environment}
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "ERROR"]
    return subprocess.run(command, cwd=root, env=given, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_passes_with_the_environment_of_the_documentation(account):
    done = _checked(ENVIRONMENT | {"FCM_CREDENTIALS": str(account)})
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if any(f"({each}" in line for each in OURS)]
    assert ["(scheduler_project.W031)" in line for line in told] == [True]  # a bucket would be asked


def test_the_command_refuses_a_laptops_environment():
    laptop = {
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "BROKER_URL": "redis://127.0.0.1:1/0",
        "COUNTERS_URL": "redis://127.0.0.1:1/0",
        "SECRET_KEY": "checks-only",
        "DEBUG": "true",
        "TEST_CLOCK": "true",
        "ACCESS_TOKEN_S": "86400",
        "REFRESH_TOKEN_S": "31536000",
        "ALLOWED_HOSTS": "*",
    }
    done = _checked(laptop)
    assert done.returncode == 1
    numbers = (1, 3, 6, 7, 8, 11, 12, 13, 14, 16, 17, 22, 30)
    for each in (*(f"scheduler_project.E{number:03}" for number in numbers), "delivery.E002"):
        assert f"({each})" in done.stderr


@pytest.mark.parametrize(("secret", "words"), [("whsec_c2hvcnQ=", "can be guessed"), ("whsec_%", "can't be read")])
def test_no_web_server_starts_with_a_secret_of_the_hook_that_can_be_guessed(secret, words):
    given = {"PATH": os.environ["PATH"], **ENVIRONMENT, "USER_SERVICE_HOOK_SECRET": secret}
    command = [sys.executable, "-c", "import scheduler_project.wsgi"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, env=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert words in done.stderr


def test_no_process_starts_with_a_changed_secret_key_that_would_forget_who_was_erased():
    given = {name: value for name, value in ENVIRONMENT.items() if name != "ERASURE_KEY"}
    done = _checked(given | {"SECRET_KEY_FALLBACKS": KEY[::-1]})
    assert done.returncode == 1
    assert "Set ERASURE_KEY to the SECRET_KEY of before" in done.stderr


def test_a_key_of_erasures_that_is_the_secret_key_of_before_is_no_fault(good, monkeypatch):
    good.ERASURE_KEY = KEY
    monkeypatch.setenv("ERASURE_KEY", KEY)
    assert _problems() == []


def test_the_broker_is_asked_for_its_certificate():
    """kombu asks for none where the address says rediss and nothing more."""
    code = (
        "import django; django.setup()\n"
        "from scheduler_project.celery import app\n"
        "print(app.connection_for_write().ssl['ssl_cert_reqs'].name)"
    )
    environment = ENVIRONMENT | {"BROKER_URL": "rediss://broker.example.com/0", "PATH": os.environ["PATH"]}
    environment |= {"DJANGO_SETTINGS_MODULE": "scheduler_project.settings"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "CERT_REQUIRED"
