"""Narrations: a text in, one mastered file out, however often a process dies on the way.

    plan       the manuscript -> a script of segments, each with what is spoken and the gap after it
    chapters   segments -> takes, one task each, in order; several chapters beside each other
    mastering  takes -> one file with chapter marks, and the timeline of everything in it

A message says that a narration has work; which, its rows say. The step is claimed with an attempt number and the claim
renewed while work goes on; a process that has lost it stops. What is rendered lies in the object store under what it
depends on, so that a step done again does only what is missing. What the steps do is in `planning`, `rendering`,
`mastering`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path

from app.catalog import Catalog
from app.errors import CarillonError, JobLost, StoreUnavailable
from app.narration.master_step import deliver
from app.narration.models import Narration, StepKind
from app.narration.planning import plan
from app.narration.rendering import render
from app.narration.step import Ended, StepContext
from app.platform.claimed_run import ClaimedRun
from app.platform.jobs import JobError, under_claim
from app.platform.object_store import ObjectStore
from app.platform.retry import retry_store
from app.platform.settings import Settings

WORK = {StepKind.PLAN: plan, StepKind.CHAPTER: render, StepKind.MASTER: deliver}

STALE_S = 24 * 3600.0

log = logging.getLogger(__name__)


async def work_on(settings: Settings) -> Ended | None:
    """Claim the next step and run it to its end.

    None when there is none, or another attempt continues it.
    """
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    store = ObjectStore(settings.store)
    try:
        step = await retry_store(catalog.steps.claim_next)
        if step is None:
            log.info("no step taken")
            return None
        narration_id = step.narration.id
        log.info("step taken", extra={"narration": narration_id, "step": step.number, "attempt": step.attempt})
        directory = settings.data_dir / "narrations" / f"{narration_id}-{step.number}-{step.attempt}"
        return await StepRun(
            StepContext(settings, catalog.steps, catalog.narrations, catalog.voices.get, store, step, directory)
        ).to_the_end()
    finally:
        store.close()
        await catalog.aclose()


class StepRun(ClaimedRun[Ended]):
    """One attempt at one step."""

    noun = "narration"
    confidential = True

    def __init__(self, context: StepContext) -> None:
        step, limit = context.step, context.settings.narration.max_setbacks
        facts = {"narration": context.narration.id, "step": step.number, "attempt": step.attempt}
        super().__init__(context.directory, facts, is_last=step.failures >= limit)
        self._context = context
        self._step = step
        self._steps = context.steps
        self._max_setbacks = limit

    async def renew(self) -> bool:
        return await self._steps.renew(self._step)

    async def attempt(self) -> Ended:
        return await under_claim(self.renew, self._work())

    async def cancel(self) -> Ended:
        await self.give_back()
        return Ended(await self._narration(), messages=0)

    async def give_back(self, *, failure: bool = False) -> None:
        with suppress(JobLost, StoreUnavailable):  # the claim lapses by itself
            await retry_store(lambda: self._steps.give_back(self._step, failure=failure))

    async def fail(self, error: JobError) -> Ended:
        """Only the step ends where it is a chapter: the others are rendered still."""
        if self._step.kind is not StepKind.CHAPTER:
            return Ended(await retry_store(lambda: self._steps.fail(self._step, error)), messages=0)
        progress = self._context.progress_in(await self._narration()).model_copy(update={"error": error})
        narration = await retry_store(lambda: self._steps.finish_chapter(self._step, progress, result_key=None))
        return Ended(narration, messages=0 if narration.state.over else 1)

    async def _work(self) -> Ended:
        if self._step.failures > self._max_setbacks:
            raise CarillonError(
                f"{self._max_setbacks} processes died over this step; see their logs, then resume the narration"
            )
        await asyncio.to_thread(_sweep, self.directory)
        self.directory.mkdir(parents=True)
        return await WORK[self._step.kind](self._context)

    async def _narration(self) -> Narration:
        return await retry_store(lambda: self._context.narrations.get(self._context.narration.id))


def _sweep(directory: Path) -> None:
    """Remove what killed attempts at this step, and any attempt long ago, left beside `directory`."""
    step, _, _ = directory.name.rpartition("-")
    for path in directory.parent.glob("nar-*"):
        with suppress(FileNotFoundError):
            stale = time.time() - path.stat().st_mtime > STALE_S
            if path.name.rpartition("-")[0] == step or stale:
                shutil.rmtree(path, ignore_errors=True)
