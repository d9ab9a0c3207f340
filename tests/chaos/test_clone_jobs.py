"""Clone jobs in a real fleet whose processes are killed under them: each ends once, and goes on from where it was."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.cli.clone import found
from app.cli.demo import RECORDINGS
from app.client.http import ApiClient
from tests.support.deadlines import LONG_HANG_S
from tests.support.processes import until
from tests.support.receiver import Receiver
from tests.support.running_fleet import RunningFleet

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]

RECIPE = {
    "prepare": {"min_usable_s": 20, "min_clips": 5},
    "train": {"epochs": 4, "batch_clips": 2, "checkpoint_steps": 1, "patience": 4},
    "gate": {"prompts": 4, "max_head_silence_p50_ms": 60_000, "max_head_silence_p95_ms": 60_000,
             "min_ended_share": 0, "duration_ratio": [0, 100], "max_silence_run_s": 60, "require_closeness": False,
             "max_word_error_rate": 1},
}  # fmt: skip
AWAY_S = 20.0


def voice_with_recordings(fleet: RunningFleet, name: str) -> str:
    """A voice with twelve recordings and consent, ready to be cloned."""
    with ApiClient(fleet.address, fleet.key) as client:
        voice = client.voices.find_or_create(name, model=None, language="en")
        files, transcripts = found(RECORDINGS)
        client.voices.upload_samples(voice["id"], files[:12], transcripts)
        client.voices.record_consent(voice["id"], recording=None, statement="a synthetic voice")
    return voice["id"]


async def start(front_door: httpx.AsyncClient, voice_id: str, **fields: str) -> str:
    answer = await front_door.post("/v1/clones", json={"voice": voice_id, "overrides": RECIPE, **fields})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def job_when(front_door: httpx.AsyncClient, job_id: str, *states: str, step: int = 0) -> dict[str, Any]:
    """The job once it is in one of the states, its training at least at `step`."""
    async with asyncio.timeout(LONG_HANG_S):
        while True:
            try:
                job = (await front_door.get(f"/v1/clones/{job_id}")).raise_for_status().json()
            except httpx.HTTPError:
                job = {"state": "the front door is busy", "over": False}
            if job["state"] in states and (job["progress"] or {"step": 0})["step"] >= step:
                return job
            assert not job["over"], job["error"]
            await asyncio.sleep(0.05)


def stages(fleet: RunningFleet, stage: str) -> list[psutil.Process]:
    """The running processes of a stage."""
    processes = psutil.Process(fleet.process.pid).children(recursive=True)
    found = []
    for process in processes:
        try:
            if f"training.{stage}" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


async def kill_stage(fleet: RunningFleet, stage: str) -> None:
    """SIGKILL to a stage as soon as it runs."""
    async with asyncio.timeout(LONG_HANG_S):
        while not (processes := stages(fleet, stage)):
            await asyncio.sleep(0.02)
    processes[0].kill()


def resumed_at(fleet: RunningFleet, job_id: str) -> int:
    """The number of the checkpoint from which the job's training went on; with this recipe there is one a step."""
    log = (fleet.data_dir / "logs" / "tasks.log").read_text()
    [number] = re.findall(rf"training resumed.*{job_id}.*checkpoint-(\d+)", log)
    return int(number)


async def assert_completed_once(fleet: RunningFleet, front_door: httpx.AsyncClient, job: dict[str, Any]) -> None:
    """One version is in force, it can be spoken with, and every epoch was counted once."""
    assert job["state"] == "completed"
    voice = (await front_door.get(f"/v1/voices/{job['voice_id']}")).json()
    assert (voice["version"], voice["versions"]) == (job["version"], [job["version"]])
    assert len(job["progress"]["held_out_losses"]) == job["progress"]["epochs"] + 1
    said = {"model": voice["model"], "voice": voice["id"], "input": "Good morning.", "response_format": "pcm"}
    answer = await front_door.post("/v1/audio/speech", json=said)
    assert answer.status_code == 200, answer.text
    assert answer.content
    log = (fleet.data_dir / "logs" / "tasks.log").read_text()
    assert len(re.findall(rf"job over.*{job['id']}.*completed", log)) == 1


async def test_a_job_whose_every_stage_is_killed_once_completes_once(
    fleet: RunningFleet, front_door: httpx.AsyncClient, receiver: tuple[str, type[Receiver]]
) -> None:
    url, own = receiver
    job_id = await start(front_door, voice_with_recordings(fleet, "killed stages"), webhook_url=url)
    await kill_stage(fleet, "prepare")
    await job_when(front_door, job_id, "training", step=12)
    await kill_stage(fleet, "lora")
    await kill_stage(fleet, "publish")
    await kill_stage(fleet, "gate")
    job = await job_when(front_door, job_id, "completed")
    assert job["attempt"] == 5
    await assert_completed_once(fleet, front_door, job)
    assert resumed_at(fleet, job_id) >= 10, "the second trainer went on from the first one's checkpoint"
    await until(lambda: bool(own.heard))
    assert {headers["webhook-id"] for headers, _ in own.heard} == {job_id}
    assert json.loads(own.heard[0][1])["type"] == "clone.completed"


async def test_a_job_outlives_its_tasks_process_its_broker_and_its_store(
    fleet: RunningFleet, front_door: httpx.AsyncClient
) -> None:
    job_id = await start(front_door, voice_with_recordings(fleet, "killed services"))
    await job_when(front_door, job_id, "training", step=5)
    os.kill(fleet.pid_of("valkey"), signal.SIGKILL)
    await job_when(front_door, job_id, "training", step=8)
    store = fleet.pid_of("s3")
    os.kill(store, signal.SIGSTOP)
    await asyncio.sleep(AWAY_S)  # how long it is away is the test
    os.kill(store, signal.SIGCONT)
    await job_when(front_door, job_id, "training", "gating", step=9)
    os.killpg(fleet.pid_of("tasks"), signal.SIGKILL)
    job = await job_when(front_door, job_id, "completed")
    assert job["attempt"] == 2
    assert resumed_at(fleet, job_id) >= 5
    await assert_completed_once(fleet, front_door, job)


async def test_a_cancelled_job_stops_its_trainer_and_leaves_nothing(
    fleet: RunningFleet, front_door: httpx.AsyncClient
) -> None:
    voice_id = voice_with_recordings(fleet, "cancelled")
    job_id = await start(front_door, voice_id)
    await job_when(front_door, job_id, "training", step=2)
    assert (await front_door.post(f"/v1/clones/{job_id}/cancel")).status_code == 200
    job = await job_when(front_door, job_id, "cancelled")
    assert job["version"] is None
    assert not stages(fleet, "lora")
    assert not list((fleet.data_dir / "s3").rglob(f"*{job_id}*/*"))
    again = await front_door.post("/v1/clones", json={"voice": voice_id, "overrides": RECIPE})
    assert again.status_code == 202
    second = await front_door.post("/v1/clones", json={"voice": voice_id, "overrides": RECIPE})
    assert (second.status_code, second.json()["error"]["code"]) == (409, "conflict")
    assert (await front_door.delete(f"/v1/voices/{voice_id}")).is_success
    await job_when(front_door, again.json()["id"], "cancelled")
    assert not [path for path in (fleet.data_dir / "s3").rglob(f"*{voice_id}*") if path.is_file()]


def test_the_chaos_is_about_recordings_that_are_there() -> None:
    assert len(list(Path(RECORDINGS).glob("*.ogg"))) >= 100
