"""A row belongs where it belongs: order, growth, deletions and copies move no row across a border."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlplatform.config import DatasetConfig, ExperimentConfig, SplitConfig, parse_experiment
from mlplatform.datamodule import splits
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.identity import RowIdentity, deal, series_digests, stable_numbers
from mlplatform.datamodule.splits import (
    SplitError,
    SplitIntegrityError,
    SplitManifest,
    SplitOverlapError,
    check_disjoint,
    read_manifest,
    read_part,
    split_dir,
    write_split,
)
from mlplatform.datamodule.training_rows import TrainingRows
from mlplatform.settings import Settings
from mlplatform.testing.experiments import DATASET, pump_frame
from mlplatform.training.cross_validation import fit_preprocessor
from mlplatform.training.leakage import find_leaks

SEEDS = range(6)
ROWS = 400
MOMENT = pd.Timestamp("2000-01-01", tz="UTC")
COLUMNS = {"age": {}, "dose": {}, "site": {"type": "category"}, "ill": {"type": "category"}}
WITHOUT_ENTITIES = DatasetConfig.model_validate(
    {"name": "visits", "kind": "tabular", "source": {"uri": "visits.csv"}, "columns": COLUMNS}
)
WITH_ENTITIES = WITHOUT_ENTITIES.model_copy(update={"entity_column": "visit"})
DATASETS = {"by content": WITHOUT_ENTITIES, "by entity": WITH_ENTITIES}


def visits(rows: int = ROWS) -> pd.DataFrame:
    """Return canonical rows that all differ; `visit` is their name whatever happens to them."""
    noise = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "visit": np.arange(1000, 1000 + rows),
            "age": noise.normal(50, 10, rows).astype(np.float32),
            "dose": np.where(np.arange(rows) % 9, noise.normal(size=rows), np.nan).astype(np.float32),
            "site": noise.choice(np.array(["north", "south", "east", "west"], dtype=object), rows),
            "ill": noise.choice(np.array(["yes", "no"], dtype=object), rows, p=[0.3, 0.7]),
        }
    )


def read_in(dataset: DatasetConfig, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows as the feature table has them: the entity is the row's number if no column names it."""
    ids = np.arange(len(rows)) if dataset.entity_column is None else rows["visit"].to_numpy()
    canonical = rows.assign(entity_id=ids, event_timestamp=MOMENT)
    return canonical.sort_values("entity_id", kind="stable", ignore_index=True)


def exported_otherwise(rows: pd.DataFrame, seed: int) -> dict[str, pd.DataFrame]:
    """Return what may become of an exported file."""
    noise = np.random.default_rng(seed)
    new = visits(ROWS + 60).iloc[ROWS:]
    kept = rows[noise.random(len(rows)) > 0.2]
    copies = rows.iloc[noise.integers(0, len(rows), 80)]
    return {
        "the opposite order": rows[::-1],
        "any order": rows.sample(frac=1, random_state=seed),
        "a row inserted at the top": pd.concat([new.iloc[:1], rows]),
        "grown": pd.concat([new, rows]).sample(frac=1, random_state=seed),
        "a row deleted at the top": rows.iloc[1:],
        "shrunk": kept,
        "copies": pd.concat([copies, rows]).sample(frac=1, random_state=seed),
        "all of it": pd.concat([copies, kept, new]).sample(frac=1, random_state=seed),
    }


CHANGES = list(exported_otherwise(visits(), 0))


def policy(seed: int = 0, **changes: Any) -> SplitConfig:
    values = {"version": "v1", "reference_fraction": 0.25, "seed": seed, "cv": {"name": "kfold"}, "folds": 4}
    return SplitConfig.model_validate(values | changes)


def installation(folder: Path) -> Settings:
    return Settings.from_env({"MLPLATFORM_HOME": str(folder)})


def parts_of(settings: Settings, version: str = "v1") -> tuple[set[int], set[int]]:
    train, reference = (read_part(settings, "visits", version, part) for part in ("train", "reference"))
    return set(train["visit"]), set(reference["visit"])


class TestParts:
    @pytest.mark.parametrize("kind", DATASETS)
    def test_a_group_is_on_one_side_of_the_border_for_ever(self, kind: str, tmp_path: Path) -> None:
        dataset = DATASETS[kind]
        rows = visits()
        rows["site"] = (rows["visit"] % 40).map("site {}".format).astype(object)
        rows.loc[3, "site"] = None
        by_site = policy(cv={"name": "group_kfold", "params": {"column": "site"}})
        settings = installation(tmp_path)
        write_split(dataset, by_site, read_in(dataset, rows), settings)
        new = visits(ROWS + 80).iloc[ROWS:]
        new["site"] = (new["visit"] % 50).map("site {}".format).astype(object)
        for history in (rows, rows[::-1], pd.concat([new, rows])):
            write_split(dataset, by_site, read_in(dataset, history), settings)
            train, reference = (read_part(settings, "visits", "v1", part) for part in ("train", "reference"))
            assert not set(train["site"].dropna()) & set(reference["site"].dropna())
            assert len(train)
            assert 0.1 < len(reference) / len(rows) < 0.4

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.parametrize("kind", DATASETS)
    def test_no_row_crosses_the_border(self, kind: str, change: str, tmp_path: Path) -> None:
        dataset = DATASETS[kind]
        for seed in SEEDS[:2]:
            rows = visits()
            changed = exported_otherwise(rows, seed)[change]
            if dataset.entity_column is not None:
                changed = changed.drop_duplicates("visit")
            here, elsewhere = installation(tmp_path / f"{seed}"), installation(tmp_path / f"{seed}b")
            write_split(dataset, policy(seed), read_in(dataset, rows), here)
            train, reference = parts_of(here)
            assert train | reference == set(rows["visit"])
            write_split(dataset, policy(seed), read_in(dataset, changed), here)
            refreshed, frozen = parts_of(here)
            assert frozen == reference
            assert not refreshed & reference
            # Not a row was lost to training but those that are gone.
            assert refreshed & set(rows["visit"]) == train & set(changed["visit"])
            check_disjoint(dataset, "v1", here)
            # A version that never saw the first file puts every row where this one puts it.
            write_split(dataset, policy(seed), read_in(dataset, changed), elsewhere)
            own_train, own_reference = parts_of(elsewhere)
            assert own_train == refreshed
            assert own_reference & set(rows["visit"]) == reference & set(changed["visit"])

    def test_copies_count_as_one_row(self, tmp_path: Path) -> None:
        rows = pd.concat([visits(50)] * 8)
        settings = installation(tmp_path)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, rows), settings)
        train, reference = parts_of(settings)
        assert not train & reference
        assert train | reference == set(rows["visit"])

    def test_a_column_that_came_later_moves_no_row(self, tmp_path: Path) -> None:
        settings = installation(tmp_path)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        train, reference = parts_of(settings)
        columns = {**WITHOUT_ENTITIES.model_dump()["columns"], "weight": {}}
        wider = DatasetConfig.model_validate({**WITHOUT_ENTITIES.model_dump(), "columns": columns})
        write_split(wider, policy(), read_in(wider, visits().assign(weight=np.float32(70))), settings)
        assert parts_of(settings) == (train, reference)
        check_disjoint(wider, "v1", settings)

    def test_a_column_that_is_gone_puts_no_reference_row_into_training(self, tmp_path: Path) -> None:
        settings = installation(tmp_path)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        _, reference = parts_of(settings)
        columns = {name: column for name, column in WITHOUT_ENTITIES.columns.items() if name != "dose"}
        narrow = WITHOUT_ENTITIES.model_copy(update={"columns": columns})
        write_split(narrow, policy(), read_in(narrow, visits()[::-1].drop(columns="dose")), settings)
        assert parts_of(settings)[0] == set(visits()["visit"]) - reference
        check_disjoint(narrow, "v1", settings)

    @pytest.mark.parametrize("column", COLUMNS)
    def test_what_a_reference_row_became_is_not_trained_on(self, column: str, tmp_path: Path) -> None:
        settings, rows = installation(tmp_path), visits()
        # With fewer numbers several rows are alike in all other columns, and which of them it was cannot be told.
        rows["dose"] = rows["dose"].fillna(rows["age"] / 100)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, rows), settings)
        train, reference = parts_of(settings)
        held_out = rows["visit"].isin(reference)
        corrected = rows.copy()
        other = {"site": "elsewhere", "ill": "perhaps"}.get(column, np.float32(99))
        corrected.loc[held_out | (rows["visit"] < 1050), column] = other
        # However often the split is brought up to date, and beside new rows, which are trained on.
        new = visits(ROWS + 60).iloc[ROWS:]
        for history in (corrected[::-1], pd.concat([new, corrected]), corrected):
            write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, history), settings)
            trained, frozen = parts_of(settings)
            assert frozen == reference
            assert not trained & reference
            # Corrected training rows are other rows, some of which are on the other side.
            assert train - set(range(1050)) <= trained
            assert (len(trained & set(new["visit"])) > 30) is (len(history) > ROWS)

    def test_without_the_rows_trained_on_before_nothing_fails(self, tmp_path: Path) -> None:
        settings = installation(tmp_path)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        parts = parts_of(settings)
        (split_dir(settings, "visits", "v1") / "train.parquet").unlink()
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        assert parts_of(settings) == parts

    def test_another_kind_of_identity_under_the_same_version_is_refused(self, tmp_path: Path) -> None:
        settings = installation(tmp_path)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        with pytest.raises(SplitError, match=r"'v1' .* by their content, but entity_column is visit now.*new version"):
            write_split(WITH_ENTITIES, policy(), read_in(WITH_ENTITIES, visits()), settings)

    def test_a_training_part_of_reference_rows_alone_is_refused(self, tmp_path: Path) -> None:
        settings = installation(tmp_path)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        reference = read_part(settings, "visits", "v1", "reference")
        with pytest.raises(SplitError, match=r"none of the \d+ rows of dataset 'visits' is for training"):
            write_split(WITHOUT_ENTITIES, policy(), reference, settings)


class TestVersionsOfBefore:
    """Split versions whose table was divided by row number keep their reference set."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        """A version as it was written then: every fourth row held out, nothing said about identity."""
        settings = installation(tmp_path)
        frame = read_in(WITHOUT_ENTITIES, visits())
        write_split(WITHOUT_ENTITIES, policy(), frame, settings)
        held_out = frame["entity_id"] % 4 == 0
        self.rewrite(settings, {"train": frame[~held_out], "reference": frame[held_out]})
        return settings

    def rewrite(self, settings: Settings, frames: dict[str, pd.DataFrame]) -> None:
        from mlplatform.datamodule.splits import sha256_of

        folder = split_dir(settings, "visits", "v1")
        document = json.loads((folder / "manifest.json").read_text())
        document.pop("identity", None)
        for part, frame in frames.items():
            frame.reset_index(drop=True).to_parquet(folder / f"{part}.parquet", index=False)
            document["parts"][part] |= {"sha256": sha256_of(folder / f"{part}.parquet"), "rows": len(frame)}
        (folder / "manifest.json").write_text(json.dumps(document))

    def test_unchanged_rows_stay_where_they_are(self, settings: Settings) -> None:
        before = parts_of(settings)
        manifest = write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        assert parts_of(settings) == before
        assert manifest.identity is None

    @pytest.mark.parametrize("change", CHANGES)
    def test_no_reference_row_reaches_training(self, settings: Settings, change: str) -> None:
        _, reference = parts_of(settings)
        changed = exported_otherwise(visits(), 1)[change]
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, changed), settings)
        assert parts_of(settings) == (set(changed["visit"]) - reference, reference)
        check_disjoint(WITHOUT_ENTITIES, "v1", settings)

    def test_a_training_part_that_leaks_is_refused_before_anything_is_fitted(self, settings: Settings) -> None:
        reference = read_part(settings, "visits", "v1", "reference")
        leaky = pd.concat([read_part(settings, "visits", "v1", "train"), reference.iloc[:78]])
        self.rewrite(settings, {"train": leaky.assign(entity_id=np.arange(len(leaky)))})
        message = r"78 of the 100 rows of part 'reference' of split version 'v1' .*materialise visits/splits again"
        with pytest.raises(SplitOverlapError, match=message):
            check_disjoint(WITHOUT_ENTITIES, "v1", settings)
        write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        check_disjoint(WITHOUT_ENTITIES, "v1", settings)


def test_parts_of_a_series_are_apart_but_for_their_context(tmp_path: Path) -> None:
    values = {
        "version": "v1",
        "reference_steps": 24,
        "test_steps": {"late": 12},
        "context_steps": 16,
        "cv": {"name": "expanding", "params": {"validation_steps": 24}},
        "folds": 2,
    }
    pump, settings = DatasetConfig.model_validate(DATASET), installation(tmp_path)
    write_split(pump, SplitConfig.model_validate(values), pump_frame(), settings)
    check_disjoint(pump, "v1", settings)
    assert read_manifest(settings, "pump", "v1").identity is None


def test_the_same_parts_are_compared_once_and_verified_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    real = splits.part_digests
    monkeypatch.setattr(splits, "part_digests", lambda *given: compared.append(given) or real(*given))
    monkeypatch.setattr(splits, "_DISJOINT", deque(maxlen=4))
    settings, frame = installation(tmp_path), read_in(WITHOUT_ENTITIES, visits())
    write_split(WITHOUT_ENTITIES, policy(), frame, settings)
    for _ in range(3):
        check_disjoint(WITHOUT_ENTITIES, "v1", settings)
    assert len(compared) == 1
    # Other rows are other parts.
    write_split(WITHOUT_ENTITIES, policy(), frame.iloc[:-7], settings)
    check_disjoint(WITHOUT_ENTITIES, "v1", settings)
    assert len(compared) == 2
    path = split_dir(settings, "visits", "v1") / "train.parquet"
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(SplitIntegrityError, match=r"train\.parquet"):
        check_disjoint(WITHOUT_ENTITIES, "v1", settings)


class TestTrainingRows:
    """What a pair's lineage keeps of its training rows."""

    @pytest.mark.parametrize("kind", DATASETS)
    def test_rows_of_a_table_are_found_among_those_of_another_version(self, kind: str, tmp_path: Path) -> None:
        dataset, settings = DATASETS[kind], installation(tmp_path)
        for version, seed in (("v1", 0), ("v2", 1)):
            write_split(dataset, policy(seed, version=version), read_in(dataset, visits()), settings)
        frame = read_part(settings, "visits", "v1", "train")
        TrainingRows.of(dataset, read_manifest(settings, "visits", "v1"), frame).save(tmp_path / "rows.parquet")
        rows = TrainingRows.load(tmp_path / "rows.parquet")
        assert rows.shared(read_part(settings, "visits", "v1", "reference")) == 0
        other = parts_of(settings, "v2")[1] & parts_of(settings)[0]
        assert rows.shared(read_part(settings, "visits", "v2", "reference")) == len(other) > 50
        assert (tmp_path / "rows.parquet").stat().st_size < 8 * len(frame) + 4000

    def test_rows_told_apart_by_columns_that_are_gone_cannot_be_compared(self, tmp_path: Path) -> None:
        settings = installation(tmp_path)
        manifest = write_split(WITHOUT_ENTITIES, policy(), read_in(WITHOUT_ENTITIES, visits()), settings)
        rows = TrainingRows.of(WITHOUT_ENTITIES, manifest, read_part(settings, "visits", "v1", "train"))
        assert rows.shared(read_part(settings, "visits", "v1", "reference").drop(columns="dose")) is None

    def test_rows_of_series_are_stretches_of_time_per_entity(self, tmp_path: Path) -> None:
        pump, settings = DatasetConfig.model_validate(DATASET), installation(tmp_path)
        frame = pump_frame()
        kept = frame[(frame["entity_id"] == 1) | (frame.index % 150 < 20)]
        manifest = SplitManifest("pump", "v1", {}, {}, {}, "")
        TrainingRows.of(pump, manifest, kept).save(tmp_path / "rows.parquet")
        rows = TrainingRows.load(tmp_path / "rows.parquet")
        assert rows.shared(frame) == 150 + 20
        assert rows.shared(frame[frame["entity_id"] == 2].assign(entity_id=3)) == 0
        # Rows that only stand before a part are not judged on.
        assert rows.shared(frame.assign(is_context=frame["entity_id"] == 1)) == 20
        assert not settings.splits_dir.exists()

    def test_an_earlier_run_says_from_when_to_when(self) -> None:
        frame = pump_frame()
        rows = TrainingRows.between("2024-01-01T00:00:00+00:00", "2024-01-01T09:00:00+00:00")
        assert rows.shared(frame) == 20


class TestDigests:
    def test_precision_form_and_zero_make_no_other_row(self) -> None:
        identity = RowIdentity.of(WITHOUT_ENTITIES)
        rows = read_in(WITHOUT_ENTITIES, visits(20)).assign(dose=np.float32(0), site="7")
        other = rows.assign(age=rows["age"].astype(np.float64), dose=-0.0, site=7)
        np.testing.assert_array_equal(identity.digests(rows), identity.digests(other))
        assert len(np.unique(identity.digests(rows))) == 20

    def test_missing_is_a_value_of_its_own(self) -> None:
        identity = RowIdentity.of(WITHOUT_ENTITIES)
        row = read_in(WITHOUT_ENTITIES, visits(1)).assign(dose=np.float32(0))
        forms = [row, row.assign(dose=np.nan), row.assign(site=None), row.assign(site="0"), row.assign(ill=None)]
        assert len({int(identity.digests(form)[0]) for form in forms}) == 5
        np.testing.assert_array_equal(identity.digests(row.assign(site=None)), identity.digests(row.assign(site="")))

    def test_exchanged_columns_are_another_row(self) -> None:
        identity = RowIdentity.of(WITHOUT_ENTITIES)
        row = read_in(WITHOUT_ENTITIES, visits(2))
        assert not np.isin(identity.digests(row.assign(age=row["dose"], dose=row["age"])), identity.digests(row)).any()

    def test_entities_are_the_same_as_numbers_and_as_text_and_007_is_not_7(self) -> None:
        identity = RowIdentity.of(WITH_ENTITIES)
        forms = [[7, 8], ["7", "8"], [7.0, 8.0], ["007", "8"]]
        first, *others = (identity.digests(pd.DataFrame({"entity_id": form})).tolist() for form in forms)
        assert others[:2] == [first, first]
        assert others[2] != first

    def test_every_row_of_a_series_has_its_own(self) -> None:
        frame = pump_frame()
        assert len(np.unique(series_digests(frame))) == len(frame)

    def test_stable_numbers_are_pinned(self) -> None:
        """Stored versions rest on them: another value would move rows across the border."""
        identity = RowIdentity.of(WITHOUT_ENTITIES)
        row = pd.DataFrame({"age": np.float32([1.5]), "dose": np.float32("nan"), "site": "north", "ill": "no"})
        digests = identity.digests(row.assign(entity_id=0, event_timestamp=MOMENT))
        assert digests.tolist() == [12128092909953191238]
        assert stable_numbers(digests, 7, "reference").tolist() == [0.49108582596607997]

    def test_seeds_and_purposes_give_independent_uniform_numbers(self) -> None:
        digests = np.arange(20_000, dtype=np.uint64)
        first, other, folds = (stable_numbers(digests, *each) for each in ((0, "a"), (1, "a"), (0, "b")))
        assert first.mean() == pytest.approx(0.5, abs=0.01)
        assert np.corrcoef([first, other, folds])[np.triu_indices(3, 1)] == pytest.approx(np.zeros(3), abs=0.03)


def table_experiment(cv: str, seed: int, dataset: DatasetConfig = WITHOUT_ENTITIES, **params: Any) -> ExperimentConfig:
    return parse_experiment(
        {
            "name": "sick",
            "task": "classification",
            "targets": ["ill"],
            "metric": "log_loss",
            "dataset": dataset.model_dump(),
            "features": {"version": "f1", "columns": ["age", "dose"]},
            "split": policy(seed, cv={"name": cv, "params": params}).model_dump(),
            "model": {"version": "m1", "family": "dummy"},
            "preprocessing": {"steps": []},
            "tuning": {"trials": 1},
            "baselines": [{"name": "dummy"}],
            "promotion": {},
            "drift": {},
        }
    )


SCHEMES: dict[str, dict[str, Any]] = {
    "kfold": {},
    "stratified_kfold": {},
    "group_kfold": {},
    "stratified_group_kfold": {},
}


def validated_in(module: DataModule, frame: pd.DataFrame, cut: Callable[[DataModule], Any]) -> dict[int, set[int]]:
    """Return visit -> numbers of the folds that validate it."""
    found: dict[int, set[int]] = {}
    for number, fold in enumerate(cut(module)):
        assert not set(frame["visit"].iloc[fold.train]) & set(frame["visit"].iloc[fold.validation])
        for visit in frame["visit"].iloc[fold.validation]:
            found.setdefault(int(visit), set()).add(number)
    return found


class TestFolds:
    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize("change", ["the opposite order", "any order", "copies"])
    def test_order_and_copies_change_no_fold(self, scheme: str, change: str) -> None:
        for seed in SEEDS:
            config = table_experiment(scheme, seed)
            first = read_in(WITHOUT_ENTITIES, visits())
            other = read_in(WITHOUT_ENTITIES, exported_otherwise(visits(), seed)[change])
            before = validated_in(create_data_module(config, first), first, DataModule.folds)
            after = validated_in(create_data_module(config, other), other, DataModule.folds)
            assert all(len(folds) == 1 for folds in after.values())
            # Groups are balanced by their samples, so copies may change which fold a group is in.
            if change != "copies" or scheme in ("kfold", "stratified_kfold"):
                assert after == before

    @pytest.mark.parametrize("scheme", ["kfold", "stratified_kfold"])
    def test_growth_and_deletion_move_few_rows_to_another_fold(self, scheme: str) -> None:
        for seed in SEEDS:
            config = table_experiment(scheme, seed)
            first = read_in(WITHOUT_ENTITIES, visits())
            before = validated_in(create_data_module(config, first), first, DataModule.folds)
            for change in ("a row inserted at the top", "a row deleted at the top"):
                other = read_in(WITHOUT_ENTITIES, exported_otherwise(visits(), seed)[change])
                after = validated_in(create_data_module(config, other), other, DataModule.folds)
                # One across each of the three borders between four folds.
                assert sum(after.get(visit, folds) != folds for visit, folds in before.items()) <= 3

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_outer_and_inner_folds_of_nested_cross_validation_have_no_copy_on_both_sides(self, scheme: str) -> None:
        from mlplatform.candidates.nested_cv import outer_folds, outer_training

        for seed in SEEDS:
            config = table_experiment(scheme, seed)
            config = config.model_copy(update={"nested": config.nested.model_copy(update={"outer_folds": 3})})
            frame = read_in(WITHOUT_ENTITIES, exported_otherwise(visits(), seed)["copies"])
            module = create_data_module(config, frame)
            validated_in(module, frame, outer_folds)
            for fold in outer_folds(module):
                inner = outer_training(module, fold)
                inside = frame[module.row_mask(fold.fit_rows)].reset_index(drop=True)
                assert all(len(folds) == 1 for folds in validated_in(inner, inside, DataModule.folds).values())

    def test_folds_are_of_equal_size_and_keep_the_class_shares(self) -> None:
        frame = read_in(WITHOUT_ENTITIES, visits())
        for seed in SEEDS:
            sizes = [len(f.validation) for f in create_data_module(table_experiment("kfold", seed), frame).folds()]
            assert sizes == [100, 100, 100, 100]
            ill = frame["ill"].eq("yes").to_numpy()
            folds = create_data_module(table_experiment("stratified_kfold", seed), frame).folds()
            assert all(abs(ill[fold.validation].sum() - ill.sum() / 4) < 1 for fold in folds)

    def test_seeds_cut_other_folds(self) -> None:
        digests = np.arange(40, dtype=np.uint64)
        assert (deal(digests, 4, 0) != deal(digests, 4, 1)).any()

    def test_training_runs_of_before_are_repeated_with_their_own_folds(self) -> None:
        from sklearn.model_selection import KFold

        config = table_experiment("kfold", 3)
        split = config.split.model_copy(update={"membership": "position"})
        module = create_data_module(config.model_copy(update={"split": split}), read_in(WITHOUT_ENTITIES, visits()))
        expected = KFold(4, shuffle=True, random_state=3).split(np.arange(ROWS))
        for fold, (train, validation) in zip(module.folds(), expected, strict=True):
            np.testing.assert_array_equal(fold.train, train)
            np.testing.assert_array_equal(fold.validation, validation)

    def test_copies_count_as_one_where_there_are_too_few(self) -> None:
        frame = read_in(WITHOUT_ENTITIES, pd.concat([visits(3)] * 9))
        with pytest.raises(ValueError, match="4 folds of 3 samples are impossible"):
            create_data_module(table_experiment("kfold", 0), frame).folds()

    def test_a_copy_on_both_sides_is_a_leak(self) -> None:
        frame = read_in(WITHOUT_ENTITIES, pd.concat([visits(), visits().iloc[:5]]))
        module = create_data_module(table_experiment("kfold", 0), frame)
        fold = module.folds()[0]
        assert find_leaks(module, fold, fit_preprocessor(module, fold.fit_rows)) == []
        copies = np.arange(ROWS, ROWS + 5)
        train, validation = np.setdiff1d(np.arange(ROWS + 5), np.arange(5)), np.arange(5)
        mixed = replace(fold, fit_rows=train, train=train, validation=validation)
        assert set(copies) <= set(mixed.train)
        leaks = find_leaks(module, mixed, fit_preprocessor(module, mixed.fit_rows))
        assert "5 validation rows are copies of rows that were trained on" in leaks
