"""Periodic work of a tasks process, in the thread of the broker connection.

These steps run only while the broker connection does: a process whose reconnection stalls stops ticking, its heartbeat
lapses, and its supervisor restarts it.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import Any, ClassVar

from celery import bootsteps

from app.platform.broker import (
    CLEAN,
    CLEAN_KEY,
    CLEAN_S,
    HEARTBEAT_TTL_S,
    INTERACTIVE,
    RECONCILE_KEY,
    RECONCILE_S,
    heartbeat_key,
)


class Ticker(bootsteps.StartStopStep):
    """A consumer step that calls `tick` every `interval_s`, the first time at once, or after one interval if it is not
    `immediate`, which keeps expensive work out of the start."""

    requires: ClassVar[set[str]] = {"celery.worker.consumer.tasks:Tasks"}
    interval_s: float
    immediate = True

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, parent: Any) -> None:
        if self.immediate:
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


class Once(Ticker):
    """Runs what is due in the one tasks process that claims the interval."""

    immediate = False
    claim: str
    claim_s: int

    def tick(self, consumer: Any) -> None:
        with consumer.task_consumer.channel.conn_or_acquire() as client:
            claimed = client.set(self.claim, consumer.hostname, nx=True, ex=self.claim_s)
        if claimed:
            self.act(consumer)

    def act(self, consumer: Any) -> None:
        raise NotImplementedError


class Housekeeping(Once):
    """Sends the task that cleans, once an hour."""

    interval_s = 60
    claim, claim_s = CLEAN_KEY, CLEAN_S

    def act(self, consumer: Any) -> None:
        consumer.app.send_task(CLEAN, queue=INTERACTIVE, expires=self.claim_s)


class Reconciliation(Once):
    """Resends lost messages, in a thread of its own."""

    interval_s = RECONCILE_S / 3
    claim, claim_s = RECONCILE_KEY, RECONCILE_S

    def act(self, consumer: Any) -> None:
        from tasks.maintenance import reconcile

        threading.Thread(target=reconcile, args=(consumer.app,), name="reconcile", daemon=True).start()
