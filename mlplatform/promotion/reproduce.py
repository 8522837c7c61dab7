"""Reproduction: a registered pair built again from its recorded configuration and data, and compared bit for bit.

Nothing is registered and nothing is recorded; the second pair is thrown away once it was compared.
"""

from __future__ import annotations

import logging
import math
import platform
import tempfile
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import (
    REFERENCE,
    TRAIN,
    Float32,
    VersioningError,
    content,
    create_data_module,
    sha256_of,
    split_dir,
)
from mlplatform.promotion.scoring import answer_part
from mlplatform.registry import Contract, Forecaster, input_panel
from mlplatform.registry.pairs import PairInfo, PairStore, state_digests, write_folders
from mlplatform.registry.runs import TrainingRecord, mlflow_name, read_record
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.candidates import Candidate


SPLIT_FILE = "the split file"


class ReproductionError(RuntimeError):
    """A pair that cannot be built again, because its data cannot be had."""


@dataclass(frozen=True)
class Comparison:
    """One thing that was compared between the registered pair and the one built again.

    Attributes:
        agrees: whether every bit is the same.
        detail: what was compared, or what differs.
    """

    what: str
    agrees: bool
    detail: str


@dataclass(frozen=True)
class Reproduction:
    """What came out of building a pair again.

    Attributes:
        comparisons: predictions, artifacts and recorded scores.
        environment: library -> (version recorded, version now), those that differ.
        code: (commit recorded, commit now).
        data: split part -> where its rows came from.
    """

    version: int
    pair_id: str
    comparisons: tuple[Comparison, ...]
    environment: dict[str, tuple[str, str]]
    code: tuple[str, str]
    data: dict[str, str]

    @property
    def agrees(self) -> bool:
        """Whether everything that was compared has the same bits."""
        return all(comparison.agrees for comparison in self.comparisons)

    @property
    def differences(self) -> list[str]:
        """What is different from when the pair was trained, as far as was recorded: libraries, code, split files."""
        lines = [f"{name} was {then}, is {now}" for name, (then, now) in self.environment.items()]
        if self.code[0] != self.code[1]:
            lines.append(f"the code was at commit {self.code[0]}, is at {self.code[1]}")
        return [*lines, *(f"part {part}: {origin}" for part, origin in self.data.items() if origin != SPLIT_FILE)]


def reproduce_pair(store: PairStore, info: PairInfo, log: logging.Logger | None = None) -> Reproduction:
    """Train a registered pair again as its MLflow run recorded it, and compare.

    Raises:
        PairIntegrityError: if the pair's artifacts are not what was registered.
        RecordError: if its run lacks the configuration.
        ReproductionError: if its rows are neither in the split files nor in DVC.
    """
    store.verify(info)
    record = read_record(store, info)
    frames, origins = _recorded_frames(store.settings, record)
    candidate = _train_again(record.config, frames, log or logging.getLogger(__name__))
    registered = store.load(info)
    contract = Contract.for_experiment(candidate.config, candidate.manager, registered.contract.planned)
    if not registered.contract.limits:
        # Pairs that were registered before contracts kept limits are built again without them.
        contract = replace(contract, limits=())
    rebuilt = Forecaster(contract, candidate.manager, candidate.model)
    card = store.card(info)
    return Reproduction(
        version=info.version,
        pair_id=info.pair_id,
        comparisons=(
            _compare_example(store, info, rebuilt),
            _compare_reference(registered, rebuilt, record.config, frames[REFERENCE]),
            *_compare_artifacts(store, info, rebuilt, record.config.model.family),
            _compare_scores(record, candidate),
        ),
        environment=_changed_libraries(card.get("libraries", {})),
        code=(str(card.get("git_commit")), str(_current_commit())),
        data=origins,
    )


def _recorded_frames(settings: Settings, record: TrainingRecord) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Return the rows of every part as they were, and where they came from."""
    frames, origins = {}, {}
    for part, sha256 in record.sha256.items():
        frames[part], origins[part] = _recorded_part(settings, record, part, sha256)
    return frames, origins


def _recorded_part(settings: Settings, record: TrainingRecord, part: str, sha256: str) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    config = record.config
    path = split_dir(settings, config.dataset.name, config.split.version_id) / f"{part}.parquet"
    if path.exists() and sha256_of(path) == sha256:
        return pd.read_parquet(path), SPLIT_FILE
    # A training part is rebuilt from the current history, so the rows of then may be in DVC only.
    try:
        stored = content(settings, record.dvc.get(part, ""))
    except VersioningError as error:
        raise ReproductionError(
            f"the rows of part {part!r} with SHA-256 {sha256} are not in {path} any more, and {error}"
        ) from error
    if sha256_of(stored) != sha256:
        raise ReproductionError(f"{stored} in the DVC cache was changed: it does not have SHA-256 {sha256}")
    return pd.read_parquet(stored), f"DVC content {record.dvc[part]}, because the split file has other rows by now"


def _train_again(config: ExperimentConfig, frames: dict[str, pd.DataFrame], log: logging.Logger) -> Candidate:
    from mlplatform.candidates import answerable, train_candidate
    from mlplatform.training import fit_preprocessor, prepare_fold

    modules = {part: create_data_module(config, frame) for part, frame in frames.items()}
    train = modules.pop(TRAIN)
    held_out = {part: answerable(part, module, log) for part, module in modules.items()}
    folds = [
        prepare_fold(name, train, fold, fit_preprocessor(train, fold.fit_rows))
        for name, fold in zip(config.split.fold_names, train.folds(), strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        return train_candidate(config, train, folds, held_out, Path(folder, "study.journal"), log)


def _compare_example(store: PairStore, info: PairInfo, rebuilt: Forecaster) -> Comparison:
    rows, answer = store.example(info)
    found = rebuilt.predict(input_panel(rebuilt.contract, rows))
    return _compare("predictions on the stored input example", answer, found)


def _compare_reference(
    registered: Forecaster, rebuilt: Forecaster, config: ExperimentConfig, frame: pd.DataFrame
) -> Comparison:
    module = create_data_module(config, frame).with_history(rebuilt.contract.input_rows)
    answers = (answer_part(pair, module, frame).point for pair in (registered, rebuilt))
    return _compare("predictions on the reference set", *answers)


def _compare(what: str, expected: Float32, found: Float32) -> Comparison:
    if expected.shape != found.shape:
        return Comparison(what, False, f"shape {found.shape} instead of {expected.shape}")
    different = expected.view(np.uint32) != found.view(np.uint32)
    if not different.any():
        return Comparison(what, True, f"{expected.size} values")
    largest = float(np.nanmax(np.abs(expected.astype(np.float64) - found)))
    detail = f"{int(different.sum())} of {expected.size} values differ, by at most {largest:.3g}"
    return Comparison(what, False, detail)


def _compare_artifacts(store: PairStore, info: PairInfo, rebuilt: Forecaster, family: str) -> list[Comparison]:
    with tempfile.TemporaryDirectory() as folder:
        write_folders(Path(folder), rebuilt, family, store.example(info)[0])
        digests = state_digests(Path(folder))
    return [
        Comparison(f"artifacts of the {role}", digests[role] == info.digests[role], f"SHA-256 {digests[role]}")
        for role in ("preprocessor", "model")
    ]


def _compare_scores(record: TrainingRecord, candidate: Candidate) -> Comparison:
    scores = candidate.report.metrics()
    # What is no number is not recorded either.
    found = {
        mlflow_name(name): value for name, value in scores.items() if name != "fit_seconds" and math.isfinite(value)
    }
    # A score that came with a later version was not recorded, and cannot differ.
    recorded = {name: record.metrics[name] for name in found if name in record.metrics}
    wrong = sorted(name for name, value in recorded.items() if found[name] != value)
    detail = f"{', '.join(wrong[:5])} differ" if wrong else f"{len(recorded)} scores"
    return Comparison("recorded scores", bool(recorded) and not wrong, detail)


def _changed_libraries(recorded: dict[str, str]) -> dict[str, tuple[str, str]]:
    changed = {}
    for library, then in recorded.items():
        try:
            now = platform.python_version() if library == "python" else version(library)
        except PackageNotFoundError:
            now = "not installed"
        if now != then:
            changed[library] = (then, now)
    return changed


def _current_commit() -> str | None:
    from mlplatform.registry.pairs import git_commit

    return git_commit()
