"""`x-ratelimit-…`: what is left of the caller's limits, on every response for which something was counted.

As OpenAI has them: `x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests` (`1.5s`), and the same of
`characters`.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.platform.rate_limits import ALLOWANCES, Allowance, Counted


class RateHeaders:
    """ASGI middleware, for HTTP."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        allowances: dict[Counted, Allowance] = {}

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and allowances:
                headers = [header for allowance in allowances.values() for header in _headers(allowance)]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        token = ALLOWANCES.set(allowances)
        try:
            await self._app(scope, receive, told)
        finally:
            ALLOWANCES.reset(token)


def _headers(allowance: Allowance) -> list[tuple[bytes, bytes]]:
    values = {"limit": allowance.limit, "remaining": allowance.remaining, "reset": f"{allowance.reset_s:.3g}s"}
    return [(f"x-ratelimit-{name}-{allowance.counted}".encode(), str(value).encode()) for name, value in values.items()]
