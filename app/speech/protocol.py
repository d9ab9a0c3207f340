"""The session protocol: JSON control messages and binary audio frames over one WebSocket.

A client speaks it with the front door, many sessions on one socket; the front door speaks the same messages with a
worker, one session a socket, where `start` is replaced by `assign`. The reference page is generated from these models.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.config import ExtraValues

from app.errors import (
    CarillonError,
    InvalidRequest,
)
from app.speech.choices import AudioFormat
from app.speech.field_errors import check_storable, first_fault
from app.speech.latency import Ledger
from app.speech.text.options import TextFields, TextOptions
from app.speech.turn import Turn
from app.speech.voices import Voice

MAX_MESSAGE_BYTES = 256 * 1024
"""A control message longer than this is refused; text of any length can be sent in pieces."""

MAX_CLIENT_QUOTES = 128
"""That a client's message may have outside of its texts: thirty fields' worth, where `start` has ten."""

SESSION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
SessionId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
Pace = Literal["realtime", "unpaced"]
AssignedPace = Literal["realtime", "unpaced", "background"]
"""How a worker is to speak. Only the fleet's own programs use "background": a spare place, given up on demand."""

MAX_UTTERANCE_CHARS = 600
"""Of one `utter`: three quarters of a minute, as English is read, which still fits a context of 4096 tokens."""


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# Client to server.


class Start(TextFields, Message):
    """Open a session: one voice, one format, any amount of text.

    It has a place at a worker while there is text to speak. After some seconds without, others may have the place, and
    the session takes one again with its next text; `waiting` says what for, where that takes long."""

    type: Literal["start"] = "start"
    session: SessionId = Field(description="Chosen by the client, unique among the sessions open on this socket.")
    voice: str = Field(min_length=1, max_length=128)
    model: str | None = Field(default=None, max_length=128, description="None: whichever served model has the voice.")
    format: AudioFormat = AudioFormat.PCM
    speed: float = Field(default=1.0, ge=0.25, le=4.0, description="Of the tempo; the pitch stays.")
    temperature: float | None = Field(default=None, ge=0.0, le=2.0, description="None: the checkpoint's own.")
    pace: Pace = Field(
        default="realtime",
        description="realtime: later text is spoken as the listener gets there, so that a cancel wastes little; "
        "unpaced: as fast as the fleet can.",
    )
    window_samples: int | None = Field(
        default=None,
        ge=4_800,
        description="Credit: send at most this many samples, as delivered, beyond those granted by `credit`. None: no "
        "limit.",
    )
    resumable: bool = Field(
        default=False,
        description="`ready` carries a token with which the session can be taken up on another connection, to any "
        "front door, for a minute after this one broke.",
    )
    timestamps: bool = Field(
        default=False,
        description="`segment` carries its `words`, and comes a moment later than it would without; audio does not.",
    )
    turn: Turn | None = Field(
        default=None, description="When the person answered by the first text stopped speaking, as in `text`."
    )


class Resume(Message):
    """Take up a session whose connection broke; all but the credit is as its `start` said. Answered by `ready`, then
    `resumed`, then the audio goes on."""

    type: Literal["resume"] = "resume"
    session: SessionId = Field(description="An id for this socket, chosen as for `start`.")
    token: str = Field(min_length=1, max_length=128, description="`resume_token` of `ready`.")
    received_samples: int | None = Field(
        default=None,
        ge=0,
        description="Audio from this sample on is wanted, on the scale of the frames' `sample_offset`. None: from what "
        "was last sent.",
    )
    window_samples: int | None = Field(default=None, ge=4_800, description="Credit on this connection, as in `start`.")


class Text(Message):
    """More text, as it comes: a letter, a word, a page."""

    type: Literal["text"] = "text"
    session: SessionId
    text: str
    turn: Turn | None = Field(
        default=None,
        description='When the person being answered stopped speaking: `{"ended_at": …}`. The first one counts.',
    )


class Flush(Message):
    """Speak what has been sent, without waiting for the end of a sentence; answered by `flushed`."""

    type: Literal["flush"] = "flush"
    session: SessionId


class Eos(Message):
    """No more text: speak the rest, then `done`."""

    type: Literal["eos"] = "eos"
    session: SessionId


class Cancel(Message):
    """Stop speaking at once (barge-in). Pending text is dropped; the session stays open for the next turn."""

    type: Literal["cancel"] = "cancel"
    session: SessionId
    played_samples: int | None = Field(
        default=None,
        ge=0,
        description="How far the listener heard, on the scale of the frames' `sample_offset`; for `spoken_text`.",
    )


class Credit(Message):
    """Allow `samples` more to be sent, in a session started with `window_samples`; in any other it changes nothing."""

    type: Literal["credit"] = "credit"
    session: SessionId
    samples: int = Field(ge=1)


class Ping(Message):
    """Answered by `pong` with the same `id`."""

    type: Literal["ping"] = "ping"
    id: str | None = Field(default=None, max_length=64)


class PartialChunk(Message):
    """A chunk whose codes are known, in part or whole: what another worker needs to go on within it."""

    text: str
    start_sample: int
    codes: tuple[int, ...] = Field(default=(), description="In frame order; a partial frame is generated again.")
    whole: bool = Field(default=False, description="These are all its codes: there is nothing left to generate.")


class Resumption(Message):
    """Where a session stands that began at another worker; what it sends next is numbered from here."""

    generation: int = 0
    samples: int = Field(default=0, description="The listener has the audio up to this sample.")
    chars: int = Field(default=0, description="Characters of the turn's cleaned text before the text that follows.")
    tokens: int = 0
    chunks: int = 0
    rate: float = Field(default=1.0, description="Of the text that follows the chunk: see `app.speech.text.marks`.")
    chunk: PartialChunk | None = Field(default=None, description="Whose samples up to `samples` are not sent again.")


class Assign(Message):
    """The front door gives a worker a session, under a lease it has claimed. Replaces `start` on a worker's socket."""

    type: Literal["assign"] = "assign"
    session: SessionId = Field(description="The lease's id: unique in the fleet.")
    epoch: int = Field(description="The worker's epoch as the front door knows it; another one is refused.")
    voice: Voice
    temperature: float | None = None
    pace: AssignedPace = "realtime"
    text: TextOptions = Field(default=TextOptions(), description="How chunks are read; markup is gone by then.")
    resume: Resumption | None = Field(default=None, description="None: the session begins here.")


class Utter(Message):
    """Speak exactly this text, cleaned but not cut, as one request of the engine, in order after those before it.

    For the fleet's own programs; a session takes utterances or `text`, not both. Answered by frames and one `uttered`.
    """

    type: Literal["utter"] = "utter"
    session: SessionId
    text: str
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="None: another reading each time.")


# Server to client.


class Limits(Message):
    """What a session may do, sent once at its start."""

    max_pending_chars: int = Field(description="Text sent and not yet spoken.")
    idle_timeout_s: float = Field(
        description="A session to which nothing was sent for so long after its audio is closed."
    )
    slow_reader_timeout_s: float = Field(description="Audio that is not taken for so long closes the session.")


class Ready(Message):
    """The session has a place at a worker."""

    type: Literal["ready"] = "ready"
    session: SessionId
    channel: int = Field(default=0, description="The number that marks this session's binary frames.")
    model: str
    stand_in: bool
    voice: str
    worker: str
    format: AudioFormat = AudioFormat.PCM
    sample_rate_hz: int
    limits: Limits
    ignored: tuple[str, ...] = Field(
        default=(),
        description="Of the options of `start`, those that cannot be honoured: `normalise` where the "
        "language has no rules.",
    )
    resume_token: str | None = Field(
        default=None, description="Of a resumable session: keep it secret: with it and the key anyone has the session."
    )


class Resumed(Message):
    """A session goes on here. What was sent on the old connection and is not counted here has not arrived."""

    type: Literal["resumed"] = "resumed"
    session: SessionId
    generation: int = Field(description="The cancels that have arrived; `cancelled` follows for each not answered yet.")
    sample_offset: int = Field(
        description="Where the audio goes on: drop what was received from there on. More than `received_samples` only "
        "where a cancel dropped audio, or it was received too long ago to be kept."
    )
    text_chars: int = Field(
        description="Characters (Unicode code points) of this turn's text that have arrived: send the rest again."
    )
    ended: bool = Field(description="Whether `eos` has arrived.")


class Begun(Message):
    """A worker begins to speak a chunk: characters `[start_char, end_char)` of the turn's cleaned text."""

    type: Literal["begun"] = "begun"
    session: SessionId
    generation: int
    text: str
    start_char: int
    end_char: int
    start_sample: int


class Waiting(Message):
    """The session's worker is gone and none has room yet: it goes on, at the very sample, as soon as one has."""

    type: Literal["waiting"] = "waiting"
    session: SessionId
    reason: str = Field(description="What is waited for: `worker-1 is starting (loading the model)`.")


class Word(BaseModel):
    """A word of a segment, as it was written, and the samples that speak it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    start_sample: int
    end_sample: int


class Segment(Message):
    """A stretch of text and the samples that speak it, `[start_sample, end_sample)` of this session's audio."""

    type: Literal["segment"] = "segment"
    session: SessionId
    generation: int = Field(description="How many cancels came before it.")
    text: str = Field(
        description="As it was written, without markup; trimmed, and with one space for any other. Empty: a pause."
    )
    start_sample: int
    end_sample: int
    start_char: int | None = Field(
        default=None,
        description="Where it stands in the turn's text as it was sent, `[start_char, end_char)`, in Unicode code "
        "points. None: another turn has begun.",
    )
    end_char: int | None = None
    complete: bool = Field(default=True, description="False: the model was stopped before it ended by itself.")
    words: tuple[Word, ...] | None = Field(
        default=None,
        description="Where `timestamps` were asked for: its words in order, with the punctuation that touches them, "
        "`{text, start_sample, end_sample}` since the session's start, as delivered.",
    )
    approximate: bool | None = Field(
        default=None,
        description="Of `words`. False: heard in the audio (English). True: laid out by their lengths.",
    )


class Uttered(Message):
    """An `utter` has been spoken and sent: `[start_sample, end_sample)`, and what only the worker knows of it."""

    type: Literal["uttered"] = "uttered"
    session: SessionId
    start_sample: int
    end_sample: int
    complete: bool = Field(description="False: the model was stopped before it ended by itself.")
    repeated_s: float = Field(description="The longest stretch in which its codes repeat: app.speech.repetition.")


class Flushed(Message):
    """Everything sent before a `flush` has been spoken and sent."""

    type: Literal["flushed"] = "flushed"
    session: SessionId
    samples: int = Field(description="Where the audio of what was flushed ends, since the session's start.")


class Cancelled(Message):
    """The answer to `cancel`: no frame of an older generation follows."""

    type: Literal["cancelled"] = "cancelled"
    session: SessionId
    generation: int
    spoken_text: str = Field(description="Text whose audio was heard (by played_samples), or else sent, to the word.")
    samples: int = Field(description="Where the next turn's audio begins, since the session's start.")


class Done(Message):
    """All of the session's audio has been sent; its id is free again."""

    type: Literal["done"] = "done"
    session: SessionId
    samples: int = Field(description="Of the whole session, dropped ones included.")
    ledger: Ledger
    ignored: tuple[str, ...] = Field(
        default=(), description="Elements of the text's markup that were read, and not done: `emphasis`."
    )


class Error(Message):
    """Something failed: a message (the session goes on) or, when `closed`, its session."""

    type: Literal["error"] = "error"
    session: str | None = None
    code: str
    message: str
    retryable: bool
    param: str | None = None
    retry_after_s: float | None = None
    closed: bool = Field(default=False, description="The session has ended with this error.")

    @classmethod
    def of(cls, error: CarillonError, *, session: str | None = None, closed: bool = False) -> Error:
        return cls(session=session, closed=closed, **error.to_wire())

    def rebuilt(self) -> CarillonError:
        """The error as the sender raised it."""
        return CarillonError.from_wire(self.code, self.message, param=self.param, retry_after_s=self.retry_after_s)


class GoAway(Message):
    """The server is shutting down: finish or reconnect elsewhere within `deadline_ms`. It does not wait for resumable
    sessions: take them up on another connection at once."""

    type: Literal["goaway"] = "goaway"
    deadline_ms: int


class Pong(Message):
    """The answer to `ping`."""

    type: Literal["pong"] = "pong"
    id: str | None = None


ClientMessage = Annotated[Start | Resume | Text | Flush | Eos | Cancel | Credit | Ping, Field(discriminator="type")]
WorkerCommand = Annotated[Assign | Text | Utter | Flush | Eos | Cancel | Ping, Field(discriminator="type")]
ServerMessage = Annotated[
    Ready | Resumed | Waiting | Segment | Flushed | Cancelled | Done | Error | GoAway | Pong,
    Field(discriminator="type"),
]
WorkerMessage = Annotated[
    Ready | Begun | Segment | Uttered | Flushed | Cancelled | Done | Error | GoAway | Pong, Field(discriminator="type")
]

CLIENT_MESSAGES: TypeAdapter[Any] = TypeAdapter(ClientMessage)
WORKER_COMMANDS: TypeAdapter[Any] = TypeAdapter(WorkerCommand)
SERVER_MESSAGES: TypeAdapter[Any] = TypeAdapter(ServerMessage)
WORKER_MESSAGES: TypeAdapter[Any] = TypeAdapter(WorkerMessage)


def as_chosen(message: Message) -> str:
    """A message as it is sent, with only what was chosen in it: a process of an older version takes what asks for
    nothing that it does not know."""
    return json.dumps(message.model_dump(include={"type"}) | message.model_dump(mode="json", exclude_defaults=True))


def parse(adapter: TypeAdapter[Any], raw: str | bytes) -> Any:
    """Parse one control message. Raises InvalidRequest with the field and the reason, never the user's text."""
    return _parsed(adapter, raw, extra=None)


def parse_peer(adapter: TypeAdapter[Any], raw: str | bytes) -> Any:
    """As `parse`, of another process of ours, which may be of the next version: a field that is unknown here is
    nothing to fail on while a fleet is upgraded."""
    return _parsed(adapter, raw, extra="ignore")


def _parsed(adapter: TypeAdapter[Any], raw: str | bytes, *, extra: ExtraValues | None) -> Any:
    if len(raw) > MAX_MESSAGE_BYTES:
        raise InvalidRequest(f"a message has {len(raw)} bytes; at most {MAX_MESSAGE_BYTES}: send the text in pieces")
    try:
        return adapter.validate_json(raw, extra=extra)
    except ValidationError as error:
        place, reason = first_fault(error)
        raise InvalidRequest(f"{place or 'message'}: {reason}", param=place or "message") from None


def parse_client(raw: str) -> Any:
    """One message of a client, who may be hostile: counted before it is parsed, since every unknown field is an error
    of its own (20,000 took 75 ms, measured). Raises as `parse` does."""
    encoded = raw.encode()
    if len(encoded) <= MAX_MESSAGE_BYTES:
        unescaped = encoded.replace(b"\\\\", b"").replace(b'\\"', b"")
        if unescaped.count(b'"') > MAX_CLIENT_QUOTES:
            raise InvalidRequest("a message has more fields than any needs; send those that it has", param="message")
        try:
            check_storable(encoded)
        except ValueError as error:
            raise InvalidRequest(str(error), param=str(error).partition(":")[0]) from None
    return parse(CLIENT_MESSAGES, raw)


@dataclass(slots=True)
class AudioFrame:
    """A binary frame: 20 little-endian header bytes, then the encoded audio.

    `kind` u8 = 1, reserved u8, `channel` u16, `generation` u32, `sequence` u32 (from 0, without gaps, per session),
    `sample_offset` u64 (of the first sample this frame's audio was made from, since the session's start; it jumps where
    a cancel dropped audio).
    """

    channel: int
    generation: int
    sequence: int
    sample_offset: int
    audio: bytes
    codes: bytes = b""
    """Codes that the decoder has been given since the frame before, u16 little-endian: all that this audio is made of
    is in the codes up to here. Only workers send them (kind 2: a u16 behind the header counts them), to front doors."""

    HEADER: ClassVar[struct.Struct] = struct.Struct("<BxHIIQ")
    CODED_HEADER: ClassVar[struct.Struct] = struct.Struct("<BxHIIQH")
    KIND: ClassVar[int] = 1
    CODED_KIND: ClassVar[int] = 2

    def pack(self) -> bytes:
        numbers = self.channel, self.generation, self.sequence, self.sample_offset
        if not self.codes:
            return self.HEADER.pack(self.KIND, *numbers) + self.audio
        return self.CODED_HEADER.pack(self.CODED_KIND, *numbers, len(self.codes) // 2) + self.codes + self.audio

    @classmethod
    def unpack(cls, raw: bytes) -> AudioFrame:
        """Raises InvalidRequest for bytes that are no audio frame."""
        size = len(raw)
        if size >= cls.HEADER.size and raw[0] == cls.KIND:
            _, *fields = cls.HEADER.unpack_from(raw)
            return cls(*fields, audio=raw[cls.HEADER.size :])
        if size >= cls.CODED_HEADER.size and raw[0] == cls.CODED_KIND:
            _, *fields, count = cls.CODED_HEADER.unpack_from(raw)
            start = cls.CODED_HEADER.size + 2 * count
            if start <= size:
                return cls(*fields, audio=raw[start:], codes=raw[cls.CODED_HEADER.size : start])
        raise InvalidRequest(f"{size} bytes are no audio frame of this protocol")
