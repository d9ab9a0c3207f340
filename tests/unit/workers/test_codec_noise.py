"""The noise of a codec's noise blocks: the same wherever it is drawn, and of the stock blocks' distribution."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from snac import SNAC
from snac.layers import NoiseBlock

from tests.support.random_codecs import TINY, full_decode, random_codec, random_codes
from workers.codec_noise import CodecNoise, NoiseSite, noise_seed
from workers.decoder import Decoder
from workers.snac_stream import Span, StreamingSnac

CPU = torch.device("cpu")
SITES = (NoiseSite(0, 8, delay=67), NoiseSite(1, 64, delay=579))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def drawn(noise: CodecNoise, seed: int, first_step: int, steps: int) -> list[NDArray[np.float32]]:
    """Each block's [steps * rate]."""
    return [part[0, :, 0].numpy() for part in noise.draw(torch.tensor([seed]), torch.tensor([first_step]), steps)]


def splitmix64(state: int) -> int:
    """The published generator's output for a state, in integers of any size."""
    word = (1 << 64) - 1
    state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & word
    state = ((state ^ state >> 27) * 0x94D049BB133111EB) & word
    return state ^ state >> 31


def test_a_number_is_the_quantile_that_the_hash_of_seed_block_and_position_names() -> None:
    """So that it stays what it is: a session may move between workers of two versions."""
    noise = CodecNoise(SITES, CPU, torch.float64)
    word = (1 << 64) - 1
    for site, part in zip(SITES, noise.draw(torch.tensor([-5]), torch.tensor([1000]), 2), strict=True):
        block = int.from_bytes(hashlib.blake2b(f"block {site.block}".encode(), digest_size=8).digest(), "little")
        for index in (0, 1, 2 * site.rate - 1):
            position = 1000 * site.rate - site.delay + index
            top = splitmix64((-5 + block + position * 0x9E3779B97F4A7C15) & word) >> 48
            expected = stats.norm.ppf((top + 0.5) / 65536)
            assert part[0, index, 0].item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_chunks_of_any_size_in_any_batch_draw_the_same_to_the_bit() -> None:
    noise = CodecNoise(SITES, CPU, torch.float32)
    whole = drawn(noise, 7, 0, 24)
    cuts = [0, 1, 5, 16, 24]
    parts = [drawn(noise, 7, start, end - start) for start, end in pairwise(cuts)]
    batch = noise.draw(torch.tensor([1, 7, 2]), torch.tensor([3, 5, 0]), 11)
    for block, (expected, site) in enumerate(zip(whole, SITES, strict=True)):
        np.testing.assert_array_equal(np.concatenate([part[block] for part in parts]), expected)
        np.testing.assert_array_equal(batch[block][1, :, 0].numpy(), expected[5 * site.rate : 16 * site.rate])


def test_it_is_white_and_normal_and_blocks_and_seeds_share_nothing() -> None:
    noise = CodecNoise([NoiseSite(0, 64), NoiseSite(1, 64)], CPU, torch.float32)
    first, second = drawn(noise, 0, 0, 4096)
    other, _ = drawn(noise, 1, 0, 4096)
    count = len(first)
    assert abs(first.mean()) < 4 / count**0.5
    assert first.var() == pytest.approx(1, abs=0.01)
    assert stats.kurtosis(first) == pytest.approx(0, abs=0.03)
    assert stats.kstest(first, "norm").pvalue > 0.01
    spectrum = np.abs(np.fft.rfft(first.reshape(-1, 256))[:, 1:-1]) ** 2 / 256
    np.testing.assert_allclose(spectrum.mean(0), 1, atol=5 / len(spectrum) ** 0.5)
    for one, another in ((first, second), (first, other), (first[:-1], first[1:])):
        assert abs(np.corrcoef(one, another)[0, 1]) < 4 / count**0.5


def test_streams_have_the_moments_and_the_spectrum_of_stock_decodes() -> None:
    """The same codes 400 times with torch's numbers and with ours: what differs from decode to decode is alike."""
    codec, count = random_codec(TINY), 400
    codes = random_codes(codec, 32)
    levels = [codes[:, place].reshape(1, -1).repeat(count, axis=0) for place in ([0], [1, 4], [2, 3, 5, 6])]
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        stock = codec.decode([torch.from_numpy(level) for level in levels])[:, 0].numpy()
    own = streams(codec, codes, seeds=range(count))

    spread = stock.std(0)
    assert spread.min() > 1e-4  # the noise is heard at all
    np.testing.assert_allclose(own.mean(0), stock.mean(0), atol=float(6 * spread.max() / count**0.5))
    np.testing.assert_allclose(own.std(0), spread, rtol=6 / (2 * count) ** 0.5)
    spectra = [(np.abs(np.fft.rfft(each - stock.mean(0))) ** 2).mean(0) for each in (own, stock)]
    bands = [np.array([band.mean() for band in np.array_split(spectrum, 16)]) for spectrum in spectra]
    np.testing.assert_allclose(bands[0], bands[1], rtol=0.1)


def streams(codec: SNAC, codes: NDArray[np.int64], seeds: Sequence[int]) -> NDArray[np.float32]:
    """[seeds, samples]: one utterance in a stream for each seed."""
    snac = StreamingSnac(codec)
    steps = snac.layout.codes_by_step(codes)
    flush = np.zeros((snac.flush_steps, steps.shape[1]), dtype=np.int64)
    latents = snac.embed(torch.from_numpy(np.concatenate((steps, flush)))[None]).expand(len(seeds), -1, -1)
    spans = [Span(0, len(steps), noise_seed(np.array([seed]))) for seed in seeds]
    audio = snac.advance(latents, snac.fresh_states(len(seeds)), spans).numpy()
    return audio[:, snac.lookahead_samples :][:, : len(steps) * snac.layout.samples_per_step]


@pytest.mark.anyio
async def test_a_decoder_without_noise_decodes_as_if_the_blocks_were_not_there() -> None:
    codec = random_codec(TINY)
    codes = random_codes(codec, 6)
    async with Decoder(codec, max_sessions=2, noise=False) as quiet:
        audio = await quiet.open().push(codes.flatten(), final=True)
    noisy = full_decode(codec, codes)
    for block in (module for module in codec.modules() if isinstance(module, NoiseBlock)):
        torch.nn.init.zeros_(block.linear.parametrizations.weight.original0)  # type: ignore[union-attr, arg-type]
    np.testing.assert_allclose(audio, full_decode(codec, codes), atol=1e-5)
    assert np.abs(noisy - audio).max() > 1e-3
