"""A browser's cookie as a client's key: signed in to the console, its pages call the ordinary API.

The cookie is exchanged for the key's `Authorization` header before any edge sees the request, so that edges know keys
alone. A cookie counts only on what the console's own pages ask for: another page of the same machine, on another port,
is of the same *site*, and `SameSite=Strict` does not hold it off.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.api.errors import error_response
from app.api.services import Services
from app.errors import DeadlineExceeded
from app.platform.browser_sessions import SESSION_S

SAFE_METHODS = frozenset({"GET", "HEAD"})


class CookieKeys:
    """ASGI middleware. A request that names a key itself is passed on as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            connection = HTTPConnection(scope)
            secret = connection.cookies.get(cookie_name(connection))
            if secret and "authorization" not in connection.headers and is_own(connection):
                services: Services = connection.app.state.services
                try:
                    key = await services.browser_sessions.key_of(secret)
                except DeadlineExceeded as error:
                    await _refuse(error_response(error), scope, receive, send)
                    return
                if key is not None:
                    authorization = (b"authorization", b"Bearer " + key.encode())
                    scope = {**scope, "headers": [*scope["headers"], authorization]}
        await self._app(scope, receive, send)


async def _refuse(answer: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(answer)
    else:
        await answer(scope, receive, send)


def cookie_name(connection: HTTPConnection) -> str:
    """Cookies know no ports: two fleets on one machine need two names."""
    port = connection.headers.get("host", "").rpartition(":")[2]
    return f"carillon_{port}" if port.isdigit() else "carillon"


def is_own(connection: HTTPConnection) -> bool:
    """Whether a page of this very origin sent the request, or, to read something, the person at the address bar.

    Browsers send `Origin` with whatever may change something, and with every WebSocket.
    """
    origin = connection.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == connection.headers.get("host")
    reads = connection.scope["type"] == "http" and connection.scope["method"] in SAFE_METHODS
    return reads and connection.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def remember(response: Response, connection: HTTPConnection, secret: str) -> None:
    """Give the browser its session's secret, which no script can read."""
    response.set_cookie(
        cookie_name(connection),
        secret,
        max_age=SESSION_S,
        httponly=True,
        samesite="strict",
        secure=connection.scope["scheme"] in ("https", "wss"),
    )


def forget(response: Response, connection: HTTPConnection) -> None:
    response.delete_cookie(cookie_name(connection), httponly=True, samesite="strict")
