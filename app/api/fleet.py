"""`/v1/fleet`: the workers as this front door sees them, and draining one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import requires
from app.api.bodies import json_body, read_json
from app.api.services import TheServices
from app.errors import DeadlineExceeded, NotFound
from app.fleet.registry import DrainOrder
from app.fleet.worker import WorkerState
from app.speech.choices import Scope

router = APIRouter(tags=["fleet"])

MAX_DRAIN_S = 24 * 3600.0

HEARD_WITHIN_S = 5.0
"""By a live worker; one that hangs receives it when it recovers."""


class DrainRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    deadline_s: float | None = Field(
        default=None,
        ge=0,
        le=MAX_DRAIN_S,
        description="How long sessions may go on at the worker, before they go on at another. None: drain_timeout_s.",
    )


@router.get("/v1/fleet", dependencies=[Depends(requires(Scope.FLEET))])
async def fleet(services: TheServices) -> dict[str, Any]:
    """Every living worker: its state, places, sessions and the adapters these hold, background ones apart."""
    workers = sorted(services.router.workers, key=lambda worker: worker.id)
    return {"workers": [worker.model_dump(mode="json") for worker in workers]}


@router.post(
    "/v1/fleet/workers/{id}/drain",
    status_code=202,
    dependencies=[Depends(requires(Scope.FLEET))],
    openapi_extra=json_body(DrainRequest),
)
async def drain(id: str, request: Request, response: Response, services: TheServices) -> dict[str, Any]:
    """Let a worker end: it takes no new session, and is gone when it has none. Its supervisor restarts it.

    Asked again, or of a worker that drains already, it answers how that stands: `deadline_s` is what remains, null
    where the worker was not told by us. It answers once the worker has heard of it, or has been silent for a while.
    """
    wanted_s = (await read_json(request, DrainRequest)).deadline_s
    order = await _order(id, services.settings.drain_timeout_s if wanted_s is None else wanted_s, services)
    if order is None:
        there = ", ".join(sorted(worker.id for worker in services.router.workers)) or "none"
        raise NotFound(f"there is no worker {id[:64]!r}; there are: {there}", param="id")
    await services.audit("worker.drain", id)
    response.headers["location"] = "/v1/fleet"
    return {"id": id, "epoch": order.epoch, "state": WorkerState.DRAINING, "deadline_s": order.deadline_s}


async def _order(id: str, deadline_s: float, services: TheServices) -> DrainOrder | None:
    """Order the drain, again and again until the worker's own record says so: an emptied registry forgets an order."""
    loop, heartbeat_s = asyncio.get_running_loop(), services.settings.heartbeat_s
    began_at = loop.time()
    first = await services.registry.drain(id, deadline_s)
    heard = first is None or first.heard
    while first and not heard and (waited_s := loop.time() - began_at) < HEARD_WITHIN_S:
        await asyncio.sleep(heartbeat_s / 4)
        with suppress(DeadlineExceeded):
            again = await services.registry.drain(id, max(0.0, deadline_s - waited_s), epoch=first.epoch)
            # None: it has ended, or an emptied registry does not know it again before its next heartbeat.
            heard = again is not None and again.heard
    return first
