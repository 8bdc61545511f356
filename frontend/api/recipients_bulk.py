"""``/recipients:bulk``: many people as NDJSON, a result for each line.

The body is put down before the database is asked for anything, so that a slow sender holds no transaction. With an
``Idempotency-Key`` the answer is kept as that of any other POST: PostgreSQL compresses it (measured: 10,000 results of
789 kB in all take 87 kB), and it holds little more than the external ids that the request itself brought.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, Any, ClassVar, Final

from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from frontend.api.base import ApiView
from frontend.api.bodies import check_whole
from frontend.api.documents import ProblemErrorAnswer, problems
from frontend.api.idempotency import idempotent
from frontend.api.problems import MEDIA, TOO_LARGE, UNREADABLE, Refused, as_error
from frontend.api.recipients import READ_ONLY, BringBackQuery, Profile
from schedules import clock
from schedules.imports import bulk
from schedules.imports.bulk import Line, Status
from schedules.imports.lines import Unreadable
from schedules.permissions import Ability

NDJSON: Final = "application/x-ndjson"
MAX_LINES: Final = 10_000
MAX_BYTES: Final = 20 * 1024 * 1024
_IN_MEMORY: Final = 1024 * 1024  # bytes of a body; what is more goes to a temporary file
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True)
class Body:
    """What was sent, to be read once; ``digest`` tells it apart from others."""

    file: Any
    digest: bytes


class NdjsonParser(BaseParser):
    media_type = NDJSON

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """A ``Body``."""
        file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - whoever reads it, and then nobody, has it
        digest, size, ends = hashlib.sha256(), 0, 0
        last = b""
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            ends += chunk.count(b"\n")
            last = chunk[-1:]
            if size > MAX_BYTES or ends + (last != b"\n") > MAX_LINES:
                words = f"More than {MAX_LINES:,} lines or {MAX_BYTES:,} bytes: send the rest in another request."
                raise Refused(TOO_LARGE, words)
            digest.update(chunk)
            file.write(chunk)
        check_whole((parser_context or {})["request"], size)
        file.seek(0)
        return Body(file, digest.digest())


class NdjsonRenderer(BaseRenderer):
    """A list as lines; a problem is one JSON object."""

    media_type = NDJSON
    format = "ndjson"
    charset = None
    render_style = "binary"

    def render(
        self, data: Any, accepted_media_type: str | None = None, renderer_context: Mapping[str, Any] | None = None
    ) -> bytes:
        if isinstance(data, list):
            return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in data).encode()
        return json.dumps(data, ensure_ascii=False).encode()


class PersonLine(Profile):
    """One line. What it leaves out stays as it is; devices are added to those there are."""

    read_only_names = READ_ONLY

    externalId = serializers.CharField(max_length=200)


class LineAnswer(serializers.Serializer[Any]):
    """What became of one line."""

    line = serializers.IntegerField(help_text="From 1 on; empty lines count and have no result.")
    status = serializers.ChoiceField(choices=[str(each) for each in Status])
    externalId = serializers.CharField(allow_null=True, help_text="Null where the line holds none that can be read.")
    errors = ProblemErrorAnswer(many=True, help_text="Only of an `invalid` line, which changed nothing.")  # type: ignore[assignment]


class BulkRecipients(ApiView):
    abilities: ClassVar = {"POST": Ability.EDIT_RECIPIENTS}
    parser_classes = (NdjsonParser,)  # type: ignore[assignment]
    renderer_classes = (NdjsonRenderer,)  # type: ignore[assignment]

    @extend_schema(
        operation_id="mergeRecipients",
        parameters=[BringBackQuery],
        request={NDJSON: PersonLine},
        examples=[
            OpenApiExample(
                "A line",
                request_only=True,
                media_type=NDJSON,
                value={"externalId": "42", "email": "eva@example.com", "attributes": {"plan": "pro"}},
            )
        ],
        responses={
            (200, NDJSON): OpenApiResponse(LineAnswer, "A line for each line that was sent, in their order"),
            **problems(400, 409, 422),
        },
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Create and update up to 10,000 people, one JSON object a line.

        A line is merged into the profile as an import of NDJSON does. A broken line concerns itself alone; all others
        are written in one transaction. Whoever was erased before is `left_out`, unless `bringBack` is `true`.
        """
        try:
            lines = bulk.merge_lines(
                stream=self._body(request).file,
                by=self.by,
                now=clock.now(),
                bring_back=BringBackQuery.wanted(request),
            )
        except Unreadable as error:
            raise Refused(UNREADABLE, f"The body {error}.") from None
        return Response([_answer(line) for line in lines])

    def sent(self, request: Request) -> bytes:
        return self._body(request).digest

    def _body(self, request: Request) -> Body:
        try:
            body = request.data
        except UnsupportedMediaType:
            raise Refused(MEDIA, f"Send “Content-Type: {NDJSON}”.") from None
        if not isinstance(body, Body):
            raise Refused(UNREADABLE, "The body is empty: send one JSON object a line.")
        return body


def _answer(line: Line) -> dict[str, Any]:
    errors = [as_error(problem) for problem in line.problems]
    return {"line": line.line, "status": str(line.status), "externalId": line.external_id, "errors": errors}
