"""Workers, leases, pins and retired voices in Redis: what may be lost, and comes back with the next heartbeats.

`registry.lua` holds every operation and documents every key. A lease says that a session has a place at a worker: the
front door claims it before it dials, the worker renews it with each heartbeat, whoever ends the session releases it,
and a lease nobody renews expires. This module does not decide who gets a session: that is `app.core.placement`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.errors import ConfigurationError, DeadlineExceeded
from app.core.models import ModelCard, Voice, Worker
from app.infra.settings import Settings, without_secrets

ROOT = "carillon:{fleet}:"
CALL_TIMEOUT_S = 5.0
OBSERVED = {"inflight", "active_adapters", "background", "background_adapters"}
"""What leases say of a worker, and its record does not."""

log = logging.getLogger(__name__)


def open_redis(settings: Settings) -> Redis:
    """A client of the configured Redis, which connects on first use. Raises ConfigurationError for no or a bad address.

    It has no socket timeout: redis-py would send through `asyncio.wait_for`, which in Python 3.11 can lose a
    cancellation (gh-86296), and with it the end of a session or of a heartbeat. Who calls sets the deadline.
    """
    if settings.redis_url is None:
        raise ConfigurationError("CARILLON_REDIS_URL is not set; `carillon up` starts an embedded Valkey and sets it")
    url = settings.redis_url.get_secret_value()
    try:
        return Redis.from_url(url, socket_timeout=None, socket_connect_timeout=5)
    except ValueError:
        raise ConfigurationError(
            f"CARILLON_REDIS_URL={without_secrets(url)} is no address of a Redis; it looks like redis://host:6379/0"
        ) from None


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a heartbeat brings back: the voices deleted since the last look, and what to say at the next."""

    retired: tuple[str, ...]
    retired_until: int


class Registry:
    """The fleet as Redis holds it. Every method is one round trip; each raises DeadlineExceeded if Redis is away."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._script = redis.register_script(files("app.infra").joinpath("registry.lua").read_text("utf-8"))
        self._unreadable: list[str] = []
        """What was wrong at the last look, so that it is told once and not twice a second."""
        self._record_ttl_ms = round(settings.worker_ttl_s * 1000)
        self._lease_ttl_ms = round(settings.lease_ttl_s * 1000)

    async def _call(self, operation: str, *arguments: str | int) -> Any:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._script(keys=[ROOT], args=[operation, *arguments])
        except (RedisError, TimeoutError) as error:
            raise DeadlineExceeded(
                f"the registry does not answer ({type(error).__name__}); is the Redis of CARILLON_REDIS_URL running?",
                retry_after_s=1,
            ) from error

    # A worker's side.

    async def join(self, worker_id: str) -> int:
        """A new start of `worker_id`: its epoch, greater than any before. What an older epoch held is forgotten."""
        return int(await self._call("join", worker_id))

    async def beat(self, worker: Worker, sessions: Iterable[str], *, retired_since: int = 0) -> Pulse | None:
        """Say that `worker` lives, and renew the leases of the `sessions` it is speaking with.

        `retired_since` is `retired_until` of the pulse before. None when a later start has taken the id: this process
        is a ghost and should end.
        """
        record = worker.model_dump_json(exclude=OBSERVED)
        ttls_ms = (self._record_ttl_ms, self._lease_ttl_ms)
        answer = await self._call("beat", worker.id, worker.epoch, record, *ttls_ms, retired_since, *sessions)
        if answer is None:
            return None
        voices, times_ms = answer[::2], answer[1::2]
        return Pulse(tuple(voice.decode() for voice in voices), int(times_ms[-1]) if times_ms else retired_since)

    async def leave(self, worker_id: str, epoch: int) -> bool:
        """Remove a worker that ends. False (and no change) when a later start has taken the id."""
        return bool(await self._call("leave", worker_id, epoch))

    async def release(self, worker_id: str, session: str) -> bool:
        """End a lease; it does not matter who does it, or how often. True the first time."""
        return bool(await self._call("release", worker_id, session))

    # A front door's side.

    async def retire_voice(self, voice_id: str) -> None:
        """Tell every worker, with its next heartbeat, to drop what it has of a voice that is deleted.

        Told again is heard again: whoever fears that Redis has lost it may repeat it. A voice id never comes back.
        """
        await self._call("retire", voice_id)

    async def snapshot(self) -> tuple[Worker, ...]:
        """Every living worker, with the leases it holds and the adapters these need (`AdapterVersion.name`).

        A record that cannot be read, because its worker is of another version, is left out.
        """
        workers, unreadable = [], []
        for record, inflight, adapters, background, background_adapters in await self._call("snapshot"):
            try:
                worker = Worker.model_validate_json(record)
            except ValidationError as error:
                unreadable.append(_first_problem(error))
                continue
            observed = {
                "inflight": inflight,
                "active_adapters": _names(adapters),
                "background": background,
                "background_adapters": _names(background_adapters),
            }
            workers.append(worker.model_copy(update=observed))
        if unreadable != self._unreadable:
            self._unreadable = unreadable
            for problem in unreadable:
                log.warning("worker of another version left out", extra={"problem": problem})
        return tuple(workers)

    async def claim(self, worker: Worker, session: str, voice: Voice, *, background: bool = False) -> bool:
        """Take a place at `worker` for `session`, if it is active in this epoch and has the room by Redis's own clock.

        The lease holds for `lease_ttl_s`; the worker's heartbeats renew it. A place taken in the `background` is one
        that nobody wants, and is no hindrance to an interactive claim: the worker then ends the session.
        """
        adapter, kind = voice.adapter.name if voice.adapter else "", "background" if background else "interactive"
        answer = await self._call("claim", worker.id, worker.epoch, session, adapter, self._lease_ttl_ms, kind)
        if answer != b"claimed":
            log.info("claim refused", extra={"worker": worker.id, "session": session, "reason": answer.decode()})
        return answer == b"claimed"


class Fleet:
    """A front door's picture of the fleet: refreshed in the background, and told at once of what happens here.

    Between two refreshes a claim made here counts as a session, so that many starts at one moment do not all rush to
    the same last place. A session start reads the picture and makes one claim, in which Redis arbitrates.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._workers: dict[str, Worker] = {}
        self._changed = asyncio.Event()

    @property
    def workers(self) -> tuple[Worker, ...]:
        return tuple(self._workers.values())

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """The models the living workers hold, each once."""
        return tuple({worker.model.name: worker.model for worker in self.workers}.values())

    async def refresh(self) -> None:
        """Look now. Raises DeadlineExceeded."""
        self._workers = {worker.id: worker for worker in await self._registry.snapshot()}
        self._wake()

    async def changed(self, timeout_s: float) -> None:
        """Wait until the picture changes, at most `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def occupy(self, worker: Worker, voice: Voice, *, background: bool = False) -> None:
        """Count a session that is being claimed at `worker`."""
        names = {voice.adapter.name} if voice.adapter else set()
        self._adjust(worker.id, +1, names, background)

    def vacate(self, worker: Worker, *, background: bool = False) -> None:
        """Take back one `occupy`: the session has ended. Its adapter counts on until the next refresh."""
        self._adjust(worker.id, -1, set(), background)
        self._wake()

    def exclude(self, worker: Worker, *, background: bool = False) -> None:
        """A place was refused: `worker` counts as full until the next refresh."""
        known = self._workers.get(worker.id)
        if known is not None:
            kind = "background" if background else "inflight"
            self._workers[worker.id] = known.model_copy(update={kind: max(getattr(known, kind), known.capacity)})

    def _adjust(self, worker_id: str, sessions: int, names: set[str], background: bool) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        if background:
            names -= worker.active_adapters
            counted = {
                "background": max(0, worker.background + sessions),
                "background_adapters": worker.background_adapters | names,
            }
        else:
            counted = {
                "inflight": max(0, worker.inflight + sessions),
                "active_adapters": worker.active_adapters | names,
                "background_adapters": worker.background_adapters - names,
            }
        self._workers[worker_id] = worker.model_copy(update=counted)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, every_s: float) -> None:
        while True:
            try:
                await self.refresh()
            except DeadlineExceeded as error:
                log.warning("registry unreachable", extra={"error": error.message})
            await asyncio.sleep(every_s)


def _names(adapters: Iterable[bytes]) -> frozenset[str]:
    return frozenset(name.decode() for name in adapters)


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'record'}: {first['msg']}"


@asynccontextmanager
async def open_fleet(registry: Registry, settings: Settings) -> AsyncIterator[Fleet]:
    """A fleet whose picture is kept fresh while the context lasts."""
    fleet = Fleet(registry)
    with suppress(DeadlineExceeded):
        await fleet.refresh()
    watcher = asyncio.create_task(fleet._watch(settings.fleet_refresh_s), name="fleet")
    try:
        yield fleet
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
