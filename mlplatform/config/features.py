"""A version of the model inputs, and what makes columns fit to be inputs or targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from mlplatform.calendars import FourierTerms, HolidayDays, Holidays, Part, features_text
from mlplatform.config.base import NAME_PATTERN, Frozen, Task


class FourierConfig(Frozen):
    """The first so many harmonics of a season, which is counted in steps; `null` is that of the dataset's frequency."""

    season: float = Field(gt=1)
    terms: int = Field(ge=1)

    @model_validator(mode="after")
    def _can_be_told(self) -> FourierConfig:
        if 2 * self.terms > self.season:
            raise ValueError(
                f"a season of {self.season:g} steps has {int(self.season // 2)} terms at most, but terms is "
                f"{self.terms}"
            )
        return self


class HolidaysConfig(Frozen):
    """Public holidays of a country, or of a subdivision of it, and so many days on either side of them."""

    country: str
    subdivision: str = ""
    before: int = Field(default=0, ge=0, le=14)
    after: int = Field(default=0, ge=0, le=14)

    @model_validator(mode="after")
    def _are_known(self) -> HolidaysConfig:
        HolidayDays(self.country, self.subdivision).check()
        return self


class CalendarConfig(Frozen):
    """What a forecast reads of the calendar, over the lookback and over the horizon, without a column in the data.

    In YAML, `parts: null` stands for those that follow from the dataset's frequency, and `calendar: auto` for these
    alone.
    """

    parts: tuple[Part, ...] = ()
    fourier: tuple[FourierConfig, ...] = ()
    holidays: tuple[HolidaysConfig, ...] = ()

    @field_validator("parts", "fourier", "holidays")
    @classmethod
    def _once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("each may be named once")
        return values

    @model_validator(mode="after")
    def _says_something(self) -> CalendarConfig:
        if not self.text:
            raise ValueError("it names nothing; name parts, fourier or holidays, or leave it out")
        return self

    @property
    def text(self) -> str:
        """As models store it (see `mlplatform.calendars`)."""
        fourier = [FourierTerms(each.season, each.terms) for each in self.fourier]
        return features_text(self.parts, fourier, [Holidays(**each.model_dump()) for each in self.holidays])


class FeaturesConfig(Frozen):
    """A version of the model inputs: which dataset columns, in which order, and what is known about them beforehand.

    In YAML, `columns: null` stands for all columns of the dataset, for tabular tasks without the target. Of a forecast,
    `known_future` names the columns whose values over the horizon are known when it is made (plans, tariffs, weather
    forecasts), and `static` those that are constant per entity; all others are read up to the present only. `calendar`
    says what is read of the time itself; without it, families that read the time have the time of day and of the week.
    """

    version: str = Field(pattern=NAME_PATTERN)
    columns: tuple[str, ...] = Field(min_length=1)
    known_future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    calendar: CalendarConfig | None = None

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
    if features.calendar is not None and task != "forecast":
        yield "features.calendar is set, but is about forecasts; leave it out"
    both = set(features.known_future) & set(features.static)
    if both:
        yield f"features.known_future and features.static both name {', '.join(sorted(both))}; choose one"
