"""The modelling core: scores beside the papers', speed beside other libraries, and what a crash costs.

Run as `python benchmarks/modelling.py [part ...]`, with MLPLATFORM_DATA_DIR set to the folder of ETTh1.csv. The parts
are the modules of `modelling_core` that have a `main`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import modelling_core


def main() -> None:
    """Run the parts named on the command line, or all."""
    known = [module.name for module in pkgutil.iter_modules(modelling_core.__path__)]
    known = [name for name in known if hasattr(importlib.import_module(f"modelling_core.{name}"), "main")]
    unknown = set(sys.argv[1:]) - set(known)
    if unknown:
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    for name in sys.argv[1:] or known:
        importlib.import_module(f"modelling_core.{name}").main()


if __name__ == "__main__":
    main()
