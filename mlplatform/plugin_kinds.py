"""What a plug-in of every kind has, as structural types of the registries.

The classes that plug-ins are derived from live in the packages above the registries, which must not be imported here;
so what the platform reads from a plug-in that it only knows by name is written down once more as a protocol. A class is
a plug-in if the class itself has these members. Values of types from above are `Any`.

Of every kind, what a plug-in demands of an experiment is said by an optional method `check(use, params, config)`, which
yields one text per mistake: `use` is a `plugins.PluginUse`, `params` are the validated parameters, `config` is the
experiment (of a data source: the dataset).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from pydantic import BaseModel


class Parametrised(Protocol):
    """A plug-in with parameters of its own."""

    @property
    def Params(self) -> type[BaseModel]:  # noqa: N802 - the name that plug-ins give it
        """Validates the parameters."""
        ...


class DataSource(Parametrised, Protocol):
    """See `data.sources.Source`."""

    def __call__(self, params: Any) -> Any:
        """Return the source with validated options."""
        ...


class SplitterPlugin(Parametrised, Protocol):
    """See `datamodule.folds.Splitter`."""

    @property
    def tasks(self) -> frozenset[str]:
        """What the scheme is sound for."""
        ...

    @property
    def separates(self) -> Literal["time", "groups", "rows"]:
        """What keeps validation apart from training."""
        ...

    @property
    def min_folds(self) -> int:
        """The smallest number of folds."""
        ...

    def example_params(self) -> dict[str, Any]:
        """Return parameters to try it with."""
        ...

    def group_column(self, params: Any) -> str | None:
        """Return the column that groups rows."""
        ...

    def __call__(self, params: Any, folds: int, seed: int) -> Any:
        """Return the splitter."""
        ...


class TransformPlugin(Parametrised, Protocol):
    """See `preprocessing.base.Transform`."""

    @property
    def accepts(self) -> Literal["float", "category"]:
        """The column type that it can be applied to."""
        ...

    def examples(self) -> list[dict[str, Any]]:
        """Return parameters to try it with."""
        ...

    def __call__(self, **params: Any) -> Any:
        """Return the unfitted transform."""
        ...


class ModelFamily(Parametrised, Protocol):
    """See `models.base.Model`."""

    @property
    def tasks(self) -> frozenset[str]:
        """What the family can be used for."""
        ...

    @property
    def is_naive(self) -> bool:
        """Whether a candidate must beat it to be promoted."""
        ...

    @property
    def covariates(self) -> frozenset[str]:
        """The kinds of input that it reads beside the history."""
        ...

    @property
    def explains(self) -> str | None:
        """What its explanations are, if it has any."""
        ...

    @property
    def has_quantiles(self) -> bool:
        """Whether it can be fitted to quantiles."""
        ...

    def example_params(self) -> dict[str, Any]:
        """Return parameters to try it with."""
        ...

    def search_space(self, task: str) -> dict[str, Any]:
        """Return the default search space."""
        ...

    def alternatives(self, params: Any, config: Any) -> tuple[dict[str, Any], ...]:
        """Return changes of its parameters that a search of the default space tries first."""
        ...

    def season(self, params: Any) -> int | None:
        """Return the length of the season that its parameters state."""
        ...

    def __call__(self, params: Any, spec: Any) -> Any:
        """Return the unfitted model."""
        ...


class MetricPlugin(Protocol):
    """See `training.metrics.Metric`."""

    @property
    def tasks(self) -> frozenset[str]:
        """What it can be used for."""
        ...

    @property
    def greater_is_better(self) -> bool:
        """Which way is better."""
        ...

    @property
    def reads(self) -> str | None:
        """What it needs beside truth and prediction."""
        ...

    @property
    def decides(self) -> bool:
        """Whether it can be the metric of an experiment."""
        ...

    @property
    def demands(self) -> Callable[[Any], Iterator[str]] | None:
        """What yields the mistakes of a truth that it cannot score; `None` if it can score any."""
        ...

    @property
    def always(self) -> frozenset[str]:
        """The tasks whose experiments report it unasked."""
        ...

    @property
    def is_relative(self) -> bool:
        """Whether it means nothing in preprocessed space."""
        ...

    @property
    def mean_of(self) -> Callable[..., Any] | None:
        """What the score is the mean of over the samples, if it is a mean."""
        ...

    @property
    def by_series(self) -> bool:
        """Whether every series counts alike."""
        ...

    def score(self, truth: Any, prediction: Any, /, **extras: Any) -> float:
        """Return the score."""
        ...

    def value(self, truth: Any, prediction: Any, entities: Any, **read: Any) -> float:
        """Return the score, by series where the metric says so."""
        ...

    def losses(self, truth: Any, prediction: Any, entities: Any, **read: Any) -> Any:
        """Return what the loss is the mean of; `None` if it is no mean."""
        ...

    def loss(self, value: float) -> float:
        """Return the value with its sign turned so that smaller is better."""
        ...


class RetrievalMode(Protocol):
    """See `features.retrieval.strategies.base.RetrievalStrategy`."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of datasets that it reads."""
        ...

    def __call__(self, dataset: Any, settings: Any, staleness: Any) -> Any:
        """Return the strategy."""
        ...


class DriftTest(Protocol):
    """A two-sample distance."""

    def __call__(self, reference: Any, recent: Any, /) -> float:
        """Return the distance."""
        ...


class ExecutorPlugin(Protocol):
    """See `tuning.search.Executor`."""

    def __call__(self) -> Any:
        """Return the executor."""
        ...
