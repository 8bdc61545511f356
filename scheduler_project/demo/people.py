"""Invented people: the same ones for the same number and day, with addresses in domains that RFC 2606 keeps free.

About 2 in 100 have no time zone and 1 in 100 one that does not exist, 3 have no e-mail address, 4 want no e-mail, and
the addresses of 3 fail in one of the ways of ``troubles``.
"""

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from scheduler_project.demo import troubles

SEED = 20_260_401
PREFIX = "demo-"
"""Of the external ids."""
TEAM_EVERY = 200
"""Each so manieth person belongs to the team that reads the bulletin of each minute."""

PARTNER = "partner-list"
"""The tag of people on a list that somebody else has put together: none of its addresses works."""

_DOMAINS = [*troubles.GOOD_DOMAINS, *troubles.SHARES]
_GOOD_SHARE = (1 - sum(troubles.SHARES.values())) / len(troubles.GOOD_DOMAINS)
_DOMAIN_SHARES = list(accumulate([*(_GOOD_SHARE for _ in troubles.GOOD_DOMAINS), *troubles.SHARES.values()]))
_WRONG_ZONES = ("Mars/Olympus", "GMT+25", "europe/atlantis")
_PLATFORMS = ("android", "android", "ios", "ios", "web")

_NAMES = {
    "de": (
        "Anna Lena Jonas Paul Emma Felix Mia Lukas Marie Jürgen Käthe Björn",
        "Schmidt Weber Huber Köhler Bauer Wolf",
    ),
    "fr": ("Camille Louis Chloé Hugo Inès Théo Léa Gaël Zoé Noémie", "Martin Bernard Lefèvre Moreau Girard Rousseau"),
    "es": ("Lucía Mateo Sofía Diego Martina Hugo Valeria Iñaki Camila José", "García Muñoz Rojas Torres Díaz Castillo"),
    "en": (
        "Olivia Liam Amara Noah Priya Ethan Mei Kofi Aroha Sione Yuki Omar Nadia Arjun Hine Tomas",
        "Smith Okafor Sharma Chen Williams Tanaka Ngata Haddad Silva Brown",
    ),
}


@dataclass(frozen=True)
class Person:
    """Columns of a recipient; ``devices`` are pairs of push token and platform."""

    external_id: str
    email: str
    locale: str
    time_zone: str
    attributes: dict[str, Any]
    tags: list[str]
    consent: dict[str, bool]
    devices: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    zone: str
    weight: int
    locales: str
    city: str


# Zones with their share; offsets from -11 to +14, halves and quarters of an hour among them. A locale that stands
# twice is twice as likely.
_PLACES = [
    _Place("Europe/Berlin", 130, "de de de de-DE en", "Berlin"),
    _Place("Europe/Vienna", 40, "de-AT", "Wien"),
    _Place("Europe/Zurich", 40, "de-CH fr-CH", "Zürich"),
    _Place("Europe/London", 90, "en-GB", "London"),
    _Place("Europe/Dublin", 15, "en-IE", "Dublin"),
    _Place("Europe/Paris", 90, "fr fr-FR", "Paris"),
    _Place("Europe/Brussels", 20, "fr-BE", "Bruxelles"),
    _Place("Europe/Madrid", 70, "es es-ES", "Madrid"),
    _Place("Atlantic/Canary", 8, "es", "Las Palmas"),
    _Place("Europe/Lisbon", 15, "en", "Lisboa"),
    _Place("Europe/Helsinki", 12, "en", "Helsinki"),
    _Place("Europe/Istanbul", 15, "en", "İstanbul"),
    _Place("America/New_York", 110, "en-US en-US es-US", "New York"),
    _Place("America/Chicago", 50, "en-US", "Chicago"),
    _Place("America/Denver", 20, "en-US", "Denver"),
    _Place("America/Phoenix", 12, "en-US", "Phoenix"),
    _Place("America/Los_Angeles", 70, "en-US en-US es-US", "Los Angeles"),
    _Place("America/Anchorage", 6, "en-US", "Anchorage"),
    _Place("Pacific/Honolulu", 6, "en-US", "Honolulu"),
    _Place("America/Toronto", 40, "en-CA fr-CA", "Montréal"),
    _Place("America/St_Johns", 6, "en-CA", "St. John’s"),
    _Place("America/Mexico_City", 40, "es-MX", "Ciudad de México"),
    _Place("America/Bogota", 20, "es-CO", "Bogotá"),
    _Place("America/Santiago", 15, "es-CL", "Santiago"),
    _Place("America/Argentina/Buenos_Aires", 20, "es-AR", "Buenos Aires"),
    _Place("America/Sao_Paulo", 20, "pt-BR", "São Paulo"),
    _Place("America/Havana", 6, "es-CU", "La Habana"),
    _Place("Africa/Casablanca", 12, "fr-MA", "Casablanca"),
    _Place("Africa/Dakar", 10, "fr-SN", "Dakar"),
    _Place("Africa/Cairo", 10, "en", "Cairo"),
    _Place("Africa/Johannesburg", 12, "en-ZA", "Johannesburg"),
    _Place("Africa/Nairobi", 10, "en-KE", "Nairobi"),
    _Place("Asia/Dubai", 10, "en", "Dubai"),
    _Place("Asia/Tehran", 6, "en", "Tehran"),
    _Place("Asia/Kabul", 4, "en", "Kabul"),
    _Place("Asia/Kolkata", 60, "en-IN", "Mumbai"),
    _Place("Asia/Kathmandu", 8, "en", "Kathmandu"),
    _Place("Asia/Yangon", 5, "en", "Yangon"),
    _Place("Asia/Bangkok", 10, "en", "Bangkok"),
    _Place("Asia/Singapore", 20, "en-SG", "Singapore"),
    _Place("Asia/Tokyo", 25, "en", "Tokyo"),
    _Place("Australia/Perth", 8, "en-AU", "Perth"),
    _Place("Australia/Eucla", 2, "en-AU", "Eucla"),
    _Place("Australia/Adelaide", 8, "en-AU", "Adelaide"),
    _Place("Australia/Sydney", 25, "en-AU", "Sydney"),
    _Place("Australia/Lord_Howe", 2, "en-AU", "Lord Howe Island"),
    _Place("Pacific/Noumea", 3, "fr-NC", "Nouméa"),
    _Place("Pacific/Auckland", 15, "en-NZ", "Auckland"),
    _Place("Pacific/Chatham", 2, "en-NZ", "Waitangi"),
    _Place("Pacific/Tongatapu", 3, "en", "Nukuʻalofa"),
    _Place("Pacific/Kiritimati", 3, "en", "London, Kiritimati"),
    _Place("Pacific/Marquesas", 2, "fr-PF", "Taiohae"),
    _Place("Pacific/Pago_Pago", 3, "en", "Pago Pago"),
]
_CUMULATIVE = list(accumulate(place.weight for place in _PLACES))


def as_profile(person: Person) -> dict[str, Any]:
    """As the contract of the user service has a person."""
    return {
        "externalId": person.external_id,
        "email": person.email,
        "locale": person.locale,
        "timeZone": person.time_zone,
        "attributes": person.attributes,
        "tags": person.tags,
        "consent": person.consent,
        "devices": [{"platform": platform, "token": token} for token, platform in person.devices],
    }


def invent(*, count: int, now: datetime) -> Iterator[Person]:
    """``count`` people; ``now`` dates their orders. The first ones cover every place once."""
    chance = random.Random(SEED)  # noqa: S311 - nothing here is a secret
    for number in range(1, count + 1):
        place = _PLACES[number - 1] if number <= len(_PLACES) else chance.choices(_PLACES, cum_weights=_CUMULATIVE)[0]
        yield _person(number, place, chance, now)


def _person(number: int, place: _Place, chance: random.Random, now: datetime) -> Person:
    locale = chance.choice(place.locales.split())
    firsts, lasts = _NAMES.get(locale[:2], _NAMES["en"])
    first, last = chance.choice(firsts.split()), chance.choice(lasts.split())
    domain = chance.choices(_DOMAINS, cum_weights=_DOMAIN_SHARES)[0]
    if number <= len(_PLACES):
        domain = troubles.GOOD_DOMAINS[number % len(troubles.GOOD_DOMAINS)]
    address = f"{_ascii(first)}.{_ascii(last)}.{number}@{domain}".lower()
    return Person(
        external_id=f"{PREFIX}{number:06d}",
        email=address if number <= len(_PLACES) or chance.random() < 0.97 else "",
        locale=locale if chance.random() < 0.97 else "",
        time_zone=_zone(number, place, chance),
        attributes=_attributes(first, last, place, chance, now),
        tags=_tags(number, domain, chance),
        consent=_consent(chance),
        devices=_devices(number, chance),
    )


def _zone(number: int, place: _Place, chance: random.Random) -> str:
    drawn = chance.random()
    if number <= len(_PLACES) or drawn >= 0.03:
        return place.zone
    return "" if drawn < 0.02 else chance.choice(_WRONG_ZONES)


def _attributes(first: str, last: str, place: _Place, chance: random.Random, now: datetime) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "first_name": first,
        "last_name": last,
        "city": place.city,
        "plan": chance.choices(["free", "plus", "pro"], [70, 22, 8])[0],
        "age": chance.randint(18, 84),
        "points": chance.choice([0, 1, 5, 40, 250, 1_240, 12_500]),
        "cart_items": chance.choices([0, 1, 2, 5], [70, 15, 10, 5])[0],
    }
    if chance.random() < 0.8:
        ordered = now - timedelta(minutes=chance.randint(60, 400 * 24 * 60))
        attributes["last_order_at"] = ordered.isoformat(timespec="seconds").replace("+00:00", "Z")
    return attributes


def _tags(number: int, domain: str, chance: random.Random) -> list[str]:
    tags = [tag for tag, share in (("newsletter", 0.8), ("beta", 0.1), ("vip", 0.03)) if chance.random() < share]
    if domain in (troubles.BOUNCES, troubles.DOWN):
        tags.append(PARTNER)
    if domain == troubles.SILENT and "vip" in tags:
        tags.remove("vip")  # so that the call without an answer is one of the newsletter's
    return [*tags, "team"] if number % TEAM_EVERY == 1 else tags


def _consent(chance: random.Random) -> dict[str, bool]:
    refused = {channel: False for channel, share in (("email", 0.04), ("push", 0.06)) if chance.random() < share}
    return refused or ({"email": True} if chance.random() < 0.5 else {})


def _devices(number: int, chance: random.Random) -> list[tuple[str, str]]:
    owned = chance.choices([0, 1, 2], [40, 48, 12])[0]
    return [(f"demo-token-{number}-{each}", chance.choice(_PLATFORMS)) for each in range(owned)]


def _ascii(name: str) -> str:
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
