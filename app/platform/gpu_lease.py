"""GPU memory leases: one for each process of a fleet that loads a model on a card.

A worker takes most of a card and a trainer a good part. Each writes down what it takes, in a file that it holds locked
for as long as it lives, and waits where that and the others' is more than there is, or than is free. Workers have
priority: while one waits, no trainer gets a lease, and a trainer that holds one sees `wanted` and yields. A lease ends
with its process, since the kernel releases the lock. A process outside the fleet shows in the free memory alone.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO
from uuid import uuid4

from app.errors import EngineFailed
from app.platform.gpus import Gpu
from app.platform.profiles import GIB

WAIT_S = 2.0
TELL_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process takes of a card, or waits for. One that `yields` gives up its lease to those that do not."""

    who: str
    bytes: int
    yields: bool = False
    waits: bool = True

    def words(self) -> str:
        return f"{self.who} ({self.bytes / GIB:.1f} GiB)"


def take_card(directory: Path, gpus: Sequence[Gpu]) -> tuple[Gpu, IO[str]]:
    """Of several cards the one that the fewest have taken so, and then the first; for as long as the file is open."""
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / "ledger"):
        taken = {gpu.uuid: sum(1 for _ in _living(directory / gpu.uuid, "seat")) for gpu in gpus}
        gpu = min(gpus, key=lambda gpu: taken[gpu.uuid])
        return gpu, _born_locked(directory / gpu.uuid / f"{uuid4().hex}.seat")


class CardLease:
    """One process's lease on one card: `for pause_s in lease.waits(tell): sleep(pause_s)` waits until it is had.

    Closing releases it, and so does the end of the process.
    """

    def __init__(
        self,
        directory: Path,
        gpu: Gpu,
        claim: Claim,
        *,
        free: Callable[[], int],
        needs_free: int | None = None,
    ) -> None:
        """`directory` is the fleet's on this host; `free` looks at the card. Of the claim, `needs_free` bytes must be
        free before it is granted (None: all of it).
        """
        self._directory = directory / gpu.uuid
        self._gpu = gpu
        self._claim = claim
        self._free = free
        self._needs_free = claim.bytes if needs_free is None else needs_free
        self._directory.mkdir(parents=True, exist_ok=True)
        self._path = self._directory / f"{uuid4().hex}.lease"
        # Under the lock, or another process would take it for a dead one's before it is locked itself.
        with self._ledger():
            self._file = _born_locked(self._path)
            self._write(waits=True)

    def waits(self, report: Callable[[str], None], *, timeout_s: float | None = None) -> Iterator[float]:
        """Pauses, in seconds, until the memory is there; `tell` is called with what is in the way: at once, then every
        30 s.

        Raises EngineFailed after `timeout_s`.
        """
        waited_s, told_at_s = 0.0, -TELL_EVERY_S
        while (reason := self._attempt()) is not None:
            if timeout_s is not None and waited_s >= timeout_s:
                raise EngineFailed(f"{reason}; that lasted for {waited_s:.0f} s")
            if waited_s - told_at_s >= TELL_EVERY_S:
                report(reason)
                told_at_s = waited_s
            yield WAIT_S
            waited_s += WAIT_S

    def wanted(self) -> str | None:
        """The process with priority that waits for this card, if any."""
        with self._ledger():
            return next((other.who for other in self._others() if other.waits and not other.yields), None)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._file.close()

    def _attempt(self) -> str | None:
        """Take the lease, or say why not."""
        with self._ledger():
            others = self._others()
            first = [other for other in others if other.waits and not other.yields] if self._claim.yields else []
            taken = [other for other in others if not other.waits]
            left = self._gpu.total_bytes - sum(other.bytes for other in taken)
            free = self._free()
            if not first and self._claim.bytes <= left and self._needs_free <= free:
                self._write(waits=False)
                return None
        holders = ", ".join(other.words() for other in taken) or "none of this fleet"
        waiting = f"; {first[0].who} goes first" if first else ""
        return (
            f"{self._claim.who} waits for {self._claim.bytes / GIB:.1f} GiB of card {self._gpu.index} "
            f"({self._gpu.name}, {self._gpu.total_bytes / GIB:.1f} GiB): {free / GIB:.1f} GiB are free, held by "
            f"{holders}{waiting}"
        )

    def _write(self, *, waits: bool) -> None:
        self._file.seek(0)
        self._file.truncate()
        json.dump(asdict(self._claim) | {"waits": waits}, self._file)
        self._file.flush()

    def _others(self) -> list[Claim]:
        """The claims of living processes."""
        return [Claim(**json.loads(said)) for path, said in _living(self._directory, "lease") if path != self._path]

    def _ledger(self) -> AbstractContextManager[None]:
        """One process at a time looks and writes."""
        return _locked(self._directory / "ledger")


def _born_locked(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w+", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _living(directory: Path, kind: str) -> Iterator[tuple[Path, str]]:
    """Files that a living process holds, and what they say. What dead ones left is removed."""
    for path in directory.glob(f"*.{kind}"):
        with suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield path, file.read()
            else:
                path.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
