"""How many streams there may be at once: in a process, and of one person."""

from collections import Counter
from threading import Lock

from frontend.api.problems import AWAY, TOO_MANY, Refused

# Seconds after which it is worth asking again.
_FULL_S, _PERSON_S = 10, 30


class Places:
    """Taken in the thread that lets people in, left in that of the streams."""

    def __init__(self, *, most: int, most_of_person: int) -> None:
        self._most, self._most_of_person = most, most_of_person
        self._lock = Lock()
        self._taken: Counter[int] = Counter()

    def take(self, recipient_id: int) -> None:
        """Raises ``Refused``."""
        with self._lock:
            if self._taken.total() >= self._most:
                detail = "All places for streams are taken: read GET /api/v1/inbox meanwhile, and come again."
                raise Refused(AWAY, detail, headers={"Retry-After": str(_FULL_S)})
            if self._taken[recipient_id] >= self._most_of_person:
                detail = f"The person has {self._most_of_person} streams open: close one, or read GET /api/v1/inbox."
                raise Refused(TOO_MANY, detail, headers={"Retry-After": str(_PERSON_S)})
            self._taken[recipient_id] += 1

    def leave(self, recipient_id: int) -> None:
        with self._lock:
            self._taken[recipient_id] -= 1
            if not self._taken[recipient_id]:
                del self._taken[recipient_id]
