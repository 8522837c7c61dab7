"""A dataset: its source, its columns, and for time series its grid."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mlplatform.calendars import UTC, WORKING_DAYS, Calendar, has_holidays, has_week_label, make_calendar, zone_of
from mlplatform.config.automation import DatasetAutomation, Owners, Tags
from mlplatform.config.base import ENTITY, NAME_PATTERN, TIMESTAMP, ConfigError, Frozen, Period, time_step
from mlplatform.config.found import AUTO, read_found
from mlplatform.config.rules import params_mistakes, plugin_mistakes
from mlplatform.config.source import SourceConfig, refuse_renames, source_scheme
from mlplatform.plugins import SOURCES, PluginUse, failures_note

# Names that the platform's own tables have beside the dataset's.
RESERVED_NAMES = (ENTITY, TIMESTAMP, "is_context", "until", "was_there", "__file__", "__line__", "__source_row__")

EntityType = Literal["auto", "string", "integer"]
TimeUnit = Literal["s", "ms", "us", "ns"]
WeekLabel = Literal["start", "end"]

# Steps at least as long lie in files of a year, or of a month.
LONG_STEP, MIDDLE_STEP = dt.timedelta(hours=6), dt.timedelta(minutes=5)
# Rows of one step less may have nothing between them, however long steps are.
STEPS_WITHOUT_A_ROW = 4
# The default of `max_gap`.
MAX_GAP = "1096D"


def gap_allowed(step: dt.timedelta, max_gap: str = MAX_GAP) -> dt.timedelta:
    """Return how long nothing may be between the rows of a time series: `max_gap`, or a few steps if they are longer.

    Parameters:
        step: the mean length of a step.
    """
    return max(time_step(max_gap, "max_gap"), STEPS_WITHOUT_A_ROW * step)


class ColumnConfig(Frozen):
    """One data column. `min` and `max` are physical limits: rows beyond them are quarantined."""

    type: Literal["float", "category"] = "float"
    min: float | None = None
    max: float | None = None
    nullable: bool = True
    unit: str = ""
    description: str = ""

    @model_validator(mode="after")
    def _limits(self) -> ColumnConfig:
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min must be below max, but min={self.min} and max={self.max}")
        if self.type == "category" and (self.min is not None or self.max is not None):
            raise ValueError("min and max apply to columns of type float only")
        return self


class DatasetConfig(Frozen):
    """A dataset: its source, its columns, and for time series its grid.

    `frequency` is the time step: `15min`, `h`, `D`, `B`, `W-MON`, `MS`, `QE`, `YS`, or several of them, such as `2W`;
    `C` are the working days of `weekmask` (seven characters, Monday first) that are not `holidays`; `auto` is the step
    that the rows of the first ingest have. `time_unit` is what times count that are numbers, since 1970 UTC; without it
    a number is no time. `timezone` is the zone of times that tell none, and whose days, weeks and months count.
    `week_label` says whether the weekday of `W-MON` to `W-SUN` is the first day of its week (`start`) or the last
    (`end`): which days' holidays a row of a week counts.

    `window_steps` is the length of the window kept in the online store, in steps of `frequency`; it bounds the lookback
    that an experiment on this dataset can ask for. `partition` is the stretch of time that one file of the raw and the
    feature table holds: what an increment rewrites; by default it follows from the frequency. Rows more than
    `future_tolerance` after the present, or with nothing for `max_gap` between them and most others, go to quarantine.
    A row whose `removed_column` is true, not 0 or a time that has passed says that its entity has left the source.
    """

    name: str = Field(pattern=NAME_PATTERN)
    kind: Literal["timeseries", "tabular"] = "timeseries"
    source: SourceConfig
    time_column: str | None = None
    time_unit: TimeUnit | None = Field(default=None, exclude_if=lambda unit: unit is None)
    entity_column: str | None = None
    removed_column: str | None = None
    entity_type: EntityType = "auto"
    frequency: str | None = None
    timezone: str = Field(default=UTC, exclude_if=lambda zone: zone == UTC)
    weekmask: str = Field(default=WORKING_DAYS, exclude_if=lambda mask: mask == WORKING_DAYS)
    holidays: tuple[dt.date, ...] = Field(default=(), exclude_if=lambda days: not days)
    week_label: WeekLabel = Field(default="start", exclude_if=lambda label: label == "start")
    window_steps: int = Field(default=720, ge=0)
    partition: Period | None = None
    future_tolerance: str = "1D"
    max_gap: str = MAX_GAP
    max_bad_fraction: float = Field(default=0.05, ge=0, le=1)
    columns: dict[str, ColumnConfig] = Field(min_length=1)
    description: str = ""
    owners: Owners = ()
    tags: Tags = Field(default_factory=dict)
    automation: DatasetAutomation = DatasetAutomation()

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        if self.kind == "timeseries":
            for key in ("time_column", "frequency"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is missing; a dataset of kind timeseries needs it")
            if self.window_steps < 1:
                raise ValueError(f"window_steps must be at least 1 for kind timeseries, but is {self.window_steps}")
        self._check_calendar()
        for key in ("future_tolerance", "max_gap"):
            time_step(getattr(self, key), key)
        self._check_columns()
        return self

    def _check_calendar(self) -> None:
        """Refuse a frequency, a zone or holidays that no calendar has."""
        is_said = self.kind == "timeseries" and self.frequency not in (None, AUTO)
        if is_said:
            _ = self.calendar
        _ = zone_of(self.timezone)
        has_days = self.holidays or self.weekmask != WORKING_DAYS
        if has_days and not (is_said and has_holidays(self.frequency or "")):
            raise ValueError(
                f"holidays and weekmask are for frequency C, custom business days, but frequency is {self.frequency!r}"
            )
        if self.week_label != "start" and not (is_said and has_week_label(self.frequency or "")):
            raise ValueError(
                "week_label is for weeks told by a weekday, W-MON to W-SUN, but frequency is "
                f"{self.frequency!r}; write the weekday that the rows have"
            )

    def _check_columns(self) -> None:
        """Refuse columns of one name, or of names that the platform uses itself."""
        reserved = {name for name in self.columns if name.lower() in RESERVED_NAMES}
        if reserved:
            raise ValueError(
                f"columns must not use the reserved names {sorted(reserved)}; rename them by source.rename"
            )
        self._refuse_case_twins()
        if self.time_unit is not None and self.time_column is None:
            raise ValueError("time_unit needs time_column, because it says what that column counts")
        if self.removed_column is not None and self.entity_column is None:
            raise ValueError("removed_column needs entity_column, because it says which entities are gone")
        keys = ("time_column", "entity_column", "removed_column")
        named = [name for name in (getattr(self, key) for key in keys) if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"{', '.join(keys)} must be different columns, but are {', '.join(named)}")
        for key in keys:
            if getattr(self, key) in self.columns:
                raise ValueError(f"columns must not repeat the {key} {getattr(self, key)!r}")
        refuse_renames(self.source, (*named, *self.columns))

    def _refuse_case_twins(self) -> None:
        """Refuse columns that stores which do not look at the case of names, such as DuckDB, take for one."""
        keys = {key: getattr(self, key) for key in ("time_column", "entity_column", "removed_column")}
        named = [(f"{key} ", name) for key, name in keys.items() if name is not None]
        first: dict[str, tuple[str, str]] = {}
        for key, name in [*named, *(("", name) for name in self.columns)]:
            other_key, other = first.setdefault(name.lower(), (key, name))
            if other != name:
                raise ValueError(
                    f"columns {other_key}{other!r} and {key}{name!r} differ only in case; rename one of them by "
                    "source.rename"
                )

    @property
    def tolerance(self) -> dt.timedelta:
        """How long after the present a row may be."""
        return time_step(self.future_tolerance, "future_tolerance")

    @property
    def longest_gap(self) -> dt.timedelta:
        """How long nothing may be between the rows of a dataset: `max_gap`, or a few steps if they are longer."""
        if self.kind != "timeseries":
            return time_step(self.max_gap, "max_gap")
        return gap_allowed(self.nominal_step, self.max_gap)

    @property
    def calendar(self) -> Calendar:
        """What counts the steps of a time series.

        Raises:
            ConfigError: if the frequency is `auto` and nothing was ingested yet.
        """
        days = tuple(day.isoformat() for day in self.holidays)
        return make_calendar(self._settled_frequency(), self.timezone, self.weekmask, days, self.week_label)

    def _settled_frequency(self) -> str:
        if self.frequency != AUTO:
            return self.frequency or ""
        found = read_found(self.name)
        if found is None:
            raise ConfigError(
                f"dataset {self.name!r}: frequency is auto, and nothing was ingested yet that could tell it; launch "
                f"ingest_{self.name} first, or write the frequency into the YAML"
            )
        return found.frequency

    @property
    def is_settled(self) -> bool:
        """Whether it is known what counts the steps."""
        return self.frequency != AUTO or read_found(self.name) is not None

    @property
    def nominal_step(self) -> dt.timedelta:
        """How long a time step is in the mean: for bounds and descriptions, never to count with."""
        return dt.timedelta(microseconds=self.calendar.nominal_ns // 1000)

    @property
    def period(self) -> Period:
        """The stretch of time that one file of the raw and the feature table holds."""
        if self.partition is not None:
            return self.partition
        if self.kind != "timeseries" or not self.is_settled or self.nominal_step >= LONG_STEP:
            return "year"
        return "month" if self.nominal_step >= MIDDLE_STEP else "day"

    @property
    def float_columns(self) -> tuple[str, ...]:
        """Names of the numeric columns, in configuration order."""
        return tuple(name for name, column in self.columns.items() if column.type == "float")

    @property
    def category_columns(self) -> tuple[str, ...]:
        """Names of the categorical columns, in configuration order."""
        return tuple(name for name, column in self.columns.items() if column.type == "category")


def check_source(config: DatasetConfig) -> None:
    """Raise `ConfigError` if no source plug-in reads the dataset's URI, or the plug-in refuses the options."""
    mistakes = tuple(source_mistakes(config))
    if mistakes:
        raise ConfigError("; ".join(mistakes), mistakes)


def source_mistakes(config: DatasetConfig) -> Iterator[str]:
    """Yield what is wrong with a dataset's source: nothing reads it, or what does refuses its options."""
    scheme = source_scheme(config.source.uri)
    if scheme not in SOURCES.names():
        yield (
            f"dataset {config.name!r}: no source reads source.uri {config.source.uri!r} (scheme {scheme!r}); "
            f"known schemes: {', '.join(SOURCES.names())}{failures_note()}. For a file whose name does not end so, put "
            f"what it is in front: csv://{Path(config.source.uri).name}"
        )
        return
    yield from _list_mistakes(config, scheme)
    use = PluginUse(SOURCES, "source.uri", scheme, "source.options", config.source.options)
    refused = params_mistakes(use)
    if refused:
        yield f"dataset {config.name!r}: {config.source.uri!r} does not take its options: {'; '.join(refused)}"
    else:
        yield from (f"dataset {config.name!r}: {mistake}" for mistake in plugin_mistakes([use], config))


def _list_mistakes(config: DatasetConfig, scheme: str) -> Iterator[str]:
    if not config.source.more:
        return
    others = sorted({source_scheme(uri) for uri in config.source.more} - {scheme})
    if others:
        yield (
            f"dataset {config.name!r}: source.uri lists files of several kinds: {', '.join([scheme, *others])}; one "
            "table is read from files of one kind"
        )
    if not getattr(SOURCES.get(scheme), "takes_lists", False):
        yield f"dataset {config.name!r}: source.uri is a list, but the source {scheme!r} takes one URI"
