"""`carillon bench fleet`: how many live sessions one core of the front door carries, and what a start costs.

The front door is the real program with keys, tables and registry; the workers replay audio (app.bench.replay_fleet);
the load generator (app.bench.load_generator) is a process of its own. It does not measure an engine. A running fleet
can be loaded instead: its frames carry no times, so there is no added latency to report then, and its capacity is the
limit.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from pydantic import ValidationError

from app.bench.figures import (
    ADDED_LIMIT_MS,
    Measured,
    Plan,
    Target,
    bytes_per_session,
    most_starts_per_s,
    sessions_per_core,
)
from app.bench.replay_fleet import Cores, replay_fleet
from app.errors import CarillonError
from app.fleet.placement import PlacementIndex
from app.fleet.worker import Worker, WorkerState
from app.local.supervisor import REAPER
from app.speech.voices import ModelCard, Voice

PLACEMENT_FLEETS = (100, 1_000)
PLACEMENT_S = 1.0
PLACEMENT_CAPACITY = 16

SPARE_PLACES = 100
"""Of a worker, beyond twice its share of the sessions: placement spreads voices, not sessions."""

Json = dict[str, Any]


def run(
    *,
    plan: Plan,
    workers: int = 4,
    frames_per_message: int = 1,
    running: Target | None = None,
    out: TextIO,
) -> Json:
    """Measure as planned: a fleet of replaying `workers`, or the one that is `running`.

    The table goes to `out`, everything is returned. Raises what keeps a part from starting.
    """
    report = asyncio.run(_report(plan, workers, frames_per_message, running, out))
    out.write(table(report))
    return report


async def _report(plan: Plan, workers: int, frames_per_message: int, running: Target | None, out: TextIO) -> Json:
    def report(sentence: str) -> None:
        print(f"bench: {sentence}", file=sys.stderr, flush=True)

    cores = Cores.of_this_machine() if running is None else Cores()
    busy_before = os.getloadavg()[0]
    placements = {str(count): round(placements_per_s(count)) for count in PLACEMENT_FLEETS}
    if running is not None:
        measured = await _load(running, plan)
    else:
        capacity = 2 * max(plan.sessions, default=1) // workers + plan.direct_sessions + SPARE_PLACES
        fleet = replay_fleet(
            workers=workers, capacity=capacity, frames_per_message=frames_per_message, cores=cores, report=report
        )
        async with fleet as target:
            with cores.only(cores.rest):
                measured = await _load(target, plan)
    return {
        "plan": plan.model_dump(mode="json"),
        "fleet": running.url if running else f"{workers} workers that replay {frames_per_message} frame(s) a message",
        "cores": str(cores) if running is None else "as the running fleet has them",
        "load_average": [round(busy_before, 2), round(os.getloadavg()[0], 2)],
        "placements_per_s": placements,
        **reckoned(measured),
    }


async def _load(target: Target, plan: Plan) -> Measured:
    """Run the load generator; it ends with this process. Raises CarillonError with its last words."""
    request = {"target": target.model_dump(mode="json"), "plan": plan.model_dump(mode="json")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(REAPER), "exec", str(os.getpid())),
        *(sys.executable, "-P", "-m", "app.bench.load_generator"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        answer, _ = await process.communicate(json.dumps(request).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        return Measured.model_validate_json(answer)
    except ValidationError:
        raise CarillonError(f"the load generator ended with status {process.returncode}; see above") from None


def reckoned(measured: Measured) -> Json:
    """What was measured, and what follows from it, for programs."""
    steps, starts = measured.steps, measured.starts
    per_core, memory = sessions_per_core(steps), bytes_per_session(steps)
    return {
        "steps": [
            {
                **step.model_dump(mode="json"),
                "added_ms": step.added_ms.model_dump(mode="json") if step.added_ms else None,
                "cpu_us_per_message": None if step.cpu_us_per_message is None else round(step.cpu_us_per_message, 1),
            }
            for step in steps
        ],
        "starts": [{**one.model_dump(mode="json"), "hold": one.hold} for one in starts],
        "sessions_per_core": None if per_core is None else round(per_core),
        "bytes_per_session": None if memory is None else round(memory),
        "starts_per_s": most_starts_per_s(starts),
    }


def placements_per_s(count: int) -> float:
    """How often a second placement chooses one of `count` workers and counts the session there, here and now."""
    index = PlacementIndex()
    for number in range(count):
        index.put(_worker(number))
    voices = itertools.cycle(Voice(id=f"v{number}", name=f"v{number}", model=_CARD.name) for number in range(1_000))
    next(index.candidates(next(voices)))  # the ring is made now, and seldom
    began_s, done = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - began_s) < PLACEMENT_S:
        worker = next(index.candidates(next(voices))).worker
        sessions = (worker.inflight + 1) % (PLACEMENT_CAPACITY // 2)  # as many come as go
        index.put(worker.model_copy(update={"inflight": sessions}))
        done += 1
    return done / elapsed_s


_CARD = ModelCard(name="m", stand_in=True, languages=("en",), voices=(), sample_rate_hz=24_000, tokens_per_s=82.03)


def _worker(number: int) -> Worker:
    return Worker(
        id=f"w{number}",
        epoch=1,
        address="ws://w",
        model=_CARD,
        state=WorkerState.ACTIVE,
        capacity=PLACEMENT_CAPACITY,
        max_voices=PLACEMENT_CAPACITY,
        inflight=number % (PLACEMENT_CAPACITY // 2),
    )


def table(report: Json) -> str:
    """The report for people."""
    plan = report["plan"]
    before, after = report["load_average"]
    lines = [
        f"{report['fleet']}; sessions of {plan['length_s']:g} s on average, {plan['sessions_per_socket']} on a socket, "
        f"text at {plan['tokens_per_s']:g} tokens/s",
        f"{report['cores']}; load average {before:g} before, {after:g} after; ms are P50/P95/P99",
        "",
        f"{'sessions':>9}{'frames/s':>10}{'texts/s':>9}{'cpu':>7}{'µs/frame':>10}{'added ms':>18}{'through ms':>18}"
        f"{'direct ms':>18}{'starts/s':>10}{'start ms':>16}{'refused':>9}{'errors':>8}",
    ]
    lines += [
        f"{step['held']:>9.0f}{step['messages_per_s']:>10.0f}{step['texts_per_s']:>9.0f}{_share(step['cpu']):>7}"
        f"{_number(step['cpu_us_per_message']):>10}{_three(step['added_ms']):>18}{_three(step['through']):>18}"
        f"{_three(step['direct']):>18}{step['starts_per_s']:>10.1f}{_three(step['start_ms'], '.1f'):>16}"
        f"{step['refused']:>9}{sum(step['errors'].values()):>8}"
        for step in report["steps"]
    ]
    if report["starts"]:
        head = f"{'starts/s':>9}{'begun':>8}{'done':>8}{'cpu':>7}{'start ms':>20}{'redis':>7}{'errors':>8}  held"
        lines += ["", head]
    lines += [
        f"{one['offered_per_s']:>9.0f}{one['begun']:>8}{one['done']:>8}{_share(one['cpu']):>7}"
        f"{_three(one['start_ms'], '.1f'):>20}{_number(one['redis_calls'], '.2f'):>7}"
        f"{sum(one['errors'].values()) + one['refused']:>8}  {'yes' if one['hold'] else 'no'}"
        for one in report["starts"]
    ]
    return "\n".join([*lines, "", *_conclusions(report)]) + "\n"


def _conclusions(report: Json) -> Sequence[str]:
    memory = report["bytes_per_session"]
    placements = ", ".join(f"{rate:,} of {count} workers" for count, rate in report["placements_per_s"].items())
    return (
        f"sessions per core at P99 added ≤ {ADDED_LIMIT_MS:g} ms: {_number(report['sessions_per_core'])}",
        f"memory per session: {_number(None if memory is None else memory / 1024)} KiB",
        f"starts per second that are held: {_number(report['starts_per_s'])}",
        f"placements per second: {placements}",
    )


def _three(values: Json | None, form: str = ".2f") -> str:
    return "–" if values is None else f"{values['p50']:{form}}/{values['p95']:{form}}/{values['p99']:{form}}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _number(value: float | None, form: str = ".0f") -> str:
    return "–" if value is None else f"{value:{form}}"
