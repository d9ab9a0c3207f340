"""Jobs that make voices: `POST /v1/clones`, their progress, live and on demand, and their end.

The catalogue's row is the truth; the queue gets a message by the task's name, and a reconciler sends another should it
be lost. Progress is read from the row, so any front door can tell it.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import json_body, read_json
from app.api.services import Services, TheServices, requires
from app.api.sse import event_stream
from app.errors import Conflict, ConsentMissing, InvalidRequest, NotFound, RecordingUnfit
from app.platform import webhooks
from app.platform.broker import CLONE, train_queue
from app.speech.choices import Scope
from app.speech.recipe import CloneConfig
from app.speech.voices import ModelCard
from app.voices.models import CloneJob, CloneKind, VoiceRecord

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
async def create_clone(request: Request, services: TheServices) -> dict[str, Any]:
    """Queue the making of a voice from its recordings."""
    wanted = await read_json(request, CloneRequest)
    voice = await services.catalog.voices.get(wanted.voice)
    if voice.prompt_name != voice.id:
        raise Conflict(
            f"{voice.name!r} is a built-in voice that was polished, and no recordings make another of it; make a voice "
            f"of its own for them (POST /v1/voices), or polish this one again (POST /v1/voices/{voice.name}/polish)",
            param="voice",
        )
    if voice.consent is None:
        raise ConsentMissing(
            f"the voice {voice.name!r} has no consent on record; POST /v1/voices/{voice.id}/consent with a recording "
            f"of: {voice.consent_phrase}"
        )
    if not voice.sample_count:
        raise RecordingUnfit(
            f"the voice {voice.name!r} has no recordings; POST /v1/voices/{voice.id}/samples", param="voice"
        )
    config = await _checked(services, wanted)
    return await _queued(services, voice, CloneKind.CLONE, config, wanted.webhook_url)


@router.post("/v1/voices/{name}/polish", status_code=202, openapi_extra=json_body(PolishRequest))
async def polish(name: str, request: Request, services: TheServices) -> dict[str, Any]:
    """Queue an adapter that takes the silence at the head from a built-in voice."""
    wanted = await read_json(request, PolishRequest)
    card = _model_of(services, name, wanted.model)
    config = await _checked(services, wanted)
    voice = await services.catalog.voices.named(name, model=card.name)
    if voice is None:
        voice = await services.catalog.voices.create(
            name,
            model=card.name,
            language=card.languages[0],
            description=f"The built-in voice {name} without its silence at the head.",
            prompt_name=name,
        )
    elif voice.prompt_name != name:
        raise Conflict(f"{name!r} is the name of a clone, not of a polished voice; rename or delete it", param="name")
    return await _queued(services, voice, CloneKind.POLISH, config, wanted.webhook_url)


def _model_of(services: Services, voice: str, model: str | None) -> ModelCard:
    """The model whose built-in voice is meant. Raises NotFound, and InvalidRequest where several have it."""
    cards = {card.name: card for card in services.upstream.models if model in (None, card.name)}
    holders = [card for card in cards.values() if voice in card.voices]
    if not holders:
        built_in = sorted({voice for card in cards.values() for voice in card.voices})
        of = "" if model is None else f" of the model {model[:64]!r}"
        raise NotFound(
            f"{voice[:64]!r} is no built-in voice{of}; there are: {', '.join(built_in) or 'none'}", param="name"
        )
    if len(holders) > 1:
        names = ", ".join(sorted(card.name for card in holders))
        raise InvalidRequest(f"model: several have a voice {voice!r}; name one of: {names}", param="model")
    return holders[0]


async def _checked(services: Services, wanted: CloneRequest | PolishRequest) -> CloneConfig:
    """The configuration of a job that can be honoured, and announced. Raises InvalidRequest."""
    config = services.settings.clone.overridden(wanted.overrides)
    limit = services.settings.engine.max_lora_rank
    if config.train.rank > limit:
        raise InvalidRequest(
            f"overrides.train.rank: {config.train.rank} is more than the workers' slots hold ({limit}, "
            "CARILLON_ENGINE__MAX_LORA_RANK)",
            param="overrides.train.rank",
        )
    if wanted.webhook_url is not None:
        await webhooks.check(wanted.webhook_url, services.settings.cloning)
    return config


async def _queued(
    services: Services, voice: VoiceRecord, kind: CloneKind, config: CloneConfig, webhook_url: str | None
) -> dict[str, Any]:
    job = await services.catalog.jobs.create(voice.id, kind=kind, config=config, webhook_url=webhook_url)
    await services.queue.send(CLONE, job.id, queue=train_queue(voice.model))
    return shown(job)


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

    return event_stream(job, again=lambda: services.catalog.jobs.get(job_id), shown=changed)


@router.post("/v1/clones/{job_id}/cancel")
async def cancel_clone(job_id: str, services: TheServices) -> dict[str, Any]:
    """Stop a job within ten seconds; what it has stored is deleted."""
    return shown(await services.catalog.jobs.request_cancel(job_id))


def shown(job: CloneJob, *, report: bool = True) -> dict[str, Any]:
    """A job as clients see it."""
    fields = job.model_dump(mode="json", exclude=None if report else {"report"})
    return {"object": "clone", **fields, "over": job.state.over}
