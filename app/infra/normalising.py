"""Reads sentences as words with NeMo's grammars; run as a script by `app.infra.normaliser`, never imported elsewhere.

    normalising.py '{"language": "en", "cache": …, "memory_bytes": …}'

It loads the language's grammars, or builds them (30 s of one core for English) and keeps them for the next time, says
`{"ready": true}`, and then answers every line `{"text": …}` with one: `{"text": …}`, null where NeMo failed. It ends
with its input. Grammars come into the cache whole or not at all, by a rename: several may build at a time.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, TextIO


def answers_only() -> TextIO:
    """Our standard output; whatever libraries print goes to standard error from here on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def load(language: str, cache: Path) -> Any:
    """A normaliser with its grammars from the cache, into which it puts them if they are missing or damaged."""
    from nemo_text_processing.text_normalization.normalize import Normalizer
    from nemo_text_processing.utils.logging import logger

    logger.disabled = True  # it would log sentences
    kept = cache / f"{language}-{importlib.metadata.version('nemo_text_processing')}"
    if kept.is_dir():
        try:
            return Normalizer(input_case="cased", lang=language, cache_dir=str(kept))
        except Exception:
            shutil.rmtree(kept, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{language}-", dir=cache))
    try:
        normaliser = Normalizer(input_case="cased", lang=language, cache_dir=str(building))
        try:
            building.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another was faster
                raise
        return normaliser
    finally:
        shutil.rmtree(building, ignore_errors=True)


def main() -> None:
    request: dict[str, Any] = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (request["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = answers_only()
    normaliser = load(request["language"], Path(request["cache"]))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            spoken = normaliser.normalize(json.loads(line)["text"], verbose=False, punct_post_process=True)
        except Exception:  # whatever it stumbles over, this sentence is read as it is written
            spoken = None
        print(json.dumps({"text": spoken}), file=answers, flush=True)


if __name__ == "__main__":
    main()
