"""What a tasks process does by the clock, in the thread that talks to the broker.

These steps run only while the broker connection does: a process whose reconnection stalls stops ticking, its heartbeat
lapses, and its supervisor restarts it.
"""

from __future__ import annotations

import os
import socket
from typing import Any, ClassVar

from celery import bootsteps

from app.infra.broker import HEARTBEAT_TTL_S, heartbeat_key


class Ticker(bootsteps.StartStopStep):
    """A consumer step that calls `tick` every `interval_s`, the first time at once."""

    requires: ClassVar[set[str]] = {"celery.worker.consumer.tasks:Tasks"}
    interval_s: float

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        self.tick(parent)
        self._timer = parent.timer.call_repeatedly(self.interval_s, self.tick, (parent,))

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def tick(self, consumer: Any) -> None:
        raise NotImplementedError


class Heartbeat(Ticker):
    """Keep this process's heartbeat key alive."""

    interval_s = HEARTBEAT_TTL_S / 3

    def tick(self, consumer: Any) -> None:
        key = heartbeat_key(f"{socket.gethostname()}-{os.getpid()}")
        with consumer.task_consumer.channel.conn_or_acquire() as client:
            client.set(key, consumer.hostname, ex=HEARTBEAT_TTL_S)
