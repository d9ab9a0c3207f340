"""The decoder's CUDA path: the same streams, as exact as on a CPU."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch

from tests.support.random_codecs import SNAC_24KHZ, full_decode, random_codec, random_codes
from workers.decoder import Decoder, DecodeStream

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_sessions_of_different_length_are_exact_in_one_batch() -> None:
    codec = random_codec(SNAC_24KHZ)
    utterances = [random_codes(codec, frames, frames) for frames in range(1, 17)]

    async def say(stream: DecodeStream, codes: np.ndarray) -> np.ndarray:
        last = len(codes) - 1
        return np.concatenate([await stream.push(frame, final=i == last) for i, frame in enumerate(codes)])

    async with Decoder(codec, device="cuda", max_sessions=16) as decoder:
        spoken = await asyncio.gather(*(say(decoder.open(), codes) for codes in utterances))
        assert decoder.stats.rows > decoder.stats.batches
    for codes, audio in zip(utterances, spoken, strict=True):
        np.testing.assert_allclose(audio, full_decode(codec, codes), atol=1e-4)
