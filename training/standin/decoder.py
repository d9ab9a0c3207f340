"""Trains the decoder from codes of the true spectra: it needs no encoder, so both may be trained at once.

It starts as a decoder that speaks already: the shipped codec's, whose first two layers are replaced by the
least-squares map from these latents to what that codec's first two layers give for the same sound.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from snac import SNAC
from torch import Tensor, nn

from training.standin.adversary import Critics
from training.standin.latents import LatentSpace
from training.standin.listening import Heard, Listening
from training.standin.losses import EnvelopeLoss, SpectralLoss
from training.standin.progress import SAVED_EVERY, device_here, resumed, save, set_rate

logger = logging.getLogger(__name__)

KNOWN = Path(__file__).with_name("checkpoint") / "codec"
STEPS, PEAK_RATE = 6000, 6e-4
POLISH_STEPS, POLISH_RATE, CRITICS_RATE = 4000, 3e-4, 3e-4
BATCH, FRAMES = 4, 12
MEL_WEIGHT, ENVELOPE_WEIGHT, FEATURES_WEIGHT = 4.0, 1.0, 2.0
QUIETEST = 0.02  # of a magnitude: below it any silence will do, so that pauses are left empty rather than filled
START_BATCHES, START_EDGE_STEPS = 15, 6
RIDGE = 1e-3


def heard_as(space: LatentSpace, heard: Heard) -> Tensor:
    """What the codes of a batch stand for, as the decoder gets it: (batch, latent_dim, steps)."""
    return (space.rounded(space.of(heard.noisy)) @ space.spread.T).transpose(1, 2)


@torch.no_grad()
def head_start(codec: SNAC, space: LatentSpace, listening: Listening, known: SNAC) -> float:
    """Lets the decoder of `codec` speak like the decoder of `known`, of the same size.

    Gives the share of that decoder's input that could not be explained.
    """
    mine: Any = codec.decoder.model
    theirs: Any = known.decoder.model
    mine[2:].load_state_dict(theirs[2:].state_dict())
    draw = torch.Generator().manual_seed(0)
    taps = 0.3 * torch.randn(mine[0].weight.shape, generator=draw)
    taps[:, :, taps.shape[2] // 2] += 1
    mine[0].weight = taps
    mine[0].bias.zero_()
    inputs, outputs = [], []
    for number in range(START_BATCHES):
        heard = listening.batch(f"start-{number}", BATCH)
        there = theirs[:2](known.quantizer(known.encoder(heard.noisy[:, None]))[0])
        here = mine[0](heard_as(space, heard))
        inside = slice(START_EDGE_STEPS, -START_EDGE_STEPS)
        inputs.append(here[:, :, inside].transpose(1, 2).flatten(0, 1))
        outputs.append(there[:, :, inside].transpose(1, 2).flatten(0, 1))
    given, wanted = torch.cat(inputs), torch.cat(outputs)
    given = torch.cat([given, torch.ones(len(given), 1)], dim=1)
    square = given.T @ given / len(given)
    square += torch.eye(len(square)) * RIDGE * square.diagonal().mean()
    solved = torch.linalg.solve(square, given.T @ wanted / len(given))  # (latent_dim + 1, decoder_dim)
    mine[1].weight = solved[:-1].T[:, :, None].contiguous()
    mine[1].bias.copy_(solved[-1])
    unexplained = (given @ solved - wanted).square().mean() / wanted.var(dim=0).mean()
    return unexplained.item()


def train(
    work: Path,
    codec: SNAC,
    space: LatentSpace,
    *,
    judged: bool = False,
    steps: int = STEPS,
    frames: int = FRAMES,
    compiled: bool = True,
    known: Path = KNOWN,
) -> None:
    """Trains the decoder of `codec` for `steps` steps in all, at first like the one in `known`.

    Resumes from `work/decoder.pt`. With `judged` it goes on from there, by critics too, and resumes from
    `work/polish.pt`.
    """
    # 1. A decoder that speaks, and what judges it
    device, saved = device_here(), work / ("polish.pt" if judged else "decoder.pt")
    listening = Listening.to(work, frames)
    torch.manual_seed(0)
    if not resumed(work / "decoder.pt", {"decoder": codec.decoder}):
        unexplained = head_start(codec, space, listening, SNAC.from_pretrained(str(known)))
        logger.info("decoder: %.3f of the known one's input is not explained", unexplained)
    critics, loss_of = Critics().to(device), Losses().to(device)
    learners: dict[str, nn.Module] = {"decoder": codec.decoder.to(device)}
    if judged:
        learners["critics"] = critics
    peaks = {"decoder": POLISH_RATE if judged else PEAK_RATE, "critics": CRITICS_RATE}
    optimisers = {name: optimiser(learner, peaks[name]) for name, learner in learners.items()}
    kept: dict[str, Any] = {**learners, **{f"{name}_optimiser": chosen for name, chosen in optimisers.items()}}
    first, began = resumed(saved, kept), time.monotonic()
    decoder = torch.compile(codec.decoder) if compiled else codec.decoder
    # 2. Steps
    for step in range(first, steps):
        for name, chosen in optimisers.items():
            set_rate(chosen, peaks[name], step, steps)
        heard = listening.batch(f"{saved.stem}-{step}", BATCH)
        speech = heard.speech.to(device)
        spoken = decoder(heard_as(space, heard).to(device))[:, 0]
        mel, envelope = loss_of(spoken, speech)
        loss = MEL_WEIGHT * mel + ENVELOPE_WEIGHT * envelope
        if judged:
            _step(optimisers["critics"], critics.mistakes(speech, spoken), critics)
            told, differing = critics.reproach(speech, spoken)
            loss = loss + told + FEATURES_WEIGHT * differing
        _step(optimisers["decoder"], loss, codec.decoder)
        if step % 20 == 0:
            pace = (time.monotonic() - began) / (step - first + 1)
            logger.info("%s %d mel %.3f envelope %.3f %.2f s", saved.stem, step, mel.item(), envelope.item(), pace)
        # 3. Checkpoint
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            save(saved, kept, step + 1)


def optimiser(learner: nn.Module, rate: float) -> torch.optim.Optimizer:
    """What trains the decoder, and its critics."""
    return torch.optim.AdamW(learner.parameters(), lr=rate, betas=(0.8, 0.99), weight_decay=0.0)


class Losses(nn.Module):
    """What the decoder is told about its sound."""

    def __init__(self) -> None:
        super().__init__()
        self.spectral, self.envelope = SpectralLoss(QUIETEST), EnvelopeLoss()

    def forward(self, spoken: Tensor, speech: Tensor) -> tuple[Tensor, Tensor]:
        """Two (batch, samples) -> the differences of their spectra and of their envelopes."""
        return self.spectral(spoken, speech), self.envelope(spoken, speech)


def _step(chosen: torch.optim.Optimizer, loss: Tensor, learner: nn.Module) -> None:
    chosen.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 3.0)
    chosen.step()
