"""The ingress's backend in `split` mode: it answers by asking the services, and swaps what it asks them for.

A reload first has every service load the new version and then swaps one reference here; no deployment is reconfigured,
so no request waits or fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from mlplatform.config import AnsweringConfig, StalenessConfig
from mlplatform.datamodule import Panel, Samples
from mlplatform.features import NOW
from mlplatform.features.retrieval import FeaturePanel
from mlplatform.registry import Answers, FallbackPolicy, Recall, Scales, complete
from mlplatform.registry.pairs import PairInfo
from mlplatform.settings import Settings
from serving.alerting import tell_failed_load
from serving.backend import DEFAULT, Challenger, Choice, EntityId, Prediction, ReloadReport, Served, Status
from serving.bundle import BundleLoader, readable, reload_failure
from serving.challenger import CHALLENGER_PATIENCE_S, ChallengerHolder
from serving.concurrency import Coalescer, Workers
from serving.errors import ServingError
from serving.explain import DEADLINE_S as EXPLANATION_DEADLINE_S
from serving.explain import with_explanations
from serving.health import StoreHealth
from serving.keeper import Keeper
from serving.last_forecasts import LastForecasts
from serving.ray_calls import Service, repeated
from serving.ray_peers import Peers
from serving.ray_services import LARGEST_BATCH, SMALL_ROWS, Prepared
from serving.ray_versions import PairRef
from serving.rules import RowRules
from serving.stages import Deadline
from serving.store_reads import LARGEST_SHARED
from serving.timing import StageTimes

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

    Handle = DeploymentHandle[Any]

T = TypeVar("T")


@dataclass(frozen=True)
class Policies:
    """What answers requests now: a pair, what is told about it, and the policies of the experiment's configuration.

    Attributes:
        scales: what the pair's intervals are scaled by.
    """

    served: Served
    staleness: StalenessConfig
    rules: RowRules
    answering: AnsweringConfig = field(default_factory=AnsweringConfig)
    scales: Scales | None = None

    @property
    def pair(self) -> PairInfo:
        """The pair."""
        return self.served.pair

    def with_policies_for(self, other: Policies) -> Policies:
        """Return what answers for another pair of the experiment, under the policies of this one."""
        rules = replace(other.rules, policy=self.rules.policy, fallback=self.rules.fallback)
        return replace(other, staleness=self.staleness, rules=rules, answering=self.answering)


class RayBackend:
    """Computes answers by asking the services."""

    def __init__(
        self,
        settings: Settings,
        peers: Peers,
        feast: Handle,
        preprocessing: Handle,
        model: Handle,
    ) -> None:
        self._experiment, self._peers = settings.experiment, peers
        self._feast, self._preprocessing, self._model = map(Service, (feast, preprocessing, model))
        self._loader = BundleLoader(settings)
        self._workers = Workers(1)
        self._finding = Workers(1)
        self._challenger = ChallengerHolder(settings.experiment, self._found, self._loaded, _told_of)
        self._last = LastForecasts()
        self._current: Policies | None = None
        self._reason = f"the production pair of {settings.experiment!r} is being loaded"
        self._coalesced_reload = Coalescer(self._swap)
        told = tell_failed_load(settings, lambda: current.pair.version if (current := self._current) else None)
        self._keeper = Keeper(settings.experiment, self._coalesced_reload, settings.limits.poll_s, told)
        self._health = StoreHealth(self._probe)
        self.times = StageTimes()

    async def start(self) -> None:
        """Begin to load the production pair; the server answers other requests meanwhile."""
        self._keeper.start()

    async def close(self) -> None:
        """Stop looking for another pair; the services end with their replicas."""
        await self._keeper.close()
        await self._challenger.close()

    async def forecast_entities(
        self,
        entities: Sequence[EntityId],
        time_point: str,
        future: Sequence[dict[str, Any]] = (),
        choice: Choice = DEFAULT,
        explain: bool = False,
    ) -> Prediction:
        """Predict for entities of the feature store."""
        chosen = await self._chosen(choice)
        ref = PairRef.of(chosen.pair)
        staleness = readable(chosen.staleness, chosen.answering)
        short = chosen.rules.fallback.short_series
        group = _group(ref, time_point == NOW and len(entities) <= LARGEST_SHARED)
        # The policy travels with the call, as the version does: all replicas apply the one that was loaded last.
        with self.times.timed("features", ref.version):
            panel = _unless_refused(
                await repeated(
                    lambda: self._feast.ask("read", ref, staleness, entities, time_point, short, group=group)
                )
            )
        with self.times.timed("preprocess", ref.version):
            prepared = await repeated(
                lambda: self._preprocessing.ask(
                    "prepare_panel", ref, panel, future, chosen.rules, group=_group(ref, panel.rows <= SMALL_ROWS)
                )
            )
        recall = self._last.recall_for(choice, time_point)
        prediction = await self._predict(chosen, _unless_refused(prepared), explain, recall)
        self._last.remember(prediction, choice, time_point, chosen.answering)
        return prediction

    async def predict_rows(
        self, rows: Sequence[dict[str, Any]], choice: Choice = DEFAULT, explain: bool = False
    ) -> Prediction:
        """Predict from raw rows."""
        chosen = await self._chosen(choice)
        ref = PairRef.of(chosen.pair)
        with self.times.timed("preprocess", ref.version):
            prepared = await repeated(
                lambda: self._preprocessing.ask(
                    "prepare_rows", ref, rows, chosen.rules, group=_group(ref, len(rows) <= SMALL_ROWS)
                )
            )
        return await self._predict(chosen, _unless_refused(prepared), explain)

    async def reload(self) -> ReloadReport:
        """Have all replicas of the ingress serve the pair that is in production now."""
        return await self._peers.reload(self._experiment)

    async def reload_here(self) -> ReloadReport:
        """Have this one serve it."""
        report = await self._coalesced_reload()
        await self._challenger.settled(CHALLENGER_PATIENCE_S)
        return report

    async def status(self) -> Status:
        """Say whether a pair is loaded and the feature store answers."""
        if self._current is None:
            return Status(None, self._reason)
        pair = self._current.pair
        return Status(pair, await self._health.problem())

    def looks(self) -> Mapping[str, int]:
        """Return how the looks for another pair ended."""
        return self._keeper.outcomes

    def queues(self) -> Mapping[str, int]:
        """Return nothing: requests wait in the services, and Ray's own metrics tell of their queues."""
        return {}

    def served(self) -> Served | None:
        """Return what would answer now."""
        return self._current.served if self._current else None

    def challenger(self) -> Challenger | None:
        """Return what shares the work with it."""
        return self._challenger.state(self._current.pair if self._current else None)

    def challenger_looks(self) -> Mapping[str, int]:
        """Return how the looks for the challenger ended."""
        return self._challenger.outcomes

    def _require(self) -> Policies:
        if self._current is None:
            raise ServingError(503, "no_production_pair", self._reason)
        return self._current

    async def _chosen(self, choice: Choice) -> Policies:
        if choice.is_challenger:
            return self._challenger.require()
        if choice.is_default:
            return self._require()
        return await self._policies(await self._workers.run(self._loader.find, choice))

    async def _policies(self, pair: PairInfo) -> Policies:
        """Return the policies that hold for a pair, having the services load it if they did not."""
        config = await self._workers.run(self._loader.config)
        policies = config.dataset, config.requests, FallbackPolicy.of(config)
        ref = PairRef.of(pair)
        served, rules = await repeated(lambda: self._preprocessing.ask("described", ref, config.staleness, *policies))
        scales = await self._workers.run(self._loader.scales, pair)
        return Policies(served, config.staleness, rules, config.serving, scales)

    async def _probe(self) -> str | None:
        ref = PairRef.of(self._require().pair)
        problem: str | None = await repeated(lambda: self._feast.ask("problem", ref))
        return problem

    async def _predict(
        self, chosen: Policies, prepared: Prepared, explain: bool, recall: Recall | None = None
    ) -> Prediction:
        panel, contract, rules = prepared.panel, chosen.pair.contract, chosen.rules
        # Before the model is asked, because a refusal needs no forecast.
        judged = rules.judge(panel, contract, recall)
        answer = await self._tried(chosen, prepared)
        completed = complete(panel, contract, rules.fallback, judged.replaced, answer, recall)
        prediction = Prediction.of(chosen.pair, panel, completed, judged, rules)
        return await self._explained(prediction, panel) if explain else prediction

    async def _explained(self, prediction: Prediction, panel: FeaturePanel) -> Prediction:
        ref = PairRef.of(prediction.pair)
        async with Deadline("explanation", EXPLANATION_DEADLINE_S):
            found = await repeated(lambda: self._model.ask("explain", ref, panel))
        return with_explanations(prediction, _unless_refused(found))

    async def _tried(self, chosen: Policies, prepared: Prepared) -> Callable[[Panel], Answers]:
        """Return what gives the model's answers for a panel, or raises what the model raised."""
        try:
            if prepared.samples is None:
                raise ValueError("the rows cannot be preprocessed")
            whole = await self._computed(chosen, prepared.samples)
        except ServingError:
            raise
        except Exception as error:
            failure = error

            def fail(_: Panel) -> Answers:
                raise failure

            return fail
        return lambda _: whole

    async def _computed(self, chosen: Policies, samples: Samples) -> Answers:
        ref = PairRef.of(chosen.pair)
        # Every response is awaited here. Passed on unawaited, one whose replica died would have the call that waits for
        # it ask for it again and again until the request's deadline, and nobody could repeat what was lost.
        with self.times.timed("predict", ref.version):
            group = _group(ref, len(samples) <= LARGEST_BATCH)
            inferred: Answers = await repeated(lambda: self._model.ask("infer", ref, samples, group=group))
        with self.times.timed("postprocess", ref.version):
            scaled = inferred.scaled(chosen.scales)
            answers: Answers = await repeated(lambda: self._preprocessing.ask("postprocess", ref, scaled, group=group))
        return answers

    async def _swap(self) -> ReloadReport:
        previous = self._current.pair if self._current else None
        try:
            pair = await self._workers.run(self._loader.production)
            is_new = previous is None or previous.pair_id != pair.pair_id
            policies = await (self._loaded(pair) if is_new else self._policies(pair))
        except Exception as error:
            failure = reload_failure(_raised_by_service(error), previous)
            self._reason = failure.message
            raise failure from error
        self._current = policies
        self._challenger.changed(policies.with_policies_for)
        self._challenger.look(policies.answering.challenger, policies.served)
        return ReloadReport(pair, previous.version if previous else None)

    async def _found(self, alias: str, may_be_kept: bool) -> PairInfo:
        return await self._finding.run(self._loader.challenger, alias, may_be_kept)

    async def _loaded(self, pair: PairInfo) -> Policies:
        """Return the policies that hold for a pair, once all replicas have loaded it."""
        await asyncio.gather(*(_prepare(service, PairRef.of(pair)) for service in self._services))
        return await self._policies(pair)

    @property
    def _services(self) -> tuple[Handle, ...]:
        return self._feast.handle, self._preprocessing.handle, self._model.handle


async def _prepare(service: Handle, ref: PairRef) -> None:
    """Have every replica of a service load a version."""
    # A plain call waits until there is a replica at all; a broadcast reaches those that are up.
    await repeated(lambda: service.prepare.remote(ref))
    await repeated(lambda: service.broadcast("prepare", ref).results_async())


def _group(ref: PairRef, is_small: bool) -> str | None:
    """Return which calls one may be sent with: those about its pair, unless it takes longer than they do."""
    return ref.pair_id if is_small else None


def _told_of(policies: Policies) -> Served:
    return policies.served


def _unless_refused(given: T | ServingError) -> T:
    if isinstance(given, ServingError):
        raise given
    return given


def _raised_by_service(error: Exception) -> Exception:
    """Return the exception that a service raised, out of the one that Ray delivers."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error
