from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import soundfile

from app.errors import EngineFailed
from app.realtime.background import Spoken
from app.speech.recipe import GateConfig
from app.speech.voices import Voice
from tests.support.synthetic_speaker import SyntheticSpeaker, Throat
from training.gate import bundled_prompts
from training.renderings import Samples, joined, render, sentences

pytestmark = pytest.mark.anyio

WREN = Throat(pitch_hz=210, head_s=0.6, seconds_per_char=0.005)
VOICE = Voice(id="wren", name="wren", model="standin")


def ignore(event: str, **fields: Any) -> None: ...


def speaker() -> SyntheticSpeaker:
    return SyntheticSpeaker({"wren": WREN})


async def rendered(directory: Path, count: int, speaker: Any) -> list[dict[str, str]]:
    samples = Samples(directory)
    await render(VOICE, GateConfig(), speaker, samples, ignore, count=count)
    samples.save(count)
    return json.loads((directory / "samples.json").read_text())


async def test_renderings_are_listed_as_uploaded_recordings_are(tmp_path: Path) -> None:
    listed = await rendered(tmp_path, 5, speaker())
    assert len(listed) == 5
    for entry in listed:
        samples, rate_hz = soundfile.read(tmp_path / entry["path"], dtype="float32")
        assert len(samples) == len(WREN.say(entry["transcript"]).samples)
        assert rate_hz == 24_000
        assert entry["path"].endswith(entry["file_name"])


async def test_three_are_spoken_at_once(tmp_path: Path) -> None:
    busy = speaker()
    await rendered(tmp_path, 9, busy)
    assert busy.busiest == 3


async def test_begun_again_it_speaks_only_what_is_missing(tmp_path: Path) -> None:
    await rendered(tmp_path, 4, speaker())
    again = speaker()
    listed = await rendered(tmp_path, 6, again)
    assert len(again.heard) <= 2 + 2  # two more, and two that were under way when it was enough
    assert len({entry["transcript"] for entry in listed}) == 6


class Rambling(SyntheticSpeaker):
    """Never ends one sentence by itself, and has another cut by the worker."""

    async def speak(self, voice: Voice, text: str) -> Spoken:
        number = len(self.heard)
        spoken = await super().speak(voice, text)
        return replace(spoken, complete=number != 1, chunks=2 if number == 2 else 1)


async def test_what_did_not_end_by_itself_or_came_in_parts_is_replaced_by_another_sentence(tmp_path: Path) -> None:
    rambling = Rambling({"wren": WREN})
    listed = await rendered(tmp_path, 4, rambling)
    unfit = {rambling.heard[1][1], rambling.heard[2][1]}
    assert len(listed) == 4
    assert not unfit & {entry["transcript"] for entry in listed}


async def test_a_voice_that_never_ends_is_an_error_and_not_an_endless_stage(tmp_path: Path) -> None:
    endless = SyntheticSpeaker({"wren": replace(WREN, complete=False)})
    with pytest.raises(EngineFailed, match="only 0 of 8"):
        await rendered(tmp_path, 4, endless)
    assert len(endless.heard) == 8


def test_the_gates_prompts_are_never_rendered() -> None:
    gate = GateConfig(prompts=20)
    texts = list(islice(sentences(gate), 400))
    assert len(set(texts)) == 400
    assert not [text for text in texts for prompt in bundled_prompts()[:20] if prompt.rstrip(".?") in text]


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("We left.", "The door was open.", "We left and the door was open."),
        ("Did you see?", "I'm here.", "Did you see and I'm here."),
        ("We left.", "I stayed.", "We left and I stayed."),
        ("We left.", "It rained.", "We left and it rained."),
    ],
)
def test_two_sentences_become_one(first: str, second: str, both: str) -> None:
    assert joined(first, second) == both
