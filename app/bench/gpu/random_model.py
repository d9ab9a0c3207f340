"""A voice model with random weights: its cost is that of a real one of its shape, and its sound is noise.

A language model with a tokenizer, a codec, and LoRAs, each as it would come from a hub, made on the device that will
run them. Existing ones are taken as they are, so that a second run makes nothing again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.speech.token_layout import LORA_MODULES, TOKENS_PER_FRAME, SpeechConfig
from app.speech.voices import AdapterVersion
from workers.bench.random_codec import SNAC_24KHZ, random_codec

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 2 * 1024**3
SPREAD = 0.02
"""Standard deviation of weights: Llama's own at the start of its training."""

LORA_SPREAD = 0.002
RANK = 16
RESERVED = 256
"""Special tokens of Llama 3, behind its text tokens."""

TEXT = {0: "<|begin_of_text|>", 9: "<|eot_id|>"}
"""Those of them that a prompt has, counted from the first."""

CONTROLS = 12
"""Of Orpheus's custom tokens, how many are no codes: ten before the first code, two behind the last."""

FIRST_CODE = 10


@dataclass(frozen=True)
class Shape:
    """What costs time of a language model and its codec; the defaults are Orpheus-3B's and snac_24khz's."""

    layers: int = 28
    width: int = 3072
    inner_width: int = 8192
    heads: int = 24
    kv_heads: int = 8
    head_width: int = 128
    text_tokens: int = 128_000
    max_positions: int = 131_072
    codec: Mapping[str, Any] = field(default_factory=lambda: SNAC_24KHZ)

    @property
    def first_custom(self) -> int:
        return self.text_tokens + RESERVED

    @property
    def vocabulary(self) -> int:
        return self.first_custom + CONTROLS + TOKENS_PER_FRAME * self.codec["codebook_size"]

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(out, in) of what a LoRA changes in a layer, by name."""
        attention, mlp, kv = self.heads * self.head_width, self.inner_width, self.kv_heads * self.head_width
        shapes = (attention, kv, kv, self.width, mlp, mlp, self.width)
        inputs = (self.width, self.width, self.width, attention, self.width, self.width, mlp)
        return dict(zip(LORA_MODULES, zip(shapes, inputs, strict=True), strict=True))

    def speech(self) -> SpeechConfig:
        """The roles of its special tokens: Orpheus's, as far behind the text as there."""
        custom, reserved = self.first_custom, self.text_tokens
        return SpeechConfig(
            name="random",
            voices=("tara",),
            audio_token_base=custom + FIRST_CODE,
            start_of_text_id=reserved,
            end_of_text_id=reserved + 9,
            start_of_speech_id=custom + 1,
            end_of_speech_id=custom + 2,
            start_of_human_id=custom + 3,
            end_of_human_id=custom + 4,
            start_of_ai_id=custom + 5,
            end_of_ai_id=custom + 6,
            pad_id=custom + 7,
        )


ORPHEUS = Shape()
TINY = Shape(
    layers=2,
    width=64,
    inner_width=128,
    heads=2,
    kv_heads=1,
    head_width=32,
    text_tokens=512,
    max_positions=4096,
    codec={**ORPHEUS.codec, "encoder_dim": 2, "decoder_dim": 16, "codebook_size": 64},
)


def save_model(directory: Path, shape: Shape, *, device: str, seed: int = 0) -> Path:
    """Write a language model of `shape` in bf16, with a tokenizer. Returns `directory`."""

    def write(unfinished: Path) -> None:
        _save_weights(unfinished, _weights(shape, device, seed))
        (unfinished / "config.json").write_text(json.dumps(_config(shape), indent=2), "utf-8")
        (unfinished / "generation_config.json").write_text(
            json.dumps({"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}), "utf-8"
        )
        _save_tokenizer(unfinished, shape)

    return _made(directory, write)


def save_codec(directory: Path, shape: Shape, *, seed: int = 0) -> Path:
    """Write a codec of `shape`, as `SNAC.from_pretrained` reads it. Returns `directory`."""

    def write(unfinished: Path) -> None:
        import torch

        torch.save(random_codec(shape.codec, seed).state_dict(), unfinished / "pytorch_model.bin")
        (unfinished / "config.json").write_text(json.dumps(dict(shape.codec), indent=2), "utf-8")

    return _made(directory, write)


def save_adapter(directory: Path, model_dir: Path, *, device: str, seed: int) -> Path:
    """Write a LoRA of rank 16 for the model in `model_dir`, on every projection. Returns `directory`."""

    def write(unfinished: Path) -> None:
        import torch
        from safetensors.torch import save_file

        generator = torch.Generator(device).manual_seed(seed)
        weights = {
            f"base_model.model.model.layers.{layer}.{_place(name)}.lora_{part}.weight": _normal(
                size, LORA_SPREAD, generator
            ).cpu()
            for layer, projections in enumerate(_projections_of(model_dir))
            for name, (rows, columns) in projections.items()
            for part, size in (("A", (RANK, columns)), ("B", (rows, RANK)))
        }
        save_file(weights, unfinished / "adapter_model.safetensors")
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "random",
            "r": RANK,
            "lora_alpha": 2 * RANK,
            "target_modules": list(LORA_MODULES),
            "bias": "none",
        }
        (unfinished / "adapter_config.json").write_text(json.dumps(config, indent=2), "utf-8")

    return _made(directory, write)


def adapter_version(directory: Path, number: int) -> AdapterVersion:
    """A saved adapter as a catalogue would name it."""
    import hashlib

    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}
    uri = f"file://{directory.absolute()}/"
    return AdapterVersion(voice_id=f"voice{number}", version=1, lora_id=number, uri=uri, sha256=hashes, rank=RANK)


def _made(directory: Path, write: Callable[[Path], None]) -> Path:
    """`directory`, written by `write` unless it is there: whole or not at all."""
    if not directory.is_dir():
        unfinished = directory.with_name(f".unfinished-{directory.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write(unfinished)
        unfinished.rename(directory)
    return directory


def _config(shape: Shape) -> dict[str, Any]:
    speech = shape.speech()
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "hidden_size": shape.width,
        "intermediate_size": shape.inner_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
        "tie_word_embeddings": True,
        "vocab_size": shape.vocabulary,
        "bos_token_id": speech.start_of_text_id,
        "eos_token_id": speech.end_of_speech_id,
        "pad_token_id": speech.pad_id,
        "dtype": "bfloat16",
        "speech": speech.model_dump(mode="json", exclude_defaults=True),
    }


def _weights(shape: Shape, device: str, seed: int) -> Iterator[tuple[str, Tensor]]:
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    ones = torch.ones(shape.width, dtype=torch.bfloat16)
    yield "model.embed_tokens.weight", _normal((shape.vocabulary, shape.width), SPREAD, generator)
    for layer in range(shape.layers):
        for name, size in shape.projections.items():
            yield f"model.layers.{layer}.{_place(name)}.weight", _normal(size, SPREAD, generator)
        yield f"model.layers.{layer}.input_layernorm.weight", ones.clone()
        yield f"model.layers.{layer}.post_attention_layernorm.weight", ones.clone()
    yield "model.norm.weight", ones.clone()


def _normal(size: tuple[int, ...], spread: float, generator: Any) -> Tensor:
    import torch

    made = torch.empty(size, dtype=torch.bfloat16, device=generator.device)
    return made.normal_(0, spread, generator=generator)


def _place(projection: str) -> str:
    return f"{'self_attn' if projection in LORA_MODULES[:4] else 'mlp'}.{projection}"


def _save_weights(directory: Path, weights: Iterator[tuple[str, Tensor]]) -> None:
    """In files of `SHARD_BYTES`, with the index that says which weight lies where."""
    from safetensors.torch import save_file

    index: dict[str, str] = {}
    shard: dict[str, Tensor] = {}

    def flush() -> None:
        name = f"model-{len(set(index.values())) + 1:05}.safetensors"
        save_file(shard, directory / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, weight in weights:
        shard[name] = weight.cpu()
        if sum(each.nbytes for each in shard.values()) >= SHARD_BYTES:
            flush()
    if shard:
        flush()
    total = {"total_size": sum(path.stat().st_size for path in directory.glob("*.safetensors"))}
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": total, "weight_map": index}), "utf-8"
    )


def _save_tokenizer(directory: Path, shape: Shape) -> None:
    """Byte-level BPE, learnt from the prompts that the gate speaks, and filled up to the text tokens there shall be."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    from training.gate import bundled_prompts

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=min(shape.text_tokens, 4096), initial_alphabet=alphabet)
    learnt.train_from_iterator(bundled_prompts(), trainer)
    parts = json.loads(learnt.to_str())["model"]
    vocabulary: dict[str, int] = parts["vocab"]
    for number in range(len(vocabulary), shape.text_tokens):
        vocabulary[f"<unused-{number}>"] = number
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(pair) for pair in parts["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    reserved = [TEXT.get(number, f"<|reserved_special_token_{number}|>") for number in range(RESERVED)]
    custom = [f"<custom_token_{number}>" for number in range(shape.vocabulary - shape.first_custom)]
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in reserved])
    tokenizer.add_tokens([AddedToken(name, special=False) for name in custom])
    tokenizer.save(str(directory / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": TEXT[0], "eos_token": TEXT[9]}
    (directory / "tokenizer_config.json").write_text(json.dumps(described), "utf-8")


def _projections_of(model_dir: Path) -> list[dict[str, tuple[int, int]]]:
    """Of each layer, from a checkpoint's configuration."""
    config: dict[str, Any] = json.loads((model_dir / "config.json").read_text("utf-8"))
    heads = config["num_attention_heads"]
    shape = Shape(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        inner_width=config["intermediate_size"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads", heads),
        head_width=config.get("head_dim") or config["hidden_size"] // heads,
    )
    return [shape.projections] * shape.layers
