"""The plant: three simulated transformers, what becomes of them, and the configuration that the demo runs with."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.settings import PACKAGE_ROOT
from mlplatform.storage import atomic_file

if TYPE_CHECKING:
    import pandas as pd

EXPERIMENT, DATASET = "plant_xgboost", "plant"
ENTITIES = [1, 2, 3]
TARGET = "top_oil_c"
COVERAGE = 0.8
# What the plant lives through, in its own time.
START, TRAINED_UNTIL = dt.date(2024, 1, 1), dt.date(2024, 3, 11)
COOLING_FAILS, SENSOR_STICKS, END = dt.date(2024, 3, 16), dt.date(2024, 4, 6), dt.date(2024, 4, 10)
SEVERITY = 0.5
# The broken sensor says this from then on.
STUCK_COLUMN, STUCK_VALUE = "load_pu", 0.5

COLUMNS: dict[str, dict[str, Any]] = {
    "load_pu": {"min": 0, "max": 5},
    "ambient_c": {"min": -50, "max": 60},
    TARGET: {"min": -50, "max": 300, "unit": "°C"},
    "cooling": {"type": "category", "nullable": False},
}
OPTIONS: dict[str, dict[str, Any]] = {
    f"dataset/{DATASET}": {
        "name": DATASET,
        "kind": "timeseries",
        "source": {"uri": "plant.csv"},
        "time_column": "timestamp",
        "entity_column": "transformer_id",
        "frequency": "1h",
        "window_steps": 72,
        "columns": COLUMNS,
    },
    f"features/{DATASET}": {"version": DATASET, "columns": list(COLUMNS)},
    f"split/{DATASET}": {
        "version": DATASET,
        "reference_steps": 96,
        "context_steps": 72,
        "cv": {"name": "expanding", "params": {"validation_steps": 96}},
        "folds": 2,
    },
    f"model/{DATASET}": {
        "version": DATASET,
        "family": "xgboost",
        "params": {"num_boost_round": 60, "max_depth": 4, "learning_rate": 0.15},
        "search_space": {},
    },
    f"drift/{DATASET}": {
        "recent_steps": 96,
        "cooldown_hours": 0,
        "retrain": {"triggers": ["errors"], "confirm": 2, "reports": 3},
    },
    "alerts/demo": {"channels": {"demo": {"url_env": "MLPLATFORM_ALERT_URLS"}}},
}
GROUPS = ("dataset", "features", "split", "model", "drift")
VALUES: dict[str, Any] = {
    "name": EXPERIMENT,
    "task": "forecast",
    "targets": [TARGET],
    "lookback": 48,
    "horizon": 6,
    "metric": "mae",
    "baselines": [{"name": "repeat_last"}, {"name": "seasonal_naive", "params": {"season": 24}}],
    "uncertainty": {"coverage": COVERAGE},
    # Windows scaled one by one would carry the model through the failure, and there would be little to show.
    "preprocessing": {"scaling": "none"},
    "automation": {"running": ["drift"], "drift_interval_s": 5},
}


@dataclass(frozen=True)
class Plant:
    """A folder of its own with all that the demo leaves.

    Attributes:
        rows: everything that will have happened, by entity and time, sensors that break included.
        truth: the same, as it was.
    """

    folder: Path
    rows: pd.DataFrame
    truth: pd.DataFrame

    @classmethod
    def build(cls, folder: Path) -> Plant:
        """Return a new plant in a folder, in the place of what an earlier demo left there."""
        import pandas as pd

        from mlplatform.data import FleetOptions, simulate_fleet

        shutil.rmtree(folder, ignore_errors=True)
        (folder / "dagster").mkdir(parents=True)
        shared = PACKAGE_ROOT.parent / "dagster.yaml"
        text = shared.read_text() if shared.exists() else "telemetry: {enabled: false}\n"
        (folder / "dagster" / "dagster.yaml").write_text(text)
        for name, values in OPTIONS.items():
            _write(folder / "conf" / f"{name}.yaml", values)
        defaults = [*({f"/{group}": DATASET} for group in GROUPS), "_self_"]
        shipped = [{"/preprocessing": "standard"}, {"/tuning": "none"}, {"/promotion": "default"}]
        experiment = {"defaults": [*shipped, *defaults], **VALUES}
        _write(folder / "conf" / "experiment" / f"{EXPERIMENT}.yaml", experiment, "# @package _global_\n")
        fault = {"kind": "cooling_failure", "start": COOLING_FAILS.isoformat(), "severity": SEVERITY}
        options = {
            "entities": len(ENTITIES),
            "start": START.isoformat(),
            "end": (END + dt.timedelta(days=1)).isoformat(),
            "seed": 11,
            "gap_rate": 0,
            "outlier_rate": 0,
            "faults": [fault],
        }
        truth = simulate_fleet(FleetOptions.model_validate(options)).drop(columns="hot_spot_c")
        rows = truth.copy()
        rows.loc[rows["timestamp"] >= pd.Timestamp(SENSOR_STICKS, tz="UTC"), STUCK_COLUMN] = STUCK_VALUE
        return cls(folder, rows, truth)

    @property
    def home(self) -> Path:
        """The state of the installation."""
        return self.folder / "home"

    def environment(self, others: Mapping[str, str]) -> dict[str, str]:
        """Return the environment variables of the installation; `others` are those of the caller, of which few stay."""
        kept = {
            name: value for name, value in others.items() if not name.startswith(("MLPLATFORM_", "MLFLOW_", "DAGSTER_"))
        }
        return {
            **kept,
            "MLPLATFORM_HOME": str(self.home),
            "MLPLATFORM_CONF_DIR": str(self.folder / "conf"),
            "MLPLATFORM_DATA_DIR": str(self.folder),
            "MLPLATFORM_EXPERIMENT": EXPERIMENT,
            "MLPLATFORM_ALERTS_CONFIG": "demo",
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "PYTHONUNBUFFERED": "1",
        }

    def happened(self, until: dt.datetime) -> None:
        """Let the source hold what happened before a moment, in UTC."""
        import pandas as pd

        seen = self.rows[self.rows["timestamp"] < pd.Timestamp(until)]
        with atomic_file(self.folder / "plant.csv") as temporary:
            seen.to_csv(temporary, index=False)

    def between(self, start: dt.datetime, end: dt.datetime) -> list[dict[str, Any]]:
        """Return the rows of a stretch of time as a client pushes them."""
        import pandas as pd

        times = self.rows["timestamp"]
        part = self.rows[(times >= pd.Timestamp(start)) & (times < pd.Timestamp(end))]
        part = part.assign(timestamp=part["timestamp"].map(pd.Timestamp.isoformat))
        rows: list[dict[str, Any]] = json.loads(part.to_json(orient="records", double_precision=15))
        return rows


def _write(path: Path, values: Mapping[str, Any], header: str = "") -> None:
    """Write an option of a configuration group; JSON is YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + json.dumps(values, indent=1))
