"""GPU memory for a training: waited for, and given up when a worker needs the card.

Workers serve listeners, so a worker that starts has priority. The training then ends with its
checkpoint saved and an error that can be retried. On a CPU there is nothing to wait for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from app.errors import ConfigurationError, Overloaded
from app.platform.gpu_lease import CardLease, Claim
from app.platform.gpus import Gpu, Look, free_bytes, look, own_gpu
from app.platform.model_files import model_size
from app.platform.profiles import GIB
from app.platform.settings import load_settings
from app.voices.models import RunConfig
from training.stage_runner import Emit, torch_device

CHECK_EVERY_S = 1.0

Seat = Callable[[RunConfig, Emit], AbstractContextManager[Callable[[], None]]]
"""Waits on entry; the callable it gives is called at every step, and raises Overloaded where the training must
yield."""


@contextmanager
def seat_of(run: RunConfig, emit: Emit) -> Iterator[Callable[[], None]]:
    """The seat on the card that this process sees, or none on a CPU."""
    if torch_device(run).type == "cpu":
        yield lambda: None
        return
    need, directory = model_size(run.model_dir).training_bytes, load_settings().data_dir / "cards"
    with card_memory(own_gpu(), need, directory, emit) as check:
        yield check


@contextmanager
def card_memory(
    gpu: Gpu,
    need_bytes: int,
    directory: Path,
    emit: Emit,
    *,
    look: Look = look,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[], None]]:
    """A lease of `need_bytes` on `gpu`, reported as `waiting` until it is had; see `Seat`.

    Raises ConfigurationError for a card that is too small even when it is free.
    """
    if need_bytes > gpu.total_bytes:
        raise ConfigurationError(
            f"a training of this model takes about {need_bytes / GIB:.0f} GiB, and card {gpu.index} ({gpu.name}) has "
            f"{gpu.total_bytes / GIB:.0f} GiB; run `carillon tasks --queue train` on a larger one"
        )
    claim = Claim("the trainer", need_bytes, yields=True)
    lease = CardLease(directory, gpu, claim, free=lambda: free_bytes(gpu, look))
    looked_at = clock()

    def check() -> None:
        nonlocal looked_at
        if clock() - looked_at >= CHECK_EVERY_S:
            looked_at = clock()
            if worker := lease.wanted():
                raise Overloaded(f"{worker} starts and wants card {gpu.index}; the training goes on when there is room")

    try:
        for pause_s in lease.waits(lambda reason: emit("waiting", message=reason)):
            sleep(pause_s)
        yield check
    finally:
        lease.close()
