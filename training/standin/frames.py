"""Frames as Orpheus writes them, and the codec's three levels: the same codes in two orders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def interleaved(codes: Sequence[Tensor]) -> np.ndarray:
    """SNAC's three levels, each (1, n), (1, 2 n), (1, 4 n), as frames in Orpheus's order: (n, 7) int64."""
    coarse, middle, fine = (level[0].cpu().numpy() for level in codes)
    order = (coarse, middle[0::2], fine[0::4], fine[1::4], middle[1::2], fine[2::4], fine[3::4])
    return np.stack(order, axis=1).astype(np.int64)


def levels(frames: np.ndarray) -> list[Tensor]:
    """The inverse of `interleaved`: (n, 7) frames -> SNAC's three levels with a batch axis of 1."""
    whole = torch.from_numpy(np.ascontiguousarray(frames))
    return [whole[:, :1].reshape(1, -1), whole[:, [1, 4]].reshape(1, -1), whole[:, [2, 3, 5, 6]].reshape(1, -1)]
