"""What trainings share: a rate that warms up and falls, checkpoints from which a stopped run goes on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

WARMUP_STEPS = 40
SAVED_EVERY = 50


def device_here() -> torch.device:
    """An accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def quick_multiplications() -> torch.autocast:
    """Matrices in bfloat16 where the processor has tiles for it (AMX), and in single precision elsewhere.

    Without tiles bfloat16 is slower: 90 tokens a second instead of 1,300.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_amx_tile_supported())


def set_rate(optimiser: torch.optim.Optimizer, peak: float, step: int, steps: int) -> None:
    """Linear warm-up, then a cosine down to 2 % of `peak`."""
    if step < WARMUP_STEPS:
        share = (step + 1) / WARMUP_STEPS
    else:
        done = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
        share = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    for group in optimiser.param_groups:
        group["lr"] = peak * share


def resumed(path: Path, kept: dict[str, Any]) -> int:
    """Gives each of `kept` the state it had in `path`, if there is one; the number of steps already taken."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location="cpu")
    for name, part in kept.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def save(path: Path, kept: dict[str, Any], step: int) -> None:
    """Writes what `resumed` reads, whole or not at all."""
    unfinished = path.with_suffix(".part")
    torch.save({name: part.state_dict() for name, part in kept.items()} | {"step": step}, unfinished)
    unfinished.replace(path)
