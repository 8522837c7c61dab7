"""The parity check: what serving computes equals what training computes, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlplatform.config import ENTITY, DatasetConfig
from mlplatform.datamodule import Panel, TabularSamples, WindowSamples, padded
from mlplatform.features.online import read_rows, read_windows
from mlplatform.features.retrieval import offline_windows
from mlplatform.features.tables import current_removals
from mlplatform.registry import Answers, Contract, Forecaster
from mlplatform.settings import Settings


@dataclass(frozen=True)
class ParityReport:
    """What was compared, and what differed.

    Attributes:
        online_windows: entities whose online window was compared with the offline one.
        cutoffs: (entity, cut-off) pairs whose inputs were compared between the serving and the training path.
        differences: one line per difference; empty is a pass.
    """

    online_windows: int
    cutoffs: int
    differences: tuple[str, ...]


def check_parity(
    forecaster: Forecaster,
    dataset: DatasetConfig,
    history: pd.DataFrame,
    settings: Settings,
    samples: int = 32,
    seed: int = 0,
) -> ParityReport:
    """Compare the serving path with the training path on sampled entities and cut-offs.

    Two comparisons: the online store's window of an entity against the offline window with the same end, and the model
    inputs cut from a short window against those cut from the whole history.

    Parameters:
        history: rows in canonical form, ordered by entity and time.
        samples: number of entities, and of (entity, cut-off) pairs, to compare.
    """
    generator = np.random.default_rng(seed)
    entities = np.asarray(pd.unique(history[ENTITY]))
    # Those that their source has removed have a history, but nothing is served for them.
    entities = entities[~np.isin(entities, current_removals(dataset, settings)[ENTITY].to_numpy(entities.dtype))]
    chosen = generator.choice(entities, min(samples, len(entities)), replace=False)
    if forecaster.contract.task != "forecast":
        differences = _compare_rows(forecaster, dataset, history, chosen, settings) if len(chosen) else []
        return ParityReport(len(chosen), 0, tuple(differences))
    differences = _compare_online(forecaster, dataset, chosen, settings) if len(chosen) else []
    compared, found = _compare_cutoffs(forecaster, history, samples, generator)
    return ParityReport(len(chosen), compared, (*differences, *found))


def _compare_rows(
    forecaster: Forecaster, dataset: DatasetConfig, history: pd.DataFrame, entities: np.ndarray, settings: Settings
) -> list[str]:
    """Compare online rows with the rows of the history they were made from."""
    columns = forecaster.contract.columns
    online = read_rows(dataset, entities.tolist(), columns, settings)
    rows = history.set_index(ENTITY, drop=False).loc[entities]
    offline = Panel.from_frame(rows, columns)
    left, right = forecaster.preprocess(online), forecaster.preprocess(offline)
    assert isinstance(left, TabularSamples)
    assert isinstance(right, TabularSamples)
    wrong = np.flatnonzero(~_same(left.values, right.values).all(axis=1))
    ids = entities.tolist()
    return [f"entity {ids[row]!r}: the online row differs from the offline row" for row in wrong]


def _compare_online(
    forecaster: Forecaster, dataset: DatasetConfig, entities: np.ndarray, settings: Settings
) -> list[str]:
    """Compare online windows with offline windows of the same end."""
    contract = forecaster.contract
    online = read_windows(dataset, entities.tolist(), contract.columns, contract.input_rows, settings)
    (offline,) = offline_windows(dataset, entities.tolist(), ["now"], contract.columns, contract.input_rows, settings)
    if not np.array_equal(online.timestamps, offline.timestamps):
        return ["the online windows end at other times than the feature table; materialise online_features again"]
    ids = entities.tolist()
    differences = []
    for name in contract.columns:
        same = _same(online.columns[name], offline.columns[name]).reshape(len(entities), -1).all(axis=1)
        differences += [
            f"entity {ids[row]!r}: the online window of {name!r} differs from the offline window"
            for row in np.flatnonzero(~same)
        ]
    return differences


def _compare_cutoffs(
    forecaster: Forecaster, history: pd.DataFrame, samples: int, generator: np.random.Generator
) -> tuple[int, list[str]]:
    """Compare inputs cut from short windows (serving) with inputs cut from the whole history (training)."""
    contract = forecaster.contract
    panel = Panel.from_frame(padded(history, contract.calendar, contract.padding), contract.columns)
    ends = np.repeat(panel.offsets[1:], np.diff(panel.offsets))
    rows = np.arange(panel.rows)
    possible = np.flatnonzero((panel.history >= contract.input_rows) & (rows + contract.future_rows < ends))
    if not len(possible):
        return 0, [f"no entity has the {contract.input_rows + contract.future_rows} rows that one window needs"]
    origins = np.sort(generator.choice(possible, min(samples, len(possible)), replace=False))
    offline = forecaster.windows(forecaster.preprocessor.transform(panel), origins)
    expected, answers = _inputs(offline), _stacked(forecaster.postprocess_answers(forecaster.infer_answers(offline)))
    short = _short_windows(panel, origins, contract)
    online = forecaster.preprocess(short)
    assert isinstance(online, WindowSamples)
    found = _inputs(online)
    served = _stacked(forecaster.answer(short))
    ids = panel.row_entities[origins].tolist()
    differences = []
    for row, origin in enumerate(origins):
        where = f"entity {ids[row]!r} at {panel.timestamps[origin]}"
        if not _same(found[row], expected[row]).all():
            differences.append(f"{where}: the serving path's inputs differ from the training path's")
        elif not _same(served[:, row], answers[:, row]).all():
            differences.append(f"{where}: the serving path's forecast differs from the training path's")
    return len(origins), differences


def _inputs(windows: WindowSamples) -> np.ndarray:
    """Return all that a model reads of every window, of shape (samples, values)."""
    parts = (windows.inputs(), windows.future(), windows.static_values())
    return np.hstack([part.reshape(len(windows), -1) for part in parts])


def _stacked(answers: Answers) -> np.ndarray:
    """Return point predictions and, where there are any, the bounds of their intervals, as one array."""
    return np.stack(answers.arrays)


def _short_windows(panel: Panel, origins: np.ndarray, contract: Contract) -> Panel:
    """Return a panel with one entity per origin, holding what a request would: the past, and what is known beyond."""
    length, future = contract.input_rows + contract.future_rows, contract.future_rows
    ahead = np.tile(np.arange(length) >= contract.input_rows, len(origins))
    rows = (origins[:, None] + np.arange(1 - contract.input_rows, 1 + future)[None, :]).ravel()
    columns = {name: values[rows] for name, values in panel.columns.items()}
    for name in columns:
        if name not in contract.known:
            missing: Any = None if columns[name].dtype == object else np.nan
            columns[name][ahead] = missing
    return Panel(
        columns=columns,
        timestamps=panel.timestamps[rows],
        entity_ids=np.arange(len(origins)),
        offsets=np.arange(len(origins) + 1, dtype=np.int64) * length,
    )


def _same(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return where two arrays have the same bits; missing equals missing."""
    if left.dtype == object:
        return np.asarray(left == right)
    return np.asarray((left.view(np.uint32) == right.view(np.uint32)) | (np.isnan(left) & np.isnan(right)))
