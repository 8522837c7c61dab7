"""What a server tells about the experiments that it answers for."""

from __future__ import annotations

import asyncio

from serving.schemas import ChallengerAnswer, ModelAnswer, ModelInput
from serving.service import ServedModel


async def describe(model: ServedModel) -> ModelAnswer:
    """Return what a client should know before it asks."""
    status, aliases = await asyncio.gather(model.backend.status(), model.alias_look.versions())
    served = model.backend.served()
    if served is None:
        return ModelAnswer(name=model.name, ready=False, reason=status.reason, aliases=aliases)
    pair, contract = served.pair, served.pair.contract
    is_forecast = contract.task == "forecast"
    inputs = [
        ModelInput(name=name, type=served.types[name], known_ahead=name in contract.known) for name in contract.columns
    ]
    return ModelAnswer(
        name=model.name,
        ready=status.ready,
        reason=status.reason,
        task=contract.task,
        aliases=aliases,
        version=pair.version,
        pair_id=pair.pair_id,
        family=pair.tags.get("family"),
        promoted_at=pair.promoted_at,
        dataset=contract.dataset,
        inputs=inputs,
        targets=list(contract.targets),
        classes=list(contract.classes),
        lookback=contract.lookback if is_forecast else None,
        input_rows=contract.input_rows if is_forecast else None,
        least_rows=contract.least_rows if is_forecast else None,
        horizon=contract.horizon if is_forecast else None,
        step_seconds=contract.step_seconds if is_forecast else None,
        frequency=contract.calendar.length if is_forecast else None,
        offset=contract.calendar.frequency if is_forecast else None,
        timezone=contract.calendar.zone.name if is_forecast else None,
        max_age=served.max_age,
        intervals=next(iter(served.coverages), None),
        coverages=list(served.coverages),
        inference=served.inference,
        challenger=_challenger(model),
    )


def _challenger(model: ServedModel) -> ChallengerAnswer | None:
    challenger = model.backend.challenger()
    if challenger is None:
        return None
    config, pair = challenger.config, challenger.served.pair if challenger.served else None
    return ChallengerAnswer(
        alias=config.alias,
        mode=config.mode,
        share=config.share,
        version=pair.version if pair else None,
        pair_id=pair.pair_id if pair else None,
        reason=challenger.reason,
    )
