"""Data versions: what comes out the same leaves what follows up to date, and a change reaches what depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dagster import AssetKey, DagsterInstance, Definitions
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from mlplatform.config import load_experiment
from mlplatform.definitions import build_defs
from mlplatform.testing.yard import EXPERIMENT, ROLLBACK, TRAIN, Yard, write_conf
from mlplatform_tests.defs.test_assets import run_config

if TYPE_CHECKING:
    from dagster._core.definitions.data_version import StaleCause

FOLDS = ("fold_0", "fold_1")
NEW_DATA, NEW_CODE = "has a new dependency data version", "has a new code version"


def out_of_date(definitions: Definitions, instance: DagsterInstance) -> dict[str, set[str]]:
    """Return the reasons of every asset that the Dagster page shows as out of date."""
    graph = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    found: dict[str, set[str]] = {}
    for key in graph.materializable_asset_keys:
        causes: list[StaleCause] = []
        for partition in FOLDS if graph.get(key).is_partitioned else (None,):
            causes += resolver.get_stale_causes(key, partition)
        if causes:
            found[key.path[-1]] = {cause.reason for cause in causes}
    return found


def data_version(yard: Yard, owner: str, asset: str) -> str | None:
    event = yard.instance.get_latest_materialization_event(AssetKey([owner, asset]))
    assert event is not None
    assert event.asset_materialization is not None
    return (event.asset_materialization.tags or {}).get("dagster/data_version")


def test_after_a_training_run_everything_is_up_to_date(trained_yard: Yard) -> None:
    assert out_of_date(trained_yard.definitions(), trained_yard.instance) == {}


def test_a_changed_configuration_shows_what_it_changes(trained_yard: Yard) -> None:
    config = load_experiment(EXPERIMENT, ["seed=3", "promotion.margin=0.2"], trained_yard.settings)
    definitions = build_defs(experiments=[config])
    assert out_of_date(definitions, trained_yard.instance) == {
        "tuned_model": {NEW_CODE},
        "production_alias": {NEW_CODE},
    }


@pytest.fixture
def trained(trained_yard: Yard, tmp_path: Path) -> Yard:
    """A copy of the trained installation, for the test to change."""
    return trained_yard.clone_to(tmp_path, has_history=True)


def test_rows_decide_what_follows_them(trained: Yard) -> None:
    before = {
        name: data_version(trained, "yard", name) for name in ("raw", "feature_table", "online_features", "splits")
    }
    # The same rows once more.
    trained.run("ingest_yard")
    assert {name: data_version(trained, "yard", name) for name in before} == before
    assert out_of_date(trained.definitions(), trained.instance) == {}
    # Other rows, up to the feature store.
    write_conf(trained.conf, fleet={"seed": 8})
    trained.run("ingest_yard")
    assert out_of_date(trained.definitions(), trained.instance) == {
        "splits": {NEW_DATA},
        "cv_folds": {NEW_CODE},
        "fold_preprocessor": {NEW_CODE},
        "tuned_model": {NEW_CODE},
        "registered_pair": {NEW_DATA},
    }


def test_the_alias_and_the_pair_have_the_version_of_a_pair(trained: Yard) -> None:
    first = data_version(trained, EXPERIMENT, "production_alias")
    assert first == data_version(trained, EXPERIMENT, "registered_pair")
    assert trained.run(TRAIN, run_config(overrides=["model.params.num_boost_round=60"])).success
    second = data_version(trained, EXPERIMENT, "production_alias")
    assert second == data_version(trained, EXPERIMENT, "registered_pair") != first
    assert trained.run(ROLLBACK).success
    assert data_version(trained, EXPERIMENT, "production_alias") == first
    assert out_of_date(trained.definitions(), trained.instance) == {"serving_reload": {NEW_DATA}}
