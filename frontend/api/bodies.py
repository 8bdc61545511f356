"""Bodies as they were sent: whole, or not at all.

Django reads as many bytes as Content-Length says. It takes a body without one for empty, so that a PUT in chunks would
empty what it was to replace, and hands on what came before a connection broke as if it were everything.
"""

from collections.abc import Callable, Iterable
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from rest_framework.exceptions import ParseError

# Bytes of a body in chunks that are read: one more than any address takes, so that each can say what is too large.
_MOST = 20 * 1024 * 1024 + 1
_IN_MEMORY = 1024 * 1024
_PIECE = 64 * 1024

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Chunked:
    """WSGI middleware: a body in chunks (RFC 9112, 7.1) gets its length, as those have of which it was known before."""

    def __init__(self, app: App) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.pop("HTTP_TRANSFER_ENCODING", ""):
            file = SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the request has it, and then nobody
            # A server that does not say where chunks end gives none of them.
            is_whole = bool(environ.get("wsgi.input_terminated")) and _copy(environ["wsgi.input"], file)
            environ["CONTENT_LENGTH"] = str(file.tell() + (not is_whole))
            file.seek(0)
            environ["wsgi.input"] = file
        return self._app(environ, start_response)


def _copy(body: IO[bytes], file: Any) -> bool:
    """Whether it could be read to its end, or as far as anybody wants to know."""
    try:
        while file.tell() < _MOST and (piece := body.read(min(_PIECE, _MOST - file.tell()))):
            file.write(piece)
    except OSError:
        return False
    return True


def check_whole(request: Any, size: int) -> None:
    """Raises ``ParseError`` where ``size`` bytes are fewer than were announced: the connection broke."""
    if size < int(request.META.get("CONTENT_LENGTH") or 0):
        raise ParseError(f"The body was cut off after {size:,} bytes: send it again.")
