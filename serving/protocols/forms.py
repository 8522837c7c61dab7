"""How the documentation pages describe a request body that a route reads by itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from serving.bodies import JSON

_DEFINITIONS = "#/$defs/"


def described_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return what OpenAPI should say about a body of the form `model`, which must not contain itself."""
    schema = model.model_json_schema()
    inlined = _inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {JSON: {"schema": inlined}}}}


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with definitions in the places that refer to them: a page looks for them at its own root."""
    if isinstance(value, list):
        return [_inlined(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if str(value.get("$ref", "")).startswith(_DEFINITIONS):
        return _inlined(definitions[value["$ref"].removeprefix(_DEFINITIONS)], definitions)
    return {key: _inlined(item, definitions) for key, item in value.items()}
