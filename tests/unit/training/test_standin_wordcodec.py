"""The codec to come: what its latents are, that encoder and quantiser meet them, that a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from snac import SNAC

from training.standin import corpus, decoder, wordcodec
from training.standin.adversary import Critics
from training.standin.corpus import SHARD_SENTENCES, Shard, read, shards
from training.standin.encoder import Front, folded, windowed_waves
from training.standin.latents import LatentSpace, fitted, means_of
from training.standin.listening import Listening
from training.standin.spectra import STEP_SAMPLES, STEP_WIDTH, sound_of, steps_of
from training.standin.teachers import HELD_OUT, SPEAKERS
from training.standin.texts import sentences

TINY: dict[str, Any] = wordcodec.CONFIG | {
    "encoder_dim": 4, "decoder_dim": 16, "codebook_size": 16, "codebook_dim": 6,
}  # fmt: skip
SHORT: dict[str, Any] = {"frames": 6, "compiled": False}


def _voices(seconds: float, seed: int) -> np.ndarray:
    """Harmonics that glide and pulse: (samples,) float32."""
    draw = np.random.default_rng(seed)
    when = np.arange(int(seconds * 24_000)) / 24_000
    phase = 2 * np.pi * np.cumsum(140 + 60 * np.sin(2 * np.pi * when * draw.uniform(0.5, 2))) / 24_000
    tones = sum(draw.uniform(0.2, 1) / n * np.sin(n * phase) for n in range(1, 20))
    return (0.1 * tones * (1 + np.sin(2 * np.pi * 4 * when))).astype(np.float32)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory in which one speaker has said three things."""
    place = tmp_path_factory.mktemp("work")
    clips = [(_voices(seconds, seed) * corpus.FULL_SCALE).astype(np.int16) for seed, seconds in enumerate((1, 2, 4))]
    corpus.write(Shard(SPEAKERS[0], 0).path(place), ["one", "two", "three"], clips)
    wordcodec.find_latents(place, TINY, batches=2)
    (place / "known").mkdir()
    (place / "known/config.json").write_text(json.dumps(TINY))
    torch.manual_seed(1)
    torch.save(SNAC(**TINY).state_dict(), place / "known/pytorch_model.bin")
    return place


@pytest.fixture(scope="module")
def space(work: Path) -> LatentSpace:
    return wordcodec.find_latents(work, TINY)


def _copy(work: Path, place: Path) -> Path:
    (place / "corpus").symlink_to(work / "corpus")
    (place / "latents.pt").write_bytes((work / "latents.pt").read_bytes())
    return place


def _tensors(codec: SNAC) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in codec.state_dict().items()}


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


def test_what_is_said_is_whole_examples_of_words_in_use(tmp_path: Path) -> None:
    glosses = [
        '1 00 a 0 | quick; "the quick brown fox jumps"; "too short"',
        '2 00 n 0 | fox; "the quick brown fox jumps"; "A DNA test was made"; "who saw the fox?"',
    ]
    (tmp_path / "data.noun").write_text("\n".join(glosses))
    assert sentences(tmp_path) == ["The quick brown fox jumps.", "Who saw the fox?"]


def test_without_wordnet_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="apt-get install wordnet-base"):
        sentences(tmp_path)


def test_every_shard_is_made_once() -> None:
    assert len(set(shards())) == len(shards())


def test_what_was_said_is_read_back(work: Path) -> None:
    clips = read(Shard(SPEAKERS[0], 0).path(work))
    said = [(clip.speaker, clip.text, len(clip.samples)) for clip in clips]
    assert said == [("slt", "one", 24_000), ("slt", "two", 48_000), ("slt", "three", 96_000)]


def test_a_batch_depends_on_nothing_but_its_seed(work: Path) -> None:
    one, other = (Listening.to(work, 8).batch("seed", 3) for _ in range(2))
    assert torch.equal(one.noisy, other.noisy)
    assert one.speech.shape == (3, 8 * 2048)


def test_listening_before_anything_was_said_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run the stage `corpus` first"):
        Listening.to(tmp_path, 8)


def test_a_step_is_512_samples_of_spectra() -> None:
    assert steps_of(torch.zeros(2, 8 * STEP_SAMPLES)).shape == (2, 8, STEP_WIDTH)


def test_spectra_made_into_sound_have_nearly_these_spectra() -> None:
    wanted = steps_of(torch.from_numpy(_voices(1.0, 9)[: 40 * STEP_SAMPLES])[None])[0]
    sound = torch.nn.functional.pad(sound_of(wanted), (128, 128))[
        None
    ]  # its frames begin with the first window's middle
    missed = (steps_of(sound[:, : 40 * STEP_SAMPLES])[0] - wanted)[4:-4]
    assert missed.abs().mean() < 0.25 * (wanted - wanted.mean(dim=0)).abs().mean()


def test_room_tone_is_nearly_one_and_the_same_latent(space: LatentSpace) -> None:
    tone = 0.0008 * torch.randn(1, 64 * STEP_SAMPLES, generator=torch.Generator().manual_seed(0))
    speech = torch.from_numpy(_voices(2.0, 9)[: 64 * STEP_SAMPLES])[None]
    assert space.of(tone).var(dim=1).sum() < 0.05 * space.of(speech).var(dim=1).sum()


def test_more_codes_leave_less() -> None:
    steps = torch.randn(4096, STEP_WIDTH, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)
    left = []
    for codes in (4, 64):
        space = fitted(steps, 6, codes, 32)
        latents = ((steps - space.mean) @ space.axes)[None]
        left.append((space.rounded(latents) - latents).square().mean())
    assert left[1] < 0.8 * left[0]


def test_means_lie_where_vectors_are() -> None:
    draw = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 9.0]])
    means = means_of(places.repeat(50, 1) + 0.01 * torch.randn(150, 2, generator=draw), 8, draw)
    assert (torch.cdist(means, places).amin(dim=1) < 0.1).all()


def test_the_installed_quantiser_chooses_the_nearest_codes(space: LatentSpace) -> None:
    codec = SNAC(**TINY)
    space.install(codec)
    latents = space.of(torch.from_numpy(_voices(2.0, 9)[: 64 * STEP_SAMPLES])[None])
    as_codes = codec.quantizer((latents @ space.spread.T).transpose(1, 2))[0]
    torch.testing.assert_close(
        as_codes, (space.rounded(latents) @ space.spread.T).transpose(1, 2), atol=1e-3, rtol=1e-3
    )


def test_the_filters_are_bands_from_low_to_high() -> None:
    loudest = torch.fft.rfft(windowed_waves(32)).abs().argmax(dim=1)
    assert loudest[:32].tolist() == sorted(loudest[:32].tolist())
    assert torch.equal(loudest[2:32], loudest[34:])  # a sine for each cosine


def test_the_folded_front_gives_what_the_filters_give() -> None:
    torch.manual_seed(0)
    codec, waves = SNAC(**TINY), torch.randn(1, 64 * 64)
    front = Front(channels=16)
    folded(front, codec)
    torch.testing.assert_close(codec.encoder.block[:3](waves[:, None]), front(waves), atol=1e-3, rtol=1e-3)


def test_an_encoder_that_was_trained_and_folded_gives_the_latents_it_was_taught(work: Path, tmp_path: Path) -> None:
    place = _copy(work, tmp_path)
    wordcodec.train_encoder(place, TINY, **SHORT, steps=40)
    codec, space = SNAC.from_pretrained(str(place / "words")), wordcodec.find_latents(place, TINY)
    heard = Listening.to(place, 8).batch("other", 4).noisy
    with torch.no_grad():
        given = (torch.linalg.pinv(space.spread) @ codec.encoder(heard[:, None])).transpose(1, 2)
    wanted = space.of(heard)
    assert (given - wanted).square().mean() < 0.6 * wanted.square().mean()


@pytest.mark.parametrize("judged", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(judged: bool, work: Path, tmp_path_factory: Any) -> None:
    ends = []
    for stops in ((2,), (1, 2)):
        place = _copy(work, tmp_path_factory.mktemp("place"))
        for steps in stops:
            wordcodec.train_encoder(place, TINY, **SHORT, steps=steps)
            wordcodec.train_decoder(place, TINY, **SHORT, steps=steps, judged=judged, known=work / "known")
        ends.append(_tensors(SNAC.from_pretrained(str(place / "words"))))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_decoder_starts_like_one_that_is_known(work: Path, space: LatentSpace) -> None:
    known, codec = SNAC.from_pretrained(str(work / "known")), SNAC(**TINY)
    assert decoder.head_start(codec, space, Listening.to(work, 6), known) < 0.99
    mine, theirs = codec.decoder.model[2:].state_dict(), known.decoder.model[2:].state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_critics_go_on_from_what_was_trained_without_them(work: Path, tmp_path: Path) -> None:
    place, options = _copy(work, tmp_path), SHORT | {"known": work / "known"}
    wordcodec.train_decoder(place, TINY, steps=1, **options)
    before = _tensors(SNAC.from_pretrained(str(place / "words")))
    wordcodec.train_decoder(place, TINY, steps=0, judged=True, **options)
    after = _tensors(SNAC.from_pretrained(str(place / "words")))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_the_decoder_leaves_the_codes_as_they_are(work: Path, tmp_path: Path) -> None:
    place = _copy(work, tmp_path)
    before = _tensors(wordcodec.export(place, TINY))
    wordcodec.train_decoder(place, TINY, **SHORT, steps=1, known=work / "known")
    after = _tensors(SNAC.from_pretrained(str(place / "words")))
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"decoder"}


def test_the_critics_reproach_reaches_what_was_spoken() -> None:
    torch.manual_seed(0)
    critics, recorded = Critics(), torch.randn(1, 8192)
    spoken = torch.randn(1, 8192, requires_grad=True)
    told, differing = critics.reproach(recorded, spoken)
    (told + differing).backward()
    assert spoken.grad is not None and spoken.grad.abs().sum() > 0
