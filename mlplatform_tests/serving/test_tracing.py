"""Traces: sent where the standard variables say, continued from and to others, and not even loaded otherwise."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mlplatform_tests.serving.conftest import Platform
from mlplatform_tests.serving.servers import in_thread
from serving.api import build_app
from serving.local import LocalBackend
from serving.ray_versions import PairRef
from serving.tracing import TracingError, carrier, exporters, span, traced, tracer

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(handler) -> None:  # noqa: N805 - as http.server calls it; self is the collector
                body = handler.rfile.read(int(handler.headers["content-length"]))
                sent = ExportTraceServiceRequest.FromString(body)
                for resource in sent.resource_spans:
                    named = {each.key: each.value.string_value for each in resource.resource.attributes}
                    self.services.add(named["service.name"])
                    self.spans += [one for scope in resource.scope_spans for one in scope.spans]
                handler.send_response(200)
                handler.end_headers()

            def log_message(handler, *_: object) -> None:  # noqa: N805
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)

    def awaited(self, name: str) -> Span:
        """Return the span of that name, once it is here."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = [one for one in self.spans if one.name == name]
            if found:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"no span {name} among {[one.name for one in self.spans]}")


@contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Iterator[Collector]:
    collector = Collector()
    threading.Thread(target=collector.server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    tracer.cache_clear()
    try:
        yield collector
    finally:
        tracer.cache_clear()
        collector.server.shutdown()
        collector.server.server_close()


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, []),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
    ],
)
def test_the_standard_variables_say_where_traces_go(environ: dict[str, str], names: list[str]) -> None:
    assert exporters(environ) == names


def test_without_them_nothing_is_loaded() -> None:
    # FastAPI looks for the interface by itself; what makes spans and sends them is another package.
    code = "import serving.tracing, sys; serving.tracing.tracer(); print('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "False\n"


def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    tracer.cache_clear()
    with pytest.raises(TracingError, match="no exporter 'zipkin' of traces is installed"):
        tracer()


def test_a_request_continues_its_clients_trace_and_its_stages_are_below_it(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = platform.serving("tiny_forecast")
    with (
        collecting(monkeypatch) as collector,
        in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client,
    ):
        headers = {"traceparent": TRACEPARENT}
        client.post("/predict/feast/batch", json={"entities": [1]}, headers=headers)
        server = collector.awaited("POST /predict/feast/batch")
        assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, PARENT)
        assert collector.services == {"mlplatform.serving"}
        attributes = {each.key: each.value.string_value or each.value.int_value for each in server.attributes}
        assert attributes["http.response.status_code"] == 200
        for stage in ("features", "model"):
            below = collector.awaited(stage)
            assert (below.trace_id, below.parent_span_id) == (server.trace_id, server.span_id)
            assert server.start_time_unix_nano <= below.start_time_unix_nano <= below.end_time_unix_nano
        client.post("/models/tiny_forecast/predict/feast/batch", json={"entities": [99]}, headers=headers)
        refused = collector.awaited("POST /models/{name}/predict/feast/batch")
        attributes = {each.key: each.value.string_value or each.value.int_value for each in refused.attributes}
        assert (attributes["http.response.status_code"], attributes["error.type"]) == (404, "unknown_entity")
        client.post("/predict/feast/batch", json={"entities": [1]}, headers={"traceparent": "nonsense"})
        client.get("/health/ready", headers=headers)
        assert not [one for one in collector.spans if "health" in one.name]


def test_a_call_of_another_deployment_carries_the_trace_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Service:
        @traced
        async def read(self, ref: PairRef, number: int) -> int:
            with span("inside", version=ref.version):
                return number + 1

    with collecting(monkeypatch) as collector:
        active = tracer()
        assert active is not None
        assert carrier() is None
        with active.start_as_current_span("request"):
            ref = PairRef("one", 1, "p", carrier())
        assert asyncio.run(Service().read(ref, 1)) == 2
        outer, called, inside = (collector.awaited(name) for name in ("request", "Service.read", "inside"))
        assert called.parent_span_id == outer.span_id
        assert inside.parent_span_id == called.span_id
        assert ref == PairRef("one", 1, "p")  # what is loaded for a pair does not depend on who asks
        assert asyncio.run(Service().read(PairRef("one", 1, "p"), 2)) == 3


def test_a_collector_that_is_away_costs_no_request(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracer.cache_clear()
    settings = platform.serving("tiny_forecast")
    try:
        with in_thread(build_app({settings.experiment: LocalBackend(settings)}, settings)) as client:
            statuses = {client.post("/predict", json={"rows": platform.rows()}).status_code for _ in range(20)}
        assert statuses == {200}
    finally:
        tracer.cache_clear()
