"""What beat runs by: django-celery-beat's own scheduler, whose turns are seen."""

from typing import Any

from django_celery_beat.schedulers import DatabaseScheduler

from scheduler_project import watch


class Scheduler(DatabaseScheduler):  # type: ignore[misc] # untyped
    """A turn that came to its end is a sign of life, whatever it came to: one that hangs has none."""

    def tick(self, *arguments: Any, **named: Any) -> Any:
        pause = super().tick(*arguments, **named)
        watch.seen()
        return pause
