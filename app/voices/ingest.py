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
from pathlib import Path
from typing import Any, TypeVar

from app.api.services import Door
from app.errors import CarillonError, RecordingUnfit
from app.platform.database import utc_now
from app.platform.settings import Settings
from app.voices.audio_probe import Limits, inspect_async
from app.voices.models import AudioFacts, Consent, Sample
from app.voices.store import voice_prefix

MIN_CONSENT_S = 2.0
"""The phrase cannot be said faster."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


def uploads_directory(door: Door) -> Path:
    """Where files wait to be looked into: beside the data, since a system's /tmp is often memory.

    Raises StoreUnavailable where they could not be kept afterwards, before any is received.
    """
    _ = door.store
    return waiting_directory(door.settings)


def waiting_directory(settings: Settings) -> Path:
    return settings.data_dir / "uploads"


async def keep_sample(
    door: Door, voice_id: str, path: Path, *, sample_id: str, file_name: str, transcript: str | None
) -> Sample:
    """A recording of a voice. Raises InvalidRequest for one that cannot be used, NotFound for a deleted voice."""
    facts = await inspected(door, path, file_name, max_duration_s=door.settings.cloning.max_sample_s)
    # The key is this attempt's own: two that keep one sample at once do not remove each other's object.
    key = f"{voice_prefix(voice_id)}samples/{secrets.token_hex(8)}.{facts.container}"

    async def keep() -> Sample:
        async with _stored(door, path, key):
            return await door.catalog.voices.add_sample(
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
    door: Door, voice_id: str, path: Path, *, file_name: str, number: str, key_id: str | None
) -> Consent:
    """A recorded consent. Raises InvalidRequest for one that cannot be used, NotFound for a deleted voice."""
    facts = await inspected(door, path, file_name, max_duration_s=door.settings.cloning.max_consent_s)
    if facts.duration_s < MIN_CONSENT_S:
        raise RecordingUnfit(
            f"{file_name} has {facts.duration_s:.1f} s; the consent takes at least {MIN_CONSENT_S:g} s to say",
            param="recording",
        )
    consent_id = new_consent_id()
    consent = Consent(
        id=consent_id,
        voice_id=voice_id,
        kind="recording",
        number=number,
        object_key=f"{voice_prefix(voice_id)}consent/{consent_id}.{facts.container}",
        key_id=key_id,
        created_at=utc_now(),
    )

    async def keep() -> Consent:
        assert consent.object_key
        async with _stored(door, path, consent.object_key):
            await door.catalog.voices.add_consent(consent)
        return consent

    return await to_the_end(keep())


def new_consent_id() -> str:
    return f"cons_{secrets.token_hex(12)}"


async def inspected(door: Door, path: Path, name: str, *, max_duration_s: float) -> AudioFacts:
    """What the file is, found out in a bounded subprocess, few at once. Raises InvalidRequest."""
    timeout_s = door.settings.cloning.inspection_timeout_s
    limits = Limits(cpu_s=math.ceil(timeout_s), wall_s=timeout_s)
    async with door.inspections:
        return await inspect_async(path, max_duration_s=max_duration_s, name=name, limits=limits)


@asynccontextmanager
async def _stored(door: Door, path: Path, key: str) -> AsyncIterator[None]:
    """The file is at `key` for the body, and afterwards unless that fails."""
    try:
        await asyncio.to_thread(door.store.upload, path, key)
        yield
    except Exception:
        await discard(door, key)
        raise


async def discard(door: Door, key: str) -> None:
    """Remove an object that nothing speaks of; the store being away is told, and is no reason to fail."""
    try:
        await asyncio.to_thread(door.store.delete, key)
    except CarillonError as error:
        log.warning("object left behind", extra={"key": key, "code": error.code})


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives. Cancelled, it waits for it first: threads cannot be cancelled, and halves are not to be."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
