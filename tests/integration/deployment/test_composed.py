"""The fleet of compose.yaml, started by hand: two front doors behind a proxy. Killing one of them costs nothing."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app.client.resuming import open_resuming_session
from app.speech.protocol import AudioFrame, Done
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

TALE = "The train to the city leaves at nine. Please be there ten minutes before. It will be a long day for us. " * 2
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


async def speak(fleet: Composed, token: str, *, killing: bool = False) -> tuple[bytes, int]:
    """The tale's audio, and how often the session was resumed; a front door is killed at its first sound."""
    heard = bytearray()
    async with open_resuming_session([fleet.url], token, voice="wren", temperature=0) as session:
        await session.say(TALE)
        await session.end()
        async for event in session:
            if isinstance(event, AudioFrame):
                del heard[2 * event.sample_offset :]
                assert len(heard) == 2 * event.sample_offset
                heard += event.audio
                if killing:
                    killing = False
                    [door] = [door for door in DOORS if await sessions_open(fleet, door)]
                    fleet.processes[door].send_signal(signal.SIGKILL)
                    fleet.processes[door].wait()
            elif isinstance(event, Done):
                assert 2 * event.samples == len(heard)
    return bytes(heard), session.resumed


async def test_speech_comes_through_the_proxy_and_figures_do_not(fleet: Composed, http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/audio/speech", json={"model": "tts-1", "voice": "wren", "input": "Hello."})
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 1000
    assert (await http.get("/metrics")).status_code == 404


async def test_a_session_whose_front_door_is_killed_goes_on_at_the_other_sample_by_sample(
    fleet: Composed, http: httpx.AsyncClient
) -> None:
    expected, resumed = await speak(fleet, key(http))
    assert resumed == 0
    heard, resumed = await speak(fleet, key(http), killing=True)
    assert resumed >= 1
    assert heard == expected
    # The proxy has left the dead one: whoever comes is served.
    for _ in range(4):
        assert (await http.get("/v1/models")).status_code == 200


@pytest.fixture(autouse=True)
def logs(fleet: Composed, request: pytest.FixtureRequest) -> Iterator[None]:
    """What each process said, where a test fails."""
    yield
    for path in sorted(Path(fleet.directory).glob("*.log")):
        print(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}")
