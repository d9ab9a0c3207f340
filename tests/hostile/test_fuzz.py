"""Messages that nobody thought of: whatever is sent is answered, and the next client is served."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest
from hypothesis import Phase
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.core import given
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.api.conftest import House
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import sessions_client, still_speaks

pytestmark = pytest.mark.anyio

SEQUENCES = 40

TYPES = st.sampled_from(["start", "text", "flush", "eos", "cancel", "credit", "ping", "resume", "assign", "", None])
SESSIONS = st.sampled_from(["a", "b", "", "x" * 65, "a b", None, 1])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(
    st.sampled_from(["text", "voice", "format", "speed", "samples", "window_samples", "token", "resumable", "x"]),
    VALUES | st.sampled_from(["slt", "pcm", "Hello.", 4800]),
    max_size=4,
)
WELL_FORMED = st.sampled_from(
    [
        {"type": "start", "session": "a", "voice": "slt"},
        {"type": "text", "session": "a", "text": "Hi."},
        {"type": "flush", "session": "a"},
        {"type": "cancel", "session": "a"},
        {"type": "eos", "session": "a"},
    ]
).map(json.dumps)
ODD = st.builds(
    lambda type, session, fields: json.dumps({"type": type, "session": session} | fields), TYPES, SESSIONS, FIELDS
)
MESSAGES = st.lists(WELL_FORMED | ODD | st.text(max_size=30) | st.binary(max_size=30), max_size=12)


DIALECTS = (
    "/v1/text-to-speech/slt/stream-input",
    "/v1/text-to-speech/slt/multi-stream-input",
    "/tts/websocket",
    "/baseten",
)
CARTESIAN = {
    "context_id": "a",
    "model_id": "sonic-2",
    "transcript": "Hi.",
    "voice": {"mode": "id", "id": "slt"},
    "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000},
}
DIALECT_FIELDS = st.sampled_from(
    [
        *("text", "context_id", "voice_settings", "generation_config", "flush", "close_context", "close_socket"),
        *("transcript", "voice", "voice_id", "output_format", "continue", "cancel", "speed", "language"),
        *("xi_api_key", "max_tokens"),
    ]
)
DIALECT_ODD = st.dictionaries(DIALECT_FIELDS, VALUES | st.sampled_from(["Hi. ", "", "a", "slt", True]), max_size=5)
DIALECT_MESSAGES = st.lists(
    st.sampled_from([{"text": " "}, {"text": "Hi. ", "flush": True}, {"text": ""}, {"voice": "slt"}, CARTESIAN]).map(
        json.dumps
    )
    | st.builds(lambda fields: json.dumps(CARTESIAN | fields), DIALECT_ODD)
    | DIALECT_ODD.map(json.dumps)
    | st.sampled_from(["Hi.", "__END__"])
    | st.text(max_size=30)
    | st.binary(max_size=30),
    max_size=8,
)


def drawn(count: int, sequences: st.SearchStrategy[list[str | bytes]] = MESSAGES) -> list[list[str | bytes]]:
    """So many sequences, the same at every run."""
    found: list[list[str | bytes]] = []

    @examples(max_examples=count, derandomize=True, database=None, phases=[Phase.generate])
    @given(sequences)
    def collect(messages: list[str | bytes]) -> None:
        found.append(messages)

    collect()
    return found


async def test_whatever_a_client_says_it_is_answered_and_the_next_is_served(house: House, worker: FakeWorker) -> None:
    headers = {"Authorization": f"Bearer {house.key}"}
    sequences = await asyncio.to_thread(drawn, SEQUENCES)
    assert len(sequences) > SEQUENCES // 2
    for messages in sequences:
        async with connect(house.sessions_url, additional_headers=headers, proxy=None) as socket:
            with suppress(ConnectionClosed):
                for message in messages:
                    await socket.send(message)
                await socket.send('{"type": "ping", "id": "last"}')
                async with asyncio.timeout(HANG_S):
                    while True:
                        answer = await socket.recv()
                        if isinstance(answer, str):
                            said = json.loads(answer)
                            assert said.get("code") != "internal_error", (messages, said)
                            if said["type"] == "pong" and said["id"] == "last":
                                break
    async with sessions_client(house.sessions_url, house.key) as client:
        assert await still_speaks(client)


@pytest.mark.parametrize("path", DIALECTS)
async def test_no_dialects_client_brings_a_fault_about_and_the_next_is_served(
    house: House, worker: FakeWorker, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Authorization": f"Bearer {house.key}", "xi-api-key": house.key, "x-api-key": house.key}
    sequences = await asyncio.to_thread(drawn, SEQUENCES, DIALECT_MESSAGES)
    address = house.url.replace("http", "ws") + path
    codes = set()
    for messages in sequences:
        # Without a bound on what waits unread: the library takes no more once 16 messages do, not even the close frame.
        async with connect(address, additional_headers=headers, max_queue=None, proxy=None) as socket:
            with suppress(ConnectionClosed):
                for message in messages:
                    await socket.send(message)
            # What it cannot go on after, it closes for; else the client leaves in the middle of an answer.
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if len(messages) % 2 else 0.1):
                    await socket.wait_closed()
        codes.add(socket.close_code)
    assert codes <= {1000, 1008}, codes
    # asyncio's own are of connections to SQLite: SQLAlchemy gives one up whose closing is cancelled, too.
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR and record.name != "asyncio"]
    assert faults == []
    async with sessions_client(house.sessions_url, house.key) as client:
        assert await still_speaks(client)
