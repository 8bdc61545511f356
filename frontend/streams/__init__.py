"""A server of its own for what takes minutes: streams of inboxes, thousands on two connections to the database."""

from frontend.streams.server import Pace, serve

__all__ = ["Pace", "serve"]
