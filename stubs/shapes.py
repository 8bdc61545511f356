"""Validators compiled from botocore's published service models, so that a stub is as strict as its service.

Compiled once, because walking the model for every request would cost more than the rest of the stub.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

Check = Callable[[Any, str], None]
_TYPES = {
    "string": str,
    "blob": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "timestamp": (int, float, str),
}


class Malformed(ValueError):
    """The request doesn't have the operation's shape; the text begins with a JSON pointer."""


def service(name: str) -> ServiceModel:
    """botocore's model of a service, in its newest version; raises botocore.exceptions.DataNotFoundError."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


def check_of(shape: Any) -> Check:
    """A function (value, pointer) that raises Malformed where the value isn't of the shape."""
    if shape.type_name == "structure":
        return _structure(shape)
    if shape.type_name == "list":
        return _list(shape)
    return _scalar(shape)


def _structure(shape: Any) -> Check:
    members = {name: check_of(member) for name, member in shape.members.items()}
    required = tuple(shape.required_members)

    def check(value: Any, at: str) -> None:
        if type(value) is not dict:
            raise Malformed(f"{at or '/'}: an object is expected")
        for name in required:
            if name not in value:
                raise Malformed(f"{at}/{name}: is missing")
        for name, member in value.items():
            check_member = members.get(name)
            if check_member is None:
                raise Malformed(f"{at}/{name}: unknown member of {shape.name}")
            check_member(member, f"{at}/{name}")

    return check


def _list(shape: Any) -> Check:
    check_member = check_of(shape.member)
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", float("inf"))

    def check(value: Any, at: str) -> None:
        if type(value) is not list:
            raise Malformed(f"{at}: a list is expected")
        if not least <= len(value) <= most:
            raise Malformed(f"{at}: {least} to {most} elements are allowed, not {len(value)}")
        for index, member in enumerate(value):
            check_member(member, f"{at}/{index}")

    return check


def _scalar(shape: Any) -> Check:
    types: Any = _TYPES[shape.type_name]
    bounded = shape.type_name == "string"
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", float("inf"))
    choices = frozenset(shape.metadata.get("enum", ()))

    def check(value: Any, at: str) -> None:
        if not isinstance(value, types):
            raise Malformed(f"{at}: a {shape.type_name} is expected")
        if bounded and not least <= len(value) <= most:
            raise Malformed(f"{at}: {least} to {most} characters are allowed, not {len(value)}")
        if choices and value not in choices:
            raise Malformed(f"{at}: {value!r} is none of {', '.join(sorted(choices))}")

    return check
