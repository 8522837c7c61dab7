"""Merged boosters answer with the bits of the separate ones, and what cannot be merged stays apart and says so."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import xgboost

from mlplatform.datamodule import Float32
from mlplatform.models import FitOptions, create_model, load_model, save_model
from mlplatform.models.trees import (
    BoostedForecast,
    CannotMergeError,
    answers_of,
    load_boosters,
    merge_boosters,
    save_boosters,
)
from mlplatform_tests.models.test_lag_features import OTHER, TARGET, rich_samples, rich_spec

SIZES_OF_FAMILIES: dict[str, dict[str, Any]] = {
    "xgboost": {"num_boost_round": 20, "max_depth": 3},
    "catboost": {"iterations": 20, "depth": 3},
}
LEVELS = (0.1, 0.5, 0.9)
SIZES = (1, 2, 17, 300)
MISSING = (0.0, 0.2, 1.0)


def features(rows: int, missing: float, seed: int = 0, width: int = 5) -> Float32:
    noise = np.random.default_rng(seed)
    values = noise.normal(size=(rows, width)).astype(np.float32)
    values[noise.random(values.shape) < missing] = np.nan
    return values


def booster(seed: int, rounds: int = 6, width: int = 5, types: Any = None, **params: Any) -> xgboost.Booster:
    noise = np.random.default_rng(seed)
    values = features(400, 0.1, seed, width)
    if types:
        values[:, 0] = noise.integers(0, 4, len(values))
    labels = np.nan_to_num(values[:, seed % width]) + noise.normal(size=len(values)) + 30
    matrix = xgboost.DMatrix(values, labels, feature_types=types, enable_categorical=bool(types))
    return xgboost.train({"max_depth": 4, "nthread": 1, "seed": seed, **params}, matrix, rounds)


def assert_same_bits(boosters: list[xgboost.Booster]) -> None:
    merged = merge_boosters(boosters)
    for rows in SIZES:
        for missing in MISSING:
            values = features(rows, missing, seed=rows)
            assert merged.answers(values).tobytes() == answers_of(boosters, values).tobytes()


def test_boosters_of_different_length_base_score_and_objective_keep_their_bits() -> None:
    quantiles = {"objective": "reg:quantileerror", "quantile_alpha": list(LEVELS)}
    assert_same_bits(
        [
            booster(1, rounds=1),
            booster(2, rounds=30, base_score=0.25),
            booster(3, **quantiles),
            booster(4, rounds=9, num_parallel_tree=3, subsample=0.5),
            booster(5, objective="reg:absoluteerror"),
        ]
    )


def test_boosters_that_stopped_early_are_merged_as_they_were_cut(tmp_path: Path) -> None:
    whole = [booster(seed, rounds=20) for seed in range(3)]
    cut = [one[:best] for one, best in zip(whole, (20, 3, 1), strict=True)]
    save_boosters(cut, tmp_path)
    assert_same_bits(load_boosters(tmp_path))
    values = features(50, 0.1)
    assert not np.array_equal(merge_boosters(cut).answers(values), answers_of(whole, values))


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "dart": ([{}, {"booster": "dart", "rate_drop": 0.5}], "'dart'"),
    "linear": ([{}, {"booster": "gblinear"}], "'gblinear'"),
    "link": ([{}, {"objective": "reg:gamma"}], "'reg:gamma'"),
    "width": ([{}, {"width": 6}], "different features: 6 and 5"),
    "types": ([{}, {"types": ["c", "q", "q", "q", "q"]}], "different feature types"),
    "categories": ([{"types": ["c", "q", "q", "q", "q"]}] * 2, "splits on categories"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_add_up_is_refused(case: str) -> None:
    params, reason = REFUSED[case]
    with pytest.raises(CannotMergeError, match=reason):
        merge_boosters([booster(seed, **each) for seed, each in enumerate(params)])


def stored_model(family: str, folder: Path, strategy: str, quantiles: tuple[float, ...]) -> BoostedForecast:
    spec = replace(rich_spec(), targets=(TARGET, OTHER), quantiles=quantiles)
    params = {**SIZES_OF_FAMILIES[family], "patience": 2, "strategy": strategy, "target_lags": (1, 4)}
    model = create_model(family, params, spec)
    assert isinstance(model, BoostedForecast)
    train, validation = (replace(rich_samples(seed), targets=spec.targets, cache={}) for seed in (0, 1))
    model.fit(train, validation, FitOptions())
    save_model(model, family, folder)
    return model


@pytest.mark.parametrize("family", SIZES_OF_FAMILIES)
@pytest.mark.parametrize(
    ("strategy", "quantiles"),
    [("direct", ()), ("direct", LEVELS), ("direct", (0.5,)), ("horizon_feature", LEVELS), ("recursive", ())],
    ids=str,
)
def test_a_loaded_model_answers_merged_with_the_bits_of_the_fitted_one(
    family: str, strategy: str, quantiles: tuple[float, ...], tmp_path: Path
) -> None:
    fitted = stored_model(family, tmp_path / "model", strategy, quantiles)
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, BoostedForecast)
    assert loaded.inference == f"merged: one answer of {fitted.models} boosters"
    assert fitted.inference.startswith("separate")
    samples = replace(rich_samples(2), targets=fitted.spec.targets, cache={})
    samples.values[5:9, [TARGET, OTHER]] = np.nan
    loaded.confirm_inference(samples)
    assert loaded.merged_ is not None
    for chosen in ([], [0], [3, 8], list(range(len(samples)))):
        some = samples.select(np.array(chosen, dtype=np.int64))
        assert loaded.predict(some).tobytes() == fitted.predict(some).tobytes()
    save_model(loaded, family, tmp_path / "again")
    again = load_model(tmp_path / "again")
    assert again.predict(samples).tobytes() == fitted.predict(samples).tobytes()


@pytest.mark.parametrize("family", SIZES_OF_FAMILIES)
def test_a_merged_form_that_answers_otherwise_is_given_up(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = stored_model(family, tmp_path / "model", "direct", ())
    loaded = load_model(tmp_path / "model")
    assert isinstance(loaded, BoostedForecast)
    # The answers of other boosters: what a library that adds up in another order would be like.
    loaded.parts_.reverse()
    assert loaded.inference.startswith("merged")
    loaded.parts_.reverse()
    samples = replace(rich_samples(2), targets=fitted.spec.targets, cache={})
    with caplog.at_level(logging.WARNING):
        loaded.confirm_inference(samples)
    assert "answer more slowly" in caplog.text
    assert "with other bits" in loaded.inference
    assert loaded.inference.startswith("separate")
    assert loaded.predict(samples).tobytes() == fitted.predict(samples).tobytes()


def test_probes_find_a_merge_that_changes_one_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    boosters = [booster(seed) for seed in range(3)]
    dumps = orjson.dumps

    def with_another_leaf(document: Any) -> bytes:
        tree = document["learner"]["gradient_booster"]["model"]["trees"][-1]
        tree["split_conditions"][tree["left_children"].index(-1)] += 0.5
        return dumps(document)

    monkeypatch.setattr("mlplatform.models.trees.merged.orjson.dumps", with_another_leaf)
    with pytest.raises(CannotMergeError, match="other bits"):
        merge_boosters(boosters)
