"""What any caller may send: routes ask for the key first, names of this machine where there is none, and no text is
taken that nothing can keep."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Any, cast

import httpx
import psutil
import pytest
from fastapi import FastAPI
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.api import long_texts
from app.api.bodies import parse_json
from app.errors import StoreUnavailable
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings, StoreSettings
from tests.api.conftest import House, Library, Studio, serving
from tests.support.fake_worker import FakeWorker
from tests.support.routes import routes
from tests.support.session_client import error_of, sessions_client, still_speaks

pytestmark = pytest.mark.anyio


async def test_every_websocket_asks_for_the_key_before_it_hears_a_word(house: House) -> None:
    app = house.server.config.app
    sockets = [route for route in app.routes if isinstance(route, WebSocketRoute) or hasattr(route, "dependant")]  # type: ignore[union-attr]
    paths = [route.path for route in sockets if not getattr(route, "methods", None)]
    assert "/v1/sessions" in paths
    first = '{"text": "Hi.", "type": "start", "rate_hz": 48000}'
    # ElevenLabs' browsers show a key in their first message, and the talk asks the session API when it begins.
    by_message = [path for path in paths if path.endswith(("stream-input", "/talk/audio"))]
    for path in by_message:
        async with connect(house.url.replace("http", "ws") + path, proxy=None) as socket:
            await socket.send(first)
            with pytest.raises(ConnectionClosed) as closed:
                while b"audio" not in await socket.recv(decode=False):
                    pass
            assert closed.value.rcvd and closed.value.rcvd.code == 1008, path
    for path in set(paths) - set(by_message):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(house.url.replace("http", "ws") + path, proxy=None):
                pass
        assert refused.value.response.status_code == 401, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost:1", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost:1", "Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "http://127.0.0.1:3000"}, 200),
        ({"Host": "bells.lan", "Origin": "http://bells.lan"}, 200),
    ],
)
async def test_without_keys_host_and_origin_must_name_this_machine(
    house: House, headers: dict[str, str], status: int
) -> None:
    settings = house.settings.model_copy(update={"auth": False, "allowed_hosts": ("bells.lan",)})
    async with serving(settings) as (url, _), httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == status
        assert (await client.get("/healthz", headers=headers)).status_code == 200


async def test_without_keys_no_foreign_page_opens_a_socket(house: House) -> None:
    settings = house.settings.model_copy(update={"auth": False})
    async with serving(settings) as (url, _):
        address = url.replace("http", "ws") + "/v1/sessions"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(address, origin="https://evil.example", proxy=None):  # type: ignore[arg-type]
                pass
        assert refused.value.response.status_code == 403
        async with connect(address, proxy=None):
            pass


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "a\\udfffb"])
async def test_half_a_surrogate_pair_and_nul_are_400_with_the_fields_name(studio: Studio, text: str) -> None:
    for path, body, field in [
        ("/v1/clones", f'{{"voice": "v", "overrides": {{"train": {{"x": "{text}"}}}}}}', "overrides.train.x"),
        ("/v1/clones", f'{{"voice": "{text}"}}', "voice"),
        ("/v1/voices", f'{{"name": "{text}"}}', "name"),
    ]:
        answer = await studio.http.post(path, content=body)
        assert (answer.status_code, error_of(answer)["param"]) == (400, field)


async def test_a_socket_hears_of_it_too_and_goes_on(house: House, worker: FakeWorker) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.socket.send('{"type": "start", "session": "a", "voice": "\\u0000"}')
        assert (await client.refusal("a")).param == "voice"
        assert await still_speaks(client)


async def test_22000_unknown_fields_of_one_message_are_counted_before_they_are_read(
    house: House, worker: FakeWorker
) -> None:
    message = json.dumps({"type": "text", "session": "a", "text": "x"} | {f"k{n}": 0 for n in range(20_000)})
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.socket.send(message)
        assert "more fields" in (await client.refusal()).message
        assert await still_speaks(client)


@pytest.fixture
def parsed_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each narration's body was that the front door's own process has parsed."""
    lengths: list[int] = []

    def parse(body: bytes, *arguments: Any, **named: Any) -> Any:
        lengths.append(len(body))
        return parse_json(body, *arguments, **named)

    monkeypatch.setattr(long_texts, "parse_json", parse)
    return lengths


async def test_5_mb_of_unknown_fields_are_refused_by_a_process_of_their_own(
    library: Library, parsed_bytes: list[int]
) -> None:
    body = json.dumps({f"key{n}": 0 for n in range(350_000)}).encode()
    refused = await library.http.post("/v1/narrations", content=body)
    assert (refused.status_code, error_of(refused)["param"]) == (400, "body")
    assert parsed_bytes == []


@pytest.mark.parametrize("shown", [True, False], ids=["with a key", "without a key"])
async def test_bodies_of_21_mb_are_refused_without_the_memory_they_would_take(library: Library, shown: bool) -> None:
    body = b"[" + b"{}," * 7_000_000 + b"{}]"
    headers = {} if shown else {"Authorization": ""}
    process = psutil.Process()
    before = process.memory_info().rss
    for path in ("/v1/clones", "/v1/voices/slt/polish", "/v1/fleet/workers/w/drain"):
        with suppress(httpx.TransportError):  # it hangs up before it has heard all
            answer = await library.http.post(path, content=body, headers=headers)
            assert answer.status_code in {401, 403, 413}, path
    assert process.memory_info().rss - before < 64 * 2**20


async def test_a_long_text_is_read_in_a_process_of_its_own(library: Library, parsed_bytes: list[int]) -> None:
    text = "It was dark. " * 2**17
    body = json.dumps({"voice": "slt", "text": text}).encode()
    accepted = await library.http.post("/v1/narrations", content=body)
    assert accepted.status_code == 202, accepted.text
    [rest] = parsed_bytes
    assert rest < 100


async def test_90_idle_event_streams_of_one_job_are_read_for_by_one_task(library: Library) -> None:
    narration = await library.queued()
    services = library.house.server.config.app.state.services  # type: ignore[union-attr]
    path = f"/v1/narrations/{narration['id']}/events"

    async def listen(begun: asyncio.Semaphore) -> None:
        async with library.http.stream("GET", path) as stream:
            await anext(stream.aiter_lines())
            begun.release()
            await asyncio.Event().wait()

    begun = asyncio.Semaphore(0)
    listeners = [asyncio.create_task(listen(begun)) for _ in range(90)]  # of the 100 that httpx opens at once
    for _ in listeners:
        await begun.acquire()
    assert len(services.watches) == 1
    for listener in listeners:
        listener.cancel()
    await asyncio.gather(*listeners, return_exceptions=True)


def test_a_store_that_is_away_says_neither_its_key_nor_its_host() -> None:
    away = StoreSettings(endpoint_url="http://127.0.0.1:9", bucket="inner")
    store = ObjectStore(away, timeout_s=1, attempts=1)
    with pytest.raises(StoreUnavailable) as told:
        store.get("voices/secret-key")
    assert "secret-key" not in str(told.value) and "127.0.0.1" not in str(told.value)
    store.close()


def test_hosts_are_named_with_commas_between() -> None:
    assert Settings(allowed_hosts="a.lan, b.lan").allowed_hosts == ("a.lan", "b.lan")  # type: ignore[arg-type]


async def test_a_nul_in_a_path_names_nothing_and_in_a_query_is_refused_on_every_route(studio: Studio) -> None:
    asked = 0
    for method, route in routes(cast(FastAPI, studio.house.server.config.app)):
        path = re.sub(r"\{[^}]*\}", "a%00b", route.path)
        if path != route.path:
            answer = await studio.http.request(method, path)
            assert answer.status_code == 404, f"{method} {path}"
            assert "NUL" in answer.text or method == "HEAD"
            asked += 1
    assert asked > 20
    answer = await studio.http.get("/v1/voices", params={"name": "a\0b"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "query")


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/voices", "/v1/clones/%ED%A0%80", "/v1/voices/%C3%28"])
async def test_an_address_of_no_sound_utf8_is_answered(studio: Studio, path: str) -> None:
    answer = await studio.http.get(path)
    assert answer.status_code < 500
    assert answer.headers["content-type"] == "application/json"


async def test_a_forms_fields_hold_no_nul_either(studio: Studio) -> None:
    path = f"/v1/voices/{(await studio.http.post('/v1/voices', json={'name': 'ada'})).json()['id']}/samples"
    answer = await studio.http.post(path, files={"files": ("a.wav", b"RIFF")}, data={"manifest": "a\0b"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "manifest")
