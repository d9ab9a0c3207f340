"""`Idempotency-Key`: a POST that is sent again with the same key gets the answer of the first, and makes nothing more.

Of any route that answers with JSON; audio and events pass as they come. A request that failed here, or was refused for
now, may be sent again with its key. A key's token is returned once: the retry of a request that made one is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from contextlib import suppress
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.errors import error_response
from app.api.services import services_of
from app.errors import CarillonError, InvalidRequest, StoreUnavailable
from app.platform.idempotency import CLAIMED, RENEW_S, Answer, IdempotencyStore, check_body, told_once

HEADER = b"idempotency-key"
SOUND = re.compile(r"[\x21-\x7e]{1,255}")
COMPARED_BYTES = 64 * 1024
"""Of a body, from its start: what two requests with one key must have in common."""
MAX_ANSWER_BYTES = 2**20
FOR_NOW = frozenset({401, 403, 408, 409, 429})
"""Refusals that may not last: the same request is worked on when it comes again."""
KEPT_HEADERS = ("content-type", "location")
TOKENS = re.compile(r"/v1/keys(/|$)")

log = logging.getLogger(__name__)


class Idempotency:
    """ASGI middleware, for HTTP. Unauthenticated requests are passed on, to be refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keys = [value for name, value in scope.get("headers", ()) if name == HEADER]
        if scope["type"] != "http" or scope["method"] != "POST" or not keys:
            await self._app(scope, receive, send)
            return
        try:
            await self._once(keys[0].decode("latin-1"), scope, receive, send)
        except CarillonError as error:
            await error_response(error)(scope, receive, send)

    async def _once(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        services = await services_of(HTTPConnection(scope))
        if services.settings.auth and services.caller is None:
            await self._app(scope, receive, send)
            return
        if not SOUND.fullmatch(key):
            raise InvalidRequest(
                "Idempotency-Key: it has 1 to 255 visible ASCII characters; a UUID serves", param="idempotency-key"
            )
        project_id, store = services.meter.project_id, services.catalog.idempotency
        request = f"{scope['method']} {scope['path']}"
        body = _Body(receive, whole="multipart/" not in _content_type(scope))
        answer = await store.claim(project_id, key, request)
        if answer is not None:
            check_body(key, answer, await body.fingerprint())
            headers = {**answer.headers, "idempotent-replayed": "true"}
            await Response(answer.body, status_code=answer.status, headers=headers)(scope, receive, send)
            return
        capture = _Capture(send)
        CLAIMED.set((project_id, key))
        renewing = asyncio.create_task(_renew(store, project_id, key), name="claim of an Idempotency-Key")
        try:
            await self._app(scope, body.receive, capture.send)
        except BaseException:
            with suppress(StoreUnavailable):
                await store.release(project_id, key)
            raise
        finally:
            renewing.cancel()
        try:
            if (made := capture.answer(await body.fingerprint(), secret=bool(TOKENS.match(scope["path"])))) is None:
                await store.release(project_id, key)
            else:
                await store.keep(project_id, key, made)
        except StoreUnavailable:
            log.warning("answer not kept", extra={"path": scope["path"]})
        await capture.deliver()


async def _renew(store: IdempotencyStore, project_id: str, key: str) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(RENEW_S)
        with suppress(StoreUnavailable):
            await store.renew(project_id, key)


class _Body:
    """A request's body on its way, of which the start is remembered. A form is told by its route alone: the same form
    is never sent twice with the same boundary."""

    def __init__(self, receive: Receive, *, whole: bool) -> None:
        self._receive = receive
        self._compared = whole
        self._start = bytearray()
        self._more = True

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._start += message.get("body", b"")[: COMPARED_BYTES - len(self._start)]
            self._more = message.get("more_body", False)
        else:
            self._more = False
        return message

    async def fingerprint(self) -> str:
        """Of what is compared, which is read as far as it has not been."""
        if not self._compared:
            return ""
        while self._more and len(self._start) < COMPARED_BYTES:
            await self.receive()
        return hashlib.sha256(self._start).hexdigest()


class _Capture:
    """A response in JSON, held back until it is kept; any other passes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = bytearray()
        self._passes = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            self._passes = not self._header("content-type").startswith("application/json")
            if not self._passes:
                return
        elif not self._passes and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if len(self._body) <= MAX_ANSWER_BYTES:
                return
            self._passes = True
            await self._begin()
            message = {**message, "body": bytes(self._body)}
        await self._send(message)

    def answer(self, fingerprint: str, *, secret: bool) -> Answer | None:
        """What a repetition gets; None where it shall be worked on."""
        status = self._start["status"] if self._start else 500
        if self._passes or status >= 500 or status in FOR_NOW:
            return None
        headers = {name: value for name in KEPT_HEADERS if (value := self._header(name))}
        body = self._body.decode()
        if secret and status < 300:
            told = error_response(told_once(_id(body)))
            return Answer(told.status_code, headers, bytes(told.body).decode(), fingerprint)
        return Answer(status, headers, body, fingerprint)

    async def deliver(self) -> None:
        """Send what was held back."""
        if not self._passes and self._start is not None:
            await self._begin()
            await self._send({"type": "http.response.body", "body": bytes(self._body)})

    async def _begin(self) -> None:
        assert self._start is not None
        await self._send(self._start)

    def _header(self, name: str) -> str:
        headers = self._start["headers"] if self._start else ()
        return next((value.decode("latin-1") for key, value in headers if key.lower() == name.encode()), "")


def _id(body: str) -> Any:
    return json.loads(body).get("id")


def _content_type(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), "")
