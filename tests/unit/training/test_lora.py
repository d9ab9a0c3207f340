"""The trainer in this process, on a Llama of a few thousand weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from app.errors import AdapterUnavailable, CarillonError, ConfigurationError, InvalidRequest, TrainingFailed
from app.speech.recipe import TrainConfig
from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout, read_layout
from app.voices.models import TrainProgress
from tests.support.tiny_voice import (
    AUDIO_BASE,
    CODEBOOK_SIZE,
    VOCABULARY,
    clip_ids,
    save_clips,
    save_run,
    save_tiny_voice,
)
from training import adapter
from training.clips import Clip, epoch_batches, held_out_split, micro_batches, read_clips
from training.learning import Batch, corrupted, summed_loss, target_count
from training.loop import Training, rate_at
from training.stage_runner import Stopped, read_run

CPU = torch.device("cpu")
BRISK: dict[str, Any] = {"learning_rate": 0.02, "batch_clips": 2, "epochs": 3, "checkpoint_steps": 4}


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_tiny_voice(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def layout(voice: tuple[Path, Path]) -> TokenLayout:
    return read_layout(*voice)


@pytest.fixture(scope="module")
def model(voice: tuple[Path, Path]) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(voice[0], dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def clips(layout: TokenLayout, tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    path = tmp_path_factory.mktemp("clips") / "dataset.npz"
    save_clips(path, [clip_ids(layout, [9 + number, 10], 1 + number % 5) for number in range(11)])
    return read_clips(path, layout, vocabulary_size=VOCABULARY)


class Told:
    """What a training reports, and a stop that comes when `check` is called for the nth time."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[dict[str, Any]] = []
        self._stop_after = stop_after
        self._checks = 0

    def emit(self, event: str, **fields: Any) -> None:
        self.events.append({"event": event, **fields})

    def check(self) -> None:
        self._checks += 1
        if self._stop_after is not None and self._checks > self._stop_after:
            raise Stopped

    def progress(self) -> list[TrainProgress]:
        return [progress_of(event) for event in self.events if event["event"] == "progress"]

    def steps(self) -> list[int]:
        return [progress.step for progress in self.progress() if progress.loss is not None]


def progress_of(event: dict[str, Any]) -> TrainProgress:
    return TrainProgress.model_validate({name: value for name, value in event.items() if name != "event"})


def trained(directory: Path, told: Told) -> dict[str, Any]:
    ticks = count()
    return Training(read_run(directory), directory, told.emit, told.check, clock=lambda: next(ticks)).run()


# Clips.


def test_all_clips_of_a_text_are_on_one_side_of_the_split(clips: list[Clip]) -> None:
    for seed in range(20):
        train, held_out = held_out_split([*clips, *clips], 0.2, seed)
        assert not {clip.text for clip in train} & {clip.text for clip in held_out}
        assert len(train) + len(held_out) == 22
        assert len(held_out) in (5, 6)  # a fifth, rounded up to whole texts of two clips each


def test_two_clips_are_enough_to_hold_one_out(clips: list[Clip]) -> None:
    train, held_out = held_out_split(clips[:2], 0.01, seed=0)
    assert (len(train), len(held_out)) == (1, 1)


def test_one_text_cannot_be_held_out(clips: list[Clip]) -> None:
    with pytest.raises(InvalidRequest, match="1 different texts"):
        held_out_split([clips[0], clips[0]], 0.1, seed=0)


def test_an_epochs_batches_have_every_clip_once_and_depend_on_the_seed_and_the_epoch(clips: list[Clip]) -> None:
    def order(seed: int, epoch: int) -> list[str]:
        return [clip.name for batch in epoch_batches(clips, 3, seed=seed, epoch=epoch) for clip in batch]

    assert sorted(order(0, 1)) == sorted(clip.name for clip in clips)
    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_clips_of_a_batch_are_alike_in_length(clips: list[Clip]) -> None:
    spreads = [
        max(len(clip.ids) for clip in batch) - min(len(clip.ids) for clip in batch)
        for batch in epoch_batches(clips, 3, seed=0, epoch=1)
    ]
    assert max(spreads) <= 2 * TOKENS_PER_FRAME


def test_micro_batches_hold_at_most_so_many_padded_tokens_unless_one_clip_is_longer(clips: list[Clip]) -> None:
    groups = micro_batches(clips, 60)
    assert sorted(clip.name for group in groups for clip in group) == sorted(clip.name for clip in clips)
    assert all(len(group) * max(len(clip.ids) for clip in group) <= 60 for group in groups)
    assert all(len(group) == 1 for group in micro_batches(clips, 1))


def broken_clip(layout: TokenLayout, fault: str) -> tuple[list[int], int]:
    ids, start = clip_ids(layout, [9, 10], 2)
    match fault:
        case "a token is outside the vocabulary":
            ids[start] = VOCABULARY
        case "a code is outside the band":
            ids[start] += CODEBOOK_SIZE
        case "not whole frames":
            del ids[start + 3]
        case "an end of speech":
            ids = ids[:-2]
    return ids, start


@pytest.mark.parametrize(
    "fault",
    ["a token is outside the vocabulary", "a code is outside the band", "not whole frames", "an end of speech"],
)
def test_a_clip_that_the_model_could_not_have_written_is_refused_by_name(
    layout: TokenLayout, tmp_path: Path, fault: str
) -> None:
    save_clips(tmp_path / "dataset.npz", [clip_ids(layout, [9, 10], 2), broken_clip(layout, fault)])
    with pytest.raises(InvalidRequest, match=f"clip-1: .*{fault}"):
        read_clips(tmp_path / "dataset.npz", layout, vocabulary_size=VOCABULARY)


def test_an_empty_dataset_and_one_that_is_none_are_refused(layout: TokenLayout, tmp_path: Path) -> None:
    save_clips(tmp_path / "dataset.npz", [])
    with pytest.raises(InvalidRequest, match="no clips"):
        read_clips(tmp_path / "dataset.npz", layout, vocabulary_size=VOCABULARY)
    (tmp_path / "dataset.npz").write_bytes(b"PK none")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_clips(tmp_path / "dataset.npz", layout, vocabulary_size=VOCABULARY)


# Losses.


@torch.no_grad()
def served_entropy(model: Any, clip: Clip, layout: TokenLayout) -> float:
    """Token by token over the whole vocabulary, with all that the band mask forbids at minus infinity."""
    logits = model(torch.from_numpy(clip.ids).long()[None]).logits[0]
    total = 0.0
    for position in range(clip.answer_stop - clip.answer_start):
        allowed = list(range(*layout.band(position)))
        if position % TOKENS_PER_FRAME == 0:
            allowed.append(layout.end_id)
        masked = torch.full((VOCABULARY,), -torch.inf)
        masked[allowed] = logits[clip.answer_start + position - 1][allowed]
        total -= masked.log_softmax(-1)[clip.ids[clip.answer_start + position]].item()
    return total


@torch.no_grad()
def test_the_codes_loss_is_the_entropy_of_what_is_served(
    model: LlamaForCausalLM, clips: list[Clip], layout: TokenLayout
) -> None:
    loss = summed_loss(model, Batch.of(clips[:4], 0, CPU), layout, "codes").item()
    assert loss == pytest.approx(sum(served_entropy(model, clip, layout) for clip in clips[:4]), rel=1e-5)


@torch.no_grad()
def test_the_loss_over_all_is_the_models_own(model: LlamaForCausalLM, clips: list[Clip], layout: TokenLayout) -> None:
    loss = summed_loss(model, Batch.of(clips[:4], 0, CPU), layout, "all").item()
    own = 0.0
    for clip in clips[:4]:
        ids = torch.from_numpy(clip.ids).long()[None]
        own += float(model(ids, labels=ids).loss) * target_count(clip, "all")
    assert loss == pytest.approx(own, rel=1e-5)


def test_corrupted_codes_stay_in_their_bands_and_text_stays_as_it_is(clips: list[Clip], layout: TokenLayout) -> None:
    torch.manual_seed(0)
    ids = Batch.of(clips, 0, CPU).ids
    inputs = corrupted(ids, layout, 0.9)
    changed = inputs != ids
    assert 0.2 < changed[ids >= AUDIO_BASE].float().mean().item() < 0.7
    assert not changed[ids < AUDIO_BASE].any()
    assert ((inputs - AUDIO_BASE) // CODEBOOK_SIZE == (ids - AUDIO_BASE) // CODEBOOK_SIZE).all()
    assert torch.equal(corrupted(ids, layout, 1e-9), ids)


@pytest.mark.parametrize("kind", ["codes", "all"])
def test_the_gradient_does_not_depend_on_how_many_clips_go_through_at_once(
    voice: tuple[Path, Path], clips: list[Clip], layout: TokenLayout, kind: Any
) -> None:
    model = LlamaForCausalLM.from_pretrained(voice[0], dtype=torch.float32)

    def gradient_of(max_tokens: int) -> torch.Tensor:
        model.zero_grad()
        for group in micro_batches(clips, max_tokens):
            summed_loss(model, Batch.of(group, 0, CPU), layout, kind).backward()
        gradient = model.get_parameter("model.layers.0.mlp.up_proj.weight").grad
        assert gradient is not None
        return gradient.clone()

    torch.testing.assert_close(gradient_of(1), gradient_of(10_000), rtol=1e-4, atol=1e-5)


# Training.


def test_training_makes_the_clips_likelier_and_keeps_the_best_epoch(voice: tuple[Path, Path], tmp_path: Path) -> None:
    told = Told()
    outcome = trained(save_run(tmp_path, *voice, **BRISK), told)
    base, *losses = outcome["held_out_losses"]
    assert outcome["best_loss"] == min(losses) < 0.8 * base
    assert losses[outcome["best_epoch"] - 1] == min(losses)
    assert told.progress()[-1].held_out_losses == outcome["held_out_losses"]
    saved = json.loads((tmp_path / "adapter" / "run.json").read_text())
    assert saved["train"] == TrainConfig(**BRISK).model_dump(mode="json")
    assert saved["held_out_losses"][-1] == outcome["best_loss"]


def test_the_saved_adapter_is_the_best_epochs_and_has_lora_weights_and_no_path(
    voice: tuple[Path, Path], layout: TokenLayout, tmp_path: Path
) -> None:
    directory = save_run(tmp_path, *voice, **BRISK)
    outcome = trained(directory, Told())
    weights = load_file(directory / "adapter" / "adapter_model.safetensors")
    assert len(weights) == 2 * 7 * 2  # layers, projections, A and B
    assert all(".lora_A." in name or ".lora_B." in name for name in weights)
    assert str(voice[0].parent) not in "".join(file.read_text() for file in (directory / "adapter").glob("*.json"))
    speaking: Any = PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(voice[0], dtype=torch.float32), directory / "adapter"
    )
    clips = read_clips(directory / "dataset.npz", layout, vocabulary_size=VOCABULARY)
    _, held_out = held_out_split(clips, TrainConfig().held_out_share, seed=0)
    with torch.no_grad():
        loss = summed_loss(speaking.get_base_model(), Batch.of(held_out, 0, CPU), layout, "codes").item()
    mean = loss / sum(target_count(clip, "codes") for clip in held_out)
    assert mean == pytest.approx(outcome["best_loss"], rel=0.02)  # it was measured in bf16


@pytest.mark.slow
def test_stopped_anywhere_and_run_again_it_ends_with_the_very_same_adapter(
    voice: tuple[Path, Path], tmp_path: Path
) -> None:
    """With dropout and corruption, whose random numbers must go on where they were; two micro-batches make a step."""
    train = BRISK | {
        "dropout": 0.2,
        "corruption": 0.2,
        "epochs": 2,
        "batch_clips": 4,
        "frames": 25,
        "micro_batch_tokens": 512,
    }
    whole = trained(save_run(tmp_path / "whole", *voice, **train), Told())
    expected = (tmp_path / "whole" / "adapter" / "adapter_model.safetensors").read_bytes()
    interrupted = 0
    for micro_batch in count():
        directory = save_run(tmp_path / str(micro_batch), *voice, **train)
        told = Told(stop_after=micro_batch)
        try:
            trained(directory, told)
        except Stopped:
            interrupted += 1
        else:
            break
        again = Told()
        assert trained(directory, again) == whole
        assert (directory / "adapter" / "adapter_model.safetensors").read_bytes() == expected
        assert told.steps() + again.steps() == list(range(1, whole["steps"] + 1))
    assert interrupted > 2 * whole["steps"]


def test_a_finished_training_run_again_trains_nothing(voice: tuple[Path, Path], tmp_path: Path) -> None:
    directory = save_run(tmp_path, *voice, **BRISK)
    outcome, again = trained(directory, Told()), Told()
    assert trained(directory, again) == outcome
    assert again.steps() == []


def test_a_checkpoint_of_other_clips_or_hyper_parameters_is_refused(voice: tuple[Path, Path], tmp_path: Path) -> None:
    trained(save_run(tmp_path, *voice, **BRISK), Told())
    for other in ({"clips": 13}, {"alpha": 16}):
        with pytest.raises(InvalidRequest, match="remove checkpoints/"):
            trained(save_run(tmp_path, *voice, **(BRISK | other)), Told())


def save_said_otherwise(directory: Path, layout: TokenLayout, *, usual: int) -> None:
    """Clips that all say the same, but for the text held out: `usual` clips of it say that too, and one does not."""
    texts = [[9, 10 + number] for number in range(8)]
    path = directory / "dataset.npz"
    save_clips(path, [clip_ids(layout, text, 2) for text in texts])
    _, (held_out, *_) = held_out_split(read_clips(path, layout, vocabulary_size=VOCABULARY), share=0.1, seed=0)
    number = int(held_out.name.removeprefix("clip-"))
    clips = [clip_ids(layout, text, 2) for text in texts]
    ids, start = clips[number]
    otherwise = [*ids[:start], *(code + 1 for code in ids[start:-2]), *ids[-2:]]
    save_clips(path, [*clips[:number], *[(ids, start)] * usual, (otherwise, start), *clips[number + 1 :]])


def test_a_loss_that_no_longer_falls_ends_the_training_early(
    voice: tuple[Path, Path], layout: TokenLayout, tmp_path: Path
) -> None:
    """The surer the voice becomes, the more the odd clip costs."""
    directory = save_run(tmp_path, *voice, **(BRISK | {"learning_rate": 0.04, "epochs": 5}))
    save_said_otherwise(directory, layout, usual=3)
    outcome = trained(directory, Told())
    assert outcome["epochs"] == outcome["best_epoch"] + 1 < 5


def test_training_that_only_harms_is_a_failure_that_says_so(
    voice: tuple[Path, Path], layout: TokenLayout, tmp_path: Path
) -> None:
    directory = save_run(tmp_path, *voice, **(BRISK | {"learning_rate": 0.04, "epochs": 1}))
    save_said_otherwise(directory, layout, usual=0)
    with pytest.raises(TrainingFailed, match="no likelier: held-out loss"):
        trained(directory, Told())


def test_a_clip_that_is_too_long_is_reported_and_left_out(
    voice: tuple[Path, Path], layout: TokenLayout, tmp_path: Path
) -> None:
    directory = save_run(tmp_path, *voice, **(BRISK | {"epochs": 1, "max_tokens": 256}))
    clips = [clip_ids(layout, [9, 12 + number], 2) for number in range(4)]
    save_clips(directory / "dataset.npz", [*clips, clip_ids(layout, [9, 11], 40)])
    told = Told()
    trained(directory, told)
    assert told.events[0] == {"event": "notice", "message": "1 of 5 clips are longer than 256 tokens: clip-4"}
    save_clips(directory / "dataset.npz", [clip_ids(layout, [9, 11], 40)])
    with pytest.raises(InvalidRequest, match="all 1 clips are longer"):
        trained(directory, Told())


def test_a_loss_that_is_no_number_ends_the_training(
    voice: tuple[Path, Path], model: LlamaForCausalLM, tmp_path: Path
) -> None:
    broken, codec = save_tiny_voice(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingFailed, match="no number any more at step 0"):
        trained(save_run(tmp_path / "run", broken, codec, **BRISK), Told())


def test_a_model_without_a_configuration_or_of_another_codec_is_refused(
    voice: tuple[Path, Path], tmp_path: Path
) -> None:
    directory = save_run(tmp_path / "run", *voice, **BRISK)
    run = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps(run | {"model_dir": str(tmp_path / "nowhere")}))
    with pytest.raises(ConfigurationError, match="nowhere"):
        trained(directory, Told())
    small, codec = save_tiny_voice(tmp_path / "small", vocabulary_size=AUDIO_BASE + CODEBOOK_SIZE)
    with pytest.raises(ConfigurationError, match="the codec is another's"):
        trained(save_run(tmp_path / "run", small, codec, **BRISK), Told())


def test_a_misspelt_hyper_parameter_is_named(voice: tuple[Path, Path], tmp_path: Path) -> None:
    directory = save_run(tmp_path, *voice, learning_rte=0.1)
    with pytest.raises(ConfigurationError, match=r"train\.learning_rte"):
        read_run(directory)


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    config = TrainConfig(learning_rate=1.0e-3, warmup_share=0.1)
    rates = [rate_at(step, 100, config) for step in range(100)]
    assert rates[9] == max(rates) == pytest.approx(1e-3)
    assert all(earlier < later for earlier, later in pairwise(rates[:10]))
    assert all(earlier > later for earlier, later in pairwise(rates[10:]))
    assert rates[-1] < 1e-6


# Adapters.


@pytest.fixture(scope="module")
def good_adapter(voice: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("good")
    trained(save_run(directory, *voice, **(BRISK | {"epochs": 1})), Told())
    return directory / "adapter"


@pytest.fixture
def copied(good_adapter: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a copy of the good adapter with fields of its configuration, or weights, replaced."""

    def copy(config: dict[str, Any], weights: dict[str, torch.Tensor]) -> Path:
        described = json.loads((good_adapter / adapter.CONFIG_FILE).read_text()) | config
        (tmp_path / adapter.CONFIG_FILE).write_text(json.dumps(described))
        save_file(load_file(good_adapter / adapter.WEIGHTS_FILE) | weights, tmp_path / adapter.WEIGHTS_FILE)
        return tmp_path

    yield copy


def test_what_was_trained_can_be_served(copied: Callable[..., Path]) -> None:
    adapter.check(copied({}, {}))


LAYER = "base_model.model.model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("config", "weights", "fault"),
    [
        ({"modules_to_save": ["lm_head"]}, {}, "modules_to_save"),
        ({"use_dora": True}, {}, "DoRA"),
        ({"bias": "all"}, {}, "biases"),
        ({"r": 24}, {}, "rank 24 is none of"),
        ({"target_modules": ["q_proj", "lm_head"]}, {}, "targets lm_head"),
        ({"r": 8}, {}, "its rank is 8"),
        ({}, {"base_model.model.lm_head.weight": torch.zeros(2, 2)}, "lm_head.weight is no LoRA weight"),
        ({}, {f"{LAYER}.q_proj.lora_A.weight": torch.full((16, 16), torch.nan)}, "not finite"),
    ],
)
def test_what_the_engine_would_refuse_is_refused_with_the_reason(
    copied: Callable[..., Path], config: dict[str, Any], weights: dict[str, torch.Tensor], fault: str
) -> None:
    with pytest.raises(AdapterUnavailable, match=fault):
        adapter.check(copied(config, weights))


def test_an_adapter_that_is_damaged_or_missing_cannot_be_read(copied: Callable[..., Path], tmp_path: Path) -> None:
    directory = copied({}, {})
    (directory / adapter.WEIGHTS_FILE).write_bytes(b"torn")
    for place in (directory, tmp_path / "nowhere"):
        with pytest.raises(CarillonError, match="cannot be read"):
            adapter.check(place)
