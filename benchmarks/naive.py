"""The peer of ``throughput``: the same message to the same people, written as most first versions are.

One Celery task per recipient, in Celery's default settings: read the profile, count against a cap with INCR and EXPIRE,
render, ``send_email`` with boto3's defaults, insert a row. It keeps no state that would survive a crash, asks nobody
whether the campaign is paused, and repeats people when a task is delivered twice. One favour is done to it: it keeps
its database connection, where Celery would open a new one for every task and spend most of the time on that.
"""

import os
from functools import cache
from typing import Any, ClassVar

import boto3
import redis
from celery import Celery
from django.conf import settings
from django.db import models
from minijinja import Environment

import benchmarks.environment  # noqa: F401 - joins the servers of the benchmark that started us
from benchmarks.people import HTML, MAX_PER_DAY, SUBJECT, TEXT
from schedules.models import Recipient

QUEUE = "naive"

app = Celery("naive", broker=settings.BROKER_URL)
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, worker_enable_remote_control=False)
app.conf["CELERY_DB_REUSE_MAX"] = 100_000


class Sent(models.Model):
    """One row per e-mail."""

    recipient = models.ForeignKey(Recipient, on_delete=models.CASCADE, related_name="+")
    message_id = models.CharField(max_length=100)
    status = models.CharField(max_length=20)
    created_at = models.DateTimeField(auto_now_add=True)
    objects: "ClassVar[models.Manager[Sent]]" = models.Manager()

    class Meta:
        app_label = "benchmarks"
        db_table = "benchmark_naive_sent"

    def __str__(self) -> str:
        return self.message_id


@app.task(name="naive.send_one")
def send_one(recipient_id: int) -> None:
    recipient = Recipient.objects.get(pk=recipient_id)
    key = f"naive:cap:{recipient_id}"
    count = _counters().incr(key)
    if count == 1:
        _counters().expire(key, 86_400)
    if count > MAX_PER_DAY:
        Sent.objects.create(recipient=recipient, message_id="", status="rate_limited")
        return
    subject, text, html = (_templates().render_template(part, **recipient.attributes) for part in PARTS)
    answer = _ses().send_email(
        FromEmailAddress=settings.EMAIL_FROM,
        Destination={"ToAddresses": [recipient.email]},
        Content={"Simple": {"Subject": {"Data": subject}, "Body": {"Text": {"Data": text}, "Html": {"Data": html}}}},
        EmailTags=[{"Name": "delivery", "Value": f"naive-{recipient_id}"}],
    )
    Sent.objects.create(recipient=recipient, message_id=answer["MessageId"], status="sent")


PARTS = {"subject": SUBJECT, "text": TEXT, "html": HTML}


@cache
def _templates() -> Environment:
    environment = Environment()
    for part, source in PARTS.items():
        environment.add_template(part, source)
    return environment


@cache
def _counters() -> redis.Redis:
    return redis.Redis.from_url(settings.COUNTERS_URL)


@cache
def _ses() -> Any:
    return boto3.client("sesv2", region_name=settings.AWS_REGION, endpoint_url=os.environ["AWS_ENDPOINT_URL_SESV2"])
