"""What a check or a rehearsal makes in a service, known again by its marks: so that it can always be taken away."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from scheduler_project.outside.client import Client, OutsideError, segment

_AT_ONCE: Final = 4


class Marks(NamedTuple):
    """``name`` is that of schedules and templates, ``tag`` the people's, ``prefix`` how their external ids begin."""

    name: str
    tag: str
    prefix: str


def schedules(client: Client, marks: Marks) -> list[int]:
    """Ids. Raises ``OutsideError``."""
    return [each["id"] for each in client.every("schedules", text=marks.name) if each["name"] == marks.name]


def templates(client: Client, marks: Marks) -> list[int]:
    """Ids. Raises ``OutsideError``."""
    return [each["id"] for each in client.every("templates", text=marks.name) if each["name"] == marks.name]


def people(client: Client, marks: Marks) -> list[str]:
    """External ids. Raises ``OutsideError``, also where somebody is called so who does not bear the tag."""
    found = list(client.every("recipients", prefix=marks.prefix))
    if strangers := sum(marks.tag not in each["tags"] for each in found):
        raise OutsideError(
            f"{strangers} people's ids begin with {marks.prefix} and do not bear the tag {marks.tag}: others "
            "made them, and nobody is erased."
        )
    return [each["externalId"] for each in found]


def without_people(client: Client, marks: Marks) -> None:
    """Take away schedules, which ends what of them is open, and then templates. Raises ``OutsideError``."""
    for number in schedules(client, marks):
        client.delete(f"schedules/{number}")
    for number in templates(client, marks):
        client.delete(f"templates/{number}")


def erase(client: Client, who: Iterable[str], *, told: Callable[[int], Any] = lambda _: None) -> int:
    """Erase people, some at once; return how many, and tell it after each. Raises ``OutsideError``."""
    done = 0
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for _ in pool.map(lambda each: client.delete(f"recipients/{segment(each)}"), who):
            done += 1
            told(done)
    return done
