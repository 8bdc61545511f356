"""Who did something, as people know him: the audit and every row name an actor by an id."""

from collections.abc import Iterable, Mapping

from django.contrib.auth.models import User
from django.utils.translation import gettext as _

from frontend.models import Client


def names(actors: Iterable[str]) -> Mapping[str, str]:
    """By actor (``user:3``, ``client:5``, ``system:tick``; see ``audit.trail``) a name; at most two statements."""
    wanted = {actor for actor in actors if actor}
    people = _found(wanted, "user:")
    programs = _found(wanted, "client:")
    users = dict(User.objects.filter(pk__in=people).values_list("pk", "username")) if people else {}
    clients = {each.pk: str(each) for each in Client.objects.filter(pk__in=programs)} if programs else {}
    return {actor: _name(actor, users, clients) for actor in wanted}


def name(actor: str) -> str:
    """Of a single one."""
    return names([actor]).get(actor, "—")


def _found(actors: Iterable[str], kind: str) -> list[int]:
    ids = (actor.removeprefix(kind) for actor in actors if actor.startswith(kind))
    return [int(each) for each in ids if each.isascii() and each.isdigit() and len(each) < 19]


def _name(actor: str, users: Mapping[int, str], clients: Mapping[int, str]) -> str:
    kind, _colon, who = actor.partition(":")
    known = {"user": users, "client": clients}.get(kind, {})
    if who.isdigit() and int(who) in known:
        return known[int(who)]
    match kind:
        case "user":
            return _("a former user (%(id)s)") % {"id": who}
        case "client":
            return _("a former program (%(id)s)") % {"id": who}
        case "system":
            return _("the service (%(part)s)") % {"part": who.replace("_", " ")}
    return actor
