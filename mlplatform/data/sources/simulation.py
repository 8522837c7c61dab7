"""Simulated data, made on the spot: `simulation://fleet`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from mlplatform.config import DatasetConfig
from mlplatform.data.errors import DataError
from mlplatform.data.simulation import FleetOptions, simulate_fleet
from mlplatform.data.sources.base import Source
from mlplatform.plugins import SOURCES
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


@SOURCES.register("simulation")
class SimulationSource(Source[FleetOptions]):
    """The simulated fleet of power transformers."""

    Params = FleetOptions

    @override
    def read(self, dataset: DatasetConfig, settings: Settings) -> pd.DataFrame:
        """Simulate the fleet; see `Source.read`."""
        if dataset.source.uri != "simulation://fleet":
            raise DataError(
                f"dataset {dataset.name!r}: no simulation is called {dataset.source.uri!r}; known: simulation://fleet"
            )
        return simulate_fleet(self.params)
