"""What went wrong, in words, with the id under which the logs know the request."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from audit import trail
from frontend.admin_site import site
from frontend.pages.frame import framed
from schedules.permissions import Ability, can


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    words = _("Your role does not allow this page. Ask an admin if you need it.")
    return _error(request, 403, _("Not allowed"), words)


def missing(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    said = exception.args[0] if exception and exception.args and isinstance(exception.args[0], str) else ""
    return _error(
        request, 404, _("Not found"), said or _("There is nothing at this address. It may have been deleted.")
    )


def unreadable(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return _bare(request, 400, _("The request can't be read"), _("Go back and try again."))


def failed(request: HttpRequest) -> HttpResponse:
    """Asks nothing of the database, which may be what has failed."""
    words = _("That is the service's fault. Try again in a moment; if it stays so, tell the people who run it.")
    return _bare(request, 500, _("Something went wrong"), words)


def stale_form(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Named in ``CSRF_FAILURE_VIEW``."""
    words = _("The page was open for too long, or cookies are off. Go back, load the page again and repeat the step.")
    return _bare(request, 403, _("The form has expired"), words)


def _error(request: HttpRequest, status: int, title: str, words: str) -> HttpResponse:
    if not can(request.user, Ability.READ):
        return _bare(request, status, title, words)
    return framed(request, "frontend/error.html", {"title": title, "words": words, "request_id": _id()}, status=status)


def _bare(request: HttpRequest, status: int, title: str, words: str) -> HttpResponse:
    context = {"title": title, "words": words, "request_id": _id(), "site_header": site.site_header}
    return render(request, "frontend/error_bare.html", context, status=status)


def _id() -> str:
    return trail.request_id()
