"""The bodies of the platform's routes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from serving.schemas import StrictRequest

Text = Annotated[str, StringConstraints(strip_whitespace=True)]


class AskedRequest(StrictRequest):
    """Who asks, and why; both are recorded, without the space around them. A blank reason is none."""

    why: Text = Field(min_length=1, max_length=500, description="The reason, for the record.")
    who: Text = Field(default="", max_length=100, description="A person or a service; the token is recorded anyway.")


class TrainRequest(AskedRequest):
    """What to train with; what is missing comes from `active_config.yaml`, else from the experiment."""

    split_version: str | None = Field(default=None, description="Split version, optionally <version>@YYYYMMDDTHHMM.")
    feature_version: str | None = None
    model_version: str | None = None
    dry_run: bool = Field(default=False, description="Train, register and decide, but change nothing that is served.")
    despite_broken_data: bool = Field(default=False, description="Train though the newest drift report says broken.")


class RollbackRequest(AskedRequest):
    """Where to go back to."""

    version: int | None = Field(default=None, ge=1, description="Default: the pair behind the alias `previous`.")


class PromoteRequest(AskedRequest):
    """What to promote."""

    version: int | None = Field(default=None, ge=1, description="Default: the newest complete pair.")
    dry_run: bool = Field(default=False, description="Decide and report, but change nothing.")
    override: bool = Field(
        default=False, description="Take `why` for a person's word against what a check, or broken data, hold up."
    )


class RunAnswer(BaseModel):
    """A run of Dagster; times in seconds since 1970."""

    run_id: str
    job: str
    status: str = Field(description="As Dagster says it: QUEUED, STARTED, SUCCESS, FAILURE, CANCELED ...")
    created: float | None = None
    started: float | None = None
    ended: float | None = None
    page: str = Field(description="Its page in Dagster.")
    repeated: bool = Field(default=False, description="Whether an earlier request with the same key launched it.")


class VersionAnswer(BaseModel):
    """A registered pair."""

    version: int
    aliases: list[str]
    gate: str | None = Field(description="What the promotion gate said about it; null if it was never asked.")
    gate_passed: bool | None


class DriftAnswer(BaseModel):
    """The newest drift report."""

    day: str
    pair_version: int
    data_until: str
    causes: list[str]
    broken: list[str]
    live_error: float | None
    reference_error: float | None


class ExperimentAnswer(BaseModel):
    """Where an experiment stands."""

    experiment: str
    production: int | None
    versions: list[VersionAnswer]
    drift: DriftAnswer | None
    retraining: dict[str, Any] | None = Field(description="The newest decision of the retrain policy.")


class ExperimentsAnswer(BaseModel):
    """Where all experiments stand of which something was registered."""

    experiments: list[ExperimentAnswer]
