"""Table 4, training: tokens a second of a LoRA of rank 16, its memory, and minutes for a voice.

`ours` is `training.loop` with the recipe's defaults at so many padded tokens at a time; `plain` a step as a trainer
does it that knows nothing of codes: `model(labels=…)` over the whole vocabulary, eight padded clips at a time.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.bench.gpu.plan import Measurement
from app.bench.gpu.stage import Emit, Job, main
from app.speech.token_layout import LORA_MODULES, TOKENS_PER_FRAME, TokenLayout, read_layout
from training.stage_runner import Stopped, read_run

VOICE_MINUTES, EPOCHS = 30, 5
CLIPS = 24
PLAIN_CLIPS = 8
PROMPT_TOKENS = 40
UNEQUAL = 0.4
"""Clips are up to so much longer or shorter than the mean, as sentences are: what padding costs."""


class TrainingStage:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._layout = read_layout(job.model_dir, job.codec_dir)

    async def measure(self, measurement: Measurement, emit: Emit) -> Mapping[str, Any]:
        if self._job.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as directory:
            run_dir = Path(directory)
            lengths = _write_run(run_dir, self._job, self._layout, measurement.number("micro_batch_tokens"))
            steps = self._job.sizes.train_steps
            if measurement.word("how") == "plain":
                tokens_per_s = _plain(run_dir, self._layout, steps)
            else:
                tokens_per_s = _ours(run_dir, lengths, steps)
        voice_tokens = VOICE_MINUTES * 60 * self._layout.tokens_per_s * EPOCHS
        return {
            "tokens_per_s": round(tokens_per_s, 1),
            "minutes_a_voice": round(voice_tokens / tokens_per_s / 60, 2),
            "memory_gib": round(_peak_bytes(self._job.device) / 1024**3, 2),
        }

    async def aclose(self) -> None: ...


def _ours(run_dir: Path, lengths: list[int], steps: int) -> float:
    """Tokens a second of the trainer's steps, but for the first."""
    from training.loop import Training

    at_s: list[float] = []

    def emit(event: str, **fields: Any) -> None:
        if event == "progress" and fields["loss"] is not None:
            at_s.append(time.perf_counter())

    def check() -> None:
        if len(at_s) > steps:
            raise Stopped

    training = Training(read_run(run_dir), run_dir, emit, check)
    with suppress(Stopped):
        training.run()
    step_tokens = statistics.mean(lengths) * training.config.batch_clips
    return step_tokens / statistics.median(np.diff(at_s))


def _plain(run_dir: Path, layout: TokenLayout, steps: int) -> float:
    """Tokens a second of transformers' own loss, with the same LoRA and optimiser."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from training.clips import read_clips
    from training.learning import Batch
    from training.stage_runner import torch_device

    run = read_run(run_dir)
    device = torch_device(run)
    base: Any = AutoModelForCausalLM.from_pretrained(
        run.model_dir, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, local_files_only=True
    )
    model: Any = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=list(LORA_MODULES))).to(device)
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    clips = read_clips(run_dir / "dataset.npz", layout, vocabulary_size=base.config.vocab_size)
    rates = []
    for step in range(steps + 1):
        some = [clips[(step * PLAIN_CLIPS + number) % len(clips)] for number in range(PLAIN_CLIPS)]
        batch = Batch.of(some, layout.speech.pad_id, device)
        begun_s = time.perf_counter()
        labels = batch.ids.masked_fill(~batch.real, -100)
        model(input_ids=batch.ids, attention_mask=batch.real.long(), labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        _wait_for(device)
        rates.append(sum(len(clip.ids) for clip in some) / (time.perf_counter() - begun_s))
    return statistics.median(rates[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: str) -> int:
    """Of the card, or on a CPU of this process since its start."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _write_run(directory: Path, job: Job, layout: TokenLayout, micro_batch_tokens: int) -> list[int]:
    """A run of random clips of unequal lengths, with different texts; returns the clips' lengths in tokens."""
    draw = np.random.default_rng(0)
    clips, starts = [], []
    for _ in range(CLIPS):
        prompt = layout.prompt(draw.integers(0, layout.speech.start_of_text_id, PROMPT_TOKENS).tolist())
        frames = round(job.sizes.clip_frames * draw.uniform(1 - UNEQUAL, 1 + UNEQUAL))
        codes = draw.integers(0, layout.codebook_size, frames * TOKENS_PER_FRAME).tolist()
        answer = [layout.token(code, position) for position, code in enumerate(codes)]
        clips.append([*prompt, *answer, layout.end_id, layout.speech.end_of_ai_id])
        starts.append(len(prompt))
    np.savez(
        directory / "dataset.npz",
        ids=np.concatenate([np.array(ids, dtype=np.int32) for ids in clips]),
        lengths=np.array([len(ids) for ids in clips], dtype=np.int64),
        answer_starts=np.array(starts, dtype=np.int64),
        names=np.array([f"clip-{number}" for number in range(len(clips))], dtype=np.str_),
    )
    train = {"micro_batch_tokens": micro_batch_tokens} if micro_batch_tokens else {}
    run = {
        "model_dir": str(job.model_dir.absolute()),
        "codec_dir": str(job.codec_dir.absolute()),
        "prompt_name": "voice",
        "device": job.device,
        "train": train,
    }
    (directory / "run.json").write_text(json.dumps(run), "utf-8")
    return [len(ids) for ids in clips]


if __name__ == "__main__":
    main(TrainingStage)
