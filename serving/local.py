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
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mlplatform.config import ConfigError, experiment_names, require_experiments
from mlplatform.features import NOW, FeatureStoreError
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.settings import EVERY, ServerLimits, Settings
from serving.alerting import tell_failed_load
from serving.backend import DEFAULT, Challenger, Choice, EntityId, Prediction, ReloadReport, Served, Status
from serving.batching import Batcher
from serving.breaker import CircuitBreaker
from serving.bundle import Bundle, BundleHolder, BundleLoader
from serving.challenger import CHALLENGER_PATIENCE_S, ChallengerHolder
from serving.concurrency import Workers, keep_loaded, let_the_loop_in
from serving.errors import ServingError
from serving.explain import DEADLINE_S as EXPLANATION_DEADLINE_S
from serving.explain import answer_explained, require_explainable
from serving.health import StoreHealth
from serving.inference import store_problem
from serving.keeper import Keeper
from serving.last_forecasts import LastForecasts
from serving.questions import Question, answer_all, answer_late
from serving.rows import panel_from_rows, with_future_of_request
from serving.stages import Deadline, Stage
from serving.store_reads import LARGEST_SHARED, StoreRead, read_all
from serving.timing import StageTimes
from serving.tracing import span

logger = logging.getLogger(__name__)

# Entities that are answered in one call; a request with more has a thread to itself.
LARGEST_BATCH = 64
_STORE_READ = "read of the feature store"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Stages:
    """What all experiments of a process share: the threads that read stores, probe them, and compute.

    Parameters:
        limits: says how much may wait, and how long.
    """

    def __init__(self, limits: ServerLimits) -> None:
        waiting = limits.max_requests // 2
        # So that requests with rows of their own find a place while a store hangs, it gets half of them.
        self.store = Stage(_STORE_READ, waiting=waiting, deadline_s=limits.store_deadline_s, threads=4)
        self.reads: Batcher[StoreRead, FeaturePanel] = Batcher(
            read_all, LARGEST_BATCH, places=waiting, name=_STORE_READ
        )
        self.probe = Stage("probe of the feature store", waiting=4, deadline_s=limits.store_deadline_s, threads=2)
        self.bulk = Stage("model", waiting=limits.max_requests)
        self.explanation = Stage("explanation", waiting=8, deadline_s=EXPLANATION_DEADLINE_S, threads=1)
        self.batch: Batcher[Question, Prediction] = Batcher(
            answer_all, LARGEST_BATCH, Question.note_wait, limits.max_requests
        )

    def queues(self) -> Mapping[str, int]:
        """Return how many requests wait for which of them."""
        return {"features": self.reads.depth + self.store.depth, "model": self.batch.depth + self.bulk.depth}

    def close(self) -> None:
        """Let the threads end."""
        for stage in (self.store, self.probe, self.bulk, self.explanation):
            stage.close()
        self.reads.close()
        self.batch.close()

    async def read(self, asked: StoreRead) -> FeaturePanel:
        """Return the latest features of entities; few of them share their read with others that wait.

        Raises:
            ServingError: 503 if the stage is full, or its deadline passed; and what `read_panel` raises.
        """
        if len(asked.entities) > LARGEST_SHARED:
            return await self.store.run(asked.panel)
        async with Deadline(_STORE_READ, self.store.deadline_s):
            return await self.reads.ask(asked)


class Lane:
    """The stages that one pair's requests go through, and the breaker around the store they read.

    Parameters:
        stages: their threads.
    """

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.breaker = CircuitBreaker()


class LocalBackend:
    """Computes answers in this process.

    Parameters:
        settings: the experiment, and the place of its registry and store.
        stages: shared with the other experiments of the process; default: of its own.

    Attributes:
        times: how long the stages of its requests took.
    """

    def __init__(self, settings: Settings, stages: Stages | None = None) -> None:
        self._settings = settings
        self._stages = stages or Stages(settings.limits)
        self._holder = BundleHolder(BundleLoader(settings))
        self.times = StageTimes()
        self._lane = Lane(self._stages)
        # Threads of its own, so that a challenger that hangs, hangs alone.
        self._challenger_lane = Lane(Stages(settings.limits))
        self._challenger_loading = Workers(1)
        self._challenger = self._challenger_holder()
        told = tell_failed_load(settings, lambda: bundle.pair.version if (bundle := self._holder.current) else None)
        self._keeper = Keeper(settings.experiment, self._refresh, settings.limits.poll_s, told)
        self._health = StoreHealth(self._probe)
        self._last = LastForecasts()
        self._is_open = False

    async def start(self) -> None:
        """Begin to load the production pair; the server answers other requests meanwhile."""
        self._keeper.start()

    async def close(self) -> None:
        """Let the threads end."""
        await self._keeper.close()
        await self._challenger.close()
        self._challenger_loading.close()
        self._challenger_lane.stages.close()
        self._stages.close()
        self._holder.close()

    async def forecast_entities(
        self,
        entities: Sequence[EntityId],
        time_point: str,
        future: Sequence[dict[str, Any]] = (),
        choice: Choice = DEFAULT,
        explain: bool = False,
    ) -> Prediction:
        """Predict for entities of the feature store."""
        bundle = await self._chosen(choice)
        if explain:
            require_explainable(bundle)
        contract, types = bundle.pair.contract, bundle.forecaster.preprocessor.columns
        lane = self._lane_of(choice)
        read = StoreRead(bundle, entities, self._settings, time_point)
        with self.times.timed("features", bundle.pair.version):
            if time_point == NOW:
                panel = await lane.breaker.call(partial(lane.stages.read, read))
            else:
                # The past is read from files, which takes its time and does not hang.
                panel = await lane.stages.bulk.run(read.panel)
        whole = partial(with_future_of_request, panel, future, contract, types, bundle.rules)
        recall = self._last.recall_for(choice, time_point)
        question, stages = Question(bundle, whole, times=self.times, recall=recall), lane.stages
        if explain:
            return await self._explain(question, stages)
        prediction = await self._answer(question, len(entities), stages)
        self._last.remember(prediction, choice, time_point, bundle.answering)
        return prediction

    async def predict_rows(
        self, rows: Sequence[dict[str, Any]], choice: Choice = DEFAULT, explain: bool = False
    ) -> Prediction:
        """Predict from raw rows."""
        bundle = await self._chosen(choice)
        types = bundle.forecaster.preprocessor.columns
        panel = partial(panel_from_rows, rows, bundle.pair.contract, types, bundle.rules)
        question, stages = Question(bundle, panel, rows, self.times), self._lane_of(choice).stages
        if explain:
            require_explainable(bundle)
            return await self._explain(question, stages)
        return await self._answer(question, len(rows) // bundle.pair.contract.least_rows, stages)

    async def reload(self) -> ReloadReport:
        """Serve the pair that is in production now."""
        report = await self._holder.reload()
        self._look_for_challenger()
        await self._challenger.settled(CHALLENGER_PATIENCE_S)
        return report

    async def status(self) -> Status:
        """Say whether a pair is loaded and the feature store answers; does not wait for a store that hangs."""
        bundle = self._holder.current
        if bundle is None:
            return Status(None, self._holder.reason)
        if not self._is_open:
            return Status(bundle.pair, f"the feature store of dataset {bundle.dataset.name!r} is being opened")
        return Status(bundle.pair, await self._health.problem())

    def looks(self) -> Mapping[str, int]:
        """Return how the looks for another pair ended."""
        return self._keeper.outcomes

    def queues(self) -> Mapping[str, int]:
        """Return how many requests wait for which stage."""
        return self._stages.queues()

    def served(self) -> Served | None:
        """Return what would answer now."""
        bundle = self._holder.current
        return None if bundle is None else bundle.served()

    def challenger(self) -> Challenger | None:
        """Return what shares the work with it."""
        bundle = self._holder.current
        return self._challenger.state(bundle.pair if bundle else None)

    def challenger_looks(self) -> Mapping[str, int]:
        """Return how the looks for the challenger ended."""
        return self._challenger.outcomes

    async def _chosen(self, choice: Choice) -> Bundle:
        if choice.is_challenger:
            return self._challenger.require()
        return self._holder.require() if choice.is_default else await self._holder.chosen(choice)

    def _lane_of(self, choice: Choice) -> Lane:
        return self._challenger_lane if choice.is_challenger else self._lane

    def _challenger_holder(self) -> ChallengerHolder[Bundle]:
        run = self._challenger_loading.run
        loader = BundleLoader(self._settings, self._settings.served_challengers_dir)
        return ChallengerHolder(
            self._settings.experiment,
            lambda alias, may_be_kept: run(loader.challenger, alias, may_be_kept),
            lambda pair: run(loader.load, pair),
            Bundle.served,
        )

    def _look_for_challenger(self) -> None:
        bundle = self._holder.current
        if bundle is not None:
            self._challenger.changed(bundle.with_policies_for)
            self._challenger.look(bundle.answering.challenger, bundle.served())

    async def _refresh(self) -> ReloadReport:
        report = await self._holder.reload()
        self._look_for_challenger()
        is_first = not self._is_open
        if is_first:
            bundle = self._holder.require()
            # The first look imports Feast and opens its store, which would otherwise cost the first requests seconds.
            await self._holder.run(store_problem, bundle.pair.contract, bundle.dataset, self._settings)
            self._is_open = True
            keep_loaded()
        if is_first or report.swapped:
            await self._holder.run(_keep_feast_registry, self._settings)
        return report

    async def _answer(self, question: Question, entities: int, stages: Stages) -> Prediction:
        # Of what requests share in a batch, no span is one request's own.
        with span("model", version=question.bundle.pair.version, entities=entities):
            if question.bundle.is_batchable and entities <= LARGEST_BATCH:
                return await stages.batch.ask(question)
            return await stages.bulk.run(answer_late, question, time.perf_counter())

    async def _explain(self, question: Question, stages: Stages) -> Prediction:
        return await stages.explanation.run(answer_explained, question)

    async def _probe(self) -> str | None:
        bundle = self._holder.require()
        try:
            return await self._stages.probe.run(store_problem, bundle.pair.contract, bundle.dataset, self._settings)
        except ServingError as error:
            return f"the online feature store does not answer for dataset {bundle.dataset.name!r}: {error.message}"


def _keep_feast_registry(settings: Settings) -> None:
    from mlplatform.features.feast import keep_registry

    try:
        keep_registry(settings)
    except (FeatureStoreError, OSError) as error:
        logger.warning("a start without Feast's registry would fail, it is not kept: %s", error)


def parse_arguments(
    description: str, argv: Sequence[str] | None = None, *, has_workers: bool = False
) -> tuple[Settings, str, int]:
    """Return settings, host and port from the command line and the environment; shared by both servers.

    `experiments` of the settings are the names to serve, `experiment` the default one among them.

    Parameters:
        has_workers: whether the server may be several processes.

    Raises:
        SystemExit: with status 2 and the known names, if there is no such experiment.
    """
    parser = argparse.ArgumentParser(description=description)
    settings = Settings.from_env()
    parser.add_argument("--host", default=settings.serving_host, help="default: MLPLATFORM_HOST or 127.0.0.1")
    parser.add_argument("--port", type=int, default=settings.serving_port, help="default: MLPLATFORM_PORT or 8000")
    parser.add_argument(
        "--experiment",
        help="experiment to serve, or several separated by commas, the default one first, or * for all; default: "
        "MLPLATFORM_EXPERIMENTS, else MLPLATFORM_EXPERIMENT",
    )
    if has_workers:
        text = "processes that answer on the port; default: MLPLATFORM_WORKERS or 1"
        parser.add_argument("--workers", type=int, default=settings.workers, help=text)
    arguments = parser.parse_args(argv)
    if has_workers:
        if arguments.workers < 1:
            parser.error(f"--workers must be at least 1, but is {arguments.workers}")
        settings = dataclasses.replace(settings, workers=arguments.workers)
    try:
        settings = served_settings(settings, arguments.experiment)
    except ConfigError as error:
        # A server that could never be ready should not look like one that waits for its first training run.
        parser.error(str(error))
    return settings, arguments.host, arguments.port


def served_settings(settings: Settings, experiments: str | None = None) -> Settings:
    """Return settings whose `experiments` are the names to serve, `experiment` the default one among them.

    Parameters:
        experiments: names separated by commas, the default one first, or `*` for all; default: those of the settings.

    Raises:
        ConfigError: if there is no such experiment.
    """
    known = experiment_names(settings)
    asked = [settings.experiment, *settings.experiments]
    if experiments:
        asked = [name.strip() for name in experiments.split(",")]
    if EVERY in asked:
        asked = [*(name for name in asked if name != EVERY), *known]
    require_experiments(asked, settings, "" if experiments else "MLPLATFORM_EXPERIMENT or MLPLATFORM_EXPERIMENTS")
    names = tuple(dict.fromkeys(asked))
    return dataclasses.replace(settings, experiment=names[0], experiments=names)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests in flight are answered and the prediction log is written."""
    settings, host, port = parse_arguments("Serve predictions without Ray.", argv, has_workers=True)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    if settings.workers > 1:
        from serving.supervisor import Supervisor, worker_command

        command = worker_command(",".join(settings.experiments))
        Supervisor(command, settings.workers, host, port, settings.limits.drain_s, settings.probe_port).run()
        return
    from serving.ports import require_free
    from serving.process import run

    require_free(host, port)
    if settings.probe_port:
        require_free(host, settings.probe_port, "MLPLATFORM_PROBE_PORT")
    prepare_process()

    from serving.api import build_app

    run(build_app(local_backends(settings), settings), host, port, settings)


def local_backends(settings: Settings) -> dict[str, LocalBackend]:
    """Return the backend of every experiment, the default one first; they share their threads."""
    stages = Stages(settings.limits)
    return {name: LocalBackend(dataclasses.replace(settings, experiment=name), stages) for name in settings.experiments}


def prepare_process() -> None:
    """Have this process serve: its threads, its signals, its patience with a registry that is away."""
    _one_thread_per_request()
    let_the_loop_in()
    # uvicorn raises the signal that stopped it once more when it is done; a clean stop should not look like a crash.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _fail_fast_without_registry()


def _fail_fast_without_registry() -> None:
    """Have MLflow's client give up within seconds, not minutes: the server asks again by itself."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")


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
