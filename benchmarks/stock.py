"""The application of ``stock_beat``: Celery with django-celery-beat's scheduler, as their documentation has it."""

from celery import Celery
from django.conf import settings

import benchmarks.environment  # noqa: F401 - joins the servers of the benchmark that started us

SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"

app = Celery("stock", broker=settings.BROKER_URL)
app.conf.update(timezone="UTC", beat_scheduler=SCHEDULER, task_ignore_result=True)
