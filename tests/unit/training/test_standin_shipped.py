"""Training that goes on from the shipped checkpoint: its codes' space is found again, its parts are what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from snac import SNAC

from training.standin import corpus, decoder, language, shipped, wordcodec
from training.standin.corpus import Shard
from training.standin.encoder import Front, folded, unfolded
from training.standin.latents import fitted
from training.standin.listening import Listening
from training.standin.spectra import STEP_WIDTH
from training.standin.teachers import SPEAKERS


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory in which one speaker has said a little, begun from the shipped checkpoint."""
    place = tmp_path_factory.mktemp("work")
    draw = np.random.default_rng(0)
    bursts = np.repeat(draw.uniform(0, 1, 60), 1200) * draw.standard_normal(72_000)
    clip = (0.1 * np.cumsum(bursts) / np.abs(np.cumsum(bursts)).max() * corpus.FULL_SCALE).astype(np.int16)
    corpus.write(Shard(SPEAKERS[0], 0).path(place), ["anything"], [clip])
    shipped.begin(place, batches=1)
    return place


def test_the_axes_are_found_again_from_what_an_encoder_gives_with_errors() -> None:
    draw = torch.Generator().manual_seed(0)
    spectra = torch.randn(8192, STEP_WIDTH, generator=draw) @ torch.diag(0.97 ** torch.arange(STEP_WIDTH))
    space = fitted(spectra, 12, 32, 16)
    latents = (spectra - space.mean) @ space.axes
    given = 0.97 * (latents + 0.17 * torch.randn(latents.shape, generator=draw))
    mean, axes, back, unexplained = shipped.axes_of(spectra.double(), given.double())
    found = (spectra - mean) @ axes
    assert unexplained < 0.05
    assert (found - latents).square().mean() < 0.01 * latents.square().mean()
    torch.testing.assert_close(found @ back + mean, spectra @ axes @ back + (mean - mean @ axes @ back))


def test_filters_that_were_folded_are_read_back() -> None:
    torch.manual_seed(0)
    codec, front = SNAC(**wordcodec.CONFIG), Front(channels=4 * wordcodec.CONFIG["encoder_dim"])
    folded(front, codec)
    torch.testing.assert_close(unfolded(codec), front.filters.detach(), atol=1e-5, rtol=1e-5)


def test_what_is_put_together_before_any_step_is_the_shipped_codec(work: Path) -> None:
    known, again = SNAC.from_pretrained(str(decoder.KNOWN)).eval(), wordcodec.export(work)
    waves = Listening.to(work, 8).batch("heard", 1).noisy[:, None]
    with torch.no_grad():
        codes = known.encode(waves)
        agreeing = [(a == b).float().mean() for a, b in zip(codes, again.encode(waves), strict=True)]
        assert min(agreeing) > 0.95
        torch.testing.assert_close(again.decode(codes), known.decode(codes), atol=1e-4, rtol=1e-3)


def test_the_language_model_goes_on_after_the_steps_it_was_shipped_with(work: Path) -> None:
    state = torch.load(work / "language.pt", weights_only=True)
    assert state["step"] == language.STEPS
    assert state["model"]["model.embed_tokens.weight"].shape[0] > 7 * 2048


def test_a_work_directory_that_has_codes_is_left_as_it_is(work: Path) -> None:
    (work / "language.pt").rename(work / "kept.pt")
    shipped.begin(work)
    assert not (work / "language.pt").exists()
    (work / "kept.pt").rename(work / "language.pt")
