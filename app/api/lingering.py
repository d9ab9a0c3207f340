"""Lingering close: a client that is refused while it still sends can read the response.

A request that ends its connection (`Connection: close`, HTTP/1.0) has that closed once it is answered. If bytes of its
body are still under way, the system resets the connection, and the client loses the answer with it. So what comes is
read and forgotten first, for a while. On a connection that is kept, the server does so itself.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 30.0
"""As long as nginx lingers (`lingering_time`)."""


class Lingering:
    """Keeps a connection that is to be closed open until the request has arrived, at most LINGER_S."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _ends_its_connection(scope):
            request = _Request(receive, send)
            await self._app(scope, request.receive, request.send)
        else:
            await self._app(scope, receive, send)


class _Request:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._arrived = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._arrived = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False) and not self._arrived:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while not self._arrived:
                    await self.receive()
        except TimeoutError:
            pass


def _ends_its_connection(scope: Scope) -> bool:
    return scope["http_version"] == "1.0" or any(
        name == b"connection" and b"close" in value.lower() for name, value in scope["headers"]
    )
