"""Bodies of requests and answers: what a client may send, and what the OpenAPI page shows.

Requests are validated by these models; answers are built as plain values (`serving.answers`), because validating what
the server has just computed would cost more than the model itself, and a test holds the two together.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from mlplatform.features import FeatureStoreError, parse_time_point
from mlplatform.registry.pairs import LARGEST_VERSION, PRODUCTION
from serving.backend import Choice

MAX_ENTITIES = 1024
_LONGEST_ID = 256


def _entity_key(value: Any) -> int | str:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    if type(value) is str and 0 < len(value) <= _LONGEST_ID:
        return value
    raise ValueError(f"a whole number of 64 bits, or text of 1 to {_LONGEST_ID} characters")


# Written out, because pydantic reports a union that does not match once per member.
EntityKey = Annotated[
    int | str, PlainValidator(_entity_key), WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})
]


def _objects(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Return a list of objects as it is: checking the type of every key takes longer than parsing them from JSON."""
    if type(value) is list and value and all(type(row) is dict for row in value):
        return value
    return validate(value)


class StrictRequest(BaseModel):
    """Base of request bodies: unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _time_point(value: Any) -> str:
    if type(value) is str:
        try:
            parse_time_point(value)
        except FeatureStoreError as error:
            raise ValueError("'now' or an ISO 8601 time such as 2026-03-01T00:00:00Z") from error
        return value
    raise ValueError("'now' or an ISO 8601 time such as 2026-03-01T00:00:00Z")


class PredictionRequest(StrictRequest):
    """What every request for predictions may say about the pair that is to answer; by default the one in production."""

    alias: str | None = Field(
        default=None, min_length=1, max_length=_LONGEST_ID, description="production, staging, previous, latest, ..."
    )
    version: int | None = Field(default=None, ge=1, le=LARGEST_VERSION, description="Instead of an alias.")
    explain: StrictBool = Field(
        default=False, description="Whether every answer says why it is so; few entities at a time."
    )

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.alias is not None and self.version is not None:
            raise ValueError("alias or version, not both")
        return self

    @property
    def choice(self) -> Choice:
        """Which pair is to answer."""
        is_named = self.alias is not None or self.version is not None
        return Choice(self.alias or PRODUCTION, self.version, is_named=is_named)


class EntitiesRequest(PredictionRequest):
    """Ask for predictions from the feature store: from the latest windows, or from what was known in the past."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"entities": [1, 2, 3], "time_point": "now"}]})

    entities: list[EntityKey] = Field(
        min_length=1, description=f"Ids as the dataset has them, at most {MAX_ENTITIES}, each once."
    )
    time_point: Annotated[str, PlainValidator(_time_point), WithJsonSchema({"type": "string"})] = Field(
        default="now",
        description="`now`, or a moment of the past (ISO 8601): features as the offline store knew them then.",
    )
    on_error: Literal["report", "fail"] = Field(
        default="report",
        description="Entities that cannot be answered are reported in `errors` of the answer while the others are "
        "answered, or fail the whole request, also where `observation.short` leaves them out.",
    )
    future: list[dict[str, Any]] = Field(
        default=[],
        description="For models that read columns known beforehand: one object per entity and step of the horizon, "
        "with entity_id, event_timestamp (or as the dataset calls them) and these columns.",
    )


class RowsRequest(PredictionRequest):
    """Ask for predictions from raw rows.

    A forecast needs, per entity, at least lookback + context rows on the regular time grid without gaps; more are
    allowed, and the latest count. A model that reads columns known beforehand needs one more row per step of the
    horizon, in which only these columns have values. A tabular model answers every row. Entity and time may also be
    called as in the dataset. A null is read where the pair fills or reads it, and marked in the answer.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"rows": [{"entity_id": 1, "event_timestamp": "2026-03-01T00:00:00Z", "load": 0.71}]}]
        }
    )

    rows: Annotated[list[dict[str, Any]], WrapValidator(_objects)] = Field(
        min_length=1, description="One object per row: ids, time and the raw columns."
    )


class Answer(BaseModel):
    """What every answer says about the pair that made it."""

    model: str
    experiment: str
    version: int
    pair_id: str
    arm: str = Field(
        description="Which of the experiment's pairs answered: `production`, the challenger's alias, or `requested` "
        "for a pair that the request chose. `mixed` if two of them did: version and pair id are those of production "
        "then, and every entity says which one answered it."
    )
    errors: list[ItemError] = Field(
        default=[], description="The entities without an answer; left out if there are none."
    )


class MarkAnswer(BaseModel):
    """Something unusual in the rows that an answer was made from."""

    kind: Literal["missing", "out_of_range", "unseen_category", "unreadable"] = Field(
        description="A null that the pair filled or read, a number beyond the column's limits, a category that the "
        "training rows do not have, or a number that the pair's preprocessing has none for."
    )
    column: str
    rows: int = Field(description="How many of the rows behind the answer are concerned.")


class ShareOf(BaseModel):
    """What one contribution is of."""

    input: str = Field(description="The column; of the calendar, `event_timestamp`.")
    kind: Literal["value", "level", "change", "mean", "known", "calendar", "step"] = Field(
        description="`value` of a row; `level`, the last value; `change`, an earlier value less the last one; `mean`, "
        "a trailing average less the last value; `known` at a step of the horizon; `calendar`; number of the `step`."
    )
    lag: int | None = Field(default=None, description="Steps before the last value.")
    length: int | None = Field(default=None, description="Steps that are averaged.")
    step: int | None = Field(default=None, description="Of the horizon, from 1.")
    part: str | None = Field(default=None, description="Which part of the calendar.")


class Shares(BaseModel):
    """Exact Shapley values: with `base` the contributions add up to the answer, per target and step, or per class."""

    method: Literal["shap"]
    space: Literal["original", "preprocessed", "log_odds", "scores", "probability"] = Field(
        description="In what they add up. Of classes: `log_odds` (of the logistic function), `scores` (of softmax)."
    )
    features: list[ShareOf]
    base: float | dict[str, float | list[float]] = Field(
        description="What the answer would be without features; of a forecast the last observed value is in it."
    )
    contributions: list[float] | dict[str, list[float] | list[list[float]]] = Field(
        description="In the order of `features`; of a forecast one list per step."
    )


class Weights(BaseModel):
    """How much of each variable a network let through."""

    method: Literal["variable_selection"]
    weights: dict[str, dict[str, float] | list[float]]


class EntityAnswer(BaseModel):
    """What every answer says about an entity or row and the features it was made from."""

    entity: int | str
    event_time: dt.datetime | None = Field(
        description="Time of the entity's newest row that has a value. Null if rows have no time: of a dataset without "
        "a time column, or sent without one."
    )
    age_seconds: float | None = Field(
        description="Age of that row when it was read; never negative. Null if it has no time."
    )
    stale: bool = Field(
        description="Whether that is older than `staleness.max_age` of the experiment, or unknown under one; without a "
        "limit, whether all that is forecast lies before now. False for rows that the request itself brings."
    )
    marks: list[MarkAnswer] = Field(description="What is unusual in these rows; see `requests` of the experiment.")
    arm: str = Field(description="Which of the experiment's pairs answered.")
    version: int = Field(description="The version of that pair.")
    explanation: Shares | Weights | None = Field(
        default=None, description="Left out unless asked for; null where something stands in for the model's answer."
    )


class ItemError(BaseModel):
    """Why one entity of a request has no answer."""

    entity: int | str
    code: str = Field(description="As in an error of the whole request.")
    message: str


class ForecastInterval(BaseModel):
    """The prediction interval of every forecast value, in original units."""

    coverage: float = Field(description="Share of true values that such intervals are meant to cover.")
    lower: dict[str, list[float]] = Field(description="Per target, one value per horizon step.")
    upper: dict[str, list[float]] = Field(description="Per target, one value per horizon step.")


class ValueInterval(BaseModel):
    """The prediction interval of one value, in original units."""

    coverage: float = Field(description="Share of true values that such intervals are meant to cover.")
    lower: float
    upper: float


class Forecast(EntityAnswer):
    """The forecast of one entity, in original units."""

    observed: float = Field(
        description="Share of the lookback that was measured, 0 to 1, of the numeric column with the fewest values; "
        "the rest was filled or read as missing."
    )
    fallback: bool = Field(
        description="Whether something stands in for the model's forecast: what `serving.fallback` of the experiment "
        "names, or the last measured values."
    )
    fallback_reason: Literal["stale", "short_window", "too_little_observed", "model_failed", "not_finite"] | None = (
        Field(
            description="Why: features older than `staleness.max_age`, a series that begins inside the lookback, less "
            "measured than `observation.min_observed` asks for, a model that failed, or one that answered NaN or "
            "infinity."
        )
    )
    window_end: dt.datetime = Field(description="Time of the last step the forecast looked at.")
    timestamps: list[dt.datetime] = Field(description="The forecast moments, one per horizon step.")
    values: dict[str, list[float]] = Field(description="Per target, one value per horizon step.")
    interval: ForecastInterval | None = Field(description="Null if the model was not calibrated, and with a fallback.")
    intervals: list[ForecastInterval] | None = Field(
        default=None,
        description="Where the pair has several coverages, the intervals of all of them, the narrowest first; "
        "`interval` is one of these. Null with a fallback, and left out where there is one coverage.",
    )


class ForecastAnswer(Answer):
    """Forecasts, in the order of the request."""

    forecasts: list[Forecast]


class RegressionPrediction(EntityAnswer):
    """The predicted value of one entity or row, in original units."""

    value: float
    interval: ValueInterval | None = Field(description="Null if the model was not calibrated.")
    intervals: list[ValueInterval] | None = Field(
        default=None,
        description="Where the pair has several coverages, the intervals of all of them, the narrowest first; "
        "`interval` is one of these. Left out where there is one coverage.",
    )


class RegressionAnswer(Answer):
    """Predicted values, in the order of the request."""

    predictions: list[RegressionPrediction]


class ClassificationPrediction(EntityAnswer):
    """The most probable class of one entity or row, and the probability of every class."""

    label: str
    probabilities: dict[str, float]


class ClassificationAnswer(Answer):
    """Predicted classes, in the order of the request."""

    predictions: list[ClassificationPrediction]


PredictionAnswer = ForecastAnswer | RegressionAnswer | ClassificationAnswer


class ModelInput(BaseModel):
    """A column that a model reads."""

    name: str
    type: str = Field(description="`float` or `category`.")
    known_ahead: bool = Field(description="Whether a request brings its values over the horizon.")


class ChallengerAnswer(BaseModel):
    """The pair beside the one in production."""

    alias: str
    mode: Literal["split", "shadow"]
    share: float = Field(description="Of all entities, those that it works on.")
    version: int | None = Field(description="Null while it takes no part.")
    pair_id: str | None
    reason: str | None = Field(description="Why it takes no part.")


class ModelAnswer(BaseModel):
    """What a server tells about an experiment; without a pair in production only why there is none."""

    name: str
    ready: bool
    reason: str | None = Field(description="What keeps it from answering.")
    aliases: Mapping[str, int] | None = Field(
        default=None,
        description="What each alias stands for in the registry, whether this server has loaded it or not; null while "
        "the registry has not answered.",
    )
    task: str | None = None
    version: int | None = Field(default=None, description="The one that answers where a request chooses none.")
    pair_id: str | None = None
    family: str | None = None
    promoted_at: dt.datetime | None = None
    dataset: str | None = None
    inputs: list[ModelInput] = []
    targets: list[str] = []
    classes: list[str] = []
    lookback: int | None = Field(default=None, description="Steps of the past that a forecast looks at.")
    input_rows: int | None = Field(default=None, description="Rows per entity that a forecast reads.")
    least_rows: int | None = Field(
        default=None,
        description="Rows per entity that a request with rows must bring: without a `history`, all that are read.",
    )
    horizon: int | None = None
    step_seconds: int | None = Field(default=None, description="Length of a step, in the mean where steps differ.")
    frequency: str | None = Field(default=None, description="What a step is: 15 minutes, or 1 month (first day).")
    offset: str | None = Field(default=None, description="The same as an offset of pandas: 15min, or 1D, or MS.")
    timezone: str | None = Field(default=None, description="Zone of times that tell none, and of days and months.")
    max_age: str | None = Field(default=None, description="Age beyond which features are stale; null without one.")
    intervals: float | None = Field(default=None, description="Coverage of its prediction intervals.")
    coverages: list[float] = Field(default=[], description="Of all its prediction intervals, that one first.")
    inference: str | None = Field(
        default=None, description="How it answers: as fitted, or in a faster form that has the same bits."
    )
    challenger: ChallengerAnswer | None = Field(default=None, description="Null if the experiment has none.")


class ModelsAnswer(BaseModel):
    """All experiments of a server."""

    default: str = Field(description="The one that answers where a route names none.")
    models: list[ModelAnswer]


class LiveAnswer(BaseModel):
    """The process runs."""

    status: Literal["live"]


class ReadyAnswer(BaseModel):
    """Predictions can be answered."""

    status: Literal["ready"]
    experiment: str
    version: int
    pair_id: str


class ReloadAnswer(BaseModel):
    """The pair that is served after the reload."""

    experiment: str
    version: int
    pair_id: str
    previous_version: int | None
    swapped: bool = Field(description="Whether the served version changed.")
