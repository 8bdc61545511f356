from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _


class FrontendConfig(AppConfig):
    name = "frontend"
    verbose_name = _("Programs")  # what of it is in the admin

    def ready(self) -> None:
        # Here, not above: the models of accounts aren't there yet.
        from frontend import hooks, session_life, sign_ins  # noqa: PLC0415

        sign_ins.listen()
        session_life.listen()
        checks.register(hooks.check_secrets, checks.Tags.security)
