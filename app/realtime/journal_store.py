"""Journals of resumable sessions in Redis, where any front door finds them when the one that had the session is gone.

A front door writes what has changed a few times a second, all of it at once, and nothing waits for it: what was not yet
written when a process is killed, the client knows to be missing. What has begun or ended is written at once: a token
that no front door knows helps no client. One connection owns a session; another that resumes it
becomes its owner, and what the former one writes is refused. `journals.lua` documents the keys. While Redis is away
sessions play on, and are written once it is back. This module does not know sockets or how a session goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import DeadlineExceeded, UnknownSession
from app.fleet.registry import CALL_TIMEOUT_S, ROOT
from app.platform.settings import Settings
from app.realtime.journal import Journal
from app.realtime.session import Used
from app.speech.protocol import Start
from app.speech.voices import Voice

TOKEN_BYTES = 24
RENEW_INTERVAL_S = 1.0
"""A silent session detects so soon that it was resumed elsewhere."""

MAX_BATCH = 32
MAX_BATCH_BYTES = 250_000
"""Of one call: about a millisecond of this process's time, and less of the Redis's, in which nothing else is done."""

log = logging.getLogger(__name__)


class Beginning(BaseModel):
    """How a session was started; its voice is of the adapter's version that it began with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: Start
    voice: Voice
    over: bool = False
    """Its `done` was sent, and its ledger is entered."""
    usage_id: str = Field(default_factory=lambda: Used().id)
    """Under which what it uses is recorded, on whichever connection."""


@dataclass(eq=False)
class Keep:
    """A session whose journal is kept by this front door: `JournalStore.keep` makes one."""

    token: str
    key_id: str
    beginning: Beginning
    journal: Journal
    sent: Callable[[], int]
    """The sample up to which audio was sent."""
    lost: Callable[[], None]
    """Called when another connection has resumed the session."""
    owner: str
    ended: bool = False
    left_at: float | None = None
    """Its connection broke, and a last writing is due; or it has ended, and its deletion is."""
    written: tuple[int, int] | None = None
    renewed_at: float = 0.0
    name: str = field(init=False)
    start_json: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = _name(self.token)
        self.start_json = self.beginning.model_dump_json()

    @property
    def state(self) -> tuple[int, int]:
        return self.journal.version, self.sent()


@dataclass(frozen=True, slots=True)
class Taken:
    """A session that was resumed: `owner` has it from now on."""

    owner: str
    beginning: Beginning
    journal: Journal
    sent: int


class JournalStore:
    """The journals that a front door keeps; `open_journals` makes one."""

    def __init__(self, redis: Redis, settings: Settings, clock: Callable[[], float]) -> None:
        self._script = redis.register_script(files("app.realtime").joinpath("journals.lua").read_text("utf-8"))
        limits = settings.session
        self._ttl_s = limits.resume_ttl_s
        self._window_s = limits.resume_window_s
        self._interval_s = limits.journal_interval_s
        self._renew_s = min(RENEW_INTERVAL_S, limits.resume_ttl_s / 4)
        self._clock = clock
        self._kept: dict[str, Keep] = {}
        self._work = asyncio.Event()
        self._urgent: list[Keep] = []
        """What has begun, and what has ended or lost its connection, until the next try to write it."""
        self._hurry = asyncio.Event()
        self._writing = asyncio.Lock()
        """Held from reading a journal to its answer: an older record must not come after a newer one."""
        self._away = False

    def __len__(self) -> int:
        """The sessions of which something may be to be written."""
        return len(self._kept)

    @staticmethod
    def new_token() -> str:
        """What a client shows to take a session up; only its hash is ever stored."""
        return secrets.token_urlsafe(TOKEN_BYTES)

    def keep(
        self,
        token: str,
        key_id: str,
        beginning: Beginning,
        journal: Journal,
        *,
        sent: Callable[[], int],
        lost: Callable[[], None],
        owner: str | None = None,
    ) -> Keep:
        """Write `journal` from now on whenever it has changed, as `owner` where it was resumed."""
        keep = Keep(token, key_id, beginning, journal, sent, lost, owner or f"0:{uuid.uuid4().hex}")
        self._kept[keep.name] = keep
        self._work.set()
        if owner is None:
            self._write_soon(keep)
        return keep

    def let_go(self, keep: Keep, *, over: bool = False) -> None:
        """The connection broke, or the session is `over`: write a last time, for the connection that resumes it."""
        keep.start_json = keep.beginning.model_copy(update={"over": over}).model_dump_json()
        self._leave(keep)

    def end(self, keep: Keep) -> None:
        """The session is over: delete its journal."""
        keep.ended = True
        self._leave(keep)

    def _leave(self, keep: Keep) -> None:
        if self._kept.get(keep.name) is keep and keep.left_at is None:
            keep.left_at = self._clock()
            keep.lost = _nothing
            self._write_soon(keep)

    def _write_soon(self, keep: Keep) -> None:
        self._urgent.append(keep)
        self._hurry.set()

    async def take(self, token: str, key_id: str) -> Taken:
        """Become the owner of a session. The former owner is notified, here or with its next write.

        Raises UnknownSession, or DeadlineExceeded when Redis is away.
        """
        name = _name(token)
        if (here := self._kept.get(name)) is not None:  # Redis may have lost it, or not have had it yet
            await self._write([self._entry(here)])
        answer = await self._call("take", [name], [uuid.uuid4().hex, key_id])
        if answer is None:
            raise UnknownSession(
                "there is no session of this key to resume with that token: it has ended, or its connection broke more "
                f"than {self._ttl_s:g} s ago; start a new one",
                param="token",
            )
        owner, former, start, sent, record = answer
        if (here := self._kept.get(name)) is not None:
            if here.owner == former.decode():  # what it knows is newer than what it has written
                sent, record = here.sent(), here.journal.record()
            self._lose(here)
        try:
            journal = Journal.restored(record, keep_s=self._window_s)
            return Taken(owner.decode(), Beginning.model_validate_json(start, extra="ignore"), journal, int(sent))
        except (ValueError, ValidationError):
            raise UnknownSession(
                "the session was begun by another version of this server; start a new one", param="token"
            ) from None

    async def run(self) -> None:
        """Write what has changed, at every interval, and what has begun or ended at once, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_at_intervals())
            group.create_task(self._write_at_once())

    async def _write_at_intervals(self) -> None:
        while True:
            await self._work.wait()
            await self._logged(self.write())
            if not self._kept:
                self._work.clear()
            await asyncio.sleep(self._interval_s)

    async def _write_at_once(self) -> None:
        while True:
            await self._hurry.wait()
            self._hurry.clear()
            await self._logged(self._write_urgent())

    async def _logged(self, writing: Coroutine[Any, Any, None]) -> None:
        try:
            await writing
        except Exception:
            log.exception("journals not written", extra={"sessions": len(self._kept)})

    async def write(self) -> None:
        """Write every journal that has changed, and renew the others."""
        try:
            async with self._writing:
                changed = (it for it in tuple(self._kept.values()) if it.state != it.written or it.left_at is not None)
                for batch in self._batches(changed):
                    await self._write(batch)
                await self._renew()
            self._log_change(away=None)
        except DeadlineExceeded as error:
            self._log_change(away=error)
        self._forget()

    async def _write_urgent(self) -> None:
        """What fails comes again with the next interval."""
        with suppress(DeadlineExceeded):
            async with self._writing:
                urgent, self._urgent = self._urgent, []
                for batch in self._batches(urgent):
                    await self._write(batch)

    def _forget(self) -> None:
        """What could not be written for as long as anyone may ask for it."""
        now = self._clock()
        for keep in [it for it in self._kept.values() if it.left_at is not None and now - it.left_at > self._ttl_s]:
            del self._kept[keep.name]

    def _batches(self, keeps: Iterable[Keep]) -> Iterator[list[tuple[Keep, tuple[int, int], bytes]]]:
        batch: list[tuple[Keep, tuple[int, int], bytes]] = []
        size = 0
        for keep in keeps:
            batch.append(self._entry(keep))
            size += len(batch[-1][2])
            if len(batch) == MAX_BATCH or size > MAX_BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    @staticmethod
    def _entry(keep: Keep) -> tuple[Keep, tuple[int, int], bytes]:
        return keep, keep.state, b"" if keep.ended else keep.journal.record()

    async def _write(self, batch: Iterable[tuple[Keep, tuple[int, int], bytes]]) -> None:
        batch = [entry for entry in batch if self._kept.get(entry[0].name) is entry[0]]
        leaving = {keep for keep, _, _ in batch if keep.left_at is not None}
        arguments: list[str | int | bytes] = []
        for keep, (_, sent), record in batch:
            arguments += (keep.owner, keep.key_id, keep.start_json, sent, record)
        answers = await self._call("write", [keep.name for keep, _, _ in batch], arguments)
        now = self._clock()
        for (keep, state, _), answer in zip(batch, answers, strict=True):
            keep.written, keep.renewed_at = state, now
            if not answer:
                self._lose(keep)
            elif keep in leaving and self._kept.get(keep.name) is keep:
                del self._kept[keep.name]

    async def _renew(self) -> None:
        now = self._clock()
        due = [it for it in self._kept.values() if it.left_at is None and now - it.renewed_at >= self._renew_s]
        for at in range(0, len(due), MAX_BATCH):
            batch = due[at : at + MAX_BATCH]
            answers = await self._call("renew", [keep.name for keep in batch], [keep.owner for keep in batch])
            for keep, answer in zip(batch, answers, strict=True):
                keep.renewed_at = now
                if answer == 0:
                    self._lose(keep)
                elif answer < 0:
                    keep.written = None

    def _lose(self, keep: Keep) -> None:
        if self._kept.get(keep.name) is keep:
            del self._kept[keep.name]
            keep.lost()

    async def _call(self, operation: str, keys: list[str], arguments: list[Any]) -> Any:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._script(keys=keys, args=[operation, round(self._ttl_s * 1000), *arguments])
        except (RedisError, TimeoutError) as error:
            raise DeadlineExceeded(
                f"the journals cannot be reached ({type(error).__name__}); is the Redis of CARILLON_REDIS_URL running?",
                retry_after_s=1,
            ) from error

    def _log_change(self, *, away: DeadlineExceeded | None) -> None:
        """Once, when Redis goes, and when it is back."""
        if away is not None and not self._away:
            log.warning("journals not written", extra={"sessions": len(self._kept), "error": away.message})
        if away is None and self._away:
            log.info("journals written again", extra={"sessions": len(self._kept)})
        self._away = away is not None


@asynccontextmanager
async def open_journals(redis: Redis, settings: Settings) -> AsyncIterator[JournalStore]:
    """Keep journals for as long as the context is open; those of broken connections are written before it closes."""
    journals = JournalStore(redis, settings, asyncio.get_running_loop().time)
    writing = asyncio.create_task(journals.run(), name="journals")
    try:
        yield journals
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await journals.write()


def _name(token: str) -> str:
    return f"{ROOT}journal:{hashlib.sha256(token.encode()).hexdigest()}"


def _nothing() -> None:
    """No connection is left to be notified."""
