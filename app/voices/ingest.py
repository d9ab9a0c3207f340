"""From an uploaded file to a stored recording: probed, stored and recorded in the catalogue, or nothing of it.

The object comes before its row, so that a row never speaks of bytes that are not there; an object whose row could not
be written, because the voice was deleted meanwhile, is removed again. Once both are under way, a cancellation waits for
them. The transport of the file is not known here.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from app.errors import CarillonError, InvalidRequest, NotFound, RecordingUnfit, StoreUnavailable
from app.platform.cancellation import to_the_end
from app.platform.database import utc_now
from app.platform.idempotency import new_id
from app.platform.lanes import FairLanes
from app.platform.object_keys import voice_prefix
from app.platform.object_store import ObjectStore, configured
from app.platform.quota import Quota
from app.platform.sandbox import Limits
from app.platform.settings import Settings
from app.voices import audio_probe
from app.voices.consent_check import heard_consent
from app.voices.models import AudioFacts, Consent, Sample, VoiceRecord
from app.voices.store import VoiceStore

MAX_CONSENT_BYTES = 64 * 2**20
MIN_CONSENT_S = 2.0
"""The phrase cannot be said faster."""

FILES_AT_ONCE = 2
"""Of one set of recordings."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SentFile:
    """A recording as it arrived, named as it is shown. `path` is None where it was too large to be taken in."""

    name: str
    path: Path | None
    transcript: str | None


@dataclass(frozen=True)
class Rejected:
    """A file that was not kept, and why."""

    file_name: str
    error: CarillonError


@dataclass(frozen=True)
class Ingest:
    """Takes recordings in. `lanes` bounds how many are probed at once: each costs a core meanwhile.

    `object_store` is None where none is configured; nothing can be kept then, and StoreUnavailable is raised.
    """

    settings: Settings
    voices: VoiceStore
    object_store: ObjectStore | None
    lanes: FairLanes
    quota: Quota

    async def keep_samples(self, record: VoiceRecord, files: Sequence[SentFile]) -> tuple[list[Sample], list[Rejected]]:
        """Keep each file for which the voice has room; a bad one never spoils the rest.

        What a repeated request has kept already is not kept twice.
        Raises NotFound when the voice is deleted meanwhile, and where none could be kept the error that says why.
        """
        room, lanes = self.settings.cloning.max_samples - record.sample_count, asyncio.Semaphore(FILES_AT_ONCE)
        there = {sample.id: sample for sample in await self.voices.samples(record.id)}

        async def outcome(place: int, file: SentFile) -> Sample | Rejected:
            sample_id = new_id("smp_", place=place)
            if sample_id in there:
                return there[sample_id]
            try:
                path = self._acceptable(file, has_room=place < room)
                async with lanes:
                    return await self.keep_sample(
                        record.id,
                        path,
                        sample_id=sample_id,
                        file_name=file.name,
                        transcript=file.transcript,
                    )
            except CarillonError as error:
                return Rejected(file.name, error)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(place, file)) for place, file in enumerate(files)]
        outcomes = [task.result() for task in tasks]
        samples = [one for one in outcomes if isinstance(one, Sample)]
        rejected = [one for one in outcomes if isinstance(one, Rejected)]
        for one in rejected:
            if isinstance(one.error, NotFound):
                raise one.error
        if not samples:
            raise _nothing_usable([one.error for one in rejected])
        return samples, rejected

    def _acceptable(self, file: SentFile, *, has_room: bool) -> Path:
        """The file's path. Raises RecordingUnfit for one too large, or one too many."""
        cloning = self.settings.cloning
        if file.path is None:
            raise RecordingUnfit(f"{file.name} has more than {cloning.max_sample_bytes} bytes; cut it into parts.")
        if not has_room:
            raise RecordingUnfit(
                f"{file.name} is one too many: a voice has at most {cloning.max_samples} recordings; delete some."
            )
        return file.path

    async def keep_sample(
        self, voice_id: str, path: Path, *, sample_id: str, file_name: str, transcript: str | None
    ) -> Sample:
        """A recording of a voice. Raises InvalidRequest for one that cannot be used, NotFound for a deleted voice."""
        facts = await self._probed(path, file_name, max_duration_s=self.settings.cloning.max_sample_s)
        await self.quota.check_bytes(path.stat().st_size)
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
        self, voice_id: str, path: Path, *, file_name: str, language: str, number: str, key_id: str | None
    ) -> Consent:
        """A recorded consent, heard where there is a recogniser of the language.

        Raises InvalidRequest for one that cannot be used or says something else, NotFound for a deleted voice.
        """
        facts = await self._probed(path, file_name, max_duration_s=self.settings.cloning.max_consent_s)
        if facts.duration_s < MIN_CONSENT_S:
            raise RecordingUnfit(
                f"{file_name} has {facts.duration_s:.1f} s; the consent takes at least {MIN_CONSENT_S:g} s to say",
                param="recording",
            )
        async with self.lanes.place():
            heard = await heard_consent(
                path,
                name=file_name,
                language=language,
                number=number,
                max_duration_s=self.settings.cloning.max_consent_s,
                limits=self._limits(),
            )
        consent_id = new_consent_id()
        key = f"{voice_prefix(voice_id)}consent/{consent_id}.{facts.container}"
        consent = Consent(
            id=consent_id,
            voice_id=voice_id,
            kind="recording",
            number=number,
            statement=heard,
            object_key=key,
            key_id=key_id,
            created_at=utc_now(),
        )

        async def keep() -> Consent:
            async with self._stored(path, key):
                await self.voices.add_consent(consent)
            return consent

        return await to_the_end(keep())

    async def delete_sample(self, voice_id: str, sample_id: str) -> None:
        """Raises NotFound."""
        sample = await self.voices.sample(voice_id, sample_id)
        await self.voices.delete_sample(voice_id, sample_id)
        await self.discard(sample.object_key)

    async def discard(self, key: str) -> None:
        """Remove an object without a row; an unavailable store is logged, and is no failure."""
        try:
            await asyncio.to_thread(configured(self.object_store).delete, key)
        except CarillonError as error:
            log.warning("object left behind", extra={"key": key, "code": error.code})

    async def _probed(self, path: Path, name: str, *, max_duration_s: float) -> AudioFacts:
        """What the file is, found out in a bounded subprocess. Raises InvalidRequest."""
        async with self.lanes.place():
            return await audio_probe.probe(path, max_duration_s=max_duration_s, name=name, limits=self._limits())

    def _limits(self) -> Limits:
        timeout_s = self.settings.cloning.inspection_timeout_s
        return replace(audio_probe.LIMITS, cpu_s=math.ceil(timeout_s), wall_s=timeout_s)

    @asynccontextmanager
    async def _stored(self, path: Path, key: str) -> AsyncIterator[None]:
        """The file is at `key` for the body, and afterwards unless that fails.

        Where the catalogue did not answer, its row may be there all the same: the file stays, and goes with its voice.
        """
        kept = False
        try:
            await asyncio.to_thread(configured(self.object_store).upload, path, key)
            kept = True
            yield
        except Exception as error:
            if not (kept and isinstance(error, StoreUnavailable)):
                await self.discard(key)
            raise


def new_consent_id() -> str:
    return f"cons_{secrets.token_hex(12)}"


def _nothing_usable(errors: Sequence[CarillonError]) -> CarillonError:
    """The one error for files of which none was kept: ours if it is our fault, else what is wrong with each."""
    for error in errors:
        if not isinstance(error, InvalidRequest):
            return error
    shown = " ".join(error.message for error in errors[:5])
    more = f" And {len(errors) - 5} more." if len(errors) > 5 else ""
    return RecordingUnfit(f"none of the {len(errors)} files can be used. {shown}{more}", param="files")
