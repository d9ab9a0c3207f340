"""`carillon drain`: workers end one after the other, while their sessions go on.

It orders the drain at a front door, and watches there what becomes of each worker: gone, or back in a later epoch. It
does not start workers again: `carillon up` does, and so does a container's restart policy.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from app.cli.options import Key, Url
from app.cli.target import open_client
from app.errors import DeadlineExceeded

if TYPE_CHECKING:
    from app.client.fleet import Fleet

POLL_S = 0.5

LEAVING_S = 60.0
"""Beyond the deadline: for front doors to move what is left, and for the process to end."""

RETURN_S = 900.0
"""A worker may take so long to load its model; its own `engine.startup_timeout_s` is 600 unless it is set."""


def drain(
    worker: Annotated[str | None, typer.Argument(help="Its id, as `GET /v1/fleet` has it.")] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="A rolling restart: each worker once the one before is back.")
    ] = False,
    deadline: Annotated[
        float | None, typer.Option(min=0, help="Seconds its sessions may go on there. Default: the front door's.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Until the worker has ended.")] = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Let a worker end without its sessions: they go on at others. `carillon up` then starts it again."""
    if (worker is None) != everything:
        raise typer.BadParameter("name one worker, or say --all", param_hint="WORKER")
    if everything and not wait:
        raise typer.BadParameter("--all waits for each worker before the next", param_hint="--no-wait")
    with open_client(url, key) as client:
        drain_workers(
            [worker] if worker else [],
            fleet=client.fleet,
            deadline_s=deadline,
            wait=wait,
            rolling=everything,
            out=sys.stdout,
        )


def drain_workers(
    worker_ids: Sequence[str],
    *,
    fleet: Fleet,
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
    ids = list(worker_ids) or sorted(fleet.workers())
    for number, id in enumerate(ids):
        order = fleet.drain(id, deadline_s)
        left_s, began = order["deadline_s"], clock()
        _print(out, f"{id} drains" + (f"; its sessions move after {left_s:g} s" if left_s is not None else ""))
        if not (wait or rolling):
            continue

        def gone(id: str = id, epoch: int = order["epoch"]) -> bool:
            worker = fleet.workers().get(id)
            return worker is None or worker["epoch"] > epoch

        def back(id: str = id, epoch: int = order["epoch"]) -> bool:
            worker = fleet.workers().get(id)
            return worker is not None and worker["epoch"] > epoch and worker["state"] == "active"

        rest = f"; not touched: {', '.join(ids[number + 1 :])}" if ids[number + 1 :] else ""
        patience_s = (left_s or 0) + LEAVING_S
        _until(gone, patience_s, f"{id} has not ended after {patience_s:g} s{rest}", clock, sleep)
        _print(out, f"{id} has ended after {clock() - began:.0f} s")
        if rolling:
            _until(back, RETURN_S, f"{id} was not restarted within {RETURN_S:g} s{rest}", clock, sleep)
            _print(out, f"{id} is back after {clock() - began:.0f} s")


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


def _print(out: TextIO, sentence: str) -> None:
    print(sentence, file=out, flush=True)
