"""``python -m deploy.grafana``: write the boards."""

import argparse
from pathlib import Path

from deploy.grafana.boards import BOARDS
from deploy.grafana.files import text

FOLDER = Path(__file__).parent / "dashboards"
# Where the links of the committed boards lead; a viewer may name other places.
PLACES = {"service": "http://localhost:8000", "docs": "http://localhost:8001"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", default=PLACES["service"], help="where people reach the service's pages")
    parser.add_argument("--docs", default=PLACES["docs"], help="where the site of make docs is")
    chosen = parser.parse_args()
    for name, board in BOARDS.items():
        (FOLDER / f"{name}.json").write_text(text(board, service=chosen.service, docs=chosen.docs))


if __name__ == "__main__":
    main()
