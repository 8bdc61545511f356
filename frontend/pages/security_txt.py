"""Whom to write to about a weakness (RFC 9116): ``/.well-known/security.txt``, where ``SECURITY_CONTACT`` is set."""

from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

# The file says until when it is to be believed; whoever reads it gets it fresh.
_VALID = timedelta(days=90)


@require_safe
def security_txt(request: HttpRequest) -> HttpResponse:
    if not settings.SECURITY_CONTACT:
        raise Http404
    expires = (datetime.now(UTC) + _VALID).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    lines = [
        *(f"Contact: {each}" for each in settings.SECURITY_CONTACT),
        f"Expires: {expires}",
        "Preferred-Languages: " + ", ".join(code for code, _ in settings.LANGUAGES),
        f"Canonical: {request.build_absolute_uri(request.path)}",
    ]
    return HttpResponse("\n".join([*lines, ""]), content_type="text/plain; charset=utf-8")
