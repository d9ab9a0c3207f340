"""Narrations in a real fleet whose processes are killed under them: one file each, and nothing is spoken twice."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.support.deadlines import LONG_HANG_S
from tests.support.processes import until
from tests.support.receiver import Receiver
from tests.support.running_fleet import RunningFleet

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]

TALES = (
    "The owl asked the girl for the time. She said that it was half past seven. The owl thanked her and flew away.",
    "In the morning there was snow on the bridge. The farmer walked to the market. He bought bread and two apples.",
    "The old king had a golden clock. It was always late. One day he threw it into the lake, and he was happy.",
)
REFRAIN = "And the bell in the tower rang twelve times, loud and clear, over the water and the town. "
"""Said over and over it is spoken once and mastered every time: a long book that costs little."""


def book(*tales: str, refrains: int) -> str:
    chapters = [f"# Chapter {number}\n\n" + "\n\n".join(tale.split(". ")) for number, tale in enumerate(tales, 1)]
    return "\n\n".join([*chapters, *[REFRAIN] * refrains])


async def start(front_door: httpx.AsyncClient, text: str, **fields: Any) -> str:
    body = {"voice": "wren", "text": text, "kind": "markdown", "format": "wav", **fields}
    answer = await front_door.post("/v1/narrations", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def narration_when(
    front_door: httpx.AsyncClient, narration_id: str, *states: str, segments: int = 0
) -> dict[str, Any]:
    """The narration once it is in one of the states, with so many segments done at least."""
    async with asyncio.timeout(LONG_HANG_S):
        while True:
            try:
                narration = (await front_door.get(f"/v1/narrations/{narration_id}")).raise_for_status().json()
            except httpx.HTTPError:
                narration = {"state": "the front door is busy", "over": False}
            if narration["state"] in states and narration["segments_done"] >= segments:
                return narration
            assert not narration["over"], narration["error"]
            await asyncio.sleep(0.05)


async def audio_of(front_door: httpx.AsyncClient, narration_id: str) -> np.ndarray:
    answer = (await front_door.get(f"/v1/narrations/{narration_id}/audio")).raise_for_status()
    return soundfile.read(io.BytesIO(answer.content), dtype="int16")[0]


def files_of(fleet: RunningFleet, narration_id: str, kind: str) -> list[Path]:
    return [path for path in (fleet.data_dir / "s3").rglob(f"{kind}-*") if narration_id in path.parts]


async def test_a_narration_outlives_every_process_and_is_the_file_it_would_have_been(
    fleet: RunningFleet, front_door: httpx.AsyncClient, receiver: tuple[str, type[Receiver]]
) -> None:
    url, own = receiver
    text = book(*TALES, refrains=150)
    narration_id = await start(front_door, text, webhook_url=url)
    await narration_when(front_door, narration_id, "rendering", segments=2)
    os.killpg(fleet.pid_of("tasks"), signal.SIGKILL)
    await narration_when(front_door, narration_id, "rendering", segments=3)
    os.killpg(fleet.pid_of("worker-1"), signal.SIGKILL)
    await narration_when(front_door, narration_id, "rendering", segments=4)
    os.kill(fleet.pid_of("valkey"), signal.SIGKILL)
    await narration_when(front_door, narration_id, "mastering")
    os.killpg(fleet.pid_of("tasks"), signal.SIGKILL)
    narration = await narration_when(front_door, narration_id, "completed")
    assert narration["segments_done"] == narration["segments"]
    assert len(files_of(fleet, narration_id, "audio")) == len(files_of(fleet, narration_id, "timeline")) == 1

    await until(lambda: bool(own.heard))
    assert {headers["webhook-id"].rpartition("-")[0] for headers, _ in own.heard} == {narration_id}
    assert json.loads(own.heard[0][1])["type"] == "narration.completed"

    undisturbed = await start(front_door, text)
    again = await narration_when(front_door, undisturbed, "completed")
    assert again["busy_s"] == 0, "every segment was found in the store"
    assert np.array_equal(await audio_of(front_door, narration_id), await audio_of(front_door, undisturbed))


async def test_a_cancelled_narration_stops_and_goes_on_where_it_was(
    fleet: RunningFleet, front_door: httpx.AsyncClient
) -> None:
    def spoken_since() -> int:
        return len({*(fleet.data_dir / "s3").rglob("voices/rook/segments/*.json")} - before)

    before = {*(fleet.data_dir / "s3").rglob("voices/rook/segments/*.json")}
    narration_id = await start(front_door, book(*reversed(TALES), refrains=0), voice="rook")
    await narration_when(front_door, narration_id, "rendering", segments=2)
    assert (await front_door.post(f"/v1/narrations/{narration_id}/cancel")).status_code == 200
    cancelled = await narration_when(front_door, narration_id, "cancelled")
    assert 2 <= spoken_since() < cancelled["segments"]
    assert (await front_door.post(f"/v1/narrations/{narration_id}/resume")).status_code == 202
    completed = await narration_when(front_door, narration_id, "completed")
    timeline = (await front_door.get(f"/v1/narrations/{narration_id}/segments")).json()["data"]
    assert len(timeline) == completed["segments"]
    assert spoken_since() == completed["segments"]


async def test_one_segment_read_again_leaves_every_other_as_it_was(
    fleet: RunningFleet, front_door: httpx.AsyncClient
) -> None:
    narration_id = await start(front_door, TALES[0], kind="text", options={"pauses": {"sentence_s": 0.5}})
    await narration_when(front_door, narration_id, "completed")
    before = (await front_door.get(f"/v1/narrations/{narration_id}/segments")).json()["data"]
    first = await audio_of(front_door, narration_id)
    answer = await front_door.post(f"/v1/narrations/{narration_id}/segments/3/regenerate")
    assert answer.status_code == 202, answer.text
    await narration_when(front_door, narration_id, "completed")
    after = (await front_door.get(f"/v1/narrations/{narration_id}/segments")).json()["data"]
    assert [s["end_s"] - s["start_s"] for s in after[:2]] == [s["end_s"] - s["start_s"] for s in before[:2]]
    assert not np.array_equal(first, await audio_of(front_door, narration_id))
    assert len(files_of(fleet, narration_id, "audio")) == 1
