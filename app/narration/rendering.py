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
from app.narration.chapter import Chapter
from app.narration.models import ChapterProgress, Take
from app.narration.segment_store import TakeShelf
from app.narration.step import Desk, Ended
from app.realtime.background import open_speaker
from tasks.archive import persistently
from tasks.claim import patiently

TOLD_EVERY_S = 1.0

log = logging.getLogger(__name__)


async def render(desk: Desk) -> Ended:
    """Raises the CarillonError that stopped the chapter, with its place; JobLost."""
    shelf, number = TakeShelf(desk.store, desk.narration), desk.step.number
    list_key = f"{desk.prefix}takes/{number}.json"
    clock = asyncio.get_running_loop().time
    over_at = clock() + desk.settings.narration.turn_s
    finished = False
    async with _chapter(desk, shelf) as chapter:
        try:
            known = await _listed(shelf, list_key)
            finished = await chapter.render(known=known, interrupted=lambda: clock() > over_at)
        except Overloaded as error:
            log.info("no room for a turn", extra={"narration": desk.narration.id, "code": error.code})
        finally:
            if not finished:
                with suppress(StoreUnavailable):
                    await shelf.list(list_key, chapter.takes)
    if not finished:
        await patiently(lambda: desk.catalog.steps.tell(desk.step, chapter.progress))
        await patiently(lambda: desk.catalog.steps.give_back(desk.step))
        return Ended(desk.narration, messages=1)
    result_key = f"{desk.prefix}takes/{number}-{desk.step.attempt}.json"
    await shelf.list(result_key, chapter.takes)
    await persistently(lambda: desk.store.delete(list_key))
    ended = await patiently(
        lambda: desk.catalog.steps.finish_chapter(desk.step, chapter.progress, result_key=result_key)
    )
    return Ended(ended, messages=1)


@asynccontextmanager
async def _chapter(desk: Desk, shelf: TakeShelf) -> AsyncIterator[Chapter]:
    """The step's chapter, with a narrator of the fleet for as long as a turn may wait."""
    script, options = await desk.script(), desk.narration.options
    wanted = next(chapter for chapter in script.chapters if chapter.number == desk.step.number)
    del script  # it may be a long book
    async with (
        open_speaker(desk.settings) as speaker,
        speaker.narrator(temperature=options.temperature, patience_s=desk.settings.narration.turn_s) as narrator,
    ):
        before = desk.progress_in(desk.narration)
        tell = _Teller(desk).tell
        yield Chapter(wanted, options, before=before, shelf=shelf, narrator=narrator, living=desk.living, tell=tell)


async def _listed(shelf: TakeShelf, key: str) -> dict[int, Take]:
    try:
        return await shelf.listed(key)
    except ObjectMissing:
        return {}


class _Teller:
    """Writes progress down, not more often than anybody looks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._told_at = float("-inf")

    async def tell(self, progress: ChapterProgress) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            await patiently(lambda: self._desk.catalog.steps.tell(self._desk.step, progress))
