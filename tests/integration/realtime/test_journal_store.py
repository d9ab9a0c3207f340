"""Journals in a real Redis: one owner at a time, nothing of a session that has ended, and nothing waits for them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from app.errors import DeadlineExceeded, UnknownSession
from app.fleet.registry import ROOT, open_redis
from app.local import embedded
from app.platform.settings import Settings
from app.realtime.journal import Journal
from app.realtime.journal_store import MAX_BATCH, Beginning, JournalStore, Keep, Taken, open_journals
from app.speech.protocol import Start, Text
from app.speech.voices import Voice
from tests.support.deadlines import HANG_S
from tests.support.mortal_front_door import Forwarder, by_port

pytestmark = pytest.mark.anyio

BEGINNING = Beginning(
    start=Start(session="s1", voice="slt", resumable=True), voice=Voice(id="slt", name="slt", model="standin")
)


@dataclass
class Door:
    """A front door's journals, on a clock of the test, and the sessions it has lost."""

    redis: Redis
    settings: Settings
    lost: list[str] = field(default_factory=list)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.journals = JournalStore(self.redis, self.settings, lambda: self.now_s)

    def keep(self, token: str, text: str = "Words.", *, owner: str | None = None, key_id: str = "k") -> Keep:
        journal = Journal()
        journal.sent(Text(session="s", text=text))
        return self.journals.keep(
            token, key_id, BEGINNING, journal, sent=lambda: 7, lost=lambda: self.lost.append(token), owner=owner
        )


@pytest.fixture
def door(redis: Redis, settings: Settings) -> Door:
    return Door(redis, settings)


@pytest.fixture
def other(redis: Redis, settings: Settings) -> Door:
    return Door(redis, settings)


async def _taken(door: Door, token: str) -> Taken:
    """A session, as soon as there is one."""
    async with asyncio.timeout(HANG_S):
        while True:
            with suppress(UnknownSession):
                return await door.journals.take(token, "k")
            await asyncio.sleep(0.01)


async def text_in(redis: Redis) -> bool:
    """Whether the text of any session lies there."""
    return any([await redis.hexists(key, "journal") async for key in redis.scan_iter(match=f"{ROOT}journal:*")])


async def test_what_one_front_door_writes_another_takes(door: Door, other: Door) -> None:
    door.keep("token")
    await door.journals.write()
    taken = await other.journals.take("token", "k")
    assert (taken.beginning, taken.sent, taken.journal.text_chars) == (BEGINNING, 7, len("Words."))


async def test_a_session_that_has_just_begun_is_written_at_once(door: Door, other: Door) -> None:
    seldom = door.settings.session.model_copy(update={"journal_interval_s": 2 * HANG_S})
    async with open_journals(door.redis, door.settings.model_copy(update={"session": seldom})) as door.journals:
        for token in ("first", "second"):
            door.keep(token)
            taken = await _taken(other, token)
            assert taken.journal.text_chars == len("Words.")


async def test_the_former_owner_is_notified_with_its_next_writing_and_changes_nothing(door: Door, other: Door) -> None:
    keep = door.keep("token")
    await door.journals.write()
    await other.journals.take("token", "k")
    keep.journal.sent(Text(session="s", text=" More."))
    await door.journals.write()
    assert door.lost == ["token"]
    assert (await other.journals.take("token", "k")).journal.text_chars == len("Words.")


async def test_the_former_owner_is_notified_also_if_it_has_nothing_to_write(door: Door, other: Door) -> None:
    door.keep("token")
    await door.journals.write()
    await other.journals.take("token", "k")
    door.now_s += 1
    await door.journals.write()
    assert door.lost == ["token"]


async def test_the_first_owner_is_notified_when_it_comes_back_by_way_of_another_front_door(
    door: Door, other: Door
) -> None:
    door.keep("token")
    await door.journals.write()
    taken = await other.journals.take("token", "k")
    other.keep("token", owner=taken.owner)
    await door.journals.take("token", "k")
    assert door.lost == ["token"]
    assert len(door.journals) == 0


async def test_a_session_that_was_never_written_is_taken_up_where_it_was(door: Door) -> None:
    door.journals.let_go(door.keep("token"))
    assert (await door.journals.take("token", "k")).journal.text_chars == len("Words.")


async def test_a_session_that_redis_has_lost_is_taken_up_where_it_is(redis: Redis, door: Door) -> None:
    door.keep("token")
    await door.journals.write()
    await redis.flushdb()
    with pytest.raises(UnknownSession):
        await door.journals.take("token", "another")
    assert (await door.journals.take("token", "k")).journal.text_chars == len("Words.")
    assert door.lost == ["token"]


@pytest.mark.parametrize("changed", [True, False])
async def test_after_redis_has_lost_everything_a_former_owner_does_not_become_the_owner(
    redis: Redis, door: Door, other: Door, changed: bool
) -> None:
    door.keep("token")
    await door.journals.write()
    taken = await other.journals.take("token", "k")
    keep = other.keep("token", "Other words.", owner=taken.owner)
    await other.journals.write()
    await redis.flushdb()
    door.now_s = other.now_s = 1
    await door.journals.write()
    await door.journals.write()
    if changed:
        keep.journal.sent(Text(session="s", text=" More."))
    await other.journals.write()
    await other.journals.write()
    door.now_s = 2
    await door.journals.write()
    assert (door.lost, other.lost) == (["token"], [])
    assert (await other.journals.take("token", "k")).journal.text_chars == keep.journal.text_chars


async def test_a_session_that_has_ended_is_not_brought_back_by_a_former_owner(
    redis: Redis, door: Door, other: Door
) -> None:
    keep = door.keep("token")
    await door.journals.write()
    taken = await other.journals.take("token", "k")
    other.journals.end(other.keep("token", owner=taken.owner))
    await other.journals.write()
    keep.journal.sent(Text(session="s", text=" More."))
    await door.journals.write()
    assert door.lost == ["token"]
    assert not await text_in(redis)
    with pytest.raises(UnknownSession):
        await other.journals.take("token", "k")


async def test_a_token_is_of_no_use_with_another_key(door: Door, other: Door) -> None:
    door.keep("token", key_id="k")
    await door.journals.write()
    with pytest.raises(UnknownSession, match="start a new one"):
        await other.journals.take("token", "another")
    door.now_s += 1
    await door.journals.write()
    assert not door.lost


async def test_what_redis_has_lost_is_written_again(redis: Redis, door: Door, other: Door) -> None:
    door.keep("token")
    await door.journals.write()
    await redis.flushdb()
    door.now_s += 1
    await door.journals.write()
    await door.journals.write()
    assert (await other.journals.take("token", "k")).journal.text_chars == len("Words.")


async def test_any_number_of_journals_is_written_at_once(redis: Redis, door: Door) -> None:
    for number in range(2 * MAX_BATCH + 1):
        door.keep(f"token {number}")
    await door.journals.write()
    assert await redis.dbsize() == 2 * MAX_BATCH + 1


async def test_no_key_and_no_value_holds_the_token(redis: Redis, door: Door) -> None:
    door.keep("the-secret-token")
    await door.journals.write()
    (key,) = [key async for key in redis.scan_iter()]
    assert "the-secret-token" not in f"{key!r} {await redis.hgetall(key)}"
    assert 0 < await redis.pttl(key) <= 60_000


async def test_while_redis_is_away_journals_wait_for_it(redis: Redis, settings: Settings, other: Door) -> None:
    assert settings.redis_url
    address, port = urlsplit(settings.redis_url.get_secret_value()), embedded.free_port()
    away = settings.model_copy(update={"redis_url": by_port(settings.redis_url, port)})
    door = Door(open_redis(away), away)
    door.keep("token")
    broken = door.keep("broken")
    door.journals.let_go(broken)
    await door.journals.write()
    with pytest.raises(DeadlineExceeded):
        await door.journals.take("token", "k")
    forwarder = Forwarder(address.hostname or "", address.port or 0)
    await forwarder.start(port)
    await door.journals.write()
    forwarder.cut()
    assert (await other.journals.take("token", "k")).journal.text_chars == len("Words.")
    assert (await other.journals.take("broken", "k")).journal.text_chars == len("Words.")
    await door.redis.aclose()


async def test_a_broken_session_that_could_not_be_written_is_given_up_in_the_end(settings: Settings) -> None:
    url = SecretStr(f"redis://127.0.0.1:{embedded.free_port()}/0")
    door = Door(open_redis(settings.model_copy(update={"redis_url": url})), settings)
    door.journals.let_go(door.keep("token"))
    await door.journals.write()
    assert len(door.journals) == 1
    door.now_s += settings.session.resume_ttl_s + 1
    await door.journals.write()
    assert len(door.journals) == 0
    await door.redis.aclose()
