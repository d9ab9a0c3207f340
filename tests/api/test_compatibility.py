"""What existing clients ask for before they speak: listings, probes, other origins, request ids, the contract."""

from __future__ import annotations

import json
import logging
import re

import pytest

from app.platform.logs import REQUEST_ID, TextFormatter
from app.platform.settings import OpenAISettings
from app.speech.protocol import Done, Ready
from tests.api.conftest import House, OpenHouse
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import SPEECH, error_of, sessions_client

pytestmark = pytest.mark.anyio

LISTINGS = ("/v1/models", "/v1/audio/models", "/v1/audio/voices")


@pytest.fixture
def anonymous(house: House) -> dict[str, str]:
    """Headers that send no key."""
    return {"Authorization": ""}


@pytest.mark.parametrize("path", ["/health", "/healthz", "/v1/readyz", "/readyz", "/version"])
async def test_probes_are_where_clients_look_for_them(
    house: House, worker: FakeWorker, anonymous: dict[str, str], path: str
) -> None:
    assert (await house.http.get(path, headers=anonymous)).status_code == 200


@pytest.mark.parametrize("path", LISTINGS)
async def test_listings_ask_for_a_key(house: House, worker: FakeWorker, anonymous: dict[str, str], path: str) -> None:
    assert (await house.http.get(path, headers=anonymous)).status_code == 401
    assert (await house.http.get(path)).status_code == 200


async def test_listings_are_open_where_the_operator_says_so(open_house: OpenHouse) -> None:
    async with open_house(openai=OpenAISettings(open_listings=True)) as house, house.worker():
        for path in (*LISTINGS, "/v1/models/tts-1"):
            assert (await house.http.get(path, headers={"Authorization": ""})).status_code == 200
        unsigned = await house.http.post(SPEECH, json={}, headers={"Authorization": ""})
        assert unsigned.status_code == 401


async def test_open_webui_finds_models_and_voices(house: House, worker: FakeWorker) -> None:
    models = (await house.http.get("/v1/audio/models")).json()["models"]
    voices = (await house.http.get("/v1/audio/voices")).json()["voices"]
    assert [model["id"] for model in models] == ["standin"]
    assert {voice["id"]: voice["name"] for voice in voices} == {"slt": "slt", "rms": "rms"}


async def test_a_model_of_openais_name_is_the_one_served(house: House, worker: FakeWorker) -> None:
    model = (await house.http.get("/v1/models/tts-1")).json()
    assert (model["id"], model["owned_by"]) == ("tts-1", "carillon")
    refused = await house.http.get("/v1/models/davinci")
    assert (refused.status_code, error_of(refused)["code"]) == (404, "unknown_model")


async def test_a_session_takes_openais_names_too(house: House, worker: FakeWorker) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.send("start", "a", voice="alloy", model="tts-1")
        assert (await client.until(Ready, "a")).voice in ("slt", "rms")


async def test_a_start_that_cannot_be_read_is_refused_under_its_session(house: House, worker: FakeWorker) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.send("start", "b", voice="slt", speed=9)
        refusal = await client.refusal("b")
        assert (refusal.closed, refusal.param) == (True, "start.speed")
        await client.say("b", "Hi.")
        await client.until(Done, "b")


async def test_a_mistaken_message_to_an_open_session_does_not_close_it(house: House, worker: FakeWorker) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.send("start", "b", voice="slt")
        await client.until(Ready, "b")
        await client.send("start", "b", voice="slt", speed=9)
        await client.send("text", "b", text=7)
        assert not (await client.refusal("b", count=1)).closed
        assert not (await client.refusal("b", count=2)).closed


PREFLIGHT = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}


async def test_a_page_of_another_origin_is_refused_with_the_setting_that_would_let_it(house: House) -> None:
    answer = await house.http.options("/v1/audio/speech", headers=PREFLIGHT)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers
    assert "CARILLON_CORS_ORIGINS" in error_of(answer)["message"]


async def test_a_page_whose_origin_is_named_may_call(open_house: OpenHouse) -> None:
    async with open_house(cors_origins=("https://page.example",)) as house, house.worker():
        answer = await house.http.options("/v1/audio/speech", headers=PREFLIGHT)
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        other = await house.http.options("/v1/audio/speech", headers={**PREFLIGHT, "Origin": "https://else.example"})
        assert "access-control-allow-origin" not in other.headers


async def test_a_request_id_is_echoed_or_made(house: House) -> None:
    echoed = await house.http.get("/healthz", headers={"X-Request-Id": "turn-7.a:1"})
    assert echoed.headers["x-request-id"] == "turn-7.a:1"
    for unsound in ("", "a b", "x" * 129, 'a"b'):
        made = await house.http.get("/nothing", headers={"X-Request-Id": unsound})
        assert re.fullmatch(r"[0-9a-f]{24}", made.headers["x-request-id"])


async def test_a_request_id_is_on_the_log_lines_of_its_request(house: House, caplog: pytest.LogCaptureFixture) -> None:
    token = REQUEST_ID.set("turn-7")
    try:
        caplog.set_level("INFO")
        logging.getLogger("app.test").info("speaking", extra={"voice": "slt"})
        assert TextFormatter().format(caplog.records[-1]).endswith("speaking voice=slt request=turn-7")
    finally:
        REQUEST_ID.reset(token)


async def test_the_contract_resolves_and_says_how_to_sign_in(house: House) -> None:
    document = (await house.http.get("/openapi.json")).json()
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found = document
        for part in reference.split("/"):
            found = found[part]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    speech = document["paths"]["/v1/audio/speech"]["post"]
    assert speech["security"] == [{"key": []}]
    assert {"audio/mpeg", "audio/wav", "text/event-stream"} <= set(speech["responses"]["200"]["content"])
    assert "#/$defs" not in text
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "default" in operation["responses"] and "422" not in operation["responses"]
