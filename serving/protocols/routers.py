"""All protocols of a server: their routers, and a request of each that the served pair answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from mlplatform.settings import Settings
from serving.backend import Served
from serving.protocols import feedback, inference_v2, mlflow, push, timeseries
from serving.service import PredictionService

# Of the routes whose errors have the form of a protocol.
PROTOCOL_TAGS = frozenset({inference_v2.TAG, timeseries.TAG, mlflow.TAG})


def protocol_routers(service: PredictionService, settings: Settings) -> list[APIRouter]:
    """Return a router per protocol."""
    return [
        inference_v2.routes(service),
        timeseries.routes(service),
        mlflow.routes(service),
        push.routes(service, settings),
        feedback.routes(service, settings),
    ]


def protocol_requests(name: str, served: Served) -> Mapping[str, Any]:
    """Return example bodies by path, of the model of that name."""
    return {
        "/v2/models/{name}/infer": inference_v2.example(served),
        "/v2/models/{name}/versions/{version}/infer": inference_v2.example(served),
        "/v1/timeseries/forecast": timeseries.example(name, served),
        "/invocations": mlflow.example(served),
        "/models/{name}/invocations": mlflow.example(served),
        "/features/push": push.example(name, served),
        "/feedback": feedback.example(name, served),
    }
