"""Large sets of recordings, which clients send straight to the object store, each to an address of its own.

A client announces its files, sends each to its address, and says that it is there; only then is it probed and kept.
Either can be repeated. What is announced together is kept in one object beside the uploads, since nothing else needs to
know of it.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import Conflict, InvalidRequest, NotFound, ObjectMissing, RecordingUnfit, StoreUnavailable
from app.platform.cancellation import to_the_end
from app.platform.file_names import shown_name
from app.platform.object_keys import voice_prefix
from app.platform.object_store import ObjectStore, configured
from app.platform.settings import CloningSettings
from app.platform.workspace import workspace
from app.voices.ingest import Ingest
from app.voices.models import Sample, VoiceRecord
from app.voices.store import VoiceStore

EXPIRES_S = 15 * 60

_UPLOAD_ID = re.compile(r"up_([0-9a-f]{16})_([0-9]{4})")


@dataclass(frozen=True)
class Upload:
    """A file that was announced; `url` takes one PUT of exactly its size, for EXPIRES_S."""

    id: str
    file_name: str
    url: str


@dataclass(frozen=True)
class UploadService:
    """Uploads to the store. `directory` is where files wait to be probed."""

    settings: CloningSettings
    voices: VoiceStore
    object_store: ObjectStore | None
    ingest: Ingest
    directory: Path

    async def announce(self, record: VoiceRecord, files: Sequence[tuple[str, int]]) -> list[Upload]:
        """An address for each of `files`, (name, bytes), in their order. Raises RecordingUnfit, QuotaExceeded."""
        store = configured(self.object_store)
        if record.sample_count + len(files) > self.settings.max_samples:
            raise RecordingUnfit(
                f"{len(files)} more recordings than {record.sample_count} are too many; "
                f"a voice has at most {self.settings.max_samples}",
                param="files",
            )
        shown = [(shown_name(name), size_bytes) for name, size_bytes in files]
        limit = self.settings.max_sample_bytes
        for name, size_bytes in shown:
            if size_bytes > limit:
                raise RecordingUnfit(
                    f"{name} has {size_bytes} bytes; at most {limit}: cut it into parts", param="files"
                )
        await self.ingest.quota.check_bytes(sum(size_bytes for _, size_bytes in files))
        batch = secrets.token_hex(8)
        await asyncio.to_thread(store.put, _batch_key(record.id, batch), json.dumps(shown).encode())
        uploads: list[Upload] = []
        for place, (name, size_bytes) in enumerate(shown):
            upload_id = f"up_{batch}_{place:04}"
            url = store.put_url(_upload_key(record.id, upload_id), size_bytes=size_bytes, expires_s=EXPIRES_S)
            uploads.append(Upload(upload_id, name, url))
        return uploads

    async def complete(self, voice_id: str, upload_id: str, transcript: str | None) -> Sample:
        """Probe the file that was sent and keep it as the recording of the upload's id. It can be repeated.

        Raises NotFound for one that was not announced or not sent, InvalidRequest for one that cannot be used.
        """
        try:
            return await self.voices.sample(voice_id, upload_id)
        except NotFound:
            pass
        file_name = await self._announced(voice_id, upload_id)
        try:
            sample = await self._take(voice_id, upload_id, file_name, transcript)
        except (Conflict, StoreUnavailable) as error:
            # Another front door may have kept it at the same moment, or the answer of the catalogue was lost.
            try:
                sample = await self.voices.sample(voice_id, upload_id)
            except NotFound:
                raise error from None
        except InvalidRequest:
            await self.ingest.discard(_upload_key(voice_id, upload_id))
            raise
        await self.ingest.discard(_upload_key(voice_id, upload_id))
        return sample

    async def _announced(self, voice_id: str, upload_id: str) -> str:
        """The file name of an announced upload. Raises NotFound."""
        missing = NotFound(
            f"the voice {voice_id} has no upload {upload_id[:64]!r}; announce it first", param="upload_id"
        )
        match = _UPLOAD_ID.fullmatch(upload_id)
        if match is None:
            raise missing
        store = configured(self.object_store)
        try:
            files = json.loads(await asyncio.to_thread(store.get, _batch_key(voice_id, match[1])))
        except ObjectMissing:
            raise missing from None
        if int(match[2]) >= len(files):
            raise missing
        return files[int(match[2])][0]

    async def _take(self, voice_id: str, upload_id: str, file_name: str, transcript: str | None) -> Sample:
        store, key = configured(self.object_store), _upload_key(voice_id, upload_id)
        limit = self.settings.max_sample_bytes
        try:
            if await asyncio.to_thread(store.size_bytes, key) > limit:
                raise RecordingUnfit(f"{file_name} has more than {limit} bytes; cut it into parts.")
            async with workspace(self.directory) as directory:
                path = directory / "recording"
                folder, _, name = key.rpartition("/")
                await to_the_end(asyncio.to_thread(store.fetch, store.uri(folder), name, path))
                # What was probed is what is kept: the address may still take another file.
                return await self.ingest.keep_sample(
                    voice_id, path, sample_id=upload_id, file_name=file_name, transcript=transcript
                )
        except ObjectMissing:
            raise NotFound(
                f"{file_name} has not been sent; PUT it to its address first, or announce it again", param="upload_id"
            ) from None


def _batch_key(voice_id: str, batch: str) -> str:
    return f"{voice_prefix(voice_id)}uploads/{batch}.json"


def _upload_key(voice_id: str, upload_id: str) -> str:
    return f"{voice_prefix(voice_id)}uploads/{upload_id}"
