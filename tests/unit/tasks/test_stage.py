"""A stage as its task runs it: lines in, errors rebuilt, nothing left behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigurationError, StageFailed
from app.voices.models import RunConfig
from tasks.stage import run_stage
from tests.support.deadlines import HANG_S
from tests.support.processes import ended

pytestmark = pytest.mark.anyio


async def no_event(event: dict[str, Any]) -> None:
    raise AssertionError(event)


async def test_a_stage_that_fails_raises_its_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"run\.json"):
        await run_stage("prepare", tmp_path, no_event)


async def test_a_stage_that_does_not_exist_is_told_as_broken(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="status 1"):
        await run_stage("nothing", tmp_path, no_event)


async def test_a_cancelled_stage_is_gone(tmp_path: Path) -> None:
    run = RunConfig(prompt_name="a", model_dir=tmp_path, codec_dir=tmp_path)
    (tmp_path / "run.json").write_text(run.model_dump_json())
    os.mkfifo(tmp_path / "dataset.npz")  # reading it waits for a writer that never comes
    stage = asyncio.create_task(run_stage("lora", tmp_path, no_event))
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    async with asyncio.timeout(HANG_S):
        while not (new := set(children.read_text().split()) - before):
            await asyncio.sleep(0.02)
    stage.cancel()
    await asyncio.gather(stage, return_exceptions=True)
    assert stage.cancelled()
    await ended(int(new.pop()))
