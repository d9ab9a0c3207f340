"""A training that shares its card: it waits, says for what, makes way for a worker, and goes on where it was."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigurationError, OutOfMemory, Overloaded
from app.platform.gpu_lease import CardLease, Claim
from app.platform.profiles import GIB
from app.voices.models import RunConfig
from tasks.stage import MEMORY_PAUSE_S, MEMORY_TRIES, Event, with_memory
from tests.support.cards import L40S, FakeCard, card
from tests.support.tiny_voice import save_run, save_tiny_voice
from training.lora import DONE, FAILED, StopSignal, run_training
from training.seat import Seat, card_memory
from training.stage_runner import Emit, Events

BRISK: dict[str, Any] = {"learning_rate": 0.02, "batch_clips": 2, "epochs": 2, "checkpoint_steps": 100}


@pytest.fixture
def shared() -> FakeCard:
    return FakeCard(card(L40S), free_gib=44)


@pytest.fixture
def worker(tmp_path: Path, shared: FakeCard) -> Iterator[CardLease]:
    """A worker that wants 40 GiB of the card, and has requested them."""
    lease = CardLease(tmp_path, shared.gpu, Claim("worker-1", 40 * GIB), free=lambda: shared.seen().free_bytes)
    yield lease
    lease.close()


class Told:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def emit(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})


def memory(
    shared: FakeCard, directory: Path, told: Told, sleep: Callable[[float], None]
) -> AbstractContextManager[Callable[[], None]]:
    ticks = count()
    return card_memory(
        shared.gpu,
        13 * GIB,
        directory,
        told.emit,
        look=lambda: (shared.seen(),),
        sleep=sleep,
        clock=lambda: float(next(ticks)),
    )


def test_it_waits_for_the_worker_that_has_the_card_and_says_so(
    shared: FakeCard, worker: CardLease, tmp_path: Path
) -> None:
    assert list(worker.waits(print)) == []
    told = Told()
    with memory(shared, tmp_path, told, sleep=lambda _: worker.close()) as check:
        check()
    assert [event["event"] for event in told.events] == ["waiting"]
    assert "the trainer waits for 13.0 GiB of card 0" in told.events[0]["message"]
    assert "worker-1" in told.events[0]["message"]


def never(pause_s: float) -> None:
    pytest.fail(f"it waits for {pause_s} s")


def test_a_worker_that_comes_later_is_made_way_for(shared: FakeCard, tmp_path: Path) -> None:
    with memory(shared, tmp_path, Told(), sleep=never) as check:
        check()
        claim = Claim("worker-1", 40 * GIB)
        worker = CardLease(tmp_path, shared.gpu, claim, free=lambda: shared.seen().free_bytes)
        with pytest.raises(Overloaded, match="worker-1 starts and wants card 0"):
            check()
    assert list(worker.waits(pytest.fail)) == [], "the trainer's lease is given back"
    worker.close()


def test_a_card_that_is_too_small_even_when_empty_is_no_matter_of_waiting(shared: FakeCard, tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"takes about 80 GiB, and card 0 .* has 45 GiB"),
        card_memory(shared.gpu, 80 * GIB, tmp_path, Told().emit),
    ):
        pytest.fail("it began")


def making_way_at(check_number: int | None) -> Seat:
    @contextmanager
    def seat(run: RunConfig, emit: Emit) -> Iterator[Callable[[], None]]:
        checks = count(1)

        def check() -> None:
            if next(checks) == check_number:
                raise Overloaded("worker-1 starts and wants card 0")

        yield check

    return seat


def trained(directory: Path, seat: Seat) -> tuple[int, list[dict[str, Any]]]:
    lines = io.StringIO()
    code = run_training(directory, Events(lines), StopSignal(), seat)
    return code, [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_training_that_made_way_ends_with_the_very_same_adapter(tmp_path: Path) -> None:
    voice = save_tiny_voice(tmp_path / "voice")
    whole, interrupted = (save_run(tmp_path / name, *voice, **BRISK) for name in ("whole", "interrupted"))
    assert trained(whole, making_way_at(None))[0] == DONE

    code, events = trained(interrupted, making_way_at(9))

    assert code == FAILED
    assert (events[-1]["code"], events[-1]["retryable"]) == ("overloaded", True)
    assert any(event["event"] == "checkpoint" for event in events)
    assert trained(interrupted, making_way_at(None))[0] == DONE
    adapters = [
        (directory / "adapter" / "adapter_model.safetensors").read_bytes() for directory in (whole, interrupted)
    ]
    assert adapters[0] == adapters[1]


@pytest.mark.anyio
async def test_a_job_makes_way_as_often_as_workers_start_and_goes_on() -> None:
    answers = iter([*[Overloaded("worker-1 starts")] * 50, {"event": "done"}])
    assert await with_memory(staged(answers), sleep=no_sleep) == {"event": "done"}


@pytest.mark.anyio
async def test_want_of_memory_is_tried_again_before_another_attempt_must() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    assert await with_memory(staged(iter([OutOfMemory("2 GiB"), {"event": "done"}])), sleep=sleep)
    with pytest.raises(OutOfMemory) as failure:
        await with_memory(staged(iter([OutOfMemory("2 GiB")] * 9)), sleep=sleep)
    assert failure.value.retryable
    assert slept == [MEMORY_PAUSE_S] * MEMORY_TRIES


def staged(answers: Iterator[Event | Exception]) -> Callable[[], Any]:
    async def stage() -> Event:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return stage


async def no_sleep(_: float) -> None:
    pytest.fail("nothing is waited for here: the next training waits for its lease")
