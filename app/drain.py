"""`carillon drain`: workers end one after the other, while their sessions go on.

It asks a front door, and watches there what becomes of each: gone, or back in a later epoch. Who starts a worker anew
is not its business: `carillon up` does, and so does a container's restart policy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import httpx

from app.core.errors import CarillonError, ConfigurationError, DeadlineExceeded
from app.infra.settings import LOOPBACK_HOSTS

CALL_TIMEOUT_S = 10.0
POLL_S = 0.5

LEAVING_S = 60.0
"""Beyond the deadline: for front doors to move what is left, and for the process to end."""

RETURN_S = 900.0
"""A worker may take so long to load its model; its own `engine.startup_timeout_s` is 600 unless it is set."""


class Dispatcher:
    """The fleet's workers, as a front door tells of them and lets them end."""

    def __init__(self, url: str, key: str | None, *, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=CALL_TIMEOUT_S,
            # A proxy of the environment does not know what is on this machine.
            trust_env=httpx.URL(url).host not in LOOPBACK_HOSTS,
            transport=transport,
        )

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def workers(self) -> dict[str, dict[str, Any]]:
        """The workers by id. Raises what the front door refuses with, ConfigurationError if it cannot be reached."""
        return {worker["id"]: worker for worker in self._call("GET", "/v1/fleet")["workers"]}

    def drain(self, worker_id: str, deadline_s: float | None) -> dict[str, Any]:
        """Order it. Raises NotFound with the workers there are."""
        return self._call("POST", f"/v1/fleet/workers/{worker_id}/drain", json={"deadline_s": deadline_s})

    def _call(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **how)
            body = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ConfigurationError(
                f"the front door {self._http.base_url} does not answer ({type(error).__name__}); is it running?"
            ) from None
        if answer.is_error:
            error = body.get("error", {})
            raise CarillonError.from_wire(error.get("code", ""), error.get("message", f"HTTP {answer.status_code}"))
        return body


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
