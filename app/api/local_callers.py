"""Host and origin checks where authentication is off: only loopback and configured names are accepted.

Without keys, any page that a browser of this machine shows could speak to the front door: from its own origin, or by a
name of its own that it lets point here. So `Host` must be a loopback name or one of `allowed_hosts`, and so must the
host of `Origin`, where there is one. Health checks are exempt.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from app.api.errors import error_body
from app.api.http_protocol import HEALTH_PATHS
from app.platform.settings import LOOPBACK_HOSTS

FORBIDDEN = 403


class LocalCallers:
    """Refuses requests and sockets that name another host."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._hosts = {*LOOPBACK_HOSTS, *(host.lower() for host in allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"] in HEALTH_PATHS or self._is_local(scope):
            await self._app(scope, receive, send)
            return
        message = (
            "keys are not asked for here, so Host and Origin must name this machine; "
            "add the name to CARILLON_ALLOWED_HOSTS, or set CARILLON_AUTH=true"
        )
        answer = JSONResponse(error_body(FORBIDDEN, message, code="permission_denied"), status_code=FORBIDDEN)
        if scope["type"] == "websocket":
            await WebSocket(scope, receive, send).send_denial_response(answer)
        else:
            await answer(scope, receive, send)

    def _is_local(self, scope: Scope) -> bool:
        named = [(name, value.decode("latin-1")) for name, value in scope["headers"]]
        hosts = [f"//{value}" for name, value in named if name == b"host"]
        origins = [value for name, value in named if name == b"origin"]
        return len(hosts) == 1 and all(_host(address) in self._hosts for address in (*hosts, *origins))


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
