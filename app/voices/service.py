"""Use-cases of a voice as a whole: create, rename, delete. It knows neither HTTP nor permissions.

Recordings come in by `ingest` and `uploads`, consent by `consents`, versions by the jobs that `clones` queues.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from app.errors import Conflict, NotFound, Overloaded, StoreUnavailable, UnknownModel
from app.fleet.registry import Registry
from app.platform.object_keys import voice_prefix
from app.platform.object_store import ObjectStore
from app.platform.quota import Quota
from app.speech.voices import ModelCard
from app.voices.jobs import JobStore
from app.voices.models import VoiceRecord
from app.voices.resolver import NO_WORKER_RETRY_S
from app.voices.store import VoiceStore
from app.voices.voice_names import checked_name, folded

ModelCards = Callable[[], tuple[ModelCard, ...]]
"""The models that are served now."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VoiceService:
    """Voices, wherever something of them is kept. `object_store` is None where none is configured."""

    voices: VoiceStore
    jobs: JobStore
    registry: Registry
    object_store: ObjectStore | None
    models: ModelCards
    quota: Quota

    async def create(
        self, name: str, *, model: str | None = None, language: str = "en", description: str = ""
    ) -> VoiceRecord:
        """An empty voice, of the first model that is served unless one is named.

        Raises InvalidRequest, UnknownModel, Conflict for a taken name, QuotaExceeded; Overloaded without any model.
        """
        card = self._served(model)
        name = await self._checked(name, card)
        await self.quota.check_voices()
        return await self.voices.create(name, model=card.name, language=language, description=description)

    async def rename(self, record: VoiceRecord, name: str) -> VoiceRecord:
        """Raises InvalidRequest, Conflict for a taken name, NotFound for a voice that was deleted meanwhile."""
        card = next((card for card in self.models() if card.name == record.model), None)
        name = await self._checked(name, card)
        return record if name == record.name else await self.voices.rename(record.id, name)

    async def delete(self, voice_id: str) -> None:
        """Delete everything of a voice; deleting it again finishes what an absent store left undone.

        The tombstone comes first: a request that keeps something of the voice from here on fails and removes it again.
        But a full disk takes none before something has gone from it. Raises NotFound for a voice that never was,
        StoreUnavailable when the bytes could not be deleted yet.
        """
        try:
            await self.voices.delete(voice_id)
        except StoreUnavailable:
            await self.voices.get(voice_id)
            await self._delete_bytes(voice_id)
            await self.voices.delete(voice_id)
        except NotFound:
            if voice_id not in await self.voices.tombstones(since=datetime(2000, 1, 1, tzinfo=UTC)):
                raise
        await self.jobs.end_cancelled()
        log.info("voice deleted", extra={"voice": voice_id})
        await self.registry.retire_voice(voice_id)
        await self._delete_bytes(voice_id)

    async def _delete_bytes(self, voice_id: str) -> None:
        if self.object_store is not None:
            await asyncio.to_thread(self.object_store.delete_prefix, voice_prefix(voice_id))

    async def _checked(self, name: str, card: ModelCard | None) -> str:
        """The name as it is kept. Raises InvalidRequest, and Conflict for a built-in voice's name or another's id."""
        name = checked_name(name)
        if card and folded(name) in {folded(built_in) for built_in in card.voices}:
            raise Conflict(f"{name!r} is a voice of the model {card.name!r} itself; choose another name", param="name")
        try:
            await self.voices.get(name)
        except NotFound:
            return name
        raise Conflict(f"{name!r} is another voice's id; choose another name", param="name")

    def _served(self, name: str | None) -> ModelCard:
        cards = {card.name: card for card in self.models()}
        if not cards:
            raise Overloaded("no worker is ready yet; try again in a moment", retry_after_s=NO_WORKER_RETRY_S)
        if name is None:
            return next(iter(cards.values()))
        if name not in cards:
            raise UnknownModel(
                f"model {name[:64]!r} is not served here; served are: {', '.join(sorted(cards))}", param="model"
            )
        return cards[name]
