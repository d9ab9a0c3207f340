"""Counters of a simulation's sessions."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np


def _floats() -> array[float]:
    return array("d")


@dataclass(slots=True)
class Sample:
    """How things stand at one moment; the counts are since the warm-up."""

    at_s: float
    concurrent: int
    p99_over_mean: float
    """The P99 worker's load over the mean; 0 while there is no session."""
    served: int
    warm: int
    cold_bytes: int


@dataclass(slots=True)
class Outcome:
    """What became of the sessions that started after the warm-up, and of the fleet meanwhile."""

    starts: int = 0
    refused: int = 0
    warm: int = 0
    """Starts whose adapter was ready where they were placed."""
    queued: int = 0
    """Starts that waited for room, served or refused in the end."""
    room_waits_s: array[float] = field(default_factory=_floats)
    """Of those of them that were served: for room only."""
    waits_s: array[float] = field(default_factory=_floats)
    """Of the starts that were served and waited for anything: room, the adapter, or both."""
    claims: int = 0
    """Claims sent to the registry for these starts, each a round trip."""
    refused_claims: int = 0
    """Those of them that Redis refused, for the door's view was old."""
    ended: int = 0
    cut: int = 0
    """Sessions at lost workers."""
    moved: int = 0
    """Those of them that found another place."""
    handed_on: int = 0
    """Sessions that a worker which drained had left at its deadline."""
    losses: int = 0
    worker_s: float = 0.0
    """Seconds of workers that were paid for."""
    cold_loads: int = 0
    cold_bytes: int = 0
    samples: list[Sample] = field(default_factory=list)
    octaves: list[list[int]] = field(default_factory=list)
    """[starts served, warm] of the voices of ranks 2^i to 2^(i+1) − 1, counted from 1; without the storm's voice."""

    def serve(self, rank: int, *, warm: bool) -> None:
        """Count a start that is served; `rank` counts from 1, 0 is the storm's voice."""
        self.warm += warm
        if rank:
            octave = rank.bit_length() - 1
            while len(self.octaves) <= octave:
                self.octaves.append([0, 0])
            self.octaves[octave][0] += 1
            self.octaves[octave][1] += warm

    @property
    def served(self) -> int:
        return self.starts - self.refused

    @property
    def refused_rate(self) -> float:
        return self.refused / max(1, self.starts)

    @property
    def warm_rate(self) -> float:
        return self.warm / max(1, self.served)

    @property
    def queued_rate(self) -> float:
        return self.queued / max(1, self.starts)

    @property
    def claims_per_start(self) -> float:
        return self.claims / max(1, self.starts)

    @property
    def wait_p99_s(self) -> float:
        """For room and the adapter, over all starts that were served."""
        return self._p99_of(self.waits_s)

    @property
    def room_wait_p99_s(self) -> float:
        """For room, over all starts that were served."""
        return self._p99_of(self.room_waits_s)

    def _p99_of(self, waits_s: array[float]) -> float:
        everybody_s = np.zeros(max(1, self.served))
        everybody_s[: len(waits_s)] = waits_s
        return float(np.percentile(everybody_s, 99))

    @property
    def p99_over_mean(self) -> float:
        peaks = [sample.p99_over_mean for sample in self.samples if sample.p99_over_mean]
        return float(np.mean(peaks)) if peaks else 0.0

    @property
    def mean_concurrent(self) -> float:
        return float(np.mean([sample.concurrent for sample in self.samples])) if self.samples else 0.0

    @property
    def moved_per_loss(self) -> float:
        return self.moved / max(1, self.losses)
