"""Who can't be reached on a channel, as conditions on recipients: what a claim finds out of each.

Someone who has opted out is suppressed, with an address or without.
"""

from django.db.models import Exists, OuterRef, Q

from schedules.models import Channel, Device


def opted_out(channel: str) -> Q:
    return Q(**{f"consent__{Channel(channel).value}": False})


def without_address(channel: str) -> Q:
    """Without e-mail address or active device; an inbox has everybody."""
    match channel:
        case Channel.EMAIL:
            return Q(email="")
        case Channel.PUSH:
            return ~Q(Exists(Device.objects.filter(recipient=OuterRef("pk"), active=True)))
    return Q(pk__isnull=True)
