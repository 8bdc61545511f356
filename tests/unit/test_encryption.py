"""Values are read with their key, in their column and unchanged, or not at all; indexes find equals, and no more."""

import base64
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.core import checks
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db.models import Q

from audit import roles
from delivery.models import OutboxMessage
from scheduler_project.tracebacks import in_words
from schedules import encryption, fingerprints
from schedules.encryption import HEAD_BYTES, Keys, Keyset, Tampered, UnknownKey
from schedules.models import Device, Recipient

ONE, TWO, INDEX = (bytes([number]) * 16 + bytes(range(16)) for number in (1, 2, 3))
EMAIL, TOKEN = b"schedules_recipient.email", b"schedules_device.token"
TEXTS = [
    "anna@example.com",
    "",
    "x",
    "Jürgen.Köhler@müller.example",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ✉️",
    "zeile\nzwei",
    "ä" * 100_000,
]


@pytest.fixture(autouse=True)
def _keys(settings):
    settings.ENCRYPTION_KEYS = [ONE.hex()]
    settings.BLIND_INDEX_KEY = INDEX.hex()
    settings.ENCRYPTION_KEYSET = "schedules.encryption.from_settings"


def keyset(*keys):
    return Keyset(Keys(keys, INDEX))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text)[:20])
def test_what_was_encrypted_is_read_again(text):
    kept = encryption.encrypt(text, EMAIL)
    assert encryption.decrypt(kept, EMAIL) == text
    assert not text or text.encode() not in kept or len(text) == 1


@pytest.mark.parametrize("text", ["a\0b", "cut within \ud83d"])
def test_what_a_text_of_the_database_could_not_hold_is_refused(text):
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        encryption.encrypt(text, EMAIL)
    with pytest.raises(ValueError, match=r"NUL|surrogates"):
        encryption.encrypt_all(["good", text], EMAIL)


def test_the_empty_text_is_kept_as_nothing_and_no_other_is():
    assert encryption.encrypt("", EMAIL) == b""
    assert len(encryption.encrypt(" ", EMAIL)) == 5 + 12 + 1 + 16


def test_the_form_is_as_described_and_can_be_read_by_any_aes_gcm():
    kept = encryption.encrypt("anna@example.com", EMAIL)
    assert kept[:1] == b"\x01"
    assert kept[1:HEAD_BYTES].hex() == encryption.keyset().key_ids[0]
    assert AESGCM(ONE).decrypt(kept[5:17], kept[17:], EMAIL) == b"anna@example.com"


def test_equal_texts_look_different():
    assert len({encryption.encrypt("anna@example.com", EMAIL) for _ in range(1_000)}) == 1_000


def test_many_are_encrypted_as_one_is_each_with_a_chance_of_its_own():
    kept = encryption.encrypt_all(["anna@example.com", "", *["bea@example.com"] * 999], EMAIL)
    assert len({each[HEAD_BYTES : HEAD_BYTES + 12] for each in kept if each}) == 1_000
    assert [encryption.decrypt(each, EMAIL) for each in kept[:3]] == ["anna@example.com", "", "bea@example.com"]


def test_a_value_moved_to_another_column_is_not_read():
    with pytest.raises(Tampered, match=r"schedules_device\.token"):
        encryption.decrypt(encryption.encrypt("anna@example.com", EMAIL), TOKEN)


def test_no_bit_can_be_changed_and_no_byte_be_missing():
    kept = encryption.encrypt("anna@example.com", EMAIL)
    for position in range(len(kept)):
        changed = bytearray(kept)
        changed[position] ^= 1
        with pytest.raises(encryption.Undecryptable):
            encryption.decrypt(bytes(changed), EMAIL)
    for length in range(1, len(kept)):
        with pytest.raises(Tampered):
            encryption.decrypt(kept[:length], EMAIL)
    with pytest.raises(Tampered):
        encryption.decrypt(kept + b"\0", EMAIL)


def test_without_its_key_a_value_is_not_read_and_the_error_names_the_setting_and_the_key():
    kept = keyset(TWO).encrypt(b"anna@example.com", EMAIL)
    with pytest.raises(UnknownKey, match=f"{keyset(TWO).key_ids[0]}.*ENCRYPTION_KEYS") as caught:
        encryption.decrypt(kept, EMAIL)
    assert TWO.hex() not in str(caught.value)


def test_the_first_key_encrypts_and_the_others_still_decrypt():
    before = keyset(ONE).encrypt(b"anna", EMAIL)
    rotated = keyset(TWO, ONE)
    assert rotated.decrypt(before, EMAIL) == b"anna"
    after = rotated.encrypt(b"anna", EMAIL)
    assert after[:HEAD_BYTES] == rotated.head != before[:HEAD_BYTES]
    assert keyset(TWO).decrypt(after, EMAIL) == b"anna"
    with pytest.raises(UnknownKey):
        keyset(TWO).decrypt(before, EMAIL)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], "ENCRYPTION_KEYS is not set"),
        ([ONE.hex()[:-2]], "32 bytes"),
        (["not base64"], "32 bytes"),
        ([base64.b64encode(ONE[:31]).decode()], "32 bytes"),
        ([ONE.hex(), ONE.hex()], "twice"),
        ([ONE.hex(), base64.b64encode(ONE).decode()], "twice"),
        ([INDEX.hex()], "twice"),
    ],
)
def test_keys_that_are_missing_short_or_repeated_are_refused(settings, keys, words):
    settings.ENCRYPTION_KEYS = keys
    with pytest.raises(ImproperlyConfigured, match=words) as caught:
        encryption.keyset()
    assert not any(key in str(caught.value) for key in keys)


def test_without_a_key_of_the_indexes_nothing_is_kept(settings):
    settings.BLIND_INDEX_KEY = ""
    with pytest.raises(ImproperlyConfigured, match="BLIND_INDEX_KEY"):
        encryption.encrypt("anna@example.com", EMAIL)


def unwrapped() -> Keys:
    """Keys as a key management service would give them."""
    return Keys((TWO, ONE), INDEX)


def test_keys_can_come_from_elsewhere_than_the_settings(settings):
    settings.ENCRYPTION_KEYS, settings.BLIND_INDEX_KEY = [], ""
    settings.ENCRYPTION_KEYSET = f"{__name__}.unwrapped"
    assert encryption.keyset().key_ids == keyset(TWO, ONE).key_ids
    assert encryption.decrypt(keyset(ONE).encrypt(b"anna", EMAIL), EMAIL) == "anna"


def test_a_source_of_keys_that_is_not_there_is_named(settings):
    settings.ENCRYPTION_KEYSET = "shop.keys.unwrapped"
    with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYSET"):
        encryption.keyset()


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({}, None),
        ({"ENCRYPTION_KEYS": []}, "schedules.E001"),
        ({"ENCRYPTION_KEYS": [ONE.hex(), "short"]}, "schedules.E001"),
        ({"ENCRYPTION_KEYS": [ONE.hex(), ONE.hex()]}, "schedules.E001"),
        ({"BLIND_INDEX_KEY": ""}, "schedules.E001"),
        ({"BLIND_INDEX_KEY": ONE.hex()}, "schedules.E001"),
        ({"ENCRYPTION_KEYSET": "shop.keys.unwrapped"}, "schedules.E001"),
        ({"ENCRYPTION_KEYS": ["ab" * 32]}, "schedules.E002"),
        ({"ENCRYPTION_KEYS": [ONE.hex(), "ab" * 32]}, "schedules.E002"),
    ],
)
def test_a_deployment_without_good_keys_is_refused(settings, monkeypatch, changes, check):
    monkeypatch.setattr(roles, "changeable", list)  # no database here
    for name, value in changes.items():
        setattr(settings, name, value)
    found = [each.id for each in checks.run_checks(include_deployment_checks=True) if each.id.startswith("schedules.")]
    assert found == ([check] if check else [])


def test_keys_are_not_shown_with_what_holds_them():
    assert ONE.hex() not in repr(unwrapped()) + repr(keyset(ONE))
    assert repr(ONE) not in repr(unwrapped())


# Blind indexes


def test_an_address_is_found_however_it_is_written_and_tells_how_it_was():
    one, other = encryption.index_of_address("Anna@Example.com"), encryption.index_of_address("anna@example.com")
    assert one != other
    first, last = encryption.range_of_address(" ANNA@example.COM ")
    assert first <= one <= last
    assert first <= other <= last
    assert not first <= encryption.index_of_address("anne@example.com") <= last


def test_an_index_is_the_same_each_time_and_another_under_another_key(settings):
    index = encryption.index_of_token("a-token")
    assert index == encryption.index_of_token("a-token") != encryption.index_of_token("A-token")
    assert index != encryption.index_of_address("a-token")
    settings.BLIND_INDEX_KEY = TWO.hex()
    assert index != encryption.index_of_token("a-token")


def test_the_keys_of_values_can_change_without_the_indexes(settings):
    index = encryption.index_of_address("anna@example.com")
    settings.ENCRYPTION_KEYS = [TWO.hex()]
    assert index == encryption.index_of_address("anna@example.com")


def test_an_index_as_digits_is_the_index():
    keys = encryption.keyset()
    assert keys.digits_of_token("token") == encryption.index_of_token("token").hex
    assert keys.digits_of_address("Anna@example.com") == encryption.index_of_address("Anna@example.com").hex
    people = [("anna", " Anna@example.com"), ("bea", " "), ("cleo", None)]
    assert [fingerprints.digits(*person) for person in people] == [
        (first.hex, others[0].hex if others else None)
        for first, *others in (fingerprints.of_person(*person) for person in people)
    ]


def test_what_is_empty_has_no_index():
    assert (encryption.keyset().digits_of_token(""), encryption.keyset().digits_of_address("")) == (None, None)
    assert encryption.index_of_address("") is None
    assert encryption.index_of_token("") is None
    assert isinstance(encryption.index_of_token("t"), UUID)


# The fields


@pytest.mark.parametrize("lookup", ["icontains", "startswith", "in", "gt", "regex", "iexact"])
def test_the_database_is_not_asked_about_what_it_cannot_read(lookup):
    with pytest.raises(FieldError, match="encrypted"):
        Recipient.objects.filter(**{f"email__{lookup}": "anna"})


def test_equality_is_asked_of_the_index():
    with pytest.raises(FieldError, match="blind index"):
        Device.objects.filter(token="a-token")
    assert "email" in str(Recipient.objects.filter(~Q(email="")).query)
    assert "to_index" in str(OutboxMessage.objects.filter(to_index=encryption.index_of_address("a@b")).query)


def test_logs_name_the_key_that_is_missing():
    assert "0a0b0c0d" in in_words(UnknownKey("0a0b0c0d"))
    assert "schedules_recipient.email" in in_words(Tampered(b"schedules_recipient.email"))
