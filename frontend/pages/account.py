"""A person's own account, of whatever role: who he is here, his second factor, and signing out everywhere."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.middleware.csrf import get_token
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from frontend import second_factor, session_life, verified
from frontend.access import actor
from frontend.pages.frame import framed
from frontend.wording.actions import ROLES
from schedules import clock
from schedules.permissions import roles_of

_Door = Callable[[HttpRequest], HttpResponse]
_TOO_MANY = gettext_lazy("Too many wrong passwords or codes: signing in rests for a quarter of an hour.")


class CodeForm(forms.Form):
    """Six digits or a recovery code."""

    code = forms.CharField(
        label=gettext_lazy("Code"),
        max_length=64,
        help_text=gettext_lazy("The six digits that the app shows, or one of your recovery codes."),
        widget=forms.TextInput(
            attrs={"autocomplete": "one-time-code", "autocapitalize": "none", "spellcheck": "false", "autofocus": True}
        ),
    )


class FirstCodeForm(CodeForm):
    """With the password once more: who finds a browser open must not take the account into an app of his own."""

    offer = forms.CharField(max_length=500, widget=forms.HiddenInput)
    password = forms.CharField(
        label=gettext_lazy("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    field_order = ("offer", "password", "code")

    def __init__(self, *args: Any, has_just_given_it: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fields["code"].widget.attrs["autofocus"]  # the picture comes first
        if has_just_given_it:
            del self.fields["password"]
        self.fields["code"].help_text = _("The six digits that the app shows now.")
        self.fields["code"].widget.attrs["inputmode"] = "numeric"


def _own(view: _Door) -> _Door:
    """For whoever has signed in. What it shows or asks is nobody else's, and stays in no cache."""

    @wraps(view)
    @never_cache
    def guarded(request: HttpRequest) -> HttpResponse:
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())
        return view(request)

    return guarded


@require_safe
@_own
def account(request: HttpRequest) -> HttpResponse:
    context = {
        "title": _("Your account"),
        "person": request.user,
        "has": ", ".join(str(ROLES[role]) for role in sorted(roles_of(request.user))),
        "has_factor": second_factor.of(request.user) is not None,
        "is_demanded": second_factor.is_demanded(request.user),
        "codes_left": second_factor.codes_left(request.user),
    }
    return framed(request, "frontend/account/account.html", context)


@require_safe
@never_cache
def here(request: HttpRequest) -> HttpResponse:
    """For a page that is open: 401 once its person is signed out, else the token that its forms need by now."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse({"token": get_token(request)})


@never_cache
def set_up(request: HttpRequest) -> HttpResponse:
    """Also for who has given his password and must set one up before he is let in."""
    must = verified.waiting(request)
    if not request.user.is_authenticated and (must is None or must.has_factor):
        return redirect_to_login(request.get_full_path())
    user = must.user if must else request.user
    if second_factor.of(user) is not None:
        return HttpResponseRedirect(reverse("account"))
    # A session may have been open for hours before a role demanded a factor.
    has_just_given_it = must is not None and session_life.age_s(request) < verified.WAITING.total_seconds()
    form = FirstCodeForm(request.POST if request.method == "POST" else None, has_just_given_it=has_just_given_it)
    sent = str(form.data.get("offer", ""))
    try:
        if form.is_bound and form.is_valid() and _password_is_right(request, user, form):
            try:
                device, codes = second_factor.turn_on(
                    user=user, signed=sent, code=form.cleaned_data["code"], by=actor(user), now=clock.now()
                )
            except second_factor.WrongCode:
                words = _("That is not the code that the app shows now. Wait for the next one and try it.")
                form.add_error("code", words)
            else:
                verified.let_in(request, user, device.pk)
                return _codes(request, codes)
        offered = second_factor.offer(user, again=sent)
    except second_factor.TooLate:
        messages.warning(request, _("That took too long, or was done already. Begin again."))
        return HttpResponseRedirect(request.get_full_path())
    form.initial["offer"] = offered.signed
    context = {"title": _("Set up the second factor"), "form": form, "offer": offered, "is_demanded": must is not None}
    return framed(
        request, "frontend/account/set_up.html", {**context, **_layout(must)}, status=422 if form.is_bound else 200
    )


def _password_is_right(request: HttpRequest, user: Any, form: FirstCodeForm) -> bool:
    """Also where it was not asked for. Tells the form what is wrong."""
    if "password" not in form.fields:
        return True
    try:
        if verified.try_password(request, user, form.cleaned_data["password"]):
            return True
        form.add_error("password", _("That is not your password."))
    except verified.TooMany:
        form.add_error("password", _TOO_MANY)
    return False


def _codes(request: HttpRequest, codes: list[str]) -> HttpResponse:
    context = {
        "title": _("Your recovery codes"),
        "codes": codes,
        "go_on": verified.next_of(request) or reverse("account"),
    }
    return framed(request, "frontend/account/codes.html", context)


@_own
def turn_off(request: HttpRequest) -> HttpResponse:
    if second_factor.of(request.user) is None:
        return HttpResponseRedirect(reverse("account"))
    form = CodeForm(request.POST if request.method == "POST" else None)
    if form.is_bound and code_is_right(request, request.user, form):
        second_factor.turn_off(user=request.user, by=actor(request.user), now=clock.now())
        messages.success(request, _("The second factor is off. Your password alone lets you in."))
        return HttpResponseRedirect(reverse("account"))
    context = {
        "title": _("Turn the second factor off"),
        "form": form,
        "crumbs": [(_("Your account"), reverse("account"))],
        "is_demanded": second_factor.is_demanded(request.user),
    }
    return framed(request, "frontend/account/turn_off.html", context, status=422 if form.is_bound else 200)


@require_POST
@_own
def sign_out_everywhere(request: HttpRequest) -> HttpResponse:
    verified.end_everywhere(request.user, by=actor(request.user))
    request.session.flush()
    return HttpResponseRedirect(reverse("admin:login"))


@never_cache
def code(request: HttpRequest) -> HttpResponse:
    """The second step of signing in."""
    going_to = verified.next_of(request)
    awaited = verified.waiting(request)
    if awaited is None:
        return HttpResponseRedirect(going_to or reverse("home"))
    if not awaited.has_factor:
        return HttpResponseRedirect(verified.step_of(awaited, going_to))
    form = CodeForm(request.POST if request.method == "POST" else None)
    if form.is_bound and (person := code_is_right(request, awaited.user, form)):
        verified.let_in(request, awaited.user, person.factor_id)
        verified.signed_in(person)
        return HttpResponseRedirect(going_to or reverse("home"))
    context = {"title": _("Your code, please"), "form": form, "person": awaited.user}
    return framed(
        request, "frontend/account/code.html", {**context, **_layout(awaited)}, status=422 if form.is_bound else 200
    )


def code_is_right(request: HttpRequest, user: Any, form: CodeForm) -> Any:
    """The person with ``by_code``; None after the form was told what is wrong."""
    if not form.is_valid():
        return None
    try:
        person = verified.try_code(request, user, form.cleaned_data["code"])
    except verified.TooMany:
        form.add_error("code", _TOO_MANY)
        return None
    if person is None:
        form.add_error("code", _("That code is wrong, or was used before. An app shows a new one every 30 seconds."))
    return person


def _layout(awaited: verified.Waiting | None) -> dict[str, str]:
    return {"layout": "frontend/account/alone.html" if awaited else "frontend/base.html"}
