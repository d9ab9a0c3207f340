"""The session protocol's reference page, written from the messages themselves.

`python -m app.api.native.protocol_page` writes PROTOCOL.md beside this file; the front door serves the same text at
`GET /v1/sessions/reference`, and a test keeps the file current.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from app.api.command_queue import MAX_COMMANDS
from app.api.errors_page import error_kinds, meaning
from app.platform.field_table import default_of, type_of
from app.platform.settings import SessionSettings
from app.speech import protocol
from app.speech.latency import Ledger
from app.speech.protocol import MAX_MESSAGE_BYTES, AudioFrame, Limits, Message

PAGE = Path(__file__).with_name("PROTOCOL.md")

_SESSION = SessionSettings()

_EXCHANGE = """\
→ {"type": "start", "session": "a", "voice": "wren"}
→ {"type": "text", "session": "a", "text": "**Good** "}
← {"type": "ready", "session": "a", "channel": 1, "format": "pcm", "sample_rate_hz": 24000}
→ {"type": "text", "session": "a", "text": "morning."}
→ {"type": "flush", "session": "a"}
← binary frames: channel 1, generation 0, sample_offset 0 …
← {"type": "segment", "session": "a", "generation": 0, "text": "Good morning.", "start_sample": 0, "end_sample": 15600}
← {"type": "flushed", "session": "a", "samples": 15600}
→ {"type": "text", "session": "a", "text": "What I never said"}
→ {"type": "cancel", "session": "a", "played_samples": 15600}
← {"type": "cancelled", "session": "a", "generation": 1, "samples": 15600}
→ {"type": "text", "session": "a", "text": "Until then."}
→ {"type": "eos", "session": "a"}
← binary frames: channel 1, generation 1, sample_offset 15600 …
← {"type": "segment", "session": "a", "generation": 1, "text": "Until then.", "end_sample": 28800}
← {"type": "done", "session": "a", "samples": 28800}
"""

_INTRODUCTION = f"""\
# The session protocol: `WS /v1/sessions`

Text goes in as it is written, audio comes out as it is made; many sessions share one socket, and none delays another.
Control messages are JSON in text frames, of at most {MAX_MESSAGE_BYTES // 1024} KiB; audio comes in binary frames. A
message with an unknown field is refused.

**Keys.** `Authorization: Bearer <key>` on the handshake; or, from a browser, the subprotocols `carillon.v1` and
`key.<key>`. The key needs the scope `speak`. Without one the handshake is answered 401 or 403.

**Order.** Text can be sent right after `start`, before `ready`. After `eos`, `done` ends the session, and its id is
free again. `cancel` stops what is being spoken: everything not yet sent is dropped, `cancelled` answers, and no older
audio follows it; then the session takes the next turn's text, unless `eos` was sent, in which case `done` follows.

**Errors.** An `error` names its session, or none when the message could not be read. The session goes on unless the
error says `closed`; the socket and its other sessions go on in any case. A socket is closed, with a reason, only for
text that is not UTF-8 (1007), a message over 4 MiB (1009), a client that reads nothing for `slow_reader_timeout_s`, one
that sends nothing for {_SESSION.idle_socket_s / 60:g} minutes with no session open, a key that was revoked or has
expired (all 1008), a fault of the server's own (1011), and a server that stops (1012).

**When speech starts.** A text need not have a stop, nor a `flush`. The first words of a turn are spoken at the end of
a sentence, at a comma or the like behind at least 4 words and 20 characters, or at 12 words, whichever comes first;
and, when no text has come for {_SESSION.idle_text_s:g} s, at the last complete word, if there are at least three. A
full stop counts only once the next character that is no space has come, or the text has paused: "3." may become "3.5".
`flush` and `eos` wait for nothing.

**Markup.** With `markup: auto`, the default, text may be Markdown, HTML or SSML, cut anywhere between messages. What
marks it is not spoken, nor are code in fences (see `code`), reasoning (`<think>…</think>`), scripts and link targets;
list items, cells and blocks are parted by pauses; `<break time="800ms"/>` is silence. Of SSML there are `break`,
`sub`, `say-as`, `p`, `s` and the `rate` of `prosody` (0.5 to 2); other elements keep their text and are named in
`ignored` of `done`. `plain` speaks every character but for the model's own tags. A `flush` closes no fence and no
thought; `cancel` does.

**Counting.** Samples are counted from the session's start through all its turns, at `sample_rate_hz` of `ready`, and
always as they are delivered: at `speed: 2`, a second of audio is a second, though its text was twice as long. That
holds for the frames' `sample_offset`, `segment`, `flushed`, `cancelled`, `done`, `played_samples`, `received_samples`
and credit. `flushed.samples` is where the audio of the flushed text ends, and `done.samples` is the total, including
what cancels dropped. `cancelled.samples` is where the next turn's audio begins; what was dropped is counted up to
there, so it can be more than was received. A session with another `speed` ends with 10 ms of silence that belong to no
segment. `generation` starts at 0, and each `cancel` adds one.

**Places.** `ready` means that the session has a place at a worker, text or none. An idle session keeps it for
{_SESSION.idle_place_s:g} s, or until another session waits for one, which takes that of who was idle for longest; it
takes a place again with its next text. One with nothing to speak and nothing sent to it for `idle_timeout_s` is ended
with `session_idle`. (Both are settings.)

**Frames.** `pcm` frames can be played one by one. Those of any other format are pieces of one stream, whose header is
in the first: append them, and decode the whole. Their last 20 to 100 ms come with what follows, or at the end.

**Pace.** A session that grants credit (`window_samples`, `credit`) is sent no more than it asked for; one that does
not is held back by its socket alone. `credit` in a session without `window_samples` changes nothing. Up to
{MAX_COMMANDS} messages of a session may wait for its worker.

**Turns.** A client that answers a person says when that person stopped speaking, with its first `text` or with `start`:
`"turn": {{"ended_at": 1767225600.25, "sent_at": 1767225600.61}}`. The ledger then has `turn_ms`, from the end of speech
to the first audio, and so has `/metrics`. With `sent_at` both are of the client's clock, and only the way of that
message is not counted. Without it the clocks of both machines are compared. A turn that ended in the future or more
than a minute ago is not counted, and named in `ignored`.

**Resuming.** A session started with `resumable` outlives its connection and its front door. When the connection
breaks before `done` has arrived, or at `goaway`, connect again, to any front door, with the same key, and within a
minute send `resume` with the `resume_token` of `ready`. Await `resumed`, then

- drop the audio received from `sample_offset` on, and go on with what comes now. A front door that was killed may not
  have noted the last fraction of a second: that is spoken again, maybe in another intonation. A client that wants no
  seam there asks for the audio from a sample it has not played yet.
- send the text of this turn from `text_chars` on, and `eos` unless `ended`. A cancel that `generation` does not count
  has not arrived: send it again, with the turn that follows it. A `flush` that was not answered may be sent again; it
  is then answered once for each time it has arrived.

`segment` and `flushed` are repeated for audio that is sent again; a `segment` that was waiting for its `words` when the
connection broke is not. Encoded formats begin a new stream, with a header of its own: `received_samples` is then the
`sample_offset` of the last frame, which is heard again. If two connections resume one session, the last one has it, and
the others receive `session_resumed`. A session closed with a `retryable` error, or as a slow reader, can be resumed
again, and so can one whose `resume` was refused in that way; after `unknown_session` nothing is left to resume.

So that any front door can go on, the text of such a session that is not yet spoken, its words of late, and half a
minute of its audio's codes lie in the fleet's Redis: until a minute after `done` or after its last connection broke, or
until an error after which it cannot be resumed. Sessions that do not ask for it are kept in memory alone, and no text
is ever logged.

## A whole exchange

`→` is sent, `←` is received; fields that are left out here, required ones among them, are in the tables.

```text
{_EXCHANGE}```

This page is generated from `app/speech/protocol.py` by `python -m app.api.native.protocol_page`.
"""


def reference() -> str:
    """The page, in Markdown."""
    parts = [_INTRODUCTION, "## Client to server\n"]
    parts += [_section(kind) for kind in _kinds(protocol.ClientMessage)]
    parts.append("## Server to client\n")
    parts += [_section(kind) for kind in _kinds(protocol.ServerMessage)]
    parts += ["### `limits`, in `ready`\n", _fields(Limits)]
    parts += ["### `ledger`, in `done`\n", _doc(Ledger), _fields(Ledger)]
    parts += ["## Audio frames\n", _doc(AudioFrame), "## Error codes\n", _codes()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _kinds(union: Any) -> tuple[type[Message], ...]:
    return get_args(get_args(union)[0])


def _section(kind: type[Message]) -> str:
    name = kind.model_fields["type"].default
    return f"### `{name}`\n\n{_doc(kind)}\n{_fields(kind)}"


def _doc(kind: type) -> str:
    """The class's own docstring; a dataclass or model without one has none to show."""
    return f"{inspect.cleandoc(kind.__doc__)}\n" if kind.__doc__ else ""


def _fields(kind: type[BaseModel]) -> str:
    schema = kind.model_json_schema()
    required = set(schema.get("required", ()))
    rows = [
        f"| `{name}` | {type_of(field, schema)} | {_default(name, field, required)} | {field.get('description', '')} |"
        for name, field in schema["properties"].items()
        if name != "type"
    ]
    head = ["| field | type | default | |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n" if rows else ""


def _default(name: str, field: dict[str, Any], required: set[str]) -> str:
    return "required" if name in required else default_of(field)


def _codes() -> str:
    rows = [f"| `{kind.code}` | {'yes' if kind.retryable else 'no'} | {meaning(kind)} |" for kind in error_kinds()]
    return "\n".join(["| code | retryable | |", "|---|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
