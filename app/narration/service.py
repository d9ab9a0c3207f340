"""Use-cases of a submitted narration: resume, regenerate segments, list, delete.

The row is the truth; the queue gets a message by the task's name, and a reconciler sends another should it be lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from app.errors import Conflict, NotFound, ObjectMissing, StoreUnavailable
from app.narration.cast import Casting
from app.narration.models import NARRATOR, Narration, NarrationState, Script, Timeline
from app.narration.progress import doing
from app.narration.segment_store import SegmentStore
from app.narration.store import NarrationStore
from app.narration.submission import Submissions, discard_objects
from app.platform.broker import NARRATE, RENDER
from app.platform.object_keys import forgotten_key
from app.platform.object_store import ObjectStore, configured
from app.platform.quota import Quota
from app.platform.task_queue import TaskQueue
from app.speech.voices import Voice

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NarrationService:
    """Narrations, wherever something of them is kept. `find_clone` raises NotFound for a voice that was deleted."""

    narrations: NarrationStore
    object_store: ObjectStore | None
    queue: TaskQueue
    find_clone: Callable[[str], Awaitable[object]]
    submissions: Submissions
    quota: Quota

    async def resume(
        self, narration_id: str, *, voice: str | None = None, cast: Mapping[str, str] | None = None
    ) -> Narration:
        """Go on with one that failed or was cancelled, with other voices if some are named; nothing is spoken twice.

        Raises NotFound, Conflict, and what `casting` raises.
        """
        narration = await self.narrations.get(narration_id)
        await self.quota.check_jobs()
        if narration.state not in (NarrationState.FAILED, NarrationState.CANCELLED):
            raise Conflict(f"{doing(narration)}; only one that failed or was cancelled can be resumed", param="id")
        if voice is None and cast is None:
            await self._all_there(narration, "resume with another in its place, as `voice` or in `cast`")
            return await self._queued(await self.narrations.resume(narration_id))
        cast = narration.cast if cast is None else cast
        recast = await self.submissions.recast(
            narration,
            voice=voice or cast.get(NARRATOR) or narration.voice,
            cast={character: name for character, name in cast.items() if character != NARRATOR},
        )
        resumed = await self.narrations.resume(
            narration_id,
            voice=recast.voice,
            cast=recast.cast,
            voices={**recast.voices, **_pinned(narration, recast)},
            findings=recast.findings,
        )
        return await self._queued(resumed)

    async def regenerate(self, narration_id: str, numbers: Collection[int]) -> Narration:
        """Have segments read again, and the file made again around them. Raises NotFound, Conflict."""
        narration = await self.narrations.get(narration_id)
        await self.quota.check_jobs()
        if narration.state is not NarrationState.COMPLETED or narration.output is None:
            raise Conflict(f"{doing(narration)}; a segment can be rendered again when it is completed", param="id")
        timeline = await self.timeline(narration)
        chapters = {segment.number: segment.chapter for segment in timeline.segments}
        if strange := [number for number in numbers if number not in chapters]:
            raise _no_segment(narration, strange[0])
        # Of every segment: what was spoken is fetched once more, and spoken again where the store has it no longer.
        await self._all_there(narration, "submit the text again with another in its place")
        again = await self.narrations.regenerate(narration_id, {number: chapters[number] for number in numbers})
        return await self._queued(again)

    async def delete(self, narration_id: str) -> None:
        """Delete the text and the finished file of one that is over, and name its segments for the sweep.

        The sweep deletes those that no other narration uses. Raises NotFound, Conflict.
        """
        narration = await self.narrations.get(narration_id)
        digests = await self._every_digest(narration)
        try:
            await self.narrations.delete(narration_id)
        except StoreUnavailable:  # a full disk takes no change before something has gone from it
            if narration.finished_at is None:
                raise
            await discard_objects(self.object_store, narration_id)
            await self.narrations.delete(narration_id)
        await discard_objects(self.object_store, narration_id)
        if digests:
            await self._forget(narration_id, digests)

    async def _every_digest(self, narration: Narration) -> list[str]:
        """What its segments are called in the store; none where it has no script, or that cannot be read."""
        if self.object_store is None or narration.script_key is None:
            return []
        store, key = self.object_store, narration.script_key
        try:
            return await asyncio.to_thread(
                lambda: sorted(SegmentStore(store, narration).every_digest(Script.model_validate_json(store.get(key))))
            )
        except (StoreUnavailable, ObjectMissing, ValidationError):
            return []

    async def _forget(self, narration_id: str, digests: list[str]) -> None:
        """Where the store does not take their names, segments go by their age."""
        store, key = configured(self.object_store), forgotten_key(narration_id)
        try:
            await asyncio.to_thread(store.put, key, json.dumps(digests).encode())
        except StoreUnavailable:
            log.warning("segments left to their age", extra={"narration": narration_id, "segments": len(digests)})

    async def timeline(self, narration: Narration) -> Timeline:
        """Where everything lies in the finished file. Raises Conflict while there is none."""
        if narration.output is None:
            raise Conflict(f"{doing(narration)}; its file is there when it is completed", param="id")
        store, key = configured(self.object_store), narration.output.timeline_key
        return await asyncio.to_thread(lambda: Timeline.model_validate_json(store.get(key)))

    async def segments(self, narration: Narration) -> Timeline | Script:
        """The segments with their times in the file, or before there is one as planned. Raises Conflict."""
        if narration.output is not None:
            return await self.timeline(narration)
        if narration.script_key is None:
            raise Conflict(f"{doing(narration)}; it has no segments before it is planned", param="id")
        store, key = configured(self.object_store), narration.script_key
        return await asyncio.to_thread(lambda: Script.model_validate_json(store.get(key)))

    async def segment_audio(self, narration: Narration, number: int) -> bytes:
        """A segment as it was spoken last, as FLAC, from when it has been. Raises NotFound, Conflict."""
        store = configured(self.object_store)
        if narration.script_key is None:
            raise Conflict(f"{doing(narration)}; it has no segments before it is planned", param="id")
        key = narration.script_key
        script = await asyncio.to_thread(lambda: Script.model_validate_json(store.get(key)))
        every = (segment for chapter in script.chapters for segment in chapter.segments)
        segment = next((segment for segment in every if segment.number == number), None)
        if segment is None:
            raise _no_segment(narration, number)
        take = await SegmentStore(store, narration).find(segment)
        if take is None:
            raise Conflict(f"{doing(narration)}; segment {number} has not been spoken yet", param="number")
        return await asyncio.to_thread(store.get, take.key)

    async def _queued(self, narration: Narration) -> Narration:
        await self.queue.send(NARRATE, narration.id, queue=RENDER)
        return narration

    async def _all_there(self, narration: Narration, remedy: str) -> None:
        """Raises Conflict for a voice that was deleted since the narration was submitted."""
        for name, voice in narration.voices.items():
            if voice.adapter is None:
                continue
            try:
                await self.find_clone(voice.id)
            except NotFound:
                raise Conflict(f"the voice {name!r} has been deleted; {remedy}", param="voice") from None


def _no_segment(narration: Narration, number: int) -> NotFound:
    return NotFound(f"there is no segment {number}; this narration has {narration.segments}, from 1", param="number")


def _pinned(narration: Narration, recast: Casting) -> dict[str, Voice]:
    """Voices that were there before stay as they were: a newer version would not match what has been spoken."""
    return {
        name: narration.voices[name]
        for name, voice in recast.voices.items()
        if name in narration.voices and narration.voices[name].id == voice.id
    }
