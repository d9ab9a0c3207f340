"""A person on the other end of `/talk`: sends recorded speech, and keeps what is heard and told, with times."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import soundfile
import soxr
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from websockets.asyncio.client import ClientConnection, connect

from tests.support.deadlines import HANG_S

MICROPHONE_HZ = 16_000
PACKET_S = 0.02
AUDIBLE = 330
"""As the front door counts it: −40 dBFS."""


class Peer:
    """What both transports have: a line of speech to send at its pace, what came back, and when."""

    def __init__(self) -> None:
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.sounds: list[tuple[float, np.ndarray]] = []
        """Audio that came, int16, with the time of its first sample."""
        self.line = np.zeros(0, np.int16)
        """What the microphone is to hear next; silence when it is over."""
        self.spoken_until: float | None = None
        """When the last audible sample that was given to `say` left."""
        self._news = asyncio.Condition()
        self._audible_left = 0

    async def say(self, samples: np.ndarray) -> float:
        """Speak int16 of 16 kHz; returns the time at which its last audible sample left."""
        loud = np.flatnonzero(np.abs(samples.astype(np.int32)) >= AUDIBLE)
        self.spoken_until = None
        self.line, self._audible_left = samples, int(loud[-1]) + 1
        async with asyncio.timeout(HANG_S):
            while self.spoken_until is None:
                await self._changed()
        return self.spoken_until

    async def until(self, type: str, count: int = 1, **fields: Any) -> dict[str, Any]:
        """The `count`th event of a type with these fields."""
        async with asyncio.timeout(HANG_S):
            while True:
                found = self.told(type, **fields)
                if len(found) >= count:
                    return found[count - 1]
                await self._changed()

    def told(self, type: str, **fields: Any) -> list[dict[str, Any]]:
        return [it for _, it in self.events if it["type"] == type and fields.items() <= it.items()]

    def first_sound_after(self, moment: float) -> float | None:
        """When the first audible sample came after it."""
        for at, samples in self.sounds:
            loud = np.flatnonzero(np.abs(samples.astype(np.int32)) >= AUDIBLE)
            if at >= moment and len(loud):
                return at + loud[0] / 24_000
        return None

    def last_sound(self) -> float:
        """When the last audible audio came."""
        return max(at for at, samples in self.sounds if np.abs(samples.astype(np.int32)).max() >= AUDIBLE)

    def packet(self, now: float, samples: int) -> np.ndarray:
        """The next of the microphone, int16."""
        packet, self.line = self.line[:samples], self.line[samples:]
        if self._audible_left > 0:
            self._audible_left -= samples
            if self._audible_left <= 0:
                self.spoken_until = now + (self._audible_left + samples) / MICROPHONE_HZ
                self._wake()
        return np.pad(packet, (0, samples - len(packet)))

    def take(self, event: dict[str, Any]) -> None:
        self.events.append((time.monotonic(), event))
        self._wake()

    def _wake(self) -> None:
        self._waking = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def _changed(self) -> None:
        async with self._news:
            await self._news.wait()


Transport = Callable[..., AbstractAsyncContextManager[Peer]]


@asynccontextmanager
async def over_socket(url: str, key: str, *, voice: str | None = None) -> AsyncIterator[Peer]:
    """A conversation over the WebSocket with the front door at `url` (http://…)."""
    peer = Peer()
    address = url.replace("http", "ws", 1) + "/talk/audio"
    async with connect(address, additional_headers={"Authorization": f"Bearer {key}"}, proxy=None) as socket:
        await socket.send(json.dumps({"type": "start", "rate_hz": MICROPHONE_HZ, "voice": voice}))
        tasks = [asyncio.create_task(_receive(peer, socket)), asyncio.create_task(_send(peer, socket))]
        try:
            await peer.until("who")
            yield peer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _receive(peer: Peer, socket: ClientConnection) -> None:
    async for message in socket:
        if isinstance(message, bytes):
            peer.sounds.append((time.monotonic(), np.frombuffer(message, "<i2")))
        else:
            peer.take(json.loads(message))


async def _send(peer: Peer, socket: ClientConnection) -> None:
    due, samples = time.monotonic(), round(PACKET_S * MICROPHONE_HZ)
    while True:
        await socket.send(peer.packet(due, samples).tobytes())
        due += PACKET_S
        await asyncio.sleep(max(0, due - time.monotonic()))


def speech_of(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """float32 of any rate as a microphone's int16."""
    at_rate = soxr.resample(samples, rate_hz, MICROPHONE_HZ) if rate_hz != MICROPHONE_HZ else samples
    return (np.clip(at_rate, -1, 1) * 32767).astype(np.int16)


@asynccontextmanager
async def over_webrtc(url: str, key: str, *, voice: str | None = None) -> AsyncIterator[Peer]:
    """A conversation over WebRTC, as a browser has it."""
    peer = Peer()
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = connection.createDataChannel("events")
    channel.on("message", lambda text: peer.take(json.loads(text)))
    connection.addTrack(_Microphone(peer))
    receiving: list[asyncio.Task[None]] = []
    connection.on("track", lambda track: receiving.append(asyncio.create_task(_play(peer, track))))
    await connection.setLocalDescription(await connection.createOffer())
    offer = {"sdp": connection.localDescription.sdp, "type": "offer", "voice": voice}
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            headers = {"Authorization": f"Bearer {key}"}
            answer = (await http.post(f"{url}/talk/offer", json=offer, headers=headers)).raise_for_status().json()
        await connection.setRemoteDescription(RTCSessionDescription(**answer))
        await peer.until("who")
        yield peer
    finally:
        for task in receiving:
            task.cancel()
        await asyncio.gather(*receiving, return_exceptions=True)
        await connection.close()


class _Microphone(MediaStreamTrack):
    kind = "audio"

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self._peer = peer
        self._began: float | None = None
        self._samples = 0

    async def recv(self) -> av.AudioFrame:
        if self._began is None:
            self._began = time.monotonic()
        due = self._began + self._samples / MICROPHONE_HZ
        await asyncio.sleep(due - time.monotonic())
        packet = self._peer.packet(due, round(PACKET_S * MICROPHONE_HZ))
        frame = av.AudioFrame.from_ndarray(packet[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = MICROPHONE_HZ, self._samples, Fraction(1, MICROPHONE_HZ)
        self._samples += len(packet)
        return frame


async def _play(peer: Peer, track: MediaStreamTrack) -> None:
    resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
    while True:
        frame = await track.recv()
        assert isinstance(frame, av.AudioFrame)
        now = time.monotonic()
        for resampled in resampler.resample(frame):
            peer.sounds.append((now, resampled.to_ndarray().reshape(-1)))


QUESTIONS = Path(__file__).with_name("questions")
"""flite's `slt` (BSD) asking."""


def question(name: str) -> np.ndarray:
    """`story`: Please tell me a story. `count`: Count to three, please. `other`: No, stop it now, please. I want to ask
    something else. `yeah`: Yeah."""
    return speech_of(*soundfile.read(QUESTIONS / f"{name}.flac", dtype="float32"))
