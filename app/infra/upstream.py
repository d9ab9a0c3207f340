"""Sessions with workers: find a place, claim it, dial, speak the session protocol, and account for the way there.

`Upstream.open` is all that the edges know of the fleet. It does not know dialects, formats, credits or clients; and it
does not yet move a session to another worker when its own dies: that raises WorkerLost.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from app.core.errors import CarillonError, DeadlineExceeded, InvalidRequest, Overloaded, UnknownModel, WorkerLost
from app.core.messages import (
    WORKER_MESSAGES,
    Assign,
    AssignedPace,
    AudioFrame,
    Cancel,
    Cancelled,
    Done,
    Eos,
    Error,
    Flush,
    Flushed,
    GoAway,
    Pong,
    Ready,
    Segment,
    Text,
    Utter,
    Uttered,
    parse,
)
from app.core.models import ModelCard, Voice, Worker, WorkerState
from app.core.placement import candidates
from app.infra.registry import Fleet, Registry
from app.infra.settings import Settings

RETRY_AFTER_S = 2.0
"""What a client refused for want of room is told: about a short sentence's time."""

PING_INTERVAL_S = 5.0
UNACKNOWLEDGED_TIMEOUT_S = 10.0
"""A machine that has vanished takes nothing any more; one that is merely busy still acknowledges."""

BACKGROUND_STALLS = 15
"""A background session may be silent for so many stall timeouts: it is decoded after all others. Its worker tells it
sooner what keeps the engine, and a worker that is dead breaks the connection."""

BYTES_PER_SAMPLE = 2

Command = Text | Utter | Flush | Eos | Cancel
Event = Ready | AudioFrame | Segment | Uttered | Flushed | Cancelled | Done | Error

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """What is asked of one worker after the other: a place for a session of this id."""

    id: str
    voice: Voice
    pace: AssignedPace
    temperature: float | None

    @property
    def background(self) -> bool:
        return self.pace == "background"

    def assignment_to(self, worker: Worker) -> Assign:
        return Assign(
            session=self.id, epoch=worker.epoch, voice=self.voice, temperature=self.temperature, pace=self.pace
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A session's place at a worker: the worker has said `ready` on this connection."""

    lease: Lease
    worker: Worker
    connection: ClientConnection
    ready: Ready
    queue_ms: float
    route_ms: float


class UpstreamSession:
    """One session at one worker. Iterate it for events; it ends after `done`.

    Raises what the worker reports as the session's end, WorkerLost if the connection breaks, DeadlineExceeded if
    nothing comes although an answer is due.
    """

    def __init__(self, place: Place, settings: Settings, clock: Callable[[], float]) -> None:
        self.worker = place.worker
        self.ready = place.ready
        self.queue_ms = place.queue_ms
        self.route_ms = place.route_ms
        self._connection = place.connection
        self._paced = place.lease.pace == "realtime"
        self._stall_timeout_s = settings.session.stall_timeout_s * (BACKGROUND_STALLS if place.lease.background else 1)
        self._send_timeout_s = settings.session.connect_timeout_s
        self._clock = clock
        self._over = False
        self._owed = 0
        """Answers due: to each `flush`, `utter` and `eos`, unless `cancelled` or `done` has come."""
        self._heard_until = clock()
        """When the audio received so far has been heard, played from its arrival: a worker that paces it may be silent
        until then, any other only for the stall timeout."""

    async def send(self, command: Command) -> None:
        """Send a command; its session id is replaced by the lease's. Raises DeadlineExceeded.

        A broken connection is for the reader to report: what the worker said last, and why, is still in its queue.
        """
        if isinstance(command, Flush | Utter | Eos):
            self._owed += 1
        message = command.model_copy(update={"session": self.ready.session}).model_dump_json()
        try:
            async with asyncio.timeout(self._send_timeout_s):
                with suppress(ConnectionClosed):
                    await self._connection.send(message)
        except TimeoutError:
            raise DeadlineExceeded(f"worker {self.worker.id} reads nothing") from None

    def __aiter__(self) -> UpstreamSession:
        return self

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        event = await self._next()
        if isinstance(event, Error) and event.closed:
            raise event.rebuilt()
        if isinstance(event, Done):
            self._over = True
            ledger = event.ledger.model_copy(update={"queue_ms": self.queue_ms, "route_ms": self.route_ms})
            return event.model_copy(update={"ledger": ledger})
        return event

    async def _next(self) -> Event:
        called_at = self._clock()
        while True:
            patience_s = max(self._heard_until, called_at) + self._stall_timeout_s - self._clock()
            try:
                async with asyncio.timeout(patience_s):
                    event = _read(await self._connection.recv(), self.worker)
            except TimeoutError:
                if self._owed:
                    raise DeadlineExceeded(
                        f"worker {self.worker.id} sent nothing for {self._stall_timeout_s:g} s though text was pending"
                    ) from None
                called_at = self._clock()
                continue
            except ConnectionClosed:
                raise WorkerLost(f"the connection to worker {self.worker.id} broke") from None
            if isinstance(event, GoAway | Pong):
                continue
            self._note(event)
            return event

    def _note(self, event: Event) -> None:
        if isinstance(event, AudioFrame) and self._paced:
            seconds = len(event.audio) / BYTES_PER_SAMPLE / self.ready.sample_rate_hz
            self._heard_until = max(self._heard_until, self._clock()) + seconds
        elif isinstance(event, Flushed | Uttered):
            self._owed = max(0, self._owed - 1)
        elif isinstance(event, Cancelled | Done):
            self._owed = 0


class Upstream:
    """The way to the fleet's workers."""

    def __init__(
        self, fleet: Fleet, registry: Registry, settings: Settings, clock: Callable[[], float] = monotonic
    ) -> None:
        self._fleet = fleet
        self._registry = registry
        self._settings = settings
        self._clock = clock
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """What the fleet can speak with now."""
        return self._fleet.models

    @property
    def workers(self) -> tuple[Worker, ...]:
        return self._fleet.workers

    @asynccontextmanager
    async def open(
        self, voice: Voice, *, pace: AssignedPace = "realtime", temperature: float | None = None
    ) -> AsyncIterator[UpstreamSession]:
        """A session with `voice`, at the worker placement likes best of those with room.

        Waits `session.queue_timeout_s` for room; in the "background" for room that nobody else wants, and the session
        may end at any time with Overloaded, for somebody who does. Raises Overloaded, UnknownModel, WorkerLost,
        DeadlineExceeded, or what the worker refuses with. Leaving the context ends the session at the worker and
        releases its place.
        """
        place = await self._place(Lease(uuid.uuid4().hex, voice, pace, temperature))
        try:
            yield UpstreamSession(place, self._settings, self._clock)
        finally:
            await self._finish(self._end(place.worker, place.lease, place.connection))

    def has_spare_place(self, voice: Voice) -> bool:
        """Whether a background session with `voice` would find room now, as far as is known here."""
        return any(True for _ in candidates(self._fleet.workers, voice, background=True))

    async def _place(self, lease: Lease) -> Place:
        """Walk the candidates until one has taken the session; wait for room while there is none."""
        asked_at = self._clock()
        deadline = asked_at + self._settings.session.queue_timeout_s
        faults: dict[str, CarillonError] = {}
        while True:
            for candidate in candidates(self._fleet.workers, lease.voice, background=lease.background):
                worker = candidate.worker
                if not await self._claim(worker, lease):
                    continue
                claimed_at = self._clock()
                try:
                    connection, ready = await self._dial(worker, lease)
                except (Overloaded, WorkerLost, DeadlineExceeded) as error:
                    if not isinstance(error, Overloaded):
                        faults[worker.id] = error
                    self._fleet.exclude(worker, background=lease.background)
                    log.warning("worker passed over", extra={"worker": worker.id, "code": error.code})
                    continue
                log.info("session placed", extra={"worker": worker.id, "session": lease.id, "reason": candidate.reason})
                queue_ms, route_ms = _ms(asked_at, claimed_at), _ms(claimed_at, self._clock())
                return Place(lease, worker, connection, ready, queue_ms, route_ms)
            remaining_s = deadline - self._clock()
            if remaining_s <= 0 or not self._holders(lease.voice):
                raise self._no_room(lease.voice, faults)
            await self._fleet.changed(remaining_s)

    def _holders(self, voice: Voice) -> list[Worker]:
        return [worker for worker in self._fleet.workers if worker.model.name == voice.model]

    def _no_room(self, voice: Voice, faults: Mapping[str, CarillonError]) -> CarillonError:
        """Why there is none, where `faults` tells what is wrong with which worker. One that is only full is enough."""
        holders = self._holders(voice)
        active = [worker for worker in holders if worker.state is WorkerState.ACTIVE]
        if not holders:
            served = ", ".join(sorted(card.name for card in self.models)) or "none"
            return UnknownModel(f"no worker serves model {voice.model!r} now; served are: {served}", param="model")
        if not active:
            return Overloaded(f"the workers of model {voice.model!r} are starting or leaving", retry_after_s=5)
        if all(worker.id in faults for worker in active):
            return faults[active[-1].id]
        places = sum(worker.capacity for worker in active)
        return Overloaded(
            f"all {places} places for model {voice.model!r} are taken; try again in {RETRY_AFTER_S:g} s",
            retry_after_s=RETRY_AFTER_S,
        )

    async def _claim(self, worker: Worker, lease: Lease) -> bool:
        self._fleet.occupy(worker, lease.voice, background=lease.background)
        try:
            if await self._registry.claim(worker, lease.id, lease.voice, background=lease.background):
                return True
        except BaseException:
            # Redis may have granted it before we stopped listening; if this fails too, the lease expires.
            await self._finish(self._release(worker, lease))
            raise
        self._fleet.exclude(worker, background=lease.background)
        return False

    async def _dial(self, worker: Worker, lease: Lease) -> tuple[ClientConnection, Ready]:
        """Connect, assign, await `ready`; on any failure the lease is given back."""
        limits = self._settings.session
        timeout_s = limits.connect_timeout_s
        connection: ClientConnection | None = None
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._connect(worker)
                await connection.send(lease.assignment_to(worker).model_dump_json())
            timeout_s = limits.ready_timeout_s
            async with asyncio.timeout(timeout_s):
                first = _read(await connection.recv(), worker)
            if isinstance(first, Error):
                raise first.rebuilt()
            if not isinstance(first, Ready):
                raise WorkerLost(f"worker {worker.id} answered an assignment with {type(first).__name__}")
            return connection, first
        except BaseException as error:
            await self._finish(self._end(worker, lease, connection))
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"worker {worker.id} was not ready within {timeout_s:g} s") from None
            if isinstance(error, OSError | InvalidHandshake | ConnectionClosed):
                raise WorkerLost(f"worker {worker.id} cannot be reached ({_reason(error)})") from None
            raise

    async def _connect(self, worker: Worker) -> ClientConnection:
        """A late pong is no death, and so has no deadline: it waits behind all the audio a slow listener has to come.

        The pings are for the kernel: it breaks a connection whose other end acknowledges none of them.
        """
        connection = await connect(
            f"{worker.address}/session",
            additional_headers={"Authorization": f"Bearer {self._settings.fleet_secret.get_secret_value()}"},
            compression=None,
            proxy=None,
            open_timeout=None,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=None,
            close_timeout=1,
        )
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            timeout_ms = round(UNACKNOWLEDGED_TIMEOUT_S * 1000)
            peer = connection.transport.get_extra_info("socket")
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        return connection

    async def _finish(self, ending: Coroutine[Any, Any, None]) -> None:
        """Await `ending`, which goes on to its end even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        await asyncio.shield(task)

    async def aclose(self) -> None:
        """Wait for sessions that are being ended."""
        await asyncio.gather(*self._endings, return_exceptions=True)

    async def _end(self, worker: Worker, lease: Lease, connection: ClientConnection | None) -> None:
        """Closing the connection is the cancel: the worker aborts what runs for it."""
        if connection is not None:
            await connection.close()
        await self._release(worker, lease)

    async def _release(self, worker: Worker, lease: Lease) -> None:
        try:
            await self._registry.release(worker.id, lease.id)
        except DeadlineExceeded as error:
            log.warning(
                "lease left to expire", extra={"worker": worker.id, "session": lease.id, "error": error.message}
            )
        finally:
            self._fleet.vacate(worker, background=lease.background)


def _ms(start_s: float, end_s: float) -> float:
    return round((end_s - start_s) * 1000, 3)


def _read(raw: str | bytes, worker: Worker) -> Any:
    try:
        return AudioFrame.unpack(raw) if isinstance(raw, bytes) else parse(WORKER_MESSAGES, raw)
    except InvalidRequest as error:
        raise WorkerLost(f"worker {worker.id} speaks another protocol: {error.message}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, InvalidStatus):
        return f"HTTP {error.response.status_code}; is CARILLON_FLEET_SECRET the same on both sides?"
    return type(error).__name__
