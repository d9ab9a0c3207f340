"""A worker without an engine: the real private protocol over a real socket, and a tone for each character.

Text is spoken at a sentence's end, at `flush` and at `eos`; each character sounds for 50 ms at a pitch of its own, made
of seven codes, its number. A session that began elsewhere goes on where it was. A test steers it by `allow` (how many
characters may sound), `refusal` (the answer to assignments), `failure` (raised in place of speech), `mute` (no text
sounds), `deaf` (commands are lost), `faults` (what is told of the next utterances' codes), `end_sessions`, `drain`,
`vanish` and `crash`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from app.errors import AuthenticationFailed, CarillonError, Overloaded, TextAfterEnd, TextTooLong
from app.fleet.registry import LeaseRecord, Registry
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings
from app.speech.latency import Ledger
from app.speech.protocol import (
    WORKER_COMMANDS,
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
    Message,
    PartialChunk,
    Resumption,
    Segment,
    Text,
    Utter,
    Uttered,
    parse,
)
from app.speech.text import clean
from app.speech.voices import ModelCard
from tests.support.deadlines import HANG_S
from workers.handshake import has_fleet_secret, ready

SAMPLE_RATE_HZ = 24_000
SAMPLES_PER_CHARACTER = 1_200
CODES_PER_CHARACTER = 7

STAND_IN = ModelCard(
    name="standin", stand_in=True, languages=("en",), voices=("slt", "rms"), sample_rate_hz=SAMPLE_RATE_HZ,
    tokens_per_s=82.03,
)  # fmt: skip


def tone(character: str) -> bytes:
    """50 ms of PCM s16le at a pitch that tells the character."""
    time_s = np.arange(SAMPLES_PER_CHARACTER) / SAMPLE_RATE_HZ
    wave = 0.3 * np.sin(2 * np.pi * (200 + ord(character) % 500) * time_s)
    return (wave * 32767).astype("<i2").tobytes()


class FakeSession:
    """One connection's session, spoken character by character."""

    def __init__(self, worker: FakeWorker, socket: ServerConnection, assign: Assign) -> None:
        self.id = assign.session
        self.assign = assign
        self.cancels = 0
        self._worker = worker
        self._socket = socket
        self._commands: asyncio.Queue[Message] = asyncio.Queue()
        self.cancels_waiting = 0
        before = assign.resume or Resumption()
        self._chunk = before.chunk
        self._pending = ""
        self._chars_before = before.chars
        self._turn = ""
        self._samples = before.samples
        self._sequence = 0
        self._generation = before.generation
        self._ended = False

    async def run(self) -> None:
        reader, talker = asyncio.create_task(self._read()), asyncio.create_task(self._talk())
        try:
            await asyncio.wait({reader, talker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reader.cancel()
            talker.cancel()
            await asyncio.gather(reader, talker, return_exceptions=True)

    async def _read(self) -> None:
        async for raw in self._socket:
            if self._worker.deaf:
                continue
            command = parse(WORKER_COMMANDS, raw)
            self._worker.told.append(command)
            self._commands.put_nowait(command)
            if isinstance(command, Cancel):
                self.cancels_waiting += 1
                self._worker.wake()

    async def _talk(self) -> None:
        try:
            if self._chunk and await self._sound(self._chunk.text, self._chunk):
                await self._report(self._chunk.text, self._chunk.start_sample)
            while not await self._obey(await self._commands.get()):
                pass
        except CarillonError as error:
            await self._send(Error.of(error, session=self.id, closed=True))

    async def _obey(self, command: Message) -> bool:
        """True once the session is over."""
        if isinstance(command, Text):
            await self._hear(command.text)
        elif isinstance(command, Utter):
            await self._utter(command)
        elif isinstance(command, Flush):
            await self._speak(self._pending)
            await self._send(Flushed(session=self.id, samples=self._samples))
        elif isinstance(command, Cancel):
            await self._cancel()
        elif isinstance(command, Eos):
            self._ended = True
            await self._speak(self._pending)
        if self._ended:
            ledger = Ledger(prefill_ms=1, decode_ms=1, samples=self._samples, tokens=7, sample_rate_hz=24_000)
            await self._send(Done(session=self.id, samples=self._samples, ledger=ledger))
        return self._ended

    async def _hear(self, text: str) -> None:
        limit = self._worker.settings.session.max_pending_chars
        if self._ended:
            await self._send(Error.of(TextAfterEnd("text after eos"), session=self.id))
        elif len(self._pending) + len(text) > limit:
            await self._send(Error.of(TextTooLong(f"at most {limit} characters may be pending"), session=self.id))
        else:
            self._pending += text
            self._turn += text
            if self._pending.rstrip().endswith((".", "!", "?")):
                await self._speak(self._pending)

    async def _utter(self, utter: Utter) -> None:
        start = self._samples
        self._worker.uttered.append(utter)
        if not await self._sound(utter.text.strip()):
            return
        complete, repeated_s = self._worker.faults.popleft() if self._worker.faults else (True, 0.0)
        told = {"complete": complete, "repeated_s": repeated_s}
        await self._send(Uttered(session=self.id, start_sample=start, end_sample=self._samples, **told))

    async def _speak(self, text: str) -> None:
        self._pending = ""
        spoken, start = "" if self._worker.mute else text.strip(), self._samples
        if spoken:
            end_char = self._chars_before + len(clean(self._turn))
            await self._send(
                Begun(
                    session=self.id,
                    generation=self._generation,
                    text=spoken,
                    start_char=end_char - len(clean(text)),
                    end_char=end_char,
                    start_sample=start,
                )
            )
        if await self._sound(spoken) and spoken:
            await self._report(spoken, start)

    async def _report(self, spoken: str, start_sample: int) -> None:
        await self._send(
            Segment(
                session=self.id,
                generation=self._generation,
                text=spoken,
                start_sample=start_sample,
                end_sample=self._samples,
            )
        )

    async def _sound(self, spoken: str, before: PartialChunk | None = None) -> bool:
        """Send the sound of a text, or what is missing of it; False when a cancel cut it off."""
        if self._worker.failure:
            raise self._worker.failure
        known = len(before.codes) // CODES_PER_CHARACTER if before else 0
        first, heard = divmod(self._samples - before.start_sample, SAMPLES_PER_CHARACTER) if before else (0, 0)
        for index, character in enumerate(spoken[first:], first):
            await self._worker.leave_to_speak(self)
            if await self._interrupted(spoken[:index]):
                return False
            codes = np.full(CODES_PER_CHARACTER if index >= known else 0, ord(character) % 4096, dtype="<u2").tobytes()
            audio, heard = tone(character)[2 * heard :], 0
            frame = AudioFrame(0, self._generation, self._sequence, self._samples, audio, codes)
            await self._socket.send(frame.pack())
            self._sequence += 1
            self._samples += len(audio) // 2
        return True

    async def _interrupted(self, spoken: str) -> bool:
        if not self.cancels_waiting:
            return False
        while not isinstance(command := self._commands.get_nowait(), Cancel):
            self._ended |= isinstance(command, Eos)
        await self._cancel(spoken)
        return True

    async def _cancel(self, spoken: str = "") -> None:
        self.cancels += 1
        self.cancels_waiting -= 1
        self._generation += 1
        self._pending, self._turn, self._chars_before = "", "", 0
        await self._send(
            Cancelled(session=self.id, generation=self._generation, spoken_text=spoken, samples=self._samples)
        )

    async def end(self, error: CarillonError) -> None:
        """End the session with an error, whatever is under way."""
        await self._send(Error.of(error, session=self.id, closed=True))
        await self._socket.close()

    @property
    def held(self) -> LeaseRecord:
        """The session's lease."""
        adapter = self.assign.voice.adapter
        return LeaseRecord(self.id, adapter.name if adapter else "", background=self.assign.pace == "background")

    async def say_goodbye(self, deadline_s: float) -> None:
        """Tell the front door that the worker drains."""
        await self._send(GoAway(deadline_ms=round(deadline_s * 1000)))

    async def _send(self, message: Message) -> None:
        await self._socket.send(message.model_dump_json())


class FakeWorker:
    """Registered in the registry, listening on a free port of this machine."""

    session_kind = FakeSession

    def __init__(
        self, registry: Registry, settings: Settings, *, id: str, card: ModelCard, capacity: int, max_voices: int
    ) -> None:
        self.id = id
        self.settings = settings
        self.mute = False
        self.deaf = False
        self.failure: CarillonError | None = None
        self.refusal: CarillonError | None = None
        self.sessions: dict[str, FakeSession] = {}
        self.assigned: list[Assign] = []
        self.told: list[Message] = []
        """Every command of every session, as it came."""
        self.uttered: list[Utter] = []
        self.faults: deque[tuple[bool, float]] = deque()
        self.state = WorkerState.ACTIVE
        self.part = ""
        self._registry = registry
        self._card = card
        self._capacity = capacity
        self._max_voices = max_voices
        self._epoch = 0
        self._address = ""
        self._server: Server | None = None
        self._heart: asyncio.Task[None] | None = None
        self._unknown: tuple[str, ...] = ()
        self._changed = asyncio.Condition()
        self._allowed: float = math.inf
        self._may_speak = asyncio.Event()
        self._may_speak.set()
        self._may_beat = asyncio.Event()
        self._may_beat.set()

    @property
    def record(self) -> Worker:
        return Worker(
            id=self.id,
            epoch=self._epoch,
            address=self._address,
            model=self._card,
            state=self.state,
            capacity=self._capacity,
            max_voices=self._max_voices,
            part=self.part,
        )

    def allow(self, *, characters: int | None) -> None:
        """Let so many more characters sound, over all sessions; None: all."""
        self._allowed = math.inf if characters is None else characters
        self.wake()

    def wake(self) -> None:
        """Let waiting sessions look whether they may speak, or have been cancelled."""
        self._may_speak.set()

    async def leave_to_speak(self, session: FakeSession) -> None:
        while self._allowed <= 0 and not session.cancels_waiting:
            self._may_speak.clear()
            await self._may_speak.wait()
        self._allowed -= 1
        await asyncio.sleep(0)

    async def until_leases(self, count: int) -> None:
        """Return once the registry holds exactly `count` leases at this worker."""
        async with asyncio.timeout(HANG_S):
            while [w.inflight + w.background for w in await self._registry.snapshot() if w.id == self.id] != [count]:
                await asyncio.sleep(0.01)

    async def stop_listening(self) -> None:
        """Refuse connections, while the heartbeat goes on."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def until_sessions(self, count: int) -> None:
        """Return once the worker has exactly `count` sessions."""
        async with asyncio.timeout(HANG_S), self._changed:
            await self._changed.wait_for(lambda: len(self.sessions) == count)

    async def beat(self) -> None:
        """Renew the record and the leases, as a worker does; a drain that is ordered then begins."""
        held = [session.held for session in self.sessions.values()]
        pulse = await self._registry.beat(self.record, held, again=self._unknown)
        if pulse is not None:
            self._unknown = pulse.unknown
            if pulse.drain_s is not None and self.state is not WorkerState.DRAINING:
                await self.drain(pulse.drain_s)

    async def drain(self, deadline_s: float) -> None:
        """Take no new session, and tell those that run until when they may stay."""
        self.state = WorkerState.DRAINING
        for session in list(self.sessions.values()):
            await session.say_goodbye(deadline_s)
        await self.beat()

    async def end_sessions(self, error: CarillonError) -> None:
        """End every session with an error, as a worker does that needs their places, or finds them idle."""
        for session in list(self.sessions.values()):
            await session.end(error)
        await self.until_sessions(0)

    async def crash(self) -> None:
        """Break every connection at once, as a killed process does; the registry is not told."""
        assert self._server is not None
        for connection in list(self._server.connections):
            connection.transport.abort()

    async def restart(self, part: str) -> None:
        """Die, and be seen again in this part of a new start, until `part` is "" and the state ACTIVE again."""
        self.state, self.part = WorkerState.STARTING, part
        self._epoch = await self._registry.join(self.id)
        await self.beat()
        await self.crash()

    async def vanish(self) -> None:
        """Fall silent with every socket open, as a machine does whose network is cut; its record has expired."""
        self.allow(characters=0)
        assert self._heart is not None
        self._heart.cancel()
        await asyncio.gather(self._heart, return_exceptions=True)
        await self._registry.leave(self.id, self._epoch)

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        if not has_fleet_secret(socket.request.headers.get("Authorization", ""), self.settings):
            await socket.send(Error.of(AuthenticationFailed("wrong fleet secret"), closed=True).model_dump_json())
            return
        with suppress(ConnectionClosed):
            assign = parse(WORKER_COMMANDS, await socket.recv())
            refusal = self.refusal
            if refusal is None and assign.epoch != self._epoch:
                refusal = Overloaded(f"epoch {assign.epoch} is over")
            if refusal is None and len(self.sessions) >= self._capacity:
                refusal = Overloaded("full")
            if refusal is not None:
                await socket.send(Error.of(refusal, session=assign.session, closed=True).model_dump_json())
                return
            await self._speak(socket, assign)

    async def _speak(self, socket: ServerConnection, assign: Assign) -> None:
        session = self.session_kind(self, socket, assign)
        self.assigned.append(assign)
        self.sessions[assign.session] = session
        await self._notify()
        try:
            answer = ready(assign, worker_id=self.id, card=self._card, settings=self.settings)
            await socket.send(answer.model_dump_json())
            await session.run()
        finally:
            del self.sessions[assign.session]
            await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def hold_heartbeat(self, *, over: bool = False) -> None:
        """Beat no more, until it is `over`."""
        if over:
            self._may_beat.set()
        else:
            self._may_beat.clear()

    async def _beat_for_ever(self) -> None:
        while True:
            await self._may_beat.wait()
            await self.beat()
            await asyncio.sleep(self.settings.heartbeat_s)


@asynccontextmanager
async def running_worker(
    registry: Registry,
    settings: Settings,
    *,
    id: str = "w1",
    card: ModelCard = STAND_IN,
    capacity: int = 4,
    max_voices: int = 2,
) -> AsyncIterator[FakeWorker]:
    worker = FakeWorker(registry, settings, id=id, card=card, capacity=capacity, max_voices=max_voices)
    async with serve(worker._serve, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        worker._server = server
        worker._address = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        worker._epoch = await registry.join(worker.id)
        await worker.beat()
        worker._heart = heart = asyncio.create_task(worker._beat_for_ever())
        try:
            yield worker
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)
            worker.allow(characters=None)
