"""What runs in the peer's processes: django-post_office, which sends by Amazon SES here.

    DJANGO_SETTINGS_MODULE=benchmarks.post_office_settings python -m benchmarks.post_office_child

queues an e-mail for each line of standard input, the JSON of its address and context; the first line is the template.
"""

import json
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import boto3
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

import benchmarks.environment  # noqa: F401 - sets Django up, with the settings named in the environment

from post_office import mail  # isort: skip - whose models want that
from post_office.models import EmailTemplate  # isort: skip


class SesBackend(BaseEmailBackend):
    """A call for each message, as all backends of Django do it; one client a process, so that it is as quick as any."""

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        for message in email_messages:
            _ses().send_email(
                FromEmailAddress=message.from_email,
                Destination={"ToAddresses": message.to},
                Content={"Raw": {"Data": message.message().as_bytes()}},
            )
        return len(email_messages)


@cache
def _ses() -> Any:
    return boto3.client("sesv2", region_name="eu-central-1", endpoint_url=os.environ["AWS_ENDPOINT_URL_SESV2"])


def main() -> None:
    template = EmailTemplate.objects.create(name="benchmark", **json.loads(sys.stdin.readline()))
    queued = [
        {"recipients": [to], "sender": "news@example.com", "template": template, "context": context}
        for to, context in map(json.loads, sys.stdin)
    ]
    mail.send_many([{**each, "render_on_delivery": True} for each in queued])


if __name__ == "__main__":
    main()
