"""What a worker tells Prometheus."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from app.speech.protocol import AudioFrame, Cancel, Cancelled, Error
from tests.support.fakes import FakeEngine
from tests.unit.workers.test_server import clone, good_store, serving, session
from workers.server import WorkerServer

pytestmark = pytest.mark.anyio


async def page(server: WorkerServer) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{server.address.replace('ws:', 'http:')}/metrics")).text


def value(page: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    assert found, name
    return float(found[1])


async def test_tokens_audio_and_pace_are_counted_as_they_are_made(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server, session(server, "a") as talk:
        await talk.say("Hello there.")
        await talk.end()
        text = await page(server)
    assert value(text, "carillon_worker_tokens_total") == 7 * len("Hello there.")
    assert value(text, 'carillon_worker_audio_seconds_total{pace="unpaced"}') == pytest.approx(12 * 32 / 24_000)
    assert value(text, 'carillon_worker_real_time_factor_count{pace="unpaced"}') == 1
    assert value(text, "carillon_worker_tokens_wasted_total") == 0


async def test_what_was_made_and_not_heard_is_wasted(tmp_path: Path) -> None:
    engine = FakeEngine(frames_per_char=50)
    async with serving(engine, tmp_path) as server, session(server, "a") as talk:
        await talk.say("Stop me. ")
        frame = await talk.until(AudioFrame)
        engine.pause()
        heard = len(frame.audio) // 2
        await talk.socket.send(Cancel(session="a", played_samples=heard).model_dump_json())
        await talk.until(Cancelled)
        text = await page(server)
    made, wasted = value(text, "carillon_worker_tokens_total"), value(text, "carillon_worker_tokens_wasted_total")
    # What the codec still held back is heard of nobody, and is not counted as wasted either.
    assert made - heard / 32 * 7 - 4 * 7 <= wasted <= made - heard / 32 * 7


async def test_adapters_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path, fetch=good_store) as server:
        for name, number in (("ada", 1), ("bea", 2), ("ada", 1), ("cec", 3)):
            async with session(server, name, voice=clone(name, lora_id=number)) as talk:
                await talk.say("Hello.")
                await talk.end()
        text = await page(server)
    counted = {
        what: value(text, f"carillon_worker_adapter_{what}_total") for what in ("hits", "stalls", "loads", "evictions")
    }
    assert counted == {"hits": 1, "stalls": 3, "loads": 3, "evictions": 1}
    assert value(text, "carillon_worker_adapters_ready") == 2
    assert value(text, "carillon_worker_adapter_slots") == 1


async def test_a_session_that_is_refused_is_counted_by_its_code(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server, session(server, "a", epoch=6) as talk:
        assert isinstance(await talk.receive(), Error)
        text = await page(server)
    assert value(text, 'carillon_worker_session_errors_total{code="worker_lost"}') == 1
