"""`python -m tests.soak`: a fleet under faults for as long as it is asked to be, and the account of it.

The seed is printed; with the same seed the same is done at the same moments. Status 1 when anything is not accounted
for. The programs' logs stay in the directory that is printed then.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.faults import MEAN_GAP_S
from tests.soak.soak import Soak, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--talkers", type=int, default=9, help="sessions that speak at once")
    parser.add_argument("--books", type=int, default=1, help="narrations at once")
    parser.add_argument("--clones", type=int, default=1, help="clones at once; without books and clones no tasks run")
    parser.add_argument("--gap", type=float, default=MEAN_GAP_S, help="seconds between two faults, on average")
    options = parser.parse_args()
    duration_s = 3600 * options.hours + 60 * options.minutes or 300.0
    directory = Path(tempfile.mkdtemp(prefix="carillon-soak-"))
    print(f"seed {options.seed}, {duration_s:g} s, in {directory}", flush=True)
    soak = Soak(
        options.seed,
        duration_s,
        talkers=options.talkers,
        books=options.books,
        clones=options.clones,
        mean_gap_s=options.gap,
    )
    ledger = asyncio.run(run(soak, directory, report=lambda line: print(line, flush=True)))
    print(f"\nseed {options.seed}, {duration_s:g} s\n{ledger.table()}")
    if ledger.lost:
        print(f"\nthe logs are in {directory / 'logs'}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
