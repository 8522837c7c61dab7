"""`python -m mlplatform.testing.contracts`: runs the contract tests on the plug-ins from outside.

Further arguments go to pytest, for example `-k families -x`. With `--all` the platform's own plug-ins are tested too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mlplatform.plugins import ALL, ENTRY_POINTS, failed_modules
from mlplatform.settings import PLUGINS_VARIABLE


class OnlyOutside:
    """Leaves only the tests of plug-ins that are not the platform's own."""

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect the others; a contract test has a parameter `name`, and its module names the registry."""
        kept: list[pytest.Item] = []
        others: list[pytest.Item] = []
        for item in items:
            assert isinstance(item, pytest.Function)
            (kept if item.callspec.params["name"] in item.module.REGISTRY.outside() else others).append(item)
        config.hook.pytest_deselected(items=others)
        items[:] = kept


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests and return the exit status: 0 if every plug-in from outside keeps its contract."""
    given = list(sys.argv[1:] if argv is None else argv)
    refused = [f"plug-in module {name} cannot be imported: {reason}" for name, reason in failed_modules().items()]
    refused += [dispute for registry in ALL for dispute in registry.disputes()]
    found = [f"{registry.kind} {name}" for registry in ALL for name in registry.outside()]
    everything = "--all" in given
    if refused:
        sys.stderr.write("".join(f"{line}\n" for line in refused))
        return 1
    if not found and not everything:
        sys.stderr.write(
            f"there are no plug-ins from outside: name their modules in {PLUGINS_VARIABLE}, or install a package with "
            f"entry points of the group {ENTRY_POINTS}; --all tests the platform's own\n"
        )
        return 2
    sys.stdout.write(f"plug-ins from outside: {', '.join(found) or 'none'}\n")
    sys.stdout.flush()
    options = [argument for argument in given if argument != "--all"]
    # The caller's own configuration of pytest may ask for plug-ins of pytest that are not installed here.
    clean = ["-c", os.devnull, f"--rootdir={Path.cwd()}", "-p", "no:cacheprovider"]
    return int(
        pytest.main([*clean, *options, str(Path(__file__).parent)], plugins=[] if everything else [OnlyOutside()])
    )


if __name__ == "__main__":
    sys.exit(main())
