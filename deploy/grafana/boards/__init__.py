"""The boards, by the names of their files."""

from collections.abc import Mapping

from deploy.grafana.boards import api, integrations, overview, queues, sending
from deploy.grafana.files import Board

BOARDS: Mapping[str, Board] = {
    "overview": overview.BOARD,
    "sending": sending.BOARD,
    "queues": queues.BOARD,
    "api": api.BOARD,
    "integrations": integrations.BOARD,
}
