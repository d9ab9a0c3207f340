"""The streaming decoder against the stock class's full decode."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snac import SNAC

from app.errors import ConfigurationError
from tests.support.random_codecs import (
    FULL_CONVOLUTIONS,
    ODD_STRIDES,
    SNAC_24KHZ,
    TINY,
    full_decode,
    random_codec,
    random_codes,
)
from workers.codec_noise import noise_of, noise_seed
from workers.snac_stream import Span, StreamingSnac, load_codec

CONFIGS = {"tiny": TINY, "odd-strides": ODD_STRIDES, "full-convolutions": FULL_CONVOLUTIONS}


@pytest.fixture(params=CONFIGS)
def codec(request: pytest.FixtureRequest) -> SNAC:
    return random_codec(CONFIGS[request.param])


def stream(snac: StreamingSnac, codes: np.ndarray, chunk_steps: list[int]) -> np.ndarray:
    """Decode one utterance in chunks of so many steps, the last size repeated to the end."""
    steps = snac.layout.codes_by_step(codes)
    flush = np.zeros((snac.flush_steps, steps.shape[1]), dtype=np.int64)
    latents = snac.embed(torch.from_numpy(np.concatenate((steps, flush)))[None])
    state, parts, at, seed = snac.fresh_states(1), [], 0, noise_seed(codes[0])
    while at < latents.shape[1]:
        size = chunk_steps.pop(0) if len(chunk_steps) > 1 else chunk_steps[0]
        parts.append(snac.advance(latents[:, at : at + size], state, [Span(at, len(steps), seed)])[0])
        at += size
    end = len(steps) * snac.layout.samples_per_step
    return torch.cat(parts).numpy()[snac.lookahead_samples :][:end]


def test_chunks_of_any_size_join_into_the_full_decode(codec: SNAC) -> None:
    snac = StreamingSnac(codec)

    @settings(max_examples=15, deadline=None)
    @given(frames=st.integers(1, 12), chunks=st.lists(st.integers(1, 30), min_size=1, max_size=8), seed=st.integers(0))
    def check(frames: int, chunks: list[int], seed: int) -> None:
        codes = random_codes(codec, frames, seed)
        np.testing.assert_allclose(stream(snac, codes, chunks), full_decode(codec, codes), atol=1e-5)

    check()


def test_the_published_24_khz_configuration_decodes_exactly() -> None:
    codec = random_codec(SNAC_24KHZ)
    snac = StreamingSnac(codec)
    codes = random_codes(codec, 4)
    np.testing.assert_allclose(stream(snac, codes, [4, 8, 4]), full_decode(codec, codes), atol=1e-5)
    assert (snac.lookahead_samples, snac.lookback_samples) == (4757, 4757)


def test_rows_of_different_age_do_not_hear_each_other(codec: SNAC) -> None:
    """One row in its middle, one at its beginning and one past its end, in one call, as each alone."""
    snac = StreamingSnac(codec)
    frame = snac.layout.steps_per_frame
    size = (snac.flush_steps // frame + 2) * frame
    codes = [random_codes(codec, 3 * size // frame, seed) for seed in range(3)]
    ages, ends = [size, 0, 2 * size], [None, None, 2 * size + frame]
    latents = [snac.embed(torch.from_numpy(snac.layout.codes_by_step(each))[None]) for each in codes]
    states, seeds = snac.fresh_states(3), [noise_seed(each[0]) for each in codes]
    for row, age in enumerate(ages):
        if age:
            snac.advance(latents[row][:, :age], states[row : row + 1], [Span(0, seed=seeds[row])])

    chunk = torch.cat([latents[row][:, age : age + size] for row, age in enumerate(ages)])
    spans = [Span(age, end, seed) for age, end, seed in zip(ages, ends, seeds, strict=True)]
    audio = snac.advance(chunk, states, spans).numpy()

    for packet, age, end, code in zip(audio, ages, ends, codes, strict=True):
        alone = full_decode(codec, code if end is None else code[: end // frame])
        start = age * snac.layout.samples_per_step - snac.lookahead_samples
        expected = alone[max(0, start) :][: len(packet) - max(0, -start)]
        assert len(expected)
        np.testing.assert_allclose(packet[max(0, -start) :][: len(expected)], expected, atol=1e-5)


def test_within_their_utterances_rows_decode_alike_without_a_copy_from_the_host() -> None:
    codec = random_codec(TINY)
    snac = StreamingSnac(codec)
    latents = snac.embed(torch.from_numpy(snac.layout.codes_by_step(random_codes(codec, 2)))[None].repeat(2, 1, 1))
    first_step = snac.flush_steps + 1
    states = torch.randn(2, snac.state_floats)
    copied = states.clone()
    audio = snac.advance(latents, states, [Span(first_step, seed=5), Span(first_step, seed=6)])
    again = snac.advance_within(latents, copied, torch.tensor([[5, first_step], [6, first_step]]))
    assert torch.equal(audio, again)
    assert torch.equal(states, copied)
    assert not torch.equal(audio[0], audio[1])  # each has its own noise


def test_the_receptive_field_reaches_exactly_as_far_as_computed(codec: SNAC) -> None:
    """By perturbing one latent step, and by the gradient, which no rounding hides; in fp64."""
    snac = StreamingSnac(codec)
    codec.double()
    hop, reach = snac.layout.samples_per_step, snac.lookahead_samples + snac.lookback_samples
    steps = reach // hop + 5
    latents = torch.randn(1, codec.latent_dim, steps, dtype=torch.float64, requires_grad=True)

    def decoded(latents: torch.Tensor) -> torch.Tensor:
        with noise_of(codec, 0):
            return codec.decoder(latents)[0, 0]

    audio = decoded(latents)
    step = steps // 2
    first, last = step * hop - snac.lookahead_samples, (step + 1) * hop - 1 + snac.lookback_samples

    moved = latents.detach().clone()
    moved[..., step] += 1.0
    changed = (decoded(moved) != audio).nonzero()[:, 0]
    assert first <= changed.min() and changed.max() <= last

    def depends_on(sample: int) -> bool:
        (gradient,) = torch.autograd.grad(audio[sample], latents, retain_graph=True)
        return bool(gradient[..., step].abs().max() > 0)

    assert [depends_on(sample) for sample in (first - 1, first, last, last + 1)] == [False, True, True, False]


def test_a_frame_is_written_depth_first() -> None:
    layout = StreamingSnac(random_codec(TINY)).layout
    assert layout.tokens_per_frame == 7
    assert layout.positions.tolist() == [[0, 1, 2], [0, 1, 3], [0, 4, 5], [0, 4, 6]]


def test_the_codec_is_left_as_it_was() -> None:
    codec = random_codec(TINY)
    codes = random_codes(codec, 3)
    before, weights = full_decode(codec, codes), list(codec.state_dict())
    StreamingSnac(codec)
    assert list(codec.state_dict()) == weights
    np.testing.assert_array_equal(full_decode(codec, codes), before)


def test_a_codec_with_attention_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="attn_window_size=8"):
        StreamingSnac(random_codec(TINY | {"attn_window_size": 8, "decoder_dim": 64}))


def test_a_codec_is_loaded_from_its_directory(tmp_path: Any) -> None:
    codec = random_codec(TINY)
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    with pytest.raises(ConfigurationError, match=r"no pytorch_model\.bin in "):
        load_codec(tmp_path)
    torch.save(codec.state_dict(), tmp_path / "pytorch_model.bin")
    codes = random_codes(codec, 2)
    np.testing.assert_array_equal(full_decode(load_codec(tmp_path), codes), full_decode(codec, codes))
