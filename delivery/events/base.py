"""The words between whoever reads a provider's events and whoever settles them."""

import enum
from datetime import datetime
from typing import NamedTuple


class Kind(enum.StrEnum):
    """What happened to a message, the provider says."""

    SEND = "send"  # taken, and about to be handed to the person's mail server
    DELIVERY = "delivery"  # the person's mail server took it
    BOUNCE_HARD = "bounce_hard"  # that address will never take one
    BOUNCE_SOFT = "bounce_soft"  # not this one; another may arrive
    COMPLAINT = "complaint"  # the person called it spam
    DELAY = "delay"  # the person's mail server does not take it yet
    REJECT = "reject"  # taken, then found to hold a virus, and not sent
    RENDERING_FAILURE = "rendering_failure"  # taken, then found impossible to fill in, and not sent


class ProviderEvent(NamedTuple):
    """One event about one message. It may come twice, late, and in any order among its message's events.

    ``at`` and ``sent_at`` are the provider's real clock, aware; ``addresses`` are for fingerprints, never to be kept.
    """

    kind: Kind
    key: str  # the delivery's id as the message carried it, "20261121-17-4711"; empty where the event has none
    provider_id: str  # the provider's id of the message, as its answer gave it
    at: datetime  # of the event
    sent_at: datetime  # when the provider took the message
    event_id: str  # the same whenever the same event is told again, and for no other event
    detail: str = ""  # the provider's codes, such as "Permanent/General 5.1.1": nothing about the person
    addresses: tuple[str, ...] = ()  # whom it concerns, as the provider writes them
    run: str = ""  # the occurrence's name in whichever database, "17-1795341600000000"; empty where the event has none
