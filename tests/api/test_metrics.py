"""What the front door tells Prometheus."""

from __future__ import annotations

import re

import pytest

from app.api.metrics import Metrics
from app.platform.settings import MetricsSettings, NarrationSettings, Settings
from app.speech.latency import Ledger
from app.speech.protocol import Done
from tests.api.conftest import House, OpenHouse
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import SessionsClient

pytestmark = pytest.mark.anyio


async def page(house: House) -> str:
    return (await house.http.get("/metrics")).text


def metrics(**settings: object) -> Metrics:
    return Metrics(tuple, Settings(**settings))  # type: ignore[arg-type]


def test_a_first_sound_counts_from_the_text_to_the_end_of_the_silence() -> None:
    counted = metrics()
    counted.account("sessions", Ledger(first_audio_ms=900, head_silence_ms=500))
    counted.account("sessions", Ledger(first_audio_ms=900, head_silence_ms=700))
    text = counted.page().decode()
    assert 'carillon_audible_ttfa_seconds_sum{edge="sessions"} 3.0' in text
    assert 'carillon_first_sounds_total{edge="sessions",in_the_money="yes"} 1.0' in text
    assert 'carillon_first_sounds_total{edge="sessions",in_the_money="no"} 1.0' in text


def test_the_operator_says_what_is_in_the_money() -> None:
    counted = metrics(metrics=MetricsSettings(in_the_money_s=0.3))
    counted.account("sessions", Ledger(first_audio_ms=200, head_silence_ms=150))
    assert 'carillon_first_sounds_total{edge="sessions",in_the_money="no"} 1.0' in counted.page().decode()


def test_where_every_first_sound_is_late_none_was_in_time() -> None:
    counted = metrics(metrics=MetricsSettings(in_the_money_s=0.3))
    counted.account("sessions", Ledger(first_audio_ms=900, head_silence_ms=0))
    assert 'carillon_first_sounds_total{edge="sessions",in_the_money="yes"} 0.0' in counted.page().decode()


def test_a_first_sound_that_was_not_measured_is_not_counted() -> None:
    counted = metrics()
    counted.account("sessions", Ledger(moves=1, underruns=2, underrun_ms=250))
    text = counted.page().decode()
    assert "carillon_first_sounds_total{" not in text
    assert 'carillon_underruns_total{edge="sessions"} 2.0' in text
    assert 'carillon_underrun_seconds_total{edge="sessions"} 0.25' in text
    assert 'carillon_session_moves_total{edge="sessions"} 1.0' in text


async def test_every_refusal_is_counted_by_its_code(client: SessionsClient, house: House) -> None:
    await house.http.post("/v1/audio/speech", json={"model": "tts-1", "input": "Hello.", "voice": "nobody"})
    await client.send("text", "never-started", text="Hello.")
    await client.refusal("never-started")
    text = await page(house)
    assert 'carillon_refused_total{code="unknown_voice"} 1.0' in text
    assert 'carillon_refused_total{code="unknown_session"} 1.0' in text


async def test_what_was_spoken_is_counted(client: SessionsClient, house: House) -> None:
    await client.say("s1", "Hello.")
    await client.until(Done, "s1")
    text = await page(house)
    assert re.search(r'carillon_audio_seconds_total{edge="sessions"} 0\.3', text)
    assert 'carillon_tokens_total{edge="sessions"} 7.0' in text
    assert 'carillon_underruns_total{edge="sessions"} 0.0' in text
    assert "carillon_connections_open 2.0" in text
    assert "carillon_loop_lag_seconds_count" in text


async def test_the_fleet_is_shown_with_its_price(open_house: OpenHouse) -> None:
    async with open_house(narration=NarrationSettings(worker_usd_per_hour=2.5)) as house:
        assert "carillon_fleet_usd_per_hour 0.0" in await page(house)
        async with house.worker(capacity=3):
            text = await page(house)
    assert "carillon_fleet_usd_per_hour 2.5" in text
    assert 'carillon_starts_waiting{model="standin"} 0.0' in text
    assert re.search(r'carillon_fleet_places{model="standin",worker="[^"]+"} 3.0', text)


async def test_without_a_price_there_is_no_cost(house: House, worker: FakeWorker) -> None:
    assert "usd" not in await page(house)


def test_starts_that_wait_are_shown_by_model() -> None:
    counted = Metrics(tuple, Settings(), waiting=lambda: {"orpheus": 3})
    assert 'carillon_starts_waiting{model="orpheus"} 3.0' in counted.page().decode()
