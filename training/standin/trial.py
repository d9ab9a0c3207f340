"""Clones the bundled speaker without a fleet, and says how well the clone is understood: for finding a recipe.

    python -m training.standin.trial DIRECTORY CHECKPOINT [RECIPE]

The stages are those of a job (`training.prepare`, `training.lora`), and the clone speaks as `quality` has the base
speak. DIRECTORY keeps what was prepared and trained, so that another recipe needs only the training again. RECIPE is
JSON of `TrainConfig` fields, instead of the model's own. Nothing is published.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from app.hearing.moonshine import Moonshine
from app.hearing.words import word_error_rate
from app.speech.recipe import TrainConfig
from app.speech.token_layout import read_layout
from app.voices.models import RunConfig
from training.closeness import distance, voice_print
from training.demo.record import MANIFEST, RECORDINGS, spoken
from training.gate import bundled_prompts
from training.standin.quality import Voice, head_silence_ms, spoken_s
from training.standin.speech import SAMPLE_RATE_HZ

NAME = "heron"
PROMPTS = 20


def prepare(directory: Path, run: RunConfig) -> None:
    """Cuts and encodes the recordings into `directory`, unless that is done."""
    if (directory / "dataset.npz").exists():
        return
    with (RECORDINGS / MANIFEST).open(encoding="utf-8", newline="") as listed:
        samples = [
            {"file_name": row["file"], "path": str(RECORDINGS / row["file"]), "transcript": row["text"]}
            for row in csv.DictReader(listed)
        ]
    (directory / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    _stage("prepare", directory, run)


def described(checkpoint: Path, recipe: Mapping[str, Any], threads: int) -> RunConfig:
    """What to train: the model's own recipe with some fields replaced."""
    model, codec = (checkpoint / "model").resolve(), (checkpoint / "codec").resolve()
    train = TrainConfig.model_validate({**read_layout(model, codec).speech.recipe, **recipe})
    return RunConfig(prompt_name=NAME, model_dir=model, codec_dir=codec, threads=threads, train=train)


def _stage(name: str, directory: Path, run: RunConfig) -> None:
    (directory / "run.json").write_text(run.model_dump_json(indent=2), encoding="utf-8")
    with (directory / f"{name}.log").open("w", encoding="utf-8") as log:
        subprocess.run([sys.executable, "-m", f"training.{name}", str(directory)], check=True, stdout=log)


def hear(voice: Voice, name: str, texts: Sequence[str]) -> dict[str, Any]:
    """What a recogniser understands of `name` saying `texts`, and its other figures beside the speaker's own."""
    torch.manual_seed(1)
    frames, ended = voice.generated(name, list(texts))
    said, own = [voice.decoded(grid) for grid in frames], [spoken(text) for text in texts]
    ear = Moonshine()
    errors = {
        label: word_error_rate(
            (text, ear.hear(wave.clip(-1, 1), SAMPLE_RATE_HZ).text) for text, wave in zip(texts, waves, strict=True)
        )
        for label, waves in (("speaker", own), ("codec", [voice.recoded(wave) for wave in own]), ("voice", said))
    }
    speaker, clone = voice_print(own, SAMPLE_RATE_HZ), voice_print(said, SAMPLE_RATE_HZ)
    return {
        **{f"word_error_rate_{label}": round(rate or 0.0, 3) for label, rate in errors.items()},
        "head_silence_ms_p50": median(map(head_silence_ms, said)),
        "ended_share": float(np.mean(ended)),
        "length_ratio": round(median(spoken_s(a) / spoken_s(b) for a, b in zip(said, own, strict=True)), 3),
        "distance": None if speaker is None or clone is None else round(distance(speaker, clone), 1),
    }


def measure(directory: Path, checkpoint: Path, recipe: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """A whole try: how long the training took, its held-out losses, and what is heard of the clone."""
    directory.mkdir(parents=True, exist_ok=True)
    run = described(checkpoint, recipe, threads)
    prepare(directory, run)
    began = time.monotonic()
    _stage("lora", directory, run)
    seconds = time.monotonic() - began
    base = Voice.loaded(checkpoint / "model", checkpoint / "codec")
    cloned = PeftModel.from_pretrained(base.model, str(directory / "adapter")).merge_and_unload()
    trained = json.loads((directory / "adapter" / "run.json").read_text(encoding="utf-8"))
    return {
        "recipe": dict(recipe),
        "seconds": round(seconds),
        "held_out_losses": [round(loss, 3) for loss in trained["held_out_losses"]],
        **hear(Voice(cloned, base.tokenizer, base.codec, base.speech), NAME, bundled_prompts()[:PROMPTS]),
    }


def main() -> None:
    """Reads the command line and prints the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m training.standin.trial", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("recipe", type=json.loads, nargs="?", default={})
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    print(json.dumps(measure(chosen.directory, chosen.checkpoint, chosen.recipe, chosen.threads), indent=2))


if __name__ == "__main__":
    main()
