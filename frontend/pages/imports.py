"""Importing a small file of schedules or templates: what it would do, then doing it.

Nothing is kept here in between: what was looked through goes to the browser, compressed, and comes back when somebody
says so. It is read anew then, with what may have changed meanwhile.
"""

import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from frontend.access import actor, needs
from frontend.pages.frame import framed
from frontend.wording import number
from frontend.wording.sayings import translated
from schedules import clock
from schedules.imports.lines import Unreadable
from schedules.imports.schedules import SchedulesReport, import_schedules
from schedules.imports.templates import TemplatesReport, import_archive
from schedules.permissions import Ability

# Of which the web server makes three copies; what is larger is imported on the server.
MAX_BYTES: Final = 1024 * 1024
_SHOWN: Final = 50


class FileForm(forms.Form):
    """A file, or what is ``kept`` of one that was looked through: ``data`` is what is in it."""

    file = forms.FileField(required=False, max_length=1_000, label=gettext_lazy("File"))
    kept = forms.CharField(required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        found = super().clean() or self.cleaned_data
        file: UploadedFile[Any] | None = found.get("file")
        if file is None and not found.get("kept"):
            if not self.errors:
                self.add_error("file", _("Choose a file."))
            return found
        if file is not None and (file.size or 0) > MAX_BYTES:
            self.add_error("file", _("The file is larger than 1 MB. Split it, or have it imported on the server."))
        else:
            found["data"] = file.read() if file is not None else self._unpacked(found["kept"])
        return found

    @property
    def is_confirmed(self) -> bool:
        return not self.cleaned_data.get("file")

    @property
    def packed(self) -> str:
        """What was looked through, to be sent again."""
        return b64encode(zlib.compress(self.cleaned_data["data"])).decode()

    def _unpacked(self, packed: str) -> bytes:
        try:
            return zlib.decompressobj().decompress(b64decode(packed, validate=True), MAX_BYTES)
        except (ValueError, zlib.error):
            self.add_error("file", _("What was looked through has been lost. Choose the file again."))
            return b""


class SchedulesForm(FileForm):
    activate = forms.BooleanField(
        required=False,
        label=gettext_lazy("Let them be what the file says"),
        help_text=gettext_lazy(
            "Active ones then send at their times, and those that run already follow the file. Otherwise new ones are"
            " drafts, and nothing that is sent changes."
        ),
    )

    field_order = ("file", "activate")


@dataclass(frozen=True)
class Looked:
    """What a file would do, in words. ``problems``: where in it, and what is wrong."""

    said: str
    problems: Sequence[tuple[str, str]] = ()
    more: int = 0
    warning: str = ""
    button: str = ""
    details: Sequence[str] = field(default_factory=list)


@needs(Ability.EDIT_SCHEDULES)
def schedules(request: HttpRequest) -> HttpResponse:
    form = SchedulesForm(*_sent(request))

    def look(data: bytes, is_final: bool) -> Looked | str:
        report = import_schedules(
            stream=BytesIO(data),
            by=actor(request.user),
            now=clock.now(),
            activate=form.cleaned_data["activate"],
            dry_run=not is_final,
        )
        return _counted(report) if report.is_kept else _looked_schedules(report)

    context = {
        "title": _("Import schedules"),
        "crumbs": [(_("Schedules"), reverse("schedules"))],
        "lead": _("NDJSON, as “Export” gives it: one schedule a line, at most 1 MB. Its templates have to be there."),
        "accept": ".ndjson,.jsonl",
    }
    return _page(request, form, look, back="schedules", context=context)


@needs(Ability.EDIT_TEMPLATES)
def templates(request: HttpRequest) -> HttpResponse:
    form = FileForm(*_sent(request))

    def look(data: bytes, is_final: bool) -> Looked | str:
        report = import_archive(stream=BytesIO(data), by=actor(request.user), now=clock.now(), dry_run=not is_final)
        return _published(report) if is_final and not report.problems else _looked_templates(report)

    context = {
        "title": _("Import templates"),
        "crumbs": [(_("Templates"), reverse("templates"))],
        "lead": _("A zip archive, as “Export” gives it: a JSON file for each template, catalogue and topic; 1 MB."),
        "accept": ".zip",
    }
    return _page(request, form, look, back="templates", context=context)


def _sent(request: HttpRequest) -> tuple[Any, Any]:
    """Of a form; whoever sends nothing is told so."""
    return (request.POST, request.FILES) if request.method == "POST" else (None, None)


def _page(
    request: HttpRequest,
    form: FileForm,
    look: Callable[[bytes, bool], Looked | str],
    *,
    back: str,
    context: dict[str, Any],
) -> HttpResponse:
    """``look`` tells what it found, or what it has done as a sentence."""
    looked = None
    form.fields["file"].widget.attrs["accept"] = context["accept"]
    if request.method == "POST" and form.is_valid():
        try:
            looked = look(form.cleaned_data["data"], form.is_confirmed)
        except Unreadable as error:
            form.add_error("file", _("The file %(what)s.") % {"what": translated(error.args[0])})
    if isinstance(looked, str):
        messages.success(request, looked)
        return HttpResponseRedirect(reverse(back))
    kept = form.packed if looked and looked.button else ""
    status = 422 if form.is_bound and (form.errors or (looked and looked.problems)) else 200
    return framed(
        request, "frontend/import.html", {**context, "form": form, "looked": looked, "kept": kept}, status=status
    )


def _looked_schedules(report: SchedulesReport) -> Looked:
    counts = {name: number(getattr(report, name)) for name in ("created", "updated", "unchanged")}
    said = _("%(created)s new, %(updated)s changed, %(unchanged)s as they are.") % counts
    if report.problem_count:
        problems = [
            (f"{_('line %(line)s') % {'line': number(each.line)}} {each.pointer}".strip(), translated(each.message))
            for each in report.problems[:_SHOWN]
        ]
        return Looked(_refused(report.problem_count), problems, max(0, report.problem_count - _SHOWN))
    warning = ngettext(
        "%(count)s of them sends from then on, at its times.",
        "%(count)s of them send from then on, at their times.",
        report.running,
    ) % {"count": number(report.running)}
    changing = report.created + report.updated
    button = ngettext("Import %(count)s schedule", "Import %(count)s schedules", changing) % {"count": number(changing)}
    return Looked(said, warning=warning if report.running else "", button=button if changing else "")


def _looked_templates(report: TemplatesReport) -> Looked:
    if report.problems:
        problems = [(f"{each.file} {each.pointer}".strip(), translated(each.message)) for each in report.problems]
        return Looked(_refused(len(problems)), problems[:_SHOWN], max(0, len(problems) - _SHOWN))
    new = len(report.published)
    said = _("%(new)s new or changed, %(unchanged)s as they are.") % {
        "new": number(new), "unchanged": number(len(report.unchanged))
    }  # fmt: skip
    button = ngettext("Import %(count)s file", "Import %(count)s files", new) % {"count": number(new)}
    return Looked(said, details=report.published[:_SHOWN], button=button if new else "")


def _refused(problems: int) -> str:
    return ngettext(
        "%(count)s thing is wrong, so nothing can be imported.",
        "%(count)s things are wrong, so nothing can be imported.",
        problems,
    ) % {"count": number(problems)}


def _counted(report: SchedulesReport) -> str:
    counts = {name: number(getattr(report, name)) for name in ("created", "updated", "unchanged")}
    return _("%(created)s created, %(updated)s changed, %(unchanged)s were as the file says.") % counts


def _published(report: TemplatesReport) -> str:
    counts = {"published": number(len(report.published)), "unchanged": number(len(report.unchanged))}
    return _("%(published)s imported, %(unchanged)s were as the file says.") % counts
