"""The routes: each asks for the admin token, records who asked for what, and has Dagster do it.

An order whose key has launched a run is answered with that run, whatever became of data and configuration since: what
is asked for is looked at only before something is launched.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import HTTPBearer

from mlplatform.config import ConfigError, apply_versions, experiment_names, load_experiment
from mlplatform.locks import FileLock, LockedError
from mlplatform.monitoring.retraining import training_hold_of
from mlplatform.registry import RegistryAwayError
from mlplatform.settings import Settings
from serving.answers import to_json
from serving.bodies import JSON
from serving.errors import ServingError, shown
from serving.openapi import described_errors
from serving.platform.audit import Audit, token_mark
from serving.platform.dagster import DagsterClient, LaunchedRun
from serving.platform.forms import (
    AskedRequest,
    ExperimentsAnswer,
    PromoteRequest,
    RollbackRequest,
    RunAnswer,
    TrainRequest,
)
from serving.platform.overview import overview
from serving.protocols import described_body
from serving.rate_limit import Buckets
from serving.security import require_admin
from serving.service import PredictionService
from serving.stages import Stage

WAITING, THREADS, DEADLINE_S = 8, 2, 40.0
# Orders that a token may give, per second and at once: people and schedulers, not loops.
ORDER_RATE, ORDER_BURST = 0.5, 20
KEY_HEADER = "idempotency-key"
_KEY, _RUN_ID = re.compile(r"[\x21-\x7e]{1,128}"), re.compile(r"[0-9a-fA-F-]{36}")
# The tag for which the queue lets one run at a time through, as `mlplatform.defs`, which imports Dagster, calls it.
EXPERIMENT_TAG = "experiment"
# Tags of the runs that are launched here.
KEY_TAG, BODY_TAG, WHO_TAG, WHY_TAG = "platform/key", "platform/body", "platform/who", "platform/why"
_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": 128},
    "description": "Requests with the same key launch one run, however often they are sent.",
}


@dataclass(frozen=True)
class _Asked:
    """One request: for which run, by whom, and what makes it the same as another."""

    action: str
    experiment: str
    body: AskedRequest
    token: str
    request_id: str
    key: str | None

    @property
    def job(self) -> str:
        # Of training there is a job per experiment; those of the life after it are told whose.
        return f"train_{self.experiment}" if self.action == "train" else self.action

    @property
    def who(self) -> str:
        return f"{self.body.who} ({self.token})" if self.body.who else self.token

    @property
    def key_mark(self) -> str | None:
        """What stands for the key in tags and names of files."""
        if self.key is None:
            return None
        return hashlib.sha256(f"{self.action}_{self.experiment} {self.key}".encode()).hexdigest()[:32]

    @property
    def body_mark(self) -> str:
        return hashlib.sha256(self.body.model_dump_json().encode()).hexdigest()[:16]

    @property
    def tags(self) -> dict[str, str]:
        tags = {EXPERIMENT_TAG: self.experiment, WHO_TAG: self.who, WHY_TAG: self.body.why, BODY_TAG: self.body_mark}
        return tags | ({KEY_TAG: self.key_mark} if self.key_mark else {})

    @property
    def entry(self) -> dict[str, Any]:
        """What is recorded of it."""
        return {
            "who": self.body.who,
            "token": self.token,
            "why": self.body.why,
            "action": self.action,
            "experiment": self.experiment,
            "asked": self.body.model_dump(mode="json", exclude={"who", "why"}, exclude_none=True),
            "key": self.key_mark,
            "request_id": self.request_id,
        }


def platform_routes(service: PredictionService, settings: Settings) -> APIRouter:
    """Return the routes below `/platform`."""
    stage = Stage("work on the platform", waiting=WAITING, deadline_s=DEADLINE_S, threads=THREADS)
    platform, buckets = _Platform(settings), Buckets(ORDER_RATE, ORDER_BURST)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        yield
        stage.close()

    # For the documentation page; `require_admin` decides.
    token = [Security(HTTPBearer(scheme_name="bearer", auto_error=False))]
    router = APIRouter(prefix="/platform", tags=["platform"], lifespan=lifespan, dependencies=token)

    def admit(request: Request) -> str:
        authorization = request.headers.get("authorization")
        require_admin(authorization, settings.admin_token)
        return token_mark(authorization or "")

    async def ask(request: Request, action: str, name: str, form: type[AskedRequest]) -> Response:
        mark, key = admit(request), _key_of(request)
        _take_order(buckets, mark)
        body = await service.reader.read(request, form)
        asked = _Asked(action, name, body, mark, request.state.request_id, key)
        run, is_repeated = await stage.run(platform.launch, asked)
        return _answer(run, settings, status=200 if is_repeated else 202, is_repeated=is_repeated)

    def described(form: type[AskedRequest]) -> dict[str, Any]:
        return {
            "response_model": RunAnswer,
            "status_code": 202,
            "responses": {
                200: {"model": RunAnswer},
                **described_errors(401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
            },
            "openapi_extra": {**described_body(form), "parameters": [_KEY_PARAMETER]},
        }

    @router.post("/experiments/{name}/train", **described(TrainRequest))
    async def train(request: Request, name: str) -> Response:
        """Launch a training run."""
        return await ask(request, "train", name, TrainRequest)

    @router.post("/experiments/{name}/rollback", **described(RollbackRequest))
    async def rollback(request: Request, name: str) -> Response:
        """Launch a run that puts an earlier pair back into production."""
        return await ask(request, "rollback", name, RollbackRequest)

    @router.post("/experiments/{name}/promote", **described(PromoteRequest))
    async def promote(request: Request, name: str) -> Response:
        """Launch a run that sends a version through all checks and the gate."""
        return await ask(request, "promote", name, PromoteRequest)

    @router.get("/runs/{run_id}", response_model=RunAnswer, responses=described_errors(401, 403, 404, 503))
    async def run(request: Request, run_id: str) -> Response:
        """Say what became of a run."""
        admit(request)
        found = await stage.run(platform.client.run, run_id) if _RUN_ID.fullmatch(run_id) else None
        if found is None:
            raise ServingError(
                404, "unknown_run", f"Dagster knows no run {shown(run_id)}; take the id of an answer here"
            )
        return _answer(found, settings)

    @router.get("/experiments", response_model=ExperimentsAnswer, responses=described_errors(401, 403, 503))
    async def experiments(request: Request) -> Response:
        """List the experiments: versions, aliases, gate decisions, drift, live error, the policy's last decision."""
        admit(request)
        try:
            listed = await stage.run(overview, settings)
        except RegistryAwayError as error:
            raise ServingError(503, "registry_unavailable", str(error), headers={"retry-after": "5"}) from error
        return Response(to_json({"experiments": listed}), media_type=JSON)

    return router


class _Platform:
    """What the routes ask for; all methods block."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.client = DagsterClient(settings.dagster_url)
        self._audit = Audit(settings)

    def config(self, action: str, name: str, body: AskedRequest, token: str) -> dict[str, Any]:
        """Return the run configuration of what is asked for.

        Raises:
            ServingError: 404 for an unknown experiment, 422 for versions that cannot be used, 409 for broken data.
        """
        if name not in experiment_names(self._settings):
            raise ServingError(
                404, "unknown_experiment", f"there is no experiment {shown(name)}; see GET /platform/experiments"
            )
        if isinstance(body, TrainRequest):
            return self._training(name, body)
        who = f"{body.who} ({token})" if body.who else token
        asked = body.model_dump(exclude={"who", "why", "override"}, exclude_none=True)
        asked |= {"who": who, "experiment": name}
        # To the gate a reason is a person's word; the record has it either way.
        if not isinstance(body, PromoteRequest) or body.override:
            asked["why"] = body.why
        return {"ops": {action: {"config": asked}}}

    def _training(self, name: str, body: TrainRequest) -> dict[str, Any]:
        versions = {key: value for key in ("split_version", "feature_version", "model_version")
                    if (value := getattr(body, key)) is not None}  # fmt: skip
        try:
            config = load_experiment(name, apply_versions(name, versions, self._settings), self._settings)
            hold = training_hold_of(config, self._settings, config.split.as_of)
        except ConfigError as error:
            raise ServingError(422, "invalid_versions", str(error)) from error
        if hold and not body.despite_broken_data:
            raise ServingError(409, "data_broken", f"nothing is trained: {hold}")
        asked = {**versions, "dry_run": body.dry_run, "despite_broken_data": body.despite_broken_data}
        return {"resources": {"training": {"config": asked}}}

    def launch(self, asked: _Asked) -> tuple[LaunchedRun, bool]:
        """Launch the run, or return the one that the same key has launched before.

        Raises:
            ServingError: as `config` does, before anything is launched; 409 while the same key is worked on, 422 if it
                was used for something else, 503.
        """
        self._audit.note(step="asked", **asked.entry)
        try:
            run, is_repeated = self._launch_once(asked)
        except Exception as error:
            outcome = error.code if isinstance(error, ServingError) else "internal_error"
            self._audit.note(step="refused", outcome=outcome, **asked.entry)
            raise
        self._audit.note(step="repeated" if is_repeated else "launched", run_id=run.run_id, **asked.entry)
        return run, is_repeated

    def _launch_once(self, asked: _Asked) -> tuple[LaunchedRun, bool]:
        if asked.key_mark is None:
            return self._launch(asked), False
        try:
            with FileLock(self._settings.home / "platform" / "keys" / f"{asked.key_mark[:2]}.lock", wait_s=10):
                # Dagster keeps the key with the run, so it is known whoever dies in between.
                before = self.client.tagged(KEY_TAG, asked.key_mark)
                if before is None:
                    return self._launch(asked), False
        except LockedError as error:
            raise ServingError(
                409,
                "key_in_use",
                "a request with this Idempotency-Key is being worked on; ask again",
                headers={"retry-after": "1"},
            ) from error
        if before.tags.get(BODY_TAG) != asked.body_mark:
            raise ServingError(
                422,
                "key_reused",
                f"this Idempotency-Key launched run {before.run_id} with another body; take a new key",
            )
        return before, True

    def _launch(self, asked: _Asked) -> LaunchedRun:
        config = self.config(asked.action, asked.experiment, asked.body, asked.token)
        return self.client.launch(asked.job, config, asked.tags)


def _key_of(request: Request) -> str | None:
    """Return the request's idempotency key, if it has one.

    Raises:
        ServingError: 422 for one that cannot be used.
    """
    key = request.headers.get(KEY_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        message = "Idempotency-Key must be 1 to 128 visible ASCII characters; send another one"
        raise ServingError(422, "invalid_key", message)
    return key


def _take_order(buckets: Buckets, mark: str) -> None:
    """Count an order of a token.

    Raises:
        ServingError: 429 if it gives too many.
    """
    wait_s = buckets.take(mark.encode()).wait_s
    if wait_s:
        message = f"this token may give {ORDER_RATE:g} orders per second, {ORDER_BURST} at once; wait and ask again"
        raise ServingError(429, "rate_limited", message, headers={"retry-after": str(math.ceil(wait_s))})


def _answer(run: LaunchedRun, settings: Settings, status: int = 200, *, is_repeated: bool = False) -> Response:
    content = RunAnswer(
        run_id=run.run_id,
        job=run.job,
        status=run.status,
        created=run.created,
        started=run.started,
        ended=run.ended,
        page=f"{settings.dagster_url}/runs/{run.run_id}",
        repeated=is_repeated,
    )
    return Response(to_json(content.model_dump()), status, media_type=JSON)
