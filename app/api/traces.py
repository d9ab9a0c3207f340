"""A span for every request and WebSocket, under the client's own where it sends `traceparent`."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.tracing import span

PROBES = frozenset({"/healthz", "/health", "/readyz", "/v1/readyz", "/metrics"})
"""Polled by machines: not traced."""


class Traces:
    """ASGI middleware; inside of `RequestIds`, so that the span has the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope.get("method", "WEBSOCKET")
        with span(method, of=headers) as request:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    request.note(status=message["status"])
                await send(message)

            try:
                await self._app(scope, receive, noting)
            finally:
                # A path may hold ids; its route is what traces are grouped by.
                if route := scope.get("route"):
                    request.rename(f"{method} {route.path}")
