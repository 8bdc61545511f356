from django.apps import AppConfig


class FrontendConfig(AppConfig):
    name = "frontend"

    def ready(self) -> None:
        # Here, not above: the models of accounts aren't there yet.
        from frontend import sign_ins  # noqa: PLC0415

        sign_ins.listen()
