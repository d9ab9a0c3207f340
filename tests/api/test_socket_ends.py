"""Every end of every dialect's socket has a close frame with a code and a reason: 1006 is never ours to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from app.api.http_protocol import MAX_REASON_BYTES
from app.errors import EngineFailed, SpeechFailed
from app.speech.choices import Scope
from tests.api.conftest import House, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker

pytestmark = pytest.mark.anyio

CARTESIAN = {
    "context_id": "a",
    "model_id": "sonic-2",
    "voice": {"mode": "id", "id": "slt"},
    "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000},
}


@dataclass(frozen=True)
class Dialect:
    """A socket, what is sent to have a text spoken, and how it takes what is wrong: by a message, or by its close."""

    name: str
    path: str
    opening: tuple[dict[str, Any], ...]
    text: Callable[[str], tuple[str, ...]]
    many: bool
    """Sessions beside each other: what ends one leaves the socket."""

    def messages(self, text: str) -> list[str]:
        return [*map(json.dumps, self.opening), *self.text(text)]


def dumped(*messages: dict[str, Any]) -> tuple[str, ...]:
    return tuple(map(json.dumps, messages))


DIALECTS = [
    Dialect(
        "native",
        "/v1/sessions",
        ({"type": "start", "session": "a", "voice": "slt"},),
        lambda text: dumped({"type": "text", "session": "a", "text": text}, {"type": "eos", "session": "a"}),
        many=True,
    ),
    Dialect(
        "elevenlabs",
        "/v1/text-to-speech/slt/stream-input",
        ({"text": " "},),
        lambda text: dumped({"text": text + " "}, {"text": ""}),
        many=False,
    ),
    Dialect(
        "elevenlabs-multi",
        "/v1/text-to-speech/slt/multi-stream-input",
        ({"text": " ", "context_id": "a"},),
        lambda text: dumped({"text": text + " ", "context_id": "a", "flush": True}),
        many=True,
    ),
    Dialect(
        "cartesia",
        "/tts/websocket",
        (),
        lambda text: dumped({**CARTESIAN, "transcript": text, "continue": False}),
        many=True,
    ),
    Dialect("baseten", "/baseten", ({"voice": "slt"},), lambda text: (text + " ", "__END__"), many=False),
]
each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def headers_of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", "xi-api-key": key, "x-api-key": key}


def opened(house: House, dialect: Dialect, key: str | None = None) -> connect:
    address = house.url.replace("http", "ws") + dialect.path
    return connect(address, additional_headers=headers_of(key or house.key), max_size=None, max_queue=None, proxy=None)


async def speak(socket: ClientConnection, dialect: Dialect, text: str = "Hello there.") -> None:
    for message in dialect.messages(text):
        await socket.send(message)


async def heard_to_its_close(socket: ClientConnection) -> tuple[int | None, str, list[Any]]:
    """The code and reason of the server's close, and what came before it."""
    said: list[Any] = []
    async with asyncio.timeout(HANG_S):
        try:
            while True:
                raw = await socket.recv()
                said.append(json.loads(raw) if isinstance(raw, str) else raw)
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "no close frame came"
            return closed.rcvd.code, closed.rcvd.reason, said


async def until_said(socket: ClientConnection, *words: str) -> str:
    """The next message that holds one of these words."""
    async with asyncio.timeout(HANG_S):
        while not isinstance(raw := await socket.recv(), str) or not any(word in raw for word in words):
            pass
    return raw


async def closes_when_asked(socket: ClientConnection) -> None:
    """A socket that went on: the client's close is answered with the same code."""
    await socket.close(1000)
    assert socket.close_code == 1000


@each_dialect
async def test_a_wrong_key_refuses_the_handshake_with_its_reason(
    house: House, worker: FakeWorker, dialect: Dialect, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(house, dialect, key="cari_no_key"):
            pass
    assert refused.value.response.status_code == 401
    assert b"key" in refused.value.response.body
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "it is no fault of ours"


async def test_a_wrong_key_in_elevenlabs_first_message_is_closed_for(house: House, worker: FakeWorker) -> None:
    address = house.url.replace("http", "ws") + DIALECTS[1].path
    async with connect(address, proxy=None) as socket:
        await socket.send(json.dumps({"text": " ", "xi_api_key": "cari_no_key"}))
        code, reason, said = await heard_to_its_close(socket)
    assert code == 1008 and "key" in reason
    assert said[0]["message"].startswith(reason)


@each_dialect
async def test_a_key_that_ends_closes_its_sockets(house: House, worker: FakeWorker, dialect: Dialect) -> None:
    worker.allow(characters=0)
    key = await house.catalog.keys.create("to be revoked", {Scope.SPEAK})
    async with opened(house, dialect, key=key.token) as socket:
        await speak(socket, dialect)
        await worker.until_sessions(1)
        await house.catalog.keys.revoke(key.id)
        code, reason, _ = await heard_to_its_close(socket)
    assert code == 1008 and "revoked" in reason


@each_dialect
@pytest.mark.parametrize("raw", ["{", '{"type": "sing", "text": 1, "transcript": 1, "voice": 1}', "null"])
async def test_a_message_that_cannot_be_read_is_named_and_only_one_text_is_closed_for(
    house: House, worker: FakeWorker, dialect: Dialect, raw: str
) -> None:
    async with opened(house, dialect) as socket:
        await socket.send(raw)
        if dialect.name in ("native", "cartesia"):
            assert "error" in await until_said(socket, "error")
            await closes_when_asked(socket)
            return
        code, reason, said = await heard_to_its_close(socket)
    assert code == 1008 and reason
    assert reason in json.dumps(said[-1], ensure_ascii=False)


@each_dialect
async def test_a_reason_that_quotes_a_client_fits_its_frame_in_any_script(
    house: House, worker: FakeWorker, dialect: Dialect
) -> None:
    name = "声" * 100
    odd = {"type": "start", "session": "a", "voice": name, "text": "Hi. ", "context_id": name * 3, "transcript": "Hi."}
    async with opened(house, dialect) as socket:
        await socket.send(json.dumps(odd))
        if dialect.many and dialect.name != "elevenlabs-multi":
            await until_said(socket, "error")
            await closes_when_asked(socket)
            return
        await socket.send("__END__")
        code, reason, _ = await heard_to_its_close(socket)
    assert code in (1000, 1008)
    assert len(reason.encode()) <= MAX_REASON_BYTES


@each_dialect
async def test_a_fleet_without_room_is_said_and_one_text_is_closed_for_with_try_again(
    open_house: OpenHouse, dialect: Dialect
) -> None:
    async with open_house() as house, house.worker(capacity=1) as worker, opened(house, DIALECTS[0]) as other:
        worker.allow(characters=0)
        await speak(other, DIALECTS[0])
        await worker.until_sessions(1)
        async with opened(house, dialect) as socket:
            await speak(socket, dialect)
            if dialect.many:
                assert "places" in await until_said(socket, "error")
                await closes_when_asked(socket)
                return
            code, reason, _ = await heard_to_its_close(socket)
    assert code == 1013 and "try again" in reason


@each_dialect
async def test_a_front_door_that_stops_says_so(house: House, worker: FakeWorker, dialect: Dialect) -> None:
    async with opened(house, dialect) as socket:
        if dialect.opening:
            await socket.send(json.dumps(dialect.opening[0]))
        await (await socket.ping())
        house.server.should_exit = True
        code, reason, _ = await heard_to_its_close(socket)
    assert code == 1012 and "connect again" in reason


@each_dialect
async def test_a_worker_that_is_gone_with_no_other_is_said(open_house: OpenHouse, dialect: Dialect) -> None:
    async with open_house(move_timeout_s=0.1) as house, house.worker() as worker, opened(house, dialect) as socket:
        worker.allow(characters=2)
        await speak(socket, dialect)
        await worker.until_sessions(1)
        worker.refusal = EngineFailed("its engine restarts")
        await worker.crash()
        if dialect.many:
            assert "worker" in await until_said(socket, "error")
            await closes_when_asked(socket)
            return
        code, reason, _ = await heard_to_its_close(socket)
    assert code == 1011 and "worker" in reason


@each_dialect
async def test_words_that_cannot_be_spoken_are_said(house: House, worker: FakeWorker, dialect: Dialect) -> None:
    worker.failure = SpeechFailed("no such words")
    async with opened(house, dialect) as socket:
        await speak(socket, dialect)
        if dialect.many:
            assert "no such words" in await until_said(socket, "error")
            await closes_when_asked(socket)
            return
        code, reason, _ = await heard_to_its_close(socket)
    assert (code, reason) == (1008, "no such words")


@each_dialect
async def test_a_socket_on_which_nothing_happens_is_closed_and_told_why(
    open_house: OpenHouse, dialect: Dialect
) -> None:
    async with open_house(idle_socket_s=0.05) as house, house.worker():
        path = dialect.path + ("?inactivity_timeout=0.05" if dialect.name == "elevenlabs" else "")
        async with connect(
            house.url.replace("http", "ws") + path, additional_headers=headers_of(house.key), proxy=None
        ) as socket:
            code, reason, _ = await heard_to_its_close(socket)
    assert code == 1008 and "0.05 s" in reason


@each_dialect
async def test_a_message_beyond_all_bounds_and_text_that_is_none_are_closed_for(
    house: House, worker: FakeWorker, dialect: Dialect
) -> None:
    for frame, expected in (
        (Frame(Opcode.TEXT, b"x" * (4 * 1024 * 1024 + 1)), 1009),
        (Frame(Opcode.TEXT, b"\xff\xfe"), 1007),
    ):
        async with opened(house, dialect) as socket:
            socket.transport.write(frame.serialize(mask=True))
            code, _, _ = await heard_to_its_close(socket)
        assert code == expected


@each_dialect
async def test_a_client_that_leaves_in_the_middle_of_an_answer_is_answered_with_its_own_code(
    house: House, worker: FakeWorker, dialect: Dialect
) -> None:
    async with opened(house, dialect) as socket:
        await speak(socket, dialect, "A text of so many words that it is being spoken when its listener leaves. " * 4)
        await socket.recv()
        await closes_when_asked(socket)
        assert socket.protocol.close_rcvd is not None


class BrokenResolver:
    """Finds no voice for a reason that is none of the client's."""

    def seen_by(self, tenant: object) -> BrokenResolver:
        return self

    async def find(self, *_: object) -> None:
        raise RuntimeError("s3cr3t")


@each_dialect
async def test_a_fault_of_ours_is_closed_for_as_ours_and_shows_nothing_of_it(
    house: House, worker: FakeWorker, dialect: Dialect
) -> None:
    state = house.server.config.app.state  # type: ignore[union-attr]
    state.services = replace(state.services, resolver=BrokenResolver())
    if dialect.name.startswith("elevenlabs"):  # the voice stands in the address
        with pytest.raises(InvalidStatus) as refused:
            async with opened(house, dialect):
                pass
        assert refused.value.response.status_code == 500
        return
    async with opened(house, dialect) as socket:
        await speak(socket, dialect)
        if dialect.name == "native":  # one session of many
            assert "something failed here" in await until_said(socket, "error")
            return
        code, reason, said = await heard_to_its_close(socket)
    assert code == 1011 and "something failed here" in reason
    assert "s3cr3t" not in repr((reason, said))
