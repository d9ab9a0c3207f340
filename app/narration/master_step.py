"""The last step of a narration: takes become one file, with the timeline of everything in it."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from pathlib import Path

from app.errors import ObjectMissing, StoreUnavailable
from app.narration.mastering import Mastered, master
from app.narration.models import Narration, NarrationOptions, NarrationOutput, Script, Take, TextFinding
from app.narration.segment_store import SegmentStore
from app.narration.step import CHAPTERS_AT_ONCE, Ended, StepContext
from app.platform.jobs import Cancelled
from app.platform.object_store import retry_in_thread
from app.platform.retry import retry_store

LOUDNESS_TOLERANCE_LU = 0.5

log = logging.getLogger(__name__)


async def deliver(context: StepContext) -> Ended:
    """Raises ManuscriptUnfit, StoreUnavailable, JobLost."""
    narration, step = context.narration, context.step
    script, cover = await context.script(), await _cover(context)
    segment_store = SegmentStore(context.store, narration)
    try:
        mastered = await _mastered(context, script, await _takes(context, segment_store), cover)
    except ObjectMissing as error:
        log.warning("segments missing", extra={"narration": narration.id, "key": error.param})
        if error.param:
            await segment_store.forget(error.param)
        await retry_store(lambda: context.steps.render_again(step))
        return Ended(narration, messages=min(len(narration.chapters), CHAPTERS_AT_ONCE))
    output = await _stored(context, mastered)
    findings = (*mastered.findings, *_shortfall(narration.options, output))
    ended = await retry_store(lambda: context.steps.complete(step, output, findings=findings))
    log.info("narration over", extra={"narration": narration.id, "state": ended.state.value})
    await _tidy_up(context, ended)
    return Ended(ended, messages=0)


async def _takes(context: StepContext, segment_store: SegmentStore) -> dict[int, Take]:
    takes: dict[int, Take] = {}
    for key in await retry_store(lambda: context.steps.result_keys(context.narration.id)):
        takes |= await segment_store.listed(key)
    return takes


async def _cover(context: StepContext) -> Path | None:
    """The cover, if there is one: a book without it is better than no book."""
    key = context.narration.source.cover_key
    if key is None:
        return None
    path = context.directory / "cover"
    try:
        await context.fetch(key, path)
    except ObjectMissing:
        log.warning("cover missing", extra={"narration": context.narration.id})
        return None
    return path


async def _mastered(context: StepContext, script: Script, takes: dict[int, Take], cover: Path | None) -> Mastered:
    """The file in the step's directory. Cancelled, it waits until the thread has let go of it."""
    loop, stopped = asyncio.get_running_loop(), threading.Event()

    def fetch(take: Take) -> bytes:
        """The thread retries while the store is unavailable."""
        try:
            wait = asyncio.run_coroutine_threadsafe(retry_in_thread(lambda: context.store.get(take.key)), loop)
            return wait.result()
        except ObjectMissing as error:
            raise ObjectMissing(error.message, param=take.key) from error

    def progress(_: float) -> None:
        if stopped.is_set():
            raise Cancelled

    working = asyncio.create_task(
        asyncio.to_thread(
            master,
            script,
            takes,
            context.narration.options,
            context.narration.format,
            fetch=fetch,
            directory=context.directory,
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


async def _stored(context: StepContext, mastered: Mastered) -> NarrationOutput:
    """Upload the file and its timeline under this attempt's keys."""
    timeline, number = mastered.timeline, context.step.attempt
    output = NarrationOutput(
        format=context.narration.format,
        content_type=mastered.content_type,
        key=f"{context.prefix}audio-{number}{mastered.path.suffix}",
        timeline_key=f"{context.prefix}timeline-{number}.json",
        size_bytes=mastered.path.stat().st_size,
        duration_s=timeline.samples / timeline.sample_rate_hz,
        sample_rate_hz=timeline.sample_rate_hz,
        loudness_lufs=mastered.loudness_lufs,
        true_peak_dbtp=mastered.true_peak_dbtp,
    )
    await context.put(output.timeline_key, timeline.model_dump_json().encode())
    await retry_in_thread(lambda: context.store.upload(mastered.path, output.key))
    return output


async def _tidy_up(context: StepContext, narration: Narration) -> None:
    """Only the newest file stays, with what it was made from."""
    kept = {narration.script_key, narration.source.key, narration.source.cover_key}
    if narration.output:
        kept |= {narration.output.key, narration.output.timeline_key}
    kept.update(await retry_store(lambda: context.steps.result_keys(narration.id)))

    def delete() -> None:
        context.store.delete_all([key for key in context.store.keys(context.prefix) if key not in kept])

    with suppress(StoreUnavailable):
        await asyncio.to_thread(delete)


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
