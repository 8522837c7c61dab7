"""Promotion of a version that someone names, long after its training run: all checks once more, then the promoter."""

from __future__ import annotations

from mlplatform.config import ExperimentConfig
from mlplatform.promotion.checks import check_pair_integrity, check_promotion_gate, check_serving_parity
from mlplatform.promotion.promoter import Promotion, PromotionRefusedError, promote_pair
from mlplatform.registry.pairs import LATEST, PairStore
from mlplatform.registry.runs import read_record


def promote_version(
    experiment: ExperimentConfig,
    store: PairStore,
    version: int | None = None,
    *,
    who: str,
    why: str = "",
    dry_run: bool = False,
    hold: str = "",
) -> Promotion:
    """Check a registered version as its training run did, and promote it if the gate says so.

    A reason, `why`, is also a person's word for a pair that a check finds too good; a blank one is none.

    The reference set is the one the version was trained with; metric and policy are today's.

    Parameters:
        experiment: the experiment as it is configured today.
        version: default: the newest complete pair.
        hold: see `promote_pair`.

    Raises:
        PairNotFoundError: if there is no such version.
        PromotionRefusedError: if a check found an error.
        RecordError: if its training run lacks its configuration.
    """
    why = why.strip()
    info = store.resolve(experiment.registered_name, LATEST if version is None else str(version))
    today = {key: getattr(experiment, key) for key in ("dataset", "promotion", "metric", "extra_metrics")}
    config = read_record(store, info).config.model_copy(update=today)
    integrity, _ = check_pair_integrity(info, store)
    if not integrity.passed:
        raise PromotionRefusedError(f"{info.name} version {info.version}: {integrity.summary}")
    check_serving_parity(config, info, store)
    check_promotion_gate(config, info, store, word=why)
    return promote_pair(config, info, store, who=who, why=why, word=why, dry_run=dry_run, hold=hold)
