"""The same routes from Ray Serve, each step of a prediction in a deployment of its own.

`ForecastAPI` (HTTP, validation, answers) asks `FeastService` for windows, `PreprocessingService` for samples,
`ModelService` for the model's output, and `PreprocessingService` again for original units. The version to use travels
with every call, so replicas can never mix two pairs: a service that does not hold that version loads it aside, and
keeps the last two. A reload first has every service load the new version and then swaps one reference in `ForecastAPI`;
no deployment is reconfigured, so no request waits or fails.

Run it with `python -m serving.ray_app` (or `make serve-ray`). It starts a Ray instance of its own on the loopback
interface and stops it at the end. Ray is imported only in the functions that use it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mlplatform.config import (
    ConfigError,
    DatasetConfig,
    DeploymentConfig,
    ObservationConfig,
    RequestsConfig,
    StalenessConfig,
    load_serving,
)
from mlplatform.datamodule import Samples
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Answers
from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.alerting import tell_failed_load
from serving.api import build_app
from serving.backend import DEFAULT, Choice, EntityId, Prediction, ReloadReport, Served, Status
from serving.bundle import Bundle, BundleLoader, reload_failure
from serving.concurrency import Coalescer, Workers
from serving.errors import ServingError
from serving.health import StoreHealth
from serving.inference import read_panel, store_problem
from serving.keeper import Keeper
from serving.local import LOG_FORMAT, parse_arguments, served_settings
from serving.ray_calls import repeated
from serving.rows import panel_from_rows, with_future_of_request
from serving.rules import RowRules

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application
    from ray.serve.handle import DeploymentHandle

    Handle = DeploymentHandle[Any]

logger = logging.getLogger(__name__)

T = TypeVar("T")

APPLICATION = "mlplatform"
VERSIONS_KEPT = 2
# From so many cores on, a deployment has two replicas unless its configuration says otherwise.
CORES_FOR_TWO = 4
OBJECT_STORE_BYTES = 128 * 1024 * 1024
# A Unix socket's path may have 107 characters, and Ray appends about 70 to its folder.
LONGEST_RAY_FOLDER = 36


@dataclass(frozen=True)
class PairRef:
    """Which pair a call is about; small, because it travels with every call."""

    experiment: str
    version: int
    pair_id: str

    @classmethod
    def of(cls, pair: PairInfo) -> PairRef:
        """Return the reference to a pair."""
        return cls(pair.name, pair.version, pair.pair_id)


@dataclass(frozen=True)
class Policies:
    """What answers requests now: a pair, what is told about it, and the policies of the experiment's configuration."""

    served: Served
    staleness: StalenessConfig
    rules: RowRules

    @property
    def pair(self) -> PairInfo:
        """The pair."""
        return self.served.pair


class VersionCache(Generic[T]):
    """What a replica holds per version: loaded on demand, once, in a thread; an experiment's last two used are kept."""

    def __init__(self, load: Callable[[PairRef], T]) -> None:
        self._load = load
        self._workers = Workers(1)
        self._loads: OrderedDict[PairRef, asyncio.Task[T]] = OrderedDict()

    async def get(self, ref: PairRef) -> T:
        """Return what belongs to a version; raises what its load raises, and tries again on the next call."""
        if ref not in self._loads:
            self._loads[ref] = asyncio.create_task(self._workers.run(self._load, ref))
        self._loads.move_to_end(ref)
        mine = [other for other in self._loads if other.experiment == ref.experiment]
        for other in mine[:-VERSIONS_KEPT]:
            del self._loads[other]
        load = self._loads[ref]
        try:
            # Shielded: a client that goes away must not cancel a load that others wait for.
            return await asyncio.shield(load)
        except Exception:
            if self._loads.get(ref) is load:
                del self._loads[ref]
            raise


class Loaders:
    """Loaders of pairs, one per experiment, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaders: dict[str, BundleLoader] = {}

    def of(self, ref: PairRef) -> BundleLoader:
        """Return the loader of the experiment that a pair belongs to."""
        if ref.experiment not in self._loaders:
            self._loaders[ref.experiment] = BundleLoader(replace(self._settings, experiment=ref.experiment))
        return self._loaders[ref.experiment]


class FeastService:
    """Reads windows from the online feature store."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaders = Loaders(settings)
        self._workers = Workers()
        self._pairs: VersionCache[tuple[PairInfo, DatasetConfig]] = VersionCache(self._load)

    async def prepare(self, ref: PairRef) -> None:
        """Load what requests for a version will need."""
        await self._pairs.get(ref)

    async def read(
        self, ref: PairRef, staleness: StalenessConfig, entities: Sequence[EntityId], time_point: str
    ) -> FeaturePanel | ServingError:
        """Return the latest rows of the entities, or what to tell the client."""
        pair, dataset = await self._pairs.get(ref)
        try:
            return await self._workers.run(
                read_panel, pair.contract, dataset, staleness, entities, time_point, self._settings
            )
        except ServingError as error:
            # As a value: Ray logs a raised exception with its traceback, and a client's mistake is not worth one.
            return error

    async def problem(self, ref: PairRef) -> str | None:
        """Return why the store cannot answer, or `None`."""
        pair, dataset = await self._pairs.get(ref)
        return await self._workers.run(store_problem, pair.contract, dataset, self._settings)

    def _load(self, ref: PairRef) -> tuple[PairInfo, DatasetConfig]:
        loader = self._loaders.of(ref)
        return loader.version(ref.version, ref.pair_id), loader.config().dataset


class PairService:
    """Base of the services that apply one half of a pair; both halves are loaded, because they are verified as one."""

    def __init__(self, settings: Settings) -> None:
        self._loaders = Loaders(settings)
        self._workers = Workers()
        self._bundles: VersionCache[Bundle] = VersionCache(self._load)

    async def prepare(self, ref: PairRef) -> None:
        """Load what requests for a version will need."""
        await self._bundles.get(ref)

    def _load(self, ref: PairRef) -> Bundle:
        loader = self._loaders.of(ref)
        return loader.load(loader.version(ref.version, ref.pair_id))


class PreprocessingService(PairService):
    """Checks raw rows, and maps panels to samples and outputs to original units."""

    async def described(
        self,
        ref: PairRef,
        staleness: StalenessConfig,
        dataset: DatasetConfig,
        policy: RequestsConfig,
        observation: ObservationConfig,
    ) -> tuple[Served, RowRules]:
        """Return what clients are told about a pair, and what rows of requests may hold."""
        bundle = await self._bundles.get(ref)
        rules = RowRules.of(bundle.forecaster, dataset, policy, observation)
        return replace(bundle, staleness=staleness).served(), rules

    async def panel(self, ref: PairRef, rows: Sequence[dict[str, Any]], rules: RowRules) -> FeaturePanel | ServingError:
        """Return checked raw rows as a panel, or what to tell the client."""
        bundle = await self._bundles.get(ref)
        try:
            return await self._workers.run(
                panel_from_rows, rows, bundle.pair.contract, bundle.forecaster.preprocessor.columns, rules
            )
        except ServingError as error:
            return error

    async def future(
        self, ref: PairRef, panel: FeaturePanel, rows: Sequence[dict[str, Any]], rules: RowRules
    ) -> FeaturePanel | ServingError:
        """Return the panel with the future that the request brings, or what to tell the client."""
        bundle = await self._bundles.get(ref)
        types = bundle.forecaster.preprocessor.columns
        try:
            return await self._workers.run(with_future_of_request, panel, rows, bundle.pair.contract, types, rules)
        except ServingError as error:
            return error

    async def preprocess(self, ref: PairRef, panel: FeaturePanel) -> Samples:
        """Return the samples of a panel."""
        bundle = await self._bundles.get(ref)
        return await self._workers.run(bundle.forecaster.preprocess, panel)

    async def postprocess(self, ref: PairRef, answers: Answers) -> Answers:
        """Return the model's answers in original units."""
        bundle = await self._bundles.get(ref)
        return await self._workers.run(bundle.forecaster.postprocess_answers, answers)


class ModelService(PairService):
    """Applies the model."""

    async def infer(self, ref: PairRef, samples: Samples) -> Answers:
        """Return the model's answers in preprocessed space."""
        bundle = await self._bundles.get(ref)
        return await self._workers.run(bundle.forecaster.infer_answers, samples)


class RayBackend:
    """Computes answers by asking the services."""

    def __init__(
        self,
        settings: Settings,
        feast: Handle,
        preprocessing: Handle,
        model: Handle,
    ) -> None:
        self._feast, self._preprocessing, self._model = feast, preprocessing, model
        self._loader = BundleLoader(settings)
        self._workers = Workers(1)
        self._current: Policies | None = None
        self._reason = f"the production pair of {settings.experiment!r} is being loaded"
        self._coalesced_reload = Coalescer(self._swap)
        told = tell_failed_load(settings, lambda: current.pair.version if (current := self._current) else None)
        self._keeper = Keeper(settings.experiment, self.reload, settings.limits.poll_s, told)
        self._health = StoreHealth(self._probe)

    async def start(self) -> None:
        """Begin to load the production pair; the server answers other requests meanwhile."""
        self._keeper.start()

    async def close(self) -> None:
        """Stop looking for another pair; the services end with their replicas."""
        await self._keeper.close()

    async def forecast_entities(
        self,
        entities: Sequence[EntityId],
        time_point: str,
        future: Sequence[dict[str, Any]] = (),
        choice: Choice = DEFAULT,
    ) -> Prediction:
        """Predict for entities of the feature store."""
        chosen = await self._chosen(choice)
        ref = PairRef.of(chosen.pair)
        # The policy travels with the call, as the version does: all replicas apply the one that was loaded last.
        panel = _unless_refused(
            await repeated(lambda: self._feast.read.remote(ref, chosen.staleness, entities, time_point))
        )
        if future or chosen.pair.contract.known:
            past = panel
            panel = _unless_refused(
                await repeated(lambda: self._preprocessing.future.remote(ref, past, future, chosen.rules))
            )
        return await self._predict(chosen, panel)

    async def predict_rows(self, rows: Sequence[dict[str, Any]], choice: Choice = DEFAULT) -> Prediction:
        """Predict from raw rows."""
        chosen = await self._chosen(choice)
        ref = PairRef.of(chosen.pair)
        panel = await repeated(lambda: self._preprocessing.panel.remote(ref, rows, chosen.rules))
        return await self._predict(chosen, _unless_refused(panel))

    async def reload(self) -> ReloadReport:
        """Serve the pair that is in production now."""
        return await self._coalesced_reload()

    async def status(self) -> Status:
        """Say whether a pair is loaded and the feature store answers."""
        if self._current is None:
            return Status(None, self._reason)
        pair = self._current.pair
        return Status(pair, await self._health.problem())

    def looks(self) -> Mapping[str, int]:
        """Return how the looks for another pair ended."""
        return self._keeper.outcomes

    def served(self) -> Served | None:
        """Return what would answer now."""
        return self._current.served if self._current else None

    def _require(self) -> Policies:
        if self._current is None:
            raise ServingError(503, "no_production_pair", self._reason)
        return self._current

    async def _chosen(self, choice: Choice) -> Policies:
        if choice.is_default:
            return self._require()
        return await self._policies(await self._workers.run(self._loader.find, choice))

    async def _policies(self, pair: PairInfo) -> Policies:
        """Return the policies that hold for a pair, having the services load it if they did not."""
        config = await self._workers.run(self._loader.config)
        policies = config.dataset, config.requests, config.observation
        ref = PairRef.of(pair)
        served, rules = await repeated(lambda: self._preprocessing.described.remote(ref, config.staleness, *policies))
        return Policies(served, config.staleness, rules)

    async def _probe(self) -> str | None:
        ref = PairRef.of(self._require().pair)
        problem: str | None = await repeated(lambda: self._feast.problem.remote(ref))
        return problem

    async def _predict(self, served: Policies, panel: FeaturePanel) -> Prediction:
        # Before the model is asked, because a refusal needs no forecast.
        falls_back = served.rules.fallbacks(panel, served.pair.contract)
        ref = PairRef.of(served.pair)
        whole = await repeated(lambda: self._computed(ref, panel))
        return Prediction.of(served.pair, panel, whole, served.rules, falls_back)

    async def _computed(self, ref: PairRef, panel: FeaturePanel) -> Answers:
        # Responses are passed on unawaited: samples and answers go from service to service, not through this process.
        samples = self._preprocessing.preprocess.remote(ref, panel)
        answers = self._model.infer.remote(ref, samples)
        whole: Answers = await self._preprocessing.postprocess.remote(ref, answers)
        return whole

    async def _swap(self) -> ReloadReport:
        previous = self._current.pair if self._current else None
        try:
            pair = await self._workers.run(self._loader.production)
            if previous is None or previous.pair_id != pair.pair_id:
                await asyncio.gather(*(_prepare(service, PairRef.of(pair)) for service in self._services))
            policies = await self._policies(pair)
        except Exception as error:
            failure = reload_failure(_raised_by_service(error), previous)
            self._reason = failure.message
            raise failure from error
        self._current = policies
        return ReloadReport(pair, previous.version if previous else None)

    @property
    def _services(self) -> tuple[Handle, ...]:
        return self._feast, self._preprocessing, self._model


class ForecastAPI:
    """The ingress: the routes of `serving.api` on top of the services."""

    def __init__(
        self,
        settings: Settings,
        feast: Handle,
        preprocessing: Handle,
        model: Handle,
    ) -> None:
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        backends = {
            name: RayBackend(replace(settings, experiment=name), feast, preprocessing, model)
            for name in settings.experiments
        }
        # Ray's proxy makes the request id and puts it on the answer.
        self._app = build_app(backends, settings, is_request_id_answered=False)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Ray Serve calls this after the constructor."""
        return self._app


def build_application(args: Mapping[str, Any]) -> Application:
    """Return the Serve application for a cluster: `serve run serving.ray_app:build_application experiment=a,b`.

    Parameters:
        args: `experiment`: what to serve, as `--experiment` of the servers; `serving`: option of the configuration
            group `serving`. What is missing comes from the environment.

    Raises:
        ConfigError: if an experiment or option is unknown, a file cannot be used, or there are other arguments.
    """
    unknown = sorted(set(args) - {"experiment", "serving"})
    if unknown:
        raise ConfigError(f"unknown arguments {', '.join(unknown)}; known: experiment, serving")
    settings = served_settings(Settings.from_env(), args.get("experiment"))
    return application(replace(settings, serving_config=args.get("serving") or settings.serving_config))


def application(settings: Settings) -> Application:
    """Return the Serve application: the four deployments, bound to each other.

    Raises:
        ConfigError: if the option of the group `serving` is unknown, or its file cannot be used.
    """
    from ray import serve

    config = load_serving(settings.serving_config, settings)
    # Only the ingress checks tokens, and no replica signs; the others never get to see what that takes.
    public = replace(settings.without_signing_key(), admin_token=None, api_tokens=())
    feast, preprocessing, model = (
        serve.deployment(**options_of(config.of(service.__name__)))(service).bind(public)
        for service in (FeastService, PreprocessingService, ModelService)
    )
    ingress = serve.deployment(name="ForecastAPI", **options_of(config.of("ForecastAPI")))
    whole: Application = ingress(serve.ingress()(ForecastAPI)).bind(
        settings.without_signing_key(), feast, preprocessing, model
    )
    return whole


def options_of(config: DeploymentConfig) -> dict[str, Any]:
    """Return a deployment's configuration as the options that Ray Serve takes."""
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        "max_ongoing_requests": config.max_ongoing_requests,
        "max_queued_requests": config.max_queued_requests,
        "health_check_period_s": config.health_check_period_s,
        "health_check_timeout_s": config.health_check_timeout_s,
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": config.graceful_shutdown_timeout_s,
        "logging_config": {"enable_access_log": False},
    }
    if config.autoscaling is not None:
        return {**options, "autoscaling_config": config.autoscaling.model_dump()}
    return {**options, "num_replicas": config.replicas or (2 if (os.cpu_count() or 1) >= CORES_FOR_TWO else 1)}


@contextmanager
def running(settings: Settings, host: str, port: int) -> Iterator[None]:
    """Serve from a Ray instance of its own while the context is open, and leave no process behind."""
    _refuse_haproxy()
    _set_environment()

    import ray
    from ray import serve

    with _ray_folder(settings.home) as folder:
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                _temp_dir=str(folder),
            )
            _stop_on_sigterm()
            serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
            serve.run(application(settings), name=APPLICATION, route_prefix="/")
            yield
        finally:
            if ray.is_initialized():
                serve.shutdown()  # type: ignore[no-untyped-call] # it has no annotations
            ray.shutdown()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then stop Ray; requests in flight are answered and the log is written."""
    settings, host, port = parse_arguments("Serve predictions from Ray Serve.", argv)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    with suppress(KeyboardInterrupt), running(settings, host, port):
        logger.info("serving %s on http://%s:%d", ", ".join(settings.experiments), host, port)
        threading.Event().wait()
    logger.info("stopped")


def _stop_on_sigterm() -> None:
    """Have SIGTERM do what SIGINT does: unwind, and shut Ray down on the way.

    Called after Ray started, because Ray installs a handler of its own that aborts the process.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)


async def _prepare(service: Handle, ref: PairRef) -> None:
    """Have every replica of a service load a version."""
    # A plain call waits until there is a replica at all; a broadcast reaches those that are up.
    await repeated(lambda: service.prepare.remote(ref))
    await repeated(lambda: service.broadcast("prepare", ref).results_async())


def _unless_refused(panel: FeaturePanel | ServingError) -> FeaturePanel:
    if isinstance(panel, ServingError):
        raise panel
    return panel


def _raised_by_service(error: Exception) -> Exception:
    """Return the exception that a service raised, out of the one that Ray delivers."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


def _refuse_haproxy() -> None:
    if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        raise SystemExit(
            "RAY_SERVE_ENABLE_HA_PROXY=1 makes Ray Serve listen on all network interfaces, whatever the host option "
            "says; unset it, or run Ray Serve behind a firewall of your own with `serve run`"
        )


def _set_environment() -> None:
    """Set the switches that Ray reads when it is imported; its processes inherit them."""
    os.environ.update(
        {
            "RAY_USAGE_STATS_ENABLED": "0",
            # The name is historical: without it every Ray process listens on all network interfaces.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            # Calls between replicas have a port of their own that listens everywhere all the same, so every call must
            # carry a token; one per run, because the default one would be written to the home directory.
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            # The proxy starts uvicorn itself; this is the one place where it asks what to add.
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.connections.answer_half_closed_clients",
        }
    )
    defaults = {
        # Replicas are servers, not batch jobs: they should not yield to every other process.
        "RAY_worker_niceness": "0",
        # As in `serving.local`, and for the same reasons.
        "OMP_NUM_THREADS": "1",
        # The handlers never block, so threads and event loops of their own only add hand-overs.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        # Small arguments are faster in the call itself than through the object store.
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


@contextmanager
def _ray_folder(home: Path) -> Iterator[Path]:
    """Yield the folder for Ray's sockets and logs: under `home`, or a temporary one where that path is too long."""
    folder = home / "ray"
    if len(str(folder)) <= LONGEST_RAY_FOLDER:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="mlp-ray-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    # Through the import system, so that replicas find the classes in `serving.ray_app`, not in `__main__`.
    from serving.ray_app import main as run

    run()
