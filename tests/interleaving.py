"""Two connections meet at points that a test chooses, rather than by luck or by sleeping."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, connections

PATIENCE_S = 120.0
# Any number: the advisory lock at which a statement is halted.
_HALT = 7_351_100


class Gate:
    """One rival that comes by is held until it opens: the first, or the first after ``free`` that were let through.

    Later ones pass, and so does the test itself.
    """

    def __init__(self, free: int = 0) -> None:
        self._turns = iter([*[False] * free, True])
        self._reached = threading.Event()
        self._opened = threading.Event()

    def pass_by(self) -> None:
        if isinstance(threading.current_thread(), Rival) and next(self._turns, False):
            self._reached.set()
            assert self._opened.wait(PATIENCE_S), "nobody opened the gate"

    def wait(self) -> None:
        assert self._reached.wait(PATIENCE_S), "nobody came to the gate"

    def open(self) -> None:
        self._opened.set()


class Rival(threading.Thread):
    """A function with a database connection of its own; its result or error comes from ``result``."""

    def __init__(self, function: Callable[[], Any], halt_at: str) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._halt_at = halt_at
        self._connected = threading.Event()
        self._pid = 0
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            connection.ensure_connection()
            self._pid = connection.connection.info.backend_pid
            self._connected.set()
            with _halting(self._halt_at):
                self._value = self._function()
        except BaseException as error:  # handed to the test's own thread
            self._error = error
        finally:
            connections.close_all()

    def wait_for_lock(self) -> None:
        """Until the rival's connection waits for a lock that another one holds."""
        assert self._connected.wait(PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_blocked():
            assert self.is_alive(), f"the rival did not wait: {self._error!r}"
            assert time.monotonic() < deadline, "the rival waits for no lock"
            time.sleep(0.005)

    def kill(self) -> None:
        """End the rival's connection, as a crash of its process would."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [self._pid])

    def result(self) -> Any:
        """What the function returned; raises what it raised."""
        self.join(PATIENCE_S)
        assert not self.is_alive(), "the rival does not come to an end"
        if self._error:
            raise self._error
        return self._value

    def _is_blocked(self) -> bool:
        # Not pg_stat_activity: within a transaction it shows the same picture again and again.
        with connection.cursor() as cursor:
            cursor.execute("SELECT cardinality(pg_blocking_pids(%s)) > 0", [self._pid])
            return bool(cursor.fetchone()[0])


class Meeting:
    """Rivals and gates of one test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._rivals: list[Rival] = []
        self._gates: list[Gate] = []
        self._is_halting = False

    def rival(self, function: Callable[[], Any], *, halt_at: str = "") -> Rival:
        """Start ``function`` in a thread.

        ``halt_at`` is a part of one of its statements that begins with WHERE: that statement then stops with its
        snapshot taken and none of its rows locked yet, until ``go_on``.
        """
        if halt_at:
            self._is_halting = True
            _select(f"SELECT pg_advisory_lock({_HALT})")
        rival = Rival(function, halt_at)
        self._rivals.append(rival)
        rival.start()
        if halt_at:
            rival.wait_for_lock()
        return rival

    def go_on(self) -> None:
        """Let the halted statement go on."""
        self._is_halting = False
        _select(f"SELECT pg_advisory_unlock({_HALT})")

    def gate(self, owner: Any, name: str, *, behind: bool = False, free: int = 0) -> Gate:
        """A gate before ``owner.name``, or behind it; ``free`` calls pass before it closes."""
        gate, original = Gate(free), getattr(owner, name)

        def gated(*arguments: Any, **keywords: Any) -> Any:
            if not behind:
                gate.pass_by()
            value = original(*arguments, **keywords)
            if behind:
                gate.pass_by()
            return value

        self._monkeypatch.setattr(owner, name, gated)
        self._gates.append(gate)
        return gate

    def close(self) -> None:
        for gate in self._gates:
            gate.open()
        if self._is_halting:
            self.go_on()
        for rival in self._rivals:
            rival.join(PATIENCE_S)


@contextmanager
def _halting(part: str) -> Iterator[None]:
    halted = f"WHERE pg_advisory_xact_lock_shared({_HALT}) IS NOT NULL AND {part.removeprefix('WHERE')}"
    done: list[str] = []

    def execute(run: Any, sql: str, parameters: Any, many: bool, context: Any) -> Any:
        if part and part in sql and not done:
            assert sql.count(part) == 1
            done.append(sql)
            sql = sql.replace(part, halted)
        return run(sql, parameters, many, context)

    with connection.execute_wrapper(execute):
        yield


def _select(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
