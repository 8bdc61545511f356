"""People's profiles and devices, one at a time: each operation is one transaction of change and audit event.

What a value may be is said once, for files too, in ``schedules.imports.values``. The audit gets the names of what
changed and never a value. Locks are taken in one order, as by imports and by erasing: devices, then profiles.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q, QuerySet

from audit import trail
from audit.models import Action
from schedules import encryption, fingerprints, storable, topics
from schedules.imports.ndjson_rows import read_person
from schedules.imports.values import LONGEST_TOKEN, MAX_DEVICES, is_token, problem_of
from schedules.models import Device, Recipient
from schedules.problems import Problem, say

FIELDS: Final = ("external_id", "email", "locale", "time_zone", "attributes", "tags", "consent", "quiet_hours")
_EMPTY: Final[Mapping[str, Any]] = {
    "email": "", "locale": "", "time_zone": "", "attributes": {}, "tags": [], "consent": {}, "quiet_hours": None,
}  # fmt: skip
_DOCUMENTS: Final = ("tags", "consent", "quiet_hours")
_COUNTED: Final = 10_000
_INSTALLATION_ID: Final = re.compile(r"[cdef][\w-]{21}", re.ASCII)
_LONGEST_ID: Final = int(Recipient._meta.get_field("external_id").max_length or 0)


class NoSuchRecipient(LookupError):
    """Nobody has that external id."""

    def __init__(self) -> None:
        super().__init__("There is nobody of that external id.")


class NoSuchDevice(LookupError):
    """The person has no such device."""

    def __init__(self) -> None:
        super().__init__("The person has no such device.")


class InvalidRecipient(ValueError):
    """The profile or device can't be kept; fields of ``problems`` are public names or JSON pointers."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


class RecipientChanged(Exception):
    """The person is not at the version that was expected; ``current`` is that which stands, made by whom and when."""

    def __init__(self, standing: Recipient) -> None:
        super().__init__(f"The person is at version {standing.version} by now: read it again and repeat the change.")
        self.current = standing.version
        self.by = standing.updated_by
        self.at = standing.updated_at


class ErasedBefore(Exception):
    """Whoever has that external id or address was erased, and is only brought back when that is asked for."""

    def __init__(self) -> None:
        super().__init__("A person of this external id or address was erased: say that you want to bring them back.")


class AlreadyThere(RecipientChanged):
    """Somebody has that external id already."""


@dataclass(frozen=True)
class Registered:
    """``is_new``: the person did not have the device before; it is new, or was somebody else's."""

    device: Device
    is_new: bool


@dataclass(frozen=True)
class _Said:
    """What was given of a profile, in the form in which it is kept. ``dropped``: attributes given as null."""

    fields: Mapping[str, Any]
    dropped: Collection[str] = ()
    devices: Sequence[Mapping[str, str]] | None = None
    problems: list[Problem] = field(default_factory=list)

    @property
    def tokens(self) -> list[str] | None:
        return None if self.devices is None else [each["token"] for each in self.devices]


def find(*, external_id: str) -> Recipient:
    """A person, with the devices read. Raises ``NoSuchRecipient``."""
    if len(external_id) > _LONGEST_ID or storable.text_fault(external_id):
        raise NoSuchRecipient
    found = Recipient.objects.prefetch_related("devices").filter(external_id=external_id).first()
    if found is None:
        raise NoSuchRecipient
    return found


def matching(
    *,
    prefix: str | None = None,
    locale: str | None = None,
    time_zone: str | None = None,
    tag: str | None = None,
    has_email: bool | None = None,
    address: str | None = None,
) -> QuerySet[Recipient]:
    """People whose external id begins with ``prefix`` and so on, with their devices: two statements to read.

    ``address`` is found whole, in any use of small letters and large.
    """
    wanted = {"external_id__startswith": prefix, "locale": locale, "time_zone": time_zone}
    rows = Recipient.objects.filter(**{name: value for name, value in wanted.items() if value is not None})
    if has_email is not None:
        rows = rows.exclude(email="") if has_email else rows.filter(email="")
    if address is not None:
        rows = rows.filter(email_index__range=encryption.range_of_address(address))
    return (rows if tag is None else rows.filter(tags__contains=[tag])).prefetch_related("devices")


def about_how_many() -> int:
    """People in all: counted while they are few, and past that as the planner reckons."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = 'schedules_recipient'::regclass")
        estimate = int(cursor.fetchone()[0])
    return estimate if estimate > _COUNTED else Recipient.objects.order_by()[:_COUNTED].count()


def values_in_use(column: Literal["locale", "time_zone"], *, most: int = 200) -> list[str]:
    """The values that stand in an indexed column, by one index probe each: a loose index scan.

    ``DISTINCT`` would read the whole index.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE found AS (
                (SELECT {column} AS value, 1 AS number FROM schedules_recipient ORDER BY {column} LIMIT 1)
                UNION ALL
                SELECT (SELECT {column} FROM schedules_recipient r
                        WHERE r.{column} > found.value ORDER BY {column} LIMIT 1), found.number + 1
                FROM found WHERE found.value IS NOT NULL AND found.number < %s
            )
            SELECT value FROM found WHERE value <> ''
            """,
            [most],
        )
        return [value for (value,) in cursor.fetchall()]


def check(*, external_id: str, profile: Mapping[str, Any]) -> list[Problem]:
    """Everything wrong with a profile; keys as in ``create``."""
    said = _read(external_id, profile)
    return [*said.problems, *_unknown_topics(said, known={})]


def create(
    *, external_id: str, profile: Mapping[str, Any], by: str, now: datetime, bring_back: bool = False
) -> Recipient:
    """Keep a new person. ``profile``: any of ``FIELDS``, and ``devices`` as ``[{platform, token}]``.

    Raises ``InvalidRecipient``, ``AlreadyThere``, and ``ErasedBefore`` unless ``bring_back``.
    """
    said = _checked(external_id, profile)
    _refuse_unknown_topics(said, known={})
    address = said.fields.get("email")
    if not bring_back and fingerprints.is_erased(external_id, address):
        raise ErasedBefore
    recipient = Recipient(**{**_EMPTY, **said.fields}, created_at=now, updated_at=now, updated_by=by, version=1)
    recipient.objected_at = _objected_at(recipient, recipient.consent, recipient.consent, now=now)
    recipient.consent_source = _sources({}, {}, recipient.consent, by=by, now=now)
    if recipient.quiet_hours:
        recipient.quiet_hours_source = _signed(by=by, now=now)
    with transaction.atomic():
        if bring_back:
            fingerprints.drop(external_id, address)
        if said.devices:
            list(_devices(_with(said.tokens or [])))
        try:
            with transaction.atomic():
                recipient.save(force_insert=True)
        except IntegrityError:
            raise AlreadyThere(Recipient.objects.get(external_id=recipient.external_id)) from None
        if said.devices:
            _give(recipient, said.devices, is_whole=True, by=by, now=now)
        _record(recipient.pk, [*said.fields, *(["devices"] if said.devices else [])], by=by, now=now)
    return recipient


@transaction.atomic
def replace(
    *,
    recipient_id: int,
    profile: Mapping[str, Any],
    by: str,
    now: datetime,
    expected_version: int | None = None,
    keep_objections: bool = True,
) -> Recipient:
    """Make the profile what is given; what isn't is emptied. Devices are replaced when given, and stay else.

    Quiet hours stay unless they are given, as None for none.
    An objection (consent ``false``) stays until a ``true`` takes it back, unless ``keep_objections`` is false: then it
    is said anew only where it was none. Where nothing changes nothing is written, but that somebody has objected once
    more. Raises ``InvalidRecipient``, ``NoSuchRecipient``, ``RecipientChanged``, and
    ``AlreadyThere`` for a new external id that somebody has.
    """
    said = _checked(profile.get("external_id"), profile)
    recipient = _lock(recipient_id, said.tokens, expected_version)
    _refuse_unknown_topics(said, known=recipient.consent)
    objections = {channel: False for channel, agreed in recipient.consent.items() if agreed is False}
    agreed = said.fields.get("consent", {})
    new = agreed if keep_objections else {key: value for key, value in agreed.items() if key not in objections}
    kept = {**_EMPTY, "quiet_hours": recipient.quiet_hours}
    after = {**kept, **said.fields, "consent": {**(objections if keep_objections else {}), **agreed}}
    return _write(recipient, after, said.devices, agreed=new, by=by, now=now)


@transaction.atomic
def update(
    *, recipient_id: int, changes: Mapping[str, Any], by: str, now: datetime, expected_version: int | None = None
) -> Recipient:
    """Change what is given: attributes and consent by key (an attribute of ``null`` goes), all else as a whole.

    As imports do, but that devices which are given replace those there were. Raises as ``replace``.
    """
    said = _checked(changes.get("external_id"), changes)
    recipient = _lock(recipient_id, said.tokens, expected_version)
    _refuse_unknown_topics(said, known=recipient.consent)
    after = dict(said.fields)
    if "attributes" in after:
        merged = {**recipient.attributes, **after["attributes"]}
        after["attributes"] = {name: value for name, value in merged.items() if name not in said.dropped}
    if "consent" in after:
        after["consent"] = {**recipient.consent, **after["consent"]}
    return _write(recipient, after, said.devices, agreed=said.fields.get("consent", {}), by=by, now=now)


@transaction.atomic
def register_device(
    *, recipient_id: int, platform: str, token: str, by: str, now: datetime, replaces: str = ""
) -> Registered:
    """The person has this device, switched on; whoever had it has it no more.

    ``replaces``: by what the device was reached until now. Where the person has it, it stays the same device.
    Raises ``InvalidRecipient`` and ``NoSuchRecipient``.
    """
    _check_token(token)
    recipient = _lock(recipient_id, [token, replaces] if replaces else [token], None)
    is_renewed = bool(replaces) and replaces != token and _renew(recipient_id, replaces, token)
    is_new = not Device.objects.filter(_with([token]), recipient_id=recipient_id).exists()
    if is_new and Device.objects.filter(recipient_id=recipient_id).count() >= MAX_DEVICES:
        words = say("The person has %(most)s devices, and more are not allowed: remove one first.", most=MAX_DEVICES)
        raise InvalidRecipient([Problem("token", "too_many", words)])
    is_given = _give(recipient, [{"platform": platform, "token": token}], is_whole=False, by=by, now=now)
    if is_renewed or is_given:
        _raise_version(recipient, ["devices"], by=by, now=now)
    return Registered(Device.objects.get(_with([token])), is_new and not is_renewed)


def _renew(recipient_id: int, former: str, token: str) -> bool:
    """Whether the person had the device ``former``, which is reached by ``token`` now, or is one with its device."""
    had = Device.objects.filter(_with([former]), recipient_id=recipient_id)
    try:
        with transaction.atomic():
            return bool(had.update(token=token, token_index=encryption.index_of_token(token)))
    except IntegrityError:  # there is a device of that token already, perhaps since this instant
        return bool(had.delete()[0])


def is_installation_id(text: str) -> bool:
    """Whether it is a Firebase installation id, as Firebase's own libraries check it; a registration token is longer
    and has a colon."""
    return _INSTALLATION_ID.fullmatch(text) is not None


@transaction.atomic
def change_device(
    *, recipient_id: int, device_id: int, platform: str, token: str, active: bool, by: str, now: datetime
) -> Device:
    """Correct what is known of a person's device.

    Raises ``InvalidRecipient``, ``NoSuchRecipient`` and ``NoSuchDevice``.
    """
    _check_token(token)
    recipient = _lock(recipient_id, [], None)
    changed = Device.objects.filter(pk=device_id, recipient_id=recipient_id)
    token_index = encryption.index_of_token(token)
    if not changed.update(platform=platform, token=token, token_index=token_index, active=active):
        raise NoSuchDevice
    _raise_version(recipient, ["devices"], by=by, now=now)
    return changed.get()


@transaction.atomic
def remove_device(*, recipient_id: int, device_id: int, by: str, now: datetime) -> None:
    """Raises ``NoSuchRecipient`` and ``NoSuchDevice``."""
    recipient = _lock(recipient_id, [], None)
    deleted, _ = Device.objects.filter(pk=device_id, recipient_id=recipient_id).delete()
    if not deleted:
        raise NoSuchDevice
    _raise_version(recipient, ["devices"], by=by, now=now)


def _check_token(token: str) -> None:
    if not is_token(token) or storable.text_fault(token):
        words = say("A token has 1 to %(most)s characters and no spaces.", most=LONGEST_TOKEN)
        raise InvalidRecipient([Problem("token", "invalid", words)])


def _checked(external_id: str | None, given: Mapping[str, Any]) -> _Said:
    said = _read(external_id, given)
    if said.problems:
        raise InvalidRecipient(said.problems)
    return said


def _read(external_id: str | None, given: Mapping[str, Any]) -> _Said:
    """``external_id`` None: it is not said. One that a file's reader would trim is refused: it would be another."""
    problems = [
        Problem(problem_of(name, "").field, "invalid", fault)
        for name, value in given.items()
        if (fault := storable.json_fault(value))
    ]
    if problems:
        return _Said({}, problems=problems)
    found, faults = read_person({**given, "external_id": "-" if external_id is None else external_id})
    problems = [problem_of(fault.field, fault.reason) for fault in faults]
    if external_id is None:
        del found["external_id"]
    elif found.get("external_id", external_id) != external_id:
        problems.append(Problem("externalId", "invalid", say("It begins or ends with a space: remove it.")))
    attributes = found.pop("attributes", None)
    fields = {
        name: json.loads(value) if name in _DOCUMENTS else value for name, value in found.items() if name != "devices"
    }
    if attributes is not None:
        fields["attributes"] = json.loads(attributes[0])
    dropped = [name for name, value in (given.get("attributes") or {}).items() if value is None] if attributes else []
    devices = json.loads(found["devices"]) if "devices" in found else None
    return _Said(fields, dropped, devices, problems)


def _unknown_topics(said: _Said, *, known: Collection[str]) -> list[Problem]:
    """What is said of topics that there are not. ``known``: keys that the person has already, as from elsewhere."""
    words = say("There is no topic of this key: make it first, or correct the key.")
    keys = [key for key in said.fields.get("consent", {}) if key not in known]
    return [Problem(f"consent/{key}", "unknown_topic", words) for key in topics.unknown(keys)]


def _refuse_unknown_topics(said: _Said, *, known: Collection[str]) -> None:
    if problems := _unknown_topics(said, known=known):
        raise InvalidRecipient(problems)


def _with(tokens: Iterable[str]) -> Q:
    """The devices that have one of these tokens."""
    return Q(token_index__in=[encryption.index_of_token(token) for token in tokens])


def _devices(wanted: Q) -> QuerySet[Device]:
    return Device.objects.filter(wanted).order_by("id").select_for_update()


def _lock(recipient_id: int, tokens: Sequence[str] | None, expected_version: int | None) -> Recipient:
    """The person, for the rest of the transaction. With ``tokens`` also the devices that it has or that have those
    tokens, and whom those belong to.
    """
    people = {recipient_id}
    if tokens is not None:
        people |= {device.recipient_id for device in _devices(Q(recipient_id=recipient_id) | _with(tokens))}
    profiles = Recipient.objects.filter(pk__in=people).order_by("id").select_for_update(no_key=True)
    found = {each.pk: each for each in profiles}.get(recipient_id)
    if found is None:
        raise NoSuchRecipient
    if expected_version is not None and expected_version != found.version:
        raise RecipientChanged(found)
    return found


def _write(
    recipient: Recipient,
    after: Mapping[str, Any],
    devices: Sequence[Mapping[str, str]] | None,
    *,
    agreed: Mapping[str, bool],
    by: str,
    now: datetime,
) -> Recipient:
    """``agreed``: what was said of consent at this moment."""
    objected_at = _objected_at(recipient, after.get("consent", recipient.consent), agreed, now=now)
    objects_anew, recipient.objected_at = objected_at != recipient.objected_at, objected_at
    if "consent" in after:
        known = recipient.consent_source
        recipient.consent_source = _sources(known, recipient.consent, after["consent"], by=by, now=now)
    changed = [name for name in FIELDS if name in after and not _is_same(getattr(recipient, name), after[name])]
    if "quiet_hours" in changed:
        recipient.quiet_hours_source = _signed(by=by, now=now)
    for name in changed:
        setattr(recipient, name, after[name])
    if devices is not None and _give(recipient, devices, is_whole=True, by=by, now=now):
        changed.append("devices")
    if changed:
        _raise_version(recipient, changed, by=by, now=now)
    elif objects_anew:
        recipient.save(update_fields=["objected_at"])
    return recipient


def _objected_at(
    recipient: Recipient, consent: Mapping[str, bool], agreed: Mapping[str, bool], *, now: datetime
) -> dict[str, str]:
    """Of each objection made here and still standing in ``consent``: when it last was, which is now if ``agreed`` says
    so."""
    standing = {key: at for key, at in recipient.objected_at.items() if consent.get(key) is False}
    instant = now.astimezone(UTC).isoformat()
    return {**standing, **{key: instant for key, value in agreed.items() if value is False}}


def _sources(
    known: Mapping[str, Any], before: Mapping[str, bool], after: Mapping[str, bool], *, by: str, now: datetime
) -> dict[str, Any]:
    """By key of ``after`` who last changed it and when; none where that is not known."""
    told = _signed(by=by, now=now)
    changed = {name: told for name, agreed in after.items() if before.get(name) is not agreed}
    return {name: said for name in after if (said := changed.get(name) or known.get(name))}


def _signed(*, by: str, now: datetime) -> dict[str, str]:
    """Who says something at this moment, and when."""
    return {"by": by, "at": now.astimezone(UTC).isoformat()}


def _is_same(before: object, after: object) -> bool:
    """As JSON has it: Python takes 1 for true, and 1 for 1.0."""
    return json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)


def _raise_version(recipient: Recipient, changed: Sequence[str], *, by: str, now: datetime) -> None:
    recipient.version += 1
    recipient.updated_at, recipient.updated_by = now, by
    sources = {"objected_at", "consent_source", "quiet_hours_source"}
    written = {*changed, *sources, "version", "updated_at", "updated_by"} - {"devices"}
    if "email" in changed:
        written.add("email_index")
    try:
        with transaction.atomic():
            # An address that is written is encrypted anew: then every index of the row is written too.
            recipient.save(update_fields=written)
    except IntegrityError:
        raise AlreadyThere(Recipient.objects.get(external_id=recipient.external_id)) from None
    _record(recipient.pk, changed, by=by, now=now)


def _give(recipient: Recipient, wanted: Sequence[Mapping[str, str]], *, is_whole: bool, by: str, now: datetime) -> bool:
    """Give the person these devices, switched on, and with ``is_whole`` take the others away; whether any changed."""
    platforms = {each["token"]: each["platform"] for each in wanted}
    tokens = {encryption.index_of_token(token): token for token in platforms}
    known = set(Device.objects.filter(_with(platforms)).values_list("token_index", flat=True))
    new = [
        Device(recipient=recipient, token=token, platform=platforms[token], created_at=now)
        for index, token in sorted(tokens.items())  # so that two who give the same ones wait for each other in turn
        if index not in known
    ]
    Device.objects.bulk_create(new, ignore_conflicts=True)
    # Whoever has registered one of them at the same instant has it now, and loses it again.
    losers, differing = set(), []
    for device in _devices(_with(platforms)):
        token = tokens[device.token_index]
        now_is = (recipient.pk, platforms[token], True, token)
        if (device.recipient_id, device.platform, device.active, device.token) != now_is:
            losers |= {device.recipient_id} - {recipient.pk}
            device.recipient, device.platform, device.active = recipient, platforms[token], True
            device.token = token  # another one only where what was kept can't be read
            differing.append(device)
    Device.objects.bulk_update(differing, ["recipient", "platform", "active", "token"])
    for loser in Recipient.objects.filter(pk__in=losers).order_by("id"):
        Recipient.objects.filter(pk=loser.pk).update(version=F("version") + 1, updated_at=now, updated_by=by)
        _record(loser.pk, ["devices"], by=by, now=now)
    others = Device.objects.filter(recipient=recipient).exclude(_with(platforms))
    dropped = others.delete()[0] if is_whole else 0
    return bool(new or differing or dropped)


def _record(recipient_id: int, changed: Sequence[str], *, by: str, now: datetime) -> None:
    changes = {"recipient": recipient_id, **dict.fromkeys(changed, "changed")}
    trail.record(action=Action.RECIPIENT_SAVE, by=by, now=now, changes=changes)
