"""What a job has finished, in the object store: one object a step, so that a step is there whole or not at all.

Objects lie below the attempt that made them, `voices/<voice>/jobs/<job>/attempt-<n>/`, and the next attempt looks
through those of all before it. A store that is away for a while is waited for.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from pathlib import Path
from typing import TypeVar

from app.platform.object_keys import job_prefix
from app.platform.object_store import ObjectStore, retry_in_thread
from app.voices.models import CloneJob

_Result = TypeVar("_Result")


class JobArchive:
    """The finished steps of one job. Raises StoreUnavailable when the store is away for longer than PATIENCE_S."""

    def __init__(self, store: ObjectStore, job: CloneJob) -> None:
        self._store = store
        self._job = job

    @property
    def attempt_prefix(self) -> str:
        """Where this attempt, and no other, writes."""
        return f"{job_prefix(self._job.voice_id, self._job.id)}attempt-{self._job.attempt}/"

    async def save(self, step: str, directory: Path) -> None:
        """Keep what is in `directory` as `step`; a step saved before by an earlier attempt is superseded."""

        def pack_and_put() -> None:
            with tempfile.NamedTemporaryFile(dir=directory.parent, suffix=".tar") as packed:
                with tarfile.open(fileobj=packed, mode="w") as archive:
                    archive.add(directory, arcname=".")
                packed.flush()
                self._store.upload(Path(packed.name), f"{self.attempt_prefix}{step}.tar")

        await retry_in_thread(pack_and_put)

    async def restore(self, step: str, directory: Path) -> str | None:
        """Fill `directory` with the newest `step`, a regular expression, and return its name; None if there is none."""

        def find_and_unpack() -> str | None:
            found = self._newest(step)
            if found is None:
                return None
            key, name = found
            with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
                packed = Path(scratch) / "step.tar"
                self._store.fetch(self._store.uri(key.rpartition("/")[0]), key.rpartition("/")[2], packed)
                directory.mkdir(parents=True, exist_ok=True)
                with tarfile.open(packed) as archive:
                    archive.extractall(directory, filter="data")
            return name

        return await retry_in_thread(find_and_unpack)

    async def forget(self, step: str, *, but: str) -> None:
        """Delete this attempt's steps that match `step`, a regular expression, except the one named `but`."""

        def delete() -> None:
            for key in list(self._store.keys(self.attempt_prefix)):
                name = key.removeprefix(self.attempt_prefix).removesuffix(".tar")
                if re.fullmatch(step, name) and name != but:
                    self._store.delete(key)

        await retry_in_thread(delete)

    async def clear(self, *, kept: str | None) -> None:
        """Delete everything of the job, of this and of all other attempts, but what is below the prefix `kept`."""

        def delete() -> None:
            if kept is None:
                self._store.delete_prefix(job_prefix(self._job.voice_id, self._job.id))
                return
            for key in list(self._store.keys(job_prefix(self._job.voice_id, self._job.id))):
                if not key.startswith(kept):
                    self._store.delete(key)

        await retry_in_thread(delete)

    def _newest(self, step: str) -> tuple[str, str] | None:
        pattern = re.compile(rf"{re.escape(job_prefix(self._job.voice_id, self._job.id))}attempt-(\d+)/({step})\.tar")
        found = [
            match
            for key in self._store.keys(job_prefix(self._job.voice_id, self._job.id))
            if (match := pattern.fullmatch(key))
        ]
        if not found:
            return None
        newest = max(found, key=lambda match: (match[2], int(match[1])))
        return newest[0], newest[2]
