"""What the stand-in learns from: speech on the codec's grid, sequences of it, and what the engine must agree on."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from training.standin.examples import HEAD_FRAMES, Example, Voice, example
from training.standin.frames import interleaved, levels
from training.standin.grid import NOTHING, SHORT_PAUSE_FRAMES, as_said, on_grid
from training.standin.language import batches, corrupted, neighbours
from training.standin.latents import LatentSpace, fitted
from training.standin.muon import Muon, orthogonal
from training.standin.phonemes import SYMBOL, reading_tokenizer
from training.standin.quality import BandMask, head_silence_ms
from training.standin.spelling import stored_rules
from training.standin.tags import TAGS
from training.standin.timing import PAUSE, Said, Segment, words_in
from training.standin.tokens import Tokens, Word
from training.standin.utterances import Utterance, reading_of_word, utterance

CODES = 16
FRAME_S = 2048 / 24_000


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(CODES)


@pytest.fixture(scope="module")
def space() -> LatentSpace:
    return fitted(torch.randn(4000, 160, generator=torch.Generator().manual_seed(0)), 5, CODES, 8)


def said(*phones: tuple[str, float]) -> Said:
    """Noise in which each phone lasts so many seconds."""
    segments, start_s = [], 0.0
    for phone, length_s in phones:
        segments.append(Segment(phone, start_s, start_s + length_s))
        start_s += length_s
    noise = np.random.default_rng(0).standard_normal(int(start_s * 24_000), dtype=np.float32)
    return Said(0.1 * noise, tuple(segments))


HI_YOU = said((PAUSE, 0.2), ("hh", 0.1), ("ay", 0.17), (PAUSE, 0.3), ("y", 0.06), ("uw", 0.2), (PAUSE, 0.2))
WORDS = [(1, 3), (4, 6)]


@pytest.fixture(scope="module")
def hi_you(space: LatentSpace) -> Utterance:
    found = utterance("Hi, you!", HI_YOU, space, gridded=True)
    assert found is not None
    return found


def made(hi_you: Utterance, tokens: Tokens, seed: int = 0, tags: Mapping[str, np.ndarray] | None = None) -> Example:
    voice = Voice("wren", [hi_you], tags or {}, gridded=True)
    return example(voice, tokens, np.zeros((1, 7), np.int64), random.Random(seed), max_words=6, head_frames=HEAD_FRAMES)


def test_words_are_found_in_what_was_said_though_it_is_pronounced_otherwise() -> None:
    assert words_in(HI_YOU.segments, [("hh", "iy"), ("y", "uw")]) == WORDS


def test_another_sentence_does_not_fit() -> None:
    assert words_in(HI_YOU.segments, [("s", "t", "r", "ey", "n", "jh"), ("k", "ae", "t")]) is None


def test_every_word_begins_with_a_frame_and_takes_whole_ones(space: LatentSpace) -> None:
    spoken = on_grid(HI_YOU, WORDS, space)
    assert spoken.ends[0] - spoken.starts[0] == round((0.27 + 0.065) / FRAME_S)
    assert spoken.starts[1] == spoken.ends[0] + SHORT_PAUSE_FRAMES
    assert len(spoken.frames) == spoken.starts[-1] == spoken.ends[-1]
    assert set(spoken.segments[spoken.starts[1] :].ravel()) <= {4, 5, NOTHING}
    assert (spoken.segments[spoken.ends[0] : spoken.starts[1]] == NOTHING).all()


def test_in_its_own_time_a_sentence_is_as_long_as_it_was_said(space: LatentSpace) -> None:
    spoken = as_said(HI_YOU, WORDS, space)
    assert len(spoken.frames) == np.ceil((0.83 + 0.065) / FRAME_S)


def test_codes_come_back_as_the_latents_they_stand_for(space: LatentSpace) -> None:
    latents = torch.randn(1, 8, space.width, generator=torch.Generator().manual_seed(1))
    codes = space.codes(latents)
    assert [level.shape[1] for level in codes] == [2, 4, 8]
    assert torch.allclose(space.latents(codes), space.rounded(latents), atol=1e-6)


def test_frames_are_in_orpheus_order_and_come_back_as_levels() -> None:
    codes = [torch.arange(n)[None] + 100 * level for level, n in enumerate((2, 4, 8))]
    frames = interleaved(codes)
    assert frames.tolist() == [[0, 100, 200, 201, 101, 202, 203], [1, 102, 204, 205, 103, 206, 207]]
    assert all(torch.equal(there, back) for there, back in zip(codes, levels(frames), strict=True))


def test_the_tokenizer_and_the_trainers_prompts_give_the_same_ids(tokens: Tokens) -> None:
    tokenizer = reading_tokenizer(stored_rules(), CODES)
    words = [Word(reading_of_word("hello"), ","), Word((), tag="<laugh>"), Word(reading_of_word("four"), "!")]
    assert tokenizer("wren: Hello, <laugh> 4!")["input_ids"] == tokens.prompt("wren", words)[0][2:-4]


def test_an_example_is_prompt_codes_and_endings(hi_you: Utterance, tokens: Tokens) -> None:
    for seed in range(20):
        one = made(hi_you, tokens, seed)
        answer = one.ids[one.answer_start :]
        assert one.ids[0] == tokens["<start_of_human>"]
        assert one.ids[one.answer_start - 1] == tokens["<start_of_speech>"]
        assert answer[-2:].tolist() == [tokens["<end_of_speech>"], tokens["<end_of_ai>"]]
        frames = answer[:-2].reshape(-1, 7)
        assert ((frames - tokens.audio_base) // CODES == np.arange(7)).all()
        silent = tokens.audio_base + CODES * np.arange(7)
        assert (frames[:HEAD_FRAMES] == silent).all()
        assert (frames[-1] == silent).all()


def test_every_voiced_token_knows_the_phones_it_voices(hi_you: Utterance, tokens: Tokens) -> None:
    phones = {tokens[symbol] for symbol in SYMBOL.values()}
    for seed in range(20):
        one = made(hi_you, tokens, seed)
        voiced = one.read_to > one.read_from
        assert not voiced[: one.answer_start + 7 * HEAD_FRAMES].any()
        assert (np.diff(one.read_from[voiced][::7]) >= 0).all()
        read = {k for first, after in zip(one.read_from, one.read_to, strict=True) for k in range(first, after)}
        voice_name = range(one.ids.tolist().index(tokens[":"]))
        assert {k for k in range(one.answer_start) if one.ids[k] in phones} - set(voice_name) <= read


def test_a_tag_is_voiced_by_its_own_frames(hi_you: Utterance, tokens: Tokens) -> None:
    tags = {tag: np.full((2, 7), number + 1) for number, tag in enumerate(TAGS)}
    for seed in range(200):
        one = made(hi_you, tokens, seed, tags)
        for place in np.flatnonzero(np.isin(one.ids, [tokens[tag] for tag in TAGS])):
            code = TAGS.index(next(tag for tag in TAGS if tokens[tag] == one.ids[place])) + 1
            spoken = one.ids[(one.read_from == place) & (one.read_to == place + 1)]
            assert (spoken[:14].reshape(2, 7) == tokens.audio_base + code + CODES * np.arange(7)).all()


def test_only_answers_have_targets(hi_you: Utterance, tokens: Tokens) -> None:
    pool = [made(hi_you, tokens, seed) for seed in range(40)]
    for batch in batches(pool, random.Random(0), tokens["<pad>"]):
        wanted = batch.targets >= 0
        assert torch.equal(batch.targets[wanted], batch.ids[wanted])
        assert not (wanted & (batch.ids == tokens["<pad>"])).any()
        assert not (wanted & (batch.ids == tokens["<start_of_speech>"])).any()


def test_corruption_keeps_text_and_bands(tokens: Tokens, space: LatentSpace) -> None:
    ids = torch.arange(len(tokens)).repeat(50, 1)
    noisy = corrupted(ids, tokens, neighbours(space), torch.Generator().manual_seed(1))
    changed = noisy != ids
    assert changed.any()
    assert not changed[:, : tokens.audio_base].any()
    assert torch.equal((noisy - tokens.audio_base) // CODES, (ids - tokens.audio_base) // CODES)


def test_muon_steps_by_orthogonal_matrices() -> None:
    draw = torch.Generator().manual_seed(0)
    for shape in ((2, 6, 9), (2, 9, 6)):
        strengths = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=draw)))
        assert (strengths > 0.6).all() and (strengths < 1.3).all()
    weight = torch.zeros(4, 8, requires_grad=True)
    wanted = 0.1 * torch.randn(4, 8, generator=draw)
    optimiser = Muon([weight], lr=0.03)
    missed = []
    for _ in range(60):
        loss = (weight - wanted).square().mean()
        missed.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert missed[-1] < 0.1 * missed[0]


def test_the_band_mask_ends_only_at_a_frame_boundary(tokens: Tokens) -> None:
    end = tokens["<end_of_speech>"]
    mask = BandMask(tokens.audio_base, CODES, end)
    for step in range(14):
        scores = mask(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, len(tokens)))
        allowed = set(torch.isfinite(scores[0]).nonzero().flatten().tolist())
        first = tokens.audio_base + step % 7 * CODES
        assert allowed == set(range(first, first + CODES)) | ({end} if step % 7 == 0 else set())


def test_head_silence_is_measured_to_the_first_loud_window() -> None:
    waveform = np.full(24_000, 0.0008, np.float32)
    waveform[14_400:] = 0.1
    assert head_silence_ms(waveform) == 600
