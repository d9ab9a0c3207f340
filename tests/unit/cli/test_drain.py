"""`carillon drain` against a front door whose workers are a script."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from app.cli.drain import POLL_S, drain_workers
from app.client.http import ApiClient
from app.errors import DeadlineExceeded, WorkerLost


class ScriptedFleet:
    """Answers as a front door does. A worker that is drained is gone after 5 s, and, unless `lost`, back after 20."""

    def __init__(self, workers: Iterable[str], *, lost: bool = False) -> None:
        self.now_s = 0.0
        self.lost = lost
        self.drained: dict[str, float] = {}
        self.away_at_once: list[list[str]] = []
        self._ids = list(workers)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            id = request.url.path.split("/")[-2]
            self.drained[id] = self.now_s
            deadline_s = json.loads(request.content)["deadline_s"]
            return httpx.Response(202, json={"id": id, "epoch": 1, "state": "draining", "deadline_s": deadline_s or 30})
        workers = [self._worker(id) for id in self._ids]
        self.away_at_once.append([worker["id"] for worker in workers if worker["state"] != "active"])
        return httpx.Response(200, json={"workers": [worker for worker in workers if worker["state"] != "gone"]})

    def _worker(self, id: str) -> dict[str, Any]:
        since_s = self.now_s - self.drained[id] if id in self.drained else None
        if since_s is None:
            return {"id": id, "epoch": 1, "state": "active"}
        if since_s < 5:
            return {"id": id, "epoch": 1, "state": "draining"}
        if since_s < 15 or self.lost:
            return {"id": id, "epoch": 2, "state": "gone"}
        return {"id": id, "epoch": 2, "state": "starting" if since_s < 20 else "active"}


def run(fleet: ScriptedFleet, ids: list[str], *, wait: bool = True, rolling: bool = False) -> str:
    out = io.StringIO()
    with ApiClient("http://door", "key", transport=httpx.MockTransport(fleet)) as client:
        drain_workers(
            ids,
            fleet=client.fleet,
            deadline_s=None,
            wait=wait,
            rolling=rolling,
            out=out,
            clock=fleet.clock,
            sleep=fleet.sleep,
        )
    return out.getvalue()


def test_one_worker_is_drained_and_waited_for() -> None:
    fleet = ScriptedFleet(["w1", "w2"])
    assert run(fleet, ["w1"]) == "w1 drains; its sessions move after 30 s\nw1 has ended after 5 s\n"
    assert list(fleet.drained) == ["w1"]


def test_without_waiting_the_order_is_all() -> None:
    fleet = ScriptedFleet(["w1"])
    assert run(fleet, ["w1"], wait=False) == "w1 drains; its sessions move after 30 s\n"
    assert fleet.now_s == 0


def test_a_rolling_restart_never_has_two_workers_away() -> None:
    fleet = ScriptedFleet(["w2", "w1", "w3"])
    told = run(fleet, [], rolling=True)
    assert list(fleet.drained) == ["w1", "w2", "w3"]
    assert max(map(len, fleet.away_at_once)) == 1
    assert fleet.now_s == pytest.approx(60, abs=6 * POLL_S)
    assert told.count("is back") == 3


def test_a_worker_that_nobody_starts_again_stops_a_rolling_restart_before_the_next() -> None:
    fleet = ScriptedFleet(["w1", "w2", "w3"], lost=True)
    with pytest.raises(DeadlineExceeded, match="w1 was not restarted within 900 s; not touched: w2, w3"):
        run(fleet, [], rolling=True)
    assert list(fleet.drained) == ["w1"]


def test_a_front_door_that_is_not_there_is_named() -> None:
    with (
        ApiClient("http://127.0.0.1:1", None) as client,
        pytest.raises(WorkerLost, match=r"no fleet answers at http://127\.0\.0\.1:1 .*`make up`"),
    ):
        client.fleet.workers()
