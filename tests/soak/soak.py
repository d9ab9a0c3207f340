"""One soak: the fleet is started, spoken with and hurt, then left alone until all is done, and accounted for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from app.platform.database import utc_now
from app.speech.choices import Scope
from tests.soak.faults import MEAN_GAP_S, Fault, Kind, plan
from tests.soak.fleet import WORKERS, SoakFleet, soak_fleet
from tests.soak.jobs import Jobs
from tests.soak.ledger import BILLED_LATE_S, Ledger, Talker
from tests.soak.traffic import Traffic
from tests.support.deadlines import LONG_HANG_S

CATALOG_BACK_S = 5.0
"""Within which it answers again once nothing keeps it from that."""

QUIET_S = LONG_HANG_S
"""How long what was begun may take once nothing is hurt any more."""


@dataclass(frozen=True)
class Soak:
    """What is to be done."""

    seed: int
    duration_s: float
    talkers: int = 9
    books: int = 1
    clones: int = 1
    mean_gap_s: float = MEAN_GAP_S


async def run(
    soak: Soak, directory: Path, *, report: Callable[[str], None], faults: Sequence[Fault] | None = None
) -> Ledger:
    """The ledger, settled: `lost` is what is not accounted for. These `faults` take the place of the seed's."""
    ledger = Ledger()
    async with soak_fleet(directory, background=soak.books + soak.clones > 0) as fleet:
        ledger.talkers = await _talkers(fleet, soak.talkers)
        traffic, jobs = Traffic(fleet, ledger, soak.seed), Jobs(fleet, ledger, soak.seed)
        ordered = [jobs.have_a_book_read] * soak.books + [jobs.have_a_voice_cloned] * soak.clones
        await until_whole(fleet)
        speaking = asyncio.create_task(traffic.run(ledger.talkers, ordered))
        watching = asyncio.create_task(fleet.watch_front_doors())
        hurting = asyncio.create_task(_hurt(fleet, soak, ledger, report, faults))
        await asyncio.wait({speaking, hurting}, return_when=asyncio.FIRST_COMPLETED)
        await hurting
        traffic.end()
        report("nothing is hurt any more; what was begun is to end")
        try:
            async with asyncio.timeout(QUIET_S):
                await speaking
                await until_whole(fleet)
        except TimeoutError:
            ledger.lost.append(f"the fleet is not whole {QUIET_S:g} s after the last fault")
        watching.cancel()
        await asyncio.sleep(BILLED_LATE_S)
        await _settle(fleet, ledger, jobs)
    return ledger


async def _talkers(fleet: SoakFleet, count: int) -> list[Talker]:
    catalog = fleet.catalog()
    try:
        names = [f"talker-{number}" for number in range(1, count + 1)]
        keys = [(name, await catalog.keys.create(name, {Scope.SPEAK})) for name in names]
        return [Talker(name, key.token, key.id) for name, key in keys]
    finally:
        await catalog.aclose()


async def _hurt(
    fleet: SoakFleet, soak: Soak, ledger: Ledger, report: Callable[[str], None], faults: Sequence[Fault] | None
) -> None:
    if faults is None:
        faults = list(plan(soak.seed, soak.duration_s, fleet.targets, mean_gap_s=soak.mean_gap_s))
    loop = asyncio.get_running_loop()
    began_at, catalog = loop.time(), Trouble()

    async def one(fault: Fault) -> None:
        if "postgres" in fault.target:
            catalog.begin(loop.time(), fault.lasts_s)
        if fault.kind is Kind.KILL and fault.target in fleet.doors:
            for talker in ledger.talkers:
                talker.lose_front_door(loop.time(), BILLED_LATE_S + catalog.lasted_s(loop.time()))
        done = await fleet.apply(fault)
        (ledger.faults if done else ledger.missed)[f"{fault.kind} {_family(fault.target)}"] += 1

    async with asyncio.TaskGroup() as group:
        for fault in faults:
            await asyncio.sleep(began_at + fault.at_s - loop.time())
            report(str(fault))
            group.create_task(one(fault))
        await asyncio.sleep(began_at + soak.duration_s - loop.time())


@dataclass
class Trouble:
    """The time for which the catalogue may have taken nothing."""

    begins_at: float = 0.0
    ends_at: float = 0.0

    def begin(self, now: float, lasts_s: float) -> None:
        if now > self.ends_at:
            self.begins_at = now
        self.ends_at = max(self.ends_at, now + lasts_s + CATALOG_BACK_S)

    def lasted_s(self, now: float) -> float:
        return now - self.begins_at if now < self.ends_at else 0.0


def _family(target: str) -> str:
    """What a target is, without its number."""
    return ">".join(re.sub(r"-\d+$", "", part) for part in target.split(">"))


async def until_whole(fleet: SoakFleet) -> None:
    """Until every front door sees every worker active, and none has a session."""
    for door in fleet.doors.values():
        while True:
            with suppress(httpx.HTTPError, KeyError):
                async with fleet.client(door, timeout_s=5) as client:
                    seen = (await client.get("/v1/fleet")).json()["workers"]
                idle = [w["id"] for w in seen if w["state"] == "active" and not w["inflight"]]
                if sorted(idle) == sorted(WORKERS):
                    break
            await asyncio.sleep(0.2)


async def _settle(fleet: SoakFleet, ledger: Ledger, jobs: Jobs) -> None:
    """What was recorded as used, and what was made, against what there should be."""
    catalog = fleet.catalog()
    try:
        today, days = utc_now().date(), timedelta(days=2)  # a clock that jumped may have been in another
        used = await catalog.usage.summed(today - days, today + days, ["key"])
        for talker in ledger.talkers:
            use = used.get((talker.key_id,))
            ledger.bill(talker, use.audio_s if use else 0.0)
        made = {
            "narrations": [book.id for book in await catalog.narrations.all(limit=100_000)],
            "clones": [job.id for job in await catalog.jobs.all(limit=100_000)],
        }
        for kind, ids in jobs.orders.items():
            if sorted(ids) != sorted(made[kind]):
                ledger.lost.append(f"{len(ids)} {kind} were ordered, and {len(made[kind])} were made")
    finally:
        await catalog.aclose()
