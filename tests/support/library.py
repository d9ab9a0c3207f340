"""A front door as somebody sees it who has texts read aloud, and the fleet's part played on its rows and its store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from app.narration.models import (
    ChapterProgress,
    Narration,
    NarrationOutput,
    Script,
    ScriptChapter,
    ScriptSegment,
    Timeline,
    TimelineChapter,
    TimelineSegment,
)
from app.narration.steps import Step, StepStore
from app.narration.store import NarrationStore
from app.platform.jobs import JobError
from app.platform.object_keys import narration_prefix
from app.platform.object_store import PIECE_BYTES, ObjectStore

if TYPE_CHECKING:
    from tests.api.conftest import House

TEXT = """# One

The old house stood by the sea.

[hero] Who is there?

# Two

Nobody answered. The door was open.
"""

RATE_HZ = 24_000
SEGMENTS = (("One", ("The old house stood by the sea.", "Who is there?")), ("Two", ("Nobody answered.",)))
AUDIO = bytes(range(256)) * (5 * PIECE_BYTES // 512)
"""Two and a half pieces of the store's."""

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Library:
    """`http` has the scope `narrate` alone. It plays the tasks: `plan`, `finish`, `fail`."""

    house: House
    http: httpx.AsyncClient
    store: ObjectStore

    @property
    def book(self) -> NarrationStore:
        return self.house.catalog.narrations

    @property
    def steps(self) -> StepStore:
        return self.house.catalog.steps

    async def queued(self, **fields: Any) -> dict[str, Any]:
        """A narration that was handed in, as the front door answered."""
        answer = await self.http.post(
            "/v1/narrations", json={"voice": "slt", "text": TEXT, "kind": "markdown", **fields}
        )
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def sent(self, file: tuple[str, bytes], *, cover: bytes | None = None, **fields: Any) -> httpx.Response:
        """The answer to a form."""
        parts: dict[str, Any] = {"file": file} | ({"cover": ("cover.png", cover)} if cover is not None else {})
        return await self.http.post(
            "/v1/narrations", data={"narration": json.dumps({"voice": "slt"} | fields)}, files=parts
        )

    async def planned(self, narration_id: str) -> Narration:
        """As after the plan: two chapters, three segments."""
        step = await self._claim(narration_id)
        key = f"{narration_prefix(narration_id)}script.json"
        self.store.put(key, _script().model_dump_json().encode())
        chapters = tuple(
            ChapterProgress(number=chapter.number, title=chapter.title, segments=len(chapter.segments))
            for chapter in _script().chapters
        )
        return await self.steps.planned(
            step, chapters, script_key=key, title="A House", findings=step.narration.findings
        )

    async def rendered(self, narration_id: str) -> Narration:
        """As after both chapters: ten seconds a segment, each in five of a worker's."""
        narration = await self.planned(narration_id)
        for chapter in _script().chapters:
            step = await self._claim(narration_id)
            progress = progress_of(chapter, flagged=chapter.number - 1)
            narration = await self.steps.finish_chapter(step, progress, result_key="k")
        return narration

    async def completed(self, *, title: str = "A House", **fields: Any) -> Narration:
        """A narration whose file is there."""
        narration = await self.rendered((await self.queued(title=title, **fields))["id"])
        return await self.mastered(narration, AUDIO)

    async def mastered(self, narration: Narration, audio: bytes) -> Narration:
        step = await self._claim(narration.id)
        prefix = f"{narration_prefix(narration.id)}{step.narration.revision}-"
        self.store.put(f"{prefix}audio", audio)
        self.store.put(f"{prefix}timeline", timeline().model_dump_json().encode())
        output = NarrationOutput(
            format=narration.format,
            content_type="audio/mp4",
            key=f"{prefix}audio",
            timeline_key=f"{prefix}timeline",
            size_bytes=len(audio),
            duration_s=30.0,
            sample_rate_hz=RATE_HZ,
            loudness_lufs=-19.0,
            true_peak_dbtp=-3.0,
        )
        return await self.steps.complete(step, output)

    async def failed(self, narration_id: str) -> Narration:
        """As after a plan that came to nothing."""
        error = JobError(code="stage_failed", message="the normaliser was killed", retryable=True)
        return await self.steps.fail(await self._claim(narration_id), error)

    async def _claim(self, narration_id: str) -> Step:
        step = await self.steps.claim(narration_id)
        assert step
        return step


def progress_of(chapter: ScriptChapter, *, flagged: int = 0) -> ChapterProgress:
    count = len(chapter.segments)
    return ChapterProgress(
        number=chapter.number,
        title=chapter.title,
        segments=count,
        segments_done=count,
        audio_s=10.0 * count,
        rendered_s=10.0 * count,
        busy_s=5.0 * count,
        flagged=flagged,
    )


def _script() -> Script:
    number, chapters = 0, []
    for chapter_number, (title, texts) in enumerate(SEGMENTS, start=1):
        segments = []
        for text in texts:
            number += 1
            character = "hero" if number == 2 else "narrator"
            segments.append(ScriptSegment(number=number, character=character, written=text, spoken=text.lower()))
        chapters.append(ScriptChapter(number=chapter_number, title=title, segments=tuple(segments)))
    return Script(title="A House", author="", language="en", chapters=tuple(chapters))


def timeline() -> Timeline:
    """Ten seconds for each segment of the script, one after the other."""
    length = 10 * RATE_HZ
    segments = tuple(
        TimelineSegment(
            number=segment.number,
            chapter=chapter.number,
            character=segment.character,
            voice="slt",
            written=segment.written,
            spoken=segment.spoken,
            start_sample=(segment.number - 1) * length,
            end_sample=segment.number * length,
            flags=("too_long",) if segment.number == 3 else (),
        )
        for chapter in _script().chapters
        for segment in chapter.segments
    )
    chapters = (
        TimelineChapter(number=1, title="One", start_sample=0, end_sample=2 * length),
        TimelineChapter(number=2, title="Two", start_sample=2 * length, end_sample=3 * length),
    )
    return Timeline(sample_rate_hz=RATE_HZ, samples=3 * length, chapters=chapters, segments=segments)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    return answer.json()["error"]
