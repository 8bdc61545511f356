"""Which scopes a client may ask for: those that its own record names."""

from typing import Any

from oauth2_provider.scopes import SettingsScopes

from schedules.permissions import Scope


class ClientScopes(SettingsScopes):  # type: ignore[misc]
    """Asking for none gives a client all of its own. A service has no inbox, whatever its record says."""

    def get_available_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        if application is None:
            return [scope.value for scope in Scope]
        own: list[str] = application.scopes.split()
        if application.authorization_grant_type == application.GRANT_CLIENT_CREDENTIALS:
            own = [scope for scope in own if scope != Scope.INBOX]
        return own

    def get_default_scopes(self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any) -> list[str]:
        return self.get_available_scopes(application, request)
