"""Plug-ins from outside: found by variable or entry point, seen by every process, and never the end of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlplatform.testing.experiments import write_conf, write_experiment

FAMILY = """
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlplatform.models import ModelParams
from mlplatform.models.forecasting import RuleModel
from mlplatform.plugins import MODELS, TRANSFORMS
from mlplatform.preprocessing import Transform, TransformParams
from mlplatform.training import CONTINUOUS, metric


class MeanParams(ModelParams):
    span: int = 6


@MODELS.register("team_mean")
class TeamMean(RuleModel):
    Params = MeanParams

    @classmethod
    def least_lookback(cls, params):
        return params.span

    @classmethod
    def season(cls, params):
        return params.span

    @classmethod
    def check(cls, use, params, config):
        yield from super().check(use, params, config)
        if config.horizon > 9:
            yield f"{use.key} {use.name!r} looks 9 steps ahead at most, but horizon is {config.horizon}"

    def predict(self, samples):
        rows = samples.origins[:, None] - np.arange(self.params.span)[None, :]
        means = samples.values[:, list(self.spec.targets)][rows].mean(axis=1, dtype=np.float64)
        answers = np.repeat(means[:, None, :], self.spec.horizon, axis=1).astype(ANSWER)
        return self.filled(answers, samples)


@TRANSFORMS.register("team_root")
class TeamRoot(Transform):
    is_invertible = True

    def fit(self, column, name):
        if not np.isfinite(column.astype(np.float64)).any():
            raise ValueError(f"column {name!r} has no observed value in the training rows")
        return self

    def apply(self, column, offsets):
        values = column.astype(np.float32)
        return np.sign(values) * np.sqrt(np.abs(values))

    def invert(self, values):
        return np.sign(values) * np.square(values)

    def state(self):
        return {}

    def restore(self, state):
        pass


@metric("team_p90", CONTINUOUS)
def team_p90(truth, prediction):
    return float(np.quantile(np.abs(truth - prediction), 0.9))
"""
GOOD, WRONG = FAMILY.replace("ANSWER", "np.float32"), FAMILY.replace("ANSWER", "np.float64")
USES_TEAM = {
    "baselines": [{"name": "team_mean", "params": {"span": 5}}],
    "extra_metrics": ["team_p90"],
}


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """A folder on the path of programs, with a configuration of its own."""
    (tmp_path / "site").mkdir()
    write_conf(tmp_path / "conf")
    return tmp_path / "site"


def run(team: Path, *command: str, plugins: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of Python that finds the modules in `team`."""
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(team), *filter(None, sys.path)]),
        "MLPLATFORM_PLUGINS": plugins,
        "MLPLATFORM_HOME": str(team.parent / "home"),
        "MLPLATFORM_CONF_DIR": str(team.parent / "conf"),
    }
    return subprocess.run([sys.executable, *command], env=environ, cwd=team, capture_output=True, text=True)


def answers(team: Path, program: str, plugins: str = "") -> Any:
    """Run a program that prints one line of JSON at its end, and return what it says."""
    result = run(team, "-c", f"import json\n{program}", plugins=plugins)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


LOAD = """
from mlplatform.config import ConfigError, experiment_names, load_experiment
found = {"season": {}, "metrics": {}, "broken": {}}
for name in experiment_names():
    if name.startswith(("team_", "pump_", "fleet_xgb")):
        try:
            config = load_experiment(name)
            found["season"][name], found["metrics"][name] = config.season, config.metrics
        except ConfigError as error:
            found["broken"][name] = str(error)
print(json.dumps(found))
"""


def test_an_experiment_uses_plugins_that_the_variable_names(team: Path) -> None:
    (team / "team_plugins.py").write_text(GOOD)
    write_experiment(team.parent / "conf", "team_one", **USES_TEAM)
    write_experiment(team.parent / "conf", "team_far", **USES_TEAM, horizon=10)
    write_experiment(team.parent / "conf", "team_short", baselines=[{"name": "team_mean", "params": {"span": 99}}])
    found = answers(team, LOAD, plugins=" team_plugins , ")
    assert found["season"]["team_one"] == 5
    assert found["metrics"]["team_one"] == ["mae", "team_p90"]
    assert set(found["broken"]) == {"team_far", "team_short"}
    assert "baselines 'team_mean' looks 9 steps ahead at most, but horizon is 10" in found["broken"]["team_far"]
    assert "baselines: 'team_mean' needs a lookback of at least 99" in found["broken"]["team_short"]


def test_an_entry_point_names_a_module_as_well(team: Path) -> None:
    (team / "team_plugins.py").write_text(GOOD)
    information = team / "team-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: team\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[mlplatform.plugins]\nteam = team_plugins\n")
    program = "from mlplatform.plugins import MODELS\nprint(json.dumps([MODELS.outside(), 'ridge' in MODELS.names()]))"
    assert answers(team, program) == [["team_mean"], True]


def test_a_module_that_fails_is_named_where_its_plugins_are_missed_and_the_others_work(team: Path) -> None:
    (team / "team_plugins.py").write_text(GOOD)
    (team / "team_broken.py").write_text("import no_such_library\n")
    write_experiment(team.parent / "conf", "team_one", **USES_TEAM)
    write_experiment(team.parent / "conf", "team_lost", baselines=[{"name": "team_lost"}])
    found = answers(team, LOAD, plugins="team_broken,team_plugins")
    assert {"team_one", "pump_xgboost", "fleet_xgboost"} <= set(found["season"])
    (message,) = found["broken"].values()
    assert "baselines: unknown model family 'team_lost'; known: catboost" in message
    assert "cannot be imported: team_broken (ModuleNotFoundError: No module named 'no_such_library')" in message
    result = run(team, "-m", "mlplatform.config", "check", plugins="team_broken,team_plugins")
    assert result.returncode == 1
    assert "plug-in module team_broken, named by MLPLATFORM_PLUGINS" in result.stdout
    assert "team_lost.yaml" in result.stdout


def test_a_name_that_two_plugins_have_is_refused_with_both_and_costs_no_other(team: Path) -> None:
    (team / "team_plugins.py").write_text(GOOD.replace('"team_root"', '"log"').replace('"team_p90"', '"rmse"'))
    (team.parent / "conf" / "preprocessing" / "logged.yaml").write_text("steps: [{transform: log}]")
    (team.parent / "conf" / "preprocessing" / "cut.yaml").write_text("steps: [{transform: clip}]")
    for name in ("logged", "cut"):
        write_experiment(team.parent / "conf", f"team_{name}", extra_metrics=["r2"])
        path = team.parent / "conf" / "experiment" / f"team_{name}.yaml"
        path.write_text(path.read_text().replace('"/preprocessing": "pump"', f'"/preprocessing": "{name}"'))
    # Whichever of the two is registered first: the registry of metrics is filled before, that of transforms after.
    for first in ("", "from mlplatform.plugins import METRICS, TRANSFORMS\nMETRICS.names(), TRANSFORMS.names()\n"):
        found = answers(team, first + LOAD, plugins="team_plugins")
        assert "team_cut" in found["season"]
        twice = "transform 'log' is registered twice: "
        assert twice in found["broken"]["team_logged"]
        for who in ("mlplatform.preprocessing.transforms.mathematical.Log", "team_plugins.TeamRoot"):
            assert who in found["broken"]["team_logged"]
        twice = "metric 'rmse' is registered twice: "
        assert twice in found["broken"]["pump_xgboost"]
        for who in ("mlplatform.training.metrics.root_mean_squared_error", "team_plugins.team_p90"):
            assert who in found["broken"]["pump_xgboost"]


def test_a_spawned_process_loads_them_too(team: Path) -> None:
    (team / "program.py").write_text(
        "import json, multiprocessing\n"
        "from mlplatform.plugins import failed_modules\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(json.dumps(pool.apply(failed_modules)))\n"
    )
    result = run(team, "program.py", plugins="team_broken")
    assert json.loads(result.stdout) == {"team_broken": "ModuleNotFoundError: No module named 'team_broken'"}


CONTRACTS = ("-m", "mlplatform.testing.contracts", "-q")


def test_the_contract_tests_run_on_plugins_from_outside_and_on_no_others(team: Path) -> None:
    (team / "team_plugins.py").write_text(GOOD)
    # A configuration of pytest that only its owner can satisfy.
    (team / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    result = run(team, *CONTRACTS, "-vv", plugins="team_plugins")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "plug-ins from outside: transform team_root, model family team_mean, metric team_p90" in result.stdout
    for kind, name in (("families", "team_mean"), ("transforms", "team_root"), ("metrics", "team_p90")):
        assert f"test_{kind}.py" in result.stdout
        assert f"[{name}" in result.stdout
    assert "[ridge" not in result.stdout


def test_the_contract_tests_find_what_is_wrong(team: Path) -> None:
    (team / "team_plugins.py").write_text(WRONG)
    result = run(team, *CONTRACTS, plugins="team_plugins")
    assert result.returncode == 1
    assert "test_a_forecast_has_the_shape_of_horizon_and_targets[team_mean" in result.stdout
    assert "float64" in result.stdout


def test_there_is_nothing_to_test_without_plugins_from_outside(team: Path) -> None:
    result = run(team, *CONTRACTS)
    assert result.returncode == 2
    assert "there are no plug-ins from outside: name their modules in MLPLATFORM_PLUGINS" in result.stderr
    result = run(team, *CONTRACTS, plugins="team_lost")
    assert result.returncode == 1
    assert "plug-in module team_lost cannot be imported: ModuleNotFoundError" in result.stderr
