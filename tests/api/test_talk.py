"""`/talk`: a person who speaks, over both transports, with the real detector and recogniser and a worker of tones."""

from __future__ import annotations

import asyncio
import json
import re

import httpx
import numpy as np
import pytest
from websockets.asyncio.client import connect

from app.hearing.words import letter_agreement
from app.platform.settings import TalkSettings
from tests.api.conftest import House, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.talk_peer import Transport, over_socket, over_webrtc, question

pytestmark = pytest.mark.anyio

PAGE_FILES = ("talk.css", "talk.js", "connection.js", "budget.js", "microphone.js", "player.js")


@pytest.mark.parametrize("transport", [over_socket, over_webrtc])
async def test_a_question_is_heard_and_answered(house: House, worker: FakeWorker, transport: Transport) -> None:
    async with transport(house.url, house.key) as person:
        ended = await person.say(question("count"))
        answered = await person.until("answered")
        assert answered["text"]
        assert letter_agreement("Count to three, please.", person.told("heard", sure=True)[0]["text"]) > 0.4
        assert person.first_sound_after(ended) is not None
        [turn] = person.told("turn", cut=False)[-1:]
    assert 0 < turn["endpoint_ms"] < turn["words_ms"] <= turn["token_ms"] < turn["ready_ms"] <= turn["heard_ms"]
    assert turn["in_the_money"] == (turn["ready_ms"] <= 1500)


async def test_the_bot_is_a_client_that_tells_when_the_turn_ended(house: House, worker: FakeWorker) -> None:
    async with over_socket(house.url, house.key) as person:
        await person.say(question("count"))
        await person.until("answered")
    counted = re.compile(r'carillon_latency_seconds_count\{edge="sessions",part="turn"\} [1-9]')
    async with asyncio.timeout(HANG_S):
        while not counted.search((await house.http.get("/metrics")).text):
            await asyncio.sleep(0.02)


async def test_a_backchannel_pauses_the_answer_and_speech_takes_the_turn(house: House, worker: FakeWorker) -> None:
    async with over_socket(house.url, house.key) as person:
        await person.say(question("story"))
        await person.until("turn")
        await person.say(question("yeah"))
        await person.until("resume")
        assert not person.told("answered")
        await person.say(question("other"))
        answered = await person.until("answered", cut=True)
        silent_from = person.last_sound()
        await person.until("heard", 2, sure=True)
    assert answered["text"]
    assert "There was once a small island".startswith(answered["text"][:20])
    hold = [at for at, event in person.events if event["type"] == "hold"][-1]
    assert silent_from <= hold + 0.5  # what was on its way


async def test_a_person_who_goes_on_is_answered_once(house: House, worker: FakeWorker) -> None:
    pause = np.zeros(round(0.45 * 16_000), np.int16)
    async with over_socket(house.url, house.key) as person:
        await person.say(np.concatenate([question("other"), pause, question("count")]))
        await person.until("answered")
        assert len(person.told("answered")) == 1
        [turn] = person.told("turn", cut=False)[-1:]
    assert turn["discarded"] >= 1


async def test_silence_and_noise_ask_for_nothing(house: House, worker: FakeWorker) -> None:
    noise = (np.random.default_rng(1).normal(0, 0.02, 16_000) * 32767).astype(np.int16)
    async with over_socket(house.url, house.key) as person:
        await person.say(noise)
        await person.say(question("count"))
        await person.until("answered")
    [heard] = person.told("heard", sure=True)
    assert "three" in heard["text"]


async def test_the_budgets_are_exported_as_they_were_shown(house: House, worker: FakeWorker) -> None:
    async with connect(house.url.replace("http", "ws") + "/talk/audio", proxy=None, subprotocols=[  # type: ignore[list-item]
        "carillon.talk.v1", f"key.{house.key}",
    ]) as socket:  # fmt: skip
        await socket.send(json.dumps({"type": "start", "rate_hz": 48_000}))
        for format in ("json", "csv"):
            await socket.send(json.dumps({"type": "export", "format": format}))
        exports = {}
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "export":
                exports[event["format"]] = event["text"]
            if len(exports) == 2:
                break
        await socket.send('{"type": "hang_up"}')
        await socket.wait_closed()
        assert socket.close_code == 1000
    assert json.loads(exports["json"])["turns"] == []
    assert exports["csv"].startswith("turn,endpoint_ms,")


# Who may talk.


async def test_without_a_key_nobody_is_heard(house: House, worker: FakeWorker) -> None:
    async with httpx.AsyncClient(base_url=house.url) as stranger:
        answer = await stranger.post("/talk/offer", json={"sdp": "v=0", "type": "offer"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "authentication_failed")
    async with connect(house.url.replace("http", "ws") + "/talk/audio", proxy=None) as socket:
        await socket.send('{"type": "start", "rate_hz": 16000}')
        assert json.loads(await socket.recv())["code"] == "authentication_failed"
        await socket.wait_closed()
        assert socket.close_code == 1008


async def test_another_sites_page_cannot_talk_with_a_cookie(house: House, worker: FakeWorker) -> None:
    headers = {"Origin": "http://elsewhere.example", "Cookie": "session=1"}
    async with connect(
        house.url.replace("http", "ws") + "/talk/audio", additional_headers=headers, proxy=None
    ) as socket:
        assert json.loads(await socket.recv())["code"] == "permission_denied"


@pytest.mark.parametrize(
    ("first", "param"),
    [("", "start"), ("[]", "start"), ('{"type": "start"}', "start"), ('{"type": "start", "rate_hz": 1}', "rate_hz"),
     ('{"type": "start", "rate_hz": 16000, "voice": ""}', "voice")],
)  # fmt: skip
async def test_a_start_that_is_none_is_refused_by_what_is_wrong(house: House, first: str, param: str) -> None:
    headers = {"Authorization": f"Bearer {house.key}"}
    async with connect(
        house.url.replace("http", "ws") + "/talk/audio", additional_headers=headers, proxy=None
    ) as socket:
        await socket.send(first)
        error = json.loads(await socket.recv())
    assert (error["code"], error["param"]) == ("invalid_request", param)


@pytest.mark.parametrize("body", ["", "{}", '{"sdp": "nonsense"}', '{"sdp": "v=0", "camera": true}', '{"sdp": 1}'])
async def test_an_offer_that_is_none_is_refused(house: House, worker: FakeWorker, body: str) -> None:
    answer = await house.http.post("/talk/offer", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


async def test_no_more_talk_than_there_may_be(open_house: OpenHouse) -> None:
    talk = TalkSettings(max_conversations=1)
    async with open_house(talk=talk) as house, house.worker(), over_socket(house.url, house.key):
        headers = {"Authorization": f"Bearer {house.key}"}
        address = house.url.replace("http", "ws") + "/talk/audio"
        async with connect(address, additional_headers=headers, proxy=None) as second:
            await second.send('{"type": "start", "rate_hz": 16000}')
            assert json.loads(await second.recv())["code"] == "overloaded"


# The page.


async def test_the_page_is_whole_and_allows_nothing_inline_or_foreign(house: House) -> None:
    page = await house.http.get("/talk")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in page.text.replace("http-equiv", "")
    assert "camera=()" in page.headers["permissions-policy"]
    for name in PAGE_FILES:
        assert (await house.http.get(f"/talk/static/{name}")).status_code == 200, name
    assert (await house.http.get("/talk/static/..%2fedge.py")).status_code == 404


async def test_a_fleet_without_a_talk_has_no_page(open_house: OpenHouse) -> None:
    async with open_house(talk=TalkSettings(enabled=False)) as house:
        assert (await house.http.get("/talk")).status_code == 404
