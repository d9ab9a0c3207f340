"""`python -m tests.soak.upgrade OLD`: a running fleet goes from the version of another checkout to this one.

Stores and programs are started from OLD, listeners speak all the time, then: `carillon migrate`, the workers one by
one, the front doors one by one, as DEPLOY.md has it; `--front-doors-first` does these two the other way about. Between
the steps old and new run side by side. Every session is held to its samples. Status 1 when one is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.local import processes
from app.local.supervisor import State
from app.platform.data_dir import Secrets
from app.platform.settings import Settings
from tests.soak.fleet import CHECKOUT, FRONT_DOORS, WORKERS, SoakFleet, soak_fleet
from tests.soak.ledger import Ledger, Talker
from tests.soak.soak import until_whole
from tests.soak.traffic import AGAIN_S, Traffic

FAKE_WORKER = "tests/support/fake_worker.py"
"""With this folder what an older checkout lacks: the scripted worker, which then runs on that checkout's own code."""


async def carillon(checkout: Path, settings: Settings, *words: str) -> str:
    """What a command of a checkout prints."""
    environment = {**os.environ, **processes.environment(settings), "PYTHONPATH": str(checkout)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.cli.main", *words), env=environment, stdout=subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, words
    return printed.decode()


async def prepare(checkout: Path, settings: Settings, _: Secrets) -> str:
    await carillon(checkout, settings, "migrate")
    return re.findall(r"cari_\S+", await carillon(checkout, settings, "keys", "create", "me", "--scope", "admin"))[0]


async def restart(fleet: SoakFleet, name: str) -> None:
    """End a program as an operator does; the supervisor starts it again, from this checkout."""
    child = fleet.supervisor.children[name]
    child.program = replace(child.program, environment={**child.program.environment, "PYTHONPATH": str(CHECKOUT)})
    incarnation = child.incarnation
    if name in WORKERS:
        while not await fleet.drain(name):
            await asyncio.sleep(AGAIN_S)
    else:
        assert child.pid
        os.kill(child.pid, signal.SIGTERM)
    while child.incarnation == incarnation or child.state is not State.READY:
        await asyncio.sleep(0.1)


async def upgrade(old: Path, directory: Path, *, front_doors_first: bool, stay_s: float, talkers: int) -> Ledger:
    ledger = Ledger()
    async with soak_fleet(directory, background=False, checkout=old, prepare=partial(prepare, old)) as fleet:
        ledger.talkers = [Talker(f"talker-{number}", fleet.token, "") for number in range(talkers)]
        traffic = Traffic(fleet, ledger, seed=0)
        await until_whole(fleet)
        speaking = asyncio.create_task(traffic.run(ledger.talkers))
        await asyncio.sleep(stay_s)
        told(ledger, "all is of the old version")
        print(await carillon(CHECKOUT, fleet.settings, "migrate"), end="")
        await asyncio.sleep(stay_s)
        told(ledger, "old programs on the new tables")
        for programs in (FRONT_DOORS, WORKERS) if front_doors_first else (WORKERS, FRONT_DOORS):
            for name in programs:
                await restart(fleet, name)
                await asyncio.sleep(stay_s)
                told(ledger, f"{name} is of the new version")
        traffic.end()
        await speaking
        await until_whole(fleet)
    return ledger


def told(ledger: Ledger, step: str) -> None:
    whole = ", ".join(f"{count} {how}" for how, count in sorted(ledger.ended.items()))
    print(f"{step}: {whole}; {ledger.moves} moved, {ledger.resumed} resumed, {len(ledger.lost)} lost", flush=True)
    for what in ledger.lost[-1:]:
        print(f"  the last: {what}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.upgrade", description=__doc__)
    parser.add_argument("old", type=Path, help="a checkout of the version before, whose requirements are met here")
    parser.add_argument("--front-doors-first", action="store_true")
    parser.add_argument("--talkers", type=int, default=6, help="sessions that speak at once")
    parser.add_argument("--stay", type=float, default=10.0, help="seconds in each state")
    options = parser.parse_args()
    old: Path = options.old.resolve()
    shutil.copytree(CHECKOUT / "tests" / "soak", old / "tests" / "soak", dirs_exist_ok=True)
    shutil.copy(CHECKOUT / FAKE_WORKER, old / FAKE_WORKER)
    with tempfile.TemporaryDirectory(prefix="carillon-upgrade-") as directory:
        ledger = asyncio.run(
            upgrade(
                old,
                Path(directory),
                front_doors_first=options.front_doors_first,
                stay_s=options.stay,
                talkers=options.talkers,
            )
        )
    print(ledger.table())
    return 1 if ledger.lost else 0


if __name__ == "__main__":
    sys.exit(main())
