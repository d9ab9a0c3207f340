"""Trains the stand-in's codec: the stock `snac.SNAC` class with Orpheus's frame layout, small enough for two CPU cores.

The package's quantiser returns no training losses, so `quantised` repeats its arithmetic and adds them. There is no
adversary: multi-scale log-mel and spectral convergence carry the quality a stand-in needs.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from snac import SNAC
from snac.vq import VectorQuantize
from torch import Tensor
from torch.nn import functional

from training.standin.losses import EnvelopeLoss, SpectralLoss
from training.standin.recordings import Crops, training_crops
from training.standin.speech import SAMPLE_RATE_HZ

logger = logging.getLogger(__name__)

CONFIG: dict[str, Any] = {
    "sampling_rate": SAMPLE_RATE_HZ,
    "encoder_dim": 24,
    "encoder_rates": [8, 8, 8],
    "decoder_dim": 256,
    "decoder_rates": [8, 8, 8],
    "attn_window_size": None,
    "codebook_size": 512,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": False,
    "depthwise": True,
}
STEPS = 2000
BATCH = 6
PEAK_RATE = 1.2e-3
POLISH_STEPS = 1200
POLISH_RATE = 6e-4
WARMUP_STEPS = 100
ENVELOPE_WEIGHT = 4.0
CODEBOOK_WEIGHT, COMMITMENT_WEIGHT, MEL_WEIGHT = 1.0, 0.25, 4.0  # DAC's ratio of the first two


def _quantizers(codec: SNAC) -> list[VectorQuantize]:
    return list(codec.quantizer.quantizers)  # type: ignore[arg-type]


def quantised(codec: SNAC, latent: Tensor) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """(batch, width, steps) -> the same quantised, its loss, the codes per level, the projected vectors per level."""
    residual, total, loss = latent, torch.zeros_like(latent), latent.new_zeros(())
    codes: list[Tensor] = []
    projections: list[Tensor] = []
    for quantizer in _quantizers(codec):
        pooled = functional.avg_pool1d(residual, quantizer.stride, quantizer.stride)
        projected = quantizer.in_proj(pooled)  # (batch, codebook_dim, steps / stride)
        chosen, indices = quantizer.decode_latents(projected)
        loss = loss + CODEBOOK_WEIGHT * functional.mse_loss(chosen, projected.detach())
        loss = loss + COMMITMENT_WEIGHT * functional.mse_loss(projected, chosen.detach())
        straight = projected + (chosen - projected).detach()
        step = quantizer.out_proj(straight).repeat_interleave(quantizer.stride, dim=-1)
        total, residual = total + step, residual - step
        codes.append(indices)
        projections.append(projected.detach())
    return total, loss, codes, projections


class DeadCodes:
    """Counts which codes are used and moves the unused ones onto vectors the encoder really makes."""

    def __init__(self, codec: SNAC, every: int = 50) -> None:
        self.codec, self.every, self.steps = codec, every, 0
        self.used = [torch.zeros(codec.codebook_size) for _ in _quantizers(codec)]

    def after_step(self, codes: list[Tensor], projections: list[Tensor]) -> None:
        """Counts one step's codes; every `every` steps restarts the dead ones."""
        self.steps += 1
        for used, indices in zip(self.used, codes, strict=True):
            used.add_(torch.bincount(indices.flatten(), minlength=len(used)))
        if self.steps % self.every:
            return
        for used, quantizer, projected in zip(self.used, _quantizers(self.codec), projections, strict=True):
            dead = (used < 1).nonzero().flatten()
            vectors = projected.transpose(1, 2).flatten(0, 1)  # (batch * steps, codebook_dim)
            picks = torch.randint(len(vectors), (len(dead),))
            jitter = 1 + 0.02 * torch.randn(len(dead), vectors.shape[1])
            with torch.no_grad():
                quantizer.codebook.weight[dead] = vectors[picks] * jitter
            used.zero_()

    def alive(self) -> list[int]:
        """How many codes of each level were used since the last restart."""
        return [int((used > 0).sum()) for used in self.used]


def rate_at(step: int, steps: int) -> float:
    """The share of the peak rate: linear warm-up, then a cosine down to 2 %."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    done = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(work: Path, steps: int = STEPS, compiled: bool = True) -> None:
    """Trains for `steps` steps in all, resuming from `work/codec.pt`; exports to `work/codec` at every checkpoint."""
    # 1. Sound: crops are drawn from a seed per step, so a resumed run hears what an uninterrupted one would
    crops = training_crops(work)
    # 2. Model
    torch.manual_seed(0)
    codec = SNAC(**CONFIG)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=PEAK_RATE, betas=(0.8, 0.99), weight_decay=0.0)
    first = _resumed(codec, optimiser, work / "codec.pt")
    encoder, decoder = codec.encoder, codec.decoder
    if compiled:
        encoder, decoder = torch.compile(encoder), torch.compile(decoder)
    spectral, dead = SpectralLoss(), DeadCodes(codec)
    # 3. Steps
    began = time.monotonic()
    for step in range(first, steps):
        wave = _batch(crops, f"crop-{step}")  # (BATCH, 1, frames * FRAME_SAMPLES)
        _set_rate(optimiser, PEAK_RATE * rate_at(step, steps))
        total, vq_loss, codes, projections = quantised(codec, encoder(wave))
        mel_loss = spectral(decoder(total)[:, 0], wave[:, 0])
        optimiser.zero_grad(set_to_none=True)
        (MEL_WEIGHT * mel_loss + vq_loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(codec.parameters(), 10.0)
        optimiser.step()
        if step % 25 == 0:
            seconds = (time.monotonic() - began) / (step - first + 1)
            figures = (step, mel_loss.item(), vq_loss.item(), norm.item(), dead.alive(), seconds)
            logger.info("codec step %d mel %.4f vq %.4f norm %.2f alive %s %.2f s/step", *figures)
        if step < 0.8 * steps:
            dead.after_step(codes, projections)
        # 4. Checkpoint
        if (step + 1) % 100 == 0 or step + 1 == steps:
            _save(_state(codec, optimiser, step + 1), work / "codec.pt")
            export(codec, work / "codec")


def polish(work: Path, steps: int = POLISH_STEPS, compiled: bool = True) -> None:
    """Trains the decoder alone for `steps` steps: the codes stay what they are, so the language model stays valid.

    Starts from `work/codec`, resumes from `work/polish.pt`, and exports to `work/polished`.
    """
    # 1. A frozen encoder and quantiser, a decoder that learns
    crops = training_crops(work)
    codec = SNAC.from_pretrained(str(work / "codec"))
    for frozen in (codec.encoder, codec.quantizer):
        frozen.requires_grad_(False)
    optimiser = torch.optim.AdamW(codec.decoder.parameters(), lr=POLISH_RATE, betas=(0.8, 0.99), weight_decay=0.0)
    first = _resumed(codec, optimiser, work / "polish.pt")
    decoder = torch.compile(codec.decoder) if compiled else codec.decoder
    spectral, intelligible = SpectralLoss(), EnvelopeLoss()
    # 2. Steps
    began = time.monotonic()
    for step in range(first, steps):
        wave = _batch(crops, f"polish-{step}")  # (BATCH, 1, frames * FRAME_SAMPLES)
        _set_rate(optimiser, POLISH_RATE * rate_at(step, steps))
        with torch.no_grad():
            total, _ = codec.quantizer(codec.encoder(wave))
        heard = decoder(total)[:, 0]  # (BATCH, samples)
        mel_loss, envelope_loss = spectral(heard, wave[:, 0]), intelligible(heard, wave[:, 0])
        optimiser.zero_grad(set_to_none=True)
        (MEL_WEIGHT * mel_loss + ENVELOPE_WEIGHT * envelope_loss).backward()
        torch.nn.utils.clip_grad_norm_(codec.decoder.parameters(), 10.0)
        optimiser.step()
        if step % 25 == 0:
            seconds = (time.monotonic() - began) / (step - first + 1)
            figures = (step, mel_loss.item(), envelope_loss.item(), seconds)
            logger.info("polish step %d mel %.4f envelope %.4f %.2f s/step", *figures)
        # 3. Checkpoint
        if (step + 1) % 100 == 0 or step + 1 == steps:
            _save(_state(codec, optimiser, step + 1), work / "polish.pt")
            export(codec, work / "polished")


def _resumed(codec: SNAC, optimiser: torch.optim.Optimizer, saved: Path) -> int:
    """Loads `saved` if there is one; the number of steps already taken."""
    if not saved.exists():
        return 0
    state = torch.load(saved, weights_only=True)
    codec.load_state_dict(state["codec"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _state(codec: SNAC, optimiser: torch.optim.Optimizer, step: int) -> dict[str, object]:
    return {"codec": codec.state_dict(), "optimiser": optimiser.state_dict(), "step": step}


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _batch(crops: Crops, seed: str) -> Tensor:
    draw = random.Random(seed)
    return torch.from_numpy(np.stack([crops.crop(draw) for _ in range(BATCH)]))[:, None]


def _save(state: dict[str, object], path: Path) -> None:
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.replace(path)


def export(codec: SNAC, directory: Path) -> None:
    """Writes what `SNAC.from_pretrained` reads: config.json (the constructor's arguments) and pytorch_model.bin."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    _save(codec.state_dict(), directory / "pytorch_model.bin")
