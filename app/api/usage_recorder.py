"""What the sessions of this front door use, on its way into SQL.

A session's record is written as it begins and whenever it has grown, at most every `INTERVAL_S` and all of them at
once; each is the whole, so that a front door that is killed leaves what it had written, counted once. While the
catalogue is away, records wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice

from app.errors import StoreUnavailable
from app.platform.usage import UsageRecord, UsageStore

INTERVAL_S = 0.25
MAX_BATCH = 200
MAX_WAITING = 50_000
"""Records of a day or so, where the catalogue is away for so long."""

log = logging.getLogger(__name__)


class UsageRecorder:
    """`open_usage_recorder` makes one."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store
        self._changed: dict[str, UsageRecord] = {}
        self._work = asyncio.Event()

    def record(self, record: UsageRecord) -> None:
        """Write a record, in place of an earlier one of its id."""
        if record.id not in self._changed and len(self._changed) >= MAX_WAITING:
            log.error("usage lost", extra={"project": record.project_id})
            return
        self._changed[record.id] = record
        self._work.set()

    async def run(self) -> None:
        """Write what has changed, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            await self.write()
            await asyncio.sleep(INTERVAL_S)

    async def write(self) -> None:
        """Write what has changed; what the catalogue does not take is kept for the next time."""
        while batch := dict(islice(self._changed.items(), MAX_BATCH)):
            try:
                await self._store.write(batch.values())
            except StoreUnavailable:
                self._work.set()
                return
            for name, record in batch.items():
                if self._changed.get(name) is record:
                    del self._changed[name]


@asynccontextmanager
async def open_usage_recorder(store: UsageStore) -> AsyncIterator[UsageRecorder]:
    """Record for as long as the context is open; what is left is written before it closes."""
    recorder = UsageRecorder(store)
    writing = asyncio.create_task(recorder.run(), name="usage")
    try:
        yield recorder
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await recorder.write()


class UsageMeter:
    """One session's record, as it grows."""

    def __init__(self, recorder: UsageRecorder, record: UsageRecord, now: Callable[[], float]) -> None:
        self._recorder = recorder
        self._record = record
        self._characters, self._audio_s = record.characters, record.audio_s
        self._now = now
        self._told_at = float("-inf")

    def add(self, *, characters: int = 0, audio_s: float = 0.0) -> None:
        """Audio in small pieces is told once a second; `close` tells the rest."""
        self._characters += characters
        self._audio_s += audio_s
        if characters or self._now() - self._told_at >= 1.0:
            self._tell()

    def close(self) -> None:
        """The last word. Sessions without text are not recorded."""
        if self._characters or self._audio_s:
            self._tell()

    def _tell(self) -> None:
        self._told_at = self._now()
        self._recorder.record(replace(self._record, characters=self._characters, audio_s=self._audio_s))
