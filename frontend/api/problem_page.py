"""What the addresses in the API's problems lead to."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from frontend.api.problems import KINDS


def problem_types(request: HttpRequest) -> HttpResponse:
    """Every type of problem; for anybody, as whoever meets one may have no account here."""
    return render(request, "frontend/problems.html", {"kinds": KINDS})
