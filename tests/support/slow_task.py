"""A tasks process for test_lease, `slow_task.py URL leased|bare`: its task lasts until it is told that it is over."""

from __future__ import annotations

import os
import sys

from celery import Celery, shared_task
from pydantic import SecretStr
from redis import Redis

from app.platform.broker import make_celery
from app.platform.settings import Settings
from tasks.message_lease import Lease
from tasks.scheduler import Heartbeat

VISIBILITY_TIMEOUT_S = 10
"""A lease is renewed six times as often: that must also come off on a machine that is busy with something else."""


@shared_task(name="slow", ignore_result=True)
def slow(url: str, name: str) -> None:
    """Note by whom `name` was started, work until somebody says that it is over, note that it has ended."""
    with Redis.from_url(url, socket_timeout=None) as redis:
        redis.rpush(f"{name} starts", os.getppid())
        redis.blpop([f"{name} is over"])
        redis.rpush(f"{name} ends", os.getppid())


def make(url: str, *, leased: bool) -> Celery:
    celery = make_celery(Settings(redis_url=SecretStr(url)), visibility_timeout_s=VISIBILITY_TIMEOUT_S)
    celery.conf.include = ["tests.support.slow_task"]
    celery.conf.worker_concurrency = 2
    celery.conf.worker_soft_shutdown_timeout = 0
    celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, "unacked_restore_interval": 1}
    assert celery.steps is not None
    celery.steps["consumer"].update({Lease, Heartbeat} if leased else {Heartbeat})
    return celery


if __name__ == "__main__":
    make(sys.argv[1], leased=sys.argv[2] == "leased").worker_main(
        ["worker", "--without-gossip", "--without-mingle", "--hostname", f"{sys.argv[2]}-{os.getpid()}@test"]
    )
