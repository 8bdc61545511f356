"""External ids in addresses: percent-encoded, ``/`` too.

A server decodes the path before Django sees it, so that ``a%2Fdevices`` looks like the devices of ``a``. The path as it
was sent tells them apart; where a server doesn't hand it on, an id that ends like such an address can't be addressed.
"""

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from django.http import HttpRequest, HttpResponseBase

_BELOW = "/api/v1/recipients/"
# For a slash within an id. No path that was sent can hold it: half a surrogate pair is no UTF-8.
_INNER_SLASH = "\udc2f"


class ExternalId:
    """Path converter."""

    regex = r"[\s\S]+"  # a line feed too, of which the view says that it can't be

    def to_python(self, value: str) -> str:
        return value.replace(_INNER_SLASH, "/")

    def to_url(self, value: str) -> str:
        return value.replace("/", _INNER_SLASH)


class EncodedSlashes:
    """Middleware, the last: keeps encoded slashes apart from others until the address is resolved."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        sent = str(request.META.get("RAW_URI") or request.META.get("REQUEST_URI") or "").partition("?")[0]
        _, below, rest = sent.partition(_BELOW)
        if below and "%2f" in rest.lower():
            try:
                parts = [unquote_to_bytes(part).decode() for part in re.split("%2[fF]", rest)]
            except UnicodeDecodeError:
                return self._get_response(request)  # as every other address that is no UTF-8
            request.path_info = _BELOW + _INNER_SLASH.join(parts)
        return self._get_response(request)
