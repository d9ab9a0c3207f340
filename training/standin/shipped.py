"""Begins where the shipped checkpoint stands, so that its training goes on on any machine.

What its encoder was trained to give is a linear map of the spectra, which the checkpoint does not hold: it is found
again from what the encoder gives. Optimisers start afresh; everything else of a work directory follows.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from snac import SNAC
from torch import Tensor
from transformers import LlamaForCausalLM

from training.standin import decoder, encoder, language
from training.standin.latents import LatentSpace, quantizers_of
from training.standin.listening import Listening
from training.standin.progress import save
from training.standin.spectra import steps_of
from training.standin.tokens import Tokens

logger = logging.getLogger(__name__)

CHECKPOINT = decoder.KNOWN.parent
BATCHES, BATCH = 30, 16  # 13 minutes of speech, which tell 47 axes of 160 numbers well


def begin(work: Path, batches: int = BATCHES) -> None:
    """Writes `latents.pt`, `encoder.pt`, `decoder.pt` and `language.pt` to `work`, unless there are latents already."""
    if (work / "latents.pt").exists():
        return
    codec = SNAC.from_pretrained(str(decoder.KNOWN)).eval()
    space = space_of(codec, Listening.to(work, encoder.FRAMES), batches)
    learner = encoder.Regression(codec, space)
    learner.front.filters.data.copy_(encoder.unfolded(codec))
    save(work / "encoder.pt", {"learner": learner, "optimiser": encoder.optimiser(learner)}, encoder.STEPS)
    speaking = {"decoder": codec.decoder, "decoder_optimiser": decoder.optimiser(codec.decoder, decoder.PEAK_RATE)}
    save(work / "decoder.pt", speaking, 0)
    reader = LlamaForCausalLM(language.configuration(Tokens(codec.codebook_size)))
    known = LlamaForCausalLM.from_pretrained(CHECKPOINT / "model", dtype=torch.float32)
    reader.load_state_dict(known.state_dict())
    save(work / "language.pt", {"model": reader, **language.optimisers(reader)}, language.STEPS)
    space.save(work / "latents.pt")


@torch.no_grad()
def space_of(codec: SNAC, listening: Listening, batches: int) -> LatentSpace:
    """The axes and codebooks of a codec whose encoder was trained by `encoder.train`."""
    levels: list[Any] = list(quantizers_of(codec))
    inwards = levels[0].in_proj.weight[:-1, :, 0]
    books = torch.stack([level.codebook.weight[:, :-1] for level in levels])
    inside = slice(encoder.EDGE_STEPS, -encoder.EDGE_STEPS)
    spectra, latents = [], []
    for number in range(batches):
        noisy = listening.batch(f"shipped-{number}", BATCH).noisy
        spectra.append(steps_of(noisy)[:, inside].flatten(0, 1))
        latents.append((inwards @ codec.encoder(noisy[:, None])).transpose(1, 2)[:, inside].flatten(0, 1))
    mean, axes, back, unexplained = axes_of(torch.cat(spectra).double(), torch.cat(latents).double())
    logger.info("shipped: %.3f of what the encoder gives is not explained", unexplained)
    return LatentSpace(mean, axes, back, books, levels[0].out_proj.weight[:, :-1, 0].clone())


def axes_of(spectra: Tensor, latents: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """(n, STEP_WIDTH) spectra, (n, width) latents that an encoder gave -> mean, axes and back of their space.

    Last comes the share of the latents that they do not explain.

    The axes are directions at right angles of one length (`latents.fitted`): the principal ones of the spectra, turned
    to where the latents are (Schönemann 1966). A plain regression would shrink those that the encoder gives badly.
    """
    width = latents.shape[1]
    middle, centre = spectra.mean(dim=0), latents.mean(dim=0)
    about, wanted = spectra - middle, latents - centre
    principal = torch.linalg.eigh(about.T @ about).eigenvectors.flip(1)[:, :width]
    left, _, right = torch.linalg.svd((about @ principal).T @ wanted)
    directions = principal @ left @ right
    given = about @ directions
    scale = (given * wanted).sum() / given.square().sum()
    unexplained = float((wanted - scale * given).square().sum() / wanted.square().sum())
    scale = scale / (1 - unexplained)  # what an encoder misses makes what it gives smaller
    mean = middle - directions @ centre / scale
    return mean.float(), (scale * directions).float(), (directions.T / scale).float(), unexplained
