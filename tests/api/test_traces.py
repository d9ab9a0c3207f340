"""One request's way in OpenTelemetry, and its id in the logs of whoever works for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from websockets.asyncio.client import connect

from app.platform.logs import REQUEST_ID, JsonFormatter
from app.platform.settings import Settings, TracingSettings
from app.platform.tracing import configure_tracing, flush_traces, outgoing, span
from app.speech.protocol import Assign
from tests.api.conftest import House, OpenHouse
from tests.support.fakes import FakeEngine
from tests.support.session_client import speak
from tests.unit.workers.test_server import WREN, Talk, serving

pytestmark = pytest.mark.anyio

TRACED = TracingSettings(endpoint="http://127.0.0.1:9/v1/traces")
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    configure_tracing(Settings(tracing=TRACED), "test", exporter=exporter)
    yield exporter
    configure_tracing(Settings(), "test")


def finished(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    flush_traces()
    return {span.name: span for span in exporter.get_finished_spans()}


def trace_of(span: ReadableSpan) -> str:
    assert span.context
    return f"{span.context.trace_id:032x}"


async def test_a_request_is_one_trace_under_the_callers_own(
    open_house: OpenHouse, exporter: InMemorySpanExporter
) -> None:
    async with open_house(tracing=TRACED) as house, house.worker():
        house.http.headers["traceparent"] = PARENT
        house.http.headers["x-request-id"] = "call-7"
        assert (await speak(house)).status_code == 200
    spans = finished(exporter)
    assert {"POST /v1/audio/speech", "place", "speak"} <= spans.keys()
    assert {trace_of(spans[name]) for name in ("POST /v1/audio/speech", "place", "speak")} == {TRACE}
    request = spans["POST /v1/audio/speech"].attributes
    assert request and (request["carillon.status"], request["carillon.request"]) == (200, "call-7")


async def test_probes_and_scrapes_make_no_spans(open_house: OpenHouse, exporter: InMemorySpanExporter) -> None:
    async with open_house(tracing=TRACED) as house:
        for path in ("/healthz", "/metrics"):
            await house.http.get(path)
    assert not finished(exporter)


async def test_a_worker_goes_on_with_the_trace_and_logs_the_request(
    tmp_path: Path, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(JsonFormatter())
    headers = {"Authorization": "Bearer secret", "X-Request-Id": "call-7", "traceparent": PARENT}
    async with serving(FakeEngine(), tmp_path) as server:
        async with connect(f"{server.address}/session", additional_headers=headers, compression=None) as socket:
            await socket.send(Assign(session="a", epoch=7, voice=WREN, pace="unpaced").model_dump_json())
            talk = Talk(socket, "a")
            await talk.say("Hello.")
            await talk.end()
        async with connect(f"{server.address}/session", additional_headers=headers, compression=None) as socket:
            await socket.send(Assign(session="b", epoch=7, voice=WREN, pace="unpaced").model_dump_json())
            await Talk(socket, "b").receive()
    spans = finished(exporter)
    assert trace_of(spans["session"]) == trace_of(spans["worker session"]) == TRACE
    assert any(
        '"event": "front door left"' in line and '"request": "call-7"' in line for line in caplog.text.split("\n")
    )


def test_no_span_has_what_an_error_says(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError), span("work"):
        raise ValueError("a user's words")
    work = finished(exporter)["work"]
    assert not work.events and not work.status.description
    assert work.attributes and work.attributes["carillon.error"] == "ValueError"


def test_without_an_endpoint_only_the_requests_id_goes_along() -> None:
    token = REQUEST_ID.set("call-7")
    try:
        with span("work"):
            assert outgoing() == {"x-request-id": "call-7"}
    finally:
        REQUEST_ID.reset(token)


async def test_a_job_is_sent_with_the_id_of_its_request(house: House) -> None:
    token = REQUEST_ID.set("call-7")
    try:
        await house.server.config.app.state.services.queue.send("carillon.janitor", queue="interactive")  # type: ignore[union-attr]
    finally:
        REQUEST_ID.reset(token)
    message = await house.registry._redis.lindex("interactive", 0)  # type: ignore[misc]
    assert b'"x-request-id": "call-7"' in bytes(message) if isinstance(message, bytes) else "call-7" in str(message)
