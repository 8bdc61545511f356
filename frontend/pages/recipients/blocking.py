"""Blocking a person's address, and letting it be written to again."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from frontend.access import actor, needs
from frontend.pages.recipients.person import found_or_404
from schedules import clock, encryption, suppressions
from schedules.permissions import Ability, can


@require_POST
@needs(Ability.SUPPRESS)
def block(request: HttpRequest, recipient_id: int) -> HttpResponse:
    person = found_or_404(recipient_id)
    if person.email_index is None:
        messages.error(request, _("The person has no e-mail address."))
    else:
        fingerprint = encryption.fingerprint_of(person.email_index)
        suppressions.block(fingerprint=fingerprint, recipient_id=person.pk, by=actor(request.user), now=clock.now())
        messages.success(request, _("The address is written to no more."))
    return _back(recipient_id)


@require_POST
@needs(Ability.SUPPRESS)
def unblock(request: HttpRequest, recipient_id: int) -> HttpResponse:
    person = found_or_404(recipient_id)
    held = suppressions.of_person(person)
    try:
        if held is None:
            raise suppressions.NoSuchSuppression
        suppressions.lift(
            suppression_id=held.pk,
            recipient_id=person.pk,
            may_forgive=can(request.user, Ability.EDIT_RECIPIENTS),
            by=actor(request.user),
            now=clock.now(),
        )
    except suppressions.NoSuchSuppression:
        messages.info(request, _("The address is written to already."))
    except suppressions.NotYours:
        messages.error(request, _("The person has complained: only an admin can take that back."))
    else:
        messages.success(request, _("The address is written to again."))
    return _back(recipient_id)


def _back(recipient_id: int) -> HttpResponse:
    return HttpResponseRedirect(f"{reverse('recipient', args=[recipient_id])}#address")
