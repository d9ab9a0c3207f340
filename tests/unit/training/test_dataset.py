"""From clips to tokens: what the model gets and what it shall answer, with the stand-in's codec and words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import training.standin
from app.errors import ConfigurationError
from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout, read_layout
from training.data_report import SpeechClip
from training.dataset import Dataset, Example, FrameEncoder, build_dataset, without_repetitions
from training.recordings import PreparationCancelled
from training.standin.speech import FRAME_SAMPLES, SAMPLE_RATE_HZ, room_tone
from training.standin.tokens import Tokens, Word
from training.standin.utterances import reading_of_word

CHECKPOINT = Path(training.standin.__path__[0]) / "checkpoint"
MODEL, CODEC = CHECKPOINT / "model", CHECKPOINT / "codec"


@pytest.fixture(scope="module")
def layout() -> TokenLayout:
    return read_layout(MODEL, CODEC)


def clip_of(path: Path, samples: np.ndarray, text: str = "Hello door.") -> SpeechClip:
    soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
    return SpeechClip(path.stem, path, text, len(samples) / SAMPLE_RATE_HZ, 1.0, "a.wav", 0.0)


def sweep(frames: int) -> np.ndarray:
    t = np.arange(frames * FRAME_SAMPLES) / SAMPLE_RATE_HZ
    return (0.1 * np.sin(2 * np.pi * (150 + 200 * t) * t)).astype(np.float32)


def test_an_example_is_the_engines_prompt_the_codes_and_both_ends(tmp_path: Path, layout: TokenLayout) -> None:
    clip = clip_of(tmp_path / "one.flac", sweep(5), "Hello <laugh> door.")
    example = build_dataset([clip], prompt_name="qwertyuiopas", model_dir=MODEL, codec_dir=CODEC).examples[0]
    prompt, answer = example.ids[: example.answer_start], example.ids[example.answer_start :]
    words = [Word(reading_of_word("hello")), Word((), tag="<laugh>"), Word(reading_of_word("door"), ".")]
    assert prompt.tolist() == Tokens(layout.codebook_size).prompt("qwertyuiopas", words)[0]
    assert answer[-2:].tolist() == [layout.speech.end_of_speech_id, layout.speech.end_of_ai_id]
    assert len(answer) - 2 == 5 * TOKENS_PER_FRAME
    said = [layout.code(int(token), position) for position, token in enumerate(answer[:-2])]
    stored = soundfile.read(clip.path, dtype="float32")[0]
    assert said == FrameEncoder(CODEC, layout).frames(stored).ravel().tolist()
    assert example.name == "one"


def test_a_clip_between_more_of_its_room_has_the_same_codes_at_its_edges_as_inside(layout: TokenLayout) -> None:
    codes = FrameEncoder(CODEC, layout).frames(room_tone(9))
    assert (codes == codes[4]).all()


def test_repeated_first_codes_are_dropped_and_the_share_is_reported(tmp_path: Path) -> None:
    frames = np.array([[1, 1], [1, 2], [2, 1], [1, 1], [1, 3], [1, 4]])
    assert without_repetitions(frames).tolist() == [[1, 1], [2, 1], [1, 1]]
    clip = clip_of(tmp_path / "tone.flac", np.concatenate([room_tone(8), sweep(2)]))
    whole = build_dataset([clip], prompt_name="a", model_dir=MODEL, codec_dir=CODEC)
    fewer = build_dataset([clip], prompt_name="a", model_dir=MODEL, codec_dir=CODEC, deduplicate=True)
    assert whole.dropped_frame_share == 0
    left = (len(fewer.examples[0].ids) - len(whole.examples[0].ids)) / TOKENS_PER_FRAME
    assert fewer.dropped_frame_share == pytest.approx(-left / 10)
    assert fewer.dropped_frame_share > 0.3


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_dataset_is_read_back_as_it_was_written(tmp_path: Path, count: int) -> None:
    examples = tuple(Example(f"clip-{n}", np.arange(5 + n, dtype=np.int32), 2 + n) for n in range(count))
    Dataset(examples, 0.25).save(tmp_path / "dataset.npz")
    read = Dataset.load(tmp_path / "dataset.npz")
    assert read.dropped_frame_share == 0.25
    assert [(e.name, e.ids.tolist(), e.answer_start) for e in read.examples] == [
        (e.name, e.ids.tolist(), e.answer_start) for e in examples
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.npz"]


def test_clips_that_are_no_whole_frames_are_refused(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "odd.flac", sweep(3)[:-1])
    with pytest.raises(ConfigurationError, match="prepare the recordings for it"):
        build_dataset([clip], prompt_name="a", model_dir=MODEL, codec_dir=CODEC)


def test_encoding_stops_between_clips_when_it_is_cancelled(tmp_path: Path) -> None:
    clips = [clip_of(tmp_path / f"{n}.flac", sweep(2)) for n in range(3)]
    done: list[tuple[int, int]] = []
    with pytest.raises(PreparationCancelled):
        build_dataset(
            clips,
            prompt_name="a",
            model_dir=MODEL,
            codec_dir=CODEC,
            progress=lambda *pair: done.append(pair),
            cancelled=lambda: bool(done),
        )
    assert done == [(1, 3)]
