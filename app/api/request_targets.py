"""Rejects NUL characters in request targets, which no database or file name takes: 404 in a path, 400 in a query.

It knows no route, and looks into no body: `app.api.bodies` and `app.api.forms` do.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.api.errors import error_response
from app.errors import CarillonError, InvalidRequest, NotFound


class RequestTargets:
    """ASGI middleware, for HTTP and WebSockets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or (fault := _fault(scope)) is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(error_response(fault))
        else:
            await error_response(fault)(scope, receive, send)


def _fault(scope: Scope) -> CarillonError | None:
    if "\0" in scope["path"]:
        return NotFound("the path holds a NUL character (%00); nothing has such a name")
    if b"%00" in scope["query_string"]:
        return InvalidRequest("the query holds a NUL character (%00); leave it out", param="query")
    return None
