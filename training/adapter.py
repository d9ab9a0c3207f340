"""An adapter on disk as vLLM can serve it: LoRA weights only, a configuration without paths, and how it came about."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import AdapterUnavailable
from app.speech.token_layout import LORA_MODULES
from training.checkpoints import settle

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py

CONFIG_FILE, WEIGHTS_FILE, RUN_FILE = "adapter_config.json", "adapter_model.safetensors", "run.json"


def save(directory: Path, weights: Mapping[str, Tensor], lora: LoraConfig, *, model: str, run: dict[str, Any]) -> None:
    """Write an adapter into `directory`, whole or not at all, in place of an older one.

    `weights` are PEFT's, by their names in its files; `model` is the base's name, for a path would be this machine's;
    `run` is what it was trained with and reached. Raises AdapterUnavailable where vLLM would not load what came out.
    """
    from safetensors.torch import save as serialized

    unfinished = directory.with_name(f".unfinished-{directory.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    described = lora.to_dict() | {
        "base_model_name_or_path": model,
        "inference_mode": True,
        "target_modules": list(LORA_MODULES),
    }
    (unfinished / CONFIG_FILE).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", "utf-8")
    (unfinished / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n", "utf-8")
    (unfinished / WEIGHTS_FILE).write_bytes(serialized(dict(weights), metadata={"format": "pt"}))
    check(unfinished)
    settle(unfinished, directory)


def check(directory: Path) -> None:
    """Refuse an adapter that vLLM 0.32 would refuse, or that would speak noise, with every reason.

    Sources: vllm/lora/peft_helper.py (modules_to_save, DoRA, bias), vllm/lora/lora_model.py (keys), vllm/config/lora.py
    (ranks). Raises AdapterUnavailable.
    """
    try:
        config = json.loads((directory / CONFIG_FILE).read_text("utf-8"))
        faults = [*_config_faults(config), *_weight_faults(directory / WEIGHTS_FILE, int(config.get("r") or 0))]
    except (OSError, ValueError, AttributeError) as error:
        raise AdapterUnavailable(f"adapter {directory.name} cannot be read: {error}; train it again") from None
    if faults:
        raise AdapterUnavailable(f"adapter {directory.name} cannot be served: {'; '.join(faults)}")


def _config_faults(config: dict[str, Any]) -> list[str]:
    modules = config.get("target_modules") or []
    unknown = sorted(set([modules] if isinstance(modules, str) else modules) - set(LORA_MODULES))
    faults = {
        f"its modules_to_save are {config.get('modules_to_save')}": bool(config.get("modules_to_save")),
        "it uses DoRA": bool(config.get("use_dora")),
        f"it trains biases ({config.get('bias')})": config.get("bias", "none") != "none",
        f"its rank {config.get('r')} is none of {SERVED_RANKS}": config.get("r") not in SERVED_RANKS,
        f"it targets {', '.join(unknown)}": bool(unknown),
    }
    return [fault for fault, present in faults.items() if present]


def _weight_faults(path: Path, rank: int) -> list[str]:
    import torch
    from safetensors import SafetensorError, safe_open

    faults: list[str] = []
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            for name in names:
                module, _, part = name.removesuffix(".weight").rpartition(".")
                tensor = file.get_tensor(name)
                if part not in ("lora_A", "lora_B") or module.rpartition(".")[2] not in LORA_MODULES:
                    faults.append(f"{name} is no LoRA weight of {', '.join(LORA_MODULES)}")
                elif tensor.shape[0 if part == "lora_A" else 1] != rank:
                    faults.append(f"{name} has shape {tuple(tensor.shape)}, its rank is {rank}")
                elif not math.isfinite(float(tensor.to(torch.float32).abs().max())):
                    faults.append(f"{name} has weights that are not finite")
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from None
    return faults or ([] if names else ["it has no weights"])
