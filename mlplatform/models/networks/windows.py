"""Batches of windows as tensors: what networks read.

Windows are `unfold` views of one contiguous (channels, time) tensor; only a batch's own rows are ever copied. Where
windows are scaled one by one, measured numbers of a batch are changes from the last observed value of their window in
units of its scale, inputs and outputs alike, and what is missing is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlplatform.calendars import ns_of
from mlplatform.datamodule import ModelSpec, WindowSamples
from mlplatform.models.forecasting import DAY_SECONDS, WEEK_SECONDS, last_observed
from mlplatform.models.window_scale import scaled_channels, window_scales

if TYPE_CHECKING:
    import torch

# Those of a model whose spec says nothing about the calendar.
ANGLES = ("time of day", "time of week")
ALL_COVARIATES = frozenset({"known", "static"})


class Batch(NamedTuple):
    """One batch; B samples, L input steps, H output steps.

    Attributes:
        past: all channels up to the origin, of shape (B, L, channels), or the targets alone, of shape (B, L, targets).
        future: the known columns over the horizon, of shape (B, H, known).
        static: the static columns at the origin, of shape (B, static).
        past_calendar, future_calendar: what is read of the time, of shapes (B, L, columns) and (B, H, columns): sine
            and cosine of every one of `calendar_angles`, then `calendar_events`. Empty in the last dimension for a
            network that does not ask for them.
    """

    past: torch.Tensor
    future: torch.Tensor
    static: torch.Tensor
    past_calendar: torch.Tensor
    future_calendar: torch.Tensor


def calendar_angles(spec: ModelSpec) -> tuple[str, ...]:
    """Return what the pairs of calendar columns are of."""
    return ANGLES if spec.time_features is None else spec.time_features.wave_names()


def calendar_events(spec: ModelSpec) -> tuple[str, ...]:
    """Return the names of the single calendar columns behind the pairs."""
    return () if spec.time_features is None else spec.time_features.event_names


def calendar_width(spec: ModelSpec) -> int:
    """Return the number of calendar columns."""
    return 2 * len(calendar_angles(spec)) + len(calendar_events(spec))


def calendar(seconds: torch.Tensor) -> torch.Tensor:
    """Return the calendar features of times in whole seconds: shape (...,) becomes (..., 4), float32."""
    import torch

    angles = [(seconds % period).double() * (2 * np.pi / period) for period in (DAY_SECONDS, WEEK_SECONDS)]
    return torch.stack([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=-1).float()


class WindowTensors:
    """The tensors of some samples, on one device, and the batches that are cut from them.

    Parameters:
        with_calendar: whether batches carry calendar features.
        targets_only: whether `past` holds the targets instead of all channels.
        covariates: which of `known` and `static` columns batches carry.
        spec: says whether windows are scaled one by one, and what is read of the calendar; without it windows are not
            scaled, and the calendar is that of the day and the week.
    """

    def __init__(
        self,
        samples: WindowSamples,
        with_calendar: bool,
        device: str = "cpu",
        targets_only: bool = False,
        covariates: frozenset[str] = ALL_COVARIATES,
        spec: ModelSpec | None = None,
    ) -> None:
        import torch

        self.features = None if spec is None else spec.time_features
        self.spec = spec if spec is not None and spec.scaling else None
        self.levels: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        self.past_channels = samples.targets if targets_only else tuple(range(samples.values.shape[1]))
        self.samples, self.with_calendar, self.device = samples, with_calendar, device
        self.targets = self._series(samples.targets)
        self.series = self.targets if targets_only else self._series(tuple(range(samples.values.shape[1])))
        self.origins = torch.from_numpy(np.ascontiguousarray(samples.origins)).to(device)
        self.ahead = torch.arange(1, samples.horizon + 1, device=device)
        self.known = self._series(samples.known if "known" in covariates else ())
        self.static = self._series(samples.static if "static" in covariates else ())
        self.past = self.series.unfold(1, samples.lookback, 1).transpose(0, 1)
        self.past_calendar: torch.Tensor | None = None
        # A few windows touch fewer rows than a long panel has: theirs are computed when they are asked for.
        if with_calendar and len(samples) * samples.lookback >= len(samples.values):
            self.past_calendar = self._cached_calendar().unfold(1, samples.lookback, 1).transpose(0, 1)

    def batch(self, chosen: torch.Tensor) -> Batch:
        """Return the inputs of the samples at the given positions; reads nothing that a forecast may not."""
        origins = self.origins[chosen]
        starts = origins - (self.samples.lookback - 1)
        past_calendar, future_calendar = self._calendars(chosen, starts)
        past = self.past.index_select(0, starts).transpose(1, 2)
        return Batch(
            past=past if self.spec is None else self._scaled(past, chosen),
            future=self._future(origins),
            static=self.static.index_select(1, origins).T,
            past_calendar=past_calendar,
            future_calendar=future_calendar,
        )

    def outputs(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the targets over the horizon, of shape (batch, horizon, targets)."""
        outputs = self._outputs(chosen)
        if self.spec is None:
            return outputs
        levels, scales = self._levels(chosen, self.samples.targets)
        return (outputs - levels) / scales

    def _outputs(self, chosen: torch.Tensor) -> torch.Tensor:
        import torch

        if self.samples.levels is not None:
            return torch.from_numpy(self.samples.outputs(chosen.cpu().numpy())).to(self.device)
        windows = self.targets.unfold(1, self.samples.horizon, 1).transpose(0, 1)
        return windows.index_select(0, self.origins[chosen] + 1).transpose(1, 2)

    def restored(self, outputs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Return a network's outputs, (batch, horizon, targets) or with quantiles, in the units of the samples."""
        if self.spec is None:
            return outputs
        levels, scales = self._levels(chosen, self.samples.targets)
        if outputs.dim() > levels.dim():
            levels, scales = levels[..., None], scales[..., None]
        return outputs * scales + levels

    def _scaled(self, past: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        import torch

        levels, scales = self._levels(chosen, self.past_channels)
        return torch.nan_to_num((past - levels) / scales, nan=0.0)

    def _levels(self, chosen: torch.Tensor, channels: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is subtracted from channels and what they are divided by, each of shape (batch, 1, channels)."""
        import torch

        if channels not in self.levels:
            assert self.spec is not None
            scaled = scaled_channels(self.spec)
            scales = window_scales(self.samples, self.spec, channels)
            levels = np.zeros_like(scales)
            moving = [position for position, channel in enumerate(channels) if channel in scaled]
            levels[:, moving] = last_observed(self.samples, tuple(channels[position] for position in moving))
            self.levels[channels] = (
                torch.from_numpy(levels[:, None, :]).to(self.device),
                torch.from_numpy(scales[:, None, :]).to(self.device),
            )
        levels_of, scales_of = self.levels[channels]
        return levels_of.index_select(0, chosen), scales_of.index_select(0, chosen)

    def batches(self, order: torch.Tensor, batch_size: int) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Yield inputs and outputs of the samples at the positions `order`, in that order."""
        import torch

        for chosen in torch.split(order.to(self.device), batch_size):
            yield self.batch(chosen), self.outputs(chosen)

    def _series(self, columns: tuple[int, ...]) -> torch.Tensor:
        """Return columns as one contiguous tensor of shape (columns, rows), kept with the samples."""
        import torch

        key = ("series", columns, self.device)
        if key not in self.samples.cache:
            values = np.ascontiguousarray(self.samples.values[:, list(columns)].T)
            self.samples.cache[key] = torch.from_numpy(values).to(self.device)
        found: torch.Tensor = self.samples.cache[key]
        return found

    def _future(self, origins: torch.Tensor) -> torch.Tensor:
        if not len(self.known):
            return self.series.new_empty((len(origins), self.samples.horizon, 0))
        windows = self.known.unfold(1, self.samples.horizon, 1).transpose(0, 1)
        return windows.index_select(0, origins + 1).transpose(1, 2)

    def _calendars(self, chosen: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        count, lookback = len(chosen), self.samples.lookback
        if not self.with_calendar:
            empty = self.series.new_empty
            return empty((count, lookback, 0)), empty((count, self.samples.horizon, 0))
        if self.past_calendar is not None:
            past = self.past_calendar.index_select(0, starts).transpose(1, 2)
        else:
            rows = starts[:, None] + torch.arange(lookback, device=self.device)
            past = self._described(self.samples.timestamps[rows.cpu().numpy()])
        return past, self._calendar_ahead(chosen)

    def _calendar_ahead(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the calendar columns of the horizon, of shape (B, H, columns)."""
        import torch

        steps, origins = self.samples.calendar, self.origins[chosen].cpu().numpy()
        times = self.samples.timestamps[origins]
        if self.features is None and steps.is_plain:
            return calendar(self._seconds(times)[:, None] + self.ahead * self.samples.step_seconds)
        if self.features is None:
            return self._described(steps.ahead(times[:, None], np.arange(1, self.samples.horizon + 1)))
        key = ("calendar_ahead", self.features, self.device)
        if key not in self.samples.cache:
            # Windows overlap: every moment is described once.
            ahead = np.arange(1, self.samples.horizon + 1)
            moments, places = np.unique(steps.ahead(self.samples.origin_times[:, None], ahead), return_inverse=True)
            owners = torch.from_numpy(places.reshape(-1, self.samples.horizon)).to(self.device)
            self.samples.cache[key] = self._described(moments), owners
        columns, owners = self.samples.cache[key]
        found: torch.Tensor = columns[owners.index_select(0, chosen)]
        return found

    def _described(self, times: np.ndarray) -> torch.Tensor:
        """Return the calendar columns of times in UTC: shape (...) becomes (..., columns)."""
        import torch

        if self.features is None:
            return calendar(self._seconds(times))
        columns = self.features.waves(ns_of(times.ravel())).reshape(*times.shape, -1)
        return torch.from_numpy(columns).to(self.device)

    def _seconds(self, times: np.ndarray) -> torch.Tensor:
        """Return local times in whole seconds."""
        import torch

        seconds = self.samples.calendar.local(times).astype("datetime64[s]").astype(np.int64)
        return torch.from_numpy(seconds).to(self.device)

    def _cached_calendar(self) -> torch.Tensor:
        """Return the calendar columns of all rows, of shape (columns, rows), kept with the samples."""
        key = ("calendar", self.features, self.device)
        if key not in self.samples.cache:
            self.samples.cache[key] = self._described(self.samples.timestamps).T.contiguous()
        found: torch.Tensor = self.samples.cache[key]
        return found
