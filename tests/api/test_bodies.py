"""What the front door reads of a body, and when: nothing before the key, and never more than the request can need."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Message

from app.main import create_app
from app.platform.settings import Settings
from app.speech.choices import Scope
from tests.api.conftest import House, OpenStudio, Studio
from tests.support.session_client import error_of

pytestmark = pytest.mark.anyio

OPEN = {"/healthz", "/health", "/readyz", "/v1/readyz", "/version", "/metrics", "/v1/sessions/reference"}
"""What anybody may ask; nothing of it takes a body."""

CONSOLE = {"/", "/voices", "/voices/{_:path}", "/narrations", "/narrations/{_:path}", "/fleet"}
"""The console's pages, which are files."""

SIGNING_IN = {"/console/session", "/console/invitations"}
"""For keys of any scope, and for who has none yet: tests/api/test_console.py."""

PIECE = b"x" * 2**16
ENDLESS_PIECES = 16 * 2**20 // len(PIECE) + 2 * 2**10
"""More than any request here may have: a stream of so many pieces is a body without end."""


def routes(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path not in CONSOLE | SIGNING_IN:
            yield from ((method, route) for method in sorted(route.methods))


def takes_body(route: APIRoute) -> bool:
    return "requestBody" in (route.openapi_extra or {})


@dataclass
class Stream:
    """A client that sends pieces for as long as it is read, and what it is answered."""

    pieces: Iterator[bytes]
    read_pieces: int = 0
    status: int | None = None
    body: bytes = b""
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> Message:
        self.read_pieces += 1
        assert self.read_pieces < ENDLESS_PIECES, "a body without end is read without end"
        return {"type": "http.request", "body": next(self.pieces), "more_body": True}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")

    @property
    def error(self) -> dict[str, str]:
        return json.loads(self.body)["error"]


def endless(head: bytes = b"") -> Iterator[bytes]:
    if head:
        yield head
    while True:
        yield PIECE


async def streamed(
    app: FastAPI,
    method: str,
    path: str,
    *,
    pieces: Iterator[bytes] | None = None,
    key: str | None = None,
    content_type: str = "application/json",
) -> Stream:
    """The application's answer to a body that never ends."""
    stream = Stream(pieces or endless())
    headers = [(b"content-type", content_type.encode()), (b"transfer-encoding", b"chunked")]
    if key is not None:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    await app(scope, stream.receive, stream.send)
    return stream


def addressed(route: APIRoute, known: Mapping[str, str]) -> str:
    """The route's path with an id in every place."""
    return route.path.format(**{name: known.get(name, "anything") for name in route.param_convertors})


def app_of(house: House) -> FastAPI:
    return cast(FastAPI, house.server.config.app)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    """A front door that is not open: enough to see its routes."""
    return create_app(Settings(data_dir=tmp_path))


def test_no_route_leaves_its_body_to_the_framework_which_would_read_it_before_the_key(app: FastAPI) -> None:
    found = [route for _, route in routes(app)]
    assert len(found) > 40
    assert [route.path for route in found if route.body_field is not None] == []


def test_every_body_is_described_to_those_who_read_the_api_page(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    clone = paths["/v1/clones"]["post"]["requestBody"]
    assert clone["required"] and clone["content"]["application/json"]["schema"]["required"] == ["voice"]
    drain = paths["/v1/fleet/workers/{id}/drain"]["post"]["requestBody"]
    assert not drain["required"]
    assert "deadline_s" in drain["content"]["application/json"]["schema"]["properties"]
    assert "overrides" in str(paths["/v1/voices/{name}/polish"]["post"]["requestBody"])


@pytest.mark.parametrize("key", [None, "cari_x_y"])
async def test_without_a_good_key_no_route_reads_a_byte(house: House, key: str | None) -> None:
    app, asked = app_of(house), 0
    for method, route in routes(app):
        if route.path not in OPEN:
            stream = await streamed(app, method, addressed(route, {}), key=key)
            assert (stream.status, stream.read_pieces) == (401, 0), f"{method} {route.path}"
            asked += 1
    assert asked > 40


async def test_a_key_without_the_scope_has_no_byte_read_either(house: House) -> None:
    app = app_of(house)
    nothing = await house.catalog.keys.create("nothing", set())
    for method, route in routes(app):
        if route.path not in OPEN:
            stream = await streamed(app, method, addressed(route, {}), key=nothing.token)
            assert (stream.status, stream.read_pieces) == (403, 0), f"{method} {route.path}"


@pytest.fixture
async def bounded(open_studio: OpenStudio) -> AsyncIterator[Studio]:
    async with open_studio(max_sample_bytes=2**20) as studio:
        yield studio


async def test_a_body_without_end_is_413_at_every_route_that_takes_one(bounded: Studio) -> None:
    house = bounded.house
    app = app_of(house)
    admin = (await house.catalog.keys.create("admin", {Scope.ADMIN})).token
    voice_id = await bounded.voice()
    consent = await bounded.house.http.post(
        f"/v1/voices/{voice_id}/consent",
        json={"statement": "on file"},
        headers={"Authorization": f"Bearer {admin}"},
    )
    known = {"voice_id": voice_id, "consent_id": consent.json()["id"]}
    asked = set()
    for method, route in routes(app):
        if not takes_body(route):
            continue
        for content_type in (route.openapi_extra or {})["requestBody"]["content"]:
            form = content_type == "multipart/form-data"
            head = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n' if form else b""
            stream = await streamed(
                app,
                method,
                addressed(route, known),
                pieces=endless(head),
                key=admin,
                content_type=f"{content_type}; boundary=x" if form else content_type,
            )
            assert (stream.status, stream.error["code"]) == (413, "request_too_large"), f"{method} {route.path}"
            assert "more than" in stream.error["message"]
            asked.add(route.path)
    assert len(asked) > 10
    assert bounded.waiting_files == []


async def test_a_large_body_that_is_no_text_is_refused_before_it_is_parsed(open_studio: OpenStudio) -> None:
    async with open_studio() as studio:
        admin = (await studio.house.catalog.keys.create("admin", {Scope.ADMIN})).token
        objects = b'{"voice":"slt","text":[' + b"{}," * 2**18 + b"{}]}"
        answer = await studio.house.http.post(
            "/v1/narrations", content=objects, headers={"Authorization": f"Bearer {admin}"}
        )
        assert answer.status_code == 400
        assert "besides its texts" in error_of(answer)["message"]


async def test_a_stranger_with_a_large_body_hears_of_the_key_and_holds_nobody_up(house: House) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(21 * 16):
            yield b"[" + b"{}," * (2**16 // 3)

    async with httpx.AsyncClient(base_url=house.url, trust_env=False, timeout=30) as stranger:
        for path in ("/v1/clones", "/v1/voices/slt/polish", "/v1/fleet/workers/w1/drain"):
            async with asyncio.TaskGroup() as group:
                refused = group.create_task(stranger.post(path, content=pieces()))
                alive = group.create_task(stranger.get("/healthz"))
            assert (refused.result().status_code, error_of(refused.result())["code"]) == (401, "authentication_failed")
            assert alive.result().status_code == 200


async def test_a_client_that_reads_after_it_has_sent_all_hears_the_refusal_too(house: House) -> None:
    """urllib says `Connection: close`, and a server that closes at once would take its answer with it."""

    def refusal() -> int:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with pytest.raises(urllib.error.HTTPError) as refused:
            opener.open(f"{house.url}/v1/clones", data=bytes(21 * 2**20), timeout=30)
        with refused.value:
            return refused.value.code

    assert await asyncio.to_thread(refusal) == 401
