"""One session at one worker: the connection, its deadlines, and what the worker sends on it.

It ends where the worker ends. It knows neither how a worker is chosen nor that a session may go on at another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from picows import WSHandshakeError

from app.errors import DeadlineExceeded, InvalidRequest, WorkerLost
from app.fleet.worker import Worker
from app.platform.deadline import Deadline
from app.platform.settings import Settings
from app.platform.tracing import outgoing
from app.realtime.websocket import Wire, WireClosed
from app.speech.protocol import (
    WORKER_MESSAGES,
    Assign,
    AudioFrame,
    Begun,
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
    Waiting,
    as_chosen,
    parse_peer,
)

BACKGROUND_STALLS = 15
"""A background session may be silent for so many stall timeouts: it is decoded after all others. Its worker reports
sooner what keeps the engine, and a worker that is dead breaks the connection."""

BYTES_PER_SAMPLE = 2

Command = Text | Utter | Flush | Eos | Cancel
Event = Ready | AudioFrame | Waiting | Begun | Segment | Uttered | Flushed | Cancelled | Done | Error


class WorkerConnection:
    """A session's connection to `worker`; `dial` makes one. `next` gives what the worker sends."""

    def __init__(
        self,
        worker: Worker,
        wire: Wire,
        assign: Assign,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self.worker = worker
        self.ready: Ready
        self._received_at = clock()
        """When the worker last sent anything."""
        self.leave_at: float | None = None
        """When a worker that drains wants its sessions gone."""
        self._wire = wire
        self._deadline = Deadline()
        self._session = assign.session
        self._paced = assign.pace == "realtime"
        limits = settings.session
        self._stall_timeout_s = limits.stall_timeout_s * (BACKGROUND_STALLS if assign.pace == "background" else 1)
        self._send_timeout_s = limits.connect_timeout_s
        self._clock = clock
        self._owed = 0
        """Answers due: to each `flush`, `utter` and `eos`, unless `cancelled` or `done` has come."""
        self._played_until = clock()
        """When the audio received so far has been played, from its arrival on: a worker that paces it may be silent
        until then, any other only for the stall timeout."""

    @property
    def played_until(self) -> float:
        """When a listener that began to hear at once has heard all that came, on the clock's scale."""
        return self._played_until

    @property
    def silence_s(self) -> float:
        """How long the worker has sent nothing."""
        return self._clock() - self._received_at

    async def send(self, command: Command) -> None:
        """Send a command; its session id is replaced by the lease's. Raises DeadlineExceeded.

        A broken connection is for the reader to report: what the worker sent last, and why, is still in its queue.
        """
        if isinstance(command, Flush | Utter | Eos):
            self._owed += 1
        await self._send(command.model_copy(update={"session": self._session}).model_dump_json())

    async def _send(self, message: str) -> None:
        self._wire.send(message)
        if not self._wire.clogged:
            return
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self._wire.cleared()
        except TimeoutError:
            raise DeadlineExceeded(f"worker {self.worker.id} reads nothing") from None

    async def next(self) -> Event:
        """What the worker sends next. Raises WorkerLost when the connection has broken, DeadlineExceeded if nothing
        comes although an answer is due."""
        called_at = self._clock()
        while True:
            patience_s = max(self._played_until, called_at) + self._stall_timeout_s - self._clock()
            try:
                with self._deadline.within(patience_s):
                    event = _read(await self._wire.receive(), self.worker)
            except TimeoutError:
                if self._owed:
                    raise DeadlineExceeded(
                        f"worker {self.worker.id} sent nothing for {self._stall_timeout_s:g} s though text was pending"
                    ) from None
                called_at = self._clock()
                continue
            except WireClosed:
                raise WorkerLost(f"the connection to worker {self.worker.id} broke") from None
            self._received_at = self._clock()
            if isinstance(event, GoAway):
                self.leave_at = self._received_at + event.deadline_ms / 1000
            elif not isinstance(event, Pong):
                self._note(event)
                return event

    async def until_ready(self, timeout_s: float) -> None:
        """Wait until the worker takes the session, and sets `ready`. Raises what it refuses with, or TimeoutError."""
        async with asyncio.timeout(timeout_s):
            first = await self.next()
        if isinstance(first, Error):
            raise first.rebuilt()
        if not isinstance(first, Ready):
            raise WorkerLost(f"worker {self.worker.id} answered an assignment with {type(first).__name__}")
        self.ready = first

    def _note(self, event: Event) -> None:
        if isinstance(event, AudioFrame):
            if self._paced:
                seconds = len(event.audio) / BYTES_PER_SAMPLE / self.ready.sample_rate_hz
                self._played_until = max(self._played_until, self._clock()) + seconds
        elif isinstance(event, Flushed | Uttered):
            self._owed = max(0, self._owed - 1)
        elif isinstance(event, Cancelled | Done):
            self._owed = 0

    def abort(self) -> None:
        """Break the connection without a handshake; what was received before can still be read."""
        self._wire.abort()

    async def close(self) -> None:
        """Closing the connection is the cancel: the worker aborts what runs for it."""
        self._deadline.close()
        await self._wire.close()


async def dial(worker: Worker, assign: Assign, settings: Settings, clock: Callable[[], float]) -> WorkerConnection:
    """Connect to `worker`, assign the session, and wait until it is ready.

    Raises WorkerLost when it cannot be reached, DeadlineExceeded when it does not answer, or what it refuses with; the
    connection is closed then.
    """
    limits = settings.session
    timeout_s = limits.connect_timeout_s
    connection: WorkerConnection | None = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = WorkerConnection(worker, await _connect(worker, settings), assign, settings, clock)
            await connection._send(as_chosen(assign))
        timeout_s = limits.ready_timeout_s
        await connection.until_ready(timeout_s)
        return connection
    except BaseException as error:
        if connection is not None:
            connection.abort()
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(f"worker {worker.id} was not ready within {timeout_s:g} s") from None
        if isinstance(error, OSError | WSHandshakeError):
            raise WorkerLost(f"worker {worker.id} cannot be reached ({_reason(error)})") from None
        raise


async def _connect(worker: Worker, settings: Settings) -> Wire:
    headers = {"Authorization": f"Bearer {settings.fleet_secret.get_secret_value()}", **outgoing()}
    return await Wire.connect(f"{worker.address}/session", headers, timeout_s=settings.session.connect_timeout_s)


def _read(raw: str | bytes, worker: Worker) -> Any:
    try:
        return AudioFrame.unpack(raw) if isinstance(raw, bytes) else parse_peer(WORKER_MESSAGES, raw)
    except InvalidRequest as error:
        raise WorkerLost(f"worker {worker.id} speaks another protocol: {error.message}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, WSHandshakeError) and error.response is not None:
        return f"HTTP {error.response.status.value}; is CARILLON_FLEET_SECRET the same on both sides?"
    return type(error).__name__
