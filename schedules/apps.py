from django.apps import AppConfig
from django.core import checks

from schedules.checks import check_keys, check_user_service


class SchedulesConfig(AppConfig):
    name = "schedules"

    def ready(self) -> None:
        checks.register(check_keys, checks.Tags.security, deploy=True)
        checks.register(check_user_service)
