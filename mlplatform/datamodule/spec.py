"""The shape of a modelling problem, as data modules describe it and models are built for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlplatform.calendars import Calendar, TimeFeatures, calendar_of, time_features
from mlplatform.config import Task


@dataclass(frozen=True)
class ModelSpec:
    """The shape of the problem a model is built for.

    Attributes:
        task: forecast, regression or classification.
        channels: names of the input columns.
        targets: positions of the targets in `channels` (forecast only).
        lookback, horizon: window lengths in steps (forecast only).
        classes: number of classes (classification only).
        step_seconds: length of a time step, in the mean (forecast only).
        calendar_text: what counts the steps, if it is not their seconds (see `mlplatform.calendars`).
        known: positions in `channels` of the columns whose values over the horizon are known (forecast only).
        static: positions in `channels` of the columns that are constant per entity (forecast only).
        cardinalities: number of categories of every channel, 0 for a number; codes run from 0, and -1 stands for a
            category that training did not see. Empty if all channels are numbers.
        quantiles: levels that the model is fitted to, ascending; empty for a point prediction.
        scaling: `window` if measured numbers come as they are and every window is scaled by itself; empty if they were
            scaled beforehand.
        season: length of the season in steps (forecast only); 0 where it is not told.
        history: steps up to the origin that smoothing reads, those of the lookback among them; 0 for the lookback.
        time_text: what is read of the calendar (see `time_features`), in the place of the time of day and of the week.
    """

    task: Task
    channels: tuple[str, ...]
    targets: tuple[int, ...] = ()
    lookback: int = 0
    horizon: int = 0
    classes: int = 0
    step_seconds: int = 0
    known: tuple[int, ...] = ()
    static: tuple[int, ...] = ()
    cardinalities: tuple[int, ...] = ()
    quantiles: tuple[float, ...] = ()
    scaling: str = ""
    season: int = 0
    calendar_text: str = ""
    time_text: str = ""
    history: int = 0

    @property
    def reach(self) -> int:
        """Steps of the past that are there at every origin, if only as missing ones."""
        return max(self.lookback, self.history)

    @property
    def calendar(self) -> Calendar:
        """What counts the steps."""
        return calendar_of(self.calendar_text, self.step_seconds)

    @property
    def time_features(self) -> TimeFeatures | None:
        """What is read of the calendar; `None` for the time of day and of the week, as families have it without."""
        return time_features(self.time_text, self.calendar) if self.time_text else None

    def quantile_position(self, level: float) -> int:
        """Return the position of a level in `quantiles`.

        Raises:
            ValueError: if the model is not fitted to it.
        """
        for position, known in enumerate(self.quantiles):
            if abs(known - level) < 1e-6:
                return position
        raise ValueError(f"quantile {level} is not among {self.quantiles}")

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values; what came later stands there only if it says something, so digests stay."""
        values = dict(vars(self))
        for key in ("scaling", "season", "calendar_text", "time_text", "history"):
            if not values[key]:
                del values[key]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Rebuild a spec from its JSON form."""
        typed: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**typed)
