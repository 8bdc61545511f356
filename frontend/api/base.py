"""What every view of the API shares: who calls, how often, which version is meant."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, cast

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import translation
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from frontend.api import limiter
from frontend.api.access import MayCall, Token, TokenAuthentication, actor_of
from frontend.api.merging import MergePatchParser
from frontend.api.parsing import OnlyJSON, StrictJSONParser
from frontend.api.problems import INVALID, PRECONDITION, STALE, TOO_MANY, InHeader, Refused
from schedules.permissions import Ability


class ApiView(APIView):
    """One address. ``abilities``: what its methods ask of the caller; a method that is not there is answered by 405."""

    authentication_classes = (TokenAuthentication,)
    permission_classes = (MayCall,)
    renderer_classes = (JSONRenderer,)
    parser_classes = (StrictJSONParser,)
    content_negotiation_class = OnlyJSON

    abilities: ClassVar[Mapping[str, Ability | None]] = {}
    # Methods that may come without If-Match, as the document says of them.
    unconditional: ClassVar[Collection[str]] = ()

    def get_parsers(self) -> list[Any]:
        """A change may come as what it is, a merge patch, too."""
        is_change = getattr(self.request, "method", "") == "PATCH"  # drf-spectacular asks without a request first
        return [*super().get_parsers(), *([MergePatchParser()] if is_change else [])]

    @property
    def allowed_methods(self) -> list[str]:
        return [method for method in super().allowed_methods if method != "OPTIONS"]

    def options(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        return self.http_method_not_allowed(request, *args, **kwargs)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """In English throughout: programs compare what they are told, and half of it is the libraries' own words."""
        with translation.override("en"):
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate, then count the request, then ask what the caller may."""
        self.perform_authentication(request)
        if request.auth is not None:
            self._count(request)
        self.check_permissions(request)

    def _count(self, request: Request) -> None:
        self.taken = limiter.take(self.client)
        if self.taken and self.taken.retry_after:
            detail = f"The client has used up its requests: wait {self.taken.retry_after} s."
            raise Refused(TOO_MANY, detail, headers=self.taken.headers)

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        final = super().finalize_response(request, response, *args, **kwargs)
        taken = getattr(self, "taken", None)
        for name, value in (taken.headers if taken else {}).items():
            final.headers.setdefault(name, value)
        final.headers.setdefault("Cache-Control", "no-store")
        return final

    @property
    def client(self) -> str:
        """Whose requests are counted and whose keys are remembered: the application, and the person it acts for."""
        token = cast(Token, self.request.auth)
        return f"{token.application_id}:{token.user_id or ''}"

    def sent(self, request: Request) -> bytes:
        """What tells the body apart from others: itself, or a digest of it where it is too large."""
        return request.body

    @property
    def by(self) -> str:
        return actor_of(self.request)


# RFC 9110, 8.8.3 and 5.6.1: a list may have empty elements.
_ENTITY_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ENTITY_TAGS = re.compile(rf"[ \t,]*{_ENTITY_TAG}(?:[ \t]*,[ \t,]*{_ENTITY_TAG})*[ \t,]*")
# The strong tag of a version: a weak one never matches (13.1.1).
_OURS = re.compile('"([1-9][0-9]{0,8})"')


def etag(version: int) -> str:
    """A strong entity tag (RFC 9110, 8.8.3)."""
    return f'"{version}"'


def expected_version(request: Request, *, standing: Callable[[], int]) -> int | None:
    """The version that ``If-Match`` names; None for ``*``, any version. Of several: that ``standing``.

    Raises ``Refused``: 428 without the header, 412 for tags that were never ours or are weak, 400 for what is none.
    """
    given = request.headers.get("If-Match")
    if given is None:
        raise Refused(PRECONDITION, "Send If-Match with the ETag of what you read, so that nobody's change is lost.")
    if given.strip() == "*":
        return None
    if not _ENTITY_TAGS.fullmatch(given):
        problem = InHeader("If-Match", "invalid", 'Send the ETag as it came, such as "3" with its quotes, or *.')
        raise Refused(INVALID, "If-Match can't be read.", pointed=[problem])
    found = [_OURS.fullmatch(tag) for tag in re.findall(_ENTITY_TAG, given)]
    versions = [int(tag[1]) for tag in found if tag]
    if not versions:
        raise Refused(STALE, "No version has that ETag: read it again, and send its strong ETag.")
    return next((each for each in versions[1:] if each == standing()), versions[0])


def wants_new(request: Request) -> bool:
    """Whether ``If-None-Match: *`` asks that nothing be replaced. Raises ``Refused`` (400) for any other value."""
    given = request.headers.get("If-None-Match")
    if given is not None and given.strip() != "*":
        problem = InHeader("If-None-Match", "invalid", "Send *, or If-Match with the ETag of what you read.")
        raise Refused(INVALID, "If-None-Match can't be read.", pointed=[problem])
    return given is not None
