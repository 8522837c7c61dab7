"""The promotion gate: candidate and champion scored again on the same immutable reference set, then decided."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from mlplatform.config import ExperimentConfig
from mlplatform.datamodule.base import DataModule
from mlplatform.datamodule.factory import create_data_module
from mlplatform.datamodule.panel import Panel
from mlplatform.datamodule.splits import REFERENCE, read_part
from mlplatform.datamodule.tabular import tabular_samples
from mlplatform.plugins import METRICS, MODELS
from mlplatform.registry.forecaster import Forecaster
from mlplatform.registry.pairs import PRODUCTION, PairInfo, PairStore
from mlplatform.registry.promotion import Contender, Decision, decide_promotion
from mlplatform.training.metrics import evaluate


def run_gate(
    config: ExperimentConfig, candidate: PairInfo, store: PairStore, now: dt.datetime | None = None
) -> Decision:
    """Decide on one registered version of the experiment `config`.

    Parameters:
        config: the configuration the candidate was trained with; it names the reference set.

    Raises:
        PairIntegrityError: if the candidate or the champion was changed after registration.
        SplitIntegrityError: if the reference set was changed.
    """
    frame = read_part(store.settings, config.dataset.name, config.split.version_id, REFERENCE)
    module = create_data_module(config, frame)
    champion = store.find(config.registered_name, PRODUCTION)
    return decide_promotion(
        candidate=_contender(config, candidate, store, module, frame),
        champion=None if champion is None else _contender(config, champion, store, module, frame),
        baselines=naive_scores(config, candidate, store),
        metric_name=f"reference_{config.metric}",
        metric=METRICS.get(config.metric),
        policy=config.promotion,
        now=now or dt.datetime.now(dt.UTC),
    )


def naive_scores(config: ExperimentConfig, info: PairInfo, store: PairStore) -> dict[str, float]:
    """Return the reference scores of the naive baselines, as the pair's training run recorded them.

    Raises:
        LookupError: if the run lacks one.
    """
    recorded = store.client.get_run(info.run_id).data.metrics
    scores = {}
    for baseline in config.baselines:
        if not MODELS.get(baseline.name).is_naive:
            continue
        key = f"baseline_{baseline.name}_reference_{config.metric}"
        if key not in recorded:
            raise LookupError(
                f"MLflow run {info.run_id} of {info.name} version {info.version} lacks the metric {key!r}"
            )
        scores[baseline.name] = recorded[key]
    return scores


def score_pair(forecaster: Forecaster, module: DataModule, frame: pd.DataFrame) -> dict[str, float]:
    """Score a pair on all samples of a split part, whatever features and lookback it was trained with.

    Parameters:
        module: defines samples and truth.
        frame: the rows of the part.

    Raises:
        ValueError: if the pair predicts something else, or needs columns or rows the part does not have.
    """
    contract, config = forecaster.contract, module.config
    if (contract.targets, contract.horizon) != (config.targets, config.horizon):
        raise ValueError(
            f"it predicts {', '.join(contract.targets)} over {contract.horizon} steps instead of "
            f"{', '.join(config.targets)} over {config.horizon}; register what changed under a new experiment name"
        )
    missing = [name for name in contract.columns if name not in frame]
    if missing:
        raise ValueError(f"it reads {', '.join(missing)}, which the reference set does not have")
    transformed = forecaster.preprocessor.transform(Panel.from_frame(frame, contract.columns))
    if contract.task == "forecast":
        starts = np.repeat(transformed.offsets[:-1], np.diff(transformed.offsets))
        short = contract.input_rows - 1 - int((module.rows - starts[module.rows]).min())
        if short > 0:
            raise ValueError(f"it looks back {contract.input_rows} steps, {short} more than the reference set has")
        outputs = forecaster.infer(forecaster.windows(transformed, module.rows))
    else:
        samples = tabular_samples(transformed, contract.columns, None, len(contract.classes), module.rows)
        outputs = forecaster.infer(samples)
    truth = module.truth(forecaster.preprocessor, module.rows)
    return evaluate(config.metrics, truth, forecaster.postprocess(outputs))


def _contender(
    config: ExperimentConfig, info: PairInfo, store: PairStore, module: DataModule, frame: pd.DataFrame
) -> Contender:
    try:
        score = score_pair(store.load(info), module, frame)[config.metric]
    except ValueError as error:
        return Contender(info.version, None, info.promoted_at, str(error))
    return Contender(info.version, score, info.promoted_at)
