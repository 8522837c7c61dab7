"""Make a stored state: train small experiments as a user does, and pack what that left behind into one archive.

    python -m mlplatform_tests.compatibility.make_state <archive.tar.xz>

Every experiment of `small_experiments` is trained and promoted by its Dagster job. `pump_xgboost` is trained and
promoted twice, so that there is a pair to go back to; the second run of `pump_ridge` is better and a dry run, so that
`staging` is ahead of `production`. Beside the state the archive holds what was read from it then (`expected`), the
repository's `feature_repo` of the time, and the versions of Python and libraries (`made_by.json`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mlplatform_tests.compatibility.small_experiments import EXPERIMENTS, write_conf, write_data

LIBRARIES = (
    "catboost",
    "dagster",
    "dvc",
    "feast",
    "mlflow",
    "numpy",
    "optuna",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torch",
    "xgboost",
)
# What is made again when it is missing, by a look-up, a lock or a log.
LEFT_OUT = ("home/cache", "home/data/splits/.dvc/site", "home/data/splits/.dvc/tmp", "tmp")
LEFT_OUT_ENDINGS = (".lock", ".db-wal", ".db-shm")
DOTS_PER_INCH = 20
# Experiment -> the runtime configuration of each of its training runs, if there is not just one as configured.
RUNS: dict[str, tuple[dict[str, Any], ...]] = {
    "pump_xgboost": ({}, {"overrides": ["model.params.num_boost_round=40"]}),
    "pump_ridge": ({}, {"overrides": ["model.params.alpha=0.01"], "dry_run": True}),
}


def make(root: Path) -> None:
    """Fill an empty folder with an installation in which every experiment was trained and promoted."""
    write_conf(root / "conf")
    write_data(root / "input")
    os.environ.update(environ(root))
    for name in ("MLFLOW_TRACKING_URI", "MLPLATFORM_REDIS_URL", "MLPLATFORM_FEAST_REGISTRY", "MLPLATFORM_DVC_REMOTE"):
        os.environ.pop(name, None)
    for name in EXPERIMENTS:
        for training in RUNS.get(name, ({},)):
            train(name, training)
    (root / "feature_repo").mkdir()
    for name in ("definitions.py", "feature_store.yaml"):
        shutil.copy(Path(__file__).parents[2] / "feature_repo" / name, root / "feature_repo" / name)
    write_expected(root / "expected")
    (root / "made_by.json").write_text(json.dumps({"root": str(root), **versions()}, indent=1))


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of what computes, and the instructions of this processor that the networks run on."""
    import torch

    return {
        "machine": platform.machine(),
        "network kernels": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def environ(root: Path) -> dict[str, str]:
    """Return the environment variables of the installation in a folder."""
    return {
        "MLPLATFORM_HOME": str(root / "home"),
        "MLPLATFORM_CONF_DIR": str(root / "conf"),
        "MLPLATFORM_DATA_DIR": str(root / "input"),
    }


def train(name: str, training: dict[str, Any]) -> None:
    """Run the training job of an experiment: from its CSV file to the alias.

    Parameters:
        training: runtime configuration.
    """
    from dagster import DagsterInstance

    from mlplatform.config import load_experiment
    from mlplatform.definitions import build_defs
    from mlplatform.defs.io_managers import ArtifactIOManager
    from mlplatform.settings import Settings

    settings = Settings.from_env()
    definitions = build_defs(
        experiments=[load_experiment(name, settings=settings)],
        resources={"io_manager": ArtifactIOManager(root=str(settings.assets_dir))},
    )
    with DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_job_def(f"train_{name}")
        run_config = {"resources": {"training": {"config": training}}} if training else {}
        assert job.execute_in_process(run_config=run_config, instance=instance).success


def write_expected(folder: Path) -> None:
    """Write what the state answers now: aliases, answers to examples and reference sets, rows of features."""
    import numpy as np

    from mlplatform.config import load_dataset, load_experiment
    from mlplatform.datamodule.factory import create_data_module
    from mlplatform.datamodule.splits import REFERENCE, read_part
    from mlplatform.features.online.read import read_rows, read_windows
    from mlplatform.features.retrieval import load_history
    from mlplatform.promotion.scoring import answer_part
    from mlplatform.registry.pairs import PREVIOUS, PRODUCTION, STAGING, PairStore
    from mlplatform.registry.tables import answer_table, input_panel
    from mlplatform.settings import Settings

    folder.mkdir()
    settings = Settings.from_env()
    store = PairStore(settings)
    aliases: dict[str, dict[str, int]] = {}
    for name in EXPERIMENTS:
        found = {alias: store.find(name, alias) for alias in (PRODUCTION, STAGING, PREVIOUS)}
        aliases[name] = {alias: pair.version for alias, pair in found.items() if pair is not None}
        config = load_experiment(name, settings=settings)
        frame = read_part(settings, config.dataset.name, config.split.version_id, REFERENCE)
        module = create_data_module(config, frame)
        for pair in {pair.version: pair for pair in found.values() if pair is not None}.values():
            forecaster = store.load(pair)
            panel = input_panel(pair.contract, store.example(pair)[0])
            answers = answer_table(pair.contract, panel, forecaster.answer(panel))
            answers.to_parquet(folder / f"{name}_{pair.version}.parquet", index=False)
            reference = answer_part(forecaster, module, frame)
            arrays = {part: values for part, values in reference._asdict().items() if isinstance(values, np.ndarray)}
            np.savez(folder / f"{name}_{pair.version}_reference.npz", **arrays)
    wanted = {name: {STAGING: 1, PRODUCTION: 1} for name in EXPERIMENTS}
    wanted |= {"pump_xgboost": {STAGING: 2, PRODUCTION: 2, PREVIOUS: 1}, "pump_ridge": {STAGING: 2, PRODUCTION: 1}}
    if aliases != wanted:
        raise RuntimeError(f"the training runs left the aliases {aliases}, expected {wanted}; see the gate's reasons")
    (folder / "aliases.json").write_text(json.dumps(aliases, indent=1))

    pump = load_dataset("pump", settings)
    windows = read_windows(pump, [1, 2], tuple(pump.columns), pump.window_steps, settings)
    rows = read_rows(pump, [1, 2], tuple(pump.columns), settings)
    for name, panel in (("windows", windows), ("rows", rows)):
        columns = {column: np.asarray(values) for column, values in panel.columns.items()}
        texts = {column: values.astype(str) for column, values in columns.items() if values.dtype == object}
        np.savez(folder / f"{name}.npz", timestamps=panel.timestamps, **{**columns, **texts})
    load_history(pump, tuple(pump.columns), settings).to_parquet(folder / "history.parquet", index=False)


def pack(root: Path, archive: Path) -> None:
    """Write the folder into a compressed archive, without what is made again when it is missing."""
    for database in (root / "home").rglob("*.db"):
        if database.read_bytes().startswith(b"SQLite"):
            compact(database)

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name in LEFT_OUT or entry.name.endswith(LEFT_OUT_ENDINGS):
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in sorted(root.iterdir()):
            tar.add(path, path.name, filter=kept)


def compact(database: Path) -> None:
    """Bring everything that was written to a SQLite database into its one file."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log = database.with_name(f"{database.name}-wal")
    if log.exists() and log.stat().st_size:
        raise RuntimeError(f"{database} still has {log.stat().st_size} bytes in its log; something else has it open")


def draw_small() -> None:
    """Draw all plots with few points: they would be four fifths of the archive, and nothing reads them."""
    from matplotlib.figure import Figure

    savefig = Figure.savefig

    def savefig_small(figure: Figure, *arguments: Any, **options: Any) -> None:
        savefig(figure, *arguments, **{**options, "dpi": DOTS_PER_INCH})

    Figure.savefig = savefig_small  # type: ignore[method-assign]


def main() -> int:
    """Make the state in a temporary folder and pack it."""
    if len(sys.argv) != 2:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    archive = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="mlplatform-state-") as folder:
        root = Path(folder).resolve()
        # MLflow records its own places, that of temporary files and the program's; the state shall name its root alone.
        (root / "tmp").mkdir()
        tempfile.tempdir = os.environ["TMPDIR"] = str(root / "tmp")
        os.chdir(root)
        sys.argv[0] = Path(sys.argv[0]).name
        draw_small()
        make(root)
        pack(root, archive)
    sys.stdout.write(f"{archive}: {archive.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
