"""Voice cloning jobs, queued: a clone from recordings, or a polish of a built-in voice.

The job's row is the truth; the queue gets a message by the task's name, and a reconciler sends another should it be
lost. What a job does is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import Conflict, ConsentMissing, InvalidRequest, NotFound, PermissionDenied, RecordingUnfit
from app.platform import webhooks
from app.platform.broker import CLONE, train_queue
from app.platform.quota import Quota
from app.platform.settings import Settings
from app.platform.task_queue import TaskQueue
from app.speech.recipe import CloneConfig, GateConfig
from app.speech.voices import ModelCard
from app.voices.jobs import JobStore
from app.voices.models import CloneJob, CloneKind, VoiceRecord
from app.voices.service import ModelCards
from app.voices.store import VoiceStore

LIMITS = {
    "gate": frozenset(GateConfig.model_fields) - {"prompts"},
    "prepare": frozenset(
        {
            "min_source_rate_hz",
            "max_clipped_share",
            "min_snr_db",
            "min_word_agreement",
            "max_gain_db",
            "min_usable_s",
            "min_clips",
        }
    ),
}
"""Quality thresholds of recordings and voices, which only operators may override."""


@dataclass(frozen=True)
class CloneService:
    """Queues jobs. `overrides` are of the recipe; the webhook is called when a job is over.

    `key_id` is of the key that asks for them. `operator`: it may also say what must be reached, and answers for a
    consent that was not heard.
    """

    settings: Settings
    voices: VoiceStore
    jobs: JobStore
    queue: TaskQueue
    models: ModelCards
    quota: Quota
    key_id: str | None = None

    async def clone(
        self, voice_id: str, overrides: Mapping[str, Any], *, webhook_url: str | None, operator: bool
    ) -> CloneJob:
        """Make a version of a voice from its recordings.

        Raises NotFound, Conflict, ConsentMissing, RecordingUnfit where there are none, InvalidRequest,
        PermissionDenied, RateLimited.
        """
        voice = await self.voices.get(voice_id)
        if voice.prompt_name != voice.id:
            raise Conflict(
                f"{voice.name!r} is a built-in voice that was polished, and no recordings make another of it; make a "
                "voice of its own for them (POST /v1/voices), or polish this one again "
                f"(POST /v1/voices/{voice.name}/polish)",
                param="voice",
            )
        if voice.consent is None:
            raise ConsentMissing(
                f"the voice {voice.name!r} has no consent on record; POST /v1/voices/{voice.id}/consent with a "
                f"recording of: {voice.consent_phrase}"
            )
        if voice.consent.kind == "recording" and not voice.consent.checked and not operator:
            raise ConsentMissing(
                f"the recorded consent of {voice.name!r} was not heard, since no recogniser here knows its language "
                f"({voice.language}): a key with the scope 'admin' confirms it (POST /v1/voices/{voice.id}/consent "
                'with {"statement": …}) or starts the job'
            )
        if not voice.sample_count:
            raise RecordingUnfit(
                f"the voice {voice.name!r} has no recordings; POST /v1/voices/{voice.id}/samples", param="voice"
            )
        config = await self._checked(overrides, webhook_url, operator=operator)
        return await self._queued(voice, CloneKind.CLONE, config, webhook_url)

    async def polish(
        self, name: str, overrides: Mapping[str, Any], *, model: str | None, webhook_url: str | None, operator: bool
    ) -> CloneJob:
        """Make an adapter that takes the silence at the head from a built-in voice.

        Raises NotFound, Conflict for the name of a clone, InvalidRequest, PermissionDenied.
        """
        card = self._holder(name, model)
        config = await self._checked(overrides, webhook_url, operator=operator)
        voice = await self.voices.named(name, model=card.name)
        if voice is None:
            voice = await self.voices.create(
                name,
                model=card.name,
                language=card.languages[0],
                description=f"The built-in voice {name} without its silence at the head.",
                prompt_name=name,
            )
        elif voice.prompt_name != name:
            raise Conflict(
                f"{name!r} is the name of a clone, not of a polished voice; rename or delete it", param="name"
            )
        return await self._queued(voice, CloneKind.POLISH, config, webhook_url)

    def _holder(self, voice: str, model: str | None) -> ModelCard:
        """The model whose built-in voice is meant. Raises NotFound, and InvalidRequest where several have it."""
        cards = {card.name: card for card in self.models() if model in (None, card.name)}
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

    async def _checked(self, overrides: Mapping[str, Any], webhook_url: str | None, *, operator: bool) -> CloneConfig:
        """The configuration of a job that can be honoured, and announced. Raises InvalidRequest, PermissionDenied."""
        config = self.settings.clone.overridden(overrides)
        if not operator:
            _check_limits(overrides)
        limit = self.settings.engine.max_lora_rank
        if config.train.rank > limit:
            raise InvalidRequest(
                f"overrides.train.rank: {config.train.rank} is more than the workers' slots hold ({limit}, "
                "CARILLON_ENGINE__MAX_LORA_RANK)",
                param="overrides.train.rank",
            )
        if webhook_url is not None:
            await webhooks.check(webhook_url, self.settings.cloning)
        return config

    async def _queued(
        self, voice: VoiceRecord, kind: CloneKind, config: CloneConfig, webhook_url: str | None
    ) -> CloneJob:
        await self.quota.check_jobs()
        job = await self.jobs.create(voice.id, kind=kind, config=config, webhook_url=webhook_url, key_id=self.key_id)
        await self.queue.send(CLONE, job.id, queue=train_queue(voice.model))
        return job


def _check_limits(overrides: Mapping[str, Any]) -> None:
    """Raises PermissionDenied for an override of what the operator says must be reached."""
    for group, names in LIMITS.items():
        for name in sorted(names & set(overrides.get(group, {}))):
            place = f"overrides.{group}.{name}"
            raise PermissionDenied(
                f"{place}: what must be reached is the operator's to set (CARILLON_CLONE__{group.upper()}__"
                f"{name.upper()}); a key with the scope 'admin' may override it",
                param=place,
            )
