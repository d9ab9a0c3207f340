"""The finished steps of a job in a real object store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.platform.object_store import ObjectStore
from app.speech.recipe import CloneConfig
from app.voices.models import CloneJob, CloneKind, CloneState
from tasks.archive import JobArchive

pytestmark = pytest.mark.anyio


def attempt(number: int) -> CloneJob:
    return CloneJob(
        id="job-1",
        voice_id="abcdefghijkl",
        kind=CloneKind.CLONE,
        state=CloneState.TRAINING,
        config=CloneConfig(),
        attempt=number,
        revision=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def directory(tmp_path: Path, name: str, text: str) -> Path:
    made = tmp_path / name
    (made / "inner").mkdir(parents=True)
    (made / "inner" / "file").write_text(text)
    return made


async def test_a_step_is_found_by_the_next_attempt(object_store: ObjectStore, tmp_path: Path) -> None:
    await JobArchive(object_store, attempt(1)).save("prepared", directory(tmp_path, "made", "clips"))
    assert await JobArchive(object_store, attempt(2)).restore("prepared", tmp_path / "found") == "prepared"
    assert (tmp_path / "found" / "inner" / "file").read_text() == "clips"


async def test_a_step_nobody_has_done_is_none(object_store: ObjectStore, tmp_path: Path) -> None:
    assert await JobArchive(object_store, attempt(1)).restore("trained", tmp_path / "found") is None


async def test_the_furthest_checkpoint_of_any_attempt_is_the_one_to_go_on_from(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    for number, name in ((1, "checkpoint-000003"), (1, "checkpoint-000010"), (2, "checkpoint-000007")):
        await JobArchive(object_store, attempt(number)).save(name, directory(tmp_path, f"{name}-{number}", name))
    third = JobArchive(object_store, attempt(3))
    assert await third.restore(r"checkpoint-\d+", tmp_path / "found") == "checkpoint-000010"


async def test_forgetting_old_checkpoints_touches_no_other_step_and_no_other_attempt(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    first, second = JobArchive(object_store, attempt(1)), JobArchive(object_store, attempt(2))
    made = directory(tmp_path, "made", "x")
    await first.save("checkpoint-000001", made)
    for step in ("checkpoint-000002", "checkpoint-000003", "trained"):
        await second.save(step, made)
    await second.forget(r"checkpoint-\d+", but="checkpoint-000003")
    kept = {key.partition("job-1/")[2] for key in object_store.keys("voices/abcdefghijkl/")}
    assert kept == {"attempt-1/checkpoint-000001.tar", "attempt-2/checkpoint-000003.tar", "attempt-2/trained.tar"}


async def test_of_an_ended_job_only_its_adapter_stays(object_store: ObjectStore, tmp_path: Path) -> None:
    made = directory(tmp_path, "made", "x")
    await JobArchive(object_store, attempt(1)).save("prepared", made)
    second = JobArchive(object_store, attempt(2))
    await second.save("trained", made)
    object_store.upload_directory(made, f"{second.attempt_prefix}adapter")
    await second.clear(kept=f"{second.attempt_prefix}adapter/")
    assert list(object_store.keys("voices/")) == ["voices/abcdefghijkl/jobs/job-1/attempt-2/adapter/inner/file"]
    await second.clear(kept=None)
    assert list(object_store.keys("voices/")) == []
