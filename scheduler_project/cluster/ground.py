"""What stands outside of the zones: servers, stubs in the place of providers, and the tables."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scheduler_project.local import services
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.layout import read_json, write_private
from scheduler_project.local.ports import LOOPBACK
from scheduler_project.local.redis import Server, running_server
from scheduler_project.local.redis_cluster import Cluster as RedisCluster
from scheduler_project.local.redis_cluster import running_cluster as running_redis_cluster
from stubs.testing import RunningFcm, RunningStub, running_fcm, running_ses

APP = "notification_app"  # as audit.roles calls it, which needs Django
_PROJECT = Path(__file__).resolve().parents[2]
# Nothing of the user's accounts, servers and proxies comes along.
_NOT_TAKEN = (
    *("AUDIT_EXPORT_", "AWS_", "FCM_", "FIREBASE_", "GOOGLE_", "PG", "OTEL_"),
    *("DATABASE_URL", "BROKER_URL", "COUNTERS_URL", "USER_SERVICE_", "TEMPLATE_SERVICE_", "SMTP_", "WEBHOOK_"),
)
_NO_ACCOUNT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
    "NO_PROXY": f"{LOOPBACK},localhost",
    "no_proxy": f"{LOOPBACK},localhost",
}
_SECRETS = {
    "SECRET_KEY": "secret_key",
    "ERASURE_KEY": "erasure_key",
    "ENCRYPTION_KEYS": "encryption_key",
    "BLIND_INDEX_KEY": "blind_index_key",
    "AUDIT_SEAL_KEY": "audit_seal_key",
}

_PREPARED = """
import os
from django.core.management import call_command
from delivery.tasks import housekeeping
from scheduler_project.demo import accounts
call_command("migrate", interactive=False, verbosity=0)
call_command("grant_roles")
housekeeping()
accounts.open_accounts(password=os.environ["ACCOUNTS_PASSWORD"])
"""


@dataclass(frozen=True)
class Ground:
    """``database`` is PostgreSQL's own address, as the role that owns the tables; ``as_application`` as the other one.

    ``environment`` is the whole environment of the service's processes, but for the database.
    """

    root: Path
    database: str
    broker: Server
    counters: RedisCluster
    ses: RunningStub
    fcm: RunningFcm
    environment: Mapping[str, str]

    @property
    def as_application(self) -> str:
        given = urlsplit(self.database)
        password = services.secret(root=self.root, name="app_password")
        return given._replace(netloc=f"{APP}:{password}@{given.hostname}:{given.port}").geturl()

    @property
    def ses_log(self) -> Path:
        """What the stub of SES took, a JSON line for each message (``stubs.log``)."""
        return self.root / "ses-accepted.ndjson"

    @property
    def fcm_log(self) -> Path:
        return self.root / "fcm-accepted.ndjson"

    @property
    def password(self) -> str:
        """Of the accounts that may sign in to the pages."""
        return services.secret(root=self.root, name="accounts_password")[:12]

    def prepare(self) -> None:
        """Tables up to date, roles, the ledger's days, accounts. Raises LocalServicesError."""
        self.manage("shell", "--no-imports", "-c", _PREPARED)

    def client(self) -> tuple[str, str]:
        """Id and secret of a program that may use the API; made once. Raises LocalServicesError."""
        kept = self.root / "client.json"
        if not kept.exists():
            write_private(kept, self.manage("create_service_client", "cluster", "--json").splitlines()[-1])
        made = read_json(kept)
        return made["client_id"], made["client_secret"]

    def manage(self, *arguments: str) -> str:
        """A command as the tables' owner, past every PgBouncer. Raises LocalServicesError with what it said."""
        password = services.secret(root=self.root, name="app_password")
        given = {
            **self.environment,
            "DATABASE_URL": self.database,
            "APP_DATABASE_PASSWORD": password,
            "ACCOUNTS_PASSWORD": self.password,
        }
        command = [sys.executable, "manage.py", *arguments]
        done = subprocess.run(command, cwd=_PROJECT, env=given, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise LocalServicesError(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()


@contextmanager
def standing(
    root: Path,
    *,
    settings: Mapping[str, str],
    stub: str = "stubs.ses",
    fates: Sequence[Mapping[str, object]] = (),
) -> Iterator[Ground]:
    """Servers and stubs below ``root`` with tables up to date, up to the end of the block.

    Redis and stubs end with the thread that enters it. ``settings`` come in the environment of every process; ``stub``
    is the module of the stub of SES, ``fates`` are the rules of what it tells of messages (``stubs.ses_events``).
    Raises LocalServicesError.
    """
    root.mkdir(parents=True, exist_ok=True)
    database = services.ensure(root=root, need=frozenset({"database"})).database
    with ExitStack() as opened:
        broker = opened.enter_context(running_server(root=root / "redis", name="broker"))
        counters = opened.enter_context(running_redis_cluster(root=root / "redis"))
        options = ["--events", json.dumps(fates), "--no-send-events"]
        ses = opened.enter_context(running_ses(log=root / "ses-accepted.ndjson", module=stub, options=options))
        fcm = opened.enter_context(running_fcm(credentials=root / "fcm.json", log=root / "fcm-accepted.ndjson"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_TAKEN)}
        environment = {
            **kept,
            **_NO_ACCOUNT,
            **{name: services.secret(root=root, name=file) for name, file in _SECRETS.items()},
            "BROKER_URL": broker.url,
            "COUNTERS_URL": ",".join(node.url for node in counters.nodes),
            **ses.variables(),
            "AWS_ENDPOINT_URL_SQS": ses.url,
            "SES_EVENTS_QUEUE_URL": f"{ses.url}/cluster/events",
            **fcm.variables(),
            "BEHIND_PROXY": "true",
            "TRUSTED_PROXIES": f"{LOOPBACK}/32",
            **settings,
        }
        ground = Ground(root, database, broker, counters, ses, fcm, environment)
        ground.prepare()
        yield ground
