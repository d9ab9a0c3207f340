"""What a session uses is counted once, on however many connections, front doors and workers it was spoken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.api.native.socket import SessionSocket
from app.api.services import Services
from app.platform.usage import Use
from app.speech.protocol import Done
from tests.api.conftest import OpenHouse
from tests.api.test_resume import NEVER, SENTENCES, TEXT, WHOLE, Scene, opened, resume
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import SAMPLES_PER_CHARACTER
from tests.support.session_client import sessions_client

pytestmark = pytest.mark.anyio

RATE_HZ = 24_000
WHOLE_S = len(WHOLE) / 2 / RATE_HZ


async def used(scene: Scene) -> Use:
    """What both front doors have recorded once no connection is open, also the one that was killed."""
    scene.client.socket.transport.abort()
    for server in (scene.house.server, scene.door.server):
        services: Services = server.config.app.state.services  # type: ignore[union-attr]
        async with asyncio.timeout(HANG_S):
            while any(isinstance(socket, SessionSocket) for socket in services.sockets):
                await asyncio.sleep(0.01)
        await services.metering.recorder.write()
    return await scene.house.catalog.usage.this_month()


def in_all(use: Use) -> tuple[int, int, float]:
    return use.utterances, use.characters, round(use.audio_s, 6)


ONCE = (1, len(TEXT), round(WHOLE_S, 6))


async def cut_off(scene: Scene) -> None:
    scene.client.socket.transport.abort()
    await scene.worker.until_sessions(0)


async def kill(scene: Scene) -> None:
    scene.door.kill()


async def take_away(scene: Scene) -> None:
    """The former connection lives, and its front door writes last."""


async def lose_both(scene: Scene) -> None:
    await scene.worker.crash()
    scene.door.kill()


SAME, OTHER = "the same front door", "another front door"


@pytest.mark.parametrize(
    ("break_off", "there"),
    [(cut_off, SAME), (cut_off, OTHER), (kill, OTHER), (take_away, SAME), (take_away, OTHER), (lose_both, OTHER)],
)
async def test_a_resumed_session_is_one_utterance_with_its_text_and_audio_once(
    open_house: OpenHouse, break_off: Callable[[Scene], Awaitable[None]], there: str
) -> None:
    async with opened(open_house) as scene:
        token = await scene.begin(*SENTENCES, ended=True)
        received = await scene.hear(20)
        await scene.until_written(samples=received, ended=True)
        await break_off(scene)
        url = scene.door.sessions_url if there == SAME else scene.house.sessions_url
        async with sessions_client(url, scene.house.key) as client:
            await resume(client, token, received - 9 * SAMPLES_PER_CHARACTER)
            scene.worker.allow(characters=None)
            await client.until(Done, "r1")
        assert in_all(await used(scene)) == ONCE


async def test_text_that_is_sent_again_since_it_was_not_written_counts_once(open_house: OpenHouse) -> None:
    async with opened(open_house, journal_interval_s=NEVER) as scene:
        token = await scene.begin()
        await scene.until_written()
        await scene.client.send("text", "s1", text=TEXT)
        await scene.hear(7)
        scene.door.kill()
        async with scene.another() as client:
            assert (await resume(client, token, 0)).text_chars == 0
            scene.worker.allow(characters=None)
            await client.send("text", "r1", text=TEXT)
            await client.send("eos", "r1")
            await client.until(Done, "r1")
        assert in_all(await used(scene)) == ONCE


async def test_an_end_that_is_told_again_is_no_second_utterance(open_house: OpenHouse) -> None:
    async with opened(open_house) as scene:
        token = await scene.begin(TEXT, ended=True)
        scene.worker.allow(characters=None)
        await scene.client.until(Done, "s1")
        await scene.until_written(samples=len(WHOLE) // 2)
        scene.client.socket.transport.abort()
        async with scene.another() as client:
            await resume(client, token, 0)
            await client.until(Done, "r1")
        assert in_all(await used(scene)) == ONCE


async def test_each_turn_of_a_resumed_session_counts_also_one_that_was_cancelled_while_it_came_again(
    open_house: OpenHouse,
) -> None:
    async with opened(open_house) as scene:
        token = await scene.begin("One two three.")
        received = await scene.hear(10)
        await scene.until_written(samples=received)
        scene.door.kill()
        async with scene.another() as client:
            await resume(client, token, 0)
            scene.worker.allow(characters=4)
            await client.until_frames("r1", 4)
            await client.send("cancel", "r1")
            scene.worker.allow(characters=None)
            await client.send("text", "r1", text="Another turn.")
            await client.send("eos", "r1")
            await client.until(Done, "r1")
        use = await used(scene)
        assert (use.utterances, use.characters) == (1, len("One two three.Another turn."))
        made_chars = 10 + len("Another turn.")
        assert use.audio_s * RATE_HZ / SAMPLES_PER_CHARACTER == pytest.approx(made_chars)


async def test_a_session_that_moves_from_worker_to_worker_counts_once(open_house: OpenHouse) -> None:
    async with opened(open_house) as scene, scene.house.worker(capacity=4) as second:
        await scene.door.until_known(second)
        second.allow(characters=0)
        await scene.begin(*SENTENCES, ended=True)
        for worker in (scene.worker, second):
            worker.allow(characters=8)
        await scene.client.until_frames("s1", 8)
        spoken_by = scene.worker if scene.worker.sessions else second
        await spoken_by.crash()
        for worker in (scene.worker, second):
            worker.allow(characters=None)
        await scene.client.until(Done, "s1")
        assert scene.client.heard("s1") == WHOLE
        assert in_all(await used(scene)) == ONCE
