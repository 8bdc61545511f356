"""The admin: one module per noun, each registering its models on ``frontend.admin_site.site``."""

from frontend.admin import (
    batches,
    circuits,
    clients,
    clock,
    control,
    test_sends,
    users,
)

__all__ = (
    "batches",
    "circuits",
    "clients",
    "clock",
    "control",
    "test_sends",
    "users",
)
