"""Errors that a client sees, and their one JSON shape.

Every answer that is not a success is a problem of RFC 9457 (`type`, `title`, `status`, `detail`) with the further
member `error` of `{"code", "message", "details"}`. `code` is stable and made for programs; `message` and `details` say
what was found, what was expected and what to do. The classes here carry only plain values, so that they travel between
Ray processes unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from mlplatform.features.retrieval import FeaturePanel
    from mlplatform.registry import ShortSeries

MAX_DETAILS = 20
_SHOWN_CHARACTERS = 80


class ErrorDetail(BaseModel):
    """One finding in a request."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Where in the body, for example `rows[3].HUFL`.")
    row: int | None = Field(default=None, description="Position in `rows`, from 0.")
    column: str | None = Field(default=None, description="Name of the column.")
    found: str
    expected: str
    action: str = Field(description="What to do about it.")


class ErrorBody(BaseModel):
    """What went wrong."""

    code: str
    message: str
    details: list[ErrorDetail] = []


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success, as RFC 9457 describes it."""

    type: str = Field(description="Names the kind of problem: `urn:mlplatform:problem:<code>`.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened and what to do; as `error.message`.")
    error: ErrorBody


class ServingError(Exception):
    """A failure with an HTTP status and a stable code.

    Parameters:
        status: HTTP status of the answer.
        code: stable name of the kind of failure.
        message: what happened and what to do.
        details: the single findings, where there are several.
        headers: further HTTP headers of the answer.
        entities: ids that are to blame, where the same request without them may be answered.
        is_left_out: whether the experiment's policy has an answer that has others go without these entities.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Sequence[ErrorDetail] = (),
        headers: dict[str, str] | None = None,
        entities: Sequence[int | str] = (),
        *,
        is_left_out: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = tuple(details)
        self.headers = headers or {}
        self.entities = tuple(entities)
        self.is_left_out = is_left_out

    def __reduce__(self) -> tuple[Any, ...]:
        said = self.status, self.code, self.message, self.details, self.headers, self.entities
        return ServingError, said, {"is_left_out": self.is_left_out}

    def body(self) -> dict[str, Any]:
        """Return the JSON form."""
        details = [detail.model_dump(exclude_none=True) for detail in self.details]
        return {
            "type": f"urn:mlplatform:problem:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.message,
            "error": {"code": self.code, "message": self.message, "details": details},
        }


class StaleFeaturesRefusedError(ServingError):
    """A refusal because of features that are too old.

    It is 409 and not 503: the server works and answers for other entities, so neither a client's automatic repeat nor
    a load balancer that takes the server out of rotation would help. The request is in conflict with the state of the
    features, and the caller can leave the named entities out.

    Parameters:
        entities: those whose features are too old.
        oldest_seconds: age of the oldest; `None` if no age is known.
    """

    def __init__(
        self, message: str, details: Sequence[ErrorDetail], entities: Sequence[int | str], oldest_seconds: float | None
    ) -> None:
        super().__init__(409, "stale_features", message, details, entities=entities)
        self.oldest_seconds = oldest_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        return StaleFeaturesRefusedError, (self.message, self.details, self.entities, self.oldest_seconds)


def invalid(code: str, details: Sequence[ErrorDetail], entities: Sequence[int | str] = ()) -> ServingError:
    """Return a 422 that leads with the first of `details` and lists at most `MAX_DETAILS` of them.

    Parameters:
        entities: ids that are to blame, where the same request without them may be answered.
    """
    listed = details[:MAX_DETAILS]
    message = _sentence(details[0])
    if len(details) > len(listed):
        message += f" (there are more findings; the first {MAX_DETAILS} are in details)"
    elif len(listed) > 1:
        message += f" (one of {len(listed)} findings, all in details)"
    return ServingError(422, code, message, listed, entities=entities)


def reworded(error: ServingError, details: Sequence[ErrorDetail]) -> ServingError:
    """Return an error of `invalid` with its details told in other words."""
    rest = error.message.removeprefix(_sentence(error.details[0]))
    message = _sentence(details[0]) + rest
    said = error.status, error.code, message, details, error.headers, error.entities
    return ServingError(*said, is_left_out=error.is_left_out)


def _sentence(detail: ErrorDetail) -> str:
    return f"{detail.field}: found {detail.found}, expected {detail.expected}; {detail.action}"


def too_short(entities: Sequence[Any], lookback: int, policy: ShortSeries) -> ServingError:
    """Return the refusal of series that begin inside the lookback; 409 on whichever route the rows came."""
    words = {
        "naive": "finds nothing measured to stand in for them",
        "skip": "leaves them out, and no other is asked for",
    }
    does = words.get(policy.action, "refuses them")
    details, named = _blamed(
        [(entity, "a series that begins inside the lookback") for entity in entities],
        f"one that is {lookback} steps long, give or take a tenth",
        "leave it out until it has a longer history",
    )
    message = (
        f"{len(entities)} entities ({named}) are too short for a lookback of {lookback} steps, and observation.short "
        f"of the experiment {does}; leave them out, or change the policy to naive or model"
    )
    return ServingError(409, "short_window", message, details, entities=entities, is_left_out=policy.leaves_out)


def too_little_observed(entities: Sequence[tuple[Any, float]], least: float, lookback: int) -> ServingError:
    """Return the refusal of forecasts of which too little was measured.

    It is 409 as that of old features is, whichever route the rows came by.

    Parameters:
        entities: id and measured share of each.
    """
    details, named = _blamed(
        [(entity, f"{share:.1%} of the lookback measured") for entity, share in entities],
        f"at least {least:.1%} of {lookback} steps",
        "leave it out, or bring in what is missing",
    )
    message = (
        f"too little was measured for {len(entities)} entities ({named}): observation.min_observed of the experiment "
        f"asks for {least:.1%} of the lookback; leave them out, bring in what is missing, or change the policy"
    )
    return ServingError(409, "too_little_observed", message, details, entities=[entity for entity, _ in entities])


def unreadable(entities: Sequence[tuple[Any, Sequence[str]]]) -> ServingError:
    """Return the refusal of entities with a number in their rows that the pair's preprocessing has none for.

    Parameters:
        entities: id and columns of each.
    """
    details, named = _blamed(
        [(entity, f"no number for a value of {', '.join(names)}") for entity, names in entities],
        "values that the pair's preprocessing has a number for, such as a logarithm's above -shift",
        "correct the value in the source, or leave the entity out until it is out of the lookback",
    )
    columns = ", ".join(dict.fromkeys(name for _, names in entities for name in names))
    message = (
        f"the pair's preprocessing has no number for a value of {columns} in the rows of {len(entities)} entities "
        f"({named}), as of a logarithm at or below -shift; correct the rows, or send such to quarantine with min in "
        "dataset.columns"
    )
    return ServingError(409, "unreadable_values", message, details, entities=[entity for entity, _ in entities])


def too_old(panel: FeaturePanel, places: Sequence[int], limit: str, dataset: str) -> StaleFeaturesRefusedError:
    """Return the refusal of entities, given by their places, whose features are too old and nothing stands in."""
    ids, ages = panel.entity_ids.tolist(), panel.ages / np.timedelta64(1, "s")
    details, named = _blamed(
        [(ids[place], f"newest row {np.datetime_as_string(panel.event_times[place], 's')}Z") for place in places],
        f"features of dataset {dataset} at most {limit} old, or something to fall back on",
        "leave it out, or bring its features up to date",
    )
    blamed = [ids[place] for place in places]
    message = f"features of {len(blamed)} entities ({named}) are more than {limit} old, and nothing stands in for them"
    known = [float(ages[place]) for place in places if not np.isnan(ages[place])]
    return StaleFeaturesRefusedError(message, details, blamed, max(known, default=None))


def _blamed(found: Sequence[tuple[Any, str]], expected: str, action: str) -> tuple[list[ErrorDetail], str]:
    """Return the details about entities, and the names of the first few for a sentence.

    Parameters:
        found: id, and what was found of it.
    """
    details = [
        ErrorDetail(field="entities", found=f"{shown(entity)}: {words}", expected=expected, action=action)
        for entity, words in found[:MAX_DETAILS]
    ]
    return details, ", ".join(shown(entity) for entity, _ in found[:5])


def too_many_requests(limit: int) -> ServingError:
    """Return the error of a request beyond what the server works for at once."""
    found = f"the server works for {limit} prediction requests already"
    return _busy(429, "too_many_requests", f"{found}; wait as long as Retry-After says and send it again")


def overloaded(stage: str, places: int) -> ServingError:
    """Return the error of a request for which a stage has no place left."""
    found = f"all {places} places of the {stage} are taken"
    return _busy(503, "overloaded", f"{found}; wait as long as Retry-After says and send the request again")


def overdue(stage: str, deadline_s: float) -> ServingError:
    """Return the error of a stage, or of the whole request, that took too long."""
    found = f"the {stage} took longer than {deadline_s:g} s"
    return _busy(503, "deadline_exceeded", f"{found}; wait as long as Retry-After says and send the request again")


def _busy(status: int, code: str, message: str) -> ServingError:
    """Return a refusal that is over soon: what is busy now is most often free a moment later."""
    return ServingError(status, code, message, headers={"retry-after": "1"})


def unknown_model(name: str, known: Sequence[str]) -> ServingError:
    """Return the error of a request for an experiment that this server does not serve."""
    return ServingError(
        404,
        "unknown_model",
        f"no model {shown(name)} is served here; served: {', '.join(known)}; ask for one of them, or add the "
        "experiment to MLPLATFORM_EXPERIMENTS of the server",
    )


def body_too_slow(deadline_s: float) -> ServingError:
    """Return the error of a request whose body does not arrive."""
    return ServingError(
        408,
        "body_too_slow",
        f"the request body was not complete after {deadline_s:g} s; send it faster, or in smaller requests",
        headers={"connection": "close"},
    )


def body_too_large(found: str, max_bytes: int) -> ServingError:
    """Return the error of a request body above the limit."""
    return ServingError(
        413,
        "body_too_large",
        f"the request body has {found}, but at most {max_bytes} are allowed; "
        "split the request or raise MLPLATFORM_MAX_BODY_BYTES on the server",
    )


def shown(value: Any) -> str:
    """Return a value as it should appear in a message: JSON words, cut to a readable length."""
    text = (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
