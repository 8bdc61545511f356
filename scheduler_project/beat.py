"""What beat runs by: django-celery-beat's own scheduler, whose turns are seen and which follows a clock put back."""

from typing import Any

import structlog
from django_celery_beat.schedulers import DatabaseScheduler

from scheduler_project import watch

log = structlog.get_logger(__name__)


class Scheduler(DatabaseScheduler):  # type: ignore[misc] # untyped
    """A turn that came to its end is a sign of life, whatever it came to: one that hangs has none.

    An entry that last ran in the future comes when that has passed, and beat waits for it: an hour long, where the
    machine's clock was put back by an hour, and with it all sending (DatabaseScheduler 2.9, celery.beat 5.7). So such
    an entry has run just now.
    """

    _heap: Any = None

    def tick(self, *arguments: Any, **named: Any) -> Any:
        self._follow_clock()
        pause = super().tick(*arguments, **named)
        watch.seen()
        return pause

    def _follow_clock(self) -> None:
        # An entry in the heap follows the one that was read, which stays as it was.
        entries = [*(event.entry for event in self._heap or ()), *(self._schedule or {}).values()]
        ahead = [entry for entry in entries if entry.last_run_at > entry.default_now()]
        if not ahead:
            return
        log.warning("clock_put_back", entries=sorted({entry.name for entry in ahead}))
        for entry in ahead:
            entry.last_run_at = entry.model.last_run_at = entry.default_now()
        self._heap = None  # its instants are the former clock's
