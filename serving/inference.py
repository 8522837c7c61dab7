"""From rows or entities to a panel, and from a panel to answers: the steps that both servers run.

The local server runs them one after the other in a thread, Ray Serve runs each in a deployment of its own. That the
steps are the same functions is what makes the answers equal bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mlplatform.config import DatasetConfig, StalenessConfig
from mlplatform.features import (
    EntityTypeError,
    ShortWindowError,
    StaleFeaturesError,
    StoreUnavailableError,
    UnknownEntityError,
)
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Contract, ShortSeries, read_features
from mlplatform.settings import Settings
from serving.backend import EntityId
from serving.errors import MAX_DETAILS, ErrorDetail, ServingError, StaleFeaturesRefusedError, shown

logger = logging.getLogger(__name__)

# An id that no dataset has: asking for it shows whether the store answers, without knowing what it holds.
_PROBE: tuple[EntityId, ...] = (-(2**63),)
# A store that failed a few tries may be back after a moment; clients that repeat by themselves should not hurry.
_RETRY_AFTER_S = 1
NO_POLICY = ShortSeries()


def read_panel(
    contract: Contract,
    dataset: DatasetConfig,
    staleness: StalenessConfig,
    entities: Sequence[EntityId],
    time_point: str,
    settings: Settings,
    short: ShortSeries = NO_POLICY,
) -> FeaturePanel:
    """Return the newest rows of `entities`, as many as the contract needs, with their ages.

    Parameters:
        time_point: `now` for the latest rows from the online store; for any other moment, what the offline store knew
            at it.
        short: whether an answer of several goes without those of which too little is stored.

    Raises:
        ServingError: 404 for unknown entities, 409 for features older than the policy allows or too few of them, 422
            for ids of the wrong type, 503 if the store does not answer.
    """
    with store_errors(dataset, short):
        return read_features(contract, dataset, staleness, entities, time_point, settings)


@contextmanager
def store_errors(dataset: DatasetConfig, short: ShortSeries = NO_POLICY) -> Iterator[None]:
    """Turn what a read of the feature store raises into what clients are told.

    Raises:
        ServingError: as `read_panel` does.
    """
    try:
        yield
    except UnknownEntityError as error:
        details = [
            ErrorDetail(
                field="entities",
                found=shown(entity),
                expected=f"an entity of dataset {dataset.name}",
                action="leave it out, or materialise its features",
            )
            for entity in error.entities[:MAX_DETAILS]
        ]
        raise ServingError(404, "unknown_entity", str(error), details, entities=error.entities) from error
    except EntityTypeError as error:
        expected = "ids of the type that the dataset has"
        detail = ErrorDetail(field="entities", found=str(error), expected=expected, action="correct them")
        raise ServingError(422, "invalid_request", f"entities: {error}; correct them", [detail]) from error
    except ShortWindowError as error:
        raise _short_window(error, short) from error
    except StaleFeaturesError as error:
        raise _stale_features(error, dataset) from error
    except Exception as error:
        # Whatever an online store raises (SQLite, Redis, Feast), the client learns that it is not its fault.
        logger.exception("cannot read online features of %r", dataset.name)
        raise ServingError(
            503,
            "feature_store_unavailable",
            store_failure(dataset, error),
            headers={"retry-after": str(_RETRY_AFTER_S)},
        ) from error


def store_problem(contract: Contract, dataset: DatasetConfig, settings: Settings) -> str | None:
    """Return why the online store cannot answer for this dataset, or `None` when it can."""
    try:
        read_features(contract, dataset, StalenessConfig(), _PROBE, "now", settings)
    except (UnknownEntityError, EntityTypeError):
        return None
    except Exception as error:
        return store_failure(dataset, error)
    return None


def store_failure(dataset: DatasetConfig, error: Exception) -> str:
    """Return what to tell about an online store that does not answer; its address is for the log alone."""
    found = error.attempts if isinstance(error, StoreUnavailableError) else type(error).__name__
    return (
        f"the online feature store does not answer for dataset {dataset.name!r} ({found}); "
        "materialise online_features and check the store"
    )


def _short_window(error: ShortWindowError, short: ShortSeries) -> ServingError:
    """Return a refusal of 409, as that of old features is: the store works, and others may be answered."""
    details = [
        ErrorDetail(
            field="entities",
            found=shown(entity),
            expected="as many stored rows as a forecast reads",
            action="leave it out until it has a longer history, or make the dataset's window_steps longer",
        )
        for entity in error.entities[:MAX_DETAILS]
    ]
    return ServingError(409, "short_window", str(error), details, entities=error.entities, is_left_out=short.leaves_out)


def _stale_features(error: StaleFeaturesError, dataset: DatasetConfig) -> StaleFeaturesRefusedError:
    details = [
        ErrorDetail(
            field="entities",
            found=f"{shown(stale.entity)}: {stale.found}",
            expected=f"features of dataset {dataset.name} at most {error.limit} old",
            action="leave it out, or bring its features up to date",
        )
        for stale in error.stale[:MAX_DETAILS]
    ]
    ages = [stale.age.total_seconds() for stale in error.stale if stale.age is not None]
    ids = [stale.entity for stale in error.stale]
    return StaleFeaturesRefusedError(str(error), details, ids, max(ages, default=None))
