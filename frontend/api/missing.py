"""Whatever no view answers for, below the API's address: a problem like every other."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt

from frontend.api.problems import NOT_FOUND, Refused, plain_response


@method_decorator(csrf_exempt, name="dispatch")
class Missing(View):
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        words = "There is nothing at this address: look it up at /api/docs. Addresses end in no slash."
        return plain_response(Refused(NOT_FOUND, words), request)
