"""A codec that carries words: the stock `snac.SNAC` class with Orpheus's frame layout, for a stand-in to come.

Its stages resume where they stopped: `latents` finds what the codes stand for, without a network; `encoder` and
`decoder` may then be trained at the same time; `polish` trains the decoder further, by critics. Each exports the codec
as far as it is. The shipped stand-in does not speak its codes yet.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from snac import SNAC

from training.standin import decoder, encoder
from training.standin.latents import LatentSpace, fitted
from training.standin.listening import Listening
from training.standin.progress import resumed
from training.standin.spectra import steps_of
from training.standin.speech import SAMPLE_RATE_HZ

logger = logging.getLogger(__name__)

CONFIG: dict[str, Any] = {
    "sampling_rate": SAMPLE_RATE_HZ,
    "encoder_dim": 32,
    "encoder_rates": [8, 8, 4, 2],
    "decoder_dim": 256,
    "decoder_rates": [8, 8, 8],
    "attn_window_size": None,
    "codebook_size": 2048,
    "codebook_dim": 48,
    "vq_strides": [4, 2, 1],
    "noise": False,
    "depthwise": True,
}
DIRECTORY = "words"  # of the work directory, where the codec is exported
FITTED_BATCHES, FITTED_BATCH = 250, 16  # 320,000 steps of the spectra, about two hours


def find_latents(work: Path, config: dict[str, Any] = CONFIG, batches: int = FITTED_BATCHES) -> LatentSpace:
    """Finds axes and codebooks, or reads the ones that were found before, in `work/latents.pt`."""
    path = work / "latents.pt"
    if not path.exists():
        listening = Listening.to(work, encoder.FRAMES)
        heard = [steps_of(listening.batch(f"latents-{n}", FITTED_BATCH).noisy).flatten(0, 1) for n in range(batches)]
        space = fitted(
            torch.cat(heard), config["codebook_dim"] - 1, config["codebook_size"], _untrained(config).latent_dim
        )
        space.save(path)
    return LatentSpace.load(path)


def _untrained(config: dict[str, Any]) -> SNAC:
    torch.manual_seed(0)
    return SNAC(**config)


def train_encoder(work: Path, config: dict[str, Any] = CONFIG, **options: Any) -> None:
    """Trains the encoder; see `encoder.train` for its options."""
    space, codec = find_latents(work, config), _untrained(config)
    encoder.train(work, codec, space, **options)
    export(work, config)


def train_decoder(work: Path, config: dict[str, Any] = CONFIG, **options: Any) -> None:
    """Trains the decoder; see `decoder.train` for its options."""
    space, codec = find_latents(work, config), _untrained(config)
    decoder.train(work, codec, space, **options)
    export(work, config)


def export(work: Path, config: dict[str, Any] = CONFIG) -> SNAC:
    """Puts together what was trained by now and writes what `SNAC.from_pretrained` reads to `work/words`."""
    space, codec = find_latents(work, config), _untrained(config)
    learner = encoder.Regression(codec, space)
    resumed(work / "encoder.pt", {"learner": learner})
    encoder.folded(learner.front, codec)
    resumed(work / "decoder.pt", {"decoder": codec.decoder})
    resumed(work / "polish.pt", {"decoder": codec.decoder})
    space.install(codec)
    directory = work / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    unfinished = directory / "pytorch_model.part"
    torch.save(codec.state_dict(), unfinished)
    unfinished.replace(directory / "pytorch_model.bin")
    return codec.eval()
