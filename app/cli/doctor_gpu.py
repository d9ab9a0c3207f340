"""The checks of `carillon doctor` for a GPU host: driver, compiler, memory, FP8, and the checkpoint that is to come.

All of it was read in the sources of vLLM 0.32 and in NVIDIA's tables, and run on no card. The checks look at a `Host`,
a plain value, so that a test can describe any host.
"""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from app.cli.findings import Finding, failure, ok, warning
from app.errors import ConfigurationError
from app.platform.gpus import Gpu, as_served, has_gpu_build, look
from app.platform.model_files import from_hub, model_size
from app.platform.profiles import CODEC_BYTES, GIB, LARGEST_SHARE, ModelSize, engine_profile, serving_bytes
from app.platform.settings import Settings

PINNED_CUDA = 13
"""The CUDA of vLLM 0.32.0's wheel, and of torch 2.13.0, which it asks for (cuda-toolkit 13.0 in its metadata)."""

DRIVERS = {12: 525, 13: 580}
"""The oldest driver by CUDA's major version: "Minimum Required Driver Version for CUDA Minor Version Compatibility" in
NVIDIA's release notes of CUDA."""

ORPHEUS = ModelSize(parameters=3_300_000_000, kv_bytes_per_token=114_688)
"""Orpheus-3B: 28 layers of 8 key-value heads of 128, in bf16. For a checkpoint that is not here yet."""

COMPILER_REMEDY = "sudo apt-get install gcc python3-dev (or the -dev package of this Python's own version)"


@dataclass(frozen=True, slots=True)
class Host:
    """What there is of a GPU host. `torch_cuda` is the CUDA of the torch that is installed, None for a CPU's build."""

    gpus: tuple[Gpu, ...]
    gpu_build: bool
    torch_cuda: str | None
    torch_sees: bool
    compiler: str | None
    headers: Path
    has_headers: bool


def host() -> Host:
    """This machine. torch is imported only where there is a card, or a build for one."""
    gpus, gpu_build = look(), has_gpu_build()
    torch_cuda, torch_sees = None, False
    if (gpus or gpu_build) and find_spec("torch") is not None:
        import torch

        torch_cuda, torch_sees = torch.version.cuda, torch.cuda.is_available()
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return Host(
        gpus=gpus,
        gpu_build=gpu_build,
        torch_cuda=torch_cuda,
        torch_sees=torch_sees,
        compiler=next((path for name in ("gcc", "cc", "clang") if (path := shutil.which(name))), None),
        headers=headers,
        has_headers=headers.is_file(),
    )


def examine(settings: Settings, host: Host) -> Iterator[Finding]:
    """Every finding. On a machine without a card there is one, unless a card is asked for."""
    if settings.device == "cpu":
        return
    if not host.gpus and not host.torch_sees:
        if settings.device == "cuda" or host.gpu_build:
            remedy = (
                "install NVIDIA's driver (nvidia-smi comes with it); for a machine without GPU set CARILLON_DEVICE=cpu"
            )
            yield failure("gpu", "nvidia-smi answers nothing, and torch sees no card", remedy)
        else:
            yield warning("gpu", "none: the engine runs on the CPU, which suits the stand-in only", "fine for a trial")
        return
    if not host.gpu_build:
        name = host.gpus[0].name if host.gpus else "a GPU"
        yield failure("vllm", f"{name}, and no vLLM for it", "make clean && CARILLON_BUILD=gpu make up")
    yield from driver(host)
    yield from compiler(host)
    for gpu in host.gpus:
        yield from memory(settings, gpu, _size(settings))
        yield from fp8(settings, gpu)


def driver(host: Host) -> Iterator[Finding]:
    """The driver against the CUDA that vLLM and torch were built with."""
    cuda = int((host.torch_cuda or str(PINNED_CUDA)).partition(".")[0])
    if host.gpu_build and host.torch_cuda is not None and cuda != PINNED_CUDA:
        remedy = "make clean && CARILLON_BUILD=gpu make up"
        yield failure("torch", f"built for CUDA {host.torch_cuda}, vLLM for {PINNED_CUDA}", remedy)
    oldest = DRIVERS.get(cuda, max(DRIVERS.values()))
    for version in dict.fromkeys(gpu.driver for gpu in host.gpus if gpu.driver):
        branch = version.partition(".")[0]
        if branch.isdigit() and int(branch) < oldest:
            yield failure(
                "driver",
                f"{version} is too old for CUDA {cuda}, which vLLM 0.32.0 is built with: {oldest} or newer",
                f"install NVIDIA driver {oldest} or newer, e.g. sudo apt-get install nvidia-driver, and restart",
            )
        elif host.torch_sees:
            yield ok("driver", f"{version}; CUDA {cuda} needs {oldest} or newer")
        elif host.gpu_build:
            remedy = "restart after a change of drivers; in a container: docker run --gpus all"
            yield failure("driver", f"{version}, but torch sees no card", remedy)


def compiler(host: Host) -> Iterator[Finding]:
    """Triton compiles its driver's stub (`driver.c`, against Python.h) when a kernel first runs."""
    if host.compiler is None:
        yield failure("compiler", "none: Triton compiles its stub for the driver at the first kernel", COMPILER_REMEDY)
    elif not host.has_headers:
        yield failure("headers", f"{host.headers} is missing, which Triton compiles its stub against", COMPILER_REMEDY)
    else:
        yield ok("compiler", f"{host.compiler}, and {host.headers}")


def memory(settings: Settings, gpu: Gpu, model: ModelSize) -> Iterator[Finding]:
    """Whether the worker's share holds the model, and leaves enough for the codec, and for a trainer."""
    share = settings.engine.gpu_memory_utilization or LARGEST_SHARE
    card = as_served(gpu, settings.engine.quantization)
    slots = settings.engine.max_loras or engine_profile("cuda", card=card).max_loras
    needed, held = serving_bytes(model, card, slots=slots), share * gpu.total_bytes
    what, have = f"card {gpu.index}", f"{gpu.name}, {gpu.total_bytes / GIB:.1f} GiB"
    if held < needed + GIB:
        yield failure(
            what,
            f"{have}: a worker's share of {held / GIB:.1f} GiB ({share:.0%}) is too small: weights and {slots} LoRA "
            f"slots take {needed / GIB:.1f} GiB, and the sessions' cache at least 1",
            "a larger card, or a larger share: CARILLON_ENGINE__GPU_MEMORY_UTILIZATION (at most 0.9)",
        )
        return
    if gpu.total_bytes - held < CODEC_BYTES:
        yield warning(
            what,
            f"{have}: a share of {share:.0%} leaves {(gpu.total_bytes - held) / GIB:.1f} GiB for the codec, which "
            f"takes about {CODEC_BYTES / GIB:.0f}",
            f"CARILLON_ENGINE__GPU_MEMORY_UTILIZATION={(gpu.total_bytes - CODEC_BYTES) / gpu.total_bytes - 0.005:.2f}",
        )
        return
    beside = gpu.total_bytes - needed - GIB - CODEC_BYTES - model.training_bytes
    training = f"a training (about {model.training_bytes / GIB:.0f} GiB)"
    if beside >= 0:
        yield ok(what, f"{have}: holds the worker, the codec and {training}")
    else:
        yield warning(
            what,
            f"{have}: holds the worker and the codec, but not {training} beside them, which then waits",
            "clone voices where no worker has the card: a second card, or another machine",
        )


def fp8(settings: Settings, gpu: Gpu) -> Iterator[Finding]:
    if gpu.fp8 or not settings.engine.quantization.startswith("fp8"):
        found = "has FP8 units" if gpu.fp8 else "has no FP8 units; the engine runs in bfloat16"
        yield ok("fp8", f"card {gpu.index} {found}")
    else:
        capability = ".".join(map(str, gpu.capability))
        remedy = "CARILLON_ENGINE__QUANTIZATION=auto (or another card)"
        yield failure("fp8", f"card {gpu.index} of compute capability {capability} has no FP8 units", remedy)


def _size(settings: Settings) -> ModelSize:
    """The model's, or Orpheus's while the checkpoint is not here."""
    if not from_hub(settings.model):
        try:
            return model_size(Path(settings.model))
        except ConfigurationError:
            pass
    return ORPHEUS
