"""A person lets an app act for him, on a wide screen and on a phone."""

import base64
import hashlib
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from frontend import clients
from schedules.permissions import Role
from tests.factories import BY, NOW
from tests.journeys.conftest import ENOUGH_CONTRAST, PHONE, TOO_WIDE, WIDE, contrast

pytestmark = pytest.mark.django_db(transaction=True)

BACK = "http://127.0.0.1:9/back"  # nobody listens there, which is not needed: the address says what the app is told


def asked(client_id: str, **changes: str) -> str:
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 43).digest()).decode().rstrip("=")
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": BACK,
        "scope": "notification:read notification:write",
        "state": "s",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **changes,
    }
    return f"/oauth/authorize?{urlencode(query)}"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_person_sees_what_an_app_asks_for_and_allows_it(service, open_page, errors, viewport, theme):
    app = clients.create_app(name="Campaign planner", redirect_uris=[BACK], by=BY, now=NOW).client
    page = open_page(Role.MARKETER, viewport=viewport, theme=theme)
    page.goto(asked("nobody"))
    assert page.get_by_role("alert").is_visible()
    assert contrast(page) >= ENOUGH_CONTRAST
    errors.clear()  # the browser tells of the 400, as it should

    page.goto(asked(app.client_id))
    assert page.get_by_text("Change schedules, recipients and templates, and send").is_visible()
    assert page.evaluate(TOO_WIDE) <= 0
    assert contrast(page) >= ENOUGH_CONTRAST
    assert errors == []
    with page.expect_request(f"{BACK}**") as back:
        page.get_by_role("button", name="Allow", exact=True).click()
    said = parse_qs(urlsplit(back.value.url).query)
    assert said["state"] == ["s"]
    assert said["code"]
