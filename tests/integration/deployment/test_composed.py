"""The fleet of compose.yaml, started by hand: two front doors behind a proxy. Killing one of them costs nothing."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from app.client.resuming import open_resuming_session
from app.speech.protocol import AudioFrame, Done, Segment
from tests.chaos.undisturbed import HEAD_SAMPLES, HEAD_TOLERANCE, ROUNDING
from tests.support.composed import Composed, composed
from tests.support.deadlines import LONG_HANG_S
from tests.support.real_services import postgres_program

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("haproxy") and postgres_program("postgres")),
        reason="the proxy or the database is not here: apt-get install haproxy postgresql",
    ),
]

SENTENCE = "The train to the city leaves at nine."
"""One, without a comma: where a longer text is cut depends on how soon its end is known."""

DOORS = ("api-1", "api-2")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    with pytest.MonkeyPatch.context() as patch, composed(tmp_path_factory.mktemp("composed")) as fleet:
        patch.setenv("SSL_CERT_FILE", str(fleet.certificate))
        port = fleet.ports["worker"]
        # In a container the host's name is the address.
        fleet.start("worker", CARILLON_WORKER_PORT=str(port), CARILLON_WORKER_ADDRESS=f"ws://127.0.0.1:{port}")
        for door in DOORS:
            fleet.start(door, CARILLON_API_PORT=str(fleet.ports[door]))
        fleet.start("tasks", CARILLON_METRICS__TASKS_PORT="0")
        fleet.start("proxy", PROXY_LISTEN=f":{fleet.ports['proxy']}")
        yield fleet


@pytest.fixture
async def http(fleet: Composed) -> AsyncIterator[httpx.AsyncClient]:
    """Of somebody who has a key, once the fleet can speak."""
    token = re.findall(r"cari_\S+", fleet.run("migrate", "keys", "create", "me", "--scope", "admin"))[0]
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        asyncio.timeout(LONG_HANG_S),
        httpx.AsyncClient(base_url=fleet.url, headers=headers, trust_env=True, timeout=LONG_HANG_S) as client,
    ):
        while True:
            with suppress(httpx.TransportError):
                if (await client.get("/readyz")).status_code == 200:
                    break
            await asyncio.sleep(0.2)
        yield client


def key(http: httpx.AsyncClient) -> str:
    return http.headers["Authorization"].removeprefix("Bearer ")


async def sessions_open(fleet: Composed, door: str) -> float:
    """What a front door tells Prometheus, which asks it past the proxy."""
    async with httpx.AsyncClient(trust_env=False) as client:
        page = (await client.get(f"http://127.0.0.1:{fleet.ports[door]}/metrics")).text
    found = re.search(r'carillon_sessions_open{edge="sessions"} (\S+)', page)
    return float(found[1]) if found else 0.0


@dataclass
class Heard:
    """What a listener got, and how often its session was resumed on another connection."""

    audio: bytearray = field(default_factory=bytearray)
    segments: dict[int, Segment] = field(default_factory=dict)
    resumed: int = 0

    def errors(self, other: Heard) -> NDArray[np.int32]:
        """Sample by sample; of the heads, which depend on the moment, only what is beyond their tolerance."""
        ours, theirs = (np.frombuffer(heard.audio, dtype="<i2").astype(np.int32) for heard in (self, other))
        errors = np.abs(ours - theirs)
        for start in other.segments:
            head = slice(start, start + HEAD_SAMPLES)
            errors[head] = np.maximum(errors[head] - HEAD_TOLERANCE, 0)
        return errors


async def speak(fleet: Composed, token: str, *, killing: bool = False) -> Heard:
    """The sentence; the front door that has it is killed at its first sound."""
    heard = Heard()
    async with open_resuming_session([fleet.url], token, voice="wren", temperature=0) as session:
        await session.say(SENTENCE)
        await session.end()
        async for event in session:
            if isinstance(event, AudioFrame):
                del heard.audio[2 * event.sample_offset :]
                assert len(heard.audio) == 2 * event.sample_offset
                heard.audio += event.audio
                if killing:
                    killing = False
                    [door] = [door for door in DOORS if await sessions_open(fleet, door)]
                    fleet.processes[door].send_signal(signal.SIGKILL)
                    fleet.processes[door].wait()
            elif isinstance(event, Segment):
                heard.segments[event.start_sample] = event
            elif isinstance(event, Done):
                assert 2 * event.samples == len(heard.audio)
        heard.resumed = session.resumed
    return heard


async def test_speech_comes_through_the_proxy_and_figures_do_not(fleet: Composed, http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/audio/speech", json={"model": "tts-1", "voice": "wren", "input": "Hello."})
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 1000
    assert (await http.get("/metrics")).status_code == 404


async def test_a_session_whose_front_door_is_killed_goes_on_at_the_other_sample_by_sample(
    fleet: Composed, http: httpx.AsyncClient
) -> None:
    expected = await speak(fleet, key(http))
    heard = await speak(fleet, key(http), killing=True)
    assert (expected.resumed, heard.resumed >= 1) == (0, True)
    spans = [[(s.text, s.start_sample, s.end_sample) for s in each.segments.values()] for each in (heard, expected)]
    assert spans[0] == spans[1]
    assert heard.errors(expected).max() <= ROUNDING
    # The proxy has left the dead one: whoever comes is served.
    for _ in range(4):
        assert (await http.get("/v1/models")).status_code == 200


@pytest.fixture(autouse=True)
def logs(fleet: Composed, request: pytest.FixtureRequest) -> Iterator[None]:
    """What each process said, where a test fails."""
    yield
    for path in sorted(Path(fleet.directory).glob("*.log")):
        print(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}")
