"""`GET /v1/fleet`: the workers as this front door sees them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from app.api.deps import TheDoor, requires
from app.core.models import Scope

router = APIRouter(tags=["fleet"])


@router.get("/v1/fleet", dependencies=[Depends(requires(Scope.FLEET))])
async def fleet(door: TheDoor) -> dict[str, Any]:
    """Every living worker: its state, places, sessions and the adapters these hold, background ones apart."""
    workers = sorted(door.upstream.workers, key=lambda worker: worker.id)
    return {"workers": [worker.model_dump(mode="json") for worker in workers]}
