"""A version of the model inputs, and what makes columns fit to be inputs or targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import Field

from mlplatform.config.base import NAME_PATTERN, Frozen, Task


class FeaturesConfig(Frozen):
    """A version of the model inputs: which dataset columns, in which order, and what is known about them beforehand.

    In YAML, `columns: null` stands for all columns of the dataset, for tabular tasks without the target. Of a forecast,
    `known_future` names the columns whose values over the horizon are known when it is made (plans, tariffs, weather
    forecasts), and `static` those that are constant per entity; all others are read up to the present only.
    """

    version: str = Field(pattern=NAME_PATTERN)
    columns: tuple[str, ...] = Field(min_length=1)
    known_future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def positions(self, names: Iterable[str]) -> tuple[int, ...]:
        """Return the positions of names in `columns`."""
        return tuple(self.columns.index(name) for name in names)


def column_mistakes(
    features: FeaturesConfig, targets: tuple[str, ...], task: Task, columns: Mapping[str, object], dataset: str
) -> Iterator[str]:
    """Yield what is wrong with the columns that an experiment reads and predicts.

    Parameters:
        columns: of the dataset, by name.
        dataset: its name.
    """
    for key, names in (("features.columns", features.columns), ("targets", targets)):
        for name in dict.fromkeys(names):
            if name not in columns:
                yield (
                    f"{key} names {name!r}, which is not a column of dataset {dataset!r}; allowed: {', '.join(columns)}"
                )
        if len(set(names)) != len(names):
            yield f"{key} names a column twice: {', '.join(names)}"
    for key, names in (("features.known_future", features.known_future), ("features.static", features.static)):
        for name in names:
            if name not in features.columns:
                yield (
                    f"{key} names {name!r}, which is not among features.columns; allowed: {', '.join(features.columns)}"
                )
            elif task != "forecast" or name in targets:
                yield f"{key} names {name!r}; only inputs of a forecast that are not its targets can be that"
    both = set(features.known_future) & set(features.static)
    if both:
        yield f"features.known_future and features.static both name {', '.join(sorted(both))}; choose one"
