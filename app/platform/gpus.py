"""The GPUs of this machine as `nvidia-smi` reports them, and their assignment to the processes of a fleet.

The tool comes with the driver and needs no CUDA context of ours, so a look costs no memory of a card. Numbers are in
the order of the PCI bus, which CUDA follows where `CUDA_DEVICE_ORDER` says so. What a card's memory is used for is
`app.platform.gpu_lease`'s.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from app.errors import ConfigurationError
from app.platform.profiles import Card, ModelSize, worker_share

MIB = 1024**2
FP8_CAPABILITY = (8, 9)
"""Ada; before it a card has no FP8 units."""

_FIELDS = ("index", "uuid", "name", "driver_version", "compute_cap", "memory.total", "memory.free")
_ANSWER_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One card, and how much of it was free at the moment of looking."""

    index: int
    uuid: str
    name: str
    driver: str
    capability: tuple[int, int]
    total_bytes: int
    free_bytes: int

    @property
    def fp8(self) -> bool:
        return self.capability >= FP8_CAPABILITY

    @property
    def card(self) -> Card:
        return Card(self.total_bytes, fp8=self.fp8)


def has_gpu_build() -> bool:
    """Whether vLLM's CUDA build is installed: the CPU build is another package of the same modules."""
    try:
        return bool(version("vllm"))
    except PackageNotFoundError:
        return False


def as_served(gpu: Gpu, quantization: str) -> Card:
    """The card as a worker has it: with FP8 where it has the units, unless the setting says none."""
    return Card(gpu.total_bytes, fp8=gpu.fp8 and quantization != "none")


Look = Callable[[], tuple[Gpu, ...]]
"""All cards of the machine, now; none where there is no driver."""


def nvidia_smi() -> str | None:
    """What the tool answers, a line a card; None where it is missing, or has no driver to ask."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def look(ask: Callable[[], str | None] = nvidia_smi) -> tuple[Gpu, ...]:
    """The cards here, in the order of their numbers. A line without numbers (a broken card) is skipped."""
    cards = [gpu for line in (ask() or "").splitlines() if (gpu := _parsed(line))]
    return tuple(sorted(cards, key=lambda gpu: gpu.index))


def _parsed(line: str) -> Gpu | None:
    try:
        index, uuid, name, driver, capability, total, free = (part.strip() for part in line.split(","))
        major, minor = capability.split(".")
        return Gpu(
            index=int(index),
            uuid=uuid,
            name=name,
            driver=driver,
            capability=(int(major), int(minor)),
            total_bytes=int(total) * MIB,
            free_bytes=int(free) * MIB,
        )
    except ValueError:
        return None


def own_gpu(look: Look = look) -> Gpu:
    """The card this process computes on: the first that CUDA shows it, which it does without a tool, too."""
    found = visible(look(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    if found:
        return found[0]
    import torch

    card, (free, total) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info(0)
    return Gpu(0, str(getattr(card, "uuid", "card-0")), card.name, "", (card.major, card.minor), total, free)


def free_bytes(gpu: Gpu, look: Look = look) -> int:
    """The memory of `gpu` that no process uses now."""
    for card in look():
        if card.uuid == gpu.uuid:
            return card.free_bytes
    return own_gpu(look).free_bytes


def visible(cards: Sequence[Gpu], variable: str | None) -> tuple[Gpu, ...]:
    """Those of `cards` that `CUDA_VISIBLE_DEVICES` leaves, in its order; as CUDA does, up to the first it cannot find.

    None leaves all; an empty variable, none.
    """
    if variable is None:
        return tuple(cards)
    left: list[Gpu] = []
    for word in (word.strip() for word in variable.split(",")):
        found = next((gpu for gpu in cards if word == str(gpu.index) or (word and gpu.uuid.startswith(word))), None)
        if found is None:
            break
        left.append(found)
    return tuple(left)


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a process computes: a card, and the share of it that a worker has (None: not settled here)."""

    gpu: Gpu
    share: float | None = None

    @property
    def environment(self) -> dict[str, str]:
        """For the process: it sees this card alone, and knows its share."""
        variables = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(self.gpu.index)}
        if self.share is not None:
            variables["CARILLON_ENGINE__GPU_MEMORY_UTILIZATION"] = f"{self.share:.2f}"
        return variables


@dataclass(frozen=True, slots=True)
class Seating:
    """A card for each worker, and one for the trainer: one without a worker if there is one."""

    workers: tuple[Seat, ...]
    trainer: Seat

    def words(self) -> str:
        """For the person who starts the fleet."""
        cards = ", ".join(
            f"worker-{number} on card {place.gpu.index} ({place.gpu.name})"
            + ("" if place.share is None else f", {place.share:.0%} of it")
            for number, place in enumerate(self.workers, start=1)
        )
        return f"{cards or 'no worker'}; the trainer on card {self.trainer.gpu.index}"


def seat(cards: Sequence[Gpu], workers: int, *, model: ModelSize | None = None, share: float | None = None) -> Seating:
    """Spread `workers` over `cards`; `share` is the setting for it, None: by the card and the model.

    Raises ConfigurationError where more workers than cards would not leave each enough of one.
    """
    if not cards:
        raise ConfigurationError("no GPU is left to use; look at CUDA_VISIBLE_DEVICES, or set CARILLON_DEVICE=cpu")
    trainer = cards[workers] if workers < len(cards) else cards[-1]
    here = partial(_share, workers=workers, cards=cards, trainer=trainer, model=model, share=share)
    taken = [cards[number % len(cards)] for number in range(workers)]
    shares: Mapping[str, float | None] = {gpu.uuid: here(gpu) for gpu in taken}
    return Seating(tuple(Seat(gpu, shares[gpu.uuid]) for gpu in taken), Seat(trainer))


def _share(
    gpu: Gpu, *, workers: int, cards: Sequence[Gpu], trainer: Gpu, model: ModelSize | None, share: float | None
) -> float | None:
    """What each worker has of `gpu`; None where a worker alone settles it by itself."""
    position = cards.index(gpu)
    together = len(range(position, workers, len(cards)))
    if share is not None:
        if together * share > 1:
            raise ConfigurationError(
                f"{together} workers on card {gpu.index} ({gpu.name}) with {share:.0%} of it each: lower "
                f"CARILLON_ENGINE__GPU_MEMORY_UTILIZATION to {int(85 / together) / 100:.2f}, or start "
                f"{len(cards)} workers, one a card"
            )
        return share
    if together > 1:
        raise ConfigurationError(
            f"{workers} workers and {len(cards)} card(s): give each worker one, or let {together} share card "
            f"{gpu.index} ({gpu.name}) with CARILLON_ENGINE__GPU_MEMORY_UTILIZATION={int(85 / together) / 100:.2f}"
        )
    return worker_share(gpu.card, model, trainer=True) if model and gpu == trainer else None
