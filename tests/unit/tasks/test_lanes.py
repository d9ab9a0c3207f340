"""Lanes of a tasks process: a queue whose jobs take all its places is not consumed from until one of them ends."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from tasks.lanes import Lanes

LANES = {"interactive": 1, "render": 2}


class FakeConsumer:
    """As much of Celery's consumer as a lane sees; `consumed` are the queues that it takes messages from."""

    def __init__(self) -> None:
        self.consumed = set(LANES)
        self.on_task_message: set[Any] = set()
        self.app = SimpleNamespace(
            conf=SimpleNamespace(carillon_lanes=LANES), amqp=SimpleNamespace(queues={queue: queue for queue in LANES})
        )
        self.timer = SimpleNamespace(call_repeatedly=lambda interval_s, tick, arguments: None)
        self.task_consumer = SimpleNamespace(
            cancel_by_queue=self.consumed.remove, add_queue=self.consumed.add, consume=lambda: None
        )

    def receive(self, queue: str) -> Any:
        request = Request(queue)
        state.reserved_requests.add(request)
        for told in self.on_task_message:
            told(request)
        return request


class Request:
    def __init__(self, queue: str) -> None:
        self.id = id(self)
        self.delivery_info = {"routing_key": queue}


@pytest.fixture
def consumer() -> Iterator[FakeConsumer]:
    yield FakeConsumer()
    state.reserved_requests.clear()


@pytest.fixture
def lanes(consumer: FakeConsumer) -> Lanes:
    lanes = Lanes(consumer)
    lanes.start(consumer)
    return lanes


def test_a_queue_is_left_when_its_last_place_is_taken_and_the_others_are_not(
    consumer: FakeConsumer, lanes: Lanes
) -> None:
    jobs = [consumer.receive("render")]
    assert consumer.consumed == {"interactive", "render"}
    jobs.append(consumer.receive("render"))
    assert consumer.consumed == {"interactive"}


def test_it_is_consumed_from_again_once_a_job_has_ended(consumer: FakeConsumer, lanes: Lanes) -> None:
    request = consumer.receive("interactive")
    lanes.tick(consumer)
    assert consumer.consumed == {"render"}
    state.reserved_requests.discard(request)
    lanes.tick(consumer)
    assert consumer.consumed == {"interactive", "render"}


def test_after_a_new_connection_a_full_lane_closes_again(consumer: FakeConsumer, lanes: Lanes) -> None:
    held = consumer.receive("interactive")
    consumer.consumed = set(LANES)  # what a new connection consumes from
    consumer.task_consumer.cancel_by_queue = consumer.consumed.remove
    lanes.start(consumer)
    assert consumer.receive("interactive") is not held
    assert consumer.consumed == {"render"}
