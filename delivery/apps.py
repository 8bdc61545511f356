from django.apps import AppConfig
from django.core import checks

from delivery.checks import check_sizes, check_test_clock
from delivery.providers.registry import check_providers


class DeliveryConfig(AppConfig):
    name = "delivery"

    def ready(self) -> None:
        checks.register(check_providers)
        checks.register(check_sizes)
        checks.register(check_test_clock, deploy=True)
