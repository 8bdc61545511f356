"""Making, changing and erasing people: admins alone, each through its operation."""

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from delivery.receipts import Receipt
from frontend import actors, erasing
from frontend.access import actor, needs
from frontend.pages.frame import framed
from frontend.pages.recipients.forms import (
    AttributeForms,
    DeviceForm,
    EraseForm,
    ProfileForm,
    attributes_of,
    initial_of,
    put,
)
from frontend.pages.recipients.person import found_or_404, page
from frontend.wording import number
from frontend.wording.attributes import value_in_words
from frontend.wording.sayings import translated
from frontend.wording.timings import quiet_hours_in_words
from schedules import clock, recipients
from schedules.models import Recipient
from schedules.permissions import Ability
from schedules.recipients import (
    AlreadyThere,
    ErasedBefore,
    InvalidRecipient,
    NoSuchDevice,
    NoSuchRecipient,
    RecipientChanged,
)
from schedules.recurrence import ZONE_NAMES


@dataclass(frozen=True)
class Conflict:
    """Somebody has changed the profile since the form was opened; ``differing``: field, what stands, what was typed."""

    by: str
    at: Any
    differing: list[tuple[str, str, str]]


@needs(Ability.EDIT_RECIPIENTS)
def new(request: HttpRequest) -> HttpResponse:
    form = ProfileForm(request.POST or None)
    attributes: Any = AttributeForms(request.POST or None, prefix="attributes")
    if request.method == "POST" and form.is_valid() and attributes.is_valid():
        profile = {**form.profile(), "attributes": attributes.read()}
        try:
            made = recipients.create(
                external_id=profile["external_id"],
                profile=profile,
                by=actor(request.user),
                now=clock.now(),
                bring_back=form.cleaned_data["bring_back"],
            )
        except ErasedBefore:
            form.ask_whether_back()
            words = _("A person of this external id or address was erased. If you want them back, say so below.")
            form.add_error("external_id", words)
        except InvalidRecipient as error:
            put(error.problems, form, attributes)
        except AlreadyThere:
            form.add_error("external_id", _("Somebody has this external id already: look for the person in the list."))
        else:
            messages.success(request, _("“%(id)s” is kept.") % {"id": made.external_id})
            return HttpResponseRedirect(reverse("recipient", args=[made.pk]))
    return _form(request, form, attributes, {"title": _("New recipient")})


@needs(Ability.EDIT_RECIPIENTS)
def edit(request: HttpRequest, recipient_id: int) -> HttpResponse:
    person = found_or_404(recipient_id)
    attributes: Any
    if request.method == "POST":
        form = ProfileForm(request.POST, person=person)
        attributes = AttributeForms(request.POST, prefix="attributes")
    else:
        form = ProfileForm(initial=initial_of(person), person=person)
        attributes = AttributeForms(initial=attributes_of(person), prefix="attributes")
    conflict = None
    if form.is_bound and form.is_valid() and attributes.is_valid():
        try:
            recipients.replace(
                recipient_id=recipient_id,
                profile={**form.profile(), "attributes": attributes.read()},
                by=actor(request.user),
                now=clock.now(),
                expected_version=form.cleaned_data["version"] or 0,
                keep_objections=False,
            )
        except InvalidRecipient as error:
            put(error.problems, form, attributes)
        except AlreadyThere:
            form.add_error("external_id", _("Somebody else has this external id: choose another."))
        except RecipientChanged as changed:
            conflict = _conflict(changed, form, attributes, recipient_id)
            form = _over(form, changed.current)
        except NoSuchRecipient:
            found_or_404(recipient_id)
        else:
            messages.success(request, _("The profile is saved."))
            return HttpResponseRedirect(reverse("recipient", args=[recipient_id]))
    context = {"title": _("Edit %(id)s") % {"id": person.external_id}, "person": person, "conflict": conflict}
    return _form(request, form, attributes, context, is_refused=form.is_bound)


def _over(form: ProfileForm, version: int) -> ProfileForm:
    """The same form, which saved once more writes over what stands now."""
    data = form.data.copy()  # type: ignore[attr-defined]
    data["version"] = str(version)
    return ProfileForm(data, person=form.person)


def _conflict(changed: RecipientChanged, form: ProfileForm, attributes: Any, recipient_id: int) -> Conflict:
    stands = found_or_404(recipient_id)
    ours = {**form.profile(), "attributes": attributes.read()}
    differing = [
        (label, _shown(getattr(stands, name)), _shown(ours[name]))
        for name, label in (
            ("external_id", _("External id")),
            ("email", _("E-mail address")),
            ("locale", _("Language")),
            ("time_zone", _("Time zone")),
            ("tags", _("Tags")),
            ("quiet_hours", _("Quiet hours")),
            ("consent", _("Consent")),
            ("attributes", _("Attributes")),
        )
        if getattr(stands, name) != ours[name]
    ]
    return Conflict(actors.name(changed.by), changed.at, differing)


def _shown(value: object) -> str:
    if isinstance(value, dict) and value.keys() == {"from", "to"}:
        return quiet_hours_in_words(value)
    if isinstance(value, dict):
        return value_in_words(dict(sorted(value.items())))
    return ", ".join(map(str, value)) or "—" if isinstance(value, list) else str(value) or "—"


def _form(
    request: HttpRequest, form: ProfileForm, attributes: Any, context: dict[str, Any], *, is_refused: bool = False
) -> HttpResponse:
    person: Recipient | None = context.get("person")
    crumbs = [(_("Recipients"), reverse("recipients"))]
    if person:
        crumbs.append((person.external_id, reverse("recipient", args=[person.pk])))
    context = {
        **context,
        "form": form,
        "attributes": attributes,
        "zone_names": sorted(ZONE_NAMES),
        "crumbs": crumbs,
        "back": crumbs[-1][1],
    }
    status = 422 if is_refused or form.is_bound else 200
    return framed(request, "frontend/recipients/form.html", context, status=status)


@require_POST
@needs(Ability.EDIT_RECIPIENTS)
def add_device(request: HttpRequest, recipient_id: int) -> HttpResponse:
    form = DeviceForm(request.POST)
    if form.is_valid():
        said = {**form.cleaned_data, "by": actor(request.user), "now": clock.now()}
        try:
            recipients.register_device(recipient_id=recipient_id, **said)
        except InvalidRecipient as error:
            for problem in error.problems:
                form.add_error("token", translated(problem.message))
        except NoSuchRecipient:
            found_or_404(recipient_id)
        else:
            messages.success(request, _("The device is registered."))
            return HttpResponseRedirect(reverse("recipient", args=[recipient_id]) + "#devices")
    return page(request, found_or_404(recipient_id), device_form=form, status=422)


@require_POST
@needs(Ability.EDIT_RECIPIENTS)
def remove_device(request: HttpRequest, recipient_id: int, device_id: int) -> HttpResponse:
    try:
        recipients.remove_device(
            recipient_id=recipient_id, device_id=device_id, by=actor(request.user), now=clock.now()
        )
    except NoSuchRecipient:
        found_or_404(recipient_id)
    except NoSuchDevice:
        messages.info(request, _("The person does not have this device any more."))
    else:
        messages.success(request, _("The device is removed: nothing is pushed to it any more."))
    return HttpResponseRedirect(reverse("recipient", args=[recipient_id]) + "#devices")


@needs(Ability.EDIT_RECIPIENTS)
def erase(request: HttpRequest, recipient_id: int) -> HttpResponse:
    """Asks for the external id; then the person is gone for good."""
    person = found_or_404(recipient_id)
    form = EraseForm(person, request.POST or None, initial={"version": person.version})
    if request.method == "POST" and form.is_valid():
        try:
            gone = erasing.erase(
                recipient_id=recipient_id,
                by=actor(request.user),
                now=clock.now(),
                expected_version=form.cleaned_data["version"],
            )
        except NoSuchRecipient:
            found_or_404(recipient_id)
        except RecipientChanged as changed:
            words = _("%(who)s has changed the profile meanwhile. Look at it again before you erase the person.")
            messages.warning(request, words % {"who": actors.name(changed.by)})
            return HttpResponseRedirect(reverse("recipient", args=[recipient_id]))
        else:
            messages.success(request, _erased(gone))
            return HttpResponseRedirect(reverse("recipient", args=[recipient_id]))
    context = {
        "title": _("Erase %(id)s") % {"id": person.external_id},
        "person": person,
        "form": form,
        "devices": person.devices.count(),
        "crumbs": [
            (_("Recipients"), reverse("recipients")),
            (person.external_id, reverse("recipient", args=[person.pk])),
        ],
    }
    return framed(request, "frontend/recipients/erase.html", context, status=422 if form.is_bound else 200)


def _erased(gone: Receipt) -> str:
    pending = ngettext(
        "The person is erased. %(count)s message that was still to come is not sent.",
        "The person is erased. %(count)s messages that were still to come are not sent.",
        gone.pending,
    )
    return pending % {"count": number(gone.pending)} if gone.pending else _("The person is erased.")
