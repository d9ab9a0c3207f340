"""Renders a built-in voice for polishing: `python -m training.renderings RUN_DIR`.

The voice speaks sentences that the gate does not, through real workers of the fleet. RUN_DIR/samples.json lists them as
uploaded recordings are: `file_name`, `path` below RUN_DIR, `transcript`. Started again, the stage keeps what is there.
What the model did not end by itself, or a worker spoke in parts, is left out.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import soundfile

from app.errors import ConfigurationError, EngineFailed
from app.platform.settings import load_settings
from app.realtime.background import Spoken, open_background_speech
from app.speech.recipe import GateConfig
from app.speech.voices import Voice
from training.gate import bundled_prompts
from training.stage_runner import Emit, main, read_run, run_cancellable
from training.synthesis import Synthesizer, speak_each

COUNT = 120
"""About seven minutes of speech: only the silences are trained away."""

AT_ONCE = 3
TRIES_PER_RENDERING = 2
SEED = 20_240_801


def sentences(gate: GateConfig) -> Iterator[str]:
    """An endless series of sentences that the gate does not use: single ones, then distinct pairs joined."""
    unused = bundled_prompts()[gate.prompts :]
    yield from unused
    draw = random.Random(SEED)
    said: set[tuple[str, str]] = set()
    while True:
        first, second = draw.sample(unused, 2)
        if (first, second) not in said or len(said) == len(unused) * (len(unused) - 1):
            said.add((first, second))
            yield joined(first, second)


def joined(first: str, second: str) -> str:
    """Two sentences as one: "We left. I sat down." -> "We left and I sat down." """
    begin = second if re.match(r"I\b", second) else second[0].lower() + second[1:]
    return f"{first.rstrip('.?!')} and {begin}"


class Samples:
    """The renderings kept so far in a run's directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._transcripts: dict[str, str] = {}
        (directory / "samples").mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._transcripts)

    def has(self, number: int, text: str) -> bool:
        """Whether sentence `number` was rendered already, also by an earlier run of the stage."""
        name = _file_name(number)
        if (self.directory / "samples" / name).is_file():
            self._transcripts[name] = text
        return name in self._transcripts

    def add(self, number: int, spoken: Spoken) -> None:
        """Write an utterance: whole or not at all."""
        name = _file_name(number)
        target = self.directory / "samples" / name
        unfinished = target.with_name(f".unfinished-{name}")
        soundfile.write(unfinished, spoken.samples, spoken.sample_rate_hz, subtype="PCM_16", format="FLAC")
        unfinished.replace(target)
        self._transcripts[name] = spoken.text

    def save(self, count: int) -> None:
        """Write samples.json of the first `count`."""
        listed = [
            {"file_name": name, "path": f"samples/{name}", "transcript": text}
            for name, text in sorted(self._transcripts.items())[:count]
        ]
        (self.directory / "samples.json").write_text(json.dumps(listed, indent=2) + "\n", "utf-8")


def _file_name(number: int) -> str:
    return f"{number + 1:04}.flac"


async def render(
    voice: Voice, gate: GateConfig, synthesizer: Synthesizer, samples: Samples, emit: Emit, *, count: int
) -> None:
    """Have sentences spoken until there are `count`. Raises EngineFailed when too few come out whole."""
    asked: list[int] = []
    tries = TRIES_PER_RENDERING * count

    def lines() -> Iterator[tuple[Voice, str]]:
        for number, text in enumerate(islice(sentences(gate), tries)):
            if len(samples) >= count:
                return
            if not samples.has(number, text):
                asked.append(number)
                yield voice, text

    def keep(turn: int, spoken: Spoken) -> None:
        if spoken.complete and spoken.chunks == 1 and len(spoken.samples):
            samples.add(asked[turn], spoken)
            emit("progress", rendered=min(len(samples), count), of=count)

    await speak_each(synthesizer, lines(), keep, at_once=AT_ONCE)
    if len(samples) < count:
        raise EngineFailed(
            f"{voice.name} ended by itself in only {len(samples)} of {tries} renderings, {count} are wanted; "
            "ask for fewer, or lower the model's temperature"
        )


def work(directory: Path, emit: Emit) -> None:
    """The stage."""
    run, settings = read_run(directory), load_settings()
    if run.voice is None:
        raise ConfigurationError("run.json has no voice; name the built-in voice to render")
    voice, samples = run.voice, Samples(directory)

    async def render_with_fleet() -> None:
        async with open_background_speech(settings) as speech:
            await render(voice, run.gate, speech, samples, emit, count=COUNT)

    run_cancellable(render_with_fleet())
    samples.save(COUNT)


if __name__ == "__main__":
    sys.exit(main(work))
