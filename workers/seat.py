"""A worker's device, its profile there and, on a card, its memory lease.

A worker that starts while a trainer has its card waits for the trainer to end, logs so, and does not die of it. It does
not know the engine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from app.platform.gpu_lease import CardLease, Claim, take_card
from app.platform.gpus import Gpu, Look, as_served, free_bytes, look, own_gpu
from app.platform.model_files import model_size
from app.platform.profiles import CODEC_BYTES, EngineProfile, engine_profile
from app.platform.settings import Settings

log = logging.getLogger(__name__)

_WAIT_SHARE = 0.9
"""What part of a start's time the card is waited for: a supervisor that gives up would not know why."""


def own_card(settings: Settings, look: Look = look) -> AbstractContextManager[object]:
    """Before CUDA is initialised: of several cards one that no other worker of this fleet has, while the context lasts.

    Where `CUDA_VISIBLE_DEVICES` is set, it is that one: `carillon up` sets it, or the user.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts
    gpus = () if settings.device == "cpu" or "CUDA_VISIBLE_DEVICES" in os.environ else look()
    if len(gpus) < 2:
        return nullcontext()
    gpu, file = take_card(settings.data_dir / "cards", gpus)
    os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu.index)
    return file


def seat(settings: Settings, device: str, model_dir: Path, look: Look = look) -> tuple[EngineProfile, Gpu | None]:
    """The profile in force, which is logged, and the card (None on a CPU)."""
    gpu = own_gpu(look) if device == "cuda" else None
    profile = engine_profile(
        "cuda" if gpu else "cpu",
        card=as_served(gpu, settings.engine.quantization) if gpu else None,
        model=model_size(model_dir) if gpu else None,
        max_model_len=settings.engine.max_model_len,
        share=settings.engine.gpu_memory_utilization,
    )
    profile = settings.over(profile)
    card = {"card": gpu.name, "card_gib": round(gpu.total_bytes / 1024**3, 1)} if gpu else {}
    log.info("worker profile", extra={"device": device, **card, **asdict(profile)})
    return profile, gpu


@contextmanager
def card_memory(
    settings: Settings, gpu: Gpu | None, profile: EngineProfile, worker_id: str, look: Look = look
) -> Iterator[Iterator[float]]:
    """The worker's lease on its card, while the context lasts: pauses to sleep through until it is had.

    Raises EngineFailed from them where others keep the memory for the time of a start.
    """
    if gpu is None:
        yield iter(())
        return
    share = int(profile.gpu_memory_utilization * gpu.total_bytes)
    claim = Claim(worker_id, min(share + CODEC_BYTES, gpu.total_bytes))
    lease = CardLease(settings.data_dir / "cards", gpu, claim, free=lambda: free_bytes(gpu, look), needs_free=share)
    try:
        yield lease.waits(
            lambda reason: log.warning("card memory awaited", extra={"reason": reason}),
            timeout_s=_WAIT_SHARE * settings.engine.startup_timeout_s,
        )
    finally:
        lease.close()
