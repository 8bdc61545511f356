"""``python -m deploy.site``: build the site, and check what came out."""

import argparse
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from deploy.site.built import problems

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.site", description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / ".local" / "site", help="where the site goes")
    to = parser.parse_args().to
    kept = to.with_name(f"{to.name}.read")  # what was read of documents that have not changed since
    options = ["--quiet", "--fail-on-warning", "-c", str(SETTINGS), "-d", str(kept)]
    if status := build_main([*options, str(ROOT), str(to)]):
        sys.exit(status)
    found = problems(to)
    sys.stderr.writelines(f"{problem}\n" for problem in found)
    if found:
        sys.exit(1)
    sys.stdout.write(f"{to}/index.html\n")


if __name__ == "__main__":
    main()
