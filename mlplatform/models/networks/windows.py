"""Batches of windows as tensors: what networks read.

Windows are `unfold` views of one contiguous (channels, time) tensor; only a batch's own rows are ever copied. Where
windows are scaled one by one, measured numbers of a batch are changes from the last observed value of their window in
units of its scale, inputs and outputs alike, and what is missing is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlplatform.datamodule import ModelSpec, WindowSamples
from mlplatform.models.forecasting import DAY_SECONDS, WEEK_SECONDS, last_observed
from mlplatform.models.window_scale import scaled_channels, window_scales

if TYPE_CHECKING:
    import torch

ALL_COVARIATES = frozenset({"known", "static"})


class Batch(NamedTuple):
    """One batch; B samples, L input steps, H output steps.

    Attributes:
        past: all channels up to the origin, of shape (B, L, channels), or the targets alone, of shape (B, L, targets).
        future: the known columns over the horizon, of shape (B, H, known).
        static: the static columns at the origin, of shape (B, static).
        past_calendar, future_calendar: sine and cosine of the time of day and of the week, of shapes (B, L, 4) and
            (B, H, 4); empty in the last dimension for a network that does not ask for them.
    """

    past: torch.Tensor
    future: torch.Tensor
    static: torch.Tensor
    past_calendar: torch.Tensor
    future_calendar: torch.Tensor


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
        spec: says whether windows are scaled one by one; without it they are not.
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
        past_calendar, future_calendar = self._calendars(origins, starts)
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

    def _calendars(self, origins: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        count, lookback = len(origins), self.samples.lookback
        if not self.with_calendar:
            empty = self.series.new_empty
            return empty((count, lookback, 0)), empty((count, self.samples.horizon, 0))
        if self.past_calendar is not None:
            past = self.past_calendar.index_select(0, starts).transpose(1, 2)
        else:
            past = calendar(self._seconds(starts[:, None] + torch.arange(lookback, device=self.device)))
        return past, calendar(self._seconds_ahead(origins))

    def _seconds(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the local times of rows in whole seconds."""
        return self._as_seconds(self.samples.timestamps[rows.cpu().numpy()])

    def _seconds_ahead(self, origins: torch.Tensor) -> torch.Tensor:
        """Return the local times of the horizon in whole seconds, of shape (B, H)."""
        steps = self.samples.calendar
        if steps.is_plain:
            return self._seconds(origins)[:, None] + self.ahead * self.samples.step_seconds
        times = self.samples.timestamps[origins.cpu().numpy()]
        return self._as_seconds(steps.ahead(times[:, None], np.arange(1, self.samples.horizon + 1)))

    def _as_seconds(self, times: np.ndarray) -> torch.Tensor:
        import torch

        seconds = self.samples.calendar.local(times).astype("datetime64[s]").astype(np.int64)
        return torch.from_numpy(seconds).to(self.device)

    def _cached_calendar(self) -> torch.Tensor:
        """Return the calendar features of all rows, of shape (4, rows), kept with the samples."""
        import torch

        key = ("calendar", self.device)
        if key not in self.samples.cache:
            rows = torch.arange(len(self.samples.timestamps), device=self.device)
            self.samples.cache[key] = calendar(self._seconds(rows)).T.contiguous()
        found: torch.Tensor = self.samples.cache[key]
        return found
