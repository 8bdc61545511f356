"""Asking the template service for the messages of many people at once, within the time that the caller gives.

Items that are the same are sent once, and pieces go out side by side. A call that fails may fail because of one item:
the service breaks on it, refuses it, or takes too long over it. Then it is asked for a message without tokens. Where it
has one, the piece is halved until whoever spoils it stands alone; he is asked for once more, and blamed if the service
answers for others. Otherwise nobody is, and all wait. Pieces for which no time is left are as small the next time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple

from django.conf import settings

from delivery.remote_rendering.items import Remote
from delivery.remote_rendering.kept import Kept
from delivery.remote_rendering.results import AWAY, Blame, Result, Unrendered, failed, gone, read
from delivery.rendering import Rendered, Shared
from delivery.rendering_limits import RenderError
from schedules.problems import say
from schedules.template_service import client
from schedules.template_service.client import Item, ItemError, Message, TemplateServiceError

# Of messages that nobody stands in: bytes in a process, and seconds.
MOST_KEPT: Final = 16 * 1024 * 1024
KEPT_S: Final = 300.0
# With less time than that nobody is asked.
_LEAST_S: Final = 0.05
_SIDE_BY_SIDE: Final = 4  # as many connections as the client keeps
_NOBODY: Final = Item("", "UTC", {})
# So often a piece is halved while nobody's item is answered: then there are too many for it to be their fault.
_ROUNDS: Final = 4
# Failures that an item may be the cause of. After all others each item would fail.
_MAYBE_AN_ITEM: Final = frozenset(
    {"timeout", "cut_off", "server_error", "wrong_status", "too_large", "no_json", "wrong_shape", "wrong_count"}
    | {"refused"}
)


class Wanted(NamedTuple):
    """Messages of one channel; ``recipients`` as ``rendering.render_many`` takes them."""

    remote: Remote
    channel: str
    recipients: Sequence[Mapping[str, Any]]
    shared: Shared


class Called(NamedTuple):
    """A call that was made: ``code`` is “ok” or the failure's."""

    code: str
    channel: str
    seconds: float


@dataclass
class Done:
    """``results`` in the order of what was wanted. ``failures``: by template (its id here) why it has no message.

    ``answered``: templates for which something came. ``asked``: items that were sent. ``reused``: people whose message
    was the same as another's.
    """

    results: list[list[Result]]
    answered: frozenset[int] = frozenset()
    failures: dict[int, TemplateServiceError] = field(default_factory=dict)
    calls: list[Called] = field(default_factory=list)
    asked: int = 0
    reused: int = 0


def render_together(wanted: Sequence[Wanted], *, timeout_s: float | None = None) -> Done:
    """Everything at once, within ``timeout_s`` of real time; the settings' own by itself. Never raises."""
    asking = _Asking(time.monotonic() + (settings.TEMPLATE_SERVICE_TIMEOUT_S if timeout_s is None else timeout_s))
    keys = [[asking.want(each, recipient) for recipient in each.recipients] for each in wanted]
    asking.ask()
    results = [[key if isinstance(key, RenderError) else asking.known[key] for key in row] for row in keys]
    return Done(results, frozenset(asking.answered), asking.failures, asking.calls, asking.asked, asking.reused)


def forget() -> None:
    """As in a process that has just begun."""
    _kept.clear()
    _sizes.clear()


class _Spec(NamedTuple):
    """What a call is for."""

    remote: Remote
    channel: str


@dataclass(frozen=True)
class _Piece:
    """Items of one call, by their keys."""

    spec: _Spec
    items: dict[bytes, Item]

    def cut(self, size: int) -> list[_Piece]:
        items = list(self.items.items())
        return [_Piece(self.spec, dict(items[start : start + size])) for start in range(0, len(items), size)]


_Said = list[Message | ItemError] | TemplateServiceError | None


class _Asking:
    """Questions in rounds, until all are answered or the time is over."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._wanted: dict[_Spec, dict[bytes, Item]] = {}
        self._has_any: dict[_Spec, bool] = {}  # whether the service has a message without tokens
        self._suspects: list[tuple[_Piece, TemplateServiceError]] = []
        self._alone: set[bytes] = set()  # items that have failed by themselves
        self._rounds = 0
        self._answered: set[_Spec] = set()
        self.answered: set[int] = set()
        self.known: dict[bytes, Result] = {}
        self.failures: dict[int, TemplateServiceError] = {}
        self.calls: list[Called] = []
        self.asked = 0
        self.reused = 0

    def want(self, wanted: Wanted, recipient: Mapping[str, Any]) -> bytes | RenderError:
        """By which its result will be found, or why there can't be one."""
        remote, channel, _, shared = wanted
        if channel not in remote.channels:
            return RenderError("no_content", say("the template has no %(channel)s content", channel=channel))
        try:
            item = remote.item(recipient, shared)
        except RenderError as error:
            return error.with_traceback(None)
        spec = _Spec(remote, channel)
        key = _key(spec, item)
        waiting = self._wanted.setdefault(spec, {})
        if key in waiting or key in self.known:
            self.reused += 1
        elif remote.is_of_nobody and (kept := _kept.get(key)):
            self.known[key] = kept
            self.reused += 1
        else:
            waiting[key] = item
        return key

    def ask(self) -> None:
        """Have a result for everything that is wanted."""
        self.asked = sum(map(len, self._wanted.values()))
        whole = [_Piece(spec, items) for spec, items in self._wanted.items()]
        pieces = [each for piece in whole for each in piece.cut(_sizes.get(piece.spec, client.MAX_ITEMS))]
        while pieces:
            pieces = self._round(pieces)
            self._rounds += 1
        for piece, error in self._suspects:
            self._judge(piece, error)

    def _round(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """Ask for all of them once; what is to be asked for again, in smaller pieces."""
        open_ones: list[tuple[_Piece, TemplateServiceError]] = []
        whole = {piece.spec for piece in pieces}
        for piece, said in zip(pieces, self._each(pieces), strict=True):
            if isinstance(said, list):
                self._answered.add(piece.spec)
                self.answered.add(piece.spec.remote.template_id)
                self._take(piece, said)
                continue
            whole.discard(piece.spec)
            if said is None:
                _cut_to(piece.spec, len(piece.items))
                self._settle(piece, Unrendered(Blame.TIME, AWAY))
            elif isinstance(said, client.Gone):
                self.answered.add(piece.spec.remote.template_id)
                self._settle(piece, gone())
            elif said.code in _MAYBE_AN_ITEM:
                open_ones.append((piece, said))
            else:
                self._fail(piece, said)
        for spec in whole:
            _grow(spec)
        return [smaller for piece, error in open_ones for smaller in self._look_into(piece, error)]

    def _look_into(self, piece: _Piece, error: TemplateServiceError) -> list[_Piece]:
        """The halves of a failed piece, as long as they may tell whose fault it is."""
        size, spec = len(piece.items), piece.spec
        if spec not in self._answered and not self._has_message(spec):
            if error.code == "timeout":
                _cut_to(spec, max(size // 2, 1))
            self._fail(piece, error)
        elif size == 1 and error.code != "timeout" and self._is_first(piece):
            return [piece]  # a service that fails now and then fails seldom twice
        elif size == 1 or (spec not in self._answered and self._rounds >= _ROUNDS):
            self._suspects.append((piece, error))
        else:
            return piece.cut(-(-size // 2))
        return []

    def _is_first(self, piece: _Piece) -> bool:
        """Whether the only item of the piece has failed for the first time."""
        (key,) = piece.items
        is_first = key not in self._alone
        self._alone.add(key)
        return is_first

    def _has_message(self, spec: _Spec) -> bool:
        if spec not in self._has_any:
            self._has_any[spec] = isinstance(self._call(_Piece(spec, {b"": _NOBODY})), list)
        return self._has_any[spec]

    def _judge(self, piece: _Piece, error: TemplateServiceError) -> None:
        """Now that all is said that there was time for."""
        if piece.spec not in self._answered and len(self._wanted[piece.spec]) > 1:
            self._fail(piece, error)
        elif len(piece.items) == 1:
            self._settle(piece, failed(Blame.PERSON, error))
        else:
            self._settle(piece, Unrendered(Blame.TIME, AWAY))

    def _each(self, pieces: Sequence[_Piece]) -> list[_Said]:
        return [self._call(pieces[0])] if len(pieces) == 1 else list(_executor().map(self._call, pieces))

    def _call(self, piece: _Piece) -> _Said:
        """None where there is no time for it."""
        began = time.monotonic()
        left = self._deadline - began
        if left < _LEAST_S:
            return None
        if len(piece.items) == 1 and piece.spec not in self._answered:
            left /= 2  # or nobody would ever learn whom a silence is to be blamed on
        said: _Said
        try:
            said = client.render(
                template_id=piece.spec.remote.service_id,
                version=piece.spec.remote.version,
                channel=piece.spec.channel,
                items=list(piece.items.values()),
                timeout_s=left,
            )
            code = "ok"
        except TemplateServiceError as error:
            said, code = error.with_traceback(None), error.code
        self.calls.append(Called(code, piece.spec.channel, time.monotonic() - began))
        return said

    def _take(self, piece: _Piece, said: Sequence[Message | ItemError]) -> None:
        for key, each in zip(piece.items, said, strict=True):
            result = self.known[key] = read(each, piece.spec.channel)
            if piece.spec.remote.is_of_nobody and isinstance(result, Rendered):
                _kept.put(key, result)

    def _fail(self, piece: _Piece, error: TemplateServiceError) -> None:
        self.failures[piece.spec.remote.template_id] = error
        self._settle(piece, failed(Blame.SERVICE, error))

    def _settle(self, piece: _Piece, result: Result) -> None:
        self.known |= dict.fromkeys(piece.items, result)


_kept = Kept(most=MOST_KEPT, seconds=KEPT_S)
# How many items of a template go into one call, where they are fewer than may.
_sizes: dict[_Spec, int] = {}


def _cut_to(spec: _Spec, size: int) -> None:
    if len(_sizes) > 1_000:
        _sizes.clear()
    if size < client.MAX_ITEMS:
        _sizes[spec] = size


def _grow(spec: _Spec) -> None:
    """Twice as many, after a round in which all were answered."""
    if spec in _sizes and (size := 2 * _sizes.pop(spec)) < client.MAX_ITEMS:
        _sizes[spec] = size


@cache
def _executor() -> ThreadPoolExecutor:
    """Made after the worker forked."""
    return ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE, thread_name_prefix="templates")


def _key(spec: _Spec, item: Item) -> bytes:
    remote = spec.remote
    said = [settings.TEMPLATE_SERVICE_URL, remote.service_id, remote.version, spec.channel, *item]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()
