"""Two weeks of garbage, and of a world that truly changed: what gets into production?

Every life is a plant of three lines whose temperature follows load and weather, with a pair in production that was
trained on ten clean weeks. Then a sensor sticks, a unit changes, two columns are exchanged, a column arrives a day
late, or the cooling fails. A drift report is made every day, the retrain policy decides (wrong forecasts and drifted
features may both start a training here, which is harder on the gate than the shipped policy), and on the last day
somebody launches a training by hand, too. What was trained is judged by the gate and held up by broken data, as in
production; left out is everything around it: Dagster, features online, tuning. A version that learnt garbage must not
be promoted, and one that learnt the failed cooling must be.

Run as `python benchmarks/garbage.py [kind ...] [--lives N]`; twenty lives of every kind take half an hour on a core.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from figures import report
from scipy.signal import lfilter

from mlplatform.config import ENTITY, TIMESTAMP, ExperimentConfig, apply_versions, load_experiment
from mlplatform.datamodule import (
    REFERENCE,
    TRAIN,
    ModelSpec,
    Panel,
    TrainingRows,
    create_data_module,
    read_manifest,
    read_part,
    write_split,
)
from mlplatform.models import DirectFitModel, create_model
from mlplatform.monitoring import DriftReport, ErrorDrift, build_report, write_report
from mlplatform.monitoring.retraining import Inputs, ReportFacts, RunFacts, decide_retrain, hold_of
from mlplatform.preprocessing import TransformManager
from mlplatform.promotion.gate import run_gate
from mlplatform.promotion.retraining import DRIFT_CAUSE
from mlplatform.promotion.scoring import score_pair, shared_samples
from mlplatform.registry import Contract, Forecaster, experiment_id
from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairStore, example_rows
from mlplatform.registry.runs import record_training_rows
from mlplatform.settings import Settings
from mlplatform.testing.yard import write_option

Floats = npt.NDArray[np.float64]

NAME, TARGET, COLUMNS = "plant", "temperature", ("load", "outside", "temperature")
DAY, CLEAN_DAYS, CHANGED_DAYS = 24, 72, 14
START = pd.Timestamp("2024-01-01", tz="UTC")
OPTIONS: dict[str, dict[str, Any]] = {
    "dataset": {
        "name": NAME,
        "kind": "timeseries",
        "source": {"uri": "plant.csv"},
        "time_column": "time",
        "entity_column": "line",
        "frequency": "1h",
        "window_steps": 48,
        "columns": {name: {} for name in COLUMNS},
    },
    "features": {"version": NAME, "columns": list(COLUMNS)},
    "split": {
        "version": NAME,
        "reference_steps": 96,
        "context_steps": 48,
        "cv": {"name": "expanding", "params": {"validation_steps": 96}},
        "folds": 2,
    },
    "model": {"version": NAME, "family": "ridge", "params": {}, "search_space": {}},
}
SHIPPED = {"/preprocessing": "standard", "/tuning": "none", "/promotion": "default", "/drift": "default"}
EXPERIMENT: dict[str, Any] = {
    "defaults": [
        *({f"/{group}": NAME} for group in OPTIONS),
        *({key: each} for key, each in SHIPPED.items()),
        "_self_",
    ],
    "name": f"{NAME}_ridge",
    "task": "forecast",
    "targets": [TARGET],
    "lookback": 24,
    "horizon": 6,
    "metric": "mae",
    "baselines": [{"name": "repeat_last"}, {"name": "seasonal_naive", "params": {"season": DAY}}],
    "drift": {"retrain": {"triggers": ["errors", "features"]}},
}


def plant(seed: int, cooling_fails: int | None = None) -> pd.DataFrame:
    """Return hourly rows of three lines in canonical form.

    Parameters:
        cooling_fails: the step from which on each unit of load warms twice as much.
    """
    generator, steps = np.random.default_rng(seed), (CLEAN_DAYS + CHANGED_DAYS) * DAY
    hours, parts = np.arange(steps), []
    outside = 12 + 4 * np.sin(2 * np.pi * (hours - 9) / DAY) + 2 * memory(generator, 0.98, steps)
    warming = np.where(hours < (steps if cooling_fails is None else cooling_fails), 0.5, 1.0)
    for line in (1, 2, 3):
        wave = 10 * np.sin(2 * np.pi * (hours - 8) / DAY) + 5 * np.sin(2 * np.pi * hours / (7 * DAY))
        load = 50 + line + wave + 4 * memory(generator, 0.95, steps)
        heat = lfilter([0.3], [1.0, -0.7], warming * load)
        temperature = outside + heat + 0.5 * generator.standard_normal(steps)
        columns = {"load": load, "outside": outside + 0.3 * generator.standard_normal(steps), TARGET: temperature}
        times = START.as_unit("ns") + pd.to_timedelta(hours, unit="h")
        parts.append(pd.DataFrame({ENTITY: np.int64(line), TIMESTAMP: times, **columns}))
    # The filter has warmed up by then.
    return pd.concat([part.iloc[2 * DAY :] for part in parts], ignore_index=True)


def memory(generator: np.random.Generator, correlation: float, steps: int) -> Floats:
    """Return a stationary AR(1) series of unit variance."""
    shocks = generator.standard_normal(steps + 500) * np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], shocks)[500:])


def _stick(rows: pd.DataFrame, broken: pd.Series[bool]) -> None:
    rows.loc[broken, "load"] = rows.loc[broken].groupby(ENTITY)["load"].transform("first")


def _fahrenheit(rows: pd.DataFrame, broken: pd.Series[bool]) -> None:
    rows.loc[broken, TARGET] = rows.loc[broken, TARGET] * 1.8 + 32.0


def _swap(rows: pd.DataFrame, broken: pd.Series[bool]) -> None:
    rows.loc[broken, ["load", TARGET]] = rows.loc[broken, [TARGET, "load"]].to_numpy()


def _late(rows: pd.DataFrame, broken: pd.Series[bool]) -> None:
    rows.loc[broken, "load"] = rows.groupby(ENTITY)["load"].shift(DAY)[broken]


FAULTS: dict[str, Callable[[pd.DataFrame, pd.Series[bool]], None] | None] = {
    "constant": _stick,
    "units": _fahrenheit,
    "swapped columns": _swap,
    "a day late": _late,
    # No garbage: the world changed.
    "failed cooling": None,
}


@dataclass
class Life:
    """One plant with an installation of its own.

    Attributes:
        promoted: what asked for each promotion after the first.
        refusals: why what was trained was not promoted, or nothing was trained.
    """

    settings: Settings
    rows: pd.DataFrame
    store: PairStore
    runs: list[RunFacts] = field(default_factory=list)
    promoted: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)

    @property
    def config(self) -> ExperimentConfig:
        """The experiment as its YAML has it."""
        return load_experiment(EXPERIMENT["name"], settings=self.settings)

    def known(self, newest: pd.Timestamp) -> pd.DataFrame:
        """Return the rows up to a moment."""
        return self.rows[self.rows[TIMESTAMP] <= newest].reset_index(drop=True)

    def train(self, newest: pd.Timestamp, cause: str | None = None) -> tuple[ExperimentConfig, PairInfo]:
        """Train and register a pair on the rows up to a moment."""
        import mlflow

        versions = {"split_version": f"{NAME}@{newest:%Y%m%dT%H%M}"}
        name = EXPERIMENT["name"]
        config = load_experiment(name, apply_versions(name, versions, self.settings), self.settings)
        manifest = write_split(config.dataset, config.split, self.known(newest), self.settings, config.targets)
        train, reference = (read_part(self.settings, NAME, manifest.version_id, part) for part in (TRAIN, REFERENCE))
        forecaster = fit(config, train, config.model.family, {})
        module = create_data_module(config, reference)
        scores = {f"{REFERENCE}_mae": score_pair(forecaster, module, reference).scores["mae"]}
        for baseline in config.baselines:
            naive = fit(config, train, baseline.name, baseline.params)
            scores[f"baseline_{baseline.name}_{REFERENCE}_mae"] = score_pair(naive, module, reference).scores["mae"]
        mlflow.set_tracking_uri(self.settings.mlflow_tracking_uri)
        with mlflow.start_run(experiment_id=experiment_id(self.settings, config.name)) as run:
            mlflow.log_metrics(scores)
            statistics = manifest.parts[TRAIN].statistics(config.targets)
            mlflow.log_params({f"data.{TRAIN}.{key}": statistics[key] for key in ("start", "end")})
            if cause is not None:
                mlflow.set_tag(DRIFT_CAUSE, cause)
            record_training_rows(
                TrainingRows.of(config.dataset, read_manifest(self.settings, NAME, manifest.version_id), train)
            )
        example = example_rows(forecaster.contract, reference)
        tags = config.versions
        pair = self.store.register(name, forecaster, config.model.family, run.info.run_id, example=example, tags=tags)
        return config, pair

    def judged(self, newest: pd.Timestamp, cause: str | None, now: dt.datetime) -> None:
        """Train on the rows up to a moment, and promote the pair if gate and reports have nothing against it."""
        config, pair = self.train(newest, cause)
        # By the clock, as promotions are kept.
        decision = run_gate(config, pair, self.store).decision
        hold = hold_of(config, self.settings, now)
        if decision.acts and not hold:
            self.store.promote(pair.name, pair.version, who="benchmark", why=decision.reason)
            self.promoted.append(cause or "by hand")
        else:
            self.refusals["held: broken data" if hold else decision.outcome] += 1

    def day(self, newest: pd.Timestamp, reports: list[DriftReport]) -> None:
        """Report on a day, and do what the retrain policy says."""
        config, now = self.config, (newest + pd.Timedelta(hours=1)).to_pydatetime()
        pair = self.store.resolve(config.registered_name, PRODUCTION)
        train = read_part(self.settings, NAME, pair.tags["split_version"], TRAIN)
        previous = reports[-1] if reports else None
        known = self.known(newest)
        errors = self.live_error(config, pair, known)
        made = build_report(config, pair.version, train, known, errors, previous=previous, now=now)
        made = DriftReport(**{**vars(made), "created_at": now.isoformat()})
        write_report(made, self.settings)
        reports.append(made)
        facts = tuple(ReportFacts.of(each) for each in reports)
        decision = decide_retrain(
            Inputs(config.name, facts, tuple(self.runs[::-1]), 168.0, pair.version), config.drift, now
        )
        if not decision.asks:
            self.refusals[f"policy: {decision.outcome}"] += 1
            return
        self.judged(newest, ", ".join(decision.causes), now)
        moment = now.isoformat()
        self.runs.append(
            RunFacts(
                f"run-{len(self.runs)}",
                "succeeded",
                moment,
                moment,
                decision.request,
                decision.attempt,
                decision.causes,
                made.pair_version,
                made.data_until,
            )
        )

    def live_error(self, config: ExperimentConfig, pair: PairInfo, known: pd.DataFrame) -> ErrorDrift:
        """Return the error of the production pair in the last week, as the table of forecast errors would have it."""
        since = known[TIMESTAMP].max() - pd.Timedelta(hours=168 + config.lookback + config.horizon)
        recent = known[known[TIMESTAMP] > since].assign(is_context=False)
        forecaster = self.store.load(pair)
        module = shared_samples(create_data_module(config, recent), [forecaster.contract.input_rows])
        scored = score_pair(forecaster, module, recent)
        reference = self.store.client.get_run(pair.run_id).data.metrics[f"{REFERENCE}_mae"]
        return ErrorDrift(scored.truth.size, float(scored.scores["mae"]), reference, config.drift.error_ratio)


def fit(config: ExperimentConfig, train: pd.DataFrame, family: str, params: dict[str, Any]) -> Forecaster:
    """Return a pair that was fitted on training rows as they are."""
    panel = Panel.from_frame(train, config.features.columns)
    manager = TransformManager.for_experiment(config).fit(panel)
    contract = Contract.for_experiment(config, manager)
    spec = ModelSpec(
        task="forecast",
        channels=contract.columns,
        targets=(contract.columns.index(TARGET),),
        lookback=contract.lookback,
        horizon=contract.horizon,
        step_seconds=contract.step_seconds,
    )
    model = create_model(family, params, spec)
    assert isinstance(model, DirectFitModel)
    forecaster = Forecaster(contract, manager, model)
    module = create_data_module(config, train)
    model.fit(forecaster.windows(manager.transform(panel), module.rows), None)
    return forecaster


def live(folder: Path, kind: str, seed: int) -> Life:
    """Live through the clean weeks and those of a kind of change."""
    changed = CLEAN_DAYS * DAY
    fault = FAULTS[kind]
    rows = plant(seed, None if fault else changed)
    if fault is not None:
        fault(rows, rows[TIMESTAMP] >= START + pd.Timedelta(hours=changed))
    settings = installation(folder)
    life = Life(settings, rows, PairStore(settings))
    first = START + pd.Timedelta(hours=changed - 7 * DAY - 1)
    _, pair = life.train(first)
    life.store.promote(pair.name, pair.version, who="benchmark", why="the first")
    reports: list[DriftReport] = []
    for day in range(CHANGED_DAYS):
        life.day(START + pd.Timedelta(hours=changed + (day + 1) * DAY - 1), reports)
    last = rows[TIMESTAMP].max()
    life.judged(last, None, (last + pd.Timedelta(hours=1)).to_pydatetime())
    return life


def installation(folder: Path) -> Settings:
    """Return the settings of an installation that knows the experiment."""
    write_option(folder / "conf", f"experiment/{EXPERIMENT['name']}", EXPERIMENT, header="# @package _global_\n")
    for group, values in OPTIONS.items():
        write_option(folder / "conf", f"{group}/{NAME}", values)
    return Settings.from_env({"MLPLATFORM_HOME": str(folder / "home"), "MLPLATFORM_CONF_DIR": str(folder / "conf")})


def main() -> None:
    """Live the lives of every kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", nargs="*", choices=[*FAULTS, []], default=[])
    parser.add_argument("--lives", type=int, default=20)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="mlplatform-garbage-") as place:
        for kind in asked.kind or FAULTS:
            promoted, causes, refusals = 0, Counter[str](), Counter[str]()
            for seed in range(asked.lives):
                folder = Path(place) / f"{kind} {seed}"
                life = live(folder, kind, seed)
                promoted += bool(life.promoted)
                causes.update("by hand" if each == "by hand" else "for drift" for each in life.promoted)
                refusals += life.refusals
                shutil.rmtree(folder)
            aim = 0 if FAULTS[kind] else asked.lives
            case = f"{kind}: lives of {asked.lives} with a promotion ({words(causes)}; otherwise {words(refusals)})"
            report("garbage", case, promoted, "lives", aim=str(aim), met=promoted == aim)


def words(counted: Counter[str]) -> str:
    """Return counts in words."""
    return ", ".join(f"{count} {name}" for name, count in counted.most_common()) or "none"


if __name__ == "__main__":
    main()
