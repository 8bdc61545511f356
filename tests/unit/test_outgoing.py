"""What the service connects to: every module with a network client, and where its address comes from."""

import ast
from pathlib import Path

from django.apps import apps
from django.db import models
from oauth2_provider.settings import oauth2_settings

from frontend.models import Client

ROOT = Path(__file__).resolve().parents[2]
APPS = ("audit", "schedules", "delivery", "frontend", "scheduler_project")
# Libraries that open connections to an address they are given.
CLIENTS = {
    *("aiohttp", "boto3", "botocore", "ftplib", "google.auth.transport", "http.client", "httpx", "imaplib", "paramiko"),
    *("redis", "requests", "smtplib", "socket", "telnetlib", "urllib.request", "urllib3", "websockets", "xmlrpc"),
}
# The embedded services, the demo and the cluster of one machine connect to this machine alone.
_LOOPBACK = ("scheduler_project/local/", "scheduler_project/demo/", "scheduler_project/cluster/")
# Each with the setting or variable that alone says where to.
OUTGOING = {
    "audit/bucket.py": "AUDIT_EXPORT_ENDPOINT, AWS_REGION, AWS_ENDPOINT_URL_S3",
    "delivery/counters.py": "COUNTERS_URL",
    "delivery/counts.py": "none: its own host's name",
    "delivery/events/sqs.py": "AWS_REGION, AWS_ENDPOINT_URL_SQS",
    "delivery/providers/google_token.py": "FCM_CREDENTIALS",
    "delivery/providers/pool.py": "FCM_ENDPOINT, WEBHOOK_URL",
    "delivery/providers/ses.py": "AWS_REGION, AWS_ENDPOINT_URL_SESV2",
    "delivery/providers/smtp.py": "SMTP_URL",
    "delivery/providers/wire.py": "none: reads what boto3 has opened",
    "frontend/streams/bridge.py": "none: aiohttp's server, which listens",
    "frontend/streams/server.py": "the same",
    "schedules/bounded.py": "none: reads what others have opened",
    "schedules/outgoing/fetching.py": "whoever writes one: schedules.outgoing.targets judges where it leads",
    "schedules/outgoing/names.py": "the same",
    "schedules/remote/http.py": "USER_SERVICE_URL, TEMPLATE_SERVICE_URL; checks of both: whoever runs them",
    "scheduler_project/brokers.py": "BROKER_URL",
    "scheduler_project/entry.py": "none: its own host's name",
    "scheduler_project/outside/client.py": "URL on the command line: whoever runs smoke or loadtest",
    "scheduler_project/probes.py": "BROKER_URL; the servers of its own container",
    "scheduler_project/tracebacks.py": "none: knows its errors by name",
}


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _is_client(name: str) -> bool:
    return any(name == client or name.startswith(f"{client}.") for client in CLIENTS)


def test_every_network_client_is_known_and_the_guarded_one_alone_takes_addresses_of_others():
    found = set()
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(_LOOPBACK) and any(map(_is_client, _imported(path))):
                found.add(name)
    assert found - OUTGOING.keys() == set(), "where does its address come from? See docs/security.md"
    assert OUTGOING.keys() - found == set()


# What one may hold: in Endpoint where ``schedules.outgoing`` judges before each call; the others are not called.
_KEPT = {"Endpoint.url", "Posting.endpoint", "OutboxMessage.unsubscribe_url"}


def test_no_table_of_ours_holds_another_address_to_connect_to():
    held = [
        f"{model.__name__}.{field.name}"
        for app in APPS
        if apps.is_installed(app)
        for model in apps.get_app_config(app).get_models()
        for field in model._meta.get_fields()
        if isinstance(field, models.URLField) or any(word in field.name for word in ("url", "endpoint", "webhook"))
        if model is not Client
    ]
    assert set(held) == _KEPT


def test_the_oauth_library_is_not_told_to_ask_another_server():
    """It would at an introspection's address, and at a client's id that is one."""
    assert not oauth2_settings.RESOURCE_SERVER_INTROSPECTION_URL
    assert not oauth2_settings.CIMD_ENABLED
