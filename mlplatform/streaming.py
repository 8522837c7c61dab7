"""The consumer program: `python -m mlplatform.streaming <dataset>`.

Takes rows from the dataset's source as they arrive, pushes them to the online store and adds them to the raw table,
until it is told to stop. Entities that the source removes are taken out of the online store. Rows are pushed before
they are committed, so wherever the process dies, the next one delivers the same rows again to both; both know a row by
its entity and time, so a repetition leaves no trace.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type, sleep_using_event, wait_exponential
from tenacity.wait import wait_base

from mlplatform.config import ConfigError, DatasetConfig, load_dataset
from mlplatform.data import DataError, SourceUnavailableError
from mlplatform.features import FeatureStoreError, StoreUnavailableError
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    Ids = npt.NDArray[Any]

STREAM_INTERVAL_S = 1.0
OTHER_INTERVAL_S = 60.0
# After failures in a row, each pause is twice as long as the one before.
BACKOFF = wait_exponential(1.0, max=60.0)

logger = logging.getLogger("mlplatform.streaming")


def consume(
    dataset: DatasetConfig,
    settings: Settings,
    stop: threading.Event,
    *,
    push: Callable[[pd.DataFrame], object] | None,
    remove: Callable[[Ids], object] | None = None,
    once: bool = False,
    interval_s: float | None = None,
    backoff: wait_base = BACKOFF,
) -> None:
    """Ingest what is there and what arrives until `stop` is set; then the batch at hand is finished.

    A source or online store that does not answer is asked again, for as long as it takes.

    Parameters:
        push: called with the good rows of a batch before they are committed; `None`: the raw table alone.
        remove: called after it with the ids of the entities that the batch leaves removed.
        once: return when everything that was there has been ingested.
        interval_s: seconds between two looks at the source; default: 1 for a stream, 60 for another source.
        backoff: pauses after failures in a row.

    Raises:
        ConfigError, DataError: if the source cannot be used, or cannot tell what is new.
        FeatureStoreError: if the online store refuses the rows.
    """
    from mlplatform.data import ingest
    from mlplatform.data.sources import open_source, tells_news

    source = open_source(dataset)
    if not tells_news(source, dataset, settings):
        raise DataError(
            f"dataset {dataset.name!r}: {dataset.source.uri!r} with its options cannot tell what is new, or has "
            "no entity_column to tell it by, so there is nothing to wait for; materialise its raw asset instead"
        )
    interval = interval_s or (STREAM_INTERVAL_S if source.is_stream else OTHER_INTERVAL_S)
    seen: str | None = None
    asking = Retrying(
        retry=retry_if_exception_type((SourceUnavailableError, StoreUnavailableError)),
        wait=backoff,
        sleep=sleep_using_event(stop),
        before_sleep=_log_failure,
    )

    def look() -> None:
        nonlocal seen
        if stop.is_set():
            return
        # Taken before reading, so that whatever arrives meanwhile makes a difference.
        found = source.fingerprint(dataset, settings)
        if found is None or found != seen:
            on_rows, on_removed = push and _timed(push), remove and _timed_removal(remove)
            ingest(dataset, settings, on_rows=on_rows, on_removed=on_removed, should_stop=stop.is_set)
            seen = found

    while not stop.is_set():
        asking(look)
        failures = asking.statistics["attempt_number"] - 1
        if failures and not stop.is_set():
            logger.info("Dataset %s: back after %d failures", dataset.name, failures)
        if once:
            return
        stop.wait(interval)


def _log_failure(state: RetryCallState) -> None:
    assert state.outcome is not None
    error = state.outcome.exception()
    logger.warning("Failure %d in a row, next try in %g s: %s", state.attempt_number, state.upcoming_sleep, error)


def _timed(push: Callable[[pd.DataFrame], object]) -> Callable[[pd.DataFrame], None]:
    def push_rows(rows: pd.DataFrame) -> None:
        if rows.empty:
            return
        began = time.perf_counter()
        push(rows)
        logger.info("Pushed %d rows in %.3f s", len(rows), time.perf_counter() - began)

    return push_rows


def _timed_removal(remove: Callable[[Ids], object]) -> Callable[[Ids], None]:
    def remove_entities(ids: Ids) -> None:
        began = time.perf_counter()
        remove(ids)
        logger.info("Removed %d entities in %.3f s", len(ids), time.perf_counter() - began)

    return remove_entities


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 when it was told to stop, 1 if it cannot go on."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()

    def request_stop(number: int, _frame: FrameType | None) -> None:
        logger.info("%s: finishing the batch at hand", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    settings = Settings.from_env()
    try:
        dataset = load_dataset(arguments.dataset, settings)
        push, remove = (None, None) if arguments.raw_only else _online(dataset, settings)
        consume(dataset, settings, stop, push=push, remove=remove, once=arguments.once, interval_s=arguments.interval)
    except (ConfigError, DataError, FeatureStoreError) as error:
        logger.error("%s", error)
        return 1
    return 0


def _online(
    dataset: DatasetConfig, settings: Settings
) -> tuple[Callable[[pd.DataFrame], object], Callable[[Ids], object]]:
    from mlplatform.features.online import push_rows, remove_online

    return lambda rows: push_rows(dataset, rows, settings), lambda ids: remove_online(dataset, ids, settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlplatform.streaming", description="Consume a dataset's source.")
    parser.add_argument("dataset", help="name of the dataset")
    parser.add_argument("--raw-only", action="store_true", help="do not push rows to the online store")
    parser.add_argument("--once", action="store_true", help="stop when everything that is there has been ingested")
    parser.add_argument("--interval", type=float, help="seconds between two looks at the source")
    return parser


if __name__ == "__main__":
    sys.exit(main())
