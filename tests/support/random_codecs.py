"""Small codecs of the stock class with random weights, and the full decode that streams are held against."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from snac import SNAC

from workers.bench.random_codec import SNAC_24KHZ, random_codec
from workers.codec_noise import noise_of, noise_seed

__all__ = ["FULL_CONVOLUTIONS", "ODD_STRIDES", "SNAC_24KHZ", "TINY", "full_decode", "random_codec", "random_codes"]

TINY: dict[str, Any] = {
    "sampling_rate": 24000,
    "encoder_dim": 3,
    "encoder_rates": [4, 2],
    "decoder_dim": 32,
    "decoder_rates": [4, 2],
    "attn_window_size": None,
    "codebook_size": 16,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
ODD_STRIDES = TINY | {"decoder_rates": [3, 5], "vq_strides": [2, 1], "noise": False}
FULL_CONVOLUTIONS = TINY | {"depthwise": False}


def random_codes(codec: SNAC, frames: int, seed: int = 0) -> NDArray[np.int64]:
    """[frames, tokens per frame]"""
    width = sum(codec.vq_strides[0] // stride for stride in codec.vq_strides)
    return np.random.default_rng(seed).integers(0, codec.codebook_size, (frames, width))


def full_decode(codec: SNAC, codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """What `SNAC.decode` makes of a whole utterance with its own noise, its levels read off the frame as Orpheus
    writes them."""
    if not len(codes):
        return np.empty(0, dtype=np.float32)
    places = {3: ([0], [1, 4], [2, 3, 5, 6]), 2: ([0], [1, 2])}[len(codec.vq_strides)]
    levels = [torch.from_numpy(codes[:, place].reshape(1, -1)) for place in places]
    with torch.inference_mode(), noise_of(codec, noise_seed(codes[0])):
        return codec.decode(levels)[0, 0].numpy()
