"""The promotion gate: candidate and champion scored again on the same immutable reference set, then decided."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule import (
    REFERENCE,
    TRAIN,
    DataModule,
    Float32,
    SplitIntegrityError,
    create_data_module,
    read_manifest,
    read_part,
)
from mlplatform.plugins import METRICS, MODELS
from mlplatform.promotion.bootstrap import Comparison
from mlplatform.promotion.decision import (
    Contender,
    Decision,
    Reference,
    Retraining,
    decide_promotion,
    refuse_damaged,
)
from mlplatform.promotion.evidence import TOO_GOOD, find_evidence, versions_decided_on
from mlplatform.promotion.retraining import DRIFT_CAUSE, look_back
from mlplatform.promotion.scoring import Scored, compare_pairs, score_pair, shared_samples
from mlplatform.registry import Forecaster
from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairIntegrityError, PairStore
from mlplatform.registry.runs import mlflow_name, read_training_rows, scores_without_a_number
from mlplatform.training import SeriesScales, reading, scales_for

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class GateReport:
    """A decision and what it was made from.

    Attributes:
        champion: the production pair at the moment of the decision; None if there was none.
        errors: contender -> error of every reference sample, of shape (samples,); those without a score are left out.
    """

    decision: Decision
    champion: PairInfo | None = None
    errors: Mapping[str, Float32] = field(default_factory=dict)


def run_gate(
    config: ExperimentConfig,
    candidate: PairInfo,
    store: PairStore,
    now: dt.datetime | None = None,
    word: str = "",
) -> GateReport:
    """Decide on one registered version of the experiment `config`.

    A candidate, champion or reference set that is not what it was when it was written makes the decision `damaged`.

    Parameters:
        config: the configuration the candidate was trained with; it names the reference set, the metric and the policy.
        word: a person's reason; see `decide_promotion`.

    Raises:
        SplitError: if the reference set was never written here.
    """
    try:
        return _Gate(config, store).judge(candidate, now or dt.datetime.now(dt.UTC), word)
    except (PairIntegrityError, SplitIntegrityError) as error:
        return GateReport(refuse_damaged(Contender(candidate.version, None), metric_name(config), str(error)))


def metric_name(config: ExperimentConfig) -> str:
    """Return the name under which the deciding score is recorded."""
    return f"{REFERENCE}_{config.metric}"


def naive_scores(config: ExperimentConfig, info: PairInfo, run: Run) -> dict[str, float]:
    """Return the reference scores of the naive baselines, as the pair's training run `run` recorded them.

    One that the run measured as no finite number is NaN.

    Raises:
        LookupError: if the run lacks one.
    """
    naive = [each.name for each in config.baselines if MODELS.get(each.name).is_naive]
    found = _baseline_scores(config, run)
    for name in naive:
        if name not in found:
            raise LookupError(
                f"MLflow run {info.run_id} of {info.name} version {info.version} lacks the metric "
                f"{_baseline_key(config, name)!r}; train again"
            )
    return {name: found[name] for name in naive}


def _baseline_scores(config: ExperimentConfig, run: Run) -> dict[str, float]:
    """Return the reference scores of all baselines that a training run recorded."""
    data = run.data
    recorded = data.metrics | dict.fromkeys(scores_without_a_number(data.tags), math.nan)
    keys = {each.name: _baseline_key(config, each.name) for each in config.baselines}
    return {name: recorded[key] for name, key in keys.items() if key in recorded}


def _baseline_key(config: ExperimentConfig, name: str) -> str:
    return mlflow_name(f"baseline_{name}_{metric_name(config)}")


def _others(config: ExperimentConfig, run: Run, naive: Mapping[str, float]) -> dict[str, float]:
    return {name: score for name, score in _baseline_scores(config, run).items() if name not in naive}


class _Gate:
    """The reference set of one experiment, and what the decision on a pair needs from it."""

    def __init__(self, config: ExperimentConfig, store: PairStore) -> None:
        manifest = read_manifest(store.settings, config.dataset.name, config.split.version_id)
        part = manifest.parts[REFERENCE]
        self.config, self.store = config, store
        self.frame = read_part(store.settings, config.dataset.name, config.split.version_id, REFERENCE)
        self.module = create_data_module(config, self.frame)
        self.reference = Reference(manifest.version_id, part.sha256, part.rows)
        self.scored: dict[str, Scored] = {}
        self.notes: list[str] = []
        self._runs: dict[str, Run] = {}

    def judge(self, candidate: PairInfo, now: dt.datetime, word: str) -> GateReport:
        self.store.verify(candidate)
        champion = self.store.find(self.config.registered_name, PRODUCTION)
        contenders = {"candidate": candidate, **({} if champion is None else {"champion": champion})}
        pairs = {role: self.store.load(info) for role, info in contenders.items()}
        module = shared_samples(self.module, [pair.contract.input_rows for pair in pairs.values()])
        scored, obstacle = self._contender("candidate", candidate, pairs["candidate"], module), ""
        try:
            baselines = naive_scores(self.config, candidate, self._run(candidate))
        except LookupError as error:
            baselines, obstacle = {}, str(error)
        if obstacle and self.config.promotion.must_beat_baselines:
            scored = replace(scored, score=None, obstacle=obstacle)
        rival = None if champion is None else self._contender("champion", champion, pairs["champion"], module)
        broken, retraining = self._look_back(candidate, champion, pairs)
        uses = versions_decided_on(self.store, candidate, self.reference.sha256)
        decision = decide_promotion(
            candidate=scored,
            champion=rival,
            baselines=baselines,
            others=_others(self.config, self._run(candidate), baselines),
            metric_name=metric_name(self.config),
            metric=METRICS.get(self.config.metric),
            policy=self.config.promotion,
            now=now,
            reference=replace(self.reference, left_out=tuple(module.left_out), uses=len(uses)),
            word=word,
            comparison=self._compare(module),
            broken=broken,
            retraining=retraining,
        )
        errors = {role: each.errors for role, each in self.scored.items()}
        return GateReport(replace(decision, notes=tuple(self.notes)), champion, errors)

    @cached_property
    def _scales(self) -> SeriesScales | None:
        """What scaled errors are divided by, from the training rows of the split; read only if they are asked for."""
        config = self.config
        if not reading(config.metrics, "scale"):
            return None
        rows = read_part(self.store.settings, config.dataset.name, config.split.version_id, TRAIN)
        return scales_for(config, create_data_module(config, rows).panel)

    def _run(self, info: PairInfo) -> Run:
        """Return the training run of a pair, fetched once for a decision."""
        if info.run_id not in self._runs:
            self._runs[info.run_id] = self.store.client.get_run(info.run_id)
        return self._runs[info.run_id]

    def _contender(self, role: str, info: PairInfo, forecaster: Forecaster, module: DataModule) -> Contender:
        until = self._run(info).data.params.get("data.train.end")
        suspicion = find_evidence(self.store, info, TOO_GOOD, self._run(info))
        contender = Contender(
            info.version,
            None,
            info.promoted_at,
            data_until=dt.datetime.fromisoformat(until) if until else None,
            overlap=self._overlap(info),
            suspicion="" if suspicion is None or suspicion.passed else suspicion.summary,
        )
        try:
            self.scored[role] = score_pair(forecaster, module, self.frame, self._scales)
        except ValueError as error:
            return replace(contender, obstacle=str(error))
        return replace(contender, score=self.scored[role].scores[self.config.metric])

    def _compare(self, module: DataModule) -> Comparison | None:
        """Return candidate beside champion; None where one of them has no score, or no draw can be scored."""
        metric = METRICS.get(self.config.metric)
        scored = [self.scored[role] for role in ("candidate", "champion") if role in self.scored]
        if len(scored) < 2 or not all(math.isfinite(each.scores[self.config.metric]) for each in scored):
            return None
        try:
            return compare_pairs(metric, scored[0], scored[1], module)
        except ValueError as error:
            self.notes.append(f"how probable it is that the candidate is better is unknown: {error}")
            return None

    def _look_back(
        self, candidate: PairInfo, champion: PairInfo | None, pairs: Mapping[str, Forecaster]
    ) -> tuple[tuple[str, ...], Retraining | None]:
        """Return what a broken feed did to the rows since the champion, and what is known of a drift retraining."""
        cause = self._run(candidate).data.tags.get(DRIFT_CAUSE) or None
        if champion is None:
            return (), None if cause is None else Retraining(cause)
        error = None if "champion" not in self.scored else float(self.scored["champion"].errors.mean())
        broken, retraining, notes = look_back(
            self.config, cause, champion, pairs, self.frame, error, self.store.settings
        )
        self.notes += notes
        return broken, retraining

    def _overlap(self, info: PairInfo) -> str:
        """Return which reference rows a pair was trained on, in words; note if its run does not say."""
        rows = read_training_rows(self.store, info, self._run(info))
        shared = None if rows is None else rows.shared(self.frame)
        if shared is None:
            why = "its training run recorded no rows" if rows is None else "its rows were told apart by other columns"
            self.notes.append(
                f"whether version {info.version} was trained on rows of the reference set is unknown: {why}"
            )
        if not shared:
            return ""
        recorded = info.tags.get("split_version", "unknown")
        return (
            f"was trained (split version {recorded}) on {shared} of the {self.reference.rows} rows of the reference "
            f"set of split version {self.reference.version_id}"
        )
