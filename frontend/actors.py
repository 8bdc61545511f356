"""Who did something, as people know him: the audit and every row name an actor by an id."""

from collections.abc import Collection, Iterable, Mapping

from django.contrib.auth.models import User
from django.utils.translation import gettext as _

from frontend.models import Client


def names(actors: Iterable[str]) -> Mapping[str, str]:
    """By actor (``user:3``, ``client:5``, ``system:tick``; see ``audit.trail``) a name; at most two statements."""
    wanted = {actor for actor in actors if actor}
    there = known(wanted)
    return {actor: there.get(actor) or stand_in(actor) for actor in wanted}


def known(actors: Collection[str]) -> Mapping[str, str]:
    """Of people and programs that are still there, by actor; at most two statements."""
    people, programs = (_found(actors, kind) for kind in ("user:", "client:"))
    users = User.objects.filter(pk__in=people).values_list("pk", "username") if people else ()
    clients = Client.objects.filter(pk__in=programs) if programs else ()
    return {f"user:{pk}": username for pk, username in users} | {f"client:{each.pk}": str(each) for each in clients}


def name(actor: str) -> str:
    """Of a single one."""
    return names([actor]).get(actor, "—")


def _found(actors: Collection[str], kind: str) -> list[int]:
    ids = (actor.removeprefix(kind) for actor in actors if actor.startswith(kind))
    return [int(each) for each in ids if each.isascii() and each.isdigit() and len(each) < 19]


def stand_in(actor: str) -> str:
    """What one is called who is no person or program that is there."""
    kind, _colon, who = actor.partition(":")
    match kind:
        case "user":
            return _("a former user (%(id)s)") % {"id": who}
        case "client":
            return _("a former program (%(id)s)") % {"id": who}
        case "system" if who == "person":
            return _("the person")
        case "system":
            return _("the service (%(part)s)") % {"part": who.replace("_", " ")}
    return actor
