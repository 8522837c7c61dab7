"""Train, reference and test rows of a split version: written once, verified ever after.

The reference and test parts of a version are immutable. A later run loads them and verifies their hashes; it never
writes them again, so every model of the version is judged on the same rows. The training part is rebuilt from the
current history within the version's borders.

The border of time series is a time. The border of a table is a number: a row is held out if the stable number of its
identity, under the split's seed, is below `reference_fraction`; where folds hold out groups, that of its group, so that
no group is on both sides. Order, growth, deletions and copies move no row across either, and versions of one policy
that were cut at different moments agree on every row. A row without an entity that is corrected is another row; what a
held-out row became is not trained on either, as far as that can be told.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig, SplitConfig
from mlplatform.datamodule.folds import group_column
from mlplatform.datamodule.history import is_observed, observed_history, planned_columns
from mlplatform.datamodule.identity import (
    MISSING,
    Digests,
    RowIdentity,
    entity_digests,
    series_digests,
    stable_numbers,
)
from mlplatform.datamodule.padding import CONTEXT_COLUMN
from mlplatform.settings import Settings
from mlplatform.storage import atomic_file

MANIFEST = "manifest.json"
# Contents of split versions that this process found to be disjoint, the newest.
_DISJOINT: deque[str] = deque(maxlen=64)
TRAIN, REFERENCE = "train", "reference"


class SplitError(ValueError):
    """A split that cannot be made or does not exist."""


class SplitIntegrityError(RuntimeError):
    """An immutable part of a split is missing or was changed."""


class SplitOverlapError(RuntimeError):
    """A split with the same rows in two of its parts, which a score would be too good on."""


@dataclass(frozen=True)
class SplitPart:
    """One part of a split version.

    Attributes:
        rows: number of rows that can be trained on or scored, context rows not counted.
        start, end: first and last time stamp of those rows, ISO 8601.
        sha256: of the Parquet file.
        entities: number of entities in those rows.
        columns: column -> summary of those rows: `missing` and, for numbers, `min`, `mean`, `max` and `std`, for
            categories `values` with the number of rows of each.
    """

    rows: int
    start: str
    end: str
    sha256: str
    entities: int = 0
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def statistics(self, targets: Sequence[str]) -> dict[str, Any]:
        """Return what a training run records: rows, time span, entities, hash, and a summary of every target."""
        flat = {key: value for key, value in vars(self).items() if key != "columns"}
        for target in targets:
            flat |= {f"{target}.{key}": value for key, value in self.columns.get(target, {}).items()}
        return flat


@dataclass(frozen=True)
class SplitManifest:
    """What a split version consists of.

    Attributes:
        policy: the split configuration that made it, without its cross-validation.
        borders: part -> [first time stamp, time stamp after the last], for time series.
        parts: part -> statistics and hash.
        created_at: when the version was first written, ISO 8601.
        identity: what told the rows of a table apart when it was divided, as `RowIdentity.to_json` gives it; None for
            time series, and for tables that earlier versions of this package divided by row number.
        group_column: the column whose values are whole on one side of a table's border; None where rows are.
        planned: columns that had a value behind the last observed target when the training part was last built.
    """

    dataset: str
    version_id: str
    policy: dict[str, Any]
    borders: dict[str, list[str]]
    parts: dict[str, SplitPart]
    created_at: str
    identity: dict[str, Any] | None = None
    group_column: str | None = None
    planned: tuple[str, ...] = ()


def split_dir(settings: Settings, dataset: str, version_id: str) -> Path:
    """Return the folder of a split version."""
    return settings.splits_dir / dataset / version_id


def write_split(
    dataset: DatasetConfig,
    split: SplitConfig,
    history: pd.DataFrame,
    settings: Settings,
    targets: Sequence[str] = (),
) -> SplitManifest:
    """Write a split version, or verify it and refresh its training part if it exists.

    Parameters:
        history: all rows in canonical form, ordered by entity and time.
        targets: columns that experiments forecast. The history of a time series ends where the last of them was
            observed: rows after that are known of the future, and belong to no part.

    Raises:
        SplitError: if the data is too short, a part that would be frozen is hardly observed, or the version exists with
            another policy.
        SplitIntegrityError: if an immutable part is missing or changed.
    """
    folder = split_dir(settings, dataset.name, split.version_id)
    if split.as_of is not None:
        history = history[history[TIMESTAMP] <= pd.Timestamp(split.as_of)]
    if (folder / MANIFEST).exists():
        return _refresh(dataset, split, history, settings, targets)
    planned = _planned(dataset, history, targets)
    if dataset.kind == "timeseries":
        history = observed_history(history, targets)
        borders = _borders(dataset, split, history)
        frames = {part: _time_part(dataset, split, history, part, borders[part]) for part in borders}
        _refuse_unobserved(dataset, split, frames, targets)
    else:
        borders = {}
        frames = _tabular_parts(dataset, split, history)
    folder.mkdir(parents=True, exist_ok=True)
    parts = {part: _write_part(folder, part, frame) for part, frame in frames.items()}
    manifest = SplitManifest(
        dataset=dataset.name,
        version_id=split.version_id,
        policy=_policy(split),
        borders={part: [stamp.isoformat() for stamp in border] for part, border in borders.items()},
        parts=parts,
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        identity=RowIdentity.of(dataset).to_json() if dataset.kind == "tabular" else None,
        group_column=group_column(split.cv) if dataset.kind == "tabular" else None,
        planned=planned,
    )
    _write_manifest(folder, manifest)
    return manifest


def read_manifest(settings: Settings, dataset: str, version_id: str) -> SplitManifest:
    """Return the manifest of a split version.

    Raises:
        SplitError: if the version was never written.
    """
    path = split_dir(settings, dataset, version_id) / MANIFEST
    if not path.exists():
        raise SplitError(
            f"split version {version_id!r} of {dataset!r} does not exist; materialise {dataset}/splits first"
        )
    document = json.loads(path.read_text())
    parts = {name: SplitPart(**part) for name, part in document.pop("parts").items()}
    planned = tuple(document.pop("planned", ()))
    return SplitManifest(parts=parts, planned=planned, **document)


def read_part(settings: Settings, dataset: str, version_id: str, part: str) -> pd.DataFrame:
    """Return the rows of one part, after verifying its hash.

    Raises:
        SplitError: if the version or the part does not exist.
        SplitIntegrityError: if the file is missing or does not have the recorded hash.
    """
    manifest = read_manifest(settings, dataset, version_id)
    if part not in manifest.parts:
        raise SplitError(
            f"split {version_id!r} of {dataset!r} has no part {part!r}; known: {', '.join(manifest.parts)}"
        )
    path = split_dir(settings, dataset, version_id) / f"{part}.parquet"
    _verify(path, manifest.parts[part].sha256)
    return pd.read_parquet(path)


def check_disjoint(dataset: DatasetConfig, version_id: str, settings: Settings) -> None:
    """Verify by digests that no row stands in two parts of a split version.

    What the parts hold is looked at once per process: the same contents, by their hashes, are disjoint ever after.

    Raises:
        SplitError: if the version was never written.
        SplitIntegrityError: if a part is missing or changed.
        SplitOverlapError: naming the parts, and how many rows they share.
    """
    manifest = read_manifest(settings, dataset.name, version_id)
    content = _content(dataset, manifest)
    if content in _DISJOINT:
        for part, recorded in manifest.parts.items():
            _verify(split_dir(settings, dataset.name, version_id) / f"{part}.parquet", recorded.sha256)
        return
    frames = {part: read_part(settings, dataset.name, version_id, part) for part in manifest.parts}
    digests = part_digests(dataset, manifest, frames)
    parts = list(digests)
    for position, part in enumerate(parts):
        for other in parts[position + 1 :]:
            shared = int(np.isin(digests[other], digests[part]).sum())
            if shared:
                raise SplitOverlapError(
                    f"{shared} of the {len(digests[other])} rows of part {other!r} of split version {version_id!r} of "
                    f"{dataset.name!r} stand in part {part!r}, too, so scores on them would be too good; materialise "
                    f"{dataset.name}/splits again, which builds the training rows anew without them, and train again"
                )
    _DISJOINT.append(content)


def _content(dataset: DatasetConfig, manifest: SplitManifest) -> str:
    """Return the digest of all that decides whether the parts of a version share a row."""
    now = RowIdentity.of(dataset).to_json() if dataset.kind == "tabular" else None
    parts = {name: part.sha256 for name, part in manifest.parts.items()}
    text = json.dumps([dataset.kind, now, manifest.identity, manifest.version_id, parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def part_digests(
    dataset: DatasetConfig, manifest: SplitManifest, frames: Mapping[str, pd.DataFrame]
) -> dict[str, Digests]:
    """Return the digest of every row of every part, context rows not counted; equal digests are the same row."""
    if dataset.kind == "timeseries":
        return {part: series_digests(own_rows(frame)) for part, frame in frames.items()}
    identity = row_identity(dataset, manifest)
    for frame in frames.values():
        identity = identity.within(frame.columns)
    return {part: identity.digests(frame) for part, frame in frames.items()}


def own_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a part that are trained on or scored, without those that only stand before them."""
    return frame[~frame[CONTEXT_COLUMN].astype(bool)] if CONTEXT_COLUMN in frame else frame


def row_identity(dataset: DatasetConfig, manifest: SplitManifest) -> RowIdentity:
    """Return what tells the rows of a table apart.

    Raises:
        SplitError: if the dataset names its entities by another column than when the version was written.
    """
    now = RowIdentity.of(dataset)
    if manifest.identity is None:
        return now
    then = RowIdentity.from_json(manifest.identity)
    if then.entity_column != now.entity_column:
        raise SplitError(
            f"split version {manifest.version_id!r} of {dataset.name!r} tells rows apart by "
            f"{then.entity_column or 'their content'}, but entity_column is {now.entity_column or 'null'} now, so "
            "which rows are held out cannot be told; give the split a new version name, or the dataset its "
            "entity_column back"
        )
    return then


def _planned(dataset: DatasetConfig, history: pd.DataFrame, targets: Sequence[str]) -> tuple[str, ...]:
    return planned_columns(history, targets) if dataset.kind == "timeseries" else ()


def _refresh(
    dataset: DatasetConfig, split: SplitConfig, history: pd.DataFrame, settings: Settings, targets: Sequence[str]
) -> SplitManifest:
    folder = split_dir(settings, dataset.name, split.version_id)
    manifest = read_manifest(settings, dataset.name, split.version_id)
    if manifest.policy != _policy(split):
        changed = sorted(key for key, value in _policy(split).items() if manifest.policy.get(key) != value)
        raise SplitError(
            f"split version {split.version_id!r} of {dataset.name!r} was written with other values of "
            f"{', '.join(changed)}; a version is immutable: give the new policy a new version name"
        )
    for part, recorded in manifest.parts.items():
        if part != TRAIN:
            _verify(folder / f"{part}.parquet", recorded.sha256)
    if dataset.kind == "timeseries":
        first, after = (pd.Timestamp(stamp) for stamp in manifest.borders[TRAIN])
        frame = _time_part(dataset, split, history, TRAIN, (first, after))
    else:
        reference, path = pd.read_parquet(folder / f"{REFERENCE}.parquet"), folder / f"{TRAIN}.parquet"
        before = pd.read_parquet(path) if path.exists() else history.iloc[:0]
        frame = _tabular_training(dataset, split, history, manifest, reference, before)
    train = _write_part(folder, TRAIN, frame)
    planned = _planned(dataset, history, targets)
    if (train, planned) != (manifest.parts[TRAIN], manifest.planned):
        manifest = replace(manifest, parts={**manifest.parts, TRAIN: train}, planned=planned)
        _write_manifest(folder, manifest)
    return manifest


def _policy(split: SplitConfig) -> dict[str, Any]:
    return split.model_dump(mode="json", exclude={"cv", "folds", "membership", "min_observed_share"})


def _borders(
    dataset: DatasetConfig, split: SplitConfig, history: pd.DataFrame
) -> dict[str, tuple[pd.Timestamp, pd.Timestamp]]:
    """Return [first time stamp, time stamp after the last) of every part."""
    if history.empty:
        raise SplitError(f"dataset {dataset.name!r} has no rows up to {split.as_of}; nothing can be split")
    calendar = dataset.calendar
    begin, newest = history[TIMESTAMP].min(), history[TIMESTAMP].max()
    assert split.reference_steps is not None
    sizes = {REFERENCE: split.reference_steps, **{f"test_{name}": n for name, n in split.test_steps.items()}}
    held_out = sum(sizes.values())
    if split.train_steps is not None:
        cursor = calendar.moment(begin, split.train_steps)
    else:
        cursor = calendar.moment(newest, 1 - held_out)
    if cursor <= begin or calendar.moment(cursor, held_out - 1) > newest:
        needed, found = (split.train_steps or 1) + held_out, calendar.count(begin, newest) + 1
        parts = {TRAIN: split.train_steps or "at least 1", **sizes}
        raise SplitError(
            f"split version {split.version_id!r} needs {needed} steps, but dataset {dataset.name!r} has {found} from "
            f"{begin} to {newest}: {needed - found} are missing. Its parts: "
            f"{', '.join(f'{part} {size}' for part, size in parts.items())}; shorten split.reference_steps, "
            "split.test_steps or split.train_steps, or wait for more data"
        )
    borders = {TRAIN: (begin, cursor)}
    for part, size in sizes.items():
        borders[part] = (cursor, calendar.moment(cursor, size))
        cursor = borders[part][1]
    return borders


def _time_part(
    dataset: DatasetConfig,
    split: SplitConfig,
    history: pd.DataFrame,
    part: str,
    border: tuple[pd.Timestamp, pd.Timestamp],
) -> pd.DataFrame:
    """Return the rows of a part; held-out parts start with the context a first window needs."""
    first, after = border
    start = first if part == TRAIN else dataset.calendar.moment(first, -split.context_steps)
    times = history[TIMESTAMP]
    rows = history[(times >= start) & (times < after)]
    return rows.assign(**{CONTEXT_COLUMN: rows[TIMESTAMP] < first})


def _refuse_unobserved(
    dataset: DatasetConfig, split: SplitConfig, frames: Mapping[str, pd.DataFrame], targets: Sequence[str]
) -> None:
    """Refuse parts that would be frozen although hardly anything was observed in them.

    Raises:
        SplitError: naming the part, how much of it was observed, and the times it would have.
    """
    for part, frame in frames.items():
        own = frame[~frame[CONTEXT_COLUMN]].drop(columns=CONTEXT_COLUMN)
        share = float(is_observed(own, targets).mean()) if len(own) else 0.0
        if part != TRAIN and share < split.min_observed_share:
            raise SplitError(
                f"part {part!r} of split version {split.version_id!r} of {dataset.name!r} would be frozen with "
                f"{', '.join(targets) or 'anything'} observed in {share:.1%} of its {len(own)} rows from "
                f"{own[TIMESTAMP].min()} to {own[TIMESTAMP].max()}, and min_observed_share is "
                f"{split.min_observed_share:.0%}; nothing was written. Look for rows at wrong times in the source, cut "
                "the data with as_of, or lower split.min_observed_share"
            )


def _tabular_parts(dataset: DatasetConfig, split: SplitConfig, history: pd.DataFrame) -> dict[str, pd.DataFrame]:
    problem = f"split version {split.version_id!r} cannot be made: "
    if split.membership != "identity":
        raise SplitError(f"{problem}membership {split.membership!r} is for what was stored already; use 'identity'")
    digests = _border_digests(history, RowIdentity.of(dataset), group_column(split.cv))
    held_out = _held_out(split, digests)
    parts = {TRAIN: history[~held_out], REFERENCE: history[held_out]}
    group = group_column(split.cv)
    remedy = (
        f"{len(np.unique(digests))} different {'rows' if group is None else f'values of {group!r}'} at "
        f"reference_fraction {split.reference_fraction}; use another seed, another reference_fraction or more data"
    )
    for part, frame in parts.items():
        if frame.empty:
            raise SplitError(f"{problem}its part {part!r} would have no row of {remedy}")
        if split.stratify_column is None:
            continue
        lacking = sorted(set(_labels(split, history)) - set(_labels(split, frame)))
        if lacking:
            named = f"{split.stratify_column!r} {', '.join(lacking)}"
            raise SplitError(f"{problem}its part {part!r} would have no row with {named} of {remedy}")
    return parts


def _tabular_training(
    dataset: DatasetConfig,
    split: SplitConfig,
    history: pd.DataFrame,
    manifest: SplitManifest,
    reference: pd.DataFrame,
    before: pd.DataFrame,
) -> pd.DataFrame:
    """Return the rows of a history that a version may train on; `before` are those that it trained on.

    Rows that came after the reference set was frozen and are on its side of the border are for neither: versions that
    are cut later hold them out, and a model that trained on them could not be compared on those.
    """
    identity = row_identity(dataset, manifest)
    shared = identity.within(set(history.columns) & set(reference.columns))
    held_out = np.isin(shared.digests(history), shared.digests(reference))
    group = manifest.group_column
    if group is not None and {group} <= set(history.columns) & set(reference.columns):
        held_out |= np.isin(_border_digests(history, shared, group), _border_digests(reference, shared, group))
    # A version divided by row number, or by a column that is gone, keeps its reference set and has no border.
    if manifest.identity is not None and shared == identity:
        held_out |= _held_out(split, _border_digests(history, identity, group))
    if manifest.identity is not None and identity.entity_column is None:
        held_out |= _corrected(shared.within(before.columns), history, reference, before)
    if held_out.all():
        raise SplitError(
            f"none of the {len(history)} rows of dataset {dataset.name!r} is for training: all are held out by split "
            f"version {split.version_id!r}; bring other rows, or give the split a new version name"
        )
    return history[~held_out]


def _corrected(
    identity: RowIdentity, history: pd.DataFrame, reference: pd.DataFrame, before: pd.DataFrame
) -> npt.NDArray[np.bool_]:
    """Return which rows seem to be what a reference row became, of shape (rows of the history,).

    Those are rows that were not there before and differ in one column, or in their time, from a reference row that is
    gone, if no third row is like these two in all the others.
    """
    rows, held, trained = (identity.digests(frame) for frame in (history, reference, before))
    is_new, is_gone = ~np.isin(rows, np.concatenate([held, trained])), ~np.isin(held, rows)
    found = np.zeros(len(history), dtype=bool)
    if not is_new.any() or not is_gone.any():
        return found
    _, firsts = np.unique(np.concatenate([rows, held]), return_index=True)
    for others in identity.but_for_one():
        alike, gone = others.digests(history), others.digests(reference)
        distinct, counts = np.unique(np.concatenate([alike, gone])[firsts], return_counts=True)
        found |= is_new & np.isin(alike, np.intersect1d(distinct[counts == 2], gone[is_gone]))
    return found


def _border_digests(frame: pd.DataFrame, identity: RowIdentity, group: str | None) -> Digests:
    """Return the digests that decide on which side rows are, of shape (rows,): those of groups where there are any.

    A row without a group is one of its own.
    """
    rows = identity.digests(frame)
    if group is None:
        return rows
    groups = entity_digests(frame[group])
    return np.where(groups == MISSING, rows, groups)


def _held_out(split: SplitConfig, digests: Digests) -> npt.NDArray[np.bool_]:
    assert split.reference_fraction is not None
    return stable_numbers(digests, split.seed, "reference") < split.reference_fraction


def _labels(split: SplitConfig, frame: pd.DataFrame) -> list[str]:
    return [str(label) for label in frame[split.stratify_column].dropna().unique()]


def _write_part(folder: Path, part: str, frame: pd.DataFrame) -> SplitPart:
    path = folder / f"{part}.parquet"
    with atomic_file(path) as temporary:
        frame.reset_index(drop=True).to_parquet(temporary, index=False)
        digest = sha256_of(temporary)
    own = own_rows(frame)
    return SplitPart(
        rows=len(own),
        start=own[TIMESTAMP].min().isoformat(),
        end=own[TIMESTAMP].max().isoformat(),
        sha256=digest,
        entities=int(own[ENTITY].nunique()),
        columns={name: _summary(own[name]) for name in own.columns if name not in (ENTITY, TIMESTAMP, CONTEXT_COLUMN)},
    )


def _summary(values: pd.Series[Any]) -> dict[str, Any]:
    present = values.dropna()
    if not pd.api.types.is_numeric_dtype(values):
        counts = {str(value): int(count) for value, count in present.value_counts().sort_index().items()}
        return {"missing": int(values.isna().sum()), "values": counts}
    numbers = present.to_numpy(np.float64)
    summary: dict[str, Any] = {"missing": int(values.isna().sum())}
    # Means over nothing would be NaN, which is not JSON.
    if len(numbers):
        summary |= {name: float(getattr(numbers, name)()) for name in ("min", "mean", "max", "std")}
    return summary


def _write_manifest(folder: Path, manifest: SplitManifest) -> None:
    with atomic_file(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1))


def _verify(path: Path, expected: str) -> None:
    if not path.exists():
        raise SplitIntegrityError(f"{path} is missing; restore it with `dvc checkout` in {path.parent}")
    found = sha256_of(path)
    if found != expected:
        raise SplitIntegrityError(
            f"{path} has SHA-256 {found}, but its manifest records {expected}; the rows were changed after they were "
            f"written. Restore the file with `dvc checkout` in {path.parent}"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
