"""The roof as a Django app: its commands, and the Celery application in every process that runs Django.

Without the import a task enqueued by a command or a page would go to a broker that does not exist.
"""

from django.apps import AppConfig
from django.core import checks

from scheduler_project.celery import app as celery_app
from scheduler_project.checks import check_deployment
from scheduler_project.pooling import check_pooled

__all__ = ["ProjectConfig", "celery_app"]


class ProjectConfig(AppConfig):
    name = "scheduler_project"

    def ready(self) -> None:
        checks.register(check_deployment, checks.Tags.security, deploy=True)
        checks.register(check_pooled, checks.Tags.database)
