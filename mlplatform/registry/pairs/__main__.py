"""`python -m mlplatform.registry.pairs`: signs pairs that are registered already, and says who signed which."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mlplatform.registry.pairs.info import PairIntegrityError, PairNotFoundError
from mlplatform.registry.pairs.signed import describe_signature
from mlplatform.registry.pairs.store import PairStore
from mlplatform.registry.signing import SigningKeyError
from mlplatform.settings import SIGNING_KEY, Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 if all went well, otherwise 1."""
    parser = argparse.ArgumentParser(prog="python -m mlplatform.registry.pairs", description="Sign registered pairs.")
    commands = parser.add_subparsers(dest="command", required=True)
    sign = commands.add_parser("sign", help=f"sign pairs that are registered already, with the key in {SIGNING_KEY}")
    listing = commands.add_parser("signatures", help="list who signed which version, and what would be refused")
    for command in (sign, listing):
        command.add_argument("name", help="name of the pair, which is that of its experiment")
    which = sign.add_mutually_exclusive_group(required=True)
    which.add_argument("--version", type=int, action="append", help="a version to sign; may be repeated")
    which.add_argument("--all", action="store_true", help="sign every complete version")
    sign.add_argument("--who", required=True, type=_said, help="who vouches for what is signed")
    sign.add_argument("--why", required=True, type=_said, help="how they know where it comes from")
    arguments = parser.parse_args(argv)
    store = PairStore(Settings.from_env())
    try:
        if arguments.command == "signatures":
            return _list(store, arguments.name)
        versions = arguments.version or sorted(store.versions(arguments.name))
        return _sign(store, arguments.name, versions, arguments.who, arguments.why)
    except (PairNotFoundError, SigningKeyError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _said(text: str) -> str:
    """Return an argument without the space around it.

    Raises:
        ArgumentTypeError: if it is blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"found {text!r}, which says nothing; it is signed with the pair")
    return text.strip()


def _sign(store: PairStore, name: str, versions: Sequence[int], who: str, why: str) -> int:
    """Sign each version that can be signed; the others do not keep it from the rest."""
    failed = 0
    for version in versions:
        try:
            info = store.sign(name, version, who=who, why=why)
        except (PairIntegrityError, PairNotFoundError) as error:
            failed = 1
            sys.stderr.write(f"version {version} was not signed: {error}\n")
        else:
            sys.stdout.write(f"version {version}: {describe_signature(info, store.settings.verify_keys)}\n")
    return failed


def _list(store: PairStore, name: str) -> int:
    for version in store.versions(name):
        try:
            found = describe_signature(store.resolve(name, version), store.settings.verify_keys)
        except PairIntegrityError as error:
            found = f"refused: {error}"
        sys.stdout.write(f"version {version}: {found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
