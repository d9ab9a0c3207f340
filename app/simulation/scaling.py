"""Autoscaling of a simulated fleet: the target size, and the rate of change.

The rules are those of a Kubernetes autoscaler. By places it is the chart's own (`compose/helm`): places in use, and
the starts that wait for one. By CPU it is what a cluster does by default. Nothing here knows sessions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

LOOK_S = 15.0
"""Between two looks of Kubernetes's autoscaler."""

TOLERANCE = 0.1
"""By which the measure may be off its target before anything changes: Kubernetes's default."""

MOST_PODS_UP, MOST_SHARE_UP = 4, 1.0
"""How many may be added at a look, the greater of both: its default."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the autoscaler sees at a look."""

    in_use: int
    """Places at workers that speak."""
    waiting: int
    """Starts that wait for one."""
    active: int
    """Workers that take sessions."""
    starting: int
    capacity: int
    """Places of a worker."""


def by_places(seen: Seen, target: float) -> int:
    """KEDA's AverageValue: so many sessions, spoken or waiting, are to be at each worker."""
    each = target * seen.capacity
    wanted, present = (seen.in_use + seen.waiting) / each, seen.active + seen.starting
    return present if abs(wanted - present) <= TOLERANCE * present else ceil(wanted)


def by_cpu(seen: Seen, target: float) -> int:
    """As if a worker's CPU followed its sessions, from none to full: kinder than an engine that polls.

    It cannot be above full, so that starts that wait do not show; a worker that starts counts as idle.
    """
    present = seen.active + seen.starting
    use = seen.in_use / (seen.capacity * max(1, present))
    return present if abs(use / target - 1) <= TOLERANCE else ceil(present * use / target)


Rule = Callable[[Seen, float], int]


@dataclass(frozen=True, slots=True)
class Scaling:
    """A scaling rule with its bounds and delays."""

    rule: Rule
    fewest: int
    most: int
    target: float = 0.7
    start_s: float = 180.0
    """From the decision until a worker takes sessions: a machine, its image, the model."""
    down_after_s: float = 600.0
    """For so long fewer must have been enough."""
    down_every_s: float = 120.0
    """Between two workers that are given up; 0: all at once."""
    drain_s: float = 30.0
    """How long a worker that is given up lets its sessions go on."""


CHART = {"down_after_s": 600.0, "down_every_s": 120.0}
KUBERNETES = {"down_after_s": 300.0, "down_every_s": 0.0}
"""What is given up and when: by the chart's ScaledObject, and where nothing is said."""


class Autoscaler:
    """The rule, and its memory."""

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self._wanted: deque[tuple[float, int]] = deque()
        self._gave_up_at = float("-inf")

    def change(self, now_s: float, seen: Seen) -> int:
        """How many workers more, or fewer, from now on."""
        scaling, present = self.scaling, seen.active + seen.starting
        wanted = min(max(scaling.rule(seen, scaling.target), scaling.fewest), scaling.most)
        self._wanted.append((now_s, wanted))
        while self._wanted[0][0] < now_s - scaling.down_after_s:
            self._wanted.popleft()
        if wanted > present:
            return min(wanted - present, max(MOST_PODS_UP, int(MOST_SHARE_UP * present)))
        fewer = present - max(wanted for _, wanted in self._wanted)
        if fewer <= 0 or now_s - self._gave_up_at < scaling.down_every_s:
            return 0
        self._gave_up_at = now_s
        return -(1 if scaling.down_every_s else fewer)
