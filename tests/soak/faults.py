"""What is done to a fleet, and when: a plan that follows from its seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    KILL = "kill"
    """SIGKILL to a program and all that it has started."""
    STOP = "stop"
    """SIGSTOP for a while: it lives, and does nothing."""
    CUT = "cut"
    """Nothing passes a link for a while, and no connection closes."""
    SLOW = "slow"
    """All that passes a link is late for a while."""
    FLUSH = "flush"
    """Valkey loses everything."""
    FAIL_OVER = "fail over"
    """Valkey's standby is promoted, and everything led to it."""
    DRAIN = "drain"
    """A worker is ordered to end."""


LONGEST_S = {Kind.STOP: 8.0, Kind.CUT: 8.0, Kind.SLOW: 10.0}
MEAN_GAP_S = 4.0
SHARE_OF_PAIRS = 1 / 3
"""Of the moments at which two things happen at once."""


@dataclass(frozen=True)
class Fault:
    at_s: float
    kind: Kind
    target: str
    """A program, or a link."""
    lasts_s: float = 0.0

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.at_s:7.1f} s  {self.kind} {self.target}{lasts}"


@dataclass(frozen=True)
class Targets:
    """What there is to be hurt."""

    programs: Sequence[str]
    links: Sequence[str]
    workers: Sequence[str]

    def of(self, kind: Kind) -> Sequence[str]:
        match kind:
            case Kind.KILL | Kind.STOP:
                return self.programs
            case Kind.CUT | Kind.SLOW:
                return self.links
            case Kind.FLUSH | Kind.FAIL_OVER:
                return ["valkey"]
            case Kind.DRAIN:
                return self.workers


def plan(seed: int, duration_s: float, targets: Targets, *, mean_gap_s: float = MEAN_GAP_S) -> Iterator[Fault]:
    """The faults of a run, in order. The same seed and targets give the same."""
    rng = random.Random(seed)
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(1 / mean_gap_s)) < duration_s:
        for _ in range(1 + (rng.random() < SHARE_OF_PAIRS)):
            kind = rng.choices(list(Kind), weights=(5, 3, 3, 2, 1, 1, 1))[0]
            target = rng.choice(targets.of(kind))
            yield Fault(at_s, kind, target, rng.uniform(0.2, LONGEST_S.get(kind, 0.2)) if kind in LONGEST_S else 0.0)
