"""A lease on every message in work, so that a task may run longer than the visibility timeout and still run once.

kombu's Redis transport notes when a message was delivered, and any worker that finds the note older than the visibility
timeout puts the message back: a task of an hour would run again every minute. This step renews the notes of messages
that this process holds, six times within the timeout; when it dies the notes grow old and the messages come back.

Every worker on a broker must run it, and the shortest visibility timeout among them counts. It reads two private
attributes of kombu's QoS, which is why kombu is pinned and tests/integration/tasks/test_message_lease.py kills the idea
if they move.
"""

from __future__ import annotations

import time
from typing import Any

from tasks.scheduler import Ticker

RENEWALS_PER_TIMEOUT = 6


class Lease(Ticker):
    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        timeout_s = consumer.app.conf.broker_transport_options["visibility_timeout"]
        self.interval_s = timeout_s / RENEWALS_PER_TIMEOUT

    def tick(self, consumer: Any) -> None:
        qos = consumer.task_consumer.channel.qos
        held = [tag for tag in qos._delivered if tag not in qos._dirty]
        if held:
            with qos.channel.conn_or_acquire() as client:
                client.zadd(qos.unacked_index_key, dict.fromkeys(held, time.time()), xx=True)
