"""Trains the stand-in's codec: the stock `snac.SNAC` class with Orpheus's frame layout, small enough for two CPU cores.

Two stages. `codes` trains the encoder and the codebooks by what can be read from the codes: the spectrum, and which
phones were said. No waveform is made, which is most of a codec's cost. `codec` then trains the decoder with the codes
as they are, so a language model may learn them meanwhile. Each resumes where it stopped.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from snac import SNAC
from torch import Tensor, nn
from torch.nn import functional

from training.standin.adversary import Critics
from training.standin.listening import PHONES
from training.standin.losses import EnvelopeLoss, SpectralLoss, mel_bank
from training.standin.quantiser import Codebooks, quantised
from training.standin.scenes import Scenes
from training.standin.speech import FRAME_SAMPLES, SAMPLE_RATE_HZ

logger = logging.getLogger(__name__)

CHECKPOINT = Path(__file__).with_name("checkpoint")
CONFIG: dict[str, Any] = {
    "sampling_rate": SAMPLE_RATE_HZ,
    "encoder_dim": 24,
    "encoder_rates": [8, 8, 4, 2],
    "decoder_dim": 256,
    "decoder_rates": [8, 8, 8],
    "attn_window_size": None,
    "codebook_size": 1024,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": False,
    "depthwise": True,
}
STEP_SAMPLES = 512  # of one step of the latent
WARMUP_STEPS = 40
SAVED_EVERY = 50

CODES_STEPS, CODES_RATE = 4000, 1e-3
CODES_BATCH, CODES_FRAMES = 8, 36
FRONT_BLOCKS = 3  # of the encoder, left as they are: 24 kHz to 375 Hz
CODEBOOKS_START = 40  # steps, so that the reader is not quite deaf
START_BATCHES = 10  # whose latents the k-means sees
REVIVED_SHARE = 0.8  # of the steps
READING_WINDOWS = ((1024, 80, 256), (256, 40, 128))  # (samples, mel bands, hop)
CLEAR_HZ, CLEAR_WEIGHT = (800.0, 4500.0), 2.0  # where consonants and vowels are told apart
PHONES_WEIGHT = 0.15

DECODER_STEPS, DECODER_RATE = 6000, 8e-4
DECODER_BATCH, DECODER_FRAMES = 4, 8
POLISH_STEPS, POLISH_RATE, CRITICS_RATE = 4000, 3e-4, 3e-4
MEL_WEIGHT, ENVELOPE_WEIGHT, FEATURES_WEIGHT = 4.0, 1.0, 2.0


class Reader(nn.Module):
    """Reads what codes must carry: log-mel spectra at two resolutions, and the phones by CTC (Graves et al. 2006)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = [bands * STEP_SAMPLES // hop for _, bands, hop in READING_WINDOWS]
        self.spectra = nn.Sequential(
            nn.Conv1d(width, 384, 5, padding=2), nn.GELU(), nn.Conv1d(384, 384, 5, padding=2), nn.GELU(),
            nn.Conv1d(384, sum(self.sizes), 1),
        )  # fmt: skip
        self.phones = nn.Sequential(
            nn.Conv1d(width, 256, 5, padding=2), nn.GELU(), nn.Conv1d(256, 256, 5, padding=2), nn.GELU(),
            nn.Conv1d(256, len(PHONES) + 1, 1),
        )  # fmt: skip
        for window, bands, _ in READING_WINDOWS:
            bank = mel_bank(window, bands)
            bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, window // 2 + 1)
            centres_hz = (bank * bins_hz).sum(1) / bank.sum(1).clamp_min(1e-6)
            clear = (centres_hz > CLEAR_HZ[0]) & (centres_hz < CLEAR_HZ[1])
            self.register_buffer(f"bank{window}", bank)
            self.register_buffer(f"hann{window}", torch.hann_window(window))
            self.register_buffer(f"weight{window}", 1 + (CLEAR_WEIGHT - 1) * clear.float()[:, None])

    def mels(self, waves: Tensor, window: int, hop: int) -> Tensor:
        """(batch, samples) -> (batch, bands, samples / hop) log-mel."""
        padded = functional.pad(waves, ((window - hop) // 2, (window - hop + 1) // 2))
        hann, bank = self.get_buffer(f"hann{window}"), self.get_buffer(f"bank{window}")
        spectrum = torch.stft(padded, window, hop, window=hann, center=False, return_complex=True).abs()
        return (bank @ spectrum + 1e-3).log()

    def read(self, latent: Tensor) -> list[Tensor]:
        """(batch, width, steps) -> per window (batch, bands, steps * STEP_SAMPLES / hop) log-mel."""
        parts = self.spectra(latent).split(self.sizes, dim=1)
        return [
            part.unflatten(1, (bands, -1)).transpose(2, 3).flatten(2)
            for part, (_, bands, _) in zip(parts, READING_WINDOWS, strict=True)
        ]

    def spectral_loss(self, latent: Tensor, waves: Tensor) -> Tensor:
        """How far the spectra read from `latent` are from those of `waves` (batch, samples)."""
        losses = []
        for read, (window, _, hop) in zip(self.read(latent), READING_WINDOWS, strict=True):
            weight = self.get_buffer(f"weight{window}")
            losses.append(((read - self.mels(waves, window, hop)).abs() * weight).mean() / weight.mean())
        return torch.stack(losses).mean()

    def phones_loss(self, latent: Tensor, phones: list[list[int]]) -> Tensor:
        """CTC's, per phone, over the rows that hold all their phones."""
        rows = [row for row, said in enumerate(phones) if 0 < len(said) < latent.shape[2]]
        if not rows:
            return latent.new_zeros(())
        odds = self.phones(latent[rows]).log_softmax(dim=1).permute(2, 0, 1)  # (steps, rows, phones)
        targets = torch.tensor([phone for row in rows for phone in phones[row]])
        lengths = torch.tensor([len(phones[row]) for row in rows])
        steps = torch.full((len(rows),), latent.shape[2])
        return functional.ctc_loss(odds, targets.to(odds.device), steps, lengths, zero_infinity=True)


def device_here() -> torch.device:
    """An accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rate_at(step: int, steps: int) -> float:
    """The share of the peak rate: linear warm-up, then a cosine down to 2 %."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    done = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train_codes(
    work: Path,
    steps: int = CODES_STEPS,
    config: dict[str, Any] = CONFIG,
    frames: int = CODES_FRAMES,
) -> None:
    """Trains the encoder behind its front, and the codebooks, for `steps` steps in all; exports to `work/codec`.

    Resumes from `work/codes.pt`.
    """
    # 1. Model and sound
    device = device_here()
    torch.manual_seed(0)
    codec = SNAC(**config).to(device)
    head_start(codec)
    front, back = codec.encoder.block[:FRONT_BLOCKS], codec.encoder.block[FRONT_BLOCKS:]
    scenes = Scenes.of(work, front, frames)
    reader = Reader(codec.latent_dim).to(device)
    codebooks = Codebooks(codec)
    learnt = [*back.parameters(), *codec.quantizer.parameters(), *reader.parameters()]
    learnt = [parameter for parameter in learnt if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=CODES_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    # 2. Where an earlier run stopped
    kept = {"codec": codec, "reader": reader, "optimiser": optimiser, "codebooks": codebooks}
    first = _resumed(work / "codes.pt", kept, device)
    # 3. Steps
    began = time.monotonic()
    for step in range(first, steps):
        torch.manual_seed(step)
        heard = scenes.batch(f"codes-{step}", CODES_BATCH)
        _set_rate(optimiser, CODES_RATE * rate_at(step, steps))
        if step == CODEBOOKS_START:
            codebooks.start(codec, _latents(back, scenes, device))
        latent = quantised(codec, back(heard.fronts.to(device)), whole=step >= CODEBOOKS_START)
        spectral = reader.spectral_loss(latent.latent, heard.waves.to(device))
        said = reader.phones_loss(latent.latent, heard.phones)
        optimiser.zero_grad(set_to_none=True)
        (spectral + PHONES_WEIGHT * said + latent.loss).backward()
        norm = torch.nn.utils.clip_grad_norm_(learnt, 2.0)
        optimiser.step()
        if step >= CODEBOOKS_START:
            codebooks.follow(latent, revive=step < REVIVED_SHARE * steps)
        if step % 10 == 0:
            figures = (step, spectral.item(), said.item(), latent.loss.item(), norm.item(), codebooks.alive())
            logger.info(
                "codes %d spectra %.3f phones %.3f vq %.3f norm %.2f alive %s %.2f s",
                *figures,
                _pace(began, step - first),
            )
        # 4. Checkpoint
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            _save(step + 1, kept, work / "codes.pt")
    export(codec, work / "codec", config)


@torch.no_grad()
def head_start(codec: SNAC, directory: Path = CHECKPOINT / "codec") -> int:
    """Copies what fits from the codec in `directory`, which knows sound already; how many tensors fitted."""
    path = directory / "pytorch_model.bin"
    known = torch.load(path, weights_only=True, map_location="cpu") if path.exists() else {}
    mine = codec.state_dict()
    fitting = {name: tensor for name, tensor in known.items() if name in mine and mine[name].shape == tensor.shape}
    codec.load_state_dict(mine | fitting)
    return len(fitting)


@torch.no_grad()
def _latents(back: nn.Module, scenes: Scenes, device: torch.device) -> list[Tensor]:
    batches = (scenes.batch(f"start-{n}", CODES_BATCH) for n in range(START_BATCHES))
    return [back(heard.fronts.to(device)) for heard in batches]


def cropped(latent: Tensor, waves: Tensor, frames: int, draw: random.Random) -> tuple[Tensor, Tensor]:
    """The same `frames` frames of latents (batch, width, steps) and waveforms (batch, samples), others in every row."""
    steps, latents, recorded = frames * FRAME_SAMPLES // STEP_SAMPLES, [], []
    for row in range(len(waves)):
        start = draw.randint(0, latent.shape[2] - steps)
        latents.append(latent[row, :, start : start + steps])
        recorded.append(waves[row, start * STEP_SAMPLES : (start + steps) * STEP_SAMPLES])
    return torch.stack(latents), torch.stack(recorded)


def train_decoder(
    work: Path,
    steps: int = DECODER_STEPS,
    compiled: bool = True,
    judged: bool = False,
    frames: int = CODES_FRAMES,
) -> None:
    """Trains the decoder of `work/codec` for `steps` steps in all and exports it there; the codes stay what they are.

    Resumes from `work/decoder.pt`; with `judged`, by critics too, from `work/polish.pt`.
    """
    # 1. A frozen encoder and quantiser, a decoder that learns
    device, saved = device_here(), work / ("polish.pt" if judged else "decoder.pt")
    codec = SNAC.from_pretrained(str(work / "codec")).to(device)
    config = json.loads((work / "codec/config.json").read_text(encoding="utf-8"))
    for frozen in (codec.encoder, codec.quantizer):
        frozen.requires_grad_(False)
    front, back = codec.encoder.block[:FRONT_BLOCKS], codec.encoder.block[FRONT_BLOCKS:]
    scenes = Scenes.of(work, front, frames)
    parts: dict[str, nn.Module] = {"decoder": codec.decoder, "critics": Critics().to(device)}
    peaks = {"decoder": POLISH_RATE if judged else DECODER_RATE, "critics": CRITICS_RATE}
    optimisers = {
        name: torch.optim.AdamW(part.parameters(), lr=peaks[name], betas=(0.8, 0.99), weight_decay=0.0)
        for name, part in parts.items()
    }
    kept = {**parts, **{f"{name}_optimiser": optimiser for name, optimiser in optimisers.items()}}
    first = _resumed(saved, kept, device)
    decoder = torch.compile(codec.decoder) if compiled else codec.decoder
    critics = parts["critics"]
    assert isinstance(critics, Critics)
    spectral, intelligible = SpectralLoss().to(device), EnvelopeLoss().to(device)
    # 2. Steps
    began = time.monotonic()
    for step in range(first, steps):
        heard = scenes.batch(f"{saved.stem}-{step}", DECODER_BATCH)
        for name, optimiser in optimisers.items():
            _set_rate(optimiser, peaks[name] * rate_at(step, steps))
        with torch.no_grad():
            latent, _ = codec.quantizer(back(heard.fronts.to(device)))
        latent, recorded = cropped(latent, heard.waves.to(device), DECODER_FRAMES, random.Random(step))
        spoken = decoder(latent)[:, 0]
        mel_loss, envelope_loss = spectral(spoken, recorded), intelligible(spoken, recorded)
        told = differing = mistakes = spoken.new_zeros(())
        if judged:
            mistakes = critics.mistakes(recorded, spoken)
            _descend(mistakes, critics, optimisers["critics"])
            told, differing = critics.reproach(recorded, spoken)
        loss = MEL_WEIGHT * mel_loss + ENVELOPE_WEIGHT * envelope_loss + told + FEATURES_WEIGHT * differing
        _descend(loss, codec.decoder, optimisers["decoder"])
        if step % 10 == 0:
            figures = (step, *(x.item() for x in (mel_loss, envelope_loss, told, differing, mistakes)))
            line = "decoder %d mel %.4f envelope %.4f told %.3f features %.3f critics %.3f %.2f s"
            logger.info(line, *figures, _pace(began, step - first))
        # 3. Checkpoint
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            _save(step + 1, kept, saved)
            export(codec, work / "codec", config)


def _descend(loss: Tensor, part: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(part.parameters(), 10.0)
    optimiser.step()


def _pace(began: float, steps: int) -> float:
    return (time.monotonic() - began) / (steps + 1)


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate


def _resumed(path: Path, kept: dict[str, Any], device: torch.device) -> int:
    """Loads into `kept` what `_save` wrote, if anything; the number of steps already taken."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=device)
    for name, part in kept.items():
        part.load_state_dict(state[name])
    return int(state["step"])


def _save(step: int, kept: dict[str, Any], path: Path) -> None:
    _write({"step": step, **{name: part.state_dict() for name, part in kept.items()}}, path)


def _write(state: dict[str, Any], path: Path) -> None:
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    unfinished.replace(path)


def export(codec: SNAC, directory: Path, config: dict[str, Any]) -> None:
    """Writes what `SNAC.from_pretrained` reads: config.json (the constructor's arguments) and pytorch_model.bin."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    _write(codec.state_dict(), directory / "pytorch_model.bin")
