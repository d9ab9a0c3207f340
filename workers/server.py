"""The worker's private WebSocket server: one session a socket, admitted or refused at its first message.

Only front doors come here; they show the fleet's secret. The server owns the session's three tasks (reading, speaking,
writing) and what every session shares: the engine, the decoder, the adapters. `GET /healthz` and `/metrics` answer on
the same port.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

from picows import WSTransport, WSUpgradeRequest, WSUpgradeResponse, ws_create_server
from picows import WSUpgradeResponseWithListener as Answer

from app.errors import CarillonError, DeadlineExceeded, InvalidRequest, Overloaded, SlowReader, WorkerLost
from app.fleet.registry import LeaseRecord
from app.fleet.worker import Worker, WorkerState
from app.platform.deadline import Deadline
from app.platform.logs import REQUEST_ID
from app.platform.loop_lag import loop_lag
from app.platform.profiles import EngineProfile
from app.platform.settings import ANY_HOST, Settings
from app.platform.tracing import REQUEST_ID_HEADER, span
from app.realtime.websocket import Wire, WireClosed
from app.speech.protocol import (
    MAX_MESSAGE_BYTES,
    WORKER_COMMANDS,
    Assign,
    AudioFrame,
    Cancel,
    Done,
    Eos,
    Error,
    Flush,
    GoAway,
    Message,
    Ping,
    Pong,
    Text,
    Utter,
    parse_peer,
)
from app.speech.voices import ModelCard
from workers.adapters import AdapterCache
from workers.decoder import Decoder
from workers.engine import Engine, EngineAdapter
from workers.handshake import has_fleet_secret, ready
from workers.metrics import WorkerMetrics
from workers.places import Place, Places, adapters_of
from workers.send_queue import Outgoing
from workers.session import Session

log = logging.getLogger(__name__)

_HANDSHAKE_S = 5.0

FRAME_HEADER_BYTES = 14
"""Of a WebSocket, at most."""

BACKLOG = 1024
"""Connections that wait to be accepted: those of a whole worker that was lost come at once."""


class WorkerServer:
    """Sessions on one engine. Build it, `listen`, and it serves until `drain`."""

    def __init__(
        self,
        settings: Settings,
        *,
        worker_id: str,
        epoch: int,
        profile: EngineProfile,
        engine: Engine,
        decoder: Decoder,
        adapters: AdapterCache,
        clock: Callable[[], float],
        checkpoint: str = "",
        pace: float | None = None,
    ) -> None:
        """`checkpoint` is the fingerprint of what the engine and the decoder hold; `pace` the seconds of work that a
        second of speech takes with all sessions at once, where that was measured."""
        self.state = WorkerState.STARTING
        self.address = ""
        self._settings = settings
        self._checkpoint = checkpoint
        self._pace = pace
        self._id = worker_id
        self._epoch = epoch
        self._engine = engine
        self._decoder = decoder
        self._adapters = adapters
        self._clock = clock
        self._places = Places(worker_id, capacity=profile.capacity, max_adapters=profile.max_loras)
        self._metrics = WorkerMetrics(self.describe, engine, decoder, adapters)
        self._sockets: set[Wire] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._server: asyncio.Server | None = None
        self._watching = AsyncExitStack()
        self._serving: dict[asyncio.Task[None], Wire] = {}

    # What the fleet sees.

    @property
    def sessions(self) -> tuple[str, ...]:
        return self._places.sessions

    @property
    def leases(self) -> tuple[LeaseRecord, ...]:
        return self._places.leases

    def describe(self) -> Worker:
        interactive, background = self._places.interactive, self._places.background
        return Worker(
            id=self._id,
            epoch=self._epoch,
            address=self.address,
            model=ModelCard.of(self._engine.layout, checkpoint=self._checkpoint),
            state=self.state,
            capacity=self._places.capacity,
            max_voices=self._places.max_adapters,
            inflight=len(interactive),
            active_adapters=adapters_of(interactive),
            background=len(background),
            background_adapters=adapters_of(background) - adapters_of(interactive),
            ready_adapters=self._adapters.ready,
            pace_s_per_s=self._pace,
        )

    # Its life.

    async def listen(self, state: WorkerState = WorkerState.ACTIVE) -> None:
        """Bind; `address` is then what front doors dial. Sessions are taken while the state is ACTIVE."""
        self._server = await ws_create_server(
            self._open,
            self._settings.worker_host,
            self._settings.worker_port,
            max_frame_size=MAX_MESSAGE_BYTES + FRAME_HEADER_BYTES,
            backlog=BACKLOG,
        )
        await self._watching.enter_async_context(loop_lag(self._metrics.speech.loop_lag.observe))
        port = self._server.sockets[0].getsockname()[1]
        host = self._settings.worker_host
        host = socket.gethostname() if host in ANY_HOST else host
        self.address = self._settings.worker_address or f"ws://{host}:{port}"
        self.state = state

    async def drain(self, deadline_s: float, *, handover_s: float = 0.0) -> int:
        """Take no new session, let those that run end within `deadline_s`, then close. Returns how many were cut.

        Each session's front door gets the deadline. It moves what is left by then to other workers, for which
        `handover_s` more are given. Background sessions end at once: they go on elsewhere, and have no end of their
        own.
        """
        self.state = WorkerState.DRAINING
        self._places.dismiss_background()
        goodbye = GoAway(deadline_ms=round(deadline_s * 1000))
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s + handover_s):
                await asyncio.gather(*(_send_last(socket, goodbye) for socket in self._sockets))
                await self._empty.wait()
        cut = len(self._places)
        log.log(logging.WARNING if cut else logging.INFO, "drained", extra={"sessions_cut": cut})
        if self._server is not None:
            self._server.close()
            await asyncio.gather(*(socket.close() for socket in self._serving.values()))
            await asyncio.gather(*self._serving, return_exceptions=True)
        await self._watching.aclose()
        return cut

    # One socket.

    def _open(self, request: WSUpgradeRequest) -> Wire | Answer:
        """Health and metrics; a session's handshake passes with the right secret."""
        match request.path.decode("latin-1"):
            case "/healthz":
                status = http.HTTPStatus.OK if self.state is WorkerState.ACTIVE else http.HTTPStatus.SERVICE_UNAVAILABLE
                return _answer(status, f"{self.state}\n")
            case "/metrics":
                return _answer(http.HTTPStatus.OK, self._metrics.render())
            case "/session":
                if has_fleet_secret(request.headers.get("Authorization", ""), self._settings):
                    return _Accepted(self._begin, {name.lower(): value for name, value in request.headers.items()})
                return _answer(http.HTTPStatus.UNAUTHORIZED, "CARILLON_FLEET_SECRET differs from the worker's\n")
            case _:
                return _answer(http.HTTPStatus.NOT_FOUND, "there are /session, /healthz and /metrics\n")

    def _begin(self, socket: Wire, headers: Mapping[str, str]) -> None:
        serving = asyncio.create_task(self._serve(socket, headers), name="session")
        self._serving[serving] = socket
        serving.add_done_callback(self._serving.pop)

    async def _serve(self, socket: Wire, headers: Mapping[str, str]) -> None:
        REQUEST_ID.set(headers.get(REQUEST_ID_HEADER))  # of this task alone, and what it starts
        try:
            with span("worker session", of=headers):
                ended = await self._serve_one(socket)
            if ended:
                # All is sent, and not yet read: were it closed here, a word from the other end would break it.
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.session.slow_reader_timeout_s):
                        await socket.until_closed()
        except Exception:  # the session is at fault, or we are: the others go on
            log.exception("a session broke")
        finally:
            await socket.close()

    async def _serve_one(self, socket: Wire) -> bool:
        """Whether the session has ended by itself."""
        assign: Assign | None = None
        try:
            assign = await _first_message(socket)
            self._admit(assign)
        except CarillonError as error:
            self._metrics.speech.errors.labels(error.code).inc()
            await _send_last(socket, Error.of(error, session=assign.session if assign else None, closed=True))
            return False
        except WireClosed:
            return False
        place, dismissed = self._places.take(assign)
        self._sockets.add(socket)
        self._empty.clear()
        try:
            return await self._hold(socket, place, dismissed)
        finally:
            self._places.leave(place)
            self._sockets.discard(socket)
            if not self._sockets:
                self._empty.set()

    def _admit(self, assign: Assign) -> None:
        """Refuse what would hurt the sessions that run, or has come to the wrong place."""
        if assign.epoch != self._epoch:
            raise WorkerLost(f"worker {self._id} has restarted: it is in epoch {self._epoch}, not {assign.epoch}")
        if self.state is not WorkerState.ACTIVE:
            raise Overloaded(f"worker {self._id} is {self.state}; choose another", retry_after_s=1)
        self._places.check_place(assign)
        if assign.voice.model != self._engine.layout.speech.name:
            raise InvalidRequest(f"worker {self._id} holds another model than {assign.voice.model!r}", param="model")
        self._places.check_adapter(assign)

    async def _hold(self, socket: Wire, place: Place, dismissed: Sequence[Place]) -> bool:
        """A session from its admission to its end; it begins when the dismissed ones have freed what it needs.

        Whether it has ended by itself.
        """
        assign = place.assign
        try:
            async with asyncio.TaskGroup() as group:
                yielding = group.create_task(_until_dismissed(place))
                try:
                    for other in dismissed:
                        await other.free.wait()
                    await self._equip(socket, assign)
                finally:
                    place.free.set()
                yielding.cancel()
            return True
        except* CarillonError as group:
            error = _first(group)
            self._metrics.speech.errors.labels(error.code).inc()
            log.info("session failed", extra={"session": assign.session, "code": error.code})
            await _send_last(socket, Error.of(error, session=assign.session, closed=True))
        except* WireClosed:
            log.info("front door left", extra={"session": assign.session})
        return False

    async def _equip(self, socket: Wire, assign: Assign) -> None:
        """Speak with the voice's adapter in the engine, if it has one."""
        async with AsyncExitStack() as stack:
            adapter = None
            if assign.voice.adapter:
                with span("adapter", adapter=assign.voice.adapter.name):
                    async with asyncio.TaskGroup() as group:
                        gone = group.create_task(_until_closed(socket))
                        adapter = await stack.enter_async_context(self._adapters.use(assign.voice.adapter))
                        gone.cancel()
            await self._converse(socket, assign, adapter)

    async def _converse(self, socket: Wire, assign: Assign, adapter: EngineAdapter | None) -> None:
        session = Session(
            assign,
            engine=self._engine,
            decoder=self._decoder,
            adapter=adapter,
            settings=self._settings.session,
            clock=self._clock,
            meters=self._metrics.speech,
        )
        card = ModelCard.of(self._engine.layout)
        socket.send(ready(assign, worker_id=self._id, card=card, settings=self._settings).model_dump_json())
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(_read(socket, session))
            session.send_queue.outlet = partial(_send_now, socket)
            writer = group.create_task(_write(socket, session, self._settings.session.slow_reader_timeout_s))
            with span("session", session=session.id, pace=assign.pace) as speaking:
                try:
                    await session.run()
                finally:
                    speaking.note(**session.ledger().model_dump())
            await writer
            reader.cancel()


class _Accepted(Wire):
    """A front door's connection, handed to `begin` once it stands."""

    def __init__(self, begin: Callable[[Wire, Mapping[str, str]], None], headers: Mapping[str, str]) -> None:
        super().__init__()
        self._begin = begin
        self._headers = headers

    def on_ws_connected(self, transport: WSTransport) -> None:
        super().on_ws_connected(transport)
        # What is sent is the kernel's, or the session waits: nothing is lost here when the connection is closed.
        transport.underlying_transport.set_write_buffer_limits(high=0)
        self._begin(self, self._headers)


def _answer(status: http.HTTPStatus, text: str) -> Answer:
    body = text.encode()
    if status is http.HTTPStatus.OK:
        return Answer(WSUpgradeResponse.create_ok_response(body), None)
    return Answer(WSUpgradeResponse.create_error_response(status, body), None)


async def _first_message(socket: Wire) -> Assign:
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            message = parse_peer(WORKER_COMMANDS, await socket.receive())
    except TimeoutError:
        raise DeadlineExceeded(f"no assign within {_HANDSHAKE_S:g} s of connecting") from None
    if not isinstance(message, Assign):
        raise InvalidRequest(f"the first message is {message.type!r}; it must be 'assign'")
    return message


async def _until_closed(socket: Wire) -> None:
    await socket.until_closed()
    raise WireClosed("the front door has closed the connection")


async def _until_dismissed(place: Place) -> None:
    await place.dismissed.wait()
    raise Overloaded("the place is needed by a session with a listener; come again when there is a spare one")


async def _read(socket: Wire, session: Session) -> None:
    """Carry out what the client sends. A message that cannot be is answered, and the session goes on."""
    while True:
        raw = await socket.receive()
        try:
            match parse_peer(WORKER_COMMANDS, raw):
                case Text(text=text):
                    session.push(text)
                case Utter() as utter:
                    session.utter(utter)
                case Flush():
                    session.flush()
                case Eos():
                    session.end()
                case Cancel(played_samples=played):
                    await session.cancel(played)
                case Ping(id=id):
                    socket.send(Pong(id=id).model_dump_json())
                case Assign():
                    raise InvalidRequest("this socket has its session already; open another for the next")
        except CarillonError as error:
            if isinstance(error, SlowReader):
                raise
            socket.send(Error.of(error, session=session.id).model_dump_json())


def _send_now(socket: Wire, item: Outgoing) -> bool:
    """Send what need not wait. The last item is left to `_write`, which ends with it."""
    if socket.clogged or isinstance(item, Done):
        return False
    socket.send(_packed(item))
    return True


async def _write(socket: Wire, session: Session, timeout_s: float) -> None:
    """Send what the session emits and could not be sent at once, in order, until `Done`."""
    deadline = Deadline()
    try:
        while True:
            item = await session.send_queue.get()
            socket.send(_packed(item))
            if socket.clogged:
                with deadline.within(timeout_s):
                    await socket.cleared()
            if isinstance(item, Done):
                return
    except TimeoutError:
        raise SlowReader(f"the front door took nothing for {timeout_s:g} s") from None
    finally:
        deadline.close()


def _packed(item: Outgoing) -> str | bytes:
    return item.pack() if isinstance(item, AudioFrame) else item.model_dump_json()


async def _send_last(socket: Wire, message: Message) -> None:
    """Send a last message to a socket that may be gone."""
    socket.send(message.model_dump_json())
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await socket.cleared()


def _first(group: BaseExceptionGroup[CarillonError]) -> CarillonError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
