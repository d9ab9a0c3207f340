"""Those who order books and clones of a fleet while it is hurt: each is asked for once, and comes to one good end."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

import httpx

from app.cli.clone import found
from app.cli.demo import RECORDINGS
from tests.soak.fleet import SoakFleet
from tests.soak.ledger import Ledger
from tests.soak.traffic import AGAIN_S, told

JOB_HANG_S = 1200.0
FOR_NOW = frozenset({408, 409, 429, 500, 502, 503, 504})
LOOK_S = 0.5
CLIPS = 12
"""Of the demonstration's recordings: half a minute."""

RECIPE: dict[str, Any] = {
    "prepare": {"min_usable_s": 20, "min_clips": 5},
    "train": {"epochs": 1, "batch_clips": 2, "checkpoint_steps": 1, "patience": 1},
    "gate": {"prompts": 4, "max_head_silence_p50_ms": 60_000, "max_head_silence_p95_ms": 60_000,
             "min_ended_share": 0, "duration_ratio": [0, 100], "max_silence_run_s": 60, "require_closeness": False,
             "max_word_error_rate": 1},
}  # fmt: skip
"""Of a training as short as one can be, and a gate that lets pass what scripted workers speak."""


class Jobs:
    """What is ordered follows from the seed."""

    def __init__(self, fleet: SoakFleet, ledger: Ledger, seed: int) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._rng = random.Random(f"{seed} jobs")
        self._voices = count(1)
        self.orders: dict[str, list[str]] = {"narrations": [], "clones": []}
        """The ids of what was ordered, by kind."""

    async def have_a_book_read(self) -> None:
        text = "\n\n".join(f"# Chapter {number}\n\n{told(self._rng, 4)}" for number in (1, 2))
        body = {"voice": "slt", "text": text, "kind": "markdown", "format": "wav"}
        if (book := await self._ordered("narrations", body)) and book["segments_done"] != book["segments"]:
            self._ledger.lost.append(f"book {book['id']} has {book['segments_done']} of {book['segments']} segments")

    async def have_a_voice_cloned(self) -> None:
        """A voice of its own from its recordings to its first version, which is in force then."""
        made = await self._insist("/v1/voices", json={"name": f"clone {next(self._voices)}", "language": "en"})
        voice = f"/v1/voices/{made['id']}"
        files, transcripts = found(RECORDINGS)
        recordings = [("files", (path.name, path.read_bytes())) for path in files[:CLIPS]]
        said = {"transcripts": [json.dumps(transcripts[path.name]) for path in files[:CLIPS]]}
        await self._insist(f"{voice}/samples", files=recordings, data=said)
        await self._insist(f"{voice}/consent", json={"statement": "a synthetic voice"})
        if job := await self._ordered("clones", {"voice": made["id"], "overrides": RECIPE}):
            seen = await self._insist(voice, method="GET")
            if (seen["version"], seen["versions"]) != (job["version"], [job["version"]]):
                self._ledger.lost.append(f"{voice} has {seen['versions']}, and {seen['version']} in force")

    async def _ordered(self, kind: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """A job, once it has completed."""
        job = await self._insist(f"/v1/{kind}", json=body)
        self.orders[kind].append(job["id"])
        self._ledger.jobs[f"{kind} ordered"] += 1
        try:
            async with asyncio.timeout(JOB_HANG_S):
                while not job["over"]:
                    await asyncio.sleep(LOOK_S)
                    job = await self._insist(f"/v1/{kind}/{job['id']}", method="GET")
        except TimeoutError:
            self._ledger.lost.append(f"{kind}: {job['id']} is {job['state']} after {JOB_HANG_S:g} s")
            return None
        self._ledger.jobs[f"{kind} {job['state']}"] += 1
        if job["state"] != "completed":
            self._ledger.lost.append(f"{kind}: {job['id']} is {job['state']}: {job['error']}")
            return None
        return job

    async def _insist(self, path: str, *, method: str = "POST", **content: Any) -> dict[str, Any]:
        """The answer to a request, made once however often that must be said, at one front door after the other."""
        headers = {"Idempotency-Key": uuid4().hex} if method == "POST" else {}
        async with asyncio.timeout(JOB_HANG_S):
            while True:
                for door in self._fleet.doors.values():
                    with suppress(httpx.TransportError):
                        async with self._fleet.client(door, timeout_s=20) as client:
                            answer = await client.request(method, path, headers=headers, **content)
                        if answer.is_success:
                            return answer.json()
                        assert answer.status_code in FOR_NOW, f"{method} {path}: {answer.status_code} {answer.text}"
                        self._ledger.refused[f"{method} {answer.status_code}"] += 1
                    await asyncio.sleep(AGAIN_S)
