"""`carillon bench narration`: latency of live sessions beside a narration, at a running fleet.

Live sessions as `carillon bench speech` holds them, in rounds: first alone, then beside a narration that is being
rendered, so that what else the machine does falls on both alike. The narration is of a new text, since a segment that
was ever rendered is not rendered again; between the rounds it is cancelled and resumed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, TextIO

from app.bench.sessions import PREBUFFERS_MS, TEXTS, TOKENS_PER_S, Bench, MeasuredSession, paired, summary
from app.client.connection import Json
from app.client.http import ApiClient
from app.client.narrations import Narrations
from app.errors import DeadlineExceeded, WorkerLost
from app.speech.protocol import Pace

CHAPTERS = 8
PARAGRAPHS = 60
PATIENCE_S = 180.0
POLL_S = 0.25


@dataclass
class _Measured:
    """Sessions under one condition, all rounds together."""

    sessions: list[MeasuredSession] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, Any]:
        return {"errors": dict(self.errors), **summary(self.sessions)}


class Reading:
    """One narration, which is rendered only while that is wanted."""

    def __init__(
        self,
        narrations: Narrations,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._narrations, self._clock, self._sleep = narrations, clock, sleep

    def begin(self, text: str, voice: str, model: str | None) -> None:
        wanted = {"voice": voice, "model": model, "text": text, "format": "wav", "options": {"normalise": False}}
        self._narration = self._narrations.create(wanted)
        self._wait(lambda now: now["state"] != "planning" and now["state"] != "queued")
        self._stop()

    @property
    def audio_s(self) -> float:
        """How much of it has been spoken."""
        return self._narration["audio_s"]

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """The narration goes on while the context lasts: a first new segment is there when it begins."""
        done = self._narration["segments_done"]
        self._narrations.resume(self._id, {})
        self._wait(lambda now: now["state"] == "rendering" and now["segments_done"] > done)
        try:
            yield
        finally:
            self._stop()

    def delete(self) -> None:
        self._narrations.delete(self._id)

    @property
    def _id(self) -> str:
        return self._narration["id"]

    def _stop(self) -> None:
        """Raises WorkerLost when there is nothing to stop: it failed, or is at its end."""
        self._narrations.cancel(self._id)
        self._wait(lambda now: now["over"])
        if self._narration["state"] != "cancelled":
            raise WorkerLost(f"the narration was {self._narration['state']} while sessions were measured beside it")

    def _wait(self, reached: Callable[[Json], bool]) -> None:
        deadline = self._clock() + PATIENCE_S
        while True:
            self._narration = self._narrations.get(self._id)
            if reached(self._narration):
                return
            if self._narration["over"]:
                raise WorkerLost(f"the narration has {self._narration['state']}; `carillon narrate --resume` says why")
            if self._clock() > deadline:
                raise DeadlineExceeded(
                    f"the narration is {self._narration['state']} after {PATIENCE_S:g} s; does `carillon tasks` run?"
                )
            self._sleep(POLL_S)


def run(
    *,
    url: str,
    key: str | None,
    voices: Sequence[str],
    concurrency: int = 1,
    sessions: int = 8,
    rounds: int = 3,
    model: str | None = None,
    pace: Pace = "realtime",
    tokens_per_s: float = TOKENS_PER_S,
    seed: int | None = None,
    out: TextIO,
) -> dict[str, Any]:
    """Hold `sessions` sessions, `concurrency` at once, in each of `rounds` rounds alone and beside a narration.

    The table goes to `out`, everything is returned. Raises CarillonError when not even one session can be held, or the
    narration does not start.
    """
    bench = Bench(url, key, tuple(voices), model, pace, tokens_per_s, seed=1)
    alone, beside = _Measured(), _Measured()
    asyncio.run(bench.warm_up())
    with ApiClient(url, key) as client:
        reading = Reading(client.narrations)
        reading.begin(book(time.time_ns() if seed is None else seed), voices[0], model)
        spoken_s = 0.0
        try:
            for _ in range(rounds):
                _measure(bench, concurrency, sessions, alone)
                before_s = reading.audio_s
                with reading.under_way():
                    _measure(bench, concurrency, sessions, beside)
                spoken_s += reading.audio_s - before_s
        finally:
            reading.delete()
    report = {
        "model": asyncio.run(bench.model_card()),
        "voices": list(voices),
        "pace": pace,
        "concurrency": concurrency,
        "rounds": rounds,
        "narrated_s": round(spoken_s, 1),
        "alone": alone.report(),
        "beside": beside.report(),
    }
    out.write(table(report))
    return report


def _measure(bench: Bench, concurrency: int, sessions: int, measured: _Measured) -> None:
    held, errors = asyncio.run(bench.hold(concurrency, sessions))
    measured.sessions += held
    measured.errors += errors


def book(seed: int) -> str:
    """A text in CHAPTERS chapters, enough for minutes beside any bench, of which no two seeds share a segment."""
    draw = Random(seed)
    chapters = []
    for number in range(1, CHAPTERS + 1):
        paragraphs = [
            f"In house {draw.randrange(10**9)} they said: {draw.choice(TEXTS[:3])}" for _ in range(PARAGRAPHS)
        ]
        chapters.append("\n\n".join([f"# Chapter {number}", *paragraphs]))
    return "\n\n".join(chapters)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    model = report["model"]
    lines = [
        f"{model['name']}{' (stand-in)' if model['stand_in'] else ''}, {report['concurrency']} at once, "
        f"{report['pace']}, {report['rounds']} rounds; ms are P50/P95",
        f"{'':>20}{'held':>6}{'errors':>8}{'ttfa ms':>14}{'audible ms':>14}"
        + "".join(f"{f'dry@{ms} ms':>11}" for ms in PREBUFFERS_MS),
    ]
    for name, title in (("alone", "alone"), ("beside", "beside a narration")):
        level = report[name]
        lines.append(
            f"{title:>20}{level['sessions']:>6}{sum(level['errors'].values()):>8}"
            f"{paired(level['ttfa_ms'], '.0f'):>14}{paired(level['audible_ttfa_ms'], '.0f'):>14}"
            + "".join(f"{level['underruns'][str(ms)]['sessions']:>11}" for ms in PREBUFFERS_MS)
        )
    lines.append(f"{report['narrated_s']:g} s of the narration were spoken meanwhile")
    return "\n".join(lines) + "\n"
