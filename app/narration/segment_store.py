"""Rendered segments in the object store: each under what it depends on, so that nothing is ever rendered twice.

A take is a FLAC, named by its content too, and a JSON that tells where it is, written last: of two who render the same
segment at once, the later one's JSON speaks of the later one's FLAC.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping

import numpy as np
import soundfile
from pydantic import TypeAdapter, ValidationError

from app.errors import ObjectMissing
from app.narration.models import Narration, Script, ScriptSegment, Take, take_digest
from app.platform.object_keys import segment_key
from app.platform.object_store import ObjectStore, retry_in_thread
from app.speech.audio import Samples
from app.speech.voices import Voice

TAKES: TypeAdapter[dict[int, Take]] = TypeAdapter(dict[int, Take])


class SegmentStore:
    """The takes of one narration. Every method raises StoreUnavailable when the store is away for too long."""

    def __init__(self, store: ObjectStore, narration: Narration) -> None:
        self._store = store
        self._narration = narration

    def voice(self, segment: ScriptSegment) -> Voice:
        return self._narration.voices[self._narration.voice_of(segment)]

    def digest(self, segment: ScriptSegment) -> str:
        return self._digest(segment, self._narration.takes.get(segment.number, 0))

    def _digest(self, segment: ScriptSegment, take: int) -> str:
        voice, narration = self.voice(segment), self._narration
        return take_digest(voice, segment.spoken, narration.options, take=take, project=narration.project_id)

    def fits(self, take: Take, segment: ScriptSegment) -> bool:
        """Whether a take is of these words by this voice."""
        return take.key.startswith(f"{segment_key(self.voice(segment), self.digest(segment))}-")

    def every_digest(self, script: Script) -> set[str]:
        """What all takes of a script's segments are called, those of earlier readings too. Blocks: hashes each."""
        segments = [segment for chapter in script.chapters for segment in chapter.segments]
        earlier = self._narration.takes
        return {
            self._digest(segment, number)
            for segment in segments
            for number in range(earlier.get(segment.number, 0) + 1)
        }

    async def find(self, segment: ScriptSegment) -> Take | None:
        """The segment as it was rendered before, for any narration of the project."""
        key = f"{segment_key(self.voice(segment), self.digest(segment))}.json"
        try:
            return Take.model_validate_json(await retry_in_thread(lambda: self._store.get(key)))
        except (ObjectMissing, ValidationError):
            return None

    async def keep(self, segment: ScriptSegment, samples: Samples, take: Take) -> Take:
        """Store a take under the segment's key; returns it with that."""
        key, audio = segment_key(self.voice(segment), self.digest(segment)), flac(samples, take.sample_rate_hz)
        content = hashlib.sha256(audio).hexdigest()[:12]
        take = take.model_copy(update={"key": f"{key}-{content}.flac"})

        def put() -> None:
            self._store.put(take.key, audio)
            self._store.put(f"{key}.json", take.model_dump_json().encode())

        await retry_in_thread(put)
        return take

    async def forget(self, key: str) -> None:
        """The take whose audio is at `key` is found no more: it is gone, or damaged."""
        facts = f"{key.rpartition('-')[0]}.json"
        await retry_in_thread(lambda: self._store.delete(facts))

    async def list(self, key: str, takes: Mapping[int, Take]) -> None:
        """Write down a chapter's takes, by segment, at `key`."""
        await retry_in_thread(lambda: self._store.put(key, TAKES.dump_json(dict(takes))))

    async def listed(self, key: str) -> dict[int, Take]:
        """The inverse of `list`. Raises ObjectMissing."""
        return TAKES.validate_python(json.loads(await retry_in_thread(lambda: self._store.get(key))))


def flac(samples: Samples, sample_rate_hz: int) -> bytes:
    """Mono 16-bit FLAC, rounded as the fleet's PCM is: what a worker sent comes back bit by bit."""
    file = io.BytesIO()
    pcm16 = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    soundfile.write(file, pcm16, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return file.getvalue()
