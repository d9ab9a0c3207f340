"""`carillon drain`: workers end one after the other, while their sessions go on.

It asks a front door, and watches there what becomes of each: gone, or back in a later epoch. Who starts a worker anew
is not its business: `carillon up` does, and so does a container's restart policy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TextIO
from urllib.parse import quote

from app.client.http import FrontDoor, Json
from app.errors import DeadlineExceeded

CALL_TIMEOUT_S = 10.0
POLL_S = 0.5

LEAVING_S = 60.0
"""Beyond the deadline: for front doors to move what is left, and for the process to end."""

RETURN_S = 900.0
"""A worker may take so long to load its model; its own `engine.startup_timeout_s` is 600 unless it is set."""


class Dispatcher(FrontDoor):
    """The fleet's workers, as a front door tells of them and lets them end."""

    def workers(self) -> dict[str, Json]:
        """The workers by id. Raises what the front door refuses with, WorkerLost if it cannot be reached."""
        return {worker["id"]: worker for worker in self.ask("GET", "/v1/fleet", timeout=CALL_TIMEOUT_S)["workers"]}

    def drain(self, worker_id: str, deadline_s: float | None) -> Json:
        """Order it. Raises NotFound with the workers there are."""
        path = f"/v1/fleet/workers/{quote(worker_id, safe='')}/drain"
        return self.ask("POST", path, json={"deadline_s": deadline_s}, timeout=CALL_TIMEOUT_S)


def drain(
    worker_ids: Sequence[str],
    *,
    dispatcher: Dispatcher,
    deadline_s: float | None,
    wait: bool,
    rolling: bool,
    out: TextIO,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Drain these workers (none named: all there are), one after the other.

    `wait` is for each to be gone; `rolling`, for each to be back and active before the next goes. Raises
    DeadlineExceeded when that does not happen: the rest is then left as it is.
    """
    ids = list(worker_ids) or sorted(dispatcher.workers())
    for number, id in enumerate(ids):
        order = dispatcher.drain(id, deadline_s)
        left_s, began = order["deadline_s"], clock()
        _tell(out, f"{id} drains" + (f"; its sessions move after {left_s:g} s" if left_s is not None else ""))
        if not (wait or rolling):
            continue

        def gone(id: str = id, epoch: int = order["epoch"]) -> bool:
            worker = dispatcher.workers().get(id)
            return worker is None or worker["epoch"] > epoch

        def back(id: str = id, epoch: int = order["epoch"]) -> bool:
            worker = dispatcher.workers().get(id)
            return worker is not None and worker["epoch"] > epoch and worker["state"] == "active"

        rest = f"; not touched: {', '.join(ids[number + 1 :])}" if ids[number + 1 :] else ""
        patience_s = (left_s or 0) + LEAVING_S
        _until(gone, patience_s, f"{id} has not ended after {patience_s:g} s{rest}", clock, sleep)
        _tell(out, f"{id} has ended after {clock() - began:.0f} s")
        if rolling:
            _until(back, RETURN_S, f"nobody has started {id} again within {RETURN_S:g} s{rest}", clock, sleep)
            _tell(out, f"{id} is back after {clock() - began:.0f} s")


def _until(
    holds: Callable[[], bool],
    timeout_s: float,
    otherwise: str,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    deadline = clock() + timeout_s
    while not holds():
        if clock() >= deadline:
            raise DeadlineExceeded(otherwise)
        sleep(POLL_S)


def _tell(out: TextIO, sentence: str) -> None:
    print(sentence, file=out, flush=True)
