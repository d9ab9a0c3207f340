"""`/v1/fleet`: the workers as this front door sees them, and the end of one that its sessions survive."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import requires
from app.api.bodies import json_body, read_json
from app.api.services import TheServices
from app.errors import NotFound
from app.fleet.worker import WorkerState
from app.speech.choices import Scope

router = APIRouter(tags=["fleet"])

MAX_DRAIN_S = 24 * 3600.0


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
    workers = sorted(services.session_router.workers, key=lambda worker: worker.id)
    return {"workers": [worker.model_dump(mode="json") for worker in workers]}


@router.post(
    "/v1/fleet/workers/{id}/drain",
    status_code=202,
    dependencies=[Depends(requires(Scope.FLEET))],
    openapi_extra=json_body(DrainRequest),
)
async def drain(id: str, request: Request, services: TheServices) -> dict[str, Any]:
    """Let a worker end: it takes no new session, and is gone when it has none. Its supervisor restarts it.

    Asked again, or of a worker that drains already, it answers how that stands: `deadline_s` is what remains, null
    where the worker was not told by us.
    """
    wanted_s = (await read_json(request, DrainRequest)).deadline_s
    order = await services.registry.drain(id, services.settings.drain_timeout_s if wanted_s is None else wanted_s)
    if order is None:
        there = ", ".join(sorted(worker.id for worker in services.session_router.workers)) or "none"
        raise NotFound(f"there is no worker {id[:64]!r}; there are: {there}", param="id")
    return {"id": id, "epoch": order.epoch, "state": WorkerState.DRAINING, "deadline_s": order.deadline_s}
