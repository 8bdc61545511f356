"""The peer that many Django projects take: django-post_office, with the same e-mails to the same stub.

Its queue is a table, and ``send_queued_mail`` sends what is in it with as many processes as the service has, five
threads each. In its favour: all is queued before the clock starts, its processes begin once, and it keeps no log of
what went well. It knows no caps, and marks its rows once a process has sent all of its share.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version

from benchmarks import costs, people, processes
from benchmarks.environment import PROJECT, ROOT
from benchmarks.harness import query
from benchmarks.runs import Wrong
from benchmarks.stubs import Stubs
from schedules.models import Recipient

PEER = f"django-post_office {version('django-post-office')}"


def rate(stubs: Stubs, *, count: int, senders: int) -> tuple[float, float]:
    """E-mails a second, and microseconds of processor time for each. Raises ``Wrong``."""
    env = {
        **os.environ,
        **processes.provider_env(stubs),
        "DJANGO_SETTINGS_MODULE": "benchmarks.post_office_settings",
    }
    _run(env, "django", "migrate", "post_office", "--verbosity", "0")
    parts = {"subject": people.SUBJECT, "content": people.TEXT, "html_content": people.HTML}
    chosen = Recipient.objects.order_by("pk")[:count]
    lines = [json.dumps(parts), *(json.dumps([each.email, each.attributes]) for each in chosen)]
    _run(env, "benchmarks.post_office_child", told="\n".join(lines))
    servers = [pid for pids in costs.server_pids().values() for pid in pids] + stubs.pids
    before, own, began = costs.cpu_seconds(servers), os.times(), time.monotonic()
    _run(env, "django", "send_queued_mail", "--processes", str(senders), "--lockfile", str(ROOT / "post_office"))
    seconds, after = time.monotonic() - began, os.times()
    spent = costs.cpu_seconds(servers) - before
    spent += after.children_user + after.children_system - own.children_user - own.children_system
    ((sent,),) = query("SELECT count(*) FROM post_office_email WHERE status = 0")
    if sent != count:
        raise Wrong(f"django-post_office sent {sent} of {count} e-mails")
    return count / seconds, spent / count * 1e6


def _run(env: Mapping[str, str], module: str, *arguments: str, told: str = "") -> None:
    """Raises ``CalledProcessError``; the words are in ``LOGS``."""
    processes.LOGS.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", module, *arguments]
    with (processes.LOGS / "post_office.log").open("a") as log:
        subprocess.run(command, env=env, cwd=PROJECT, input=told, text=True, check=True, stdout=log, stderr=log)
