"""Rows on their way to the feature store: `POST /features/push`, so that the next forecast sees what was just measured.

Rows are validated as an ingest does and moved into the online windows by `push_rows`; nothing is written offline.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import HTTPBearer
from pydantic import Field, model_validator

from mlplatform.config import ENTITY, TIMESTAMP, DatasetConfig, load_experiment
from mlplatform.data import SINGLE_ENTITY, TIMELESS
from mlplatform.features import EntityTypeError, FeatureStoreError, StoreUnavailableError
from mlplatform.settings import Settings
from serving.answers import to_json
from serving.backend import Served
from serving.bodies import JSON
from serving.errors import MAX_DETAILS, ErrorDetail, ServingError, invalid, shown
from serving.names import ROWS, KeyNames
from serving.protocols.forms import described_body
from serving.schemas import StrictRequest
from serving.security import require_admin
from serving.service import PredictionService
from serving.stages import Stage

# Pushes to one dataset wait for each other; a second thread serves another dataset meanwhile.
THREADS, WAITING = 2, 16

Rows = list[dict[str, Any]]


class PushRequest(StrictRequest):
    """Rows of one dataset."""

    dataset: str | None = Field(default=None, description="A dataset that a served model reads.")
    model: str | None = Field(default=None, description="Instead: a served model; by default the default one.")
    rows: Rows = Field(
        min_length=1,
        description="One object per row: entity, time and all columns of the dataset; or the entity and true in the "
        "dataset's removed_column, which makes the entity unknown.",
    )

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.dataset is not None and self.model is not None:
            raise ValueError("dataset or model, not both")
        return self


def routes(service: PredictionService, settings: Settings) -> APIRouter:
    """Return the route."""
    stage = Stage("push of rows", waiting=WAITING, deadline_s=settings.limits.deadline_s, threads=THREADS)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        stage.close()

    router = APIRouter(tags=["features"], lifespan=lifespan)
    # For the documentation page; `require_admin` decides.
    token = [Security(HTTPBearer(scheme_name="bearer", auto_error=False))]

    @router.post("/features/push", openapi_extra=described_body(PushRequest), dependencies=token)
    async def push(request: Request) -> Response:
        """Take rows into the online features of their entities, and say what became of them."""
        require_admin(request.headers.get("authorization"), settings.admin_token)
        asked = await service.reader.read(request, PushRequest)
        dataset = await stage.run(partial(_dataset, asked, service, settings))
        return Response(to_json(await stage.run(_pushed, dataset, asked.rows, settings)), media_type=JSON)

    return router


def _dataset(asked: PushRequest, service: PredictionService, settings: Settings) -> DatasetConfig:
    """Return the dataset that a request names.

    Raises:
        ServingError: 404 if no served model reads it.
    """
    if asked.dataset is None:
        return load_experiment(service.model(asked.model).name, settings=settings).dataset
    found = [load_experiment(name, settings=settings).dataset for name in service.models]
    for dataset in found:
        if dataset.name == asked.dataset:
            return dataset
    names = ", ".join(sorted({dataset.name for dataset in found}))
    message = f"no served model reads dataset {shown(asked.dataset)}; those that are read: {names}"
    raise ServingError(404, "unknown_dataset", message)


def _pushed(dataset: DatasetConfig, rows: Rows, settings: Settings) -> dict[str, Any]:
    """Push rows and return what became of them.

    Raises:
        ServingError: 422 for rows that are not of the dataset's form, 503 if the store does not answer.
    """
    import pandas as pd

    from mlplatform.features.online import push_rows

    with KeyNames.of(dataset).read(rows, ROWS) as canonical:
        keyed = [{**_keys(dataset), **row} for row in canonical]
        _check(keyed, dataset)
    names = [ENTITY, TIMESTAMP, *dataset.columns, *filter(None, [dataset.removed_column])]
    columns = {name: [row.get(name) for row in keyed] for name in names}
    typed: Mapping[str, Callable[[list[Any]], Any]] = dict.fromkeys(dataset.float_columns, _floats)
    frame = pd.DataFrame({name: typed.get(name, _objects)(values) for name, values in columns.items()})
    try:
        report = push_rows(dataset, frame, settings)
    except StoreUnavailableError as error:
        message = f"the online feature store does not answer for dataset {dataset.name!r} ({error.attempts}); repeat it"
        raise ServingError(503, "feature_store_unavailable", message, headers={"retry-after": "1"}) from error
    except EntityTypeError as error:
        raise ServingError(422, "invalid_rows", str(error)) from error
    except FeatureStoreError as error:
        raise ServingError(409, "push_refused", str(error)) from error
    others = {
        "before the stored window": report.too_old,
        "after now": report.future,
        "alone a window or more after all that is known of the entity": report.far,
        "off the time grid": report.off_grid - sum(n for why, n in report.reasons.items() if "grid" in why),
    }
    return {
        "dataset": dataset.name,
        "rows": report.rows,
        "stored": report.rows - report.dropped,
        "quarantined": report.dropped,
        "reasons": {**report.reasons, **{why: count for why, count in others.items() if count > 0}},
        "entities": report.written,
        "removed": report.removed,
    }


def _keys(dataset: DatasetConfig) -> dict[str, Any]:
    """Return the keys that rows may leave out, because the dataset has no such column: as an ingest fills them in."""
    keys: dict[str, Any] = {}
    if dataset.entity_column is None and dataset.kind == "timeseries":
        keys[ENTITY] = SINGLE_ENTITY
    if dataset.time_column is None:
        keys[TIMESTAMP] = f"{TIMELESS}Z"
    return keys


def _objects(values: list[Any]) -> Any:
    import pandas as pd

    return pd.Series(values, dtype=None if values and all(type(value) is int for value in values) else object)


def _floats(values: list[Any]) -> Any:
    import numpy as np

    return np.array([np.nan if value is None else float(value) for value in values])


def _check(rows: Sequence[dict[str, Any]], dataset: DatasetConfig) -> None:
    """Refuse rows that lack a column or have values of another type; the rest is the validation's to say."""
    findings: list[ErrorDetail] = []
    wanted: dict[str, tuple[type, ...]] = {ENTITY: (int, str), TIMESTAMP: (str,)}
    wanted |= {name: (float, int, type(None)) for name in dataset.float_columns}
    wanted |= {name: (str, type(None)) for name in dataset.category_columns}
    mark = dataset.removed_column
    for number, row in enumerate(rows):
        is_removed = None if mark is None else row.get(mark)
        if mark is not None and type(is_removed) not in (bool, type(None)):
            findings.append(_finding(number, mark, shown(is_removed), "true, false or null", "correct the value"))
        of_row = {ENTITY: wanted[ENTITY]} if is_removed is True else wanted
        for name, types in of_row.items():
            if name not in row:
                findings.append(_finding(number, name, "no such column", "a value", "send every column in every row"))
            elif type(row[name]) not in types or (name == ENTITY and not _is_key(row[name])):
                words = {int: "a whole number of 64 bits", str: "text", float: "a number", type(None): "null"}
                expected = " or ".join(words[kind] for kind in types if kind is not int or float not in types)
                findings.append(_finding(number, name, shown(row[name]), expected, "correct the value"))
        if len(findings) > MAX_DETAILS:
            break
    if findings:
        raise invalid("invalid_rows", findings)


def _is_key(value: int | str) -> bool:
    return -(2**63) <= value < 2**63 if isinstance(value, int) else bool(value)


def _finding(row: int, column: str, found: str, expected: str, action: str) -> ErrorDetail:
    field = f"rows[{row}].{column}"
    return ErrorDetail(field=field, row=row, column=column, found=found, expected=expected, action=action)


def example(name: str, served: Served) -> dict[str, Any]:
    """Return a request with a row of the served pair's dataset."""
    return {"model": name, "rows": list(served.example[:1])}
