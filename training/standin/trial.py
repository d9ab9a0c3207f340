"""Clones the bundled speaker without a fleet, and says how well it is understood: for finding the recipe.

The stages are those of a job (`training.prepare`, `training.lora`); the clone speaks as `quality` has the base speak.
A directory keeps what was prepared, so that another recipe needs the training alone.
"""

from __future__ import annotations

import csv
import json
import logging
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
from app.speech.recipe import PrepareConfig, TrainConfig
from app.speech.token_layout import read_layout
from app.voices.models import RunConfig
from training.closeness import distance, voice_print
from training.demo.record import MANIFEST, RECORDINGS, spoken
from training.gate import bundled_prompts
from training.standin.quality import Voice, head_silence_ms, spoken_s
from training.standin.speech import SAMPLE_RATE_HZ

logger = logging.getLogger(__name__)

NAME = "heron"
PROMPTS = 20


def prepare(directory: Path, checkpoint: Path, threads: int) -> None:
    """Cuts and encodes the recordings into `directory`, unless that is done."""
    if (directory / "dataset.npz").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (RECORDINGS / MANIFEST).open(encoding="utf-8", newline="") as listed:
        rows = list(csv.DictReader(listed))
    samples = [
        {"file_name": row["file"], "path": str(RECORDINGS / row["file"]), "transcript": row["text"]} for row in rows
    ]
    (directory / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    _describe(directory, checkpoint, threads, {})
    _stage("training.prepare", directory)


def train(directory: Path, checkpoint: Path, threads: int, recipe: Mapping[str, Any]) -> float:
    """Trains an adapter by the model's own recipe with changes: the seconds that took."""
    _describe(directory, checkpoint, threads, recipe)
    began = time.monotonic()
    _stage("training.lora", directory)
    return time.monotonic() - began


def _describe(directory: Path, checkpoint: Path, threads: int, recipe: Mapping[str, Any]) -> None:
    model, codec = (checkpoint / "model").resolve(), (checkpoint / "codec").resolve()
    own = read_layout(model, codec, None).speech.recipe or {}
    run = RunConfig(
        prompt_name=NAME,
        model_dir=model,
        codec_dir=codec,
        threads=threads,
        prepare=PrepareConfig(),
        train=TrainConfig(**{**own, **recipe}),
    )
    (directory / "run.json").write_text(run.model_dump_json(indent=2), encoding="utf-8")


def _stage(module: str, directory: Path) -> None:
    with (directory / f"{module}.log").open("w", encoding="utf-8") as log:
        subprocess.run([sys.executable, "-m", module, str(directory)], check=True, stdout=log)


def hear(adapter: Path | None, checkpoint: Path, name: str, texts: Sequence[str]) -> dict[str, Any]:
    """What a recogniser understands of a voice saying `texts`, and its other figures beside the speaker's."""
    voice = Voice.loaded(checkpoint / "model", checkpoint / "codec")
    if adapter is not None:
        voice = Voice(
            PeftModel.from_pretrained(voice.model, str(adapter)).merge_and_unload(),
            voice.tokenizer,
            voice.codec,
            voice.speech,
        )
    torch.manual_seed(1)
    frames, ended = voice.generated(name, list(texts))
    said = [voice.decoded(grid) for grid in frames]
    own = [spoken(text) for text in texts]
    ear = Moonshine()
    errors = {
        label: word_error_rate((text, ear.hear(w.clip(-1, 1), SAMPLE_RATE_HZ).text) for text, w in zip(texts, waves, strict=True))
        for label, waves in (("speaker", own), ("codec", [voice.recoded(wave) for wave in own]), ("voice", said))
    }
    of_speaker, of_voice = voice_print(own, SAMPLE_RATE_HZ), voice_print(said, SAMPLE_RATE_HZ)
    heads = [head_silence_ms(wave) for wave in said]
    return {
        **{f"word_error_rate_{label}": round(rate or 0.0, 3) for label, rate in errors.items()},
        "head_silence_ms_p50": median(heads),
        "head_silence_ms_most": max(heads),
        "ended_share": float(np.mean(ended)),
        "length_ratio": round(median(spoken_s(a) / spoken_s(b) for a, b in zip(said, own, strict=True)), 3),
        "distance": None if of_speaker is None or of_voice is None else round(distance(of_speaker, of_voice), 1),
    }


def measure(directory: Path, checkpoint: Path, threads: int, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A whole try: figures of the clone, and of each built-in voice on the same prompts."""
    prepare(directory, checkpoint, threads)
    seconds = train(directory, checkpoint, threads, recipe)
    texts = bundled_prompts()[:PROMPTS]
    outcome = json.loads((directory / "adapter" / "run.json").read_text(encoding="utf-8")) if (directory / "adapter" / "run.json").exists() else {}
    return {"recipe": dict(recipe), "seconds": round(seconds), "held_out_losses": outcome.get("held_out_losses"),
            NAME: hear(directory / "adapter", checkpoint, NAME, texts)}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    print(json.dumps(measure(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])), indent=2))
