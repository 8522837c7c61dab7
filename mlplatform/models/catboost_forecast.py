"""Forecasting with CatBoost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from mlplatform.config import SearchDimension
from mlplatform.datamodule.panel import Float32
from mlplatform.datamodule.samples import WindowSamples
from mlplatform.models.base import ProgressCallback
from mlplatform.models.boosted_forecast import BoostedForecast, Fitted, Task
from mlplatform.models.forecast_strategies import StrategyParams, Table
from mlplatform.plugins import MODELS


class CatBoostForecastParams(StrategyParams):
    """CatBoost's hyperparameters under their own names; `patience` is the number of trees early stopping waits."""

    iterations: int = Field(default=120, ge=1)
    patience: int = Field(default=10, ge=1)
    learning_rate: float = Field(default=0.1, gt=0, le=1)
    depth: int = Field(default=4, ge=1, le=16)
    l2_leaf_reg: float = Field(default=3.0, ge=0)
    random_strength: float = Field(default=1.0, ge=0)
    rsm: float = Field(default=1.0, gt=0, le=1)
    border_count: int = Field(default=64, ge=1, le=255)


@MODELS.register("catboost")
class CatBoostForecast(BoostedForecast):
    """Boosting of oblivious trees (Prokhorenkova et al., CatBoost, NeurIPS 2018), one thread per model.

    With quantiles, every model fits all levels; the answers are sorted, so that they never cross.
    """

    Params = CatBoostForecastParams
    params: CatBoostForecastParams

    @classmethod
    def search_space(cls, task: str) -> dict[str, SearchDimension]:
        """Search the learning rate, the depth, the share of features per level and the two regularisers."""
        del task
        return {
            "learning_rate": SearchDimension(type="float", low=0.03, high=0.3, log=True),
            "depth": SearchDimension(type="int", low=2, high=6),
            "l2_leaf_reg": SearchDimension(type="float", low=0.5, high=30.0, log=True),
            "random_strength": SearchDimension(type="float", low=0.1, high=10.0, log=True),
            "rsm": SearchDimension(type="float", low=0.3, high=1.0),
        }

    def _loss(self) -> str:
        levels = ",".join(map(str, self.spec.quantiles))
        if not levels:
            return "RMSE"
        return f"MultiQuantile:alpha={levels}" if len(self.spec.quantiles) > 1 else f"Quantile:alpha={levels}"

    def workspaces(
        self, table: Table, held_out: Table | None, samples: list[WindowSamples], count: int
    ) -> list[tuple[Float32, Float32 | None]]:
        """Return the features: CatBoost copies them for every model."""
        del samples
        return [(table.features, None if held_out is None else held_out.features)] * count

    def fit_one(self, workspace: tuple[Float32, Float32 | None], task: Task) -> Fitted:
        """Fit one model."""
        import catboost

        features, held_out_features = workspace
        stops_early = task.held_out_labels is not None and task.iterations is None
        names = {"learning_rate", "depth", "l2_leaf_reg", "random_strength", "rsm", "border_count"}
        stopping = {"od_type": "Iter", "od_wait": self.params.patience} if stops_early else {}
        fixed = {"task_type": "CPU", "thread_count": 1, "allow_writing_files": False, "verbose": False}
        budget = task.iterations or self.params.iterations
        settings = {**self.params.model_dump(include=names), **stopping, **fixed, "loss_function": self._loss()}
        model = catboost.CatBoost({**settings, "iterations": budget, "random_seed": task.seed})
        held_out = None
        if task.held_out_labels is not None:
            held_out = catboost.Pool(held_out_features, task.held_out_labels, thread_count=1)
        progress = _Progress(task.report)
        pool = catboost.Pool(features, task.labels, thread_count=1)
        model.fit(pool, eval_set=held_out, use_best_model=False, callbacks=[progress] if task.report else None)
        if progress.error is not None:
            raise progress.error
        if held_out is None:
            return Fitted(model, budget)
        (history,) = model.get_evals_result()["validation"].values()
        best = int(np.argmin(history)) + 1 if stops_early else budget
        model.shrink(best)
        return Fitted(model, best, tuple(float(loss) for loss in history))

    def changes(self, features: Float32) -> Float32:
        """Return the answers of all models."""
        out = np.empty((len(features), self.models, max(1, len(self.spec.quantiles))), dtype=np.float32)
        # CatBoost refuses a table without rows.
        for position, model in enumerate(self.parts_ if len(features) else ()):
            answer = model.predict(features, prediction_type="RawFormulaVal", thread_count=1)
            out[:, position] = answer.reshape(len(features), -1)
        return out

    def save(self, folder: Path) -> None:
        """Write one file per model, in CatBoost's binary format."""
        for position, model in enumerate(self.parts_):
            model.save_model(str(folder / f"{position:04d}.cbm"), format="cbm")

    def restore(self, folder: Path) -> None:
        """Read the models."""
        import catboost

        paths = sorted(folder.glob("*.cbm"))
        self.parts_ = [catboost.CatBoost().load_model(str(path), format="cbm") for path in paths]


class _Progress:
    """CatBoost's callback: reports every tree, and keeps what the report raises until CatBoost has stopped."""

    def __init__(self, report: ProgressCallback | None) -> None:
        self.report = report
        self.error: BaseException | None = None

    def after_iteration(self, info: Any) -> bool:
        """Return whether to go on."""
        assert self.report is not None
        (losses,) = info.metrics["validation"].values()
        try:
            self.report(info.iteration - 1, float(min(losses)))
        except BaseException as error:
            self.error = error
            return False
        return True
