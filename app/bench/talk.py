"""`carillon bench talk`: spoken questions at a running fleet's `/talk`, and the budget of their turns.

The questions are recordings (flite's `slt`, BSD), and are sent at the pace of a microphone over the WebSocket.
What the front door shows is printed beside what is measured here: from the last audible sample sent to the first one
received. With the scripted host the mind costs nothing, and what is measured is the ear, the fleet and the turn-taking.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import soundfile
import soxr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from app.client.refusals import unreachable
from app.errors import CarillonError, DeadlineExceeded
from app.hearing.words import letter_agreement
from app.talk.budget import PARTS, STEPS, TurnBudget, percentile, steps, table
from app.talk.playout import AUDIBLE

RATE_HZ = 16_000
PACKET_SAMPLES = RATE_HZ // 50
ANSWER_TIMEOUT_S = 120.0

QUESTIONS = (
    "Hello, how are you today?", "Who are you?", "Can you count to three?", "Good morning to you.",
    "Please count to two.", "The weather is nice today.", "What is your name?", "Count to four, please.",
    "I like the sound of bells.", "Hi there, my friend.", "The train leaves at nine.", "Please count to five.",
    "My garden is full of flowers.", "Good evening, everybody.", "Can you count to six?", "We had soup for dinner.",
    "What are you?", "The river is very wide here.", "Hello again, old friend.", "Count to one, please.",
)  # fmt: skip
"""Twenty, which the scripted host answers shortly."""

RECORDINGS = Path(__file__).with_name("questions")


@dataclass
class Turn:
    """One question, as it was asked, heard, shown and measured."""

    question: str
    heard: str = ""
    budget: TurnBudget | None = None
    measured_ms: float | None = None


@dataclass
class _Line:
    """What has come back on a conversation's socket."""

    socket: ClientConnection
    events: list[dict[str, Any]] = field(default_factory=list)
    first_sound_at: float | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> None:
        async for message in self.socket:
            if isinstance(message, bytes):
                if self.first_sound_at is None:
                    loud = np.flatnonzero(np.abs(np.frombuffer(message, "<i2").astype(np.int32)) >= AUDIBLE)
                    self.first_sound_at = time.monotonic() + loud[0] / 24_000 if len(loud) else None
            else:
                self.events.append(json.loads(message))
            self.news.set()

    async def until(self, type: str) -> dict[str, Any]:
        """The first event of a type since `events` was emptied. Raises the error that comes instead."""
        while True:
            for event in self.events:
                if event["type"] == "error":
                    raise CarillonError.from_wire(event["code"], event["message"])
                if event["type"] == type:
                    return event
            self.news.clear()
            await self.news.wait()


def run(*, url: str, key: str | None, voice: str | None, turns: int, out: TextIO) -> dict[str, Any]:
    """Ask, print the table, and return everything. Raises what the front door refuses with."""
    numbers = [number % len(QUESTIONS) for number in range(turns)]
    asked = [(QUESTIONS[number], recording(number)) for number in numbers]
    measured = asyncio.run(_converse(url, key, voice, asked))
    print(report(measured), file=out)
    rows = [
        {"question": it.question, "heard": it.heard, "measured_ms": it.measured_ms, **it.budget.row()}
        for it in measured
        if it.budget is not None
    ]
    return {"turns": rows}


def report(turns: Sequence[Turn]) -> str:
    """The table: each step of the way, then the moments since the end of speech, then what was measured."""
    budgets = [it.budget for it in turns if it.budget is not None]
    rows = [["", "P50 ms", "P95 ms"]]
    taken = [steps(it) for it in budgets]
    for name in STEPS:
        rows.append([name, *_percentiles([it[name] for it in taken if name in it])])
    rows.append(["", "", ""])
    for part in PARTS:
        values = [value for it in budgets if (value := getattr(it, part)) is not None]
        rows.append([f"end of speech → {part.removesuffix('_ms')}", *_percentiles(values)])
    rows.append(["measured here", *_percentiles([it.measured_ms for it in turns if it.measured_ms is not None])])
    share = table(budgets)["in_the_money"]
    understood = sum(letter_agreement(it.question, it.heard) for it in turns) / len(turns)
    lines = "\n".join(f"{name:<26}{median:>8}{worst:>8}".rstrip() for name, median, worst in rows)
    return (
        f"{lines}\n\n{len(budgets)} of {len(turns)} questions answered; "
        f"{'none' if share is None else f'{share:.0%}'} in the money ({budgets[0].snooze_ms:g} ms); "
        f"letters heard right: {understood:.0%}"
        if budgets
        else f"none of {len(turns)} questions was answered"
    )


async def _converse(url: str, key: str | None, voice: str | None, asked: list[tuple[str, np.ndarray]]) -> list[Turn]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = url.rstrip("/").replace("http", "ws", 1) + "/talk/audio"
    try:
        async with connect(address, additional_headers=headers, proxy=None, max_size=None) as socket:
            await socket.send(json.dumps({"type": "start", "rate_hz": RATE_HZ, "voice": voice}))
            line = _Line(socket)
            reading = asyncio.create_task(line.read())
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await line.until("who")
                await _say(socket, np.zeros(5 * RATE_HZ, np.int16))  # the ears start
                return [await _ask(line, question, samples) for question, samples in asked]
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
    except TimeoutError:
        raise DeadlineExceeded(f"no answer came within {ANSWER_TIMEOUT_S:g} s") from None
    except (InvalidHandshake, OSError, ConnectionClosed):
        raise unreachable(url, "there is no /talk, or it hung up") from None


async def _ask(line: _Line, question: str, samples: np.ndarray) -> Turn:
    turn = Turn(question)
    line.events.clear()
    line.first_sound_at = None
    ended_at = await _say(line.socket, samples)
    line.first_sound_at = None
    silence = asyncio.create_task(_silence(line.socket))
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            shown = await line.until("turn")
            await line.until("answered")
    finally:
        silence.cancel()
        await asyncio.gather(silence, return_exceptions=True)
    turn.heard = next((it["text"] for it in line.events if it["type"] == "heard" and it["sure"]), "")
    turn.budget = TurnBudget(**{name: shown[name] for name in TurnBudget.model_fields})
    if line.first_sound_at is not None:
        turn.measured_ms = round((line.first_sound_at - ended_at) * 1000, 1)
    return turn


async def _say(socket: ClientConnection, samples: np.ndarray) -> float:
    """Send at the pace of a microphone; returns when the last sample left."""
    due = time.monotonic()
    for start in range(0, len(samples), PACKET_SAMPLES):
        packet = samples[start : start + PACKET_SAMPLES]
        await socket.send(packet.tobytes())
        due += len(packet) / RATE_HZ
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return due


async def _silence(socket: ClientConnection) -> None:
    while True:
        await _say(socket, np.zeros(RATE_HZ, np.int16))


def recording(number: int) -> np.ndarray:
    """The question of that number as int16 of 16 kHz, from its first audible sample to its last."""
    samples, rate_hz = soundfile.read(RECORDINGS / f"{number + 1:02}.ogg", dtype="float32")
    at_rate = (np.clip(soxr.resample(samples, rate_hz, RATE_HZ), -1, 1) * 32767).astype(np.int16)
    loud = np.flatnonzero(np.abs(at_rate.astype(np.int32)) >= AUDIBLE)
    return at_rate[loud[0] : loud[-1] + 1] if len(loud) else at_rate


def _percentiles(values: Sequence[float]) -> list[str]:
    return ["–" if (value := percentile(values, percent)) is None else f"{value:.0f}" for percent in (50, 95)]
