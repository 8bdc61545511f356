"""The stub of Amazon SES that stamps what it accepts with the demo's time: the test clock's, once that was advanced.

python -m scheduler_project.demo.mailbox --port 8025 --log sent.ndjson
"""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import django
from django.db import close_old_connections, connection

from stubs.log import Log
from stubs.server import Stub, main
from stubs.ses import SesStub

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "scheduler_project.settings")
django.setup()

from schedules import clock  # noqa: E402 - models can be imported from here on


class OnTestClock(Stub):
    """Mixin: a stub that lives in the demo's time."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        # Django's database work is refused in a thread that runs an event loop.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clock")

    def now(self) -> datetime:
        return self._reader.submit(_read_clock).result()

    def close(self) -> None:
        self._reader.submit(connection.close)
        self._reader.shutdown()
        super().close()


class Mailbox(OnTestClock, SesStub):
    pass


def _read_clock() -> datetime:
    """Asked each time: a reading from before an advance would stamp a message hours too early."""
    close_old_connections()
    clock.forget()
    return clock.now()


if __name__ == "__main__":
    main(Mailbox)
