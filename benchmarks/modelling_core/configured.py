"""Families with the parameters that the package ships."""

from __future__ import annotations

from typing import Any

import yaml

from mlplatform.settings import PACKAGE_ROOT


def configured(name: str) -> tuple[str, dict[str, Any]]:
    """Return the family and the parameters of a file of `conf/model`."""
    config = yaml.safe_load((PACKAGE_ROOT / "conf" / "model" / f"{name}.yaml").read_text())
    return config["family"], config["params"]
