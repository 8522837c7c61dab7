"""Two versions of an experiment beside each other: scores, configuration, data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mlplatform.config import load_experiment
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from mlplatform.registry.pairs import PairInfo, PairStore
    from mlplatform.registry.runs import TrainingRecord


@dataclass(frozen=True)
class Comparison:
    """Two versions.

    Attributes:
        scores: name -> score of the first and of the second, NaN where one lacks it.
        differences: what is configured, or which data was used, differently: name -> the first's and the second's.
    """

    experiment: str
    first: int
    second: int
    scores: Mapping[str, tuple[float, float]]
    differences: Mapping[str, tuple[Any, Any]]

    def to_frame(self) -> pd.DataFrame:
        """Return the scores as a table, one row each."""
        import pandas as pd

        columns = [f"version {self.first}", f"version {self.second}"]
        return pd.DataFrame.from_dict(dict(self.scores), orient="index", columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(na_rep=""))


def compare(
    experiment: str, first: int | str | None = None, second: int | str = "latest", *, settings: Settings | None = None
) -> Comparison:
    """Return what sets two versions apart.

    Parameters:
        first: a version number, an alias, or `latest` for the newest; default: production, or, where that is the
            second, the one that was in production before, else the next older one.
        second: a version number, an alias, or `latest`, of the other one.

    Raises:
        ConfigError, PairNotFoundError: if there is no such experiment or version.
        RecordError: if the training run of one of them lacks its configuration.
    """
    from mlplatform.registry.pairs import PairStore
    from mlplatform.registry.runs import read_record

    settings = settings or Settings.from_env()
    name = load_experiment(experiment, settings=settings).registered_name
    store = PairStore.of_existing(settings)
    other_pair = store.resolve(name, second)
    pairs = [_first(store, name, other_pair) if first is None else store.resolve(name, first), other_pair]
    one, other = (read_record(store, pair) for pair in pairs)
    settled = {"version", "name"}
    return Comparison(
        experiment=experiment,
        first=pairs[0].version,
        second=pairs[1].version,
        scores=_beside(dict(_shown_scores(one)), dict(_shown_scores(other)), math.nan),
        differences={
            key: values
            for key, values in _beside(dict(_facts(one)), dict(_facts(other)), None).items()
            if values[0] != values[1] and key not in settled
        },
    )


def _first(store: PairStore, name: str, second: PairInfo) -> PairInfo:
    """Return what a version is compared with unless told otherwise; itself if there is no other one."""
    from mlplatform.registry.pairs import PREVIOUS, PRODUCTION

    champion = store.resolve(name, PRODUCTION)
    if champion.version != second.version:
        return champion
    older = [version for version in store.versions(name) if version < second.version]
    return store.find(name, PREVIOUS) or (store.resolve(name, older[0]) if older else champion)


def _beside(one: Mapping[str, Any], other: Mapping[str, Any], absent: Any) -> dict[str, tuple[Any, Any]]:
    return {key: (one.get(key, absent), other.get(key, absent)) for key in dict.fromkeys([*one, *other])}


def _shown_scores(record: TrainingRecord) -> Iterator[tuple[str, float]]:
    """Yield the scores over all folds, on the reference set and on tests, in original units."""
    for key, value in sorted(record.metrics.items()):
        if key.startswith(("cv_", "reference_", "test_")) and not key.endswith("_scaled"):
            yield key, value


def _facts(record: TrainingRecord) -> Iterator[tuple[str, Any]]:
    yield from _leaves(record.config.model_dump(mode="json"))
    for part, digest in sorted(record.sha256.items()):
        yield f"data.{part}.sha256", digest


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested mappings by its dotted path."""
    if isinstance(values, dict) and values:
        for key, inner in values.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, values
