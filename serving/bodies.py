"""From the bytes of a request to a checked model: content type, compression, JSON, fields.

A body is at most as long as the server allows, both as it arrives (`BodyLimitMiddleware`) and after decompression: a
megabyte of gzip can hold a gigabyte of zeros, so decompression stops one byte beyond the limit.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from serving.errors import ErrorDetail, ServingError, body_too_large, body_too_slow, invalid, shown
from serving.stages import Stage

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=BaseModel)

JSON = "application/json"
PROBLEM = "application/problem+json"
# Above this size reading a body takes longer than handing it to a thread.
_SMALL_BODY_BYTES = 65_536
# zlib's own number for "gzip, with its header and checksum".
_GZIP = 16 + zlib.MAX_WBITS
# What pydantic says of the length of a list, in words of a request.
_LENGTHS = {"too_short": "at least {min_length} of them", "too_long": "at most {max_length} of them"}
# Bytes that are decompressed at a time: what stands behind the end of a gzip body is copied, of tiny ones for each.
_PIECE = 8192


class BodyReader:
    """Reads the bodies of one server's requests.

    Parameters:
        stage: where large bodies are parsed.
        max_bytes: limit of a body's length after decompression.
        deadline_s: longest time that a body may take to arrive, in seconds.
    """

    def __init__(self, stage: Stage, max_bytes: int, deadline_s: float) -> None:
        self.stage = stage
        self._max_bytes, self._deadline_s = max_bytes, deadline_s

    async def read(self, request: Request, model: type[RequestT]) -> RequestT:
        """Return the request's body as `model`.

        Raises:
            ServingError: 408, 413, 415 or 422.
            ClientDisconnect: if the client left before its body was complete.
        """
        given = request.headers.get("content-type", "")
        if content_type(request) != JSON:
            raise ServingError(415, "not_json", f"found content-type {shown(given)}, expected {JSON}; send that header")
        return await self.parsed(request, partial(parse_json, model=model))

    async def parsed(self, request: Request, parse: Callable[[bytes], T]) -> T:
        """Return what `parse` makes of the request's body, whatever its type; large ones are parsed in a thread.

        Raises:
            ServingError: 408, 413, 415 for an unknown compression, and what `parse` raises.
            ClientDisconnect: if the client left before its body was complete.
        """
        is_compressed = _is_compressed(request.headers.getlist("content-encoding"))
        body = await self._received(request)
        if len(body) <= _SMALL_BODY_BYTES and not is_compressed:
            return parse(body)
        return await self.stage.run(_decoded, body, parse, is_compressed, self._max_bytes)

    async def _received(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(self._deadline_s):
                return await request.body()
        except TimeoutError as error:
            raise body_too_slow(self._deadline_s) from error


def content_type(request: Request) -> str:
    """Return the type of a request's body in lower case, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def decompressed(body: bytes, max_bytes: int) -> bytes:
    """Return what a gzip body holds.

    Raises:
        ServingError: 413 if that is more than `max_bytes`, 422 if it is not gzip or not complete.
    """
    parts: list[bytes] = []
    length = position = 0
    decoder = zlib.decompressobj(wbits=_GZIP)
    try:
        while position < len(body):
            # A gzip body may be several that stand one after the other, each of which begins anew.
            decoder = zlib.decompressobj(wbits=_GZIP) if decoder.eof else decoder
            piece = body[position : position + _PIECE]
            parts.append(decoder.decompress(piece, max_bytes - length + 1))
            length += len(parts[-1])
            if length > max_bytes:
                raise body_too_large(f"more than {max_bytes} bytes after decompression", max_bytes)
            position += len(piece) - len(decoder.unused_data)
        if not decoder.eof:
            raise ServingError(422, "invalid_encoding", "the gzip body ends too early; send all of it")
    except zlib.error as error:
        message = f"content-encoding is gzip, but the body is not: {error}; send gzip, or leave the header out"
        raise ServingError(422, "invalid_encoding", message) from error
    return b"".join(parts)


def _is_compressed(given: list[str]) -> bool:
    """Return whether the body is compressed.

    Raises:
        ServingError: 415 if it is so in another way than gzip.
    """
    codings = [coding.strip().lower() for line in given for coding in line.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if codings in ([], ["gzip"], ["x-gzip"]):
        return bool(codings)
    raise ServingError(
        415,
        "unknown_encoding",
        f"found content-encoding {shown(', '.join(given))}, expected gzip or none; compress the body with gzip, once",
        headers={"accept-encoding": "gzip"},
    )


def _decoded(body: bytes, parse: Callable[[bytes], T], is_compressed: bool, max_bytes: int) -> T:
    return parse(decompressed(body, max_bytes) if is_compressed else body)


def parse_json(body: bytes, model: type[RequestT]) -> RequestT:
    """Return a JSON body as `model`.

    Raises:
        ServingError: 422 if it is not JSON, or of another form.
    """
    try:
        # orjson refuses NaN and Infinity, which are not JSON and which json.loads lets pass.
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        message = f"the body is not JSON: {error}; numbers must be finite (NaN and Infinity are not JSON)"
        raise ServingError(422, "invalid_json", message) from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid("invalid_request", _findings(error, model)) from error


def _findings(error: ValidationError, model: type[BaseModel]) -> list[ErrorDetail]:
    findings = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"]) or "body"
        found = shown(item["input"])
        expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        action = "see /docs for the form of the request"
        if item["type"] == "missing":
            found, expected, action = "no such field", "a value", "add it"
        elif item["type"] == "extra_forbidden":
            found, expected, action = "an unknown field", f"only {', '.join(model.model_fields)}", "leave it out"
        elif item["type"] in _LENGTHS:
            expected = _LENGTHS[item["type"]].format_map(item["ctx"])
        findings.append(ErrorDetail(field=field, found=found, expected=expected, action=action))
    return findings
