"""The conversation over WebRTC: Opus both ways, and a data channel for events.

The browser makes the offer, with its microphone's track and a data channel; candidates are all in the answer, and no
server is asked for them but those in `talk.ice_servers`. It knows the conversation's microphone and playout, no turns.
"""

from __future__ import annotations

import asyncio
import fractions
import json
import logging
from collections import deque
from typing import Any

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from app.errors import CarillonError, InvalidRequest, Overloaded
from app.talk.commands import obey
from app.talk.conversation import Conversation, first_of
from app.talk.offers import Answer, Offer
from app.talk.playout import FRAME_SAMPLES, RATE_HZ, Playout
from app.talk.speaker import FrontDoor
from app.talk.speech_detector import RATE_HZ as HEARD_RATE_HZ
from app.talk.talk import Talk

CONNECT_TIMEOUT_S = 20.0
MOST_CANDIDATES = 64
"""Each is an address that this machine then sends packets to."""
MOST_TOLD = 500
"""Events that wait for the data channel to open."""
MOST_BUFFERED_BYTES = 1_000_000
"""In a data channel that the page does not read."""

log = logging.getLogger(__name__)


async def converse(talk: Talk, door: FrontDoor, offer: Offer) -> Answer:
    """The answer to `offer`; the conversation goes on beside, until the connection ends.

    Raises InvalidRequest for an offer that is none, and what a conversation is refused with.
    """
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    talk.spawn(_Peer(talk).run(door, offer, answer))
    return await answer


def _check(sdp: str) -> None:
    """Raises InvalidRequest unless it offers one microphone, no camera, and no more ways than a machine has."""
    lines = sdp.splitlines()
    media = sorted(line[2:].split(" ")[0] for line in lines if line.startswith("m="))
    if media not in (["audio"], ["application", "audio"]):
        raise InvalidRequest(
            f"an offer has one audio track and a data channel, this one: {', '.join(media)[:80] or 'nothing'}",
            param="sdp",
        )
    if sum(line.startswith("a=candidate:") for line in lines) > MOST_CANDIDATES:
        raise InvalidRequest(f"an offer has at most {MOST_CANDIDATES} candidates", param="sdp")


class _AnswerTrack(MediaStreamTrack):
    """The playout as a track: 20 ms at a time on a clock that does not drift; silence where there is nothing."""

    kind = "audio"

    def __init__(self, playout: Playout) -> None:
        super().__init__()
        self._playout = playout
        self._began: float | None = None
        self._samples = 0

    async def recv(self) -> av.AudioFrame:
        clock = asyncio.get_running_loop().time
        if self._began is None:
            self._began = clock()
        await asyncio.sleep(self._began + self._samples / RATE_HZ - clock())
        audio = self._playout.pull() or bytes(2 * FRAME_SAMPLES)
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(audio)
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, self._samples, fractions.Fraction(1, RATE_HZ)
        self._samples += FRAME_SAMPLES
        return frame


class _Peer:
    """One browser's connection."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        servers = [RTCIceServer(address) for address in talk.settings.ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._channel: RTCDataChannel | None = None
        self._untold: deque[str] = deque(maxlen=MOST_TOLD)
        self._track: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self._connected, self._over = asyncio.Event(), asyncio.Event()

    async def run(self, door: FrontDoor, offer: Offer, answer: asyncio.Future[Answer]) -> None:
        """Answer, then converse."""
        try:
            async with self._talk.conversation(door, voice=offer.voice, tell=self._tell) as conversation:
                described = await self._negotiate(offer, conversation)
                if not answer.done():
                    answer.set_result(described)
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await self._connected.wait()
                await first_of(conversation.run(), self._listen(conversation), self._over.wait())
        except TimeoutError:
            log.info("no way to a browser was found")
        except CarillonError as error:
            if not answer.done():
                answer.set_exception(error)
        except Exception:
            log.exception("conversation failed")
        finally:
            if not answer.done():
                answer.set_exception(Overloaded("the front door ends conversations; try again", retry_after_s=1))
            await self._connection.close()

    async def _negotiate(self, offer: Offer, conversation: Conversation) -> Answer:
        connection = self._connection

        @connection.on("connectionstatechange")
        def changed() -> None:
            if connection.connectionState == "connected":
                self._connected.set()
            elif connection.connectionState in ("failed", "closed"):
                self._over.set()

        @connection.on("track")
        def arrived(track: MediaStreamTrack) -> None:
            if track.kind == "audio" and not self._track.done():
                self._track.set_result(track)

        @connection.on("datachannel")
        def opened(channel: RTCDataChannel) -> None:
            self._channel = channel
            channel.on("message", lambda text: obey(text, conversation, self._tell))
            while self._untold:
                channel.send(self._untold.popleft())

        _check(offer.sdp)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer.sdp, offer.type))
            connection.addTrack(_AnswerTrack(conversation.playout))
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # aiortc raises whatever its parsers do
            raise InvalidRequest(
                f"the offer cannot be answered ({error or type(error).__name__})", param="sdp"
            ) from None
        return Answer(sdp=connection.localDescription.sdp, type=connection.localDescription.type)

    async def _listen(self, conversation: Conversation) -> None:
        track = await self._track
        resampler = av.AudioResampler(format="s16", layout="mono", rate=HEARD_RATE_HZ)
        while True:
            try:
                received = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(received, av.AudioFrame)
            for frame in resampler.resample(received):
                conversation.hear(frame.to_ndarray().reshape(-1).astype(np.int16))

    def _tell(self, event: dict[str, Any]) -> None:
        text = json.dumps(event)
        if self._channel is None:
            self._untold.append(text)
        elif self._channel.readyState == "open":
            if self._channel.bufferedAmount > MOST_BUFFERED_BYTES:
                self._over.set()
            else:
                self._channel.send(text)
