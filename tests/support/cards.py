"""Cards that are not here: what `nvidia-smi` would answer, word for word, and a fake that changes as time goes by."""

from __future__ import annotations

from app.platform.gpus import MIB, Gpu, look

H200 = "0, GPU-aaaa, NVIDIA H200, 580.95.05, 9.0, 143771, 143000\n"
L40S = "0, GPU-bbbb, NVIDIA L40S, 580.95.05, 8.9, 46068, 45500\n"
A10G = "0, GPU-cccc, NVIDIA A10G, 580.95.05, 8.6, 23028, 22500\n"
T4 = "0, GPU-dddd, Tesla T4, 535.183.01, 7.5, 15360, 15000\n"


def card(answer: str) -> Gpu:
    """The only card of an answer."""
    (gpu,) = look(lambda: answer)
    return gpu


def cards(count: int, answer: str = L40S) -> tuple[Gpu, ...]:
    """So many of one kind, numbered as on the bus."""
    kind = answer.partition(", GPU-")[2].partition(", ")[2]
    return look(lambda: "".join(f"{number}, GPU-{number}, {kind}" for number in range(count)))


class FakeCard:
    """A card whose free memory is what the test says."""

    def __init__(self, gpu: Gpu, free_gib: float) -> None:
        self.gpu = gpu
        self.free_gib = free_gib

    def look(self) -> tuple[Gpu, ...]:
        return (self.seen(),)

    def seen(self) -> Gpu:
        gpu = self.gpu
        free = int(self.free_gib * 1024) * MIB
        return Gpu(gpu.index, gpu.uuid, gpu.name, gpu.driver, gpu.capability, gpu.total_bytes, free)
