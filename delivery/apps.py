from django.apps import AppConfig
from django.core import checks

from delivery.checks import check_providers, check_sizes, check_test_clock


class DeliveryConfig(AppConfig):
    name = "delivery"

    def ready(self) -> None:
        checks.register(check_sizes)
        # Making every provider imports every provider's libraries; a worker makes its own ones when it starts (tasks).
        checks.register(check_providers, deploy=True)
        checks.register(check_test_clock, deploy=True)
