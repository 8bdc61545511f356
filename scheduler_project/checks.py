"""System checks of a deployment: ``check --deploy`` refuses what would carry data in clear or let strangers in.

Each fault is an Error with an id of its own, so that one may be silenced for a reason by ``SILENCED_SYSTEM_CHECKS``;
its hint names the setting and the remedy. The test clock and the providers' settings are asked by ``delivery.checks``.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.x509 import load_pem_x509_certificates
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.utils.module_loading import import_string

from audit import keys, roles
from delivery.providers import registry

_TOPIC = re.compile(r"arn:aws(-[a-z-]+)?:sns:[a-z0-9-]{3,}:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?", re.ASCII)
_YEAR_S = 365 * 24 * 3600
_HOUR_S = 3600
_MONTH_S = 30 * 24 * 3600
# 256 bits in hexadecimal digits are 64 characters; Django's own keys have 50 out of 50 different signs.
_SECRET_LENGTH = 50
_SECRET_SIGNS = 10
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_OLD_TLS = ("TLSv1", "TLSv1.0", "TLSv1.1")
_UNSAFE = ("'unsafe-inline'", "'unsafe-eval'", "*", "http:", "https:", "data:")
# RFC 9700 in the words of django-oauth-toolkit, and what must be on beside.
_OAUTH_ON = (
    "ROTATE_REFRESH_TOKEN",
    "REFRESH_TOKEN_REUSE_PROTECTION",
    "PKCE_REQUIRED",
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT",
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT",
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD",
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT",
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE",
    "COMPLIANT_BCP_RFC9700_REDIRECT_URI_MATCHING",
)

Faults = Iterator[CheckMessage]


def check_deployment(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """Every fault of every rule below."""
    return [fault for rule in RULES for fault in rule()]


def _error(number: int, said: str, hint: str) -> CheckMessage:
    return Error(said, hint=hint, id=f"scheduler_project.E{number:03}")


# --- In transit -------------------------------------------------------------------------------------------------------
def database_is_verified() -> Faults:
    """E001, E002. A socket in a folder goes over no network, and PostgreSQL has no TLS there."""
    given: dict[str, Any] = settings.DATABASES["default"]
    if str(given.get("HOST", "")).startswith("/"):
        return
    options = given.get("OPTIONS", {})
    mode = options.get("sslmode", "not set")
    if mode != "verify-full":
        yield _error(
            1,
            f"The connection to PostgreSQL may be read or answered by others: sslmode is {mode}.",
            "Add sslmode=verify-full to DATABASE_URL, and sslrootcert=<file> (or system) that signed the server's "
            "certificate: DATABASE_URL=postgresql://…/name?sslmode=verify-full&sslrootcert=/etc/ssl/db-ca.pem",
        )
    if (least := options.get("ssl_min_protocol_version")) in _OLD_TLS:
        yield _error(
            2,
            f"PostgreSQL may be spoken to in {least}.",
            "Take ssl_min_protocol_version out of DATABASE_URL: TLSv1.2 is the least without it.",
        )


def redis_is_verified() -> Faults:
    """E003 by scheme, E004 where the address says that the server's certificate need not be looked at."""
    for name, url in [
        ("BROKER_URL", settings.BROKER_URL),
        *(("COUNTERS_URL", each) for each in settings.COUNTERS_URL.split(",")),
    ]:
        address = urlsplit(url)
        if address.scheme in ("unix", "redis+socket"):
            continue
        if address.scheme != "rediss":
            yield _error(
                3,
                f"The connection to Redis of {name} is not encrypted.",
                f"Let {name} begin with rediss://, and have that server listen with TLS.",
            )
            continue
        said = parse_qs(address.query)
        lax = said.get("ssl_cert_reqs", ["required"])[-1].lower() not in ("required", "cert_required")
        if lax or said.get("ssl_check_hostname", ["true"])[-1].lower() not in ("true", "1", "yes"):
            yield _error(
                4,
                f"{name} takes any certificate for that of its server.",
                f"Take ssl_cert_reqs and ssl_check_hostname out of {name}; ssl_ca_certs=<file> names an authority of "
                "your own.",
            )


def services_are_encrypted() -> Faults:
    """E005. What boto3 reads by itself counts too."""
    named = ("FCM_ENDPOINT", "USER_SERVICE_URL", "TEMPLATE_SERVICE_URL", "SES_EVENTS_QUEUE_URL", "WEBHOOK_URL")
    outgoing = {name: getattr(settings, name) for name in named} | {
        name: value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT_URL")
    }
    for name, value in sorted(outgoing.items()):
        if value and not value.lower().startswith("https://"):
            yield _error(
                5,
                f"{name} is not https: messages and addresses would leave in clear.",
                f"Let {name} begin with https://, or take it out of the environment.",
            )
    relay = urlsplit(settings.SMTP_URL)
    if relay.scheme == "smtp" and relay.hostname not in _THIS_MACHINE:
        yield _error(
            5,
            "SMTP_URL speaks in clear: messages, addresses and the password would be read on the way.",
            "Let SMTP_URL begin with smtps:// (TLS from the start) or submission:// (TLS by STARTTLS); smtp:// is for "
            "a relay on this machine.",
        )


def clients_are_encrypted() -> Faults:
    """E006 to E010 and E021: TLS to browsers and programs. TLS itself ends at the server or proxy in front."""
    if not settings.SECURE_SSL_REDIRECT:
        yield _error(6, "Plain http is answered instead of sent on to https.", "Set HTTPS=true (SECURE_SSL_REDIRECT).")
    if settings.SECURE_HSTS_SECONDS < _YEAR_S:
        yield _error(
            7,
            f"Browsers are told for {settings.SECURE_HSTS_SECONDS} s only to come by https (HSTS).",
            f"Set HSTS_SECONDS={_YEAR_S}, a year (SECURE_HSTS_SECONDS).",
        )
    for name in ("SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"):
        if not getattr(settings, name):
            yield _error(8, f"{name} is off: the cookie also goes over plain http.", f"Set HTTPS=true ({name}).")
    if not settings.SESSION_COOKIE_HTTPONLY:
        yield _error(
            9, "Scripts may read the session's cookie.", "Take SESSION_COOKIE_HTTPONLY = False out of the settings."
        )
    if plain := [origin for origin in settings.CSRF_TRUSTED_ORIGINS if not origin.startswith("https://")]:
        yield _error(
            10,
            f"Forms from {', '.join(plain)} are trusted, which anybody on the way can write.",
            "Let every origin in CSRF_TRUSTED_ORIGINS begin with https://.",
        )
    if plain := [origin for origin in settings.CORS_ALLOWED_ORIGINS if not origin.startswith("https://")]:
        yield _error(
            10,
            f"Pages of {', '.join(plain)} may read inboxes, and anybody on the way can write such a page.",
            "Let every origin in INBOX_ORIGINS begin with https://.",
        )
    if settings.SECURE_PROXY_SSL_HEADER and not settings.TRUSTED_PROXIES:
        yield _error(
            21,
            "Everybody seems to come from the proxy's address: a hundred wrong passwords would keep everybody out.",
            "Set TRUSTED_PROXIES to the proxy's address or network, as BEHIND_PROXY says that there is one.",
        )


def provider_events_are_heard() -> Faults:
    """E045 to E047, W048, W049: what SES tells of its messages afterwards."""
    for topic in settings.SNS_TOPICS:
        if not _TOPIC.fullmatch(topic):
            yield _error(
                45,
                f"SNS_TOPICS names {topic!r}, which is no topic.",
                "Name topics as SNS does, arn:aws:sns:eu-central-1:123456789012:ses-events, separated by commas.",
            )
    if settings.SNS_ENDPOINT:
        yield _error(
            46,
            "SNS_ENDPOINT is set: whoever answers there can sign events of his own making.",
            "Take SNS_ENDPOINT out of the environment: it is for doubles of Amazon SNS.",
        )
    if settings.SNS_CA_FILE:
        try:
            load_pem_x509_certificates(Path(settings.SNS_CA_FILE).read_bytes())
        except (OSError, ValueError) as error:
            yield _error(
                47,
                f"SNS_CA_FILE can't be read, so that no event is believed: {error}",
                "Let it name a file of PEM certificates, or take it out of the environment.",
            )
    is_heard = bool(settings.SNS_TOPICS or settings.SES_EVENTS_QUEUE_URL)
    if "ses" in registry.names("email") and not is_heard:
        yield Warning(
            "Bounces and complaints are not heard: addresses that take nothing would be written to for ever.",
            hint="Set SNS_TOPICS or SES_EVENTS_QUEUE_URL (docs/provider-events.md).",
            id="scheduler_project.W048",
        )
    if is_heard and not settings.SES_CONFIGURATION_SET:
        yield Warning(
            "SES tells of messages by the configuration set that they name, and SES_CONFIGURATION_SET names none.",
            hint="Set SES_CONFIGURATION_SET to the one whose events are published (docs/provider-events.md).",
            id="scheduler_project.W049",
        )


# --- At start ---------------------------------------------------------------------------------------------------------
def secrets_are_secret() -> Faults:
    """E011, for the key in use and for those still accepted; E022."""
    if settings.ERASURE_KEY == settings.SECRET_KEY and not os.environ.get("ERASURE_KEY"):
        yield _error(
            22,
            "Erased people are remembered under SECRET_KEY: changing it would bring them back by the next import.",
            "Set ERASURE_KEY and keep it: to today's SECRET_KEY where the service has run without, else to what this "
            "prints: python -c 'import secrets; print(secrets.token_hex(32))'",
        )
    former = [("SECRET_KEY_FALLBACKS", str(key)) for key in settings.SECRET_KEY_FALLBACKS]
    of_erasures = [("ERASURE_KEY", settings.ERASURE_KEY)] if settings.ERASURE_KEY != settings.SECRET_KEY else []
    for name, key in [("SECRET_KEY", str(settings.SECRET_KEY)), *of_erasures, *former]:
        if len(key) < _SECRET_LENGTH or len(set(key)) < _SECRET_SIGNS or key.startswith("django-insecure-"):
            yield _error(
                11,
                f"{name} can be guessed: it is a default, shorter than {_SECRET_LENGTH} characters or repeats itself.",
                f"Set {name} to what this prints: python -c 'import secrets; print(secrets.token_hex(32))'",
            )


def switches_are_off() -> Faults:
    """E012 to E014."""
    if settings.DEBUG:
        yield _error(12, "Error pages show code, settings and data.", "Take DEBUG out of the environment.")
    for channel in sorted(settings.PROVIDERS):
        if "outbox" in registry.names(channel):
            yield _error(
                13,
                f"Messages of the channel {channel} go into the outbox page and nowhere else.",
                f"Set {channel.upper()}_PROVIDER to a provider that sends (PROVIDERS[{channel!r}]).",
            )
    if "*" in settings.ALLOWED_HOSTS or not settings.ALLOWED_HOSTS:
        yield _error(
            14,
            "Any Host header is believed, and so stands in links.",
            "Set ALLOWED_HOSTS to the names by which the service is reached, separated by commas.",
        )


def oauth_is_strict() -> Faults:
    """E015 to E018. RFC 9700; lifetimes as ASVS asks for self-contained and reference tokens: minutes, and a month."""
    given: Mapping[str, Any] = settings.OAUTH2_PROVIDER
    if given.get("ALLOWED_REDIRECT_URI_SCHEMES") != ["https"]:
        yield _error(
            15,
            "Codes may be redirected to addresses without TLS.",
            "Let OAUTH2_PROVIDER['ALLOWED_REDIRECT_URI_SCHEMES'] be ['https'], as it is where DATABASE_URL is set.",
        )
    if not 0 < given.get("ACCESS_TOKEN_EXPIRE_SECONDS", 0) <= _HOUR_S:
        yield _error(
            16,
            "An access token lives longer than an hour, or not at all.",
            f"Set ACCESS_TOKEN_S to at most {_HOUR_S} seconds; 900 without it.",
        )
    refresh = given.get("REFRESH_TOKEN_EXPIRE_SECONDS") or 0
    if not 0 < refresh <= _MONTH_S:
        yield _error(
            17,
            "A refresh token that is not used lives longer than 30 days, or for ever.",
            f"Set REFRESH_TOKEN_S to at most {_MONTH_S} seconds; two weeks without it.",
        )
    if off := [name for name in _OAUTH_ON if not given.get(name)]:
        yield _error(
            18,
            f"Signing in by program is laxer than RFC 9700: {', '.join(off)}.",
            f"Set {', '.join(off)} to True in OAUTH2_PROVIDER.",
        )


def policy_is_enforced() -> Faults:
    """E019, E020: a policy that is only reported stops nothing."""
    policy = settings.CONTENT_SECURITY_POLICY or {}
    if "csp.middleware.CSPMiddleware" not in settings.MIDDLEWARE or not policy.get("DIRECTIVES"):
        yield _error(
            19,
            "Pages are sent without a content security policy, or with one that browsers only report.",
            "Keep CONTENT_SECURITY_POLICY and csp.middleware.CSPMiddleware; CONTENT_SECURITY_POLICY_REPORT_ONLY may "
            "stand beside them, not in their place.",
        )
        return
    directives = policy["DIRECTIVES"]
    scripts = directives.get("script-src") or directives.get("default-src") or ["*"]
    if lax := [str(source) for source in scripts if str(source) in _UNSAFE]:
        yield _error(
            20,
            f"Scripts from anywhere or in the page itself may run: script-src has {', '.join(lax)}.",
            "Take it out of CONTENT_SECURITY_POLICY; a page that needs it says why in frontend.policies.",
        )


def audit_is_sealed() -> Faults:
    """E030; W031, E032, E033, W034 of the export. The bucket itself is asked, once; it may be away."""
    try:
        keys.private_key()
    except ImproperlyConfigured as error:
        yield _error(
            30,
            f"The worker of the queue clock can seal nothing: {error}",
            "Set AUDIT_SEAL_KEY to what this prints: openssl rand -hex 32. Other processes need none: run this "
            "check with the environment of that worker.",
        )
    else:
        if keys.is_guessable(keys.private_key().private_bytes_raw()):
            yield _error(
                30,
                "AUDIT_SEAL_KEY can be guessed: its bytes repeat themselves.",
                "Set AUDIT_SEAL_KEY to what this prints: openssl rand -hex 32",
            )
    if not settings.AUDIT_EXPORT_BUCKET:
        yield Warning(
            "The audit's seals are not exported: the last ones can be removed together with their rows, unseen.",
            hint="Set AUDIT_EXPORT_BUCKET to a bucket with Object Lock (docs/security.md).",
            id="scheduler_project.W031",
        )
        return
    endpoint = settings.AUDIT_EXPORT_ENDPOINT
    if endpoint and urlsplit(endpoint).scheme != "https":
        yield _error(
            32,
            "AUDIT_EXPORT_ENDPOINT is not https: what happened would leave in clear.",
            "Let AUDIT_EXPORT_ENDPOINT begin with https://, or take it out of the environment.",
        )
    # By name: boto3 is for those who speak with Amazon, and every process reads this file.
    try:
        fault = import_string("audit.bucket.fault")()
    except import_string("audit.bucket.BucketAway") as error:
        yield Warning(
            f"Whether the audit's bucket locks objects is not known: {error}",
            hint="Run this check once with the credentials of the worker of the queue materialise.",
            id="scheduler_project.W034",
        )
        return
    if fault:
        yield _error(
            33,
            f"The audit's seals can't be exported: {fault}",
            "Correct AUDIT_EXPORT_BUCKET or the credentials; Object Lock is switched on as a bucket is made.",
        )


def audit_stays() -> Faults:
    """W035. The database is asked; where it is away nothing is said of it."""
    try:
        changeable = roles.changeable()
    except DatabaseError:
        return
    if changeable:
        yield Warning(
            f"The role in DATABASE_URL could change the audit: {', '.join(changeable)}.",
            hint="Run manage.py grant_roles as the role that migrates, and let the service sign in as "
            f"{roles.APP} (docs/security.md).",
            id="scheduler_project.W035",
        )


RULES: tuple[Callable[[], Faults], ...] = (
    database_is_verified,
    redis_is_verified,
    services_are_encrypted,
    clients_are_encrypted,
    provider_events_are_heard,
    secrets_are_secret,
    switches_are_off,
    oauth_is_strict,
    policy_is_enforced,
    audit_is_sealed,
    audit_stays,
)
