"""What our lists have in common: whom they are asked about, how long they are, and the way to their next page."""

from typing import Any

from django import forms
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from schedules.models import Recipient

PAGE = 50


class RecipientField(forms.CharField):
    """The surrogate id of the person meant: ledger and messages know people by nothing else. None where it is empty."""

    def __init__(self) -> None:
        super().__init__(
            required=False,
            max_length=200,
            label=gettext_lazy("Recipient"),
            help_text=gettext_lazy("External id, or #12 for person 12"),
        )

    def clean(self, value: Any) -> int | None:
        text: str = super().clean(value)
        if not text:
            return None
        if text.startswith("#") and text[1:].isascii() and text[1:].isdigit() and len(text) < 20:
            return int(text[1:])
        found = Recipient.objects.filter(external_id=text).values_list("pk", flat=True).first()
        if found is None:
            raise forms.ValidationError(_("Nobody has this external id. An erased person is found by #number only."))
        return found


def link(request: HttpRequest, name: str, *, parameter: str, start: object) -> str:
    """The address of the list ``name`` with all that is asked of it now, from ``start`` on or from the top."""
    query = request.GET.copy()
    query.pop(parameter, None)
    if start:
        query[parameter] = str(start)
    return f"{reverse(name)}?{query.urlencode()}"


def schedule_page(schedule_id: int) -> str:
    return reverse("schedule", args=[schedule_id])
