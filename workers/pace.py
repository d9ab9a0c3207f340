"""How fast this worker speaks, measured once between its start and its first session.

A machine that cannot keep up with its listeners is told so before they are, and takes only as many as it can serve. It
knows an engine and a decoder; what is to be done about a slow machine is its caller's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from time import monotonic

from workers.decoder import Decoder
from workers.engine import Engine, Utterance

PROBE = "The bells ring twice in the morning."
RESERVE = 1.1
"""A stream has to be made this much faster than it is heard: others use the machine, too."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that a second of speech takes, at the slowest of so many sessions at once."""

    sessions: int
    s_per_s: float

    @property
    def holds(self) -> bool:
        return self.s_per_s * RESERVE <= 1


async def sustainable(
    engine: Engine, decoder: Decoder, *, most: int, least: int = 1, clock: Callable[[], float] = monotonic
) -> Pace:
    """The pace with as many sessions as can be served in real time: at most `most`, and `least` where fewer can."""
    sessions = most
    while True:
        pace = Pace(sessions, await _pace_of(engine, decoder, sessions, clock))
        if pace.holds or sessions <= least:
            return pace
        sessions = max(least, min(sessions - 1, int(sessions / (pace.s_per_s * RESERVE))))


async def _pace_of(engine: Engine, decoder: Decoder, sessions: int, clock: Callable[[], float]) -> float:
    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(_spoken(engine, decoder, seed, clock)) for seed in range(sessions)]
    return max(stream.result() for stream in streams)


async def _spoken(engine: Engine, decoder: Decoder, seed: int, clock: Callable[[], float]) -> float:
    """Seconds a second of one utterance takes, from codes to samples."""
    began_at, samples = clock(), 0
    with closing(decoder.open()) as stream:
        async for codes in engine.speak(Utterance(engine.layout.speech.voices[0], PROBE, seed=seed)):
            samples += len(await stream.push(codes.codes, final=codes.ended is not None))
    return (clock() - began_at) * engine.layout.sample_rate_hz / max(1, samples)
