"""A chapter's turn: it is rendered for some minutes, and then the next in the queue has its turn.

A chapter can be a whole book, and can wait for a spare place for hours: without turns, two of them would keep every
other narration from being planned. What is rendered is listed when a turn ends, so that the next one begins there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from app.errors import ObjectMissing, Overloaded, StoreUnavailable
from app.hearing.aligner import open_aligner
from app.narration.chapter import Chapter
from app.narration.models import ChapterProgress, Take
from app.narration.segment_store import SegmentStore
from app.narration.step import Ended, StepContext
from app.platform.object_store import retry_in_thread
from app.platform.retry import retry_store
from app.realtime.background import open_background_speech

TOLD_EVERY_S = 1.0

log = logging.getLogger(__name__)


async def render(context: StepContext) -> Ended:
    """Raises the CarillonError that stopped the chapter, with its place; JobLost."""
    segment_store, number = SegmentStore(context.store, context.narration), context.step.number
    list_key = f"{context.prefix}takes/{number}.json"
    clock = asyncio.get_running_loop().time
    over_at = clock() + context.settings.narration.turn_s
    finished = False
    async with _chapter(context, segment_store) as chapter:
        try:
            known = await _listed(segment_store, list_key)
            finished = await chapter.render(known=known, interrupted=lambda: clock() > over_at)
        except Overloaded as error:
            log.info("no room for a turn", extra={"narration": context.narration.id, "code": error.code})
        finally:
            if not finished:
                with suppress(StoreUnavailable):
                    await segment_store.list(list_key, chapter.takes)
    if not finished:
        await retry_store(lambda: context.steps.report(context.step, chapter.progress))
        await retry_store(lambda: context.steps.give_back(context.step))
        return Ended(context.narration, messages=1)
    result_key = f"{context.prefix}takes/{number}-{context.step.attempt}.json"
    await segment_store.list(result_key, chapter.takes)
    await retry_in_thread(lambda: context.store.delete(list_key))
    ended = await retry_store(
        lambda: context.steps.finish_chapter(context.step, chapter.progress, result_key=result_key)
    )
    return Ended(ended, messages=1)


@asynccontextmanager
async def _chapter(context: StepContext, segment_store: SegmentStore) -> AsyncIterator[Chapter]:
    """The step's chapter, with a narrator of the fleet for as long as a turn may wait."""
    script, options = await context.script(), context.narration.options
    wanted = next(chapter for chapter in script.chapters if chapter.number == context.step.number)
    language = script.language
    del script  # it may be a long book
    async with (
        open_background_speech(context.settings) as speech,
        speech.narrator(temperature=options.temperature, patience_s=context.settings.narration.turn_s) as narrator,
        open_aligner() as aligner,
    ):
        before = context.progress_in(context.narration)
        report = _Reporter(context).report
        yield Chapter(
            wanted,
            options,
            before=before,
            segment_store=segment_store,
            narrator=narrator,
            aligner=aligner,
            language=language,
            living=context.living,
            report=report,
        )


async def _listed(segment_store: SegmentStore, key: str) -> dict[int, Take]:
    try:
        return await segment_store.listed(key)
    except ObjectMissing:
        return {}


class _Reporter:
    """Writes progress down, at most once in TOLD_EVERY_S."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._told_at = float("-inf")

    async def report(self, progress: ChapterProgress) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            await retry_store(lambda: self._context.steps.report(self._context.step, progress))
