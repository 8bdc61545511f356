"""A server of its own for what takes minutes: streams of inboxes, thousands on two connections to the database."""

from frontend.streams.pace import Pace
from frontend.streams.server import serve

__all__ = ["Pace", "serve"]
