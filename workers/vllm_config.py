"""How vLLM's engine core is configured: its arguments, precision, processes and environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import ConfigurationError
from app.platform.profiles import EngineProfile
from app.platform.settings import EngineSettings
from app.speech.token_layout import LORA_MODULES, TokenLayout

if TYPE_CHECKING:
    from vllm.config import VllmConfig


def engine_config(
    model_dir: Path, layout: TokenLayout, settings: EngineSettings, profile: EngineProfile, device: str
) -> VllmConfig:
    """The configuration of the engine core; its environment variables are set on the way."""
    from vllm import AsyncEngineArgs

    from workers.sampling import band_config

    os.environ.update(engine_environment(settings, device))
    args: dict[str, Any] = {
        "model": str(model_dir),
        "skip_tokenizer_init": True,
        "dtype": _dtype(settings.dtype, device),
        "quantization": _quantization(settings.quantization, device),
        "max_model_len": settings.max_model_len,
        "max_num_seqs": profile.max_num_seqs,
        "max_num_batched_tokens": profile.max_num_batched_tokens,
        "scheduling_policy": "priority",
        "enable_lora": True,
        "max_loras": profile.max_loras,
        "max_cpu_loras": profile.max_cpu_loras,
        "max_lora_rank": settings.max_lora_rank,
        "lora_target_modules": list(LORA_MODULES),  # or vLLM makes slots for lm_head and embeddings as well
        "additional_config": band_config(layout),
    }
    if device == "cuda":
        args["gpu_memory_utilization"] = profile.gpu_memory_utilization
    config = AsyncEngineArgs(**args).create_engine_config()
    runner = "V2" if config.use_v2_model_runner else "V1"
    config.model_config.logits_processors = [f"workers.sampling:BandMask{runner}"]
    if device == "cpu":
        _prepare_for_cpu(config, threads=settings.cpu_threads)
    return config


def _dtype(setting: str, device: str) -> str:
    if setting != "auto":
        return setting
    if device == "cuda":
        return "bfloat16"
    from workers.cpu_engine import dtype_here

    return dtype_here()


def _prepare_for_cpu(config: VllmConfig, *, threads: int) -> None:
    """Let the engine core be one process, a fork of this one, with the amendments of `cpu_engine` in it."""
    from workers.cpu_engine import EXTENSION, import_model

    # vLLM uses a process more on a CPU, only to bind OpenMP threads, which we leave unbound.
    config.parallel_config.distributed_executor_backend = "uni"
    config.parallel_config.worker_extension_cls = EXTENSION
    if threads == 1:
        import_model()
        # vLLM has just chosen "spawn". A fork has everything imported already, which is most of a start, and this
        # process's one OpenMP thread: for more of them the core has to begin by itself.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"


def _quantization(setting: str, device: str) -> str | None:
    if setting == "none" or (setting == "auto" and device == "cpu"):
        return None
    if setting != "auto":
        if setting == "fp8":
            raise ConfigurationError(
                "CARILLON_ENGINE__QUANTIZATION=fp8 is refused by vLLM for a bf16 checkpoint; "
                "use fp8_per_channel, fp8_per_tensor or fp8_per_block"
            )
        return setting
    import torch

    # FP8 tensor cores came with Ada (8.9) and Hopper (9.0).
    return "fp8_per_channel" if torch.cuda.get_device_capability() >= (8, 9) else None


def engine_environment(settings: EngineSettings, device: str) -> dict[str, str]:
    """What vLLM reads from the environment of the process that spawns its engine core."""
    common = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING")}
    # What is compiled at run time finds its tools on the path: those of this environment are first there.
    common["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if device == "cuda":
        # FlashInfer's sampler is compiled by nvcc at its first use, and the engine dies where there is none (vLLM issue
        # 49497); besides, one seeded request turns it off for a whole batch.
        return common | {"VLLM_USE_FLASHINFER_SAMPLER": os.environ.get("VLLM_USE_FLASHINFER_SAMPLER", "0")}
    return common | {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(settings.cpu_threads),
        # Spinning OpenMP threads on shared cores were measured to slow the codec forty-fold.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
