"""Settings of the whole service, read top to bottom.

Every value comes from the environment or has a default that works on a laptop with nothing set: without
``DATABASE_URL``, ``BROKER_URL`` and ``COUNTERS_URL`` private servers are started under ``.local/`` (see
``scheduler_project.local``). With ``DATABASE_URL`` given this is taken for a deployment, which must set ``SECRET_KEY``.
"""

import os
import ssl
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from zoneinfo import reset_tzpath

import dj_database_url
import structlog
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy
from environs import Env, validate

from scheduler_project.demo import environment as demo
from scheduler_project.local import services
from scheduler_project.logging import configure as configure_logging

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()

# Zone data comes from the pinned tzdata package alone: the system's copy may be a year old.
reset_tzpath(to=())

# --- Where things run -------------------------------------------------------------------------------------------------
LOCAL_DIR: Path = env.path("LOCAL_DIR", default=BASE_DIR / ".local")
_GIVEN = {
    "database": env.str("DATABASE_URL", default=""),
    "broker": env.str("BROKER_URL", default=""),
    "counters": env.str("COUNTERS_URL", default=""),
}
_MISSING = frozenset(name for name, url in _GIVEN.items() if not url)
if _MISSING:
    _LOCAL = services.ensure(root=LOCAL_DIR, need=_MISSING)
    _URLS = {name: url or getattr(_LOCAL, name) for name, url in _GIVEN.items()}
else:
    _URLS = _GIVEN
DATABASE_URL: str = _URLS["database"]
BROKER_URL: str = _URLS["broker"]
COUNTERS_URL: str = _URLS["counters"]
if len(_MISSING) == len(_GIVEN):
    # While a demo runs on these servers, every command is part of it: its test clock, its providers.
    demo.join(LOCAL_DIR)

# --- Django -----------------------------------------------------------------------------------------------------------
DEBUG: bool = env.bool("DEBUG", default=False)
if "database" in _MISSING and "SECRET_KEY" not in os.environ:
    SECRET_KEY = services.secret(root=LOCAL_DIR, name="secret_key")
else:
    SECRET_KEY = env.str("SECRET_KEY")
# Former ones, separated by commas: with them sessions and forms that are open stay good (SESSION_HOURS), and links to
# unsubscribe in messages that were sent, for 60 days at least (docs/consent.md).
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", default=[])
# Under which erased people are remembered, so that no import brings them back. Another key has forgotten all of them,
# so it isn't changed with SECRET_KEY, which stands in where none is given.
if "database" in _MISSING and "ERASURE_KEY" not in os.environ:
    ERASURE_KEY = services.secret(root=LOCAL_DIR, name="erasure_key")
else:
    ERASURE_KEY = env.str("ERASURE_KEY", default="") or SECRET_KEY
    if SECRET_KEY_FALLBACKS and not env.str("ERASURE_KEY", default=""):
        raise ImproperlyConfigured(
            "SECRET_KEY is changed and ERASURE_KEY is not set: everybody who was erased would be forgotten, and imports"
            " would bring them back. Set ERASURE_KEY to the SECRET_KEY of before, and keep it."
        )
# Under which addresses, device tokens and messages lie in the database: the first one encrypts, the others still
# decrypt. Each is 32 bytes, as base64 or hexadecimal digits, and so is the key by which equal addresses and tokens are
# found. Or all come from what ENCRYPTION_KEYSET names (schedules.encryption.Keys).
if "database" in _MISSING and "ENCRYPTION_KEYS" not in os.environ:
    ENCRYPTION_KEYS = [services.secret(root=LOCAL_DIR, name="encryption_key")]
    BLIND_INDEX_KEY = services.secret(root=LOCAL_DIR, name="blind_index_key")
else:
    ENCRYPTION_KEYS = env.list("ENCRYPTION_KEYS", default=[])
    BLIND_INDEX_KEY = env.str("BLIND_INDEX_KEY", default="")
ENCRYPTION_KEYSET: str = env.str("ENCRYPTION_KEYSET", default="schedules.encryption.from_settings")
# With which the user service signs what it calls /hooks/user-service for: whsec_ and base64. None, no such address.
USER_SERVICE_HOOK_SECRET: str = env.str("USER_SERVICE_HOOK_SECRET", default="")
# Who answers audiences in the place of the profiles kept here (docs/contracts/README.md): its address, the bearer token
# that it takes, seconds that an answer may take, people in a page.
USER_SERVICE_URL: str = env.str("USER_SERVICE_URL", default="").rstrip("/")
USER_SERVICE_TOKEN: str = env.str("USER_SERVICE_TOKEN", default="")
USER_SERVICE_TIMEOUT_S: float = env.float(
    "USER_SERVICE_TIMEOUT_S", default=10.0, validate=validate.Range(min=0, min_inclusive=False)
)
USER_SERVICE_PAGE: int = env.int("USER_SERVICE_PAGE", default=10_000, validate=validate.Range(min=1, max=10_000))
# Who renders templates beside those kept here (docs/contracts/README.md): its address, the bearer token that it takes,
# seconds that an answer may take. None, and all templates are ours.
TEMPLATE_SERVICE_URL: str = env.str("TEMPLATE_SERVICE_URL", default="").rstrip("/")
TEMPLATE_SERVICE_TOKEN: str = env.str("TEMPLATE_SERVICE_TOKEN", default="")
TEMPLATE_SERVICE_TIMEOUT_S: float = env.float(
    "TEMPLATE_SERVICE_TIMEOUT_S", default=2.0, validate=validate.Range(min=0, min_inclusive=False)
)
# Where people reach the pages that messages link to, such as https://mail.example.com: without it no message has a link
# to unsubscribe or to a person's preferences.
PUBLIC_URL: str = env.str("PUBLIC_URL", default="").rstrip("/")
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])
# Signs the seals of the audit (Ed25519): 32 bytes, as base64 or hexadecimal digits. Below, public keys of former ones.
if "database" in _MISSING and "AUDIT_SEAL_KEY" not in os.environ:
    AUDIT_SEAL_KEY = services.secret(root=LOCAL_DIR, name="audit_seal_key")
else:
    AUDIT_SEAL_KEY = env.str("AUDIT_SEAL_KEY", default="")
AUDIT_FORMER_KEYS: list[str] = env.list("AUDIT_FORMER_KEYS", default=[])
# Where seals and their rows are exported to: a bucket with Object Lock, at Amazon or at an endpoint of one's own. None,
# no export. Credentials are found as boto3 finds them, or by the profile; nobody removes an object for so many days.
AUDIT_EXPORT_BUCKET: str = env.str("AUDIT_EXPORT_BUCKET", default="")
AUDIT_EXPORT_PREFIX: str = env.str("AUDIT_EXPORT_PREFIX", default="audit/")
AUDIT_EXPORT_ENDPOINT: str = env.str("AUDIT_EXPORT_ENDPOINT", default="")
AUDIT_EXPORT_PROFILE: str = env.str("AUDIT_EXPORT_PROFILE", default="")
AUDIT_EXPORT_DAYS: int = env.int("AUDIT_EXPORT_DAYS", default=365, validate=validate.Range(min=1))
ROOT_URLCONF = "scheduler_project.urls"
WSGI_APPLICATION = "scheduler_project.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "frontend",  # before unfold, whose templates it extends under their own names
    "unfold",
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "axes",
    "corsheaders",
    "django_celery_beat",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_prometheus",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "oauth2_provider",
    "rest_framework",
    "audit",
    "schedules",
    "delivery",
    "scheduler_project",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "frontend.request_ids.RequestIds",
    "scheduler_project.health.Health",
    "frontend.policies.Watched",
    "frontend.policies.ProgramsByHttps",
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "frontend.policies.PrivateAnswers",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "frontend.session_life.SessionLife",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "frontend.verified.Authentication",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
    "frontend.api.paths.EncodedSlashes",
    "axes.middleware.AxesMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

_DATABASE_CONFIG = dj_database_url.parse(DATABASE_URL, conn_max_age=60, conn_health_checks=True)
if "database" in _MISSING and env.bool("AS_APPLICATION", default=False):
    # As in a deployment: a role that can add to the audit and not change it (audit.roles), made when the demo begins.
    _DATABASE_CONFIG |= {"USER": "notification_app", "PASSWORD": services.secret(root=LOCAL_DIR, name="app_password")}
DATABASES = {
    "default": {
        **_DATABASE_CONFIG,
        "OPTIONS": {
            "connect_timeout": 5,
            "application_name": env.str("APPLICATION_NAME", default="notification-scheduler"),
            **_DATABASE_CONFIG.get("OPTIONS", {}),
        },
        # PgBouncer in transaction mode gives no session: cursors live in one transaction only.
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }
}

# Words of one's own organisation that no password may live by, beside the service's own and those of ALLOWED_HOSTS.
PASSWORD_WORDS: list[str] = env.list("PASSWORD_WORDS", default=[])
AUTH_PASSWORD_VALIDATORS = [
    *(
        {"NAME": f"django.contrib.auth.password_validation.{name}"}
        for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
    ),
    {"NAME": "frontend.passwords.OwnWords", "OPTIONS": {"words": [*PASSWORD_WORDS, *ALLOWED_HOSTS]}},
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    "frontend.client_secrets.SecretHasher",  # for the secrets of programs alone
]
# The first lets nobody in; it refuses who has failed too often. OAuth2TokenMiddleware must stay out: axes would take
# each valid token of a service for a failed sign-in.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "frontend.verified.Backend"]
# Roles whose people must have a second factor; everybody else may.
SECOND_FACTOR_REQUIRED_FOR: list[str] = env.list(
    "SECOND_FACTOR_REQUIRED_FOR", default=[], validate=validate.ContainsOnly(("MARKETER", "ADMIN", "ANALYST"))
)
OTP_TOTP_ISSUER = "Notification scheduler"
OTP_TOTP_SYNC = False  # phones know the time; a code of the steps before and after is taken in any case
OTP_TOTP_THROTTLE_FACTOR = 0  # tries are counted with those of the password, below
# Wrong passwords and codes in a quarter of an hour: of one account, and from one address, at which an office may sit.
AXES_FAILURE_LIMIT = 10
SIGN_IN_TRIES_PER_ADDRESS: int = env.int("SIGN_IN_TRIES_PER_ADDRESS", default=100, validate=validate.Range(min=10))
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = ["username", "ip_address"]
AXES_RESET_ON_SUCCESS = False  # or who knows one password would have tries without end from his address
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # or a stranger could keep an owner out for good
AXES_HANDLER = "frontend.sign_in_limits.Handler"
AXES_CLIENT_IP_CALLABLE = "frontend.sign_in_limits.client_address"
AXES_LOCKOUT_CALLABLE = "frontend.sign_in_limits.refused"
AXES_ENABLE_ADMIN = False
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = [
    *("username", "ip_address", "csrfmiddlewaretoken", "next", "code", "offer"),
    *("old_password", "new_password1", "new_password2"),
]
# Whose X-Forwarded-For is believed: addresses or networks, separated by commas.
TRUSTED_PROXIES: list[IPv4Network | IPv6Network] = [
    ip_network(each) for each in env.list("TRUSTED_PROXIES", default=[], subcast=str)
]
# Addresses that users and strangers may set are called where the public internet is, by https at these ports. Networks,
# separated by commas: where an organisation's own hosts may be called, at every port and by http too, and where public
# numbers are its own and must not be.
OUTGOING_PORTS: list[int] = env.list("OUTGOING_PORTS", default=[443], subcast=int)
OUTGOING_ALLOWED_NETWORKS: list[IPv4Network | IPv6Network] = [
    ip_network(each) for each in env.list("OUTGOING_ALLOWED_NETWORKS", default=[], subcast=str)
]
OUTGOING_REFUSED_NETWORKS: list[IPv4Network | IPv6Network] = [
    ip_network(each) for each in env.list("OUTGOING_REFUSED_NETWORKS", default=[], subcast=str)
]
# Whom to write to about a weakness, for /.well-known/security.txt: mailto: and https: addresses, separated by commas.
SECURITY_CONTACT: list[str] = env.list("SECURITY_CONTACT", default=[], subcast=str)
LOGIN_URL = "/admin/login/"
LOGIN_REDIRECT_URL = "/"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True

STATIC_URL = "static/"
# Where collectstatic gathers files for a server of static files; without it whitenoise finds them where they lie.
STATIC_ROOT: str | None = env.str("STATIC_ROOT", default="") or None
WHITENOISE_USE_FINDERS = True

CSRF_FAILURE_VIEW = "frontend.pages.errors.stale_form"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = env.bool("HTTPS", default=False)
SECURE_SSL_REDIRECT: bool = env.bool("HTTPS", default=False)
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]  # asked for within the network; the proxy in front keeps others from it
# A session ends so long after its last request, and so long after signing in.
SESSION_IDLE_MINUTES: int = env.int("SESSION_IDLE_MINUTES", default=60, validate=validate.Range(min=1))
SESSION_HOURS: int = env.int("SESSION_HOURS", default=24, validate=validate.Range(min=1))
SESSION_COOKIE_AGE = SESSION_HOURS * 3600
# By this prefix browsers hold a cookie to this host, this path and https (RFC 6265bis); over http it would be dropped.
COOKIE_PREFIX = "__Host-" if SESSION_COOKIE_SECURE else ""
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid", f"{COOKIE_PREFIX}csrftoken"
CSRF_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_NAME = f"{COOKIE_PREFIX}django_language"
LANGUAGE_COOKIE_SECURE, LANGUAGE_COOKIE_HTTPONLY, LANGUAGE_COOKIE_SAMESITE = SESSION_COOKIE_SECURE, True, "Lax"
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
SECURE_HSTS_SECONDS: int = env.int("HSTS_SECONDS", default=0)
# Hosts below this one's name too: only where each of them speaks https, for browsers keep to it for all that time.
SECURE_HSTS_INCLUDE_SUBDOMAINS: bool = env.bool("HSTS_SUBDOMAINS", default=False)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_PROXY", default=False) else None
X_FRAME_OPTIONS = "SAMEORIGIN"
# Of our own pages; whoever needs another says why in frontend.policies.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "frame-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [SELF],
        "img-src": [SELF, "data:"],
        "base-uri": [NONE],
        "object-src": [NONE],
        "report-uri": ["/policy-reports"],
    }
}

UNFOLD = {
    "SITE_TITLE": "Notification scheduler",
    "SITE_HEADER": "Notification scheduler",
    "SITE_SYMBOL": "schedule_send",
    "SHOW_HISTORY": False,  # the audit knows who changed what
    "ACCOUNT": {
        "navigation": [
            {"title": gettext_lazy("Your account"), "link": reverse_lazy("account")},
            {"title": gettext_lazy("Change password"), "link": reverse_lazy("admin:password_change")},
        ]
    },
}

# --- API --------------------------------------------------------------------------------------------------------------
# Requests of one client: so many a second on average, and at most so many at once after a pause.
API_RATE: float = env.float("API_RATE", default=200.0)
API_BURST: int = env.int("API_BURST", default=600)
# Sites whose pages may show a person's inbox, https://shop.example each, separated by commas: their scripts read it
# with the person's token. No cookie is ever taken for one, and nothing else is open to them.
CORS_ALLOWED_ORIGINS: list[str] = env.list("INBOX_ORIGINS", default=[])
CORS_URLS_REGEX = r"^/api/v1/(inbox|me/inbox/)"
CORS_ALLOW_METHODS = ["GET", "POST"]
CORS_ALLOW_HEADERS = ["authorization", "content-type", "last-event-id"]
CORS_EXPOSE_HEADERS = ["retry-after", "x-request-id"]
CORS_PREFLIGHT_MAX_AGE = 7_200
# Streams of inboxes that a process holds (manage.py serve_streams), and of one person: a page in sight has one.
INBOX_STREAMS: int = env.int("INBOX_STREAMS", default=2_000, validate=validate.Range(min=1))
INBOX_STREAMS_PER_PERSON: int = env.int("INBOX_STREAMS_PER_PERSON", default=10, validate=validate.Range(min=1))
REST_FRAMEWORK = {
    "EXCEPTION_HANDLER": "frontend.api.problems.exception_handler",
    "DEFAULT_SCHEMA_CLASS": "frontend.api.documents.Document",
    # A service's token has no person; what it may is asked by the view's permission.
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "notification-scheduler",
    "VERSION": "1",
    "DESCRIPTION": "Schedule notifications, and learn exactly who got what, when, and why not.",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "ChannelEnum": "schedules.models.Channel.values",
        "ScheduleStatusEnum": "schedules.models.ScheduleStatus.values",
        "NewScheduleStatusEnum": ["active", "draft"],
        "OccurrenceStateEnum": "schedules.models.OccurrenceState.values",
        "DeliveryStateEnum": "delivery.models.State.labels",
        "UserServiceReasonEnum": ["user_service_away", "user_service_refused"],
    },
    "WEBHOOKS": [
        f"frontend.api.webhooks.{name}"
        for name in ("schedule_changed", "run_started", "run_finished", "settled", "reported", "test")
    ],
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "frontend.api.documents.strict_requests",
        "frontend.api.documents.answers_as_they_are",
    ],
}
OAUTH2_PROVIDER_APPLICATION_MODEL = "frontend.Client"
OAUTH2_PROVIDER = {
    "OAUTH2_VALIDATOR_CLASS": "frontend.sign_in.Validator",
    "CLIENT_SECRET_HASHER": "pbkdf2_secret",
    "SCOPES_BACKEND_CLASS": "frontend.scopes.ClientScopes",
    "SCOPES": {
        "notification:read": "Read schedules, recipients and what became of every message",
        "notification:write": "Change schedules, recipients and templates, and send",
        "inbox": "Read your own messages",
    },
    "ACCESS_TOKEN_EXPIRE_SECONDS": env.int("ACCESS_TOKEN_S", default=900),
    "REFRESH_TOKEN_EXPIRE_SECONDS": env.int("REFRESH_TOKEN_S", default=14 * 24 * 3600),
    "ROTATE_REFRESH_TOKEN": True,
    "REFRESH_TOKEN_REUSE_PROTECTION": True,
    "PKCE_REQUIRED": True,
    # A redirect to plain http is for a program on the developer's own machine.
    "ALLOWED_REDIRECT_URI_SCHEMES": ["https", "http"] if "database" in _MISSING else ["https"],
    "OAUTH2_RESPONSE_TYPES_SUPPORTED": ["code"],
    "OAUTH2_GRANT_TYPES_SUPPORTED": ["authorization_code", "client_credentials", "refresh_token"],
    # RFC 9700: no implicit or password grant, PKCE by S256 alone, tokens in the header alone and hashed at rest.
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
    "COMPLIANT_BCP_RFC9700_REFRESH_TOKEN": True,
    "COMPLIANT_BCP_RFC9700_REDIRECT_URI_MATCHING": True,
    "COMPLIANT_BCP_RFC9700_PKCE_REQUIRED": True,
}

# --- Celery -----------------------------------------------------------------------------------------------------------
# A message is a hint, the row is the truth: late acknowledgement and one prefetched message keep a killed worker's
# share small, and the sweep publishes again what nobody holds.
CELERY_BROKER_URL = BROKER_URL
# Without this kombu takes any certificate. Options in the address itself (ssl_ca_certs) come in its place, and then
# redis-py asks for a valid one.
CELERY_BROKER_USE_SSL = {"ssl_cert_reqs": ssl.CERT_REQUIRED} if BROKER_URL.startswith("rediss:") else None
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    # Which process a connection is, in CLIENT LIST.
    "client_name": env.str("APPLICATION_NAME", default="notification-scheduler").replace(" ", "-"),
    "visibility_timeout": env.int("VISIBILITY_TIMEOUT_S", default=900),
    "socket_timeout": 15,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 15,
}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_RESULT_EXPIRES = None  # there are none, and beat would make an entry that throws them away
CELERY_TASK_STORE_ERRORS_EVEN_IF_IGNORED = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "clock"
CELERY_TASK_CREATE_MISSING_QUEUES = True
CELERY_TASK_TIME_LIMIT = 600
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# A task whose broker is gone goes on: its message may come again, which finds the rows claimed; ending it in the middle
# would leave its calls unclear.
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_BEAT_SCHEDULER = "scheduler_project.beat:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_TIMEZONE = "UTC"

# --- Time -------------------------------------------------------------------------------------------------------------
TEST_CLOCK: bool = env.bool("TEST_CLOCK", default=False)

# --- Scheduling and delivery ------------------------------------------------------------------------------------------
AUDIENCE_STATEMENT_TIMEOUT: int = env.int("AUDIENCE_STATEMENT_TIMEOUT_MS", default=5_000)
MATERIALISE_STATEMENT_TIMEOUT: int = env.int("MATERIALISE_STATEMENT_TIMEOUT_MS", default=300_000)
MATERIALISE_AHEAD_S: int = env.int("MATERIALISE_AHEAD_S", default=60)
PUBLISH_AHEAD_S: float = env.float("PUBLISH_AHEAD_S", default=2.0)
BATCH_SIZE: int = env.int("BATCH_SIZE", default=500)
# Rows that may wait in a channel's queue: enough for the workers until the next tick, few enough that a pause, a
# crash or a flushed broker concerns seconds of work.
PUBLISH_WINDOW_ROWS: int = env.int("PUBLISH_WINDOW_ROWS", default=20_000)
CALLS_IN_FLIGHT: int = env.int("CALLS_IN_FLIGHT", default=4)
# Seconds before the first of three retries; each further one waits four times as long.
RETRY_FIRST_DELAY_S: float = env.float("RETRY_FIRST_DELAY_S", default=10.0)
# Seconds in which a late answer may still tell what an unanswered call came to; then it has failed.
UNKNOWN_S: float = env.float("UNKNOWN_S", default=900.0)
# The failure brake holds an occurrence when at least so many of its latest outcomes are failures, and at least this
# share of them; and when its audience is more than so many times that of the one before.
BRAKE_FAILURES: int = env.int("BRAKE_FAILURES", default=500)
BRAKE_SHARE: float = env.float("BRAKE_SHARE", default=0.5)
BRAKE_GROWTH: float = env.float("BRAKE_GROWTH", default=10.0)
LEDGER_RETENTION_DAYS: int = env.int("LEDGER_RETENTION_DAYS", default=60)
# Of what subscribers were told, and what came of it; a failed event can be sent again for so long.
EVENT_RETENTION_DAYS: int = env.int("EVENT_RETENTION_DAYS", default=30, validate=validate.Range(min=7))
# Above so many people the wizard asks for the schedule's name to be typed before it is activated.
CONFIRM_AUDIENCE: int = env.int("CONFIRM_AUDIENCE", default=10_000)
# People a second whom a forecast reckons with: what two cores were seen to send (README, Speed), or what the account of
# the provider admits.
# People a second at most, by channel, whatever its provider's account allows; unset: no such limit.
MOST_PER_S: dict[str, float | None] = {
    "email": env.float("EMAIL_MOST_PER_S", default=None, validate=validate.Range(min=0, min_inclusive=False)),
    "push": env.float("PUSH_MOST_PER_S", default=None, validate=validate.Range(min=0, min_inclusive=False)),
}
SEND_RATE_PER_S: dict[str, float] = {
    "email": env.float("EMAIL_RATE_PER_S", default=4_300.0, validate=validate.Range(min=0, min_inclusive=False)),
    "push": env.float("PUSH_RATE_PER_S", default=3_200.0, validate=validate.Range(min=0, min_inclusive=False)),
    "in_app": env.float("IN_APP_RATE_PER_S", default=11_700.0, validate=validate.Range(min=0, min_inclusive=False)),
}

# --- Providers --------------------------------------------------------------------------------------------------------
# The provider of each channel, by the names in delivery.providers.registry.
PROVIDERS: dict[str, str] = {
    "email": env.str("EMAIL_PROVIDER", default="outbox"),
    "push": env.str("PUSH_PROVIDER", default="outbox"),
    "in_app": "in_app",
}
EMAIL_FROM: str = env.str("EMAIL_FROM", default="Notification scheduler <no-reply@example.com>")
AWS_REGION: str = env.str("AWS_REGION", default="eu-central-1")
SES_CONFIGURATION_SET: str = env.str("SES_CONFIGURATION_SET", default="")
# What SES tells of messages afterwards (docs/provider-events.md): topics of SNS, separated by commas, whose calls of
# /hooks/ses are taken, and a queue of SQS from which manage.py poll_ses_events takes them. None, nothing is heard.
SNS_TOPICS: list[str] = env.list("SNS_TOPICS", default=[])
SES_EVENTS_QUEUE_URL: str = env.str("SES_EVENTS_QUEUE_URL", default="")
# Authorities of which one must stand behind the certificate that SNS signs with; without, its download by https does.
SNS_CA_FILE: str = env.str("SNS_CA_FILE", default="")
# A double of SNS in the place of Amazon's.
SNS_ENDPOINT: str = env.str("SNS_ENDPOINT", default="").rstrip("/")
# A service account's JSON or the path of its file; without it Google's default credentials, which need FCM_PROJECT.
FCM_CREDENTIALS: str = env.str("FCM_CREDENTIALS", default="")
FCM_PROJECT: str = env.str("FCM_PROJECT", default="")
FCM_ENDPOINT: str = env.str("FCM_ENDPOINT", default="https://fcm.googleapis.com")
FCM_CONNECTIONS: int = env.int("FCM_CONNECTIONS", default=64)  # requests at once, per process
# Messages a minute that the project's quota allows, 600,000 unless Google has raised it; 0: as many as one likes.
FCM_PER_MINUTE: int = env.int("FCM_PER_MINUTE", default=600_000, validate=validate.Range(min=0))
# smtps://host, submission://host for STARTTLS, smtp://host in clear, with user:password@ in front; and an authority.
SMTP_URL: str = env.str("SMTP_URL", default="")
SMTP_CA_FILE: str = env.str("SMTP_CA_FILE", default="")
# A program of one's own that takes messages; what it is sent is signed with the secret, whsec_ and base64.
WEBHOOK_URL: str = env.str("WEBHOOK_URL", default="")
WEBHOOK_SECRET: str = env.str("WEBHOOK_SECRET", default="")
WEBHOOK_CONNECTIONS: int = env.int("WEBHOOK_CONNECTIONS", default=16)

# --- Logging ----------------------------------------------------------------------------------------------------------
LOGGING_CONFIG = None
configure_logging(level=env.str("LOG_LEVEL", default="INFO"), as_json=env.bool("LOG_JSON", default=True))
structlog.get_logger("settings").debug("settings_loaded", embedded=sorted(_MISSING))
