"""The model card: what a pair was trained on, how it scored beside its baselines, and with which code.

Everything comes from the MLflow run that trained the pair, so the card says what the run recorded and nothing else.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.config import VERSION_GROUPS
from mlplatform.registry.forecaster import Contract
from mlplatform.settings import PACKAGE_ROOT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MARKDOWN_FILE, JSON_FILE, PLOTS = "model_card.md", "model_card.json", "plots"
# MLflow stores a description in a column of 5,000 characters.
DESCRIPTION_LENGTH = 5000
LIBRARIES = (
    "mlplatform",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "xgboost",
    "torch",
    "optuna",
    "mlflow",
    "dagster",
    "feast",
)
_BASELINE = re.compile(r"baseline_(?P<model>.+?)_(?P<metric>(fold_\d+|cv|reference|test)_.+)")
_DATA_PARAM = re.compile(r"data\.(?P<part>.+)\.(?P<key>rows|start|end)")
_ORDER = ("reference", "test", "cv", "fold")


@dataclass(frozen=True)
class ModelCard:
    """A model card as a document; plots are PNG files of the training run."""

    document: Mapping[str, Any]
    plots: Sequence[Path]

    def write(self, folder: Path) -> None:
        """Write the card as Markdown and as JSON, with its plots, into a new folder."""
        folder.mkdir()
        (folder / JSON_FILE).write_text(json.dumps(self.document, indent=1))
        images = "".join(f"\n![{plot.stem}]({PLOTS}/{plot.name})\n" for plot in self.plots)
        (folder / MARKDOWN_FILE).write_text(self.markdown() + (f"\n## Plots\n{images}" if images else ""))
        for plot in self.plots:
            (folder / PLOTS).mkdir(exist_ok=True)
            shutil.copy(plot, folder / PLOTS / plot.name)

    def description(self) -> str:
        """Return the card as the description of a model version, cut at the end of a line where it is too long."""
        text = self.markdown()
        if len(text) <= DESCRIPTION_LENGTH:
            return text
        note = f"\n\nCut off here; the whole card is among the forecaster's artifacts as card/{MARKDOWN_FILE}.\n"
        return text[: text.rindex("\n", 0, DESCRIPTION_LENGTH - len(note))] + note

    def markdown(self) -> str:
        """Return the card as Markdown, without plots."""
        document = self.document
        contract = document["contract"]
        lines = [
            f"# {document['name']}",
            "",
            f"A {document['family']} model for the task {contract['task']} on {contract['dataset']}, predicting "
            f"{', '.join(contract['targets'])}.",
            "",
            *_table("Identity", ("what", "value"), _identity(document)),
            *_table("Scores", ("metric", *document["scores"]), _score_rows(document["scores"])),
            *_table("Data", ("part", "rows", "from", "to", "SHA-256", "DVC"), _data_rows(document["data"])),
            *_table("Hyperparameters", ("name", "value"), document["params"].items()),
            *_table("Libraries", ("library", "version"), document["libraries"].items()),
        ]
        return "\n".join(lines) + "\n"


def build_card(
    client: MlflowClient,
    name: str,
    pair_id: str,
    family: str,
    contract: Contract,
    run_id: str,
    digests: Mapping[str, str],
    place: Path,
) -> ModelCard:
    """Return the card of a pair that is about to be registered.

    Parameters:
        run_id: MLflow run that trained it.
        digests: of the fitted state, by role.
        place: an existing folder for the run's plots.
    """
    run = client.get_run(run_id)
    document = {
        "name": name,
        "pair_id": pair_id,
        "family": family,
        "mlflow_run": run_id,
        "registered_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": {key: run.data.params.get(key) for key in VERSION_GROUPS},
        "contract": asdict(contract),
        "digests": dict(digests),
        "data": _data(run),
        "scores": _scores(run, family),
        "params": {key.removeprefix("model."): v for key, v in run.data.params.items() if key.startswith("model.")},
        "git_commit": git_commit(),
        "libraries": {"python": platform.python_version(), **_library_versions()},
    }
    return ModelCard(document, _plots(client, run_id, place))


def git_commit() -> str | None:
    """Return the commit this code was checked out from, with `+changes` if files differ; None outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        command = [git, "-C", str(PACKAGE_ROOT), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's checkout.
    if ask("ls-files", "--error-unmatch", "settings.py") is None:
        return None
    commit = ask("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and ask("status", "--porcelain", "--untracked-files=no") else commit


def _scores(run: Run, family: str) -> dict[str, dict[str, float]]:
    """Return metric -> score for the candidate and every baseline."""
    scores: dict[str, dict[str, float]] = {family: {}}
    for name, value in sorted(run.data.metrics.items(), key=lambda item: _rank(item[0])):
        if found := _BASELINE.fullmatch(name):
            scores.setdefault(f"baseline {found['model']}", {})[found["metric"]] = value
        elif name.startswith(tuple(f"{part}_" for part in _ORDER)):
            scores[family][name] = value
    return scores


def _rank(metric: str) -> tuple[int, str]:
    found = _BASELINE.fullmatch(metric)
    name = found["metric"] if found else metric
    return next((place for place, part in enumerate(_ORDER) if name.startswith(part)), len(_ORDER)), metric


def _data(run: Run) -> dict[str, dict[str, str]]:
    data: dict[str, dict[str, str]] = {}
    for key, value in run.data.params.items():
        if found := _DATA_PARAM.fullmatch(key):
            data.setdefault(found["part"], {})[found["key"]] = value
    for part, facts in data.items():
        for key, tag in (("sha256", f"data.{part}.sha256"), ("dvc", f"dvc.{part}")):
            if tag in run.data.tags:
                facts[key] = run.data.tags[tag]
    return data


def _plots(client: MlflowClient, run_id: str, place: Path) -> list[Path]:
    if not any(entry.path == PLOTS for entry in client.list_artifacts(run_id)):
        return []
    return sorted(Path(client.download_artifacts(run_id, PLOTS, str(place))).glob("*.png"))


def _library_versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _identity(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    contract = document["contract"]
    shape = [("lookback", contract["lookback"]), ("horizon", contract["horizon"])]
    return [
        ("pair", document["pair_id"]),
        ("MLflow run", document["mlflow_run"]),
        ("registered at", document["registered_at"]),
        *((key.replace("_", " "), value) for key, value in document["versions"].items()),
        ("git commit", document["git_commit"] or "unknown: not a checkout"),
        ("columns", ", ".join(contract["columns"])),
        *(shape if contract["task"] == "forecast" else ()),
        *((f"{role} SHA-256", digest) for role, digest in document["digests"].items()),
    ]


def _score_rows(scores: Mapping[str, Mapping[str, float]]) -> list[tuple[Any, ...]]:
    metrics = dict.fromkeys(metric for model in scores.values() for metric in model)
    return [(metric, *(_number(model.get(metric)) for model in scores.values())) for metric in metrics]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _data_rows(data: Mapping[str, Mapping[str, str]]) -> list[tuple[Any, ...]]:
    keys = ("rows", "start", "end", "sha256", "dvc")
    return [(part, *(facts.get(key, "") for key in keys)) for part, facts in data.items()]


def _table(title: str, columns: Sequence[str], rows: Any) -> list[str]:
    """Return a section with a table, or nothing without rows."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if not cells:
        return []
    lines = [f"| {' | '.join(row)} |" for row in ([*columns], ["---"] * len(columns), *cells)]
    return [f"## {title}", "", *lines, ""]
