"""The conversation over a WebSocket, where WebRTC finds no way: PCM up, PCM down, and events as JSON.

Up: first `{"type": "start", "rate_hz": 48000, "voice": …}`, then mono int16 of that rate in binary messages, as the
microphone gives it. Down: the answer's audio, mono int16 of 24 kHz, 20 ms a message, at the pace at which it is heard;
`hold`, `resume` and `stop` say what becomes of what was sent and is not heard yet.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.errors import CarillonError, InvalidRequest, SlowReader
from app.talk.commands import obey
from app.talk.conversation import Conversation, first_of
from app.talk.microphone import LEAST_RATE_HZ, MOST_RATE_HZ, Microphone
from app.talk.playout import FRAME_SAMPLES, RATE_HZ
from app.talk.speaker import FrontDoor
from app.talk.talk import Talk

START_TIMEOUT_S = 10.0
MOST_WAITING = 1_000
"""Messages for a page that does not read: 20 s of audio."""
LEAD_FRAMES = 5
"""Sent ahead of the clock at the beginning of an answer, so that a network's jitter makes no gap."""
MAX_PACKET_BYTES = 64 * 1024
POLICY_VIOLATION = 1008


class TalkSocket:
    """One page's socket; the caller's credentials are in `door`."""

    def __init__(self, websocket: WebSocket, talk: Talk, door: FrontDoor) -> None:
        self._websocket = websocket
        self._talk = talk
        self._door = door
        self._waiting: asyncio.Queue[str | bytes] = asyncio.Queue(MOST_WAITING)
        self._overrun = asyncio.Event()

    async def run(self) -> None:
        """Converse until the page goes, or the front door stops."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                start = _start_of(await self._websocket.receive())
            async with self._talk.conversation(
                self._door, voice=start.get("voice"), tell=self._tell, lead_samples=LEAD_FRAMES * FRAME_SAMPLES
            ) as conversation:
                microphone = Microphone(start["rate_hz"])
                await first_of(
                    conversation.run(),
                    self._read(conversation, microphone),
                    self._play(conversation),
                    self._write(),
                    self._overrun.wait(),
                )
            if self._overrun.is_set():
                raise SlowReader("the page reads nothing of what is said to it")
            await self._close(1000, "")
        except WebSocketDisconnect:
            return
        except TimeoutError:
            await self._close(POLICY_VIOLATION, f"no start came within {START_TIMEOUT_S:g} s")
        except CarillonError as error:
            await self._refuse(error)

    def _tell(self, event: dict[str, Any]) -> None:
        self._send(json.dumps(event))

    def _send(self, message: str | bytes) -> None:
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self._overrun.set()

    async def _read(self, conversation: Conversation, microphone: Microphone) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (text := message.get("text")) is not None:
                obey(text, conversation, self._tell)
                continue
            packet = message["bytes"]
            if len(packet) > MAX_PACKET_BYTES or len(packet) % 2:
                raise InvalidRequest(f"{len(packet)} bytes are no packet of 16-bit audio; send about 20 ms in each")
            conversation.hear(microphone.take(np.frombuffer(packet, "<i2")))

    async def _play(self, conversation: Conversation) -> None:
        """Pull the answer at the pace of a clock, which does not drift."""
        loop = asyncio.get_running_loop()
        due, flowing = loop.time(), False
        while True:
            frame = conversation.playout.pull()
            ahead = 0 if flowing or frame is None else LEAD_FRAMES
            while frame is not None:
                self._send(frame)
                if not ahead:
                    break
                ahead -= 1
                frame = conversation.playout.pull()
            flowing = frame is not None
            due = max(due + FRAME_SAMPLES / RATE_HZ, loop.time() - 0.2)
            await asyncio.sleep(due - loop.time())

    async def _write(self) -> None:
        while True:
            message = await self._waiting.get()
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self._websocket.send_bytes(message)

    async def _refuse(self, error: CarillonError) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.send_text(json.dumps({"type": "error", **error.to_wire()}))
        await self._close(POLICY_VIOLATION, error.code)

    async def _close(self, code: int, reason: str) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.close(code, reason)


def _start_of(message: Any) -> dict[str, Any]:
    """The first message. Raises InvalidRequest naming what is wrong, WebSocketDisconnect."""
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    try:
        start = json.loads(message.get("text") or "")
        fits = start["type"] == "start" and isinstance(start["rate_hz"], int)
    except (ValueError, KeyError, TypeError, RecursionError):
        fits, start = False, {}
    if not fits:
        raise InvalidRequest('the first message is {"type": "start", "rate_hz": 48000}', param="start")
    if not LEAST_RATE_HZ <= start["rate_hz"] <= MOST_RATE_HZ:
        raise InvalidRequest(
            f"rate_hz {start['rate_hz']} is not between {LEAST_RATE_HZ} and {MOST_RATE_HZ}", param="rate_hz"
        )
    if start.get("voice") is not None and not (isinstance(start["voice"], str) and 0 < len(start["voice"]) <= 128):
        raise InvalidRequest("voice is a name of 1 to 128 characters", param="voice")
    return start
