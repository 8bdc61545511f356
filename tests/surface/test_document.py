"""The OpenAPI document is true of every answer, whatever is sent."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
import yaml
from django.db import transaction
from django.test.client import ClientHandler
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from schedules.permissions import Role
from tests.accounts import account
from tests.api import token
from tests.factories import RecipientFactory, ScheduleFactory, people

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml"


@schemathesis.serializer("application/x-ndjson")
def _ndjson(context: Any, value: Any) -> bytes:
    """One object a line."""
    return value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"


@schemathesis.serializer("application/zip")
def _zip(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


# Requests for each operation, once valid and once not; set it higher for a long look.
EXAMPLES = int(os.environ.get("API_EXAMPLES", "6"))
BULK = "/api/v1/recipients:bulk"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def world(service) -> dict[str, Any]:
    """Somebody who may everything, and something to find at most addresses."""
    admin = account(Role.ADMIN, name="admin")
    RecipientFactory.create(external_id="admin")
    people(3)
    schedule = ScheduleFactory.create(cron="0 9 * * *")
    service.open()
    return {
        "bearer": token(scopes="notification:read notification:write inbox", user=admin, lives_s=3_600),
        "ids": {"schedule_id": schedule.pk, "template_id": schedule.template_id},
    }


PATHS = yaml.load(DOCUMENT.read_text(), Loader=yaml.CSafeLoader)["paths"]
# Which successes have these the document says.
HEADERS = {"etag", "location"}
OPERATIONS = [
    (method, path)
    for path, methods in PATHS.items()
    for method in methods
    if method in {"get", "post", "put", "patch", "delete"}
]


HANDLER = ClientHandler(enforce_csrf_checks=False)


def _wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The service inside the test's transaction: Django's own handler would close the connection."""
    response = HANDLER(environ)
    start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
    return [b"".join(response)]


@functools.cache
def _schema() -> Any:
    """To read the document takes half a second."""
    return schemathesis.openapi.from_wsgi("/api/openapi.yaml", _wsgi)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_the_document_names(world, method, path, mode):
    operation = _schema()[path][method]
    try:
        cases = operation.as_strategy(generation_mode=mode)
    except Unsatisfiable:
        pytest.skip("nothing can be wrong here")

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        database=None,
    )
    @hypothesis.given(case=cases)
    def every(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            case.path_parameters.update({k: v for k, v in world["ids"].items() if k in case.path_parameters})
        headers = {"Authorization": f"Bearer {world['bearer']}"}
        with transaction.atomic():
            response = case.call(headers=headers)
            # Of many people each line has an answer of its own. A failed condition and a length refuse before the rest.
            is_refused = path == BULK or response.status_code in (412, 413)
            checks = [each for each in CHECKS if not (is_refused and each is negative_data_rejection)]
            case.validate_response(response, checks=checks)
            said = PATHS[path][method]["responses"].get(str(response.status_code), {}).get("headers", ())
            if response.status_code < 300:
                assert HEADERS & {name.lower() for name in said} == HEADERS & {
                    name.lower() for name in response.headers
                }
            transaction.set_rollback(True)

    try:
        every()
    except Unsatisfiable:
        pytest.skip("nothing can be wrong here")
