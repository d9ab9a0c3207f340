"""`X-Request-Id`: taken from a client that sends a sound one, made otherwise, and on every response and log line.

A log line that belongs to a request finds it in `app.platform.logs.REQUEST_ID`.
"""

from __future__ import annotations

import re
import secrets

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.logs import REQUEST_ID

SOUND = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
HEADER = b"x-request-id"


class RequestIds:
    """ASGI middleware, for HTTP and WebSockets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        offered = next((value for name, value in scope["headers"] if name == HEADER), b"")
        request_id = offered if SOUND.fullmatch(offered) else secrets.token_hex(12).encode()

        async def identified(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id)]}
            await send(message)

        token = REQUEST_ID.set(request_id.decode())
        try:
            await self._app(scope, receive, identified)
        finally:
            REQUEST_ID.reset(token)
