"""Uploading a file of people: what is in it, then importing it, with its progress and its report.

Everything is done by ``schedules.imports.uploads``; the page looks every second at how far a worker has come.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from django import forms
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from frontend import actors, keysets
from frontend.access import actor, needs
from frontend.keysets import BrokenCursor, Order
from frontend.pages.csv_file import streamed
from frontend.pages.frame import framed, is_htmx
from frontend.pages.paging import link
from frontend.wording import number
from frontend.wording.sayings import translated
from schedules import clock
from schedules.imports import uploads
from schedules.imports.delimited import DELIMITERS
from schedules.imports.recipients import Stage
from schedules.imports.rows import Column
from schedules.imports.uploads import ENDINGS, MAX_BYTES, Found, Moved, TooLarge
from schedules.models import RecipientImport
from schedules.permissions import Ability
from schedules.problems import unpacked

PAGE = 20
_BAD_SHOWN = 50
_MEGABYTE = 1024 * 1024
State = RecipientImport.State

STATES: Mapping[str, tuple[Any, str]] = {
    State.CHECK: (gettext_lazy("being looked through"), "running"),
    State.CHECKED: (gettext_lazy("waits for your decision"), "paused"),
    State.IMPORT: (gettext_lazy("being imported"), "running"),
    State.DONE: (gettext_lazy("imported"), "finished"),
    State.FAILED: (gettext_lazy("not imported"), "failed"),
    State.DISCARDED: (gettext_lazy("thrown away"), "none"),
}
FAILURES: Mapping[str, Any] = {
    "worker_lost": gettext_lazy(
        "The program that worked on it was stopped three times. Nothing of it was kept: upload the file once more."
    ),
    "error": gettext_lazy(
        "The service failed while it worked on it. Nothing of it was kept: upload the file once more, and if it fails"
        " again, tell the people who run the service."
    ),
    "person_erased": gettext_lazy(
        "Somebody who stands in it has been erased, so the file was thrown away. Upload one without that person."
    ),
    "too_old": gettext_lazy("Nobody decided for a day, so the file was thrown away. Upload it once more."),
}
_STAGES: Mapping[str, Any] = {
    Stage.READ.name: gettext_lazy("Reading the file"),
    Stage.CHECK.name: gettext_lazy("Looking for people who stand in it twice"),
    Stage.WRITE.name: gettext_lazy("Comparing with the profiles there are"),
}
_FIELDS: Mapping[str, Any] = {
    "external_id": gettext_lazy("external id"),
    "email": gettext_lazy("e-mail address"),
    "locale": gettext_lazy("language"),
    "time_zone": gettext_lazy("time zone"),
    "tags": gettext_lazy("tags"),
    "quiet_hours": gettext_lazy("quiet hours"),
    "devices": gettext_lazy("devices"),
    "attributes": gettext_lazy("attributes, as an object"),
    "consent": gettext_lazy("consent"),
    "consent_email": gettext_lazy("consent to e-mail"),
    "consent_push": gettext_lazy("consent to push"),
    "consent_in_app": gettext_lazy("consent to in-app messages"),
}
_KINDS: Mapping[str, Any] = {
    "text": gettext_lazy("text"),
    "number": gettext_lazy("number"),
    "boolean": gettext_lazy("yes or no"),
    "json": gettext_lazy("list or object"),
    "inferred": gettext_lazy("text, number or yes/no, as each cell looks"),
}


class UploadForm(forms.Form):
    file = forms.FileField(
        max_length=1_000,
        label=gettext_lazy("File"),
        widget=forms.ClearableFileInput(attrs={"accept": ",".join(ENDINGS)}),
    )
    encoding = forms.ChoiceField(
        required=False,
        label=gettext_lazy("Encoding"),
        help_text=gettext_lazy("Of a file that is not UTF-8. Excel often writes Windows encodings."),
        choices=[
            ("utf-8", gettext_lazy("UTF-8, or as the file itself says")),
            ("cp1252", gettext_lazy("Windows, Western Europe (cp1252)")),
            ("cp1250", gettext_lazy("Windows, Central Europe (cp1250)")),
            ("cp1251", gettext_lazy("Windows, Cyrillic (cp1251)")),
            ("shift_jis", gettext_lazy("Japanese (Shift JIS)")),
            ("utf-16", gettext_lazy("UTF-16 (“Unicode text”)")),
        ],
    )
    delimiter = forms.ChoiceField(
        required=False,
        label=gettext_lazy("Columns are separated by"),
        choices=[
            ("", gettext_lazy("whatever the first line shows")),
            ("comma", gettext_lazy("commas")),
            ("semicolon", gettext_lazy("semicolons")),
            ("tab", gettext_lazy("tabs")),
        ],
    )
    infer_types = forms.BooleanField(
        required=False,
        label=gettext_lazy("Keep numbers, true and false as such, not as texts"),
        help_text=gettext_lazy(
            "Only numbers can be compared as greater or less. Not for postcodes: 01234 has no zero."
        ),
    )

    bring_back = forms.BooleanField(
        required=False,
        label=gettext_lazy("Bring back people who were erased"),
        help_text=gettext_lazy("Else their lines are left out."),
    )

    def clean_file(self) -> "UploadedFile[Any]":
        file: UploadedFile[Any] = self.cleaned_data["file"]
        if PurePath(file.name or "").suffix.lower() not in ENDINGS:
            endings = ", ".join(ENDINGS)
            raise forms.ValidationError(
                _("The name has to end in one of %(endings)s. Save a workbook as “CSV UTF-8” first.")
                % {"endings": endings}
            )
        if (file.size or 0) > MAX_BYTES:
            raise forms.ValidationError(_too_large())
        return file

    def options(self) -> dict[str, Any]:
        """As ``uploads.keep`` has them."""
        data = self.cleaned_data
        named = {name: character for character, name in DELIMITERS.items()}
        return {
            "encoding": data["encoding"] or "utf-8",
            "delimiter": named.get(data["delimiter"], ""),
            "infer_types": data["infer_types"],
            "bring_back": data["bring_back"],
            "format": ENDINGS[PurePath(data["file"].name).suffix.lower()],
        }


def _too_large() -> str:
    return _(
        "The file is larger than %(most)s MB. Split it, or have it imported on the server with"
        " manage.py import_recipients, which has no limit."
    ) % {"most": MAX_BYTES // _MEGABYTE}


@dataclass(frozen=True)
class Shown:
    """An upload in words."""

    upload: RecipientImport
    by: str

    @property
    def state(self) -> str:
        return str(STATES[self.upload.state][0])

    @property
    def css(self) -> str:
        return STATES[self.upload.state][1]

    @property
    def size(self) -> str:
        size = self.upload.size
        return f"{number(round(size / _MEGABYTE, 1))} MB" if size >= _MEGABYTE else f"{max(1, size // 1024)} kB"

    @property
    def found(self) -> Found:
        return Found.read(self.upload.report)

    @property
    def is_open(self) -> bool:
        return self.upload.state in (State.CHECK, State.IMPORT)

    @property
    def failure(self) -> str:
        upload = self.upload
        if upload.failure == "unreadable":
            return _("The file %(what)s. Nothing was imported.") % {
                "what": translated(unpacked(upload.report.get("unreadable", upload.detail)))
            }
        return str(FAILURES.get(upload.failure, ""))

    @property
    def said(self) -> str:
        """How far it is, in words that don't change each second."""
        return self._doing if self.is_open else f"{self.upload.name}: {self.state}"

    @property
    def _doing(self) -> str:
        upload = self.upload
        if not uploads.is_at_work(upload):
            return _("Waiting until a worker is free: one file is done at a time.")
        words = str(_STAGES.get(upload.stage, _STAGES[Stage.READ.name]))
        if upload.state == State.IMPORT and upload.stage == Stage.WRITE.name:
            words = _("Writing the profiles")
        if upload.attempts > 1:
            words = _("%(words)s, from the start, since the worker before was stopped") % {"words": words}
        return words

    @property
    def stage(self) -> str:
        """What happens at this moment, and to how many people."""
        upload, words = self.upload, self._doing
        if not uploads.is_at_work(upload) or not upload.people:
            return words
        if upload.stage == Stage.READ.name:
            people = ngettext("%(count)s person so far", "%(count)s people so far", upload.people)
        else:
            people = ngettext("%(count)s person", "%(count)s people", upload.people)
        return f"{words}: {people % {'count': number(upload.people)}}"

    @property
    def percent(self) -> int | None:
        """How much of the file is read; None while that says nothing."""
        upload = self.upload
        if not uploads.is_at_work(upload) or upload.stage != Stage.READ.name or not upload.size:
            return None
        return min(100, upload.position * 100 // upload.size)

    @property
    def result(self) -> str:
        """What an import has done, as a sentence."""
        found = self.found
        counts = {name: number(getattr(found, name)) for name in ("created", "updated", "unchanged")}
        return _("%(created)s created, %(updated)s changed, %(unchanged)s were as the file says.") % counts


@needs(Ability.EDIT_RECIPIENTS)
def imports(request: HttpRequest) -> HttpResponse:
    """The form, and what was uploaded before."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        file = form.cleaned_data["file"]
        try:
            kept = uploads.keep(
                name=file.name,
                chunks=file.chunks(),
                by=actor(request.user),
                now=clock.now(),
                **form.options(),
            )
        except TooLarge:
            form.add_error("file", _too_large())
        else:
            return HttpResponseRedirect(reverse("recipient-import", args=[kept.pk]))
    try:
        found, following = keysets.read(uploads.listed(), Order(), cursor=request.GET.get("after"), limit=PAGE)
    except BrokenCursor:
        found, following = [], None
    names = actors.names(each.created_by for each in found)
    context = {
        "title": _("Import people"),
        "crumbs": [(_("Recipients"), reverse("recipients"))],
        "form": form,
        "most": MAX_BYTES // _MEGABYTE,
        "rows": [Shown(each, names[each.created_by]) for each in found],
        "is_first": "after" not in request.GET,
        "first": link(request, "recipient-imports", parameter="after", start=None),
        "following": link(request, "recipient-imports", parameter="after", start=following) if following else "",
    }
    status = 422 if form.is_bound else 200
    return framed(request, "frontend/recipients/imports.html", context, status=status)


@needs(Ability.EDIT_RECIPIENTS)
def one(request: HttpRequest, import_id: int) -> HttpResponse:
    """One upload: what was found in it, its progress, its report. For htmx the part that changes."""
    upload = _found_or_404(import_id)
    context = {
        **_context(upload),
        "title": upload.name,
        "crumbs": [
            (_("Recipients"), reverse("recipients")),
            (_("Import people"), reverse("recipient-imports")),
        ],
    }
    if is_htmx(request):
        part = {"part": "frontend/recipients/import_state.html", "said": context["shown"].said}
        response = framed(request, "frontend/part.html", {**context, **part})
    else:
        response = framed(request, "frontend/recipients/import.html", context)
    response["Vary"] = "HX-Request"
    response["Cache-Control"] = "no-store"
    return response


def _context(upload: RecipientImport) -> dict[str, Any]:
    shown = Shown(upload, actors.name(upload.created_by))
    found = shown.found
    return {
        "shown": shown,
        "upload": upload,
        "found": found,
        "columns": [_column(each) for each in found.columns],
        "bad": [(line, _field(field), translated(unpacked(reason))) for line, field, reason in upload.bad[:_BAD_SHOWN]],
        "more_bad": max(0, found.bad_lines - _BAD_SHOWN),
        "is_bad_cut": found.bad_lines > len(upload.bad),
        "import_words": _("Import %(people)s")
        % {"people": ngettext("%(count)s person", "%(count)s people", found.good) % {"count": number(found.good)}},
        "left_out": _left_out(found.left_out),
        "unknown_zones": [(zone, number(count)) for zone, count in found.unknown_zones.items()],
        "unknown_locales": [(locale, number(count)) for locale, count in found.unknown_locales.items()],
        "number_like": ", ".join(found.number_like),
        "first_number_like": found.number_like[0] if found.number_like else "",
        "is_refused": upload.state == State.FAILED,
    }


def _left_out(count: int) -> str:
    words = ngettext(
        "%(count)s line is left out: the person was erased before.",
        "%(count)s lines are left out: the people were erased before.",
        count,
    )
    return words % {"count": number(count)} if count else ""


def _column(column: Column) -> tuple[str, str]:
    head, _dot, name = column.field.partition(".")
    if head == "attributes" and name:
        words = _("attribute %(name)s, %(kind)s") % {"name": name, "kind": _KINDS.get(column.kind, column.kind)}
        return column.name, words
    return column.name or "—", _field(column.field) if column.field else _("left out: it has no name")


def _field(field: str) -> str:
    head, _dot, name = field.partition(".")
    if not head:
        return _("the line")
    words = str(_FIELDS.get(head, head))
    return f"{words}: {name}" if name else words


@require_POST
@needs(Ability.EDIT_RECIPIENTS)
def confirm(request: HttpRequest, import_id: int) -> HttpResponse:
    _found_or_404(import_id)
    try:
        uploads.confirm(import_id=import_id, by=actor(request.user), now=clock.now())
    except Moved:
        messages.warning(request, _("That was too late: look at what has become of the file."))
    return HttpResponseRedirect(reverse("recipient-import", args=[import_id]))


@require_POST
@needs(Ability.EDIT_RECIPIENTS)
def discard(request: HttpRequest, import_id: int) -> HttpResponse:
    _found_or_404(import_id)
    try:
        uploads.discard(import_id=import_id, now=clock.now())
    except Moved:
        messages.warning(request, _("That was too late: look at what has become of the file."))
        return HttpResponseRedirect(reverse("recipient-import", args=[import_id]))
    messages.success(request, _("The file is thrown away."))
    return HttpResponseRedirect(reverse("recipient-imports"))


@needs(Ability.EDIT_RECIPIENTS)
def report(request: HttpRequest, import_id: int) -> StreamingHttpResponse:
    """The bad lines as CSV."""
    upload = _found_or_404(import_id)

    def lines() -> Iterator[list[object]]:
        yield [_("Line"), _("Field"), _("What is wrong")]
        for line, field, reason in upload.bad:
            yield [line, _field(field), translated(unpacked(reason))]

    return streamed(request, lines(), name=f"bad-lines-{upload.pk}")


def _found_or_404(import_id: int) -> RecipientImport:
    found = RecipientImport.objects.filter(pk=import_id).first()
    if found is None:
        raise Http404(_("There is no such import: reports are thrown away after thirty days."))
    return found
