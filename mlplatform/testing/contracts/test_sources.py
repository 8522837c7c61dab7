"""The contract every data source keeps: rows that validate, the same twice, and none lost where it goes on.

A source brings the smallest data set that it reads in its method `example`. Those of the platform's own that need a
server are tried where the servers are started.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from mlplatform.config import ConfigError, DatasetConfig, Frozen
from mlplatform.data.errors import DataError
from mlplatform.data.raw import ingest
from mlplatform.data.raw_table import read_raw
from mlplatform.data.sources import IncrementalSource, Source, open_source
from mlplatform.data.validation import validate
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings
from mlplatform.testing.frames import read_source

REGISTRY = SOURCES


def brings_example(name: str) -> bool:
    """Return whether a source says what it can be tried on."""
    plugin = SOURCES.get(name)
    classes = plugin.__mro__ if isinstance(plugin, type) else ()
    return any("example" in vars(each) for each in classes if each is not Source)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation with a data folder."""
    (tmp_path / "input").mkdir()
    return Settings.from_env(
        {"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_DATA_DIR": str(tmp_path / "input")}
    )


@pytest.fixture(params=[name for name in SOURCES.names() if brings_example(name) or name in SOURCES.outside()])
def name(request: pytest.FixtureRequest) -> str:
    """Every source that can be tried here."""
    return str(request.param)


@pytest.fixture
def dataset(name: str, settings: Settings) -> DatasetConfig:
    """The smallest data set of a source."""
    assert brings_example(name), f"source {name!r} has no method `example`, which the contract tests try it on"
    plugin = SOURCES.get(name)
    assert isinstance(plugin, type)
    assert issubclass(plugin, Source)
    assert settings.data_dir is not None
    return plugin.example(settings.data_dir)


@pytest.mark.parametrize("name", SOURCES.names())
def test_a_source_declares_strict_options(name: str) -> None:
    plugin = SOURCES.get(name)
    assert isinstance(plugin, type)
    assert issubclass(plugin, Source)
    assert issubclass(plugin.Params, Frozen)
    assert plugin.Params.model_config["extra"] == "forbid"
    assert plugin.operational <= set(plugin.Params.model_fields)


def test_a_source_delivers_rows_that_validate(dataset: DatasetConfig, settings: Settings) -> None:
    frame = read_source(dataset, settings)
    result = validate(frame, dataset)
    assert len(result.rows) > 0
    assert len(result.rows) + len(result.quarantine) == len(frame)


def test_a_source_reads_the_same_twice(dataset: DatasetConfig, settings: Settings) -> None:
    pd.testing.assert_frame_equal(read_source(dataset, settings), read_source(dataset, settings))


def test_the_fingerprint_stays_while_nothing_is_new(dataset: DatasetConfig, settings: Settings) -> None:
    source = open_source(dataset)
    assert source.fingerprint(dataset, settings) == source.fingerprint(dataset, settings)


def test_going_on_at_a_stored_position_delivers_every_row(dataset: DatasetConfig, settings: Settings) -> None:
    source = open_source(dataset)
    if not isinstance(source, IncrementalSource):
        pytest.skip("this source is read whole")
    first, *others = source.read_since(dataset, settings, None)
    stored = json.loads(json.dumps(first.position))
    rest = [batch.frame for batch in source.read_since(dataset, settings, stored)]
    rows = pd.concat([first.frame, *rest], ignore_index=True).drop_duplicates(ignore_index=True)
    whole = pd.concat([first.frame, *(batch.frame for batch in others)], ignore_index=True)
    pd.testing.assert_frame_equal(rows, whole.drop_duplicates(ignore_index=True))
    source.acknowledge(dataset, settings, stored)


def test_ingesting_twice_stores_every_row_once(dataset: DatasetConfig, settings: Settings) -> None:
    ingest(dataset, settings)
    rows = read_raw(dataset, settings)
    assert not rows.duplicated(["entity_id", "event_timestamp"]).any()
    ingest(dataset, settings)
    pd.testing.assert_frame_equal(read_raw(dataset, settings), rows)


def test_a_missing_column_is_named_with_those_found(dataset: DatasetConfig, settings: Settings) -> None:
    present = next(iter(dataset.columns))
    wrong = dataset.model_copy(update={"columns": {**dataset.columns, "nowhere": dataset.columns[present]}})
    with pytest.raises(DataError, match=rf"lacks the data column 'nowhere'; columns found: .*{present}"):
        read_source(wrong, settings)


def test_columns_may_have_other_names_than_in_the_source(dataset: DatasetConfig, settings: Settings) -> None:
    plain = read_source(dataset, settings)
    keys = ("time_column", "entity_column", "removed_column")
    names = [*dataset.columns, *(name for name in (getattr(dataset, key) for key in keys) if name is not None)]
    rename = {name: f"our {name}" for name in names}
    values = dataset.model_dump()
    values |= {key: rename[values[key]] for key in keys if values[key] is not None}
    values["columns"] = {rename[name]: column for name, column in values["columns"].items()}
    values["source"]["rename"] = rename
    renamed = DatasetConfig.model_validate(values)
    pd.testing.assert_frame_equal(read_source(renamed, settings), plain.rename(columns=rename))
    assert open_source(renamed).fingerprint(renamed, settings) == open_source(dataset).fingerprint(dataset, settings)
    ingest(renamed, settings)
    assert list(read_raw(renamed, settings).columns[2:]) == list(renamed.columns)


def test_an_unknown_option_is_named(dataset: DatasetConfig, settings: Settings) -> None:
    source = dataset.source.model_copy(update={"options": {"colour": 1}})
    with pytest.raises(ConfigError, match=r"source\.options.*colour.*allowed: "):
        read_source(dataset.model_copy(update={"source": source}), settings)
