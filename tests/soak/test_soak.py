"""A fleet under faults: every sample, every job and every second that is billed is accounted for, whatever is hurt.

The seed is printed; `SOAK_SEED` in the environment names another. Hours, each time otherwise: `make soak HOURS=8`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.soak.faults import Fault, Kind, Targets, plan
from tests.soak.ledger import BYTES_PER_SECOND, Ledger, Talker
from tests.soak.soak import Soak, run
from tests.support.real_services import postgres_program

SEED = int(os.environ.get("SOAK_SEED", "16"))
TARGETS = Targets(
    ["valkey-1", "worker-1", "front-door-1"], ["worker-1>valkey", ">worker-1"], ["worker-1"], ["s3"], ["tasks"]
)


async def soaked(soak: Soak, directory: Path, faults: Sequence[Fault] | None = None) -> Ledger:
    print(f"\nseed {soak.seed}")
    ledger = await run(soak, directory, report=print, faults=faults)
    print(ledger.table())
    assert not ledger.lost, "\n".join([f"seed {soak.seed}", *ledger.lost])
    assert ledger.ended["live whole"]
    assert ledger.samples_lost == 0
    return ledger


@pytest.mark.anyio
async def test_some_seconds_of_faults_lose_no_sample(tmp_path: Path) -> None:
    await soaked(Soak(SEED, 6, talkers=3, books=0, clones=0, mean_gap_s=1), tmp_path)


@pytest.mark.anyio
@pytest.mark.slow
async def test_minutes_of_faults_lose_no_sample_no_book_and_no_second_that_is_billed(tmp_path: Path) -> None:
    await soaked(Soak(SEED, 300, talkers=9, books=1, clones=1), tmp_path)


@pytest.mark.anyio
@pytest.mark.slow
async def test_a_standby_that_takes_over_and_a_database_that_restarts_lose_nothing_of_who_speaks(
    tmp_path: Path,
) -> None:
    if not postgres_program("postgres"):
        pytest.skip("PostgreSQL is not here: apt-get install postgresql")
    faults = [
        Fault(3, Kind.FAIL_OVER, "valkey"),
        Fault(10, Kind.KILL, "postgres"),
        Fault(17, Kind.FAIL_OVER, "valkey"),
        Fault(17, Kind.KILL, "postgres"),
    ]
    ledger = await soaked(Soak(SEED, 25, talkers=9, books=1, clones=0), tmp_path, faults)
    assert ledger.faults == {"fail over valkey": 2, "kill postgres": 2}


def test_a_seed_gives_the_same_faults_at_the_same_moments() -> None:
    first, again, other = (list(plan(seed, 300, TARGETS)) for seed in (1, 1, 2))
    assert first == again != other
    assert {fault.kind for fault in first} == set(Kind)
    moments = [fault.at_s for fault in first]
    assert moments == sorted(moments)
    assert len(moments) > len(set(moments)), "two at once, now and then"


def test_what_cannot_be_hurt_here_is_left_out_of_the_plan() -> None:
    bare = Targets(TARGETS.programs, TARGETS.links, TARGETS.workers)
    assert not {Kind.FILL, Kind.STEP} & {fault.kind for fault in plan(1, 300, bare)}


def test_what_is_heard_and_not_billed_is_told_and_what_went_down_with_a_front_door_is_not() -> None:
    ledger = Ledger()
    cheated, unlucky = Talker("cheated", "", "1"), Talker("unlucky", "", "2")
    for talker in (cheated, unlucky):
        talker.end(10.0, 5 * BYTES_PER_SECOND)
    unlucky.lose_front_door(11.0, 2.5)
    ledger.bill(cheated, 4.0)
    ledger.bill(unlucky, 4.0)
    assert [line.split()[1] for line in ledger.lost] == ["cheated"]
