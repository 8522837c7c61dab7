"""Traces of requests (OpenTelemetry): off, and nothing of it imported, unless the standard variables name an exporter.

A request's span continues the trace that its `traceparent` names (W3C Trace Context); the stages of its prediction are
spans below it, on Ray Serve in the processes of the deployments too. `OTEL_TRACES_EXPORTER`, `OTEL_EXPORTER_OTLP_*`,
`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER` and the others mean what OpenTelemetry's specification says.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.security import is_open

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

NAME = "mlplatform.serving"
_OTLP_ADDRESSES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OTLP_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# Headers of the trace that a call belongs to.
Carrier = Mapping[str, str]

P = ParamSpec("P")
T = TypeVar("T")


class TracingError(RuntimeError):
    """Traces are asked for and cannot be made."""


class _Traced(Protocol):
    """What a call between deployments is about."""

    @property
    def trace(self) -> Carrier | None:
        """Headers of the trace that the call belongs to."""


S = TypeVar("S")
R = TypeVar("R", bound=_Traced)


def exporters(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters that the environment asks for, as OpenTelemetry's packages register them."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    is_otlp = any(environ.get(name) for name in _OTLP_ADDRESSES)
    asked = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if is_otlp else "none")
    protocol = next((environ[name] for name in _OTLP_PROTOCOLS if environ.get(name)), "http/protobuf")
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    names = [name.strip() for name in asked.split(",")]
    return [otlp if name == "otlp" else name for name in names if name and name != "none"]


@functools.cache
def tracer() -> Tracer | None:
    """Return what makes this process's spans; `None` if nobody asks for any.

    Raises:
        TracingError: if what exports them is not installed.
    """
    names = exporters(os.environ)
    if not names:
        return None
    from importlib.metadata import entry_points

    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError(f"{error}; install mlplatform[tracing], or unset OTEL_TRACES_EXPORTER") from error

    given = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: NAME}
    provider = TracerProvider(resource=Resource.create(given))
    for name in names:
        found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
        if found is None:
            message = f"no exporter {name!r} of traces is installed; install mlplatform[tracing] or its package"
            raise TracingError(f"{message}, or correct OTEL_TRACES_EXPORTER")
        provider.add_span_processor(BatchSpanProcessor(found.load()()))
    # What is still unsent when the process ends, the provider sends then.
    return provider.get_tracer(NAME)


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[None]:
    """Have a span around what is done in the context, if that belongs to a request that is traced."""
    active = tracer()
    if active is None:
        yield
        return
    from opentelemetry.trace import get_current_span

    if not get_current_span().is_recording():
        yield
        return
    with active.start_as_current_span(name, attributes=attributes):
        yield


def carrier() -> Carrier | None:
    """Return the headers that continue the current trace elsewhere; `None` if there is none."""
    if tracer() is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers or None


def traced(
    method: Callable[Concatenate[S, R, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, R, P], Coroutine[Any, Any, T]]:
    """Have calls of a deployment's method continue the trace that their first argument carries."""

    @functools.wraps(method)
    async def called(self: S, ref: R, /, *args: P.args, **kwargs: P.kwargs) -> T:
        active = tracer() if ref.trace else None
        if active is None:
            return await method(self, ref, *args, **kwargs)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract(ref.trace or {})
        with active.start_as_current_span(f"{type(self).__name__}.{method.__name__}", context=context):
            return await method(self, ref, *args, **kwargs)

    return called


class TracingMiddleware:
    """Has a span around every request but those of probes and scrapers."""

    def __init__(self, app: ASGIApp, active: Tracer) -> None:
        self.app, self._tracer = app, active

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = TraceContextTextMapPropagator().extract(headers)
        method = scope["method"]
        attributes: dict[str, Any] = {"http.request.method": method, "url.scheme": scope.get("scheme", "http")}
        with self._tracer.start_as_current_span(
            method, context=context, kind=SpanKind.SERVER, attributes=attributes
        ) as server:

            async def observed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    # The template, not the path, as in metrics.
                    route = getattr(scope.get("route"), "path", "unmatched")
                    server.update_name(f"{method} {route}")
                    server.set_attributes({"http.route": route, "http.response.status_code": message["status"]})
                    if "rejection" in scope.get("state", {}):
                        server.set_attribute("error.type", scope["state"]["rejection"])
                    if message["status"] >= 500:
                        server.set_status(Status(StatusCode.ERROR))
                await send(message)

            await self.app(scope, receive, observed)
