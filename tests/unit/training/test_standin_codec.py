"""How the stand-in's codec is trained: its corpus, its codebooks, and that a stopped run goes on as if it had not."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from snac import SNAC

from training.standin import corpus
from training.standin.adversary import Critics
from training.standin.codec import CONFIG, Reader, cropped, head_start, train_codes, train_decoder
from training.standin.corpus import SHARD_SENTENCES, Shard, said, shards
from training.standin.listening import PHONES
from training.standin.quantiser import Codebooks, quantised, quantizers_of, spherical_means
from training.standin.scenes import Scenes
from training.standin.teachers import HELD_OUT, SPEAKERS

TINY: dict[str, Any] = CONFIG | {"encoder_dim": 2, "decoder_dim": 8, "codebook_size": 8, "codebook_dim": 2}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work directory in which one speaker has said three things."""
    draw = np.random.default_rng(0)
    clips = [(draw.standard_normal(length) * 2000).astype(np.int16) for length in (20_000, 30_000, 90_000)]
    corpus.write(Shard(SPEAKERS[0], 0).path(tmp_path), ["one", "two", "three"], clips)
    (tmp_path / "phones.json").write_text(json.dumps({"one": [1, 2], "two": [3], "three": [4, 5]}))
    return tmp_path


@pytest.fixture
def codec() -> SNAC:
    torch.manual_seed(0)
    return SNAC(**TINY)


def test_no_held_out_speaker_is_in_the_base() -> None:
    base = {(speaker.teacher, speaker.voice) for speaker in SPEAKERS}
    assert len({speaker.name for speaker in (*SPEAKERS, *HELD_OUT)}) == len(SPEAKERS) + len(HELD_OUT)
    assert not base & {(speaker.teacher, speaker.voice) for speaker in HELD_OUT}


def test_the_base_has_thirty_speakers_or_more() -> None:
    assert len(SPEAKERS) >= 30


def test_a_speaker_says_every_sentence_before_any_twice() -> None:
    sentences = [f"Sentence {number}." for number in range(2 * SHARD_SENTENCES)]
    first, second = (Shard(SPEAKERS[0], number).sentences(sentences) for number in (0, 1))
    assert sorted(first + second) == sorted(sentences)


def test_every_shard_is_made_once() -> None:
    assert len(set(shards())) == len(shards())


def test_what_was_said_is_read_back(work: Path) -> None:
    clips = list(said(work))
    assert [(clip.speaker, clip.text, len(clip.samples)) for clip in clips] == [
        (SPEAKERS[0].name, "one", 20_000),
        (SPEAKERS[0].name, "two", 30_000),
        (SPEAKERS[0].name, "three", 90_000),
    ]


def test_a_batch_depends_on_nothing_but_its_seed(work: Path) -> None:
    one, other = (Scenes.of(work, torch.nn.Conv1d(1, 2, 64, stride=64), 36).batch("seed", 3) for _ in range(2))
    assert torch.equal(one.waves, other.waves)


def test_latents_and_waves_are_cropped_alike() -> None:
    latent = torch.arange(64.0).repeat(3, 1, 1)
    waves = latent.repeat_interleave(512, dim=2)[:, 0]
    steps, samples = cropped(latent, waves, 4, random.Random(0))
    assert torch.equal(steps.repeat_interleave(512, dim=2)[:, 0], samples)
    assert samples.shape == (3, 4 * 2048)


def test_phones_are_given_only_where_all_of_them_can_be_heard(work: Path) -> None:
    front = torch.nn.Conv1d(1, 2, 64, stride=64)
    heard = Scenes.of(work, front, 20).batch("seed", 24)  # 40,960 samples: "three" does not fit
    assert {tuple(phones) for phones in heard.phones} == {(), (1, 2), (3,)}


def test_a_scene_s_front_is_what_the_front_makes_of_its_wave(work: Path) -> None:
    front = torch.nn.Conv1d(1, 2, 64, stride=64)
    Scenes.of(work, front, 20)
    heard = Scenes.of(work, torch.nn.Identity(), 20).batch("seed", 4)  # as kept: another front is not asked
    torch.testing.assert_close(front(heard.waves[:, None]), heard.fronts, atol=2e-3, rtol=2e-3)


def test_the_phones_are_different_letters() -> None:
    assert len(set(PHONES)) == len(PHONES)


def test_means_lie_in_the_directions_that_occur() -> None:
    torch.manual_seed(0)
    ways = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    vectors = ways.repeat(50, 1) * (1 + torch.rand(150, 1))
    means = torch.nn.functional.normalize(spherical_means(vectors, 6, iterations=5))
    assert ((means @ ways.T).max(dim=1).values > 0.999).all()


def test_codebooks_that_start_from_what_occurs_round_less(codec: SNAC) -> None:
    latent = torch.randn(4, codec.latent_dim, 64)
    before = quantised(codec, latent).loss
    Codebooks(codec).start(codec, [latent])
    assert quantised(codec, latent).loss < before / 2


def test_a_code_that_nothing_chooses_moves_to_what_occurs(codec: SNAC) -> None:
    codebooks = Codebooks(codec)
    latent = torch.randn(2, codec.latent_dim, 64)
    codebooks.start(codec, [latent])
    weight = quantizers_of(codec)[2].codebook.weight
    with torch.no_grad():
        weight[0] = -1000 * weight.mean(dim=0)
        codebooks.counts[2][0], codebooks.sums[2][0] = 0, 0
    heard = quantised(codec, latent)
    codebooks.follow(heard)
    assert weight[0].norm() < 2 * heard.projections[2].norm(dim=1).max()


def test_the_quantiser_s_arithmetic_is_the_package_s(codec: SNAC) -> None:
    latent = torch.randn(2, codec.latent_dim, 16)
    theirs, codes = codec.quantizer(latent)
    ours = quantised(codec, latent)
    torch.testing.assert_close(ours.latent, theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours.codes, codes, strict=True))


def test_spectra_that_are_read_lie_under_those_that_are_heard(codec: SNAC) -> None:
    reader = Reader(codec.latent_dim)
    read = reader.read(torch.zeros(1, codec.latent_dim, 16))
    heard = [reader.mels(torch.zeros(1, 16 * 512), window, hop) for window, hop in ((1024, 256), (256, 128))]
    assert [mel.shape for mel in read] == [mel.shape for mel in heard]


def test_a_head_start_takes_what_fits_and_leaves_the_rest(codec: SNAC, tmp_path: Path) -> None:
    more_codes: dict[str, Any] = TINY | {"codebook_size": 16}
    wider = SNAC(**more_codes)
    torch.save(wider.state_dict(), tmp_path / "pytorch_model.bin")
    books = quantizers_of(codec)[0].codebook.weight.clone()
    head_start(codec, tmp_path)
    for mine, theirs in zip(codec.encoder.parameters(), wider.encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(quantizers_of(codec)[0].codebook.weight, books)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(work: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tmp_path_factory.mktemp("whole")
    (whole / "corpus").symlink_to(work / "corpus")
    (whole / "phones.json").write_text((work / "phones.json").read_text())
    for place, stops in ((whole, (12,)), (work, (4, 11, 12))):  # the codebooks start at step 10
        for steps in stops:
            train_codes(place, steps, config=TINY, frames=8)
    theirs, ours = (SNAC.from_pretrained(str(place / "codec")).state_dict() for place in (whole, work))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("judged", [False, True])
def test_training_the_decoder_leaves_the_codes_as_they_are(work: Path, judged: bool) -> None:
    train_codes(work, 1, config=TINY, frames=8)
    before = SNAC.from_pretrained(str(work / "codec")).state_dict()
    train_decoder(work, 2, compiled=False, judged=judged, frames=8)
    after = SNAC.from_pretrained(str(work / "codec")).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


def test_the_critics_reproach_reaches_what_was_spoken() -> None:
    torch.manual_seed(0)
    critics, recorded = Critics(), torch.randn(1, 8192)
    spoken = torch.randn(1, 8192, requires_grad=True)
    told, differing = critics.reproach(recorded, spoken)
    (told + differing).backward()
    assert spoken.grad is not None and spoken.grad.abs().sum() > 0
