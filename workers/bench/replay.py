"""Workers without an engine, for `carillon bench fleet`: the real private protocol, and canned audio at the pace of a
listener. Run as `python -m workers.bench.replay`, configured as a worker is.

Registration, heartbeats, admission and every message are a worker's; there is no text work, no codec and no adapter, so
that one core has room for a thousand sessions. One process is several workers: CARILLON_WORKER_ID and a number. Every
frame begins with the time at which it was sent (`STAMP`), which the load generator reads: both sides of the same
machine have the same monotonic clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import http
import signal
import struct
import time
from collections import deque
from dataclasses import dataclass

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, WSUpgradeResponse, ws_create_server
from picows import WSUpgradeResponseWithListener as Refusal

from app.errors import CarillonError, DeadlineExceeded, InvalidRequest, Overloaded, WorkerLost
from app.fleet.registry import LeaseRecord, Registry, open_redis
from app.fleet.worker import Worker, WorkerState
from app.platform import profiles
from app.platform.logs import configure_logging
from app.platform.settings import Settings, load_settings
from app.speech.latency import Ledger
from app.speech.protocol import (
    MAX_MESSAGE_BYTES,
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
    Message,
    Ping,
    Pong,
    Ready,
    Segment,
    Text,
    parse_peer,
)
from app.speech.token_layout import TOKENS_PER_FRAME
from app.speech.voices import ModelCard
from workers.handshake import has_fleet_secret, ready
from workers.heartbeat import Heartbeat

SAMPLE_RATE_HZ = 24_000
CHARS_PER_S = 14.0
"""As English is read."""

MODEL = ModelCard(
    name="replay",
    stand_in=True,
    languages=("en",),
    voices=tuple(f"replay-{number}" for number in range(64)),
    sample_rate_hz=SAMPLE_RATE_HZ,
    tokens_per_s=82.03,
)

HURRIED_LEAD_S = 0.3
"""Below it a worker sends every frame by itself, and as fast as it can; see workers.session."""

RELAXED_LEAD_S = 0.35
"""At what lead the next message is due then: above the former, so that a timer that is a little late hurries no
session."""

HURRY = 4
"""How much faster than real time frames come then."""

STAMP = struct.Struct("<q")
"""CLOCK_MONOTONIC in ns, in place of the first four samples of each frame."""

CODES_OF_A_FRAME = bytes(2 * TOKENS_PER_FRAME)

SENTENCE_ENDS = (".", "!", "?")


@dataclass(frozen=True)
class Cadence:
    """How audio comes: so many frames in one message once the listener has enough."""

    samples_per_frame: int = 2048
    frames_per_message: int = 1

    @property
    def frame_s(self) -> float:
        return self.samples_per_frame / SAMPLE_RATE_HZ

    def frames_of(self, text: str) -> int:
        return max(1, round(len(text) / CHARS_PER_S / self.frame_s))


class ReplaySession(WSListener):
    """One front door's connection, and the session on it."""

    def __init__(self, worker: ReplayWorker) -> None:
        self._worker = worker
        self._cadence = worker.cadence
        self._loop = asyncio.get_running_loop()
        self._socket: WSTransport
        self._id: str | None = None
        self._pending = ""
        self._chunks: deque[str] = deque()
        self._chunk: str | None = None
        self._frames_left = 0
        self._chunk_start = 0
        self._chunks_spoken = 0
        self._chars = 0
        self._samples = 0
        self._sequence = 0
        self._generation = 0
        self._played_until_s = 0.0
        self._next: asyncio.TimerHandle | None = None
        self._ended = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._socket = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._stop()
        if self._id is not None:
            self._worker.sessions.discard(self._id)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()
        elif frame.msg_type is WSMsgType.TEXT:
            try:
                self._obey(parse_peer(WORKER_COMMANDS, frame.get_payload_as_bytes()))
            except CarillonError as error:
                self._say(Error.of(error, session=self._id, closed=self._id is None))

    def _obey(self, command: Message) -> None:
        match command:
            case Text(text=text):
                self._receive(text)
            case Eos():
                self._ended = True
                self._cut()
                self._go_on()
            case Assign():
                self._worker.admit(command)
                self._id = command.session
                self._say(self._worker.ready(command))
            case Flush():
                self._cut()
                self._say(Flushed(session=self._name, samples=self._samples))
            case Cancel():
                self._cancel()
            case Ping(id=id):
                self._say(Pong(id=id))
            case _:
                raise InvalidRequest(f"a replayed session knows no {type(command).__name__}")

    @property
    def _name(self) -> str:
        if self._id is None:
            raise InvalidRequest("the first message must be 'assign'")
        return self._id

    def _receive(self, text: str) -> None:
        self._pending += text
        if self._pending.rstrip().endswith(SENTENCE_ENDS):
            self._cut()

    def _cut(self) -> None:
        if self._pending.strip():
            self._chunks.append(self._pending)
            self._go_on()
        self._pending = ""

    def _cancel(self) -> None:
        self._stop()
        self._generation += 1
        self._pending, self._chunk, self._chars = "", None, 0
        self._chunks.clear()
        self._say(Cancelled(session=self._name, generation=self._generation, spoken_text="", samples=self._samples))
        self._go_on()

    # Speaking: one timer a session, set again for each message.

    def _go_on(self) -> None:
        if self._next is None:
            self._played_until_s = max(self._played_until_s, self._loop.time())
            self._speak()

    def _stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _speak(self) -> None:
        """Send what is due now, and come again when more is."""
        self._next = None
        if self._chunk is None and not self._begin():
            if self._ended:
                self._end()
            return
        now_s, frame_s = self._loop.time(), self._cadence.frame_s
        hurried = self._played_until_s - now_s < HURRIED_LEAD_S
        frames = min(1 if hurried else self._cadence.frames_per_message, self._frames_left)
        self._send(frames)
        self._played_until_s = max(self._played_until_s, now_s) + frames * frame_s
        due_s = now_s + frame_s / HURRY if hurried else self._played_until_s - RELAXED_LEAD_S
        self._next = self._loop.call_at(due_s, self._speak)

    def _begin(self) -> bool:
        """Take the next chunk, if there is one."""
        if not self._chunks:
            return False
        self._chunk = self._chunks.popleft()
        self._frames_left = self._cadence.frames_of(self._chunk)
        self._chunk_start = self._samples
        self._chunks_spoken += 1
        start, self._chars = self._chars, self._chars + len(self._chunk)
        self._say(
            Begun(
                session=self._name,
                generation=self._generation,
                text=self._chunk,
                start_char=start,
                end_char=self._chars,
                start_sample=self._samples,
            )
        )
        return True

    def _send(self, frames: int) -> None:
        stamp, size = STAMP.pack(time.monotonic_ns()), self._cadence.samples_per_frame
        pcm16 = (stamp + bytes(2 * size - len(stamp))) * frames
        codes = CODES_OF_A_FRAME * frames
        frame = AudioFrame(0, self._generation, self._sequence, self._samples, pcm16, codes)
        self._socket.send(WSMsgType.BINARY, frame.pack())
        self._sequence += 1
        self._samples += frames * size
        self._frames_left -= frames
        if not self._frames_left:
            assert self._chunk is not None
            self._say(
                Segment(
                    session=self._name,
                    generation=self._generation,
                    text=self._chunk,
                    start_sample=self._chunk_start,
                    end_sample=self._samples,
                )
            )
            self._chunk = None

    def _end(self) -> None:
        ledger = Ledger(
            samples=self._samples,
            tokens=self._samples // self._cadence.samples_per_frame * TOKENS_PER_FRAME,
            chunks=self._chunks_spoken,
            sample_rate_hz=SAMPLE_RATE_HZ,
        )
        self._say(Done(session=self._name, samples=self._samples, ledger=ledger))
        self._socket.send_close()
        self._socket.disconnect()

    def _say(self, message: Message) -> None:
        self._socket.send(WSMsgType.TEXT, message.model_dump_json().encode())


class ReplayWorker:
    """One worker of the fleet: registered, listening, admitting."""

    def __init__(self, id: str, settings: Settings, registry: Registry, cadence: Cadence) -> None:
        self.sessions: set[str] = set()
        self.cadence = cadence
        self._id = id
        self._settings = settings
        self._profile = settings.over(profiles.CPU)
        self._registry = registry
        self._epoch = 0
        self._address = ""

    async def run(self) -> None:
        """Serve until cancelled."""
        server = await ws_create_server(
            self._open, self._settings.worker_host, 0, max_frame_size=MAX_MESSAGE_BYTES, backlog=1024
        )
        async with server:
            self._address = f"ws://{self._settings.worker_host}:{server.sockets[0].getsockname()[1]}"
            self._epoch = await self._registry.join(self._id)
            heartbeat = Heartbeat(
                self._registry,
                self._record,
                lambda: map(LeaseRecord, self.sessions),
                retire=lambda voice_id: None,
                interval_s=self._settings.heartbeat_s,
            )
            try:
                await heartbeat.run()
            finally:
                with contextlib.suppress(DeadlineExceeded):
                    await self._registry.leave(self._id, self._epoch)

    def _record(self) -> Worker:
        return Worker(
            id=self._id,
            epoch=self._epoch,
            address=self._address,
            model=MODEL,
            state=WorkerState.ACTIVE,
            capacity=self._profile.capacity,
            max_voices=self._profile.max_loras,
        )

    def _open(self, request: WSUpgradeRequest) -> WSListener | Refusal:
        if has_fleet_secret(request.headers.get("Authorization", ""), self._settings):
            return ReplaySession(self)
        refusal = WSUpgradeResponse.create_error_response(http.HTTPStatus.UNAUTHORIZED, b"the fleet secret differs\n")
        return Refusal(refusal, None)

    def admit(self, assign: Assign) -> None:
        """Raises the reason for a refusal."""
        if assign.epoch != self._epoch:
            raise WorkerLost(f"worker {self._id} is in epoch {self._epoch}, not {assign.epoch}")
        if len(self.sessions) >= self._profile.capacity:
            raise Overloaded(f"worker {self._id} speaks with {len(self.sessions)} already", retry_after_s=1)
        self.sessions.add(assign.session)

    def ready(self, assign: Assign) -> Ready:
        return ready(assign, worker_id=self._id, card=MODEL, settings=self._settings)


async def serve(settings: Settings, *, workers: int, cadence: Cadence) -> None:
    """Be `workers` workers until SIGTERM."""
    redis = open_redis(settings)
    registry = Registry(redis, settings)
    family = settings.worker_id or "replay"
    body = asyncio.current_task()
    assert body
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, body.cancel)
    gc.freeze()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(1, workers + 1):
                group.create_task(ReplayWorker(f"{family}-{number}", settings, registry, cadence).run())
    except asyncio.CancelledError:
        pass  # by the signal: this is the end
    finally:
        await redis.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workers.bench.replay", description=__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--frames", type=int, default=1, help="in one message, once the listener has enough")
    options = parser.parse_args()
    settings = load_settings()
    configure_logging(settings)
    uvloop.run(serve(settings, workers=options.workers, cadence=Cadence(frames_per_message=options.frames)))


if __name__ == "__main__":
    main()
