"""The stand-in's texts, tokens and frames: what its trainers and the engine must agree on."""

from __future__ import annotations

import random
from itertools import islice

import numpy as np
import pytest
import torch

from training.standin.dictionary import CodeDictionary, examples, interleaved, levels
from training.standin.language import batches, corrupted
from training.standin.quality import BandMask, head_silence_ms, warped_distance
from training.standin.recordings import announced_pieces
from training.standin.sentences import (
    HEAD_FRAMES,
    TAGS,
    Piece,
    SentenceSampler,
    evaluation_texts,
    marks_of,
    pieces_of,
    training_texts,
    vocabulary,
)
from training.standin.speech import BUILT_IN_VOICES
from training.standin.tokens import Tokens


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(codebook_size=16)


@pytest.fixture(scope="module")
def sampler() -> SentenceSampler:
    return SentenceSampler(tuple(vocabulary()))


@pytest.fixture(scope="module")
def dictionary() -> CodeDictionary:
    """Every piece two frames long, its codes drawn at random."""
    draw = np.random.default_rng(0)
    frames = {voice: {piece: draw.integers(0, 16, (2, 7)) for piece in announced_pieces()} for voice in BUILT_IN_VOICES}
    return CodeDictionary(frames, np.zeros((1, 7), np.int64))


def test_a_text_begins_with_the_head_and_ends_with_a_pause() -> None:
    assert pieces_of("Hello, 42 <laugh> friend!") == [
        Piece("", HEAD_FRAMES),
        Piece("hello"),
        Piece("", 2),
        Piece("four"),
        Piece("two"),
        Piece("<laugh>"),
        Piece("friend"),
        Piece("", 4),
    ]


def test_a_text_without_punctuation_is_spoken_as_with_a_full_stop() -> None:
    assert pieces_of("good morning") == pieces_of("Good morning.")


def test_consecutive_punctuation_makes_one_pause_as_long_as_its_longest() -> None:
    assert pieces_of("well,... yes")[2:4] == [Piece("", 4), Piece("yes")]


def test_the_vocabulary_is_large_enough_and_only_letters() -> None:
    words = vocabulary()
    assert len(words) >= 1000
    assert all(set(word) <= set("abcdefghijklmnopqrstuvwxyz'") for word in words)


def test_the_same_seed_draws_the_same_texts(sampler: SentenceSampler) -> None:
    first, second = (list(islice(training_texts(sampler, 5, (4, 20)), 50)) for _ in range(2))
    assert first == second
    assert list(islice(training_texts(sampler, 6, (4, 20)), 50)) != first


def test_evaluation_texts_are_fifty_and_never_trained_on(sampler: SentenceSampler) -> None:
    reserved = evaluation_texts(sampler)
    assert len(set(reserved)) == 50
    assert all(6 <= len(text.split()) <= 9 for text in reserved)
    repeating = _Repeating(sampler.words, reserved)
    assert next(training_texts(repeating, 1, (9,))) == "Something else."


class _Repeating(SentenceSampler):
    """A sampler that tries to leak: the first texts it draws are reserved ones, alone and inside longer texts."""

    def __init__(self, words: tuple[str, ...], reserved: list[str]) -> None:
        super().__init__(words)
        drawn = [
            reserved[0],
            reserved[1].upper(),
            f"Well. {reserved[2]} Yes!",
            reserved[3].rstrip("."),
            "Something else.",
        ]
        object.__setattr__(self, "drawn", iter(drawn))

    def text(self, draw: random.Random, max_words: int) -> str:
        return next(self.drawn)  # type: ignore[attr-defined]


def test_the_tokenizer_and_the_trainers_prompts_give_the_same_ids(tokens: Tokens, sampler: SentenceSampler) -> None:
    tokenizer = tokens.tokenizer()
    for text in [*islice(training_texts(sampler, 3, (4, 30)), 100), "zebras' xylophone <yawn> 2024; a-b"]:
        assert tokenizer(f"wren: {text}")["input_ids"] == tokens.prompt("wren", text)[2:-4]


def test_the_tokenizer_takes_accents_quotes_and_other_scripts(tokens: Tokens) -> None:
    tokenizer = tokens.tokenizer()
    assert tokenizer("Café DON’T 你好 🙂")["input_ids"] == tokenizer("cafe don't")["input_ids"]
    assert tokens["<unknown>"] not in tokenizer("Zażółć gęślą jaźń — naïve")["input_ids"]


def test_words_survive_the_tokenizer_there_and_back(tokens: Tokens) -> None:
    tokenizer = tokens.tokenizer()
    for word in [*vocabulary(), *TAGS]:
        assert tokenizer.convert_ids_to_tokens(tokenizer(word)["input_ids"]) == [word]


def test_an_unknown_word_is_its_longest_beginning_and_then_characters(tokens: Tokens) -> None:
    names = {number: name for name, number in tokens.ids.items()}
    assert [names[number] for number in tokens.spelled("gardener")] == ["garden", "##e", "##r"]
    assert [names[number] for number in tokens.spelled("servers", whole=False)] == ["server", "##s"]


def test_frames_are_in_orpheus_order_and_come_back_as_levels() -> None:
    codes = [torch.arange(n)[None] + 100 * level for level, n in enumerate((2, 4, 8))]
    frames = interleaved(codes)
    assert frames.tolist() == [[0, 100, 200, 201, 101, 202, 203], [1, 102, 204, 205, 103, 206, 207]]
    assert all(torch.equal(there, back) for there, back in zip(codes, levels(frames), strict=True))


def test_an_example_is_prompt_codes_and_endings(
    dictionary: CodeDictionary, tokens: Tokens, sampler: SentenceSampler
) -> None:
    for example in islice(examples(dictionary, tokens, sampler, 9, max_words=(3, 12)), 30):
        answer = example.ids[example.answer_start :]
        assert example.ids[0] == tokens["<start_of_human>"]
        assert example.ids[example.answer_start - 1] == tokens["<start_of_speech>"]
        assert answer[-2:].tolist() == [tokens["<end_of_speech>"], tokens["<end_of_ai>"]]
        frames = answer[:-2].reshape(-1, 7)
        assert ((frames - tokens.audio_base) // 16 == np.arange(7)).all()
        room_tone = tokens.audio_base + 16 * np.arange(7)
        assert (frames[:HEAD_FRAMES] == room_tone).all()


def test_every_voiced_token_knows_the_text_it_voices(
    dictionary: CodeDictionary, tokens: Tokens, sampler: SentenceSampler
) -> None:
    for example in islice(examples(dictionary, tokens, sampler, 4, max_words=(6, 20)), 30):
        voiced = example.read_to > example.read_from
        assert not voiced[: example.answer_start + 7 * HEAD_FRAMES].any()
        assert (np.diff(example.read_from[voiced]) >= 0).all()
        read = {k for first, after in zip(example.read_from, example.read_to, strict=True) for k in range(first, after)}
        unread = set(range(min(read), example.answer_start - 4)) - read
        assert {int(example.ids[k]) for k in unread} <= {tokens[mark] for mark in ".,?!;:"}


def test_a_skimmed_example_keeps_two_frames_a_word_and_counts_the_first(
    dictionary: CodeDictionary, tokens: Tokens, sampler: SentenceSampler
) -> None:
    for example in islice(examples(dictionary, tokens, sampler, 4, max_words=(6,), skimmed_share=1.0), 30):
        frames_counted = example.counted[example.answer_start : -2].reshape(-1, 7)
        assert (frames_counted == frames_counted[:, :1]).all()
        assert not frames_counted[0].any()
        first = np.flatnonzero(frames_counted[:, 0])
        assert len(first) > 0
        assert not frames_counted[first + 1].any()


def test_each_word_and_mark_belongs_to_the_piece_that_voices_it() -> None:
    text = "Well,... <laugh> I see 42! Yes"
    pieces = pieces_of(text)
    voiced = [pieces[number] for number in marks_of(text)]
    pause = Piece("", 4)
    words = [Piece(word) for word in ("<laugh>", "i", "see", "four", "two")]
    assert voiced == [Piece("well"), *[pause] * 4, *words, pause, Piece("yes")]


def test_only_answers_have_targets(dictionary: CodeDictionary, tokens: Tokens, sampler: SentenceSampler) -> None:
    pool = examples(dictionary, tokens, sampler, 2, max_words=(4,), skimmed_share=0.5)
    for batch in batches(pool, random.Random(0), tokens["<pad>"]):
        ids, wanted = batch.ids, batch.targets >= 0
        assert torch.equal(batch.targets[wanted], ids[wanted])
        assert not (wanted & (ids == tokens["<pad>"])).any()
        assert not (wanted & (ids == tokens["<start_of_speech>"])).any()


def test_corruption_keeps_text_and_bands(tokens: Tokens) -> None:
    ids = torch.arange(len(tokens)).repeat(50, 1)
    noisy = corrupted(ids, tokens, torch.Generator().manual_seed(1))
    changed = noisy != ids
    assert changed.any()
    assert not changed[:, : tokens.audio_base].any()
    assert torch.equal((noisy - tokens.audio_base) // 16, (ids - tokens.audio_base) // 16)


def test_the_band_mask_ends_only_at_a_frame_boundary(tokens: Tokens) -> None:
    end = tokens["<end_of_speech>"]
    mask = BandMask(tokens.audio_base, 16, end)
    for step in range(14):
        scores = mask(torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, len(tokens)))
        allowed = set(torch.isfinite(scores[0]).nonzero().flatten().tolist())
        first = tokens.audio_base + step % 7 * 16
        assert allowed == set(range(first, first + 16)) | ({end} if step % 7 == 0 else set())


def test_warping_forgives_tempo_but_not_order() -> None:
    said = np.random.default_rng(1).standard_normal((20, 8))
    assert warped_distance(said, said) == 0
    assert warped_distance(said.repeat(2, axis=0), said) == 0
    assert warped_distance(said[::-1], said) > 0.1


def test_head_silence_is_measured_to_the_first_loud_window() -> None:
    waveform = np.full(24_000, 0.0008, np.float32)
    waveform[14_400:] = 0.1
    assert head_silence_ms(waveform) == 600
