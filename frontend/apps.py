from django.apps import AppConfig
from django.core import checks


class FrontendConfig(AppConfig):
    name = "frontend"

    def ready(self) -> None:
        # Here, not above: the models of accounts aren't there yet.
        from frontend import hooks, session_life, sign_ins  # noqa: PLC0415

        sign_ins.listen()
        session_life.listen()
        checks.register(hooks.check_secrets, checks.Tags.security)
