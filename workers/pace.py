"""The worker's pace, measured once between its start and its first session.

A machine that cannot keep up with its listeners takes only as many as it can serve, and its operator is warned. It
knows an engine and a decoder; its caller decides what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, closing
from dataclasses import dataclass
from time import monotonic

from app.speech.token_layout import TOKENS_PER_FRAME
from workers.decoder import Decoder
from workers.engine import Engine, Utterance

PROBE = "The bells ring twice in the morning."
PROBE_FRAMES = 12
"""A second of speech: long enough for a batch of its own size, short enough for a start."""

RESERVE = 1.1
"""A stream has to be made this much faster than it plays: others use the machine, too."""


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
    """The pace with as many sessions as can be served in real time: at most `most`, and `least` where fewer can.

    Measured with `most`, again if that does not hold, since a neighbour may have had the processor, and then with one:
    a step of the engine costs about a + b × sessions.
    """
    paces = [Pace(most, await _pace_of(engine, decoder, most, clock))]
    if not paces[0].holds:
        paces.append(Pace(most, await _pace_of(engine, decoder, most, clock)))
    full = min(paces, key=lambda pace: pace.s_per_s)
    if full.holds or most <= least:
        return full
    return between(Pace(1, await _pace_of(engine, decoder, 1, clock)), full, least=least)


def between(alone: Pace, full: Pace, *, least: int) -> Pace:
    """The greatest pace that holds on the line through two that were measured, of which `full` does not."""
    each_s = max(full.s_per_s - alone.s_per_s, 1e-6) / max(1, full.sessions - 1)
    fitting = 1 + int((1 / RESERVE - alone.s_per_s) / each_s)
    sessions = max(least, min(fitting, full.sessions - 1))
    return Pace(sessions, alone.s_per_s + each_s * (sessions - 1))


async def _pace_of(engine: Engine, decoder: Decoder, sessions: int, clock: Callable[[], float]) -> float:
    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(_spoken(engine, decoder, seed, clock)) for seed in range(sessions)]
    return max(stream.result() for stream in streams)


async def _spoken(engine: Engine, decoder: Decoder, seed: int, clock: Callable[[], float]) -> float:
    """Seconds that a second of one utterance's beginning takes, from text to samples."""
    began_at, codes_in = clock(), 0
    utterance = Utterance(engine.layout.speech.voices[0], PROBE, seed=seed)
    async with aclosing(engine.speak(utterance)) as outputs:
        with closing(decoder.open()) as stream:
            async for codes in outputs:
                codes_in += len(codes.codes)
                await stream.push(codes.codes, final=codes.ended is not None)
                if codes_in >= PROBE_FRAMES * TOKENS_PER_FRAME:
                    break
    return (clock() - began_at) * engine.layout.tokens_per_s / max(1, codes_in)
