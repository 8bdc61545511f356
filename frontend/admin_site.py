"""The one admin site: unfold's, with our roles at the door and what everybody must know on top of each page."""

from functools import partial
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import PasswordChangeView, redirect_to_login
from django.core.exceptions import ValidationError
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.templatetags.static import static
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from unfold.forms import AdminOwnPasswordChangeForm, AuthenticationForm
from unfold.sites import UnfoldAdminSite

from frontend import notices, policies, sign_in_limits, verified
from frontend.access import actor
from frontend.navigation import sidebar
from schedules.permissions import Ability, can


class LoginForm(AuthenticationForm):  # type: ignore[misc]
    """A role is what lets in; Django's staff flag says nothing here.

    Who comes from a program that asks for a token needs none: a person's own inbox is read without a role.
    """

    error_messages: ClassVar[dict[str, Any]] = {
        **AuthenticationForm.error_messages,
        "invalid_login": _("This name and this password don't belong together. Both tell capitals from small letters."),
    }

    def clean(self) -> Any:
        """The password is looked at in the account's turn, and a failure is counted before the next one's."""
        username = self.cleaned_data.get("username")
        if not username:
            return super().clean()
        refusal: ValidationError
        try:
            with sign_in_limits.turn(username):
                try:
                    return super().clean()
                except ValidationError as error:
                    refusal = error
        except OperationalError as error:
            raise too_many() from error
        raise refusal

    def get_invalid_login_error(self) -> ValidationError:
        if getattr(self.request, "axes_locked_out", False):
            return too_many()
        error: ValidationError = super().get_invalid_login_error()
        return error

    def confirm_login_allowed(self, user: Any) -> None:
        going_to = self.request.POST.get(REDIRECT_FIELD_NAME) or self.request.GET.get(REDIRECT_FIELD_NAME) or ""
        if not can(user, Ability.READ) and not going_to.startswith(reverse("oauth2_provider:authorize") + "?"):
            raise ValidationError(_("This account has no role yet: ask an admin to give it one."), code="no_role")


class OwnPasswordForm(AdminOwnPasswordChangeForm):  # type: ignore[misc]
    """Tries at the old password are counted as those at the sign-in: the session may be in the hands of a stranger."""

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    def clean_old_password(self) -> str:
        typed: str = self.cleaned_data["old_password"]
        try:
            is_right = verified.try_password(self.request, self.user, typed)
        except verified.TooMany as error:
            raise too_many() from error
        if not is_right:
            raise ValidationError(self.error_messages["password_incorrect"], code="password_incorrect")
        return typed


def too_many() -> ValidationError:
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds() // 60)
    words = _("Too many wrong passwords: signing in rests for %(minutes)s minutes. An admin can end that sooner.")
    return ValidationError(words, code="too_many", params={"minutes": minutes})


class SchedulerAdminSite(UnfoldAdminSite):  # type: ignore[misc]
    login_form = LoginForm
    site_title = site_header = "Notification scheduler"
    index_title = _("Everything")

    def has_permission(self, request: HttpRequest) -> bool:
        return can(request.user, Ability.READ)

    @method_decorator(policies.unfold)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Unfold's form forgets where to go next, unless the address says it."""
        if request.method == "GET" and REDIRECT_FIELD_NAME not in request.GET:
            return redirect_to_login(reverse("home"), login_url=request.path)
        if request.method == "GET" and (awaited := verified.waiting(request)):
            return HttpResponseRedirect(verified.step_of(awaited, verified.next_of(request)))
        response: HttpResponse = super().login(request, extra_context)
        if request.method == "POST" and isinstance(response, HttpResponseRedirect):
            step = verified.step_after_password(request, response.url)
            return HttpResponseRedirect(step) if step else response
        return response

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Of one's own. It ends the person's other sessions, as Django has it, and what apps may do in his name."""
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path())  # here, as below a redirect is a success
        view = PasswordChangeView.as_view(
            form_class=partial(OwnPasswordForm, request=request),
            success_url=reverse("admin:password_change_done"),
            template_name=self.password_change_template or "registration/password_change_form.html",
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        request.current_app = self.name
        with transaction.atomic():
            response: Any = view(request)
            if request.method == "POST" and response.status_code == 302:
                verified.password_changed(request.user, by=actor(request.user))
        answer: HttpResponse = response
        return answer

    def get_urls(self) -> list[Any]:
        # Django's own are for those who may see the admin: who waits for his code or lost his role could not leave, and
        # who has no role, but an inbox in an app, not change his password. The views ask who it is themselves.
        own = {
            "logout/": self.logout,
            "password_change/": self.password_change,
            "password_change/done/": self.password_change_done,
        }
        return [
            *(path(address, never_cache(policies.unfold(view))) for address, view in own.items()),
            *super().get_urls(),
        ]

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        return policies.unfold(super().admin_view(view, cacheable))

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        return sidebar(request)

    def extra_context(self, context: dict[str, Any], request: HttpRequest) -> dict[str, Any]:
        """Called by unfold at the end of ``each_context``."""
        context["styles"] = [*(context.get("styles") or []), static("frontend/pages.css")]
        context["site_url"] = None  # unfold would offer a way back to another site, which would lead here again
        icon = {"rel": "icon", "href": static("frontend/favicon.svg"), "type": "image/svg+xml"}
        context["site_favicons"] = context.get("site_favicons") or [icon]
        is_inside = self.has_permission(request)
        context["banners"] = notices.banners() if is_inside else []
        context["held_runs"] = notices.held() if is_inside and request.path == reverse("admin:index") else []
        context["may_decide"] = can(request.user, Ability.EDIT_SCHEDULES)
        return context


site = SchedulerAdminSite(name="admin")
