"""`/v1/fleet`: what it tells, and how a worker is drained, with a real registry and fake workers."""

from __future__ import annotations

import asyncio
import io

import pytest
from redis.asyncio import Redis

from app.cli.drain import drain_workers
from app.client.http import ApiClient
from app.errors import NotFound
from app.fleet.registry import ROOT
from app.fleet.worker import WorkerState
from app.speech.choices import Scope
from app.speech.protocol import Done, GoAway, Ready
from tests.api.conftest import House
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import SessionsClient, error_of, sessions_client, speak

pytestmark = pytest.mark.anyio


def redis_url(house: House) -> str:
    assert house.settings.redis_url
    return house.settings.redis_url.get_secret_value()


async def until_draining(worker: FakeWorker) -> None:
    async with asyncio.timeout(HANG_S):
        while worker.state is not WorkerState.DRAINING:
            await asyncio.sleep(0.01)


async def test_the_fleet_tells_its_workers_in_order(house: House) -> None:
    async with house.worker(id="b"), house.worker(id="a", capacity=7):
        workers = (await house.http.get("/v1/fleet")).json()["workers"]
    assert [(worker["id"], worker["state"], worker["capacity"]) for worker in workers] == [
        ("a", "active", 7),
        ("b", "active", 4),
    ]


async def test_a_worker_that_is_drained_is_not_asked_again_and_hears_of_it(house: House) -> None:
    async with house.worker(id="w1") as worker, house.worker(id="w2") as other:
        answer = await house.http.post("/v1/fleet/workers/w1/drain", json={"deadline_s": 60})
        assert answer.status_code == 202
        assert answer.json() == {"id": "w1", "epoch": worker.record.epoch, "state": "draining", "deadline_s": 60}
        for _ in range(4):
            assert (await speak(house)).status_code == 200
        assert not worker.assigned
        assert len(other.assigned) == 4
        await until_draining(worker)
        states = {entry["id"]: entry["state"] for entry in (await house.http.get("/v1/fleet")).json()["workers"]}
        assert states == {"w1": "draining", "w2": "active"}


async def test_an_order_that_the_registry_forgets_before_the_worker_hears_of_it_is_given_again(house: House) -> None:
    async with house.worker(id="w1") as worker, Redis.from_url(redis_url(house)) as redis:
        worker.hold_heartbeat()
        asking = asyncio.create_task(house.http.post("/v1/fleet/workers/w1/drain", json={"deadline_s": 60}))
        async with asyncio.timeout(HANG_S):
            while not await redis.hexists(f"{ROOT}drains", "w1"):
                await asyncio.sleep(0.01)
        await redis.flushdb()
        worker.hold_heartbeat(over=True)
        assert (await asking).status_code == 202
        assert worker.state is WorkerState.DRAINING


async def test_without_a_deadline_it_is_the_front_doors_and_the_first_order_stands(house: House) -> None:
    async with house.worker():
        answer = await house.http.post("/v1/fleet/workers/w1/drain")
        assert answer.json()["deadline_s"] == house.settings.drain_timeout_s
        again = await house.http.post("/v1/fleet/workers/w1/drain", json={"deadline_s": 3600})
        assert again.status_code == 202
        assert again.json()["deadline_s"] <= house.settings.drain_timeout_s


async def test_a_session_goes_on_at_a_worker_that_drains_until_it_is_done(house: House, worker: FakeWorker) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        await start(client)
        await client.send("text", "a", text="To the ")  # with nothing to speak it would give its place up
        await house.http.post("/v1/fleet/workers/w1/drain", json={"deadline_s": 60})
        await until_draining(worker)
        await client.send("text", "a", text="end.")
        await client.send("eos", "a")
        await client.until(Done, "a")
        assert not client.all(GoAway)


async def start(client: SessionsClient) -> None:
    await client.send("start", "a", voice="slt")
    await client.until(Ready, "a")


async def test_a_worker_that_is_not_there_is_refused_with_those_that_are(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post("/v1/fleet/workers/w9/drain")
    assert answer.status_code == 404
    error = error_of(answer)
    assert (error["code"], error["message"]) == ("not_found", "there is no worker 'w9'; there are: w1")


@pytest.mark.parametrize("body", [{"deadline_s": -1}, {"deadline_s": "soon"}, {"deadlines": 1}])
async def test_a_deadline_that_is_none_is_refused_and_nobody_drains(
    house: House, worker: FakeWorker, body: dict[str, object]
) -> None:
    assert (await house.http.post("/v1/fleet/workers/w1/drain", json=body)).status_code == 400
    assert (await speak(house)).status_code == 200


async def test_only_keys_of_the_fleet_drain(house: House, worker: FakeWorker) -> None:
    async with house.holder_of(Scope.SPEAK, Scope.CLONE) as http:
        assert (await http.post("/v1/fleet/workers/w1/drain")).status_code == 403
    assert (await speak(house)).status_code == 200


async def test_the_command_orders_a_drain_and_says_until_when(house: House, worker: FakeWorker) -> None:
    out = io.StringIO()

    def command(id: str) -> None:
        with ApiClient(house.url, house.key) as client:
            drain_workers([id], fleet=client.fleet, deadline_s=60, wait=False, rolling=False, out=out)

    await asyncio.to_thread(command, "w1")
    await until_draining(worker)
    assert out.getvalue() == "w1 drains; its sessions move after 60 s\n"
    with pytest.raises(NotFound, match="there are: w1"):
        await asyncio.to_thread(command, "w9")
