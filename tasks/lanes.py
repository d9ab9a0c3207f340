"""Lanes: how many jobs of a queue one tasks process works on at a time, each in a child that starts with the first.

Celery has one pool for all the queues of a process. Without lanes a book would take every place of it, and several
trainings would start beside each other on a laptop. A queue whose lane is full is not consumed from, so that its
messages stay where another process may take them; when a job of it ends, it is consumed from again.

kombu takes one message at a time and asks for the next one only after it has handed that over: a queue that is left
while its message is being received brings no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from celery.worker import state
from celery.worker.autoscale import Autoscaler

from tasks.scheduler import Ticker

REOPENED_AFTER_S = 0.25


class Lanes(Ticker):
    """The application's `carillon_lanes` says how many jobs at a time, by queue."""

    interval_s = REOPENED_AFTER_S

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._limits: Mapping[str, int] = consumer.app.conf.carillon_lanes
        self._closed: set[str] = set()

    def start(self, parent: Any) -> None:
        self._closed.clear()  # a new connection consumes from every queue
        self._consumer = parent
        parent.on_task_message.add(self._received)
        super().start(parent)

    def _received(self, request: Any) -> None:
        queue = _queue(request)
        if queue not in self._closed and self._is_full(queue):
            self._closed.add(queue)
            self._consumer.task_consumer.cancel_by_queue(queue)

    def tick(self, consumer: Any) -> None:
        """Consume again from the queues that have a place."""
        for queue in [queue for queue in self._closed if not self._is_full(queue)]:
            self._closed.remove(queue)
            consumer.task_consumer.add_queue(consumer.app.amqp.queues[queue])
            consumer.task_consumer.consume()

    def _is_full(self, queue: str) -> bool:
        taken = Counter(_queue(request) for request in state.reserved_requests)
        return taken[queue] >= self._limits[queue]


class OnDemand(Autoscaler):
    """A pool that starts a child when there is a job for it, and keeps it for the next."""

    def scale_down(self, n: int) -> None:
        """A child that waits costs memory, and no time."""


def _queue(request: Any) -> str:
    return str(request.delivery_info["routing_key"])
