"""Narrations: a text in, one mastered file out, however often a process dies on the way.

    plan       the manuscript -> a script of segments, each with what is spoken and the gap after it
    chapters   segments -> takes, one task each, in order; several chapters beside each other
    mastering  takes -> one file with chapter marks, and the timeline of everything in it

A message says that a narration has work; which, its rows say. The step is claimed with an attempt number and the claim
renewed while work goes on; whoever has lost it stops. What is rendered lies in the object store under what it depends
on, so that a step done again does only what is missing. What the steps do is in `planning`, `rendering`, `mastering`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
import traceback
from contextlib import suppress
from pathlib import Path

from app.catalog import Catalog
from app.errors import CarillonError, JobLost, NotFound, StageFailed, StoreUnavailable
from app.narration.master_step import deliver
from app.narration.planning import plan
from app.narration.rendering import render
from app.narration.rows import MASTERING, PLAN
from app.narration.step import Ended, StepContext
from app.platform.jobs import Cancelled, JobError, may_pass, patiently, under_claim, unforeseen
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings

STALE_S = 24 * 3600.0

log = logging.getLogger(__name__)


async def work_on(settings: Settings, narration_id: str) -> Ended | None:
    """Claim a step and bring it to its end; None when there is none, or another attempt shall go on with it."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    store = ObjectStore(settings.store)
    try:
        step = await patiently(lambda: catalog.steps.claim(narration_id))
        if step is None:
            log.info("no step taken", extra={"narration": narration_id})
            return None
        log.info("step taken", extra={"narration": narration_id, "step": step.number, "attempt": step.attempt})
        directory = settings.data_dir / "narrations" / f"{narration_id}-{step.number}-{step.attempt}"
        return await StepRun(
            StepContext(settings, catalog.steps, catalog.narrations, catalog.voices.get, store, step, directory)
        ).to_the_end()
    finally:
        store.close()
        await catalog.aclose()


class StepRun:
    """One attempt at one step."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._step = context.step
        self._steps = context.steps
        self._facts = {"narration": context.narration.id, "step": context.step.number, "attempt": context.step.attempt}

    async def to_the_end(self) -> Ended | None:
        try:
            return await self._ended()
        except (JobLost, NotFound):
            log.warning("step lost", extra=self._facts)
            return None
        finally:
            await asyncio.to_thread(shutil.rmtree, self._context.directory, ignore_errors=True)

    async def _ended(self) -> Ended | None:
        """The attempt's end, whatever it met. Raises JobLost, NotFound for a narration that was deleted."""
        try:
            return await under_claim(lambda: self._steps.renew(self._step), self._work())
        except JobLost:
            raise
        except Cancelled:
            await self._give_back()
            narration_id = self._context.narration.id
            return Ended(await patiently(lambda: self._context.narrations.get(narration_id)), messages=0)
        except asyncio.CancelledError:
            # This process is told to end: the next one shall not wait for the claim to lapse.
            await asyncio.shield(self._give_back())
            raise
        except CarillonError as error:
            return await self._failed(error)
        except OSError as error:
            return await self._failed(StageFailed(f"this machine cannot go on with the narration: {error}"))
        except Exception as error:
            # Its message may hold what a user wrote; the frames do not.
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("step broke", extra={**self._facts, "error": type(error).__name__, "frames": frames})
            return await self._failed(unforeseen(error, "narration"))

    async def _work(self) -> Ended:
        limit = self._context.settings.narration.max_setbacks
        if self._step.setbacks > limit:
            raise CarillonError(f"{limit} processes died over this step; see their logs, then resume the narration")
        await asyncio.to_thread(_sweep, self._context.directory)
        self._context.directory.mkdir(parents=True)
        work = {PLAN: plan, MASTERING: deliver}.get(self._step.number, render)
        return await work(self._context)

    async def _failed(self, error: CarillonError) -> Ended | None:
        """Give the step up, or leave it to the next attempt if the failure may pass. Raises JobLost."""
        facts = {**self._facts, "code": error.code}
        if may_pass(error) and self._step.setbacks < self._context.settings.narration.max_setbacks:
            log.warning("step given back", extra=facts)
            await self._give_back(failure=True)
            return None
        log.warning("step failed", extra=facts)
        reason = JobError.of(error)
        if self._step.number in (PLAN, MASTERING):
            return Ended(await patiently(lambda: self._steps.fail(self._step, reason)), messages=0)
        narration = await patiently(lambda: self._context.narrations.get(self._context.narration.id))
        progress = self._context.progress_in(narration).model_copy(update={"error": reason})
        narration = await patiently(lambda: self._steps.finish_chapter(self._step, progress, result_key=None))
        return Ended(narration, messages=0 if narration.state.over else 1)

    async def _give_back(self, *, failure: bool = False) -> None:
        with suppress(JobLost, StoreUnavailable):  # the claim lapses by itself
            await patiently(lambda: self._steps.give_back(self._step, failure=failure))


def _sweep(directory: Path) -> None:
    """Remove what killed attempts at this step, and any attempt long ago, left beside `directory`."""
    step, _, _ = directory.name.rpartition("-")
    for path in directory.parent.glob("nar-*"):
        with suppress(FileNotFoundError):
            stale = time.time() - path.stat().st_mtime > STALE_S
            if path.name.rpartition("-")[0] == step or stale:
                shutil.rmtree(path, ignore_errors=True)
