"""What the admin calls models and their fields, in the viewer's language: the floors below have names for programmers.

They are put on Django's metadata as a model comes to the admin. Migrations know nothing of them, since those go by what
a model declares.
"""

from collections.abc import Mapping
from typing import Any

from django.db.models import Model
from django.utils.translation import gettext_lazy as _

from delivery.models import State
from frontend.wording import STATES

_APPS: Mapping[str, Any] = {
    "schedules": _("Control"),
    "delivery": _("Sending, looked into"),
    "frontend": _("Programs"),
    "auth": _("People and roles"),
    "django_celery_beat": _("Clock"),
}
_NAMES: Mapping[str, tuple[Any, Any]] = {
    "schedules.StopSwitch": (_("stop switch"), _("stop switches")),
    "schedules.TestClock": (_("test clock"), _("test clock")),
    "delivery.Batch": (_("batch"), _("batches")),
    "delivery.Circuit": (_("refusal by a provider"), _("refusals by providers")),
    "delivery.Count": (_("counter"), _("counters")),
    "delivery.Heartbeat": (_("sign of life"), _("signs of life")),
    "delivery.TestSend": (_("test message"), _("test messages")),
    "frontend.Client": (_("client"), _("clients")),
    "auth.Group": (_("role"), _("roles")),
    "django_celery_beat.PeriodicTask": (_("entry of the clock"), _("entries of the clock")),
}
_FIELDS: Mapping[str, Any] = {
    "channel": _("channel"),
    "client_id": _("client id"),
    "day": _("day"),
    "detail": _("the provider's own words"),
    "expire_seconds": _("seconds until it expires"),
    "label": _("label"),
    "locale": _("language"),
    "name": _("name"),
    "openings": _("refusals in a row"),
    "provider_id": _("id at the provider"),
    "queue": _("queue"),
    "reason": _("reason"),
    "recipient_id": _("recipient"),
    "schedule_id": _("schedule"),
    "shift": _("ahead by"),
    "size": _("people"),
    "slot": _("process"),
    "subject": _("subject"),
    "task": _("task"),
    "total_run_count": _("runs so far"),
    "value": _("value"),
    **{state.label: STATES[state] for state in State},
}


def name(model: type[Model]) -> None:
    """Give ``model``, its fields and its app their names."""
    meta = model._meta
    if names := _NAMES.get(meta.label):
        meta.verbose_name, meta.verbose_name_plural = names
    if app := _APPS.get(meta.app_label):
        meta.app_config.verbose_name = app
    for field in meta.fields:
        if words := _FIELDS.get(field.name):
            field.verbose_name = words
