"""System checks of a deployment: ``check --deploy`` refuses what would carry data in clear or let strangers in.

Each fault is an Error with an id of its own, so that one may be silenced for a reason by ``SILENCED_SYSTEM_CHECKS``;
its hint names the setting and the remedy. The test clock and the providers' settings are asked by ``delivery.checks``.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.utils.module_loading import import_string

from audit import keys, roles

_YEAR_S = 365 * 24 * 3600
_HOUR_S = 3600
_MONTH_S = 30 * 24 * 3600
# 256 bits in hexadecimal digits are 64 characters; Django's own keys have 50 out of 50 different signs.
_SECRET_LENGTH = 50
_SECRET_SIGNS = 10
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
    outgoing = {"FCM_ENDPOINT": settings.FCM_ENDPOINT, "USER_SERVICE_URL": settings.USER_SERVICE_URL} | {
        name: value for name, value in os.environ.items() if name.startswith("AWS_ENDPOINT_URL")
    }
    for name, value in sorted(outgoing.items()):
        if value and not value.lower().startswith("https://"):
            yield _error(
                5,
                f"{name} is not https: messages and addresses would leave in clear.",
                f"Let {name} begin with https://, or take it out of the environment.",
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
    if settings.SECURE_PROXY_SSL_HEADER and not settings.TRUSTED_PROXIES:
        yield _error(
            21,
            "Everybody seems to come from the proxy's address: a hundred wrong passwords would keep everybody out.",
            "Set TRUSTED_PROXIES to the proxy's address or network, as BEHIND_PROXY says that there is one.",
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
    for channel, name in sorted(settings.PROVIDERS.items()):
        if name == "outbox":
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
    secrets_are_secret,
    switches_are_off,
    oauth_is_strict,
    policy_is_enforced,
    audit_is_sealed,
    audit_stays,
)
