"""What `carillon bench fleet` has its load generator do, what that measures, and what follows from it.

Values and pure functions; nothing here starts a process or reads a clock.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from random import Random

from pydantic import BaseModel, ConfigDict

from app.fleet.worker import Worker
from app.speech.voices import Voice

ADDED_LIMIT_MS = 5.0
"""The 99th percentile of what a front door may add to a frame's way, on a core that is not overloaded."""

HELD_SHARE = 0.95
"""Starts are held when so many of those offered were served, and …"""

START_LIMIT_MS = 250.0
"""… the 99th percentile of start -> ready stays below a turn's budget."""


class Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Target(Figures):
    """A fleet to load: its front door, and what is known of the processes behind the address."""

    url: str
    key: str | None = None
    voices: tuple[str, ...]
    front_door_pid: int | None = None
    redis_url: str | None = None
    stamped: bool = False
    """Frames begin with the time they were sent: the workers replay."""
    samples_per_frame: int = 2048
    direct: tuple[Worker, ...] = ()
    """Workers to speak with past the front door, for the baseline."""
    fleet_secret: str = ""
    direct_voice: Voice | None = None


class Plan(Figures):
    """What to measure."""

    sessions: tuple[int, ...]
    seconds: float = 5.0
    ramp_s: float = 5.0
    settle_s: float = 3.0
    length_s: float = 60.0
    """The mean of the sessions' lengths."""
    tokens_per_s: float = 50.0
    sessions_per_socket: int = 32
    direct_sessions: int = 20
    starts_per_s: tuple[float, ...] = ()
    starts_s: float = 4.0
    idle_s: float = 2.0
    """Before starts, to measure the fleet's own calls of Redis."""
    drain_s: float = 3.0
    """Between the sessions and the starts, for what is left of the former to end."""
    patience_s: float = 3.0
    """How long sessions may go on after the last start before they count as not served."""
    seed: int = 1


class Percentiles(Figures):
    """Of so many values, in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    most: float


class Step(Figures):
    """One level of concurrency, while it was measured."""

    wanted: int
    held: float
    """Sessions that were ready and not over, on average."""
    seconds: float
    messages_per_s: float
    """Audio frames through the front door."""
    texts_per_s: float
    through: Percentiles | None
    direct: Percentiles | None
    cpu: float | None
    """Of one core, by the front door."""
    rss_bytes: int | None
    starts_per_s: float
    start_ms: Percentiles | None
    refused: int
    errors: Mapping[str, int]

    @property
    def added_ms(self) -> Percentiles | None:
        """What the front door adds: the difference of the two distributions, percentile by percentile."""
        if self.through is None or self.direct is None:
            return None
        names = ("p50", "p95", "p99", "most")
        differences = {name: round(getattr(self.through, name) - getattr(self.direct, name), 3) for name in names}
        return Percentiles(count=self.through.count, **differences)

    @property
    def cpu_us_per_message(self) -> float | None:
        return 1e6 * self.cpu / self.messages_per_s if self.cpu and self.messages_per_s else None


class Starts(Figures):
    """Short sessions, begun at one rate whether or not they are served."""

    offered_per_s: float
    begun: int
    done: int
    start_ms: Percentiles | None
    cpu: float | None
    refused: int
    errors: Mapping[str, int]
    redis_calls: float | None
    """Round trips for each session that began, at its start and its end together."""

    @property
    def hold(self) -> bool:
        served = self.done >= HELD_SHARE * self.begun
        return served and not self.errors and self.start_ms is not None and self.start_ms.p99 <= START_LIMIT_MS


class Measured(Figures):
    """What the load generator brings back."""

    steps: tuple[Step, ...]
    starts: tuple[Starts, ...]


def arrivals(rate_per_s: float, random: Random) -> Iterator[float]:
    """The moments of a Poisson process from 0 on, in seconds."""
    at_s = 0.0
    while True:
        at_s += random.expovariate(rate_per_s)
        yield at_s


def percentiles_ms(values_ns: Sequence[int]) -> Percentiles | None:
    """Of durations in nanoseconds; None without any. The smallest value that so large a share does not exceed."""
    if not values_ns:
        return None
    ordered = sorted(values_ns)

    def at(share: float) -> float:
        rank = max(1, -int(-share * len(ordered) // 1))  # rounded up
        return round(ordered[rank - 1] / 1e6, 3)

    return Percentiles(count=len(ordered), p50=at(0.5), p95=at(0.95), p99=at(0.99), most=at(1.0))


def sessions_per_core(steps: Sequence[Step]) -> float | None:
    """Sessions at which the added P99 reaches the limit, between the two steps around it; None if no step is below.

    Where none is above, the most that was tried. A step with errors or refusals counts as above.
    """
    last: tuple[float, float] | None = None  # sessions, and the added P99 with them
    for step in sorted(steps, key=lambda step: step.held):
        added = step.added_ms
        if added is None:
            continue
        if step.errors or step.refused:
            break
        if added.p99 > ADDED_LIMIT_MS:
            return last and _between(last, (step.held, added.p99), ADDED_LIMIT_MS)
        last = step.held, added.p99
    return last[0] if last else None


def _between(below: tuple[float, float], above: tuple[float, float], limit_ms: float) -> float:
    (fewer, low), (more, high) = below, above
    return fewer + (more - fewer) * (limit_ms - low) / (high - low)


def bytes_per_session(steps: Sequence[Step]) -> float | None:
    """The slope of the front door's memory over the sessions it held; None for fewer than two steps."""
    points = [(step.held, step.rss_bytes) for step in steps if step.rss_bytes is not None]
    if len({held for held, _ in points}) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def most_starts_per_s(starts: Sequence[Starts]) -> float | None:
    """The highest rate that was held; None for none."""
    return max((one.offered_per_s for one in starts if one.hold), default=None)
