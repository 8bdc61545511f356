from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _

from delivery.checks import check_providers, check_public_url, check_sizes, check_test_clock


class DeliveryConfig(AppConfig):
    name = "delivery"
    verbose_name = _("Sending, looked into")  # what of it is in the admin

    def ready(self) -> None:
        checks.register(check_sizes)
        # Making every provider imports every provider's libraries; a worker makes its own ones when it starts (tasks).
        checks.register(check_providers, deploy=True)
        checks.register(check_test_clock, deploy=True)
        checks.register(check_public_url, deploy=True)
