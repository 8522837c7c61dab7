"""What the OpenAPI description says about answers that are no success; the routes say the rest."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from serving.bodies import JSON, PROBLEM
from serving.errors import ErrorResponse

_PROBLEM_CONTENT = {PROBLEM: {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
# Errors of protocols have a form of their own.
_PROTOCOL_CONTENT = {JSON: {"schema": {"type": "object"}}, **_PROBLEM_CONTENT}
# How any request may end: without a token, too often, or by a failure of the server; and how one with a body may.
_ANY, _WITH_BODY = (401, 404, 429, 500, 503), (403, 408, 409, 413, 415)
# What cannot be understood: by the routes of the platform, and by protocols.
_NOT_UNDERSTOOD, _NOT_UNDERSTOOD_BY_PROTOCOLS = 422, 400


def described_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's description says about answers of these statuses."""
    return {status: {"model": ErrorResponse, "content": _PROBLEM_CONTENT} for status in statuses}


def with_errors(description: Mapping[str, Any], protocols: frozenset[str]) -> dict[str, Any]:
    """Return a description in which every operation says how it may fail.

    Parameters:
        protocols: tags of operations whose errors have the form of a protocol.
    """
    paths = {
        path: {method: _with_errors(operation, protocols) for method, operation in operations.items()}
        for path, operations in description["paths"].items()
    }
    return {**description, "paths": paths}


def _with_errors(operation: dict[str, Any], protocols: frozenset[str]) -> dict[str, Any]:
    is_protocol = not protocols.isdisjoint(operation.get("tags", ()))
    statuses = [*_ANY]
    if "requestBody" in operation:
        statuses += [*_WITH_BODY, _NOT_UNDERSTOOD_BY_PROTOCOLS if is_protocol else _NOT_UNDERSTOOD]
    content = _PROTOCOL_CONTENT if is_protocol else _PROBLEM_CONTENT
    # The framework's own 422 is none of ours.
    said = {status: told for status, told in operation["responses"].items() if not _is_frameworks(told)}
    errors = {str(status): {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
    return {**operation, "responses": dict(sorted({**errors, **said}.items()))}


def _is_frameworks(response: Mapping[str, Any]) -> bool:
    schema = response.get("content", {}).get(JSON, {}).get("schema", {})
    return str(schema.get("$ref", "")).endswith("/HTTPValidationError")
