"""Files out and in: ``:export`` of recipients, schedules and templates, ``:import`` of the latter two.

An export is streamed: nothing of it is kept here. An import is done as a whole or not at all.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, Any, ClassVar, Final

from django.http import FileResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from frontend import exporting
from frontend.api.base import ApiView
from frontend.api.bodies import check_whole
from frontend.api.documents import problems
from frontend.api.fields import ObjectField, QuerySerializer, StrictCharField, StrictChoiceField
from frontend.api.idempotency import idempotent
from frontend.api.problems import INVALID, MEDIA, TOO_LARGE, TOO_MANY, UNREADABLE, InFile, Refused
from frontend.api.recipients_bulk import NDJSON
from frontend.api.schedules import ScheduleDefinition
from schedules import clock
from schedules.exports.recipients import Wanted, export_recipients
from schedules.exports.schedules import export_schedules
from schedules.exports.templates import export_templates, write_archive
from schedules.imports.lines import Unreadable
from schedules.imports.recipients import Format
from schedules.imports.schedules import import_schedules
from schedules.imports.templates import import_archive
from schedules.imports.values import MAX_TAG
from schedules.models import LONGEST_SCHEDULE_KEY, Channel, Schedule, ScheduleStatus, ScheduleType
from schedules.permissions import Ability
from schedules.portable import STATUSES

CSV: Final = "text/csv"
ZIP: Final = "application/zip"
MAX_BYTES: Final = 5 * 1024 * 1024  # of a file that is imported
_TYPES: Final[Mapping[Format, str]] = {Format.CSV: f"{CSV}; charset=utf-8", Format.NDJSON: NDJSON}
_IN_MEMORY: Final = 4 * 1024 * 1024


def _streamed(pieces: Iterator[bytes], *, media_type: str, name: str) -> StreamingHttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(pieces, content_type=media_type, headers=headers)


class PeopleFileQuery(QuerySerializer):
    format = StrictChoiceField(choices=[each.value for each in Format], required=False, default=Format.NDJSON.value)
    prefix = StrictCharField(required=False, max_length=200, help_text="How the `externalId` begins.")
    locale = StrictCharField(required=False, max_length=35)
    timeZone = StrictCharField(required=False, max_length=64, source="time_zone")
    tag = StrictCharField(required=False, max_length=MAX_TAG)


class ExportRecipients(ApiView):
    abilities: ClassVar = {"GET": Ability.EDIT_RECIPIENTS}

    @extend_schema(
        operation_id="exportRecipients",
        parameters=[PeopleFileQuery],
        responses={
            (200, NDJSON): OpenApiResponse(OpenApiTypes.STR, "A person a line, as `recipients:bulk` takes them"),
            (200, CSV): OpenApiResponse(OpenApiTypes.STR, "The same as a table"),
            **problems(400),
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Everybody, or whom the query asks for, by `externalId`, with addresses and device tokens in clear.

        Each person is as of the moment at which the page of 1,000 is read in which they stand. Ten files may be taken
        at once, and then one a minute.
        """
        asked = PeopleFileQuery.of(request)
        format = Format(asked.pop("format"))
        if wait := exporting.wait_for(self.client):
            raise Refused(TOO_MANY, f"Too many files of people: wait {wait} s.", headers={"Retry-After": str(wait)})
        pieces = export_recipients(format=format, by=self.by, now=clock.now(), wanted=Wanted(**asked))
        return _streamed(pieces, media_type=_TYPES[format], name=f"people.{format}")


class SchedulesFileQuery(QuerySerializer):
    status = StrictChoiceField(
        choices=[each for each in ScheduleStatus.values if each != ScheduleStatus.DELETED],
        required=False,
        help_text="Without one, all but what is finished or cancelled.",
    )
    channel = StrictChoiceField(choices=Channel.values, required=False)
    scheduleType = StrictChoiceField(choices=ScheduleType.values, source="schedule_type", required=False)


class PortableSchedule(ScheduleDefinition):
    """A schedule in a file. Its template has a name there instead of a number; absent means the default."""

    read_only_names = frozenset()

    key = serializers.RegexField(
        rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_SCHEDULE_KEY - 1}}}$",
        required=False,
        help_text="By which it is known again. Without one each import makes a new schedule.",
    )
    status = StrictChoiceField(choices=list(STATUSES), required=False, default=ScheduleStatus.DRAFT.value)
    template = StrictCharField(required=False, allow_null=True, help_text="The template's name.")
    audienceQuery = ObjectField(required=False)
    templateId = None  # type: ignore[assignment]


class ExportSchedules(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="exportSchedules",
        parameters=[SchedulesFileQuery],
        responses={(200, NDJSON): OpenApiResponse(PortableSchedule, "A schedule a line"), **problems(400)},
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Schedules as a file that `schedules:import` takes, here or at another installation."""
        asked = SchedulesFileQuery.of(request)
        pieces = export_schedules(
            by=self.by, now=clock.now(), rows=Schedule.objects.live().filter(**asked), with_over="status" in asked
        )
        return _streamed(pieces, media_type=NDJSON, name="schedules.ndjson")


class ExportTemplates(ApiView):
    abilities: ClassVar = {"GET": Ability.READ}

    @extend_schema(
        operation_id="exportTemplates",
        responses={(200, ZIP): OpenApiResponse(OpenApiTypes.BINARY, "A JSON file for each"), **problems()},
    )
    def get(self, request: Request) -> HttpResponseBase:
        """Templates, catalogues and topics as an archive that `templates:import` takes.

        What a template service keeps is not in it.
        """
        file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the answer closes it
        write_archive(export_templates(by=self.by, now=clock.now()), file)
        file.seek(0)
        return FileResponse(file, as_attachment=True, filename="templates.zip", content_type=ZIP)


class _File(BaseParser):
    """The body as it is, in memory; an empty one is none."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Bytes."""
        data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise Refused(TOO_LARGE, f"The file has more than {MAX_BYTES:,} bytes: split it.")
        check_whole((parser_context or {})["request"], len(data))
        return data


class NdjsonFile(_File):
    media_type = NDJSON


class ZipFile(_File):
    media_type = ZIP


class _ImportView(ApiView):
    abilities: ClassVar = {"POST": Ability.EDIT_SCHEDULES}

    def file(self, request: Request) -> bytes:
        try:
            data = request.data
        except UnsupportedMediaType:
            raise Refused(MEDIA, f"Send “Content-Type: {self.parser_classes[0].media_type}”.") from None
        if not isinstance(data, bytes) or not data:
            raise Refused(UNREADABLE, "The body is empty: send the file.")
        return data

    def sent(self, request: Request) -> bytes:
        return hashlib.sha256(self.file(request)).digest()


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        raise Refused(UNREADABLE, f"The body {error}.") from None


class DryRunQuery(QuerySerializer):
    dryRun = StrictChoiceField(
        choices=["true", "false"], default="false", source="dry_run", help_text="`true`: tell, and keep nothing."
    )


class SchedulesImportQuery(DryRunQuery):
    activate = StrictChoiceField(
        choices=["true", "false"],
        default="false",
        help_text="`true`: each becomes what its `status` says, so that active ones send at their times. Else new ones"
        " are drafts, and a line that would change one that runs is refused.",
    )


class ImportedSchedules(serializers.Serializer[Any]):
    """What an import did, or after a dry run would do."""

    isKept = serializers.BooleanField(help_text="False after a dry run.")
    lines = serializers.IntegerField()
    created = serializers.IntegerField()
    updated = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    running = serializers.IntegerField(help_text="Of those that are new or changed: how many send from now on.")


class ImportSchedules(_ImportView):
    parser_classes = (NdjsonFile,)  # type: ignore[assignment]

    @extend_schema(
        operation_id="importSchedules",
        parameters=[SchedulesImportQuery],
        request={NDJSON: PortableSchedule},
        examples=[
            OpenApiExample(
                "A line",
                request_only=True,
                media_type=NDJSON,
                value={
                    "key": "monday-news",
                    "status": "active",
                    "name": "News on Mondays",
                    "channel": "email",
                    "audienceQuery": {"all": []},
                    "template": "news",
                    "scheduleType": "cron",
                    "cron": "0 9 * * 1",
                },
            )
        ],
        responses={200: ImportedSchedules, **problems(400, 409, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Make and change schedules by their keys, one JSON object a line: all of them, or none.

        A schedule is changed where its key is known, and made where not. `errors` name the line and what is wrong in
        it, the first 100 of all.
        """
        asked = SchedulesImportQuery.of(request)
        with _readable():
            report = import_schedules(
                stream=BytesIO(self.file(request)),
                by=self.by,
                now=clock.now(),
                activate=asked["activate"] == "true",
                dry_run=asked["dry_run"] == "true",
            )
        if report.problem_count:
            pointed = [InFile(each.pointer, each.code, each.message, line=each.line) for each in report.problems]
            raise Refused(INVALID, f"Nothing was imported. Problems: {report.problem_count:,}.", pointed=pointed)
        counts = {name: getattr(report, name) for name in ("lines", "created", "updated", "unchanged", "running")}
        return Response({"isKept": report.is_kept, **counts})


class ImportedTemplates(serializers.Serializer[Any]):
    """What an import did, or after a dry run would do."""

    isKept = serializers.BooleanField(help_text="False after a dry run.")
    published = serializers.ListField(
        child=serializers.CharField(), help_text="`template welcome`, `catalogue de`, `topic news`: new or changed."
    )
    unchanged = serializers.ListField(child=serializers.CharField())


class ImportTemplates(_ImportView):
    abilities: ClassVar = {"POST": Ability.EDIT_TEMPLATES}
    parser_classes = (ZipFile,)  # type: ignore[assignment]

    @extend_schema(
        operation_id="importTemplates",
        parameters=[DryRunQuery],
        request={ZIP: OpenApiTypes.BINARY},
        responses={200: ImportedTemplates, **problems(400, 409, 422)},
    )
    @idempotent
    def post(self, request: Request) -> Response:
        """Make and change templates, catalogues and topics from an archive of JSON files: all of them, or none.

        `errors` name the file and what is wrong in it.
        """
        is_dry = DryRunQuery.of(request)["dry_run"] == "true"
        with _readable():
            stream = BytesIO(self.file(request))
            report = import_archive(stream=stream, by=self.by, now=clock.now(), dry_run=is_dry)
        if report.problems:
            pointed = [InFile(each.pointer, "invalid", each.message, file=str(each.file)) for each in report.problems]
            raise Refused(INVALID, f"Nothing was imported. Problems: {len(pointed):,}.", pointed=pointed)
        return Response({"isKept": not is_dry, "published": report.published, "unchanged": report.unchanged})
