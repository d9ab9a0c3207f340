"""From a file that a stranger sent to a recording that is kept: looked into, stored, written down; or nothing of it.

The object comes before its row, so that a row never speaks of bytes that are not there; an object whose row could not
be written, because the voice was deleted meanwhile, is removed again. Once both are under way, a cancellation waits for
them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from app.errors import CarillonError, RecordingUnfit
from app.platform.database import utc_now
from app.platform.object_keys import voice_prefix
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings
from app.voices import audio_probe
from app.voices.models import AudioFacts, Consent, Sample
from app.voices.store import VoiceStore

MIN_CONSENT_S = 2.0
"""The phrase cannot be said faster."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ingest:
    """Takes recordings in. `probes` bounds how many are looked into at once: each costs a core meanwhile."""

    settings: Settings
    voices: VoiceStore
    store: ObjectStore
    probes: asyncio.Semaphore

    async def keep_sample(
        self, voice_id: str, path: Path, *, sample_id: str, file_name: str, transcript: str | None
    ) -> Sample:
        """A recording of a voice. Raises InvalidRequest for one that cannot be used, NotFound for a deleted voice."""
        facts = await self._probed(path, file_name, max_duration_s=self.settings.cloning.max_sample_s)
        # The key is this attempt's own: two that keep one sample at once do not remove each other's object.
        key = f"{voice_prefix(voice_id)}samples/{secrets.token_hex(8)}.{facts.container}"

        async def keep() -> Sample:
            async with self._stored(path, key):
                return await self.voices.add_sample(
                    voice_id,
                    sample_id=sample_id,
                    file_name=file_name,
                    size_bytes=path.stat().st_size,
                    facts=facts,
                    transcript=transcript,
                    object_key=key,
                )

        return await to_the_end(keep())

    async def keep_consent(
        self, voice_id: str, path: Path, *, file_name: str, number: str, key_id: str | None
    ) -> Consent:
        """A recorded consent. Raises InvalidRequest for one that cannot be used, NotFound for a deleted voice."""
        facts = await self._probed(path, file_name, max_duration_s=self.settings.cloning.max_consent_s)
        if facts.duration_s < MIN_CONSENT_S:
            raise RecordingUnfit(
                f"{file_name} has {facts.duration_s:.1f} s; the consent takes at least {MIN_CONSENT_S:g} s to say",
                param="recording",
            )
        consent_id = new_consent_id()
        key = f"{voice_prefix(voice_id)}consent/{consent_id}.{facts.container}"
        consent = Consent(
            id=consent_id,
            voice_id=voice_id,
            kind="recording",
            number=number,
            object_key=key,
            key_id=key_id,
            created_at=utc_now(),
        )

        async def keep() -> Consent:
            async with self._stored(path, key):
                await self.voices.add_consent(consent)
            return consent

        return await to_the_end(keep())

    async def discard(self, key: str) -> None:
        """Remove an object that no row speaks of; an absent store is logged, and is no reason to fail."""
        try:
            await asyncio.to_thread(self.store.delete, key)
        except CarillonError as error:
            log.warning("object left behind", extra={"key": key, "code": error.code})

    async def _probed(self, path: Path, name: str, *, max_duration_s: float) -> AudioFacts:
        """What the file is, found out in a bounded subprocess. Raises InvalidRequest."""
        timeout_s = self.settings.cloning.inspection_timeout_s
        limits = replace(audio_probe.LIMITS, cpu_s=math.ceil(timeout_s), wall_s=timeout_s)
        async with self.probes:
            return await audio_probe.probe_async(path, max_duration_s=max_duration_s, name=name, limits=limits)

    @asynccontextmanager
    async def _stored(self, path: Path, key: str) -> AsyncIterator[None]:
        """The file is at `key` for the body, and afterwards unless that fails."""
        try:
            await asyncio.to_thread(self.store.upload, path, key)
            yield
        except Exception:
            await self.discard(key)
            raise


def new_consent_id() -> str:
    return f"cons_{secrets.token_hex(12)}"


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives. Cancelled, it waits for it first: threads cannot be cancelled, and halves are not to be."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
