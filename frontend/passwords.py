"""Words that anybody would try here: named in ``AUTH_PASSWORD_VALIDATORS``."""

import re
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

_OWN = ("notification", "scheduler", "marketer", "analyst", "admin", "password", "passwort", "welcome", "schedule")
_LEAST = 8  # characters that are left without them


class OwnWords:
    """What is left of a password without the service's own words and those of ``words`` has to be one by itself."""

    def __init__(self, words: Iterable[str] = ()) -> None:
        known = {part for word in (*_OWN, *words) for part in re.split(r"\W+", word.lower()) if len(part) > 2}
        longest_first = sorted(known, key=lambda word: (-len(word), word))
        self._known = re.compile("|".join(map(re.escape, longest_first)))

    def validate(self, password: str, user: Any = None) -> None:
        rest = self._known.sub("", password.lower())
        if rest != password.lower() and len(rest) < _LEAST:
            raise ValidationError(self.get_help_text(), code="password_own_words")

    def get_help_text(self) -> str:
        return _("Without the words that anybody would try here, your password must still have 8 characters.")
