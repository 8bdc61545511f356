"""A request of the streams' server put to the service's WSGI application, which lets in or refuses as everywhere."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from typing import Any

from aiohttp import web
from django.core.exceptions import ImproperlyConfigured

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def environment(request: web.Request) -> dict[str, Any]:
    """As of PEP 3333. Nothing that comes here has a body."""
    host, _, port = request.host.rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.rel_url.path.encode().decode("latin-1"),
        "QUERY_STRING": request.rel_url.raw_query_string,
        "SERVER_NAME": host or request.host,
        "SERVER_PORT": port if port.isdecimal() else "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": request.remote or "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name in request.headers:
        if "_" not in name:  # X_Forwarded_For would come as X-Forwarded-For, past the proxy in front
            key = f"HTTP_{name.upper().replace('-', '_')}"
            if key not in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
                environ[key] = ",".join(request.headers.getall(name))
    return environ


def ask(application: Application, environ: dict[str, Any]) -> Answer:
    """Blocks."""
    begun: list[tuple[str, list[tuple[str, str]]]] = []
    body = application(environ, lambda status, headers, *_: begun.append((status, headers)))
    try:
        content = b"".join(body)
    finally:
        if hasattr(body, "close"):
            body.close()
    if not begun:
        raise ImproperlyConfigured("The WSGI application did not begin an answer.")
    status, headers = begun[0]
    return Answer(HTTPStatus(int(status[:3])).value, headers, content)
