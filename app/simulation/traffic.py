"""Traffic for a simulated fleet: when sessions start, with which voice, how long they are, which workers are lost.

It is drawn at once from a seed, so that every policy meets the same. It does not know workers or how any is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.speech.voices import AdapterVersion, Voice

MIN_ADAPTER_BYTES, MAX_ADAPTER_BYTES = 100_000_000, 200_000_000
MIN_SESSION_S = 2.0

ChangeKind = Literal["join", "loss"]
Pattern = Literal["steady", "diurnal", "flash-crowd", "bursts"]
"""How the pace of starts changes over time: not at all; as over a day, which the duration stands for; threefold for a
tenth of it, and for one voice; or by a Markov chain of two paces (MMPP), quiet and busy."""

DIURNAL_SWING = 0.6
"""By how much the pace at noon is above the mean, and at midnight below it."""

FLASH_TIMES, FLASH_SHARE = 3.0, 0.1
FLASH_OF_ONE_VOICE = 0.5
"""Of the starts that a flash crowd adds, how many want the voice that it came for."""

BURST_TIMES, BURST_S, QUIET_S = 2.5, 30.0, 120.0
"""The busy pace by the quiet one, and how long each lasts on average."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Poisson starts at a pace that may change, exponential lengths, voices by Zipf's law."""

    seed: int = 0
    duration_s: float = 3600.0
    warm_up_s: float = 600.0
    """Before the duration, and not reported: an empty fleet is not what is measured."""
    concurrent: float = 1_000.0
    """Sessions at once, on average, if none is refused."""
    mean_session_s: float = 240.0
    voices: int = 10_000
    zipf: float = 1.0
    """The voice of rank r is wanted r^-zipf times as often as the first."""
    pattern: Pattern = "steady"
    storm: float = 0.1
    """For a sixth of the duration, from its middle, a voice not requested before adds this share of all starts."""
    joins: int = 2
    losses: int = 2
    """Spread over the duration, losses first: at the end there are as many workers as at its start."""

    @property
    def end_s(self) -> float:
        return self.warm_up_s + self.duration_s

    @property
    def storm_s(self) -> tuple[float, float]:
        """From when until when."""
        begins_s = self.warm_up_s + self.duration_s / 2
        return begins_s, begins_s + self.duration_s / 6


@dataclass(frozen=True, slots=True)
class Trace:
    """What happens, the same for every policy: starts in order of time, and what changes in the fleet meanwhile."""

    traffic: Traffic
    start_s: NDArray[np.float64]
    voice: NDArray[np.int64]
    """Ranks from 0; the storm's is the last."""
    length_s: NDArray[np.float64]
    draw: NDArray[np.float64]
    """In [0, 1): the session's own luck, for policies that use any."""
    adapter_bytes: NDArray[np.int64]
    """By rank."""
    changes: tuple[tuple[float, ChangeKind, float], ...]
    """When, what, and a draw that says which worker is lost."""

    @property
    def requested_before(self) -> float:
        """The part of the starts after the warm-up whose voice was requested before: no more of them can be warm."""
        return self.requested_between(self.traffic.warm_up_s, float("inf"))

    def requested_between(self, from_s: float, until_s: float) -> float:
        """The same of the starts from then until then."""
        first, end = np.searchsorted(self.start_s, (from_s, until_s)).tolist()
        new = np.count_nonzero((self._first_starts >= first) & (self._first_starts < end))
        return 1 - int(new) / max(1, end - first)

    @property
    def octaves(self) -> list[tuple[int, int]]:
        """(starts after the warm-up, those of a voice requested before), of the ranks 2^i to 2^(i+1) − 1 from 1."""
        reported = np.arange(len(self.start_s)) >= np.searchsorted(self.start_s, self.traffic.warm_up_s)
        repeated = reported.copy()
        repeated[self._first_starts] = False
        octave = np.frexp(self.voice + 1)[1] - 1
        calm = self.voice < self.traffic.voices
        starts, warm = (np.bincount(octave[which & calm]).tolist() for which in (reported, repeated))
        return list(zip_longest(starts, warm, fillvalue=0))

    @property
    def _first_starts(self) -> NDArray[np.int64]:
        """Of each voice, the start that first requests it."""
        return np.unique(self.voice, return_index=True)[1]


def trace_of(traffic: Traffic) -> Trace:
    """The trace of `traffic`; the same seed gives the same trace."""
    random = np.random.default_rng(traffic.seed)
    rate_per_s = traffic.concurrent / traffic.mean_session_s
    calm = _calm_starts(traffic, rate_per_s, random)
    begins_s, ends_s = traffic.storm_s
    wild = random.uniform(begins_s, ends_s, random.poisson(rate_per_s * (ends_s - begins_s) * traffic.storm))
    if traffic.pattern == "flash-crowd":
        wild = np.concatenate([wild, _flash_starts(traffic, rate_per_s * FLASH_OF_ONE_VOICE, random)])
    weights = np.arange(1, traffic.voices + 1, dtype=np.float64) ** -traffic.zipf
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(len(calm)))
    start_s = np.concatenate([calm, wild])
    voice = np.concatenate([ranks, np.full(len(wild), traffic.voices)])
    order = np.argsort(start_s, kind="stable")
    kinds: tuple[ChangeKind, ...] = ("loss",) * traffic.losses + ("join",) * traffic.joins
    times = traffic.warm_up_s + traffic.duration_s * (np.arange(len(kinds)) + 1) / (len(kinds) + 1)
    return Trace(
        traffic=traffic,
        start_s=start_s[order],
        voice=voice[order],
        length_s=np.maximum(MIN_SESSION_S, random.exponential(traffic.mean_session_s, len(order))),
        draw=random.random(len(order)),
        adapter_bytes=random.integers(MIN_ADAPTER_BYTES, MAX_ADAPTER_BYTES, traffic.voices + 1, endpoint=True),
        changes=tuple(zip(times.tolist(), kinds, random.random(len(kinds)).tolist(), strict=True)),
    )


def _calm_starts(traffic: Traffic, rate_per_s: float, random: np.random.Generator) -> NDArray[np.float64]:
    """When sessions start whose voices are drawn by rank: `rate_per_s` on average, as the pattern has it."""
    if traffic.pattern == "bursts":
        return _burst_starts(traffic.end_s, rate_per_s, random)
    most = 1 + DIURNAL_SWING if traffic.pattern == "diurnal" else 1.0
    starts = random.uniform(0, traffic.end_s, random.poisson(most * rate_per_s * traffic.end_s))
    if traffic.pattern == "diurnal":
        day = 2 * np.pi * (starts - traffic.warm_up_s) / traffic.duration_s
        starts = starts[random.random(len(starts)) * most < 1 - DIURNAL_SWING * np.cos(day)]
    elif traffic.pattern == "flash-crowd":
        starts = np.concatenate([starts, _flash_starts(traffic, rate_per_s * (1 - FLASH_OF_ONE_VOICE), random)])
    return starts


def _flash_starts(traffic: Traffic, rate_per_s: float, random: np.random.Generator) -> NDArray[np.float64]:
    """What a flash crowd adds to a pace, a quarter into the duration."""
    begins_s = traffic.warm_up_s + traffic.duration_s / 4
    length_s = FLASH_SHARE * traffic.duration_s
    count = random.poisson((FLASH_TIMES - 1) * rate_per_s * length_s)
    return random.uniform(begins_s, begins_s + length_s, count)


def _burst_starts(end_s: float, rate_per_s: float, random: np.random.Generator) -> NDArray[np.float64]:
    """A Poisson process whose pace is that of a Markov chain: quiet, busy, quiet …"""
    quiet = rate_per_s * (BURST_S + QUIET_S) / (BURST_TIMES * BURST_S + QUIET_S)
    starts: list[NDArray[np.float64]] = []
    at_s, busy = 0.0, False
    while at_s < end_s:
        length_s = min(end_s - at_s, random.exponential(BURST_S if busy else QUIET_S))
        pace = quiet * (BURST_TIMES if busy else 1)
        starts.append(random.uniform(at_s, at_s + length_s, random.poisson(pace * length_s)))
        at_s, busy = at_s + length_s, not busy
    return np.concatenate(starts)


@lru_cache(maxsize=65_536)
def voice_of(rank: int) -> Voice:
    """The voice of a rank; every simulated voice has an adapter. Those wanted often are made once."""
    id = f"voice-{rank}"
    adapter = AdapterVersion.model_construct(
        voice_id=id, version=1, lora_id=rank + 1, uri="file:///adapter/", sha256={}, rank=16
    )
    return Voice.model_construct(id=id, name=id, model="simulated", adapter=adapter)


def adapter_of(voice: Voice) -> str:
    """The name of a voice's adapter."""
    assert voice.adapter is not None
    return voice.adapter.name
