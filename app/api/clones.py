"""Jobs that make voices: `POST /v1/clones`, their progress, live and on demand, and their end.

They are queued by `app.voices.clones`. Progress is read from the job's row, so any front door can show it.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Cloner, is_operator, requires
from app.api.bodies import json_body, read_json
from app.api.services import Services, TheServices
from app.errors import InvalidRequest
from app.speech.choices import Scope
from app.voices.models import CloneJob, CloneState

router = APIRouter(tags=["clones"], dependencies=[Depends(requires(Scope.CLONE))])


class CloneRequest(BaseModel):
    """The body of `POST /v1/clones`."""

    model_config = ConfigDict(extra="forbid")

    voice: str = Field(min_length=1, max_length=64, description="The id of a voice with recordings and consent.")
    overrides: dict[str, Any] = Field(default_factory=dict, description='Of the recipe: `{"train": {"epochs": 3}}`.')
    webhook_url: str | None = Field(default=None, max_length=2000)


class PolishRequest(BaseModel):
    """The body of `POST /v1/voices/{name}/polish`."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, max_length=128, description="Needed where several models have the voice.")
    overrides: dict[str, Any] = Field(default_factory=dict)
    webhook_url: str | None = Field(default=None, max_length=2000)


@router.post("/v1/clones", status_code=202, openapi_extra=json_body(CloneRequest))
async def create_clone(request: Request, response: Response, services: TheServices, key: Cloner) -> dict[str, Any]:
    """Queue the making of a voice from its recordings. What a voice must reach only `admin` overrides."""
    wanted = await read_json(request, CloneRequest)
    job = await services.clones.clone(
        wanted.voice, wanted.overrides, webhook_url=wanted.webhook_url, operator=is_operator(key)
    )
    return await _queued(job, services, response)


@router.post("/v1/voices/{name}/polish", status_code=202, openapi_extra=json_body(PolishRequest))
async def polish(name: str, request: Request, response: Response, services: TheServices, key: Cloner) -> dict[str, Any]:
    """Queue an adapter that takes the silence at the head from a built-in voice."""
    wanted = await read_json(request, PolishRequest)
    job = await services.clones.polish(
        name, wanted.overrides, model=wanted.model, webhook_url=wanted.webhook_url, operator=is_operator(key)
    )
    return await _queued(job, services, response)


@router.get("/v1/clones")
async def list_clones(services: TheServices, voice: str | None = None, limit: int = 100) -> dict[str, Any]:
    """The newest jobs, without their reports."""
    if not 1 <= limit <= 1000:
        raise InvalidRequest(f"limit {limit} is out of range; choose 1 to 1000", param="limit")
    jobs = await services.catalog.jobs.all(voice_id=voice, limit=limit)
    return {"object": "list", "data": [shown(job, report=False) for job in jobs]}


@router.get("/v1/clones/{job_id}")
async def one_clone(job_id: str, services: TheServices) -> dict[str, Any]:
    """A job with its progress, data report and gate report, as far as there are."""
    return shown(await services.catalog.jobs.get(job_id))


@router.get("/v1/clones/{job_id}/events")
async def clone_events(job_id: str, services: TheServices) -> Response:
    """Server-sent events: the job whenever it has changed, until it is over. A report comes when it is new."""
    job = await services.catalog.jobs.get(job_id)

    def changed(job: CloneJob, told: CloneJob | None) -> dict[str, Any]:
        return shown(job, report=told is None or job.report is None or job.report != told.report)

    return services.watches.stream(
        job, reload=lambda: services.catalog.jobs.get(job_id), render=changed, held=services.held
    )


@router.post("/v1/clones/{job_id}/cancel")
async def cancel_clone(job_id: str, services: TheServices) -> dict[str, Any]:
    """Stop a job within ten seconds; what it has stored is deleted."""
    job = await services.catalog.jobs.request_cancel(job_id)
    await services.audit("clone.cancel", job_id)
    return shown(job)


async def _queued(job: CloneJob, services: Services, response: Response) -> dict[str, Any]:
    await services.audit("clone.create", job.id)
    response.headers["location"] = f"/v1/clones/{job.id}"
    return shown(job)


def shown(job: CloneJob, *, report: bool = True) -> dict[str, Any]:
    """A job as clients see it."""
    fields = job.model_dump(mode="json", exclude=None if report else {"report"})
    return {"object": "clone", **fields, "over": job.state.over, "waits_for": waits_for(job)}


def waits_for(job: CloneJob) -> str | None:
    """What keeps a job from beginning; None: nothing that is known here."""
    if job.state is not CloneState.QUEUED:
        return None
    if not job.ahead:
        return "a tasks process with a place for training"
    return f"{job.ahead} {'job' if job.ahead == 1 else 'jobs'} before it"
