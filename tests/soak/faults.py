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
    FILL = "fill"
    """A disk has no room left for a while."""
    STEP = "step"
    """The clock of a program jumps, and after a while back."""


WEIGHTS = {
    Kind.KILL: 5, Kind.STOP: 3, Kind.CUT: 3, Kind.SLOW: 2, Kind.FLUSH: 1, Kind.FAIL_OVER: 1, Kind.DRAIN: 1,
    Kind.FILL: 2, Kind.STEP: 2,
}  # fmt: skip
LONGEST_S = {Kind.STOP: 8.0, Kind.CUT: 8.0, Kind.SLOW: 10.0, Kind.FILL: 8.0, Kind.STEP: 10.0}
FURTHEST_S = 45.0
"""A clock jumps by so much at most, forwards or backwards: more than any lease in the registry lasts."""

MEAN_GAP_S = 4.0
SHARE_OF_PAIRS = 1 / 3
"""Of the moments at which two things happen at once."""


@dataclass(frozen=True)
class Fault:
    at_s: float
    kind: Kind
    target: str
    """A program, a link or a disk."""
    lasts_s: float = 0.0
    by_s: float = 0.0
    """How far a clock jumps."""

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        by = f" by {self.by_s:+.0f} s" if self.by_s else ""
        return f"{self.at_s:7.1f} s  {self.kind} {self.target}{by}{lasts}"


@dataclass(frozen=True)
class Targets:
    """What there is to be hurt."""

    programs: Sequence[str]
    links: Sequence[str]
    workers: Sequence[str]
    disks: Sequence[str] = ()
    clocks: Sequence[str] = ()
    """Programs whose clocks can be set."""

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
            case Kind.FILL:
                return self.disks
            case Kind.STEP:
                return self.clocks


def plan(seed: int, duration_s: float, targets: Targets, *, mean_gap_s: float = MEAN_GAP_S) -> Iterator[Fault]:
    """The faults of a run, in order. The same seed and targets give the same."""
    rng = random.Random(seed)
    kinds = [kind for kind in Kind if targets.of(kind)]
    weights = [WEIGHTS[kind] for kind in kinds]
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(1 / mean_gap_s)) < duration_s:
        for _ in range(1 + (rng.random() < SHARE_OF_PAIRS)):
            kind = rng.choices(kinds, weights)[0]
            target = rng.choice(targets.of(kind))
            lasts_s = rng.uniform(0.2, LONGEST_S[kind]) if kind in LONGEST_S else 0.0
            by_s = rng.uniform(-FURTHEST_S, FURTHEST_S) if kind is Kind.STEP else 0.0
            yield Fault(at_s, kind, target, lasts_s, by_s)
