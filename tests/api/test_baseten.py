"""Baseten's socket, as LiveKit's plugin speaks it."""

from __future__ import annotations

import pytest
from websockets.exceptions import InvalidStatus

from tests.api.conftest import House
from tests.support.dialect_client import DialectClient, dialect_client
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import spoken

pytestmark = pytest.mark.anyio

METADATA = {"voice": "slt", "max_tokens": 2000, "buffer_size": 10}


def address(house: House) -> str:
    return f"{house.url.replace('http', 'ws')}/baseten"


def heard(client: DialectClient) -> bytes:
    return b"".join(it for it in client.received if isinstance(it, bytes))


async def test_text_that_streams_in_is_spoken_to_its_end(house: House, worker: FakeWorker) -> None:
    async with dialect_client(address(house), authorization=f"Api-Key {house.key}") as client:
        await client.send(METADATA)
        for word in ("Hello ", "there. ", "Well.", "__END__"):
            await client.send(word)
        assert await client.until_closed() == 1000
    assert heard(client) == spoken("Hello there.Well.")


async def test_their_default_voice_is_one_that_is_served(house: House, worker: FakeWorker) -> None:
    async with dialect_client(address(house), authorization=f"Api-Key {house.key}") as client:
        await client.send({})
        await client.send("Hi.")
        await client.send("__END__")
        assert await client.until_closed() == 1000
    assert heard(client) == spoken("Hi.")


@pytest.mark.parametrize(("first", "code"), [('{"voice": "nobody"}', "unknown_voice"), ("Hello.", "invalid_request")])
async def test_what_cannot_be_spoken_is_said_before_the_close(
    house: House, worker: FakeWorker, first: str, code: str
) -> None:
    async with dialect_client(address(house), authorization=f"Api-Key {house.key}") as client:
        await client.send(first)
        assert await client.until_closed() == 1008
    [message] = client.all()
    assert message["error"]["code"] == code


async def test_a_client_that_leaves_ends_its_session(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    async with dialect_client(address(house), authorization=f"Api-Key {house.key}") as client:
        await client.send(METADATA)
        await client.send("A long story. ")
        await worker.until_sessions(1)
    await worker.until_sessions(0)


async def test_a_wrong_key_refuses_the_handshake(house: House, worker: FakeWorker) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dialect_client(address(house), authorization="Api-Key wrong"):
            pass
    assert refused.value.response.status_code == 401


async def test_a_prompt_is_spoken_over_http(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post("/baseten", json={"prompt": "Hi.", "voice": "slt", "temperature": 0.6})
    assert answer.content == spoken("Hi.")
    assert worker.assigned[-1].temperature == 0.6
