"""A codec with random weights: its cost is that of a trained one of its shape, and its sound is noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snac import SNAC

SNAC_24KHZ: dict[str, Any] = {
    "sampling_rate": 24000,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
"""hubertsiuzdak/snac_24khz's config.json."""


def random_codec(config: Mapping[str, Any] = SNAC_24KHZ, seed: int = 0) -> SNAC:
    """The same weights for the same `seed`, whatever was drawn before."""
    import torch
    from snac import SNAC

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SNAC(**config).eval()
