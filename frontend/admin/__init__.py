"""The admin: one module per noun, each registering its models on ``frontend.admin_site.site``."""

from frontend.admin import (
    clients,
    clock,
    control,
    health,
    messages,
    occurrences,
    people,
    schedules,
    templates,
    users,
)

__all__ = (
    "clients",
    "clock",
    "control",
    "health",
    "messages",
    "occurrences",
    "people",
    "schedules",
    "templates",
    "users",
)
