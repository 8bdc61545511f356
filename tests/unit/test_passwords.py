"""What a password has to be: long enough, nobody's own name, not everybody's, and no word of this service alone."""

import pytest
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError

from frontend.passwords import OwnWords


def refused(password: str) -> list[str]:
    try:
        validate_password(password, User(username="johanna.meier"))
    except ValidationError as error:
        return [each.code for each in error.error_list]
    return []


@pytest.mark.parametrize("password", ["aaqqzzxw", "nur kleine wörter hier", "x7" * 60, "🦉🦉🦉🦉 owl 🦉🦉🦉🦉"])
def test_a_password_needs_eight_characters_and_nothing_more(password):
    assert refused(password) == []
    assert "password_too_short" in refused("aqzxwev")


def test_a_password_that_everybody_has_is_refused():
    assert refused("football1") == ["password_too_common"]
    assert refused("meier.johanna") == ["password_too_similar"]


@pytest.mark.parametrize("password", ["Notification2026", "schedulerADMIN!", "Acme-marketer-1", "localhost:8000"])
def test_a_password_of_words_that_anybody_would_try_here_is_refused(password):
    with pytest.raises(ValidationError, match="8 characters"):
        OwnWords(["acme.example.com", "localhost"]).validate(password)


def test_such_a_word_in_a_longer_password_is_none_of_its_strength_and_no_fault():
    OwnWords(["acme"]).validate("acme and seventeen herons")
    OwnWords().validate("no such word")
    assert refused("Notification2026") == ["password_own_words"]
