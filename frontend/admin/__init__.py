"""The admin: one module per noun, each registering its models on ``frontend.admin_site.site``."""

from frontend.admin import (
    batches,
    clients,
    clock,
    control,
    health,
    test_sends,
    users,
)

__all__ = (
    "batches",
    "clients",
    "clock",
    "control",
    "health",
    "test_sends",
    "users",
)
