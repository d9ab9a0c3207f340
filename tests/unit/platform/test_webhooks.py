"""Webhooks: signed as the standard says, heard by a real server, never sent where they must not go."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.errors import InvalidRequest
from app.platform import webhooks
from app.platform.settings import CloningSettings
from tests.support.deadlines import HANG_S
from tests.support.receiver import Receiver, running_receiver

pytestmark = pytest.mark.anyio

KEY = b"0123456789abcdef01234567"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
SETTINGS = CloningSettings(webhook_secret=SecretStr(SECRET), webhook_private_hosts=True)


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    with running_receiver() as running:
        yield running


async def test_a_receiver_can_check_who_sent_what_it_hears(receiver: Any) -> None:
    url, own = receiver
    assert await webhooks.post(url, {"type": "clone.completed"}, SETTINGS, message_id="job-1", now_s=1_700_000_000)
    [(headers, body)] = own.heard
    signed = b"job-1.1700000000." + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("job-1", "1700000000")
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_the_addresses_that_were_checked_are_the_ones_that_are_called(receiver: Any) -> None:
    url, own = receiver
    asked = list[str]()

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        """A name of two machines, of which the first takes no connections; asked again it would be nobody's."""
        asked.append(host)
        return [(0, 0, 0, "", (address, port)) for address in ("127.0.0.2", "127.0.0.1")] if len(asked) == 1 else []

    port = httpx.URL(url).port
    named = f"http://hooks.example:{port}/hook"
    assert await webhooks.post(named, {}, SETTINGS, message_id="job-1", now_s=0, lookup=lookup)
    [(headers, _)] = own.heard
    assert headers["host"] == f"hooks.example:{port}"
    assert asked == ["hooks.example"]


async def test_a_receiver_that_refuses_has_not_heard(receiver: Any) -> None:
    url, own = receiver
    own.status = 500
    assert not await webhooks.post(url, {}, SETTINGS, message_id="job-1", now_s=0)


async def test_a_receiver_that_is_not_there_has_not_heard(receiver: Any) -> None:
    assert not await webhooks.post("http://127.0.0.1:9/", {}, SETTINGS, message_id="job-1", now_s=0)


async def test_a_receiver_that_never_ends_its_answer_has_heard(receiver: Any) -> None:
    url, own = receiver
    own.answer_bytes = 10**12
    async with asyncio.timeout(HANG_S):
        assert await webhooks.post(url, {}, SETTINGS, message_id="job-1", now_s=0)


async def test_a_receiver_that_answers_forever_but_says_nothing_has_not_heard() -> None:
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx: ")
        with suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server, asyncio.timeout(HANG_S):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert not await webhooks.post(url, {}, SETTINGS, message_id="job-1", now_s=0, timeout_s=0.2)
        await gone.wait()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://10.0.0.1/",
        "http://169.254.169.254/",
        "http://localhost/",
        "http://example.org\\@127.0.0.1/",
        "http://224.0.0.1/",
        "http://[ff0e::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::10.0.0.1]/",
        "http://[2002:a00:1::]/",
        "http://192.0.0.100/",
        "http://[fec0::1]/",
    ],
)
def test_a_private_address_is_refused_unless_the_operator_allows_it(url: str) -> None:
    with pytest.raises(InvalidRequest, match="WEBHOOK_PRIVATE_HOSTS"):
        webhooks.resolve(url, private=False)
    webhooks.resolve(url, private=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://example.org/",
        "example.org",
        "http://",
        "javascript:alert(1)",
        "http://[::1",
        "http://example.org:99999/",
        "http://example.org:port/",
        "http://a..b/",
        f"http://{'a' * 70}.org/",
        "http://xn--a/",
        "http://ex\tample.org/",
    ],
)
def test_what_is_no_http_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="http"):
        webhooks.resolve(url, private=True)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64", "whsec_" + base64.b64encode(b"short").decode()])
def test_without_a_good_secret_nothing_is_sent(secret: str) -> None:
    with pytest.raises(InvalidRequest, match="WEBHOOK_SECRET"):
        webhooks.secret_bytes(secret)
