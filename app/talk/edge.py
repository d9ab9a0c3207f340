"""`/talk`: the page, and the two ways to converse with it.

    GET /talk                 the page; its script and style from /talk/static
    POST /talk/offer          WebRTC: an offer in, an answer out
    WS /talk/audio            the fallback

A key comes as `Authorization: Bearer …`, or on the socket as the subprotocols `carillon.talk.v1` and `key.<key>`; else
the cookie of who is signed in is handed on. The session API decides about either: this edge has no list of keys.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from starlette.requests import HTTPConnection
from starlette.responses import FileResponse
from starlette.websockets import WebSocket

from app.errors import CarillonError, InvalidRequest, NotFound, PermissionDenied
from app.talk.offers import Answer, Offer
from app.talk.socket import TalkSocket
from app.talk.speaker import FrontDoor
from app.talk.talk import Talk

SUBPROTOCOL, KEY_SUBPROTOCOL = "carillon.talk.v1", "key."
STATIC = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".html": "text/html", ".svg": "image/svg+xml"}
MAX_OFFER_BYTES = 64 * 1024
OFFER_TIMEOUT_S = 20.0

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "microphone=(self), camera=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/talk")
async def page() -> FileResponse:
    return FileResponse(STATIC / "talk.html", headers=HEADERS)


@router.get("/talk/static/{name}")
async def static(name: str) -> Response:
    """A file of the page."""
    path = STATIC / name
    if path.parent != STATIC or not path.is_file():
        raise NotFound(f"the page has no file {name!r}")
    return FileResponse(path, headers=HEADERS, media_type=TYPES.get(path.suffix))


@router.post("/talk/offer")
async def take_offer(request: Request) -> Answer:
    """WebRTC: the answer to a browser's offer; the conversation begins when they are connected."""
    from app.talk.webrtc import converse

    talk = talk_of(request)
    door = door_of(request, talk)
    await door.admits()  # before anything is read
    offer = Offer.read(await _body(request))
    return await converse(talk, door, offer)


@router.websocket("/talk/audio")
async def open_audio(websocket: WebSocket) -> None:
    talk = talk_of(websocket)
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    key = next((name.removeprefix(KEY_SUBPROTOCOL) for name in offered if name.startswith(KEY_SUBPROTOCOL)), None)
    try:
        door = door_of(websocket, talk, key)
    except CarillonError as error:
        await websocket.send_json({"type": "error", **error.to_wire()})
        await websocket.close(1008, error.code)
        return
    await TalkSocket(websocket, talk, door).run()


def talk_of(connection: HTTPConnection) -> Talk:
    return connection.app.state.talk


def door_of(connection: HTTPConnection, talk: Talk, key: str | None = None) -> FrontDoor:
    """The front door, as this caller would reach it. Raises PermissionDenied for another site's page."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    key = (token.strip() if scheme.lower() == "bearer" else None) or key
    origin = connection.headers.get("origin")
    if not key and origin is not None and urlsplit(origin).netloc != connection.headers.get("host"):
        raise PermissionDenied("a page of another origin talks with a key alone; send Authorization")
    return talk.door(connection.scope["server"], key=key, cookie=None if key else connection.headers.get("cookie"))


async def _body(request: Request) -> bytes:
    """Raises InvalidRequest for more than an offer has, or one that takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(OFFER_TIMEOUT_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_OFFER_BYTES:
                    raise InvalidRequest(f"an offer has at most {MAX_OFFER_BYTES} bytes")
    except TimeoutError:
        raise InvalidRequest(f"the offer did not arrive within {OFFER_TIMEOUT_S:g} s") from None
    return bytes(body)
