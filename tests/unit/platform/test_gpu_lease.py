"""Who has a card's memory: workers first, the trainer when there is room, and nobody who is dead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.errors import EngineFailed
from app.platform.gpu_lease import TELL_EVERY_S, WAIT_S, CardLease, Claim, take_card
from app.platform.gpus import Gpu
from app.platform.profiles import GIB
from tests.support.cards import L40S, FakeCard, card, cards

Lease = Callable[..., CardLease]


@pytest.fixture
def shared() -> FakeCard:
    """A card of 45 GiB, with everything free until a test says otherwise."""
    return FakeCard(card(L40S), free_gib=44)


@pytest.fixture
def lease(tmp_path: Path, shared: FakeCard) -> Iterator[Lease]:
    with ExitStack() as stack:

        def lease(who: str, gib: float, *, yields: bool = False) -> CardLease:
            claim = Claim(who, int(gib * GIB), yields=yields)
            lease = CardLease(tmp_path, shared.gpu, claim, free=lambda: shared.seen().free_bytes)
            stack.callback(lease.close)
            return lease

        yield lease


def pauses(lease: CardLease, told: list[str]) -> object:
    return next(lease.waits(told.append), "granted")


def test_what_fits_together_is_granted_at_once(lease: Lease) -> None:
    told: list[str] = []
    assert pauses(lease("worker-1", 28), told) == "granted"
    assert pauses(lease("the trainer", 13, yields=True), told) == "granted"
    assert told == []


def test_a_trainer_waits_where_it_does_not_fit_beside_a_worker_and_says_so(lease: Lease) -> None:
    worker, trainer, told = lease("worker-1", 40), lease("the trainer", 13, yields=True), []
    assert pauses(worker, told) == "granted"
    assert pauses(trainer, told) == WAIT_S
    assert "the trainer waits for 13.0 GiB of card 0 (NVIDIA L40S" in told[0]
    assert "held by worker-1 (40.0 GiB)" in told[0]
    worker.close()
    assert pauses(trainer, told) == "granted"


def test_memory_that_strangers_have_is_waited_for_as_well(lease: Lease, shared: FakeCard) -> None:
    worker, told = lease("worker-1", 40), []
    shared.free_gib = 12
    waits = worker.waits(told.append)
    assert next(waits) == WAIT_S
    assert "12.0 GiB are free, held by none of this fleet" in told[0]
    shared.free_gib = 44
    assert next(waits, "granted") == "granted"


def test_a_worker_that_waits_is_wanted_by_the_trainer_which_makes_way(lease: Lease) -> None:
    trainer, told = lease("the trainer", 13, yields=True), []
    assert pauses(trainer, told) == "granted"
    assert trainer.wanted() is None

    worker = lease("worker-1", 40)

    assert pauses(worker, told) == WAIT_S
    assert trainer.wanted() == "worker-1"
    trainer.close()
    assert pauses(lease("the trainer", 1, yields=True), told) == WAIT_S, "the worker goes first, though there is room"
    assert "worker-1 goes first" in told[-1]
    assert pauses(worker, told) == "granted"


def test_a_worker_does_not_make_way_for_another(lease: Lease) -> None:
    first, second, told = lease("worker-1", 40), lease("worker-2", 40), []
    assert pauses(first, told) == "granted"
    assert pauses(second, told) == WAIT_S
    assert "held by worker-1" in told[0]


def test_who_waits_is_told_at_times_and_not_for_ever(lease: Lease, shared: FakeCard) -> None:
    shared.free_gib, told = 1, []
    with pytest.raises(EngineFailed, match=r"1\.0 GiB are free.*lasted for 90 s"):
        list(lease("worker-1", 40).waits(told.append, timeout_s=90))
    assert len(told) == 90 / TELL_EVERY_S


def test_a_lease_dies_with_its_process(tmp_path: Path, lease: Lease) -> None:
    program = f"""
from pathlib import Path
from app.platform.gpu_lease import CardLease, Claim
from app.platform.gpus import Gpu
from tests.support.cards import L40S, card
lease = CardLease(Path({str(tmp_path)!r}), card(L40S), Claim("worker-1", {40 * GIB}), free=lambda: {44 * GIB})
print(list(lease.waits(print)), flush=True)
input()
"""
    told: list[str] = []
    trainer = lease("the trainer", 13, yields=True)
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"[]\n"
        assert pauses(trainer, told) == WAIT_S
        other.kill()
    assert pauses(trainer, told) == "granted"


def test_workers_that_see_all_cards_take_one_each(tmp_path: Path) -> None:
    gpus = cards(3)
    with ExitStack() as stack:

        def taken() -> Gpu:
            gpu, file = take_card(tmp_path, gpus)
            stack.enter_context(file)
            return gpu

        assert [gpu.index for gpu in (taken(), taken())] == [0, 1]
        last, file = take_card(tmp_path, gpus)
        file.close()
        assert last.index == taken().index == 2
        assert taken().index == 0, "they share where there are too few"
