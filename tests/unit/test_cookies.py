"""What a deployment behind https tells browsers, read from the settings of a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from oauth2_provider.settings import oauth2_settings

from tests.unit.test_checks import ENVIRONMENT

ASKED = """
import json
from django.conf import settings
names = [
    "SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME", "LANGUAGE_COOKIE_NAME", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE",
    "LANGUAGE_COOKIE_SECURE", "SESSION_COOKIE_DOMAIN", "CSRF_COOKIE_DOMAIN", "SESSION_COOKIE_PATH", "CSRF_COOKIE_PATH",
    "SECURE_HSTS_SECONDS", "SECURE_HSTS_INCLUDE_SUBDOMAINS", "SECRET_KEY_FALLBACKS",
]
from frontend.zones import TIMES_COOKIE, ZONE_COOKIE
print(json.dumps({name: getattr(settings, name) for name in names} | {"pages": [TIMES_COOKIE, ZONE_COOKIE]}))
"""


@pytest.fixture(scope="module")
def deployed() -> dict[str, Any]:
    environment = {**ENVIRONMENT, "PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "scheduler_project.settings"}
    environment["SECRET_KEY_FALLBACKS"] = "former,another"
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_behind_https_every_cookie_is_held_to_its_host(deployed):
    names = [deployed[f"{each}_COOKIE_NAME"] for each in ("SESSION", "CSRF", "LANGUAGE")] + deployed["pages"]
    assert [name for name in names if not name.startswith("__Host-")] == []
    assert all(deployed[f"{each}_COOKIE_SECURE"] for each in ("SESSION", "CSRF", "LANGUAGE"))
    # What the prefix asks for besides, or browsers drop the cookie.
    assert {deployed["SESSION_COOKIE_DOMAIN"], deployed["CSRF_COOKIE_DOMAIN"]} == {None}
    assert {deployed["SESSION_COOKIE_PATH"], deployed["CSRF_COOKIE_PATH"]} == {"/"}


def test_hsts_covers_a_year_and_no_hosts_below_unless_asked(deployed):
    assert deployed["SECURE_HSTS_SECONDS"] >= 31_536_000
    assert deployed["SECURE_HSTS_INCLUDE_SUBDOMAINS"] is False


def test_former_keys_come_from_the_environment(deployed):
    assert deployed["SECRET_KEY_FALLBACKS"] == ["former", "another"]


def test_a_code_lives_a_minute():
    assert 0 < oauth2_settings.AUTHORIZATION_CODE_EXPIRE_SECONDS <= 60
