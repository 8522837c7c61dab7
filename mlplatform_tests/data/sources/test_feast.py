"""Another Feast repository as a source: its rows, what is new in it, and what is wrong with it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlplatform.config import ConfigError, DatasetConfig, check_source
from mlplatform.data.errors import DataError
from mlplatform.data.sources import IncrementalSource, Position, open_source
from mlplatform.data.validation import validate
from mlplatform.settings import Settings
from mlplatform.testing import read_source
from mlplatform_tests.data.conftest import hourly_dataset

AS_OF = "mlplatform.features.asof.store.AsOfOfflineStore"
START = pd.Timestamp("2024-01-01", tz="UTC")


def frame_of(rows: int, first: int = 0) -> pd.DataFrame:
    """Hourly rows of two pumps, created when they happened."""
    numbers = range(first, first + rows)
    times = [START + pd.Timedelta(hours=number) for number in numbers]
    one = pd.DataFrame({"ts": times, "created": times, "q": [float(number) for number in numbers], "pressure": 1.0})
    return pd.concat([one.assign(pump=number) for number in (1, 2)], ignore_index=True).assign(state="open")


def add(path: Path, frame: pd.DataFrame) -> None:
    (pd.concat([pd.read_parquet(path), frame]) if path.exists() else frame).to_parquet(path)


def make_repository(folder: Path, store: str = "dask") -> Path:
    """A repository with the views `pumps` (one join key), `pairs` (two) and `weather` (none); returns its data file."""
    from mlplatform.feast_import import import_feast

    import_feast()
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float64, String

    folder.mkdir()
    add(folder / "pumps.parquet", frame_of(48))
    (folder / "feature_store.yaml").write_text(
        f"project: other\nprovider: local\nregistry: registry.db\noffline_store: {{type: {store}}}\n"
        "online_store: {type: sqlite, path: online.db}\nentity_key_serialization_version: 3\n"
    )
    source = FileSource(
        path="pumps.parquet", timestamp_field="ts", created_timestamp_column="created", field_mapping={"q": "flow"}
    )
    pump = Entity(name="pump", join_keys=["pump"], value_type=ValueType.INT64)
    site = Entity(name="site", join_keys=["state"], value_type=ValueType.STRING)
    schema = [
        Field(name="flow", dtype=Float64),
        Field(name="pressure", dtype=Float64),
        Field(name="state", dtype=String),
    ]
    views = [
        FeatureView(name="pumps", entities=[pump], schema=schema, source=source),
        FeatureView(name="pairs", entities=[pump, site], schema=schema[:2], source=source),
        FeatureView(name="weather", entities=[], schema=schema, source=source),
    ]
    FeatureStore(repo_path=str(folder)).apply([pump, site, *views])
    return folder / "pumps.parquet"


@pytest.fixture(params=["dask", AS_OF])
def table(request: pytest.FixtureRequest, settings: Settings) -> Path:
    assert settings.data_dir is not None
    return make_repository(settings.data_dir / "repo", request.param)


def dataset_of(uri: str = "feast://repo", entity: str | None = "unit", **options: Any) -> DatasetConfig:
    options = {"feature_view": "pumps"} | options
    return hourly_dataset(source={"uri": uri, "options": options}, entity_column=entity)


def read(
    dataset: DatasetConfig, settings: Settings, position: Position | None = None
) -> tuple[list[pd.DataFrame], Any]:
    source = open_source(dataset)
    assert isinstance(source, IncrementalSource)
    batches = list(source.read_since(dataset, settings, position))
    return [batch.frame for batch in batches], batches[-1].position if batches else None


def test_a_view_is_read_in_slices_of_time(table: Path, settings: Settings) -> None:
    dataset = dataset_of(slice="12h")
    frames, position = read(dataset, settings)
    assert len([frame for frame in frames if len(frame) > 2]) == 4
    assert position == {"event_timestamp": "2024-01-02T23:00:00+00:00"}
    rows = validate(pd.concat(frames).drop_duplicates(), dataset).rows
    assert rows["entity_id"].value_counts().to_dict() == {1: 48, 2: 48}
    assert rows["flow"].tolist() == [float(number) for number in range(48)] * 2
    assert table.is_file()


def test_only_new_rows_are_read_and_late_ones_within_the_overlap(table: Path, settings: Settings) -> None:
    dataset = dataset_of(overlap="3h")
    _, position = read(dataset, settings)
    late = frame_of(1, first=46).assign(created=START + pd.Timedelta(days=9), q=99.0)
    pd.concat([late, pd.read_parquet(table), frame_of(2, first=48)]).to_parquet(table)
    (fresh,), again = read(dataset, settings, position)
    assert fresh["time"].min() == START + pd.Timedelta(hours=44)
    assert again == {"event_timestamp": "2024-01-03T01:00:00+00:00"}
    # Both states of the corrected hour come, the newer one last.
    assert fresh[fresh["time"] == START + pd.Timedelta(hours=46)]["flow"].tolist() == [46.0, 46.0, 99.0, 99.0]


def test_rows_after_now_are_left_for_later(table: Path, settings: Settings) -> None:
    ahead = frame_of(1).assign(ts=pd.Timestamp(dt.datetime.now(dt.UTC) + dt.timedelta(days=2)))
    add(table, ahead)
    _, position = read(dataset_of(), settings)
    assert position == {"event_timestamp": "2024-01-02T23:00:00+00:00"}


@pytest.fixture
def repository(settings: Settings) -> Path:
    assert settings.data_dir is not None
    return make_repository(settings.data_dir / "repo")


def test_a_start_an_absolute_path_and_names_of_the_users_own(repository: Path, settings: Settings) -> None:
    dataset = dataset_of(f"feast://{repository.parent}", start="2024-01-02T12:00", features={"volume": "flow"})
    dataset = dataset.model_copy(update={"columns": hourly_dataset(columns={"volume": {}}).columns})
    frame = read_source(dataset, settings)
    assert list(frame.columns) == ["time", "unit", "volume"]
    assert frame["volume"].min() == 36.0


def test_a_view_without_entities_fits_a_dataset_without(repository: Path, settings: Settings) -> None:
    frame = read_source(dataset_of(entity=None, feature_view="weather"), settings)
    assert list(frame.columns) == ["time", "flow", "pressure", "state"]
    assert repository.is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_view": "valves"}, r"no feature view 'valves'; known: pairs, pumps, weather"),
        ({"feature_view": "pairs"}, r"has 2 join keys \(pump, state\), but .* needs 1"),
        ({"feature_view": "weather"}, r"has 0 join keys \(none\), but .* needs 1"),
        ({"features": {"flow": "nowhere"}}, r"feature view 'pumps' .* lacks the data column 'flow'"),
    ],
)
def test_a_view_that_does_not_fit_is_named(
    options: dict[str, Any], message: str, repository: Path, settings: Settings
) -> None:
    with pytest.raises(DataError, match=message):
        read(dataset_of(**options), settings)
    assert repository.is_file()


def test_a_table_that_is_gone_is_a_clear_error(repository: Path, settings: Settings) -> None:
    repository.unlink()
    with pytest.raises(DataError, match=r"offline store behind 'feast://repo' failed on feature view 'pumps'"):
        read(dataset_of(), settings)


def test_a_folder_that_is_no_repository_says_where_it_looked(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"no feature_store\.yaml in .*input/elsewhere, .*expected feast://"):
        read(dataset_of("feast://elsewhere"), settings)


def test_a_position_of_another_source_is_refused(repository: Path, settings: Settings) -> None:
    with pytest.raises(DataError, match="is not an event time; read the dataset in full"):
        read(dataset_of(), settings, {"offsets": {}})
    assert repository.is_file()


@pytest.mark.parametrize("options", [{"slice": "soon"}, {"overlap": "0h"}])
def test_durations_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="positive time step"):
        check_source(dataset_of(**options))
