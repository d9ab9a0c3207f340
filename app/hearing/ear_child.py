"""Transcribes an untrusted recording; run by `app.hearing.spoken` in a sandbox, never imported.

    {"samples": PATH, "sample_rate_hz": …, "grammar": JSGF or null} -> {"heard": TEXT or null, "bound": TEXT or null}

`samples` is raw mono float32. `heard` is what Moonshine hears, `bound` which sentence of the grammar pocketsphinx does;
null where it is not installed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads' stacks would count against the memory limit

import numpy as np
import soxr

from app.platform.sandbox_child import main

RATE_HZ = 16_000


def hear(request: dict[str, Any]) -> dict[str, Any]:
    samples = np.fromfile(request["samples"], "<f4")
    at_rate = soxr.resample(samples, request["sample_rate_hz"], RATE_HZ)
    return {"heard": free(at_rate), "bound": request["grammar"] and bound(at_rate, request["grammar"])}


def free(samples: np.ndarray) -> str | None:
    try:
        from moonshine_voice import ModelArch, Transcriber, get_assets_path
    except ImportError:
        return None
    options = {"return_audio_data": "false"}
    with Transcriber(Path(get_assets_path()) / "tiny-en", ModelArch.TINY, options=options) as recogniser:
        lines = recogniser.transcribe_without_streaming(samples.tolist(), RATE_HZ).lines
        return " ".join(text for line in lines if (text := line.text.strip()))


def bound(samples: np.ndarray, grammar: str) -> str | None:
    try:
        from pocketsphinx import Decoder
    except ImportError:
        return None
    decoder = Decoder(lm=None, loglevel="FATAL")
    decoder.add_jsgf_string("answer", grammar)
    decoder.activate_search("answer")
    decoder.start_utt()
    decoder.process_raw((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    found = decoder.hyp()
    return found.hypstr if found else ""


if __name__ == "__main__":
    main(hear, out_of_memory="needs more memory to be heard than any speech does; record it again")
