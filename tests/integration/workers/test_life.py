"""A worker process's life without the process: it joins, serves, and drains on order, with a real Valkey."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.fleet.registry import Registry
from app.fleet.worker import WorkerState
from app.platform.settings import Settings
from app.speech.protocol import GoAway
from tests.support.deadlines import HANG_S
from tests.support.fakes import FakeEngine
from tests.unit.workers.test_server import serving, session
from workers.heartbeat import Heartbeat
from workers.main import _stop_within, _until_stopped, beating_with
from workers.server import WorkerServer

pytestmark = pytest.mark.anyio


class Life:
    """One worker, from its join on; `warmed` is when its warm-up is over."""

    def __init__(self, server: WorkerServer, registry: Registry, settings: Settings) -> None:
        self.warmed = asyncio.Event()
        self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stop: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        server.state = WorkerState.STARTING
        heartbeat = Heartbeat(
            registry,
            server.describe,
            lambda: server.leases,
            lambda voice_id: None,
            interval_s=0.02,
            drain=lambda deadline_s: _stop_within(self.stop, deadline_s),
        )

        async def join() -> None:
            await self.warmed.wait()
            server.state = WorkerState.ACTIVE
            heartbeat.hurry()

        async def death() -> str:
            return await self.died

        async def live() -> None:
            async with beating_with(heartbeat, registry, server.describe()) as beating:
                await _until_stopped(
                    settings, server, heartbeat, beating, join=join(), stop=self.stop, deaths=[death()]
                )

        self.task = asyncio.create_task(live())


async def until_state(registry: Registry, state: WorkerState | None) -> None:
    async with asyncio.timeout(HANG_S):
        while [worker.state for worker in await registry.snapshot()] != ([state] if state else []):
            await asyncio.sleep(0.01)


async def test_a_worker_is_seen_starting_while_it_warms_up_and_takes_sessions_only_then(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    async with serving(FakeEngine(), tmp_path, epoch=await registry.join("w1")) as server:
        epoch = server.describe().epoch
        life = Life(server, registry, settings)
        await until_state(registry, WorkerState.STARTING)
        async with session(server, "early", epoch=epoch) as talk:
            assert (await talk.receive()).code == "overloaded"
        life.warmed.set()
        await until_state(registry, WorkerState.ACTIVE)
        async with session(server, "later", epoch=epoch) as talk:
            assert (await talk.receive()).type == "ready"
        life.stop.set_result(0)
        await life.task


async def test_an_order_to_drain_ends_a_worker_in_peace_once_its_sessions_have_left(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    async with serving(FakeEngine(), tmp_path, epoch=await registry.join("w1")) as server:
        life = Life(server, registry, settings)
        life.warmed.set()
        await until_state(registry, WorkerState.ACTIVE)
        async with session(server, "a", epoch=server.describe().epoch) as talk:
            assert (await talk.receive()).type == "ready"
            await registry.drain("w1", 45)
            goodbye = await talk.receive()
            assert isinstance(goodbye, GoAway)
            assert 30_000 < goodbye.deadline_ms <= 45_000, "of the order, not of the settings"
            await until_state(registry, WorkerState.DRAINING)
            assert not life.task.done()
            await talk.say("My last words.")
            assert (await talk.end()).samples == len("My last words.") * 32
        await life.task
        await until_state(registry, None)


async def test_a_session_may_leave_after_the_deadline_as_long_as_the_handover_lasts(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    async with serving(FakeEngine(), tmp_path) as server, session(server, "a") as talk:
        assert (await talk.receive()).type == "ready"
        draining = asyncio.create_task(server.drain(0, handover_s=60))
        goodbye = await talk.receive()
        assert (goodbye.type, goodbye.deadline_ms) == ("goaway", 0)
        await talk.socket.close()
        async with asyncio.timeout(HANG_S):
            assert await draining == 0


async def test_what_has_not_left_by_then_is_cut_and_counted(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server, session(server, "a") as talk:
        assert (await talk.receive()).type == "ready"
        assert await server.drain(0, handover_s=0.05) == 1
