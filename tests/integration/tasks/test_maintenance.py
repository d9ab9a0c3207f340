"""The reconciler with a real catalogue and a real broker: what is lost is sent again, what waits is left alone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from redis import Redis

from app.catalog import Catalog
from app.platform.broker import RENDER, webhook_sent_key
from app.platform.database import utc_now
from app.platform.settings import Settings
from app.speech.recipe import CloneConfig
from app.voices.models import CloneKind, CloneState
from tasks.maintenance import LeftOver, due, jobs_to_send, left_over, narrations_to_send

pytestmark = pytest.mark.anyio


async def test_a_job_made_long_ago_that_nobody_holds_is_left_over(settings: Settings) -> None:
    past = utc_now() - timedelta(hours=1)
    catalog = Catalog(settings.database, pepper=settings.key_pepper, now=lambda: past)
    await catalog.migrate()
    voice = await catalog.voices.create("Mary", model="standin")
    job = await catalog.jobs.create(
        voice.id, kind=CloneKind.CLONE, config=CloneConfig(), webhook_url="https://example.org/"
    )
    assert await left_over(settings) == LeftOver([(job.id, "standin")], [], [])
    claimed = await catalog.jobs.claim(job.id)
    assert claimed
    await catalog.jobs.finish(claimed, CloneState.CANCELLED)
    await catalog.aclose()
    assert await left_over(settings) == LeftOver([], [], [(job.id, past)])


def test_jobs_are_sent_again_to_the_queue_of_their_model_unless_it_is_full_of_them(valkey: str) -> None:
    with Redis.from_url(valkey) as redis:
        redis.flushdb()
        redis.rpush("train.standin", "the message of job-1")
        stalled = [("job-1", "standin"), ("job-2", "polly/3b"), ("job-3", "polly/3b")]
        assert jobs_to_send(redis, stalled) == [("train.polly%2F3b", ["job-2", "job-3"])]


def test_a_webhook_is_due_once_within_its_pause(valkey: str) -> None:
    with Redis.from_url(valkey) as redis:
        redis.delete(webhook_sent_key("job-1"))
        assert due(redis, "job-1", age_s=0)
        assert not due(redis, "job-1", age_s=0)
        assert 0 < redis.ttl(webhook_sent_key("job-1")) <= 15  # type: ignore[operator]
        redis.delete(webhook_sent_key("job-1"))
        assert due(redis, "job-1", age_s=100_000)
        assert 15 < redis.ttl(webhook_sent_key("job-1")) <= 900  # type: ignore[operator]


async def test_a_narration_that_nobody_works_on_gets_another_message_however_long_the_queue_is(valkey: str) -> None:
    with Redis.from_url(valkey) as redis:
        redis.flushdb()
        redis.rpush(RENDER, *["of another narration"] * 6)
        assert narrations_to_send(redis, [("nar-1", False), ("nar-2", True)]) == ["nar-1"]
        assert narrations_to_send(redis, [("nar-1", False)]) == [], "not again at once"
        redis.delete(RENDER)
        assert narrations_to_send(redis, [("nar-2", True)]) == ["nar-2"], "somebody has time for another chapter"
