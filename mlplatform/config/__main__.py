"""`python -m mlplatform.config check`: lists all mistakes of all experiment, dataset and serving files at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mlplatform.config.check import check_all


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 if there is no mistake, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m mlplatform.config", description="Look after the configuration.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="list all mistakes of all experiment, dataset and serving files")
    check.add_argument("--json", action="store_true", help="answer with one JSON object")
    arguments = parser.parse_args(argv)
    listing = check_all()
    sys.stdout.write(f"{listing.to_json() if arguments.json else listing.to_text()}\n")
    return 1 if listing.mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
