from __future__ import annotations

import pytest

from tests.api.conftest import House
from tests.fake_worker import SAMPLES_PER_CHARACTER, tone

pytestmark = pytest.mark.anyio

SPEECH = "/v1/audio/speech"


async def test_pcm_is_the_workers_own_bytes(house: House) -> None:
    async with house.worker():
        answer = await house.http.post(
            SPEECH, json={"model": "tts-1", "voice": "slt", "input": "Hi.", "response_format": "pcm"}
        )
    assert answer.status_code == 200, answer.text
    assert answer.content == tone("H") + tone("i") + tone(".")
    assert answer.headers["content-type"] == "audio/pcm"
    assert "queue;dur=" in answer.headers["server-timing"]
