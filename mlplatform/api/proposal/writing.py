"""The roles of columns as YAML that a person reads, corrects and keeps."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from typing import Any

from mlplatform.api.proposal.looking import Column
from mlplatform.api.proposal.roles import Roles
from mlplatform.calendars import WORKING_DAYS


def yaml_of(name: str, dataset: str, roles: Roles) -> Iterator[str]:
    is_forecast = roles.task == "forecast"
    yield "# @package _global_"
    yield f"defaults: [/base/{'forecast' if is_forecast else 'tabular'}, _self_]"
    yield f"name: {name}"
    others = f" and {len(roles.look.paths) - 1} more" if len(roles.look.paths) > 1 else ""
    yield f"description: {_quoted(f'Proposed from {roles.look.paths[0].name}{others}.')}"
    if not is_forecast:
        yield f"task: {roles.task}"
    yield "dataset:"
    yield f"  name: {dataset}"
    if not is_forecast:
        yield "  kind: tabular"
    yield f"  source: {_flow(_source(roles))}"
    if roles.time is not None:
        yield f"  time_column: {_quoted(roles.time)}"
        unit = roles.look.times[roles.time].unit
        if unit is not None:
            yield f"  time_unit: {unit}  # since 1970 UTC"
    if roles.entity is not None:
        yield f"  entity_column: {_quoted(roles.entity)}"
    if is_forecast:
        yield from _steps(roles)
    if is_forecast and roles.timezone is not None:
        yield f"  timezone: {roles.timezone}"
    yield "  columns:"
    for column in roles.data:
        yield f"    {_yaml(column.name)}: {_flow(_column(column, roles))}{_seen(column)}"
    yield f"targets: {_flow(list(roles.targets))}"
    if roles.planned:
        yield f"features: {_flow({'version': f'{dataset}_planned_v1', 'known_future': list(roles.planned)})}"
    yield from _shortened(roles)
    if roles.task == "classification":
        yield "metric: log_loss"
        yield "extra_metrics: [accuracy]"


def _steps(roles: Roles) -> Iterator[str]:
    """Yield the step between times, and which days of the week and of the year have none."""
    yield f"  frequency: {roles.frequency or 'auto'}{'' if roles.frequency else '  # none was found'}"
    if roles.weekmask != WORKING_DAYS:
        yield f"  weekmask: {_quoted(roles.weekmask)}  # Monday first"
    if roles.closed is not None:
        yield f"  # of {roles.closed.of}, to the end of {roles.closed.days[-1].year}: add those of later years"
        yield from textwrap.wrap(
            f"holidays: [{', '.join(map(str, roles.closed.days))}]", 120, initial_indent="  ", subsequent_indent="    "
        )


def _shortened(roles: Roles) -> Iterator[str]:
    """Yield the lengths of an experiment, where the file has too few steps for those of the frequency."""
    fitted = roles.fitted
    if fitted is None:
        return
    lengths, folds = fitted
    if roles.leaves_season_out:
        yield "baselines: [{name: repeat_last}, {name: ridge}]  # no season"
    split = {"reference_steps": lengths.block, "folds": folds, "cv": {"params": {"validation_steps": lengths.block}}}
    yield f"horizon: {lengths.horizon}"
    yield f"lookback: {lengths.lookback}"
    yield f"split: {_flow(split)}"


def _source(roles: Roles) -> dict[str, Any]:
    look = roles.look
    options = dict(look.options)
    time_format = None if roles.time is None else look.times[roles.time].format
    if time_format is not None:
        options["time_format"] = time_format
    used = {roles.time, roles.entity, *(column.name for column in roles.data)}
    rename = {theirs: ours for theirs, ours in look.rename.items() if ours in used}
    source = {"uri": look.uris[0] if len(look.uris) == 1 else list(look.uris), "rename": rename, "options": options}
    return {key: value for key, value in source.items() if value}


def _column(column: Column, roles: Roles) -> dict[str, Any]:
    is_class = roles.task == "classification" and column.name in roles.targets
    return {"type": "category"} if column.kind == "text" or is_class else {}


def _seen(column: Column) -> str:
    """Return a comment with what a person needs to set physical limits."""
    if column.lowest is None:
        return f"  # {column.distinct} kinds"
    missing = f", {column.missing:.1%} missing" if column.missing else ""
    return f"  # seen {column.lowest:g} to {column.highest:g}{missing}"


def _quoted(text: str) -> str:
    return _flow(text)


def _literal(value: Any) -> Any:
    """Return a value in whose texts `${` stands for itself: configuration would read the environment there."""
    if isinstance(value, dict):
        return {key: _literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    return _yaml(_literal(value))


def _yaml(value: Any) -> str:
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10_000)
    return text.strip().removesuffix("...").strip()
