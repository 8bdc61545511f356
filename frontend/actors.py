"""Who did something, by name: the audit and the versions keep ``user:ID``, ``client:ID`` and ``system:NAME``."""

from collections.abc import Iterable, Mapping

from django.contrib.auth import get_user_model
from django.utils.translation import gettext as _

from frontend.models import Client


def names(ids: Iterable[str]) -> Mapping[str, str]:
    """The names of those ids, each as it is shown; at most two statements, however many there are."""
    asked = set(ids)
    people = {int(each[5:]) for each in asked if each.startswith("user:") and each[5:].isdecimal()}
    programs = {int(each[7:]) for each in asked if each.startswith("client:") and each[7:].isdecimal()}
    users = get_user_model().objects.in_bulk(people) if people else {}
    clients = dict(Client.objects.filter(pk__in=programs).values_list("pk", "name")) if programs else {}
    found = {f"user:{pk}": user.get_full_name() or user.get_username() for pk, user in users.items()}
    found |= {f"client:{pk}": _("%(name)s (a program)") % {"name": name} for pk, name in clients.items()}
    return {each: found.get(each) or _otherwise(each) for each in asked}


def _otherwise(actor: str) -> str:
    """Somebody whose account is gone, or the service itself."""
    kind, _colon, name = actor.partition(":")
    if kind == "user":
        return _("somebody whose account was removed (#%(id)s)") % {"id": name}
    if kind == "client":
        return _("a program that was removed (#%(id)s)") % {"id": name}
    if name == "brake":
        return _("the failure brake")
    return _("the service") if name == "tick" else actor or _("nobody known")
