"""People, schedules and templates as files: what their lists show, and import again takes in without a loss."""

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Final

from django import forms
from django.contrib import messages
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from frontend import actors, exporting
from frontend.access import actor, needs
from frontend.pages.recipients.listing import FilterForm as PeopleForm
from frontend.pages.schedules.listing import FilterForm as SchedulesForm
from schedules import clock
from schedules.exports.recipients import Wanted, export_recipients
from schedules.exports.schedules import export_schedules
from schedules.exports.templates import export_templates, write_archive
from schedules.imports.recipients import Format
from schedules.listing import creators
from schedules.permissions import Ability

_IN_MEMORY: Final = 4 * 1024 * 1024
_TYPES: Final = {Format.CSV: "text/csv; charset=utf-8", Format.NDJSON: "application/x-ndjson"}


class FormatForm(forms.Form):
    format = forms.TypedChoiceField(
        required=False, coerce=Format, empty_value=Format.CSV, choices=[(each.value, each.value) for each in Format]
    )


@needs(Ability.EDIT_RECIPIENTS)
def recipients_file(request: HttpRequest) -> HttpResponseBase:
    """Those whom the list shows, addresses and device tokens in clear; streamed, so that it takes as long as it may."""
    form, asked = FormatForm(request.GET), PeopleForm(request.GET)
    if not (form.is_valid() and asked.is_valid()):
        return HttpResponse(_("There are no such people."), status=400)
    by = actor(request.user)
    if wait := exporting.wait_for(by):
        words = ngettext(
            "Too many files of people at once: wait %(count)s second.",
            "Too many files of people at once: wait %(count)s seconds.",
            wait,
        )
        messages.warning(request, words % {"count": wait})
        return HttpResponseRedirect(reverse("recipients"))
    format: Format = form.cleaned_data["format"]
    pieces = export_recipients(format=format, by=by, now=clock.now(), wanted=Wanted(**asked.wanted()))
    return _streamed(pieces, media_type=_TYPES[format], name=f"people.{format}")


@needs(Ability.READ)
def schedules_file(request: HttpRequest) -> HttpResponseBase:
    """Those that the list shows; those that are over only where they are asked for."""
    form = SchedulesForm(request.GET, made_by=actors.names(creators()))
    if not form.is_valid():
        return HttpResponse(_("There are no such schedules."), status=400)
    pieces = export_schedules(
        by=actor(request.user), now=clock.now(), rows=form.rows(), with_over=bool(form.cleaned_data["status"])
    )
    return _streamed(pieces, media_type=_TYPES[Format.NDJSON], name="schedules.ndjson")


@needs(Ability.READ)
def templates_file(request: HttpRequest) -> HttpResponseBase:
    """All of them, with catalogues and topics."""
    file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the answer closes it
    write_archive(export_templates(by=actor(request.user), now=clock.now()), file)
    file.seek(0)
    headers = {"Cache-Control": "no-store"}
    return FileResponse(
        file, as_attachment=True, filename="templates.zip", content_type="application/zip", headers=headers
    )


def _streamed(pieces: Iterator[bytes], *, media_type: str, name: str) -> StreamingHttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(pieces, content_type=media_type, headers=headers)
