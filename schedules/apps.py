from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _

from schedules.checks import check_keys, check_outgoing_networks, check_template_service, check_user_service


class SchedulesConfig(AppConfig):
    name = "schedules"
    verbose_name = _("Control")  # what of it is in the admin

    def ready(self) -> None:
        checks.register(check_keys, checks.Tags.security, deploy=True)
        checks.register(check_outgoing_networks, checks.Tags.security, deploy=True)
        checks.register(check_user_service)
        checks.register(check_template_service)
