"""OpenTelemetry traces, and the names under which a request is known to the next process.

Without `CARILLON_TRACING__ENDPOINT` no span is made and no package of OpenTelemetry is imported; `X-Request-Id` goes
along all the same. A span has names and figures, and never text or audio of a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import CarillonError, ConfigurationError
from app.platform.logs import REQUEST_ID
from app.platform.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

REQUEST_ID_HEADER = "x-request-id"

FLUSH_TIMEOUT_MS = 2_000


@dataclass
class _Process:
    provider: TracerProvider | None = None


_process = _Process()
"""Process-wide, like logging's handlers: code that makes spans does not choose where they go."""


class Span:
    """What is recorded of one piece of work: nothing, where there is no tracing."""

    def note(self, **attributes: Any) -> None:
        """Add what is known now; None is left out."""

    def rename(self, name: str) -> None:
        """Rename it."""


class _Recorded(Span):
    def __init__(self, span: Any) -> None:
        self._span = span

    def note(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            if value is not None:
                self._span.set_attribute(f"carillon.{name}", value)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def failed(self, error: Exception) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR)
        self.note(error=error.code if isinstance(error, CarillonError) else type(error).__name__)


_FORGETFUL = Span()


def configure_tracing(settings: Settings, service: str, *, exporter: SpanExporter | None = None) -> None:
    """Send the spans of this process, `service`, where the settings say, or to `exporter`.

    Raises ConfigurationError where the packages are missing.
    """
    flush_traces()
    _process.provider = None
    tracing = settings.tracing
    if tracing.endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ConfigurationError(
            f"CARILLON_TRACING__ENDPOINT is set, and {error.name} is not installed: pip install 'carillon[tracing]'"
        ) from error
    _process.provider = TracerProvider(
        resource=Resource.create({"service.name": f"carillon-{service}"}),
        sampler=ParentBased(TraceIdRatioBased(tracing.sample_ratio)),
    )
    _process.provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=tracing.endpoint)))


def flush_traces() -> None:
    """Send what is held back; a process that may end at any time calls it after each piece of work."""
    if _process.provider is not None:
        _process.provider.force_flush(FLUSH_TIMEOUT_MS)


@contextmanager
def span(name: str, *, of: Mapping[str, str] | None = None, **attributes: Any) -> Iterator[Span]:
    """Work in a span, under the present one or, given another process's headers, under the one they name."""
    if _process.provider is None:
        yield _FORGETFUL
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    parent = TraceContextTextMapPropagator().extract(of) if of is not None else None
    tracer = _process.provider.get_tracer("carillon")
    # An exception's message may quote what a user wrote.
    starting = tracer.start_as_current_span(name, context=parent, record_exception=False, set_status_on_exception=False)
    with starting as started:
        recorded = _Recorded(started)
        recorded.note(request=REQUEST_ID.get(), **attributes)
        try:
            yield recorded
        except Exception as error:
            recorded.failed(error)
            raise


def outgoing() -> dict[str, str]:
    """The headers by which the next process knows the request and the span it works for."""
    headers = {}
    if request_id := REQUEST_ID.get():
        headers[REQUEST_ID_HEADER] = request_id
    if _process.provider is not None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        TraceContextTextMapPropagator().inject(headers)
    return headers
