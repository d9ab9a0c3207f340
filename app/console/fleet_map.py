"""Which worker is home to which voice, for the picture of the ring: `GET /console/fleet`. The scope is `fleet`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter, Depends

from app.api.access import requires
from app.api.services import TheServices
from app.fleet.placement import ring_of
from app.fleet.worker import Worker, WorkerState
from app.speech.choices import Scope
from app.speech.voices import Voice

MAX_VOICES = 200
"""More cannot be told apart in a picture."""

router = APIRouter(include_in_schema=False)


@router.get("/console/fleet", dependencies=[Depends(requires(Scope.FLEET))])
async def fleet_map(services: TheServices) -> dict[str, Any]:
    """The workers as `/v1/fleet` has them, and where the first voices live: those that are loaded come first."""
    workers = sorted(services.router.workers, key=lambda worker: worker.id)
    voices = await services.resolver.all()
    homes = voice_homes(voices, workers)
    homes.sort(key=lambda voice: (-len(voice["active"]), -len(voice["replicas"]), voice["name"]))
    return {
        "workers": [worker.model_dump(mode="json") for worker in workers],
        "voices": homes[:MAX_VOICES],
        "voice_count": len(homes),
        "worker_usd_per_hour": services.settings.narration.worker_usd_per_hour,
    }


def voice_homes(voices: Iterable[Voice], workers: Sequence[Worker]) -> list[dict[str, Any]]:
    """For each voice its home on the ring, the workers that have it loaded, and those that speak with it now."""
    rings = {
        model: ring_of((worker.id, worker.capacity) for worker in workers if _serves(worker, model))
        for model in {worker.model.name for worker in workers if worker.state is WorkerState.ACTIVE}
    }
    homes = []
    for voice in voices:
        name = voice.adapter.name if voice.adapter else None
        homes.append(
            {
                "id": voice.id,
                "name": voice.name,
                "kind": "clone" if voice.adapter else "built_in",
                "home": next(rings[voice.model].walk(voice.id)) if voice.model in rings else None,
                "replicas": [worker.id for worker in workers if name in worker.ready_adapters],
                "active": [worker.id for worker in workers if name in worker.active_adapters],
            }
        )
    return homes


def _serves(worker: Worker, model: str) -> bool:
    return worker.model.name == model and worker.state is WorkerState.ACTIVE
