"""Changes as merge patches (RFC 7396): ``application/merge-patch+json``."""

from collections.abc import Mapping
from typing import Any, Final

from rest_framework.exceptions import ParseError
from rest_framework.request import Request

from frontend.api.parsing import StrictJSONParser, base_type

MERGE_PATCH: Final = "application/merge-patch+json"


class MergePatchParser(StrictJSONParser):
    media_type = MERGE_PATCH


def is_merge_patch(request: Request) -> bool:
    return base_type(request.content_type) == MERGE_PATCH


def merged(kept: object, patch: object) -> Any:
    """``kept`` after ``patch``: objects by member, of which null removes one; all else is replaced (RFC 7396, 2)."""
    try:
        return _merged(kept, patch)
    except RecursionError:
        raise ParseError("The body is nested too deep.") from None


def _merged(kept: object, patch: object) -> Any:
    if not isinstance(patch, Mapping):
        return patch
    found = dict(kept) if isinstance(kept, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found
