"""Workers, leases, drains and demand in Redis: what may be lost, and comes back with the next heartbeats.

`registry.lua` holds every operation and documents every key. A lease reserves a place at a worker for a session: the
front door claims it before it dials, the worker renews it with each heartbeat, the process that ends the session
releases it, and a lease that is not renewed expires. This module does not decide who gets a session: that is
`app.fleet.placement`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import ConfigurationError, DeadlineExceeded
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings, without_secrets
from app.speech.field_errors import first_fault
from app.speech.voices import AdapterVersion, Voice

ROOT = "carillon:{fleet}:"
CALL_TIMEOUT_S = 5.0
OBSERVED = {"inflight", "active_adapters", "background", "background_adapters"}
"""What leases say of a worker, and its record does not."""

log = logging.getLogger(__name__)


def open_redis(settings: Settings) -> Redis:
    """A client of the configured Redis, which connects on first use. Raises ConfigurationError for no or a bad address.

    It has no socket timeout: redis-py would send through `asyncio.wait_for`, which in Python 3.11 can lose a
    cancellation (gh-86296), and with it the end of a session or of a heartbeat. The caller sets the deadline.
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
class LeaseRecord:
    """A lease as its worker knows it: enough to bring it back where Redis has lost it."""

    session: str
    adapter: str = ""
    """`AdapterVersion.name`; empty without one."""
    background: bool = False


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """What a heartbeat brings back: the voices deleted since the last heartbeat, and what to send with the next.

    `unknown` are the sessions of which the registry holds no lease: they were released a moment ago, or it has lost
    them. `drain_s` is how long sessions may go on at a worker that is to drain; None: it is not.
    """

    retired: tuple[str, ...]
    retired_until: int
    unknown: tuple[str, ...] = ()
    drain_s: float | None = None


@dataclass(frozen=True, slots=True)
class DrainOrder:
    """A worker drains: of its own (None), or until `deadline_s` from now. `heard` is whether its record says so."""

    epoch: int
    deadline_s: float | None
    heard: bool = False


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The result of a claim, and how many competing sessions the worker then has."""

    reason: Literal["claimed", "gone", "epoch", "inactive", "full", "adapters", "over"]
    sessions: int

    @property
    def claimed(self) -> bool:
        return self.reason == "claimed"


@dataclass(frozen=True, slots=True)
class _Seen:
    """A worker's record and what was made of it; None where it cannot be read."""

    record: str
    worker: Worker | None


class Registry:
    """The fleet as Redis holds it. Every method is one round trip; each raises DeadlineExceeded if Redis is away."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._script = redis.register_script(files("app.fleet").joinpath("registry.lua").read_text("utf-8"))
        self._seen: dict[str, _Seen] = {}
        """The last snapshot, by the workers' ids."""
        self._changed_until = 0
        """The latest change in it."""
        self._record_ttl_ms = round(settings.worker_ttl_s * 1000)
        self._lease_ttl_ms = round(settings.lease_ttl_s * 1000)
        self._beat_timeout_s = max(settings.heartbeat_s, settings.worker_ttl_s / 3)

    async def _call(self, operation: str, *arguments: str | int, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._script(keys=[ROOT], args=[operation, *arguments])
        except (RedisError, TimeoutError) as error:
            raise DeadlineExceeded(
                f"the registry does not answer ({type(error).__name__}); is the Redis of CARILLON_REDIS_URL running?",
                retry_after_s=1,
            ) from error

    # A worker's side.

    async def join(self, worker_id: str) -> int:
        """A new start of `worker_id`: its epoch, greater than any before. What an older epoch held is forgotten.

        Epochs are greater also after Redis has lost everything, as long as its clock has not been set back.
        """
        return int(await self._call("join", worker_id))

    async def beat(
        self, worker: Worker, leases: Iterable[LeaseRecord], *, retired_since: int = 0, again: Collection[str] = ()
    ) -> HeartbeatReply | None:
        """Say that `worker` lives, and renew the `leases` of the sessions it is speaking with.

        Leases are brought back where the registry has lost the worker altogether, and those of the sessions in `again`.
        `retired_since` is `retired_until` of the reply before. None when a later start has taken the id: this process
        is superseded and should end. Raises ConfigurationError where living workers have another checkpoint under the
        name of this one's model: one voice must not be two.
        """
        record = worker.model_dump_json(exclude=OBSERVED)
        ttls_ms = (self._record_ttl_ms, self._lease_ttl_ms)
        held: list[str] = []
        for lease in leases:
            how = ("background" if lease.background else "interactive") + "!" * (lease.session in again)
            held += (lease.session, lease.adapter, how)
        answer = await self._call(
            *("beat", worker.id, worker.epoch, record, *ttls_ms, retired_since),
            *(worker.model.name, worker.model.checkpoint, *held),
            timeout_s=self._beat_timeout_s,
        )
        if answer is None:
            return None
        if answer == b"checkpoint":
            raise ConfigurationError(
                f"other workers of this fleet have another checkpoint under the name {worker.model.name!r}; give this "
                "one a name of its own with CARILLON_SPEECH__NAME, or stop those first"
            )
        retired, unknown, drain_ms = answer
        voices, times_ms = retired[::2], retired[1::2]
        return HeartbeatReply(
            retired=tuple(voice.decode() for voice in voices),
            retired_until=int(times_ms[-1]) if times_ms else retired_since,
            unknown=tuple(session.decode() for session in unknown),
            drain_s=None if drain_ms is None else drain_ms / 1000,
        )

    async def leave(self, worker_id: str, epoch: int) -> bool:
        """Remove a worker that ends. False (and no change) when a later start has taken the id."""
        return bool(await self._call("leave", worker_id, epoch))

    async def release(self, worker_id: str, session: str) -> bool:
        """End a lease; any process may, and repeat it. True the first time."""
        return bool(await self._call("release", worker_id, session))

    async def most_demanded(self, model: str) -> tuple[AdapterVersion, ...]:
        """The adapters of `model` that were requested lately, the most demanded first; of deleted voices none.

        One that cannot be read, because a front door of another version wrote it, is left out.
        """
        most_demanded: list[AdapterVersion] = []
        unreadable: list[ValidationError] = []
        for version in await self._call("most_demanded", model):
            try:
                most_demanded.append(AdapterVersion.model_validate_json(version, extra="ignore"))
            except ValidationError as error:
                unreadable.append(error)
        if unreadable:
            problem = _first_problem(unreadable[0])
            log.warning("adapters of another version left out", extra={"count": len(unreadable), "problem": problem})
        return tuple(most_demanded)

    # A front door's side.

    async def retire_voice(self, voice_id: str) -> None:
        """Have every worker drop, with its next heartbeat, what it has of a voice that is deleted.

        It may be repeated, in case Redis has lost it. A voice id never comes back.
        """
        await self._call("retire", voice_id)

    async def drain(self, worker_id: str, deadline_s: float, *, epoch: int | None = None) -> DrainOrder | None:
        """Let a worker end: no claim succeeds there from now on, and its next heartbeat returns the order.

        An earlier order stands, and is what is returned. None if there is no such worker, or not in this `epoch`.
        """
        answer = await self._call("drain", worker_id, round(deadline_s * 1000), "" if epoch is None else epoch)
        if answer is None:
            return None
        draining_epoch, deadline_ms, heard = answer
        return DrainOrder(draining_epoch, None if deadline_ms is None else deadline_ms / 1000, heard=bool(heard))

    async def snapshot(self) -> tuple[Worker, ...]:
        """Every living worker, with the leases it holds and the adapters these need (`AdapterVersion.name`).

        A worker of which nothing has changed is the same object as the last time. A record that cannot be read, because
        its worker is of another version, is left out.
        """
        latest, ids, rows = await self._call("snapshot", self._changed_until)
        if latest < self._changed_until:  # Redis has lost everything, and starts over
            latest, ids, rows = await self._call("snapshot", 0)
        self._changed_until = latest
        for id, record, *observed in json.loads(rows):
            try:
                self._seen[id] = _Seen(record, _described(record, observed, self._seen.get(id)))
            except ValidationError as error:
                self._seen[id] = _Seen(record, None)
                log.warning("worker of another version left out", extra={"problem": _first_problem(error)})
        if ids is not None:
            self._seen = {id: self._seen[id] for id in json.loads(ids) if id in self._seen}
        return tuple(seen.worker for seen in self._seen.values() if seen.worker is not None)

    async def try_claim(
        self,
        worker: Worker,
        session: str,
        voice: Voice,
        *,
        background: bool = False,
        bound: int | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> ClaimResult:
        """Take a place at `worker` for `session`, if it is active in this epoch and has the room by Redis's own clock.

        There is none where it has `bound` sessions already (None: as many as it has places). The lease holds for
        `lease_ttl_s`; the worker's heartbeats renew it. A place taken in the `background` is a spare one, and does not
        hinder an interactive claim: the worker then ends the session.
        """
        adapter, version = (voice.adapter.name, voice.adapter.model_dump_json()) if voice.adapter else ("", "")
        kind, most = "background" if background else "interactive", "" if bound is None else bound
        what = (session, adapter, self._lease_ttl_ms, kind, most, version)
        reason, sessions = await self._call("claim", worker.id, worker.epoch, *what, timeout_s=timeout_s)
        answer = ClaimResult(reason.decode(), sessions)
        if not answer.claimed:
            log.info("claim refused", extra={"worker": worker.id, "session": session, "reason": answer.reason})
        return answer

    async def claim(
        self, worker: Worker, session: str, voice: Voice, *, background: bool = False, bound: int | None = None
    ) -> bool:
        """`try_claim` without the reason."""
        return (await self.try_claim(worker, session, voice, background=background, bound=bound)).claimed


def _described(record: str, observed: list[Any], before: _Seen | None) -> Worker:
    """A row of the snapshot; of most, only the sessions have changed. Raises ValidationError."""
    inflight, adapters, background, background_adapters, drains = observed
    counted: dict[str, Any] = {
        "inflight": inflight,
        "active_adapters": frozenset(adapters),
        "background": background,
        "background_adapters": frozenset(background_adapters),
    }
    if drains:
        counted["state"] = WorkerState.DRAINING
    if before is not None and before.worker is not None and before.record == record and not drains:
        return before.worker.model_copy(update=counted)
    return Worker.model_validate_json(record, extra="ignore").model_copy(update=counted)


def _first_problem(error: ValidationError) -> str:
    place, reason = first_fault(error)
    return f"{place or 'record'}: {reason}"
