"""What the rooms below say, in the viewer's language."""

from django.utils.translation import gettext

from frontend.wording.reasons import number
from schedules.problems import Saying


def translated(words: str) -> str:
    """A saying in the language that is active; any other text, and a saying that the catalogue lacks, as it is."""
    if not isinstance(words, Saying):
        return words
    text = gettext(words.text)
    return text % {name: _shown(value) for name, value in words.values.items()} if words.values else text


def _shown(value: object) -> object:
    if type(value) is int:
        return number(value)
    return translated(value) if isinstance(value, str) else value
