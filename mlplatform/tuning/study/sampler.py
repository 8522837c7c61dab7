"""The sampler: the Tree-structured Parzen Estimator, with randomness that a restart does not change.

Import it inside functions: it loads Optuna.
"""

from __future__ import annotations

import zlib
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from typing_extensions import override

from mlplatform.tuning.trials import position_of


class RepeatableTPE(optuna.samplers.BaseSampler):
    """TPE (Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011), seeded per trial and dimension.

    A draw depends on the seed, the trial's position in the study, the dimension and the earlier trials, not on how many
    draws this process made before. So a study that was killed and resumed goes on with the values it would have tried,
    and workers with equal seeds do not try the same ones. Trials that run at the moment count as poor, which keeps
    workers apart ("constant liar": Ginsbourger et al., 2010).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: dimensions are drawn one by one, because conditional ones may be absent."""
        return {}

    @override
    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a value of one dimension."""
        seed = zlib.crc32(f"{self._seed}/{position_of(study, trial.number)}/{param_name}".encode())
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return sampler.sample_independent(study, trial, param_name, param_distribution)
