"""`carillon bench tenants`: what one project hears while another floods the fleet, in each of several ways.

Two projects are made, with keys that hold for a day. The one speaks, a session after the other, in rounds: alone, then
beside a flood (`app.bench.floods`, a process of its own), so that what else the machine does falls on both alike. The
flooding project has the limits that are given; by default half of the fleet's places and ten jobs in the queue, as an
operator would set them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from app.bench.floods import WAYS
from app.bench.replay_fleet import Cores, replay_fleet
from app.bench.sessions import TOKENS_PER_S, Bench, MeasuredSession, paired, spread
from app.client.connection import Json
from app.client.http import ApiClient
from app.errors import CarillonError, ConfigurationError
from app.speech.choices import Scope
from app.speech.protocol import Pace

FLOODING, SPEAKING = "bench tenants: flooding", "bench tenants: speaking"
SCOPES = (Scope.SPEAK, Scope.CLONE, Scope.NARRATE)
GOAL = 1.1
"""Of the P95 beside a flood to the P95 alone."""

PLACES = 16
"""Of a fleet that replays."""

LATE_S = 0.025
"""A bucket of the front door's histogram: beyond the 20 ms that nothing a client sends may hold its loop."""

STOP_TIMEOUT_S = 30.0
KEY_DAYS = 1.0


@dataclass(frozen=True)
class Lag:
    """How often the front door's event loop looked at the clock, and how often it came at most LATE_S late."""

    wakes: int
    in_time: int

    @classmethod
    def told(cls, metrics: str) -> Lag:
        """Of what `/metrics` says since it began."""
        found = {"count": 0.0, f'bucket{{le="{LATE_S}"}}': 0.0}
        for line in metrics.splitlines():
            name, _, value = line.removeprefix("carillon_loop_lag_seconds_").rpartition(" ")
            if name in found:
                found[name] = float(value)
        return cls(*map(int, found.values()))

    def since(self, before: Lag) -> Lag:
        return Lag(self.wakes - before.wakes, self.in_time - before.in_time)

    def __add__(self, other: Lag) -> Lag:
        return Lag(self.wakes + other.wakes, self.in_time + other.in_time)

    @property
    def late_share(self) -> float | None:
        return round(1 - self.in_time / self.wakes, 4) if self.wakes else None


@dataclass
class Beside:
    """Measurements of one kind of flood: sessions alone and beside it, failures, and the flood's responses."""

    way: str
    alone: list[MeasuredSession] = field(default_factory=list)
    beside: list[MeasuredSession] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    lag: Lag = field(default_factory=lambda: Lag(0, 0))
    """Of the front door's event loop, beside the flood."""

    def report(self) -> dict[str, Any]:
        alone, beside = first_audio_ms(self.alone), first_audio_ms(self.beside)
        return {
            "way": self.way,
            "sessions": len(self.beside),
            "errors": dict(self.errors),
            "alone_ms": alone,
            "beside_ms": beside,
            "ratio": round(beside["p95"] / alone["p95"], 3) if alone and beside and alone["p95"] else None,
            "late_share": self.lag.late_share,
            "flood": dict(self.answers.most_common()),
        }


def run(
    *,
    url: str,
    key: str | None,
    voice: str,
    ways: Sequence[str],
    sessions: int = 20,
    rounds: int = 3,
    limits: Json | None = None,
    pace: Pace = "realtime",
    progress: Callable[[str], None],
    out: TextIO,
) -> dict[str, Any]:
    """Measure each of `ways`, `rounds` times `sessions` sessions alone and beside it; `key` has the scope `admin`.

    The table goes to `out`, everything is returned. Raises ConfigurationError for an unknown way, and CarillonError
    when not even one session can be held.
    """
    if unknown := [way for way in ways if way not in WAYS]:
        raise ConfigurationError(f"there is no flood {unknown[0]!r}; there are: {', '.join(WAYS)}")
    with ApiClient(url, key) as operator:
        places = sum(worker["capacity"] for worker in operator.fleet.workers().values())
        limits = {"sessions": max(1, places // 2), "queued_jobs": 10} if limits is None else limits
        flooding, speaking = _key_of(operator, FLOODING, limits), _key_of(operator, SPEAKING, {})
    bench = Bench(url, speaking, (voice,), None, pace, TOKENS_PER_S, seed=1)
    measured = [Beside(way) for way in ways]
    asyncio.run(bench.warm_up())
    for number in range(1, rounds + 1):
        for one in measured:
            progress(f"round {number} of {rounds}: {one.way}")
            asyncio.run(_half_and_half(one, bench, flooding, sessions))
    report = {
        "places": places,
        "limits": limits,
        "pace": pace,
        "rounds": rounds,
        "goal": GOAL,
        "ways": [one.report() for one in measured],
    }
    out.write(table(report))
    return report


def at_a_replaying_fleet(measure: Callable[[str, str | None, Sequence[str]], None]) -> None:
    """Measure (URL, key, voices) at a fleet of this command's own: a front door and workers without engines."""

    async def held() -> None:
        cores = Cores.of_this_machine()
        options: dict[str, Any] = {"workers": 1, "capacity": PLACES, "frames_per_message": 1, "cores": cores}
        async with replay_fleet(**options, report=lambda line: print(line, file=sys.stderr)) as fleet:
            with cores.only(cores.rest):
                await asyncio.to_thread(measure, fleet.url, fleet.key, fleet.voices)

    asyncio.run(held())


def _key_of(operator: ApiClient, name: str, limits: Json) -> str:
    """A key of the project of that name, which is made unless it is there."""
    known = {project["name"]: project for project in operator.keys.projects()}
    project = known.get(name) or operator.keys.create_project(name)
    operator.keys.limit_project(project["id"], limits)
    return operator.keys.create("bench tenants", SCOPES, KEY_DAYS, project["id"])


async def _half_and_half(one: Beside, bench: Bench, flooding: str, sessions: int) -> None:
    """So many sessions alone, and as many beside the flood."""
    held, errors = await bench.hold(1, sessions)
    one.alone += held
    one.errors += errors
    async with _flood(one, bench, flooding):
        before = await asyncio.to_thread(_lag, bench.url)
        held, errors = await bench.hold(1, sessions)
        one.lag += (await asyncio.to_thread(_lag, bench.url)).since(before)
    one.beside += held
    one.errors += errors
    await asyncio.to_thread(_tidy, bench.url, flooding)


@asynccontextmanager
async def _flood(one: Beside, bench: Bench, key: str) -> AsyncIterator[None]:
    """The flood, under way while the context is open."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "app.bench.floods", one.way, bench.url, bench.voices[0]),
        env={**os.environ, "CARILLON_KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        if not await process.stdout.readline():
            raise ConfigurationError(f"the flood {one.way!r} did not begin; its error stands above")
        yield
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_TIMEOUT_S):
            answers, _ = await process.communicate()
        one.answers.update(json.loads(answers or b"{}"))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _lag(url: str) -> Lag:
    with ApiClient(url, None) as client:
        return Lag.told(client.metrics())


def _tidy(url: str, key: str) -> None:
    """Delete the narrations that the flood has left; one that is being ended stays."""
    with ApiClient(url, key) as client:
        for narration in client.narrations.all(limit=1000):
            with suppress(CarillonError):
                if not narration["over"]:
                    client.narrations.cancel(narration["id"])
                client.narrations.delete(narration["id"])


def first_audio_ms(measured: Sequence[MeasuredSession]) -> dict[str, float] | None:
    return spread([session.ttfa_s for session in measured if session.arrivals], 1000)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    limits = ", ".join(f"{name} {value}" for name, value in report["limits"].items()) or "none"
    lines = [
        f"{report['places']} places, {report['rounds']} rounds, {report['pace']}; "
        f"limits of the flooding project: {limits}; first audio in ms, P50/P95",
        f"{'flood':<12}{'held':>6}{'errors':>8}{'alone':>14}{'beside':>14}{'P95':>8}{'loop late':>11}"
        "  what the flood was answered",
    ]
    for one in report["ways"]:
        ratio = "–" if one["ratio"] is None else f"{one['ratio']:.2f}×"
        late = "–" if one["late_share"] is None else f"{one['late_share']:.1%}"
        answers = ", ".join(f"{name}: {count}" for name, count in one["flood"].items()) or "nothing"
        lines.append(
            f"{one['way']:<12}{one['sessions']:>6}{sum(one['errors'].values()):>8}"
            f"{paired(one['alone_ms'], '.0f'):>14}{paired(one['beside_ms'], '.0f'):>14}{ratio:>8}{late:>11}  {answers}"
        )
    within = sum(one["ratio"] is not None and one["ratio"] <= report["goal"] for one in report["ways"])
    lines.append(
        f"{within} of {len(report['ways'])} within {report['goal']:g} of alone; loop late: beyond {1000 * LATE_S:g} ms"
    )
    return "\n".join(lines) + "\n"
