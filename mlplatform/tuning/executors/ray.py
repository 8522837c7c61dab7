"""Trials on a Ray cluster: the one that RAY_ADDRESS names, otherwise one on this machine for the time of the search.

The process that started the search asks the study for values and tells it the results; the cluster never sees the
journal. Folds are put into Ray's object store once. Every actor keeps them, with their quantised matrices, and fits on
one core. An actor decides about pruning by the medians at the time its trial started. The cluster's machines need this
package, at the same version, and the plug-in modules from outside.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlplatform.config import ExperimentConfig
from mlplatform.plugins import EXECUTORS
from mlplatform.settings import PLUGINS_VARIABLE, plugin_modules

if TYPE_CHECKING:
    import optuna

    from mlplatform.training import FoldData
    from mlplatform.tuning.search import Ended, Search
    from mlplatform.tuning.study import Thresholds

ADDRESS = "RAY_ADDRESS"
OBJECT_STORE_BYTES = 512 * 1024 * 1024
# Actors that die one after another, without a trial finished in between, until the search gives up.
DEATHS = 4


@EXECUTORS.register("ray")
class RayActors:
    """Runs one trial per actor; which values are tried depends on which trials finish first."""

    def run(self, study: optuna.Study, search: Search) -> None:
        """Run trials until a limit of the search is reached.

        Raises:
            RuntimeError: if actors die one after another.
        """
        with connected():
            import ray

            from mlplatform.tuning.handover import without_caches
            from mlplatform.tuning.limits import trial_budget

            cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call] # it has no annotations
            wanted = min(search.config.tuning.workers or cores, trial_budget(search.config))
            folds = ray.put(without_caches(search.folds))
            driver = Driver(study, search, lambda: _actor_class().remote(search.config, folds))
            while driver.start(wanted):
                driver.wait()


class Driver:
    """The trials under way: which actor runs which."""

    def __init__(self, study: optuna.Study, search: Search, new_actor: Any) -> None:
        self._study = study
        self._search = search
        self._new_actor = new_actor
        self._idle: list[Any] = []
        self._under_way: dict[Any, tuple[Any, optuna.Trial]] = {}
        self._deaths = 0

    def start(self, wanted: int) -> bool:
        """Start trials until `wanted` run, or a limit is reached; return whether any runs."""
        from mlplatform.tuning.search import params_of, take
        from mlplatform.tuning.study import MedianAtStep

        while len(self._under_way) < wanted and (trial := take(self._study, self._search)) is not None:
            params = params_of(self._search.config, trial)
            assert isinstance(self._study.pruner, MedianAtStep)
            actor = self._idle.pop() if self._idle else self._new_actor()
            answer = actor.fit.remote(params, self._study.pruner.thresholds(self._study))
            self._under_way[answer] = actor, trial
        return bool(self._under_way)

    def wait(self) -> None:
        """Wait for the next trial to end, and write down how it did."""
        import ray
        from ray.exceptions import RayActorError

        from mlplatform.tuning.search import describe, record
        from mlplatform.tuning.study import interrupt
        from mlplatform.tuning.trials import finished, running

        (answer, *_), _ = ray.wait(list(self._under_way))
        actor, trial = self._under_way.pop(answer)
        try:
            ended: Fitted = ray.get(answer)
        except RayActorError as error:
            interrupt(self._study, [each for each in running(self._study) if each.number == trial.number])
            self._search.log.warning(f"an actor died, its trial will be repeated by another one: {error}")
            self._deaths += 1
            if self._deaths >= DEATHS:
                raise RuntimeError(f"{self._deaths} actors died one after another; see the logs of Ray") from error
            return
        self._deaths = 0
        self._idle.append(actor)
        for value, step in ended.reports:
            trial.report(value, step)
        record(self._study, self._search, trial, ended.ended, ended.seconds)
        done = finished(self._study)
        told = next(each for each in done if each.number == trial.number)
        self._search.log.info(describe(self._search.config, told, len(done)))


@dataclass(frozen=True)
class Fitted:
    """What an actor answers.

    Attributes:
        reports: losses with their steps.
        seconds: spent fitting.
    """

    ended: Ended
    reports: list[tuple[float, int]]
    seconds: float


@dataclass
class LocalReports:
    """Takes a trial's reports where it runs, and prunes it by thresholds from afar."""

    thresholds: Thresholds
    reports: list[tuple[float, int]] = field(default_factory=list)

    def report(self, value: float, step: int) -> None:
        """Take note of the loss at a step."""
        self.reports.append((value, step))

    def should_prune(self) -> bool:
        """Return whether the latest report is above its threshold."""
        return self.thresholds.stops(*self.reports[-1])


class TrialActor:
    """Fits trials on the cluster, one at a time."""

    def __init__(self, config: ExperimentConfig, folds: Sequence[FoldData]) -> None:
        self._config = config
        self._folds = folds

    def fit(self, params: dict[str, Any], thresholds: Thresholds) -> Fitted:
        """Fit one parameter set on every fold."""
        import optuna

        from mlplatform.tuning.objective import Stopwatch, fit_on_folds

        reports, watch = LocalReports(thresholds), Stopwatch()
        try:
            family = self._config.model.family
            ended: Ended = fit_on_folds(self._config, self._folds, family, params, reports, watch, workers=1)
        except optuna.TrialPruned:
            ended = "PRUNED"
        except FloatingPointError:
            ended = "FAIL"
        return Fitted(ended, reports.reports, watch.seconds)


def _actor_class() -> Any:
    import ray

    return ray.remote(num_cpus=1, max_restarts=0)(TrialActor)


@contextmanager
def connected() -> Iterator[None]:
    """Be connected to Ray while the context is open; a connection that was there before is used and left open."""
    if os.environ.get(ADDRESS):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        folder = None
    else:
        folder = _set_local()

    import ray

    mine = not ray.is_initialized()
    try:
        if mine and folder is None:
            # Processes on this machine inherit the environment, those of a cluster do not.
            variables = {PLUGINS_VARIABLE: ",".join(plugin_modules())} if plugin_modules() else {}
            ray.init(
                address=os.environ[ADDRESS],
                logging_level=logging.WARNING,
                runtime_env={"env_vars": variables} if variables else None,
            )
        elif mine:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                _temp_dir=folder,
            )
        yield
    finally:
        if mine:
            ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _set_local() -> str:
    """Set the switches that Ray reads when it is imported; return a folder for its sockets and logs.

    Nothing is sent home, and its processes listen on the loopback interface, to callers with a token of this run.
    """
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})
    if "RAY_AUTH_TOKEN" not in os.environ:
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A Unix socket's path may have 107 characters, of which Ray needs about 70.
    return tempfile.mkdtemp(prefix="mlp-ray-", dir="/tmp")
