"""An installation whose configuration a test may change while its servers run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from mlplatform.settings import Settings
from mlplatform_tests.serving.conftest import Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend


class Installation:
    """A copy of the platform's configuration, in which the policy can be changed; the state is the platform's.

    Parameters:
        platform: the installation of the session.
        folder: where the copy goes.
    """

    def __init__(self, platform: Platform, folder: Path) -> None:
        assert platform.settings.conf_dir is not None
        self.conf = Path(shutil.copytree(platform.settings.conf_dir, folder / "conf"))
        self.platform = platform

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables of a server process."""
        return {**self.platform.environ, "MLPLATFORM_CONF_DIR": str(self.conf)}

    def settings(self, experiment: str = "tiny_forecast", **changes: Any) -> Settings:
        """Return settings that serve an experiment."""
        return replace(self.platform.serving(experiment), conf_dir=self.conf, **changes)

    def set_policy(self, policy: dict[str, Any], experiment: str = "tiny_forecast", key: str = "staleness") -> None:
        """Write a policy of an experiment, by default that about staleness, into its file."""
        path = self.conf / "experiment" / f"{experiment}.yaml"
        head, _, text = path.read_text().partition("\n")
        path.write_text(f"{head}\n" + json.dumps({**json.loads(text), key: policy}))

    def set_serving(self, option: dict[str, Any]) -> None:
        """Write what a server on Ray that begins from now on has as its option of the group `serving`."""
        path = self.conf / "serving" / "default.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(option))

    @contextmanager
    def serving(self, *experiments: str, **changes: Any) -> Iterator[httpx.Client]:
        """Serve experiments, or else `tiny_forecast`, from this process while the context is open; yields a client."""
        settings = [self.settings(name, **changes) for name in experiments or ("tiny_forecast",)]
        with in_thread(build_app({each.experiment: LocalBackend(each) for each in settings}, settings[0])) as client:
            yield client
