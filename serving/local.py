"""The server in one process: FastAPI under uvicorn, the model in the same process.

Run it with `python -m serving.local` (or `make serve`); it listens on the loopback interface unless told otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from mlplatform.config import experiment_names
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.backend import EntityId, Prediction, ReloadReport, Status
from serving.bundle import Bundle, BundleHolder, BundleLoader
from serving.concurrency import Workers
from serving.connections import http_protocol
from serving.errors import ServingError
from serving.inference import read_panel, store_problem
from serving.rows import panel_from_rows, with_future_of_request

logger = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LocalBackend:
    """Computes answers in this process, in a bounded pool of threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers = Workers()
        self._holder = BundleHolder(BundleLoader(settings))

    async def start(self) -> None:
        """Load the production pair if there is one, and open the feature store."""
        try:
            await self._holder.reload()
        except ServingError as error:
            logger.warning("starting without a model: %s", error)
        # Asking once imports Feast and opens its store, which would otherwise cost the first request seconds.
        problem = (await self.status()).reason
        if problem is not None:
            logger.warning("not ready: %s", problem)

    async def close(self) -> None:
        """Let the threads end."""
        self._workers.close()
        self._holder.close()

    async def forecast_entities(
        self, entities: Sequence[EntityId], time_point: str, future: Sequence[dict[str, Any]] = ()
    ) -> Prediction:
        """Predict for entities of the feature store."""
        return await self._workers.run(self._from_store, self._holder.require(), entities, time_point, future)

    async def predict_rows(self, rows: Sequence[dict[str, Any]]) -> Prediction:
        """Predict from raw rows."""
        return await self._workers.run(self._from_rows, self._holder.require(), rows)

    async def reload(self) -> ReloadReport:
        """Serve the pair that is in production now."""
        return await self._holder.reload()

    async def status(self) -> Status:
        """Say whether a pair is loaded and the feature store answers."""
        bundle = self._holder.current
        if bundle is None:
            return Status(None, self._holder.reason)
        problem = await self._workers.run(store_problem, bundle.pair.contract, bundle.dataset, self._settings)
        return Status(bundle.pair, problem)

    def served_pair(self) -> PairInfo | None:
        """Return the pair that would answer now."""
        return self._holder.current.pair if self._holder.current else None

    def _from_store(
        self, bundle: Bundle, entities: Sequence[EntityId], time_point: str, future: Sequence[dict[str, Any]]
    ) -> Prediction:
        contract = bundle.pair.contract
        panel = read_panel(contract, bundle.dataset, bundle.staleness, entities, time_point, self._settings)
        panel = with_future_of_request(panel, future, contract, bundle.forecaster.preprocessor.columns, bundle.rules)
        return _answered(bundle, panel)

    def _from_rows(self, bundle: Bundle, rows: Sequence[dict[str, Any]]) -> Prediction:
        panel = panel_from_rows(rows, bundle.pair.contract, bundle.forecaster.preprocessor.columns, bundle.rules)
        return _answered(bundle, panel)


def _answered(bundle: Bundle, panel: FeaturePanel) -> Prediction:
    # Before the model is asked, because a refusal needs no forecast.
    falls_back = bundle.rules.fallbacks(panel, bundle.pair.contract)
    return Prediction.of(bundle.pair, panel, bundle.forecaster.answer(panel), bundle.rules, falls_back)


def parse_arguments(description: str, argv: Sequence[str] | None = None) -> tuple[Settings, str, int]:
    """Return settings, host and port from the command line and the environment; shared by both servers.

    Raises:
        SystemExit: with status 2 and the known names, if there is no such experiment.
    """
    parser = argparse.ArgumentParser(description=description)
    settings = Settings.from_env()
    parser.add_argument("--host", default=settings.serving_host, help="default: MLPLATFORM_HOST or 127.0.0.1")
    parser.add_argument("--port", type=int, default=settings.serving_port, help="default: MLPLATFORM_PORT or 8000")
    parser.add_argument("--experiment", help="experiment to serve; default: MLPLATFORM_EXPERIMENT")
    arguments = parser.parse_args(argv)
    if arguments.experiment:
        settings = dataclasses.replace(settings, experiment=arguments.experiment)
    known = experiment_names(settings)
    if settings.experiment not in known:
        # A server that could never be ready should not look like one that waits for its first training run.
        parser.error(
            f"unknown experiment {settings.experiment!r}; known: {', '.join(known)}; correct --experiment or "
            "MLPLATFORM_EXPERIMENT, or add the experiment's YAML to MLPLATFORM_CONF_DIR"
        )
    return settings, arguments.host, arguments.port


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered and the prediction log is written."""
    settings, host, port = parse_arguments("Serve predictions from one process.", argv)
    _one_thread_per_request()
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)

    # uvicorn raises the signal that stopped it once more when it is done; a clean stop should not look like a crash.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    import uvicorn

    from serving.api import build_app

    app = build_app(LocalBackend(settings), settings)
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        http=http_protocol(),
        # Longer than load balancers keep idle connections (60 s), so that the server is never the first to close one.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=20,
    )


def _one_thread_per_request() -> None:
    """Have numerical libraries use one thread, unless `OMP_NUM_THREADS` says otherwise.

    Small batches are fastest on one thread, and parallel requests use the other cores. Ray Serve sets the same for its
    replicas; sums over several threads would round differently there and here.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # it ships no types

    # The variable reaches libraries that load later (XGBoost, PyTorch); NumPy's is loaded by now.
    os.environ["OMP_NUM_THREADS"] = "1"
    threadpool_limits(1)


if __name__ == "__main__":
    main()
