"""Narrations: a text in, one mastered file out, however often a process dies on the way.

    plan       the manuscript -> a script of segments, each with what is spoken and the gap after it
    chapters   segments -> takes, one task each, in order, at one worker at a time; several chapters beside each other
    mastering  takes -> one file with chapter marks, and the timeline of everything in it

A message says that a narration has work; which, its rows say. The step is claimed with an attempt number and the claim
renewed while work goes on; whoever has lost it stops. What is rendered lies in the object store under what it depends
on, so that a step done again does only what is missing.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from celery import shared_task
from celery.app.task import Task

from app.core.cloning import JobError
from app.core.errors import (
    CarillonError,
    JobLost,
    NotFound,
    ObjectMissing,
    StageFailed,
    StoreUnavailable,
    UnknownModel,
)
from app.core.models import Voice
from app.core.narration import (
    ChapterProgress,
    Narration,
    NarrationOptions,
    NarrationOutput,
    Script,
    Take,
    TextFinding,
    Timeline,
)
from app.core.orpheus import ORPHEUS_TAGS
from app.infra.catalog import Catalog
from app.infra.manuscripts import Limits, read_manuscript_async
from app.infra.mastering import Mastered, master
from app.infra.narrationbook import MASTERING, PLAN, Step, narration_prefix
from app.infra.normaliser import write_script
from app.infra.settings import Settings, load_settings
from app.infra.speaker import open_speaker
from app.infra.storage import ObjectStore
from tasks.archive import persistently
from tasks.chapter import Chapter
from tasks.claim import Cancelled, patiently, under_claim
from tasks.takes import TakeShelf

TASK = "carillon.narrate"
CHAPTERS_AT_ONCE = 8
"""Messages of one narration at most: many chapters go beside each other, and other narrations get their turns."""

TOLD_EVERY_S = 1.0
LOUDNESS_TOLERANCE_LU = 0.5
STALE_S = 24 * 3600.0

log = logging.getLogger(__name__)


@shared_task(name=TASK, bind=True, ignore_result=True, max_retries=None)
def narrate(task: Task, narration_id: str) -> None:
    """Do the next step of a narration. A message too many does nothing: the rows say what there is to do."""
    ended = asyncio.run(work_on(load_settings(), narration_id))
    if ended is None:
        return
    for _ in range(ended.messages):
        task.app.send_task(TASK, args=[narration_id], queue="render")
    if ended.narration.state.over and ended.narration.webhook_url:
        task.app.send_task("carillon.webhook", args=[narration_id], queue="interactive")


@dataclass(frozen=True)
class Ended:
    """What a step has left: the narration, and how many more steps can be begun."""

    narration: Narration
    messages: int


async def work_on(settings: Settings, narration_id: str) -> Ended | None:
    """Claim a step and bring it to its end; None when there is none, or another attempt shall go on with it."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    store = ObjectStore(settings.store)
    try:
        step = await patiently(lambda: catalog.narrations.claim(narration_id))
        if step is None:
            log.info("no step taken", extra={"narration": narration_id})
            return None
        log.info("step taken", extra={"narration": narration_id, "step": step.number, "attempt": step.attempt})
        return await StepRun(settings, catalog, store, step).to_the_end()
    finally:
        store.close()
        await catalog.aclose()


class StepRun:
    """One attempt at one step."""

    def __init__(self, settings: Settings, catalog: Catalog, store: ObjectStore, step: Step) -> None:
        self._settings = settings
        self._catalog = catalog
        self._book = catalog.narrations
        self._store = store
        self._step = step
        self._narration = step.narration
        self._prefix = narration_prefix(step.narration.id)
        self._directory = settings.data_dir / "narrations" / f"{step.narration.id}-{step.number}-{step.attempt}"
        self._facts = {"narration": step.narration.id, "step": step.number, "attempt": step.attempt}

    async def to_the_end(self) -> Ended | None:
        try:
            return await self._ended()
        except JobLost:
            log.warning("step lost", extra=self._facts)
            await self._sweep_deleted()
            return None
        finally:
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def _ended(self) -> Ended | None:
        """The attempt's end, whatever it met. Raises JobLost."""
        try:
            return await under_claim(lambda: self._book.renew(self._step), self._work())
        except JobLost:
            raise
        except Cancelled:
            await patiently(lambda: self._book.give_back(self._step))
            return Ended(await patiently(lambda: self._book.get(self._narration.id)), messages=0)
        except asyncio.CancelledError:
            # This process is told to end: the next one shall not wait for the claim to lapse.
            await asyncio.shield(self._hand_over())
            raise
        except CarillonError as error:
            return await self._failed(error)
        except OSError as error:
            return await self._failed(StageFailed(f"this machine cannot go on with the narration: {error}"))
        except Exception as error:
            log.exception("step broke", extra=self._facts)
            return await self._failed(CarillonError(f"the narration broke: {type(error).__name__}; see the tasks' log"))

    async def _work(self) -> Ended:
        limit = self._settings.narration.max_attempts
        if self._step.attempt > limit:
            raise CarillonError(f"{limit} processes died over this step; see their logs, then resume the narration")
        await asyncio.to_thread(_sweep, self._directory)
        self._directory.mkdir(parents=True)
        if self._step.number == PLAN:
            return await self._plan()
        return await (self._master() if self._step.number == MASTERING else self._render())

    async def _failed(self, error: CarillonError) -> Ended | None:
        """Give the step up, or leave it to the next attempt if the failure may pass. Raises JobLost."""
        facts = {**self._facts, "code": error.code}
        passing = error.retryable or isinstance(error, UnknownModel)
        if passing and self._step.attempt < self._settings.narration.max_attempts:
            log.warning("step given back", extra=facts, exc_info=error)
            await self._hand_over()
            return None
        log.warning("step failed", extra=facts, exc_info=error)
        reason = JobError.of(error)
        if self._step.number in (PLAN, MASTERING):
            return Ended(await patiently(lambda: self._book.fail(self._step, reason)), messages=0)
        reached = self._progress(await patiently(lambda: self._book.get(self._narration.id)))
        progress = reached.model_copy(update={"error": reason})
        narration = await patiently(lambda: self._book.finish_chapter(self._step, progress, result_key=None))
        return Ended(narration, messages=0 if narration.state.over else 1)

    async def _hand_over(self) -> None:
        with suppress(JobLost):
            await patiently(lambda: self._book.give_back(self._step))

    def _progress(self, narration: Narration) -> ChapterProgress:
        return next(chapter for chapter in narration.chapters if chapter.number == self._step.number)

    async def _sweep_deleted(self) -> None:
        """What was written of a narration that was deleted meanwhile goes with it."""
        with suppress(StoreUnavailable):
            try:
                await self._book.get(self._narration.id)
            except NotFound:
                await asyncio.to_thread(self._store.delete_prefix, self._prefix)

    # The plan.

    async def _plan(self) -> Ended:
        narration, settings = self._narration, self._settings
        source = narration.source
        path = self._directory / "source"
        await self._fetch(source.key, path)
        book = await read_manuscript_async(
            path, source.kind, name=source.file_name, limits=Limits.of(settings.narration)
        )
        options = narration.options
        language = options.language or book.manuscript.language or narration.voices[narration.voice].language
        script = await write_script(book.manuscript, options, tags=ORPHEUS_TAGS, language=language, settings=settings)
        title = options.title or script.title or narration.title
        script = script.model_copy(update={"title": title, "author": options.author or script.author})
        key = f"{self._prefix}script-{self._step.attempt}.json"
        await self._put(key, script.model_dump_json().encode())
        chapters = tuple(
            ChapterProgress(number=chapter.number, title=chapter.title, segments=len(chapter.segments))
            for chapter in script.chapters
        )
        findings = tuple(dict.fromkeys((*narration.findings, *script.findings)))
        planned = await patiently(
            lambda: self._book.planned(self._step, chapters, script_key=key, title=title, findings=findings)
        )
        log.info("narration planned", extra={**self._facts, "chapters": len(chapters), "segments": script.segments})
        return Ended(planned, messages=min(len(chapters), CHAPTERS_AT_ONCE))

    # A chapter.

    async def _render(self) -> Ended:
        narration, step = self._narration, self._step
        script = await self._script()
        wanted = next(chapter for chapter in script.chapters if chapter.number == step.number)
        shelf = TakeShelf(self._store, narration)
        before = self._progress(narration)
        teller = _Teller(self._catalog, step)
        async with (
            open_speaker(self._settings) as speaker,
            speaker.narrator(temperature=narration.options.temperature) as narrator,
        ):
            chapter = Chapter(
                wanted,
                narration.options,
                before=before,
                shelf=shelf,
                narrator=narrator,
                living=self._living,
                tell=teller.tell,
            )
            takes = await chapter.render()
        key = f"{self._prefix}takes/{step.number}-{step.attempt}.json"
        await shelf.list(key, takes)
        ended = await patiently(lambda: self._book.finish_chapter(step, chapter.progress, result_key=key))
        return Ended(ended, messages=1)

    async def _living(self, voice: Voice) -> None:
        """Raises NotFound for a clone that was deleted; the model's own voices are always there."""
        if voice.adapter is not None:
            await patiently(lambda: self._catalog.voices.get(voice.id))

    async def _script(self) -> Script:
        assert self._narration.script_key
        key = self._narration.script_key
        return Script.model_validate_json(await persistently(lambda: self._store.get(key)))

    # The mastering.

    async def _master(self) -> Ended:
        narration, step = self._narration, self._step
        try:
            script, takes = await self._script(), await self._takes()
            mastered = await self._mastered(script, takes, await self._cover())
        except ObjectMissing:
            log.warning("segments missing", extra=self._facts)
            await patiently(lambda: self._book.render_again(step))
            return Ended(narration, messages=min(len(narration.chapters), CHAPTERS_AT_ONCE))
        output = await self._delivered(mastered)
        findings = _shortfall(narration.options, output)
        ended = await patiently(lambda: self._book.complete(step, output, findings=findings))
        log.info("narration over", extra={**self._facts, "state": ended.state.value, "audio_s": output.duration_s})
        await self._tidy_up(ended)
        return Ended(ended, messages=0)

    async def _takes(self) -> dict[int, Take]:
        shelf, takes = TakeShelf(self._store, self._narration), {}
        for key in await patiently(lambda: self._book.result_keys(self._narration.id)):
            takes |= await shelf.listed(key)
        return takes

    async def _cover(self) -> Path | None:
        key = self._narration.source.cover_key
        if key is None:
            return None
        path = self._directory / "cover"
        await self._fetch(key, path)
        return path

    async def _mastered(self, script: Script, takes: dict[int, Take], cover: Path | None) -> Mastered:
        """The file in the step's directory. Cancelled, it waits until the thread has let go of it."""
        stopped = threading.Event()

        def progress(_: float) -> None:
            if stopped.is_set():
                raise Cancelled

        working = asyncio.create_task(
            asyncio.to_thread(
                master,
                script,
                takes,
                self._narration.options,
                self._narration.format,
                fetch=lambda take: self._store.get(take.key),
                directory=self._directory,
                cover=cover,
                progress=progress,
            )
        )
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait([working])
            raise

    async def _delivered(self, mastered: Mastered) -> NarrationOutput:
        """Upload the file and its timeline under this attempt's keys."""
        timeline: Timeline = mastered.timeline
        number = self._step.attempt
        output = NarrationOutput(
            format=self._narration.format,
            content_type=mastered.content_type,
            key=f"{self._prefix}audio-{number}{mastered.path.suffix}",
            timeline_key=f"{self._prefix}timeline-{number}.json",
            size_bytes=mastered.path.stat().st_size,
            duration_s=timeline.samples / timeline.sample_rate_hz,
            sample_rate_hz=timeline.sample_rate_hz,
            loudness_lufs=mastered.loudness_lufs,
            true_peak_dbtp=mastered.true_peak_dbtp,
        )
        await self._put(output.timeline_key, timeline.model_dump_json().encode())
        await persistently(lambda: self._store.upload(mastered.path, output.key))
        return output

    async def _tidy_up(self, narration: Narration) -> None:
        """Only the newest file stays, with what it was made from."""
        assert narration.script_key
        kept = {narration.script_key, narration.source.key, narration.source.cover_key}
        if narration.output:
            kept |= {narration.output.key, narration.output.timeline_key}
        kept.update(await patiently(lambda: self._book.result_keys(narration.id)))

        def delete() -> None:
            for key in list(self._store.keys(self._prefix)):
                if key not in kept:
                    self._store.delete(key)

        with suppress(StoreUnavailable):
            await asyncio.to_thread(delete)

    async def _fetch(self, key: str, path: Path) -> None:
        folder, _, name = key.rpartition("/")
        await persistently(lambda: self._store.fetch(self._store.uri(folder), name, path))

    async def _put(self, key: str, data: bytes) -> None:
        await persistently(lambda: self._store.put(key, data))


class _Teller:
    """Writes a chapter's progress down, not more often than anybody looks."""

    def __init__(self, catalog: Catalog, step: Step) -> None:
        self._catalog = catalog
        self._step = step
        self._told_at = float("-inf")

    async def tell(self, progress: ChapterProgress) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            await patiently(lambda: self._catalog.narrations.tell(self._step, progress))


def _shortfall(options: NarrationOptions, output: NarrationOutput) -> tuple[TextFinding, ...]:
    """Speech whose peaks stand far above its mean cannot be as loud as asked for below the peak asked for."""
    missing_lu = options.loudness_lufs - output.loudness_lufs
    if missing_lu <= LOUDNESS_TOLERANCE_LU:
        return ()
    message = (
        f"the loudness is {output.loudness_lufs:.1f} LUFS, {missing_lu:.1f} LU below what was asked for: "
        f"there is no more below {options.max_true_peak_dbtp:g} dBTP; raise max_true_peak_dbtp, or lower loudness_lufs"
    )
    return (TextFinding(severity="check", code="loudness_missed", message=message),)


def _sweep(directory: Path) -> None:
    """Remove what killed attempts at this step, and any attempt long ago, left beside `directory`."""
    step, _, _ = directory.name.rpartition("-")
    for path in directory.parent.glob("nar-*"):
        with suppress(FileNotFoundError):
            stale = time.time() - path.stat().st_mtime > STALE_S
            if path.name.rpartition("-")[0] == step or stale:
                shutil.rmtree(path, ignore_errors=True)
