from django.apps import AppConfig
from django.core import checks


class FrontendConfig(AppConfig):
    name = "frontend"

    def ready(self) -> None:
        # Here, not above: the models of accounts aren't there yet.
        from frontend import hooks, sign_ins  # noqa: PLC0415

        sign_ins.listen()
        checks.register(hooks.check_secrets, checks.Tags.security)
