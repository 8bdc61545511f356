"""The roof as a Django app: its commands, and the Celery application in every process that runs Django.

Without the import a task enqueued by a command or a page would go to a broker that does not exist.
"""

from django.apps import AppConfig

from scheduler_project.celery import app as celery_app

__all__ = ["ProjectConfig", "celery_app"]


class ProjectConfig(AppConfig):
    name = "scheduler_project"
