"""Voices, models and the account, as ElevenLabs' clients list them: what is served here, under their names.

A built-in voice is `premade`; a clone is `professional`, and its `fine_tuning` says how far it is. Their listings of
models and voices have paths that are others' too, so they are answered where the key came in their header.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from app.api.access import requires
from app.api.elevenlabs.wire import ElevenLabsSharedRoute, TheServices, api_key
from app.api.services import Services
from app.errors import NotFound, UnknownVoice
from app.speech.choices import Scope
from app.speech.voices import ModelCard, Voice
from app.voices.models import CloneJob, CloneState, VoiceRecord

MAX_PAGE = 100
MAX_JOBS = 1_000

router = APIRouter(
    route_class=ElevenLabsSharedRoute,
    include_in_schema=False,
    dependencies=[Depends(requires(Scope.SPEAK, api_key))],
)

DEFAULT_SETTINGS = {"stability": 0.5, "similarity_boost": 0.75, "style": 0.0, "use_speaker_boost": True, "speed": 1.0}
"""What their clients show; only the speed is followed."""


def voice_json(voice: Voice, record: VoiceRecord | None = None, job: CloneJob | None = None) -> dict[str, Any]:
    """A voice that can be spoken with, or, by its record alone, one that is being made, by its newest job."""
    return {
        "voice_id": voice.id,
        "name": voice.name,
        "category": "professional" if voice.adapter or record else "premade",
        "description": record.description if record else "",
        "labels": {"language": voice.language},
        "samples": [],
        "preview_url": None,
        "available_for_tiers": [],
        "settings": DEFAULT_SETTINGS,
        "high_quality_base_model_ids": [voice.model],
        "is_owner": record is not None or voice.adapter is not None,
        "fine_tuning": fine_tuning(record, job) if record else None,
    }


def fine_tuning(record: VoiceRecord, job: CloneJob | None) -> dict[str, Any]:
    """How far a clone is, and what it waits for."""
    state = _state(record, job)
    message = job.error.message if job and job.error and state == "failed" else ""
    if record.consent is None:
        message = f"verify it first with a recording of: {record.consent_phrase}"
    return {
        "is_allowed_to_fine_tune": record.consent is not None and record.sample_count > 0,
        "language": record.language,
        "state": {record.model: state},
        "progress": {record.model: _progress(state, job)},
        "message": {record.model: message},
        "dataset_duration_seconds": record.sample_s,
    }


def _state(record: VoiceRecord, job: CloneJob | None) -> str:
    if job is not None and not job.state.over:
        return "queued" if job.state is CloneState.QUEUED else "fine_tuning"
    if record.version:
        return "fine_tuned"
    return "failed" if job is not None and job.state is CloneState.FAILED else "not_started"


def _progress(state: str, job: CloneJob | None) -> float:
    if job is not None and job.progress is not None and not job.state.over:
        return job.progress.step / max(job.progress.steps, 1)
    return 1.0 if state == "fine_tuned" else 0.0


async def _everything(services: Services) -> list[dict[str, Any]]:
    records = {record.id: record for record in await services.catalog.voices.all()}
    jobs = {job.voice_id: job for job in reversed(await services.catalog.jobs.all(limit=MAX_JOBS))}
    listed = [voice_json(it, records.pop(it.id, None), jobs.get(it.id)) for it in await services.resolver.all()]
    return listed + [voice_json(as_voice(record), record, jobs.get(record.id)) for record in records.values()]


def as_voice(record: VoiceRecord) -> Voice:
    """A voice that cannot speak yet, as far as its record tells."""
    return Voice(id=record.id, name=record.name, model=record.model, language=record.language)


@router.get("/v1/voices")
async def list_voices(services: TheServices) -> dict[str, Any]:
    """Every voice, those that are not trained yet too."""
    return {"voices": await _everything(services)}


@router.get("/v2/voices")
async def search_voices(
    services: TheServices,
    page_size: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 10,
    next_page_token: str | None = None,
    search: Annotated[str | None, Query(max_length=256)] = None,
    category: str | None = None,
) -> dict[str, Any]:
    """The same in pages, and narrowed."""
    found = [
        voice
        for voice in await _everything(services)
        if (not search or search.casefold() in voice["name"].casefold())
        and (not category or voice["category"] == category)
    ]
    ids = [voice["voice_id"] for voice in found]
    start = ids.index(next_page_token) + 1 if next_page_token in ids else 0
    page = found[start : start + page_size]
    more = start + page_size < len(found)
    return {
        "voices": page,
        "has_more": more,
        "total_count": len(found),
        "next_page_token": page[-1]["voice_id"] if more else None,
    }


@router.get("/v1/voices/settings/default")
async def default_settings() -> dict[str, Any]:
    return DEFAULT_SETTINGS


@router.get("/v1/voices/{voice_id}/settings")
async def settings(voice_id: str, services: TheServices) -> dict[str, Any]:
    await one_voice(voice_id, services)
    return DEFAULT_SETTINGS


@router.get("/v1/voices/{voice_id}")
async def one_voice(voice_id: str, services: TheServices) -> dict[str, Any]:
    try:
        record = await services.catalog.voices.get(voice_id)
    except NotFound:
        return voice_json(await services.resolver.find(voice_id, None))
    job = next(iter(await services.catalog.jobs.all(voice_id=record.id, limit=1)), None)
    try:
        return voice_json(await services.resolver.find(voice_id, None), record, job)
    except UnknownVoice:  # it is not trained yet
        return voice_json(as_voice(record), record, job)


def model_json(card: ModelCard, *, most_chars: int) -> dict[str, Any]:
    return {
        "model_id": card.name,
        "name": card.name,
        "can_be_finetuned": True,
        "can_do_text_to_speech": True,
        "can_do_voice_conversion": False,
        "can_use_style": False,
        "can_use_speaker_boost": False,
        "serves_pro_voices": True,
        "token_cost_factor": 1.0,
        "description": "a small stand-in, no real voice" if card.stand_in else "",
        "requires_alpha_access": False,
        "max_characters_request_free_user": most_chars,
        "max_characters_request_subscribed_user": most_chars,
        "maximum_text_length_per_request": most_chars,
        "languages": [{"language_id": language, "name": language} for language in card.languages],
    }


@router.get("/v1/models")
async def list_models(services: TheServices) -> list[dict[str, Any]]:
    """The models that living workers hold; theirs (`eleven_…`) mean any of them."""
    most = services.settings.session.max_input_chars
    return [model_json(card, most_chars=most) for card in services.models()]


SUBSCRIPTION = {
    "tier": "self_hosted",
    "status": "active",
    "character_count": 0,
    "character_limit": 2**31 - 1,
    "can_extend_character_limit": False,
    "allowed_to_extend_character_limit": False,
    "voice_limit": 2**31 - 1,
    "professional_voice_limit": 2**31 - 1,
    "voice_slots_used": 0,
    "professional_voice_slots_used": 0,
    "can_extend_voice_limit": False,
    "can_use_instant_voice_cloning": False,
    "can_use_professional_voice_cloning": True,
}
"""Nothing is counted here for a bill; clients read from it that there is room."""


@router.get("/v1/user/subscription")
async def subscription() -> dict[str, Any]:
    return SUBSCRIPTION


@router.get("/v1/user")
async def user() -> dict[str, Any]:
    return {"user_id": "carillon", "subscription": SUBSCRIPTION, "is_new_user": False, "is_onboarding_completed": True}
