"""Forecasting with XGBoost."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from typing_extensions import override

from mlplatform.config import SearchDimension
from mlplatform.datamodule import Float32, WindowSamples
from mlplatform.models.forecasting import StrategyParams, Table, forecast
from mlplatform.models.trees import (
    BOOSTING_SEARCH_SPACE,
    Boosted,
    BoostedForecast,
    BoostingParams,
    CannotMergeError,
    Task,
    answers_of,
    differing_values,
    fit_booster,
    load_boosters,
    merge_boosters,
    quantile_matrix,
    save_boosters,
)
from mlplatform.plugins import MODELS

if TYPE_CHECKING:
    import xgboost

    Workspace = tuple[xgboost.QuantileDMatrix, xgboost.QuantileDMatrix | None]


logger = logging.getLogger(__name__)


class XGBoostForecastParams(StrategyParams, BoostingParams):
    """Boosting parameters, the strategy and its features."""

    num_boost_round: int = Field(default=80, ge=1)
    max_bin: int = Field(default=64, ge=2)


@MODELS.register("xgboost")
class XGBoostForecast(BoostedForecast):
    """Gradient boosting (Chen and Guestrin, XGBoost, KDD 2016); all boosters read the same quantised matrix.

    With quantiles, every booster fits all levels; the answers are sorted, so that they never cross. A model that was
    loaded answers from one merged booster where that has the same bits.

    Attributes:
        merged_: all boosters as one; `None` after a fit, and where they stay apart.
        apart_because_: why there is no merged booster.
    """

    Params = XGBoostForecastParams
    params: XGBoostForecastParams
    is_exact = True
    merged_: xgboost.Booster | None = None
    apart_because_: str = "boosters are merged when they are loaded"

    @classmethod
    def example_params(cls) -> dict[str, Any]:
        """Few and small: quick to fit."""
        return {"num_boost_round": 4, "patience": 2, "max_depth": 2, "subsample": 0.8, "target_lags": [1, 3, 11, 12]}

    @classmethod
    @override
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the boosting parameters."""
        return dict(BOOSTING_SEARCH_SPACE)

    def _objective(self) -> dict[str, Any]:
        if self.spec.quantiles:
            return {"objective": "reg:quantileerror", "quantile_alpha": list(self.spec.quantiles)}
        return {"objective": "reg:squarederror", "base_score": 0.0}

    @property
    def boosters_(self) -> list[xgboost.Booster]:
        """The fitted boosters, target by target, step by step."""
        return self.parts_

    def workspaces(
        self, table: Table, held_out: Table | None, samples: list[WindowSamples], count: int
    ) -> list[Workspace]:
        """Return the quantised matrices that one booster at a time puts its labels on."""
        bins = self.params.max_bin
        made: list[Workspace] = []
        for slot in range(count):
            matrix = quantile_matrix(samples[0].cache, table.features, bins, slot=slot)
            if held_out is None:
                made.append((matrix, None))
            else:
                made.append((matrix, quantile_matrix(samples[1].cache, held_out.features, bins, matrix, slot)))
        return made

    def fit_one(self, workspace: Workspace, task: Task) -> Boosted:
        """Fit one booster."""
        matrix, held_out = workspace
        matrix.set_label(task.labels)
        if held_out is not None:
            held_out.set_label(task.held_out_labels)
        return fit_booster(
            {**self.params.booster_params(task.seed), **self._objective()},
            matrix,
            held_out,
            rounds=task.iterations or self.params.num_boost_round,
            patience=None if task.iterations else self.params.patience,
            report=task.report,
        )

    def changes(self, features: Float32) -> Float32:
        """Return the answers of all boosters."""
        return self._changes(self.boosters_ if self.merged_ is None else [self.merged_], features)

    def _changes(self, boosters: list[xgboost.Booster], features: Float32) -> Float32:
        shape = (len(features), self.models, max(1, len(self.spec.quantiles)))
        return answers_of(boosters, features).reshape(shape) if len(features) else np.zeros(shape, dtype=np.float32)

    @property
    @override
    def inference(self) -> str:
        """Say whether one merged booster answers or each of them, and why each."""
        if self.merged_ is not None:
            return f"merged: one booster answers for {len(self.boosters_)}"
        return f"separate: {self.apart_because_}"

    @override
    def confirm_inference(self, samples: WindowSamples) -> None:
        """Answer the samples merged and one by one; where a bit differs the boosters stay apart from now on."""
        if self.merged_ is None:
            return
        merged, separate = (
            forecast(samples, self.spec, self.params, partial(self._changes, boosters))
            for boosters in ([self.merged_], self.boosters_)
        )
        if differing := differing_values(merged, separate):
            self._keep_apart(f"merged they answer {differing} of {separate.size} values of samples with other bits")

    def _keep_apart(self, reason: str) -> None:
        self.merged_, self.apart_because_ = None, reason
        logger.warning("%d boosters are not merged and answer more slowly: %s", len(self.boosters_), reason)

    def save(self, folder: Path) -> None:
        """Write the boosters."""
        save_boosters(self.boosters_, folder)

    def restore(self, folder: Path) -> None:
        """Read the boosters, and merge them if that changes no bit."""
        self.parts_ = load_boosters(folder)
        if len(self.parts_) < 2:
            self.apart_because_ = "there is one booster"
            return
        try:
            self.merged_ = merge_boosters(self.parts_)
        except CannotMergeError as error:
            self._keep_apart(str(error))
