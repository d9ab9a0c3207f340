"""Reads sentences as words with NeMo's grammars; run by `normaliser` in a sandbox, never imported elsewhere.

    {"language": "en"}

The grammars come compiled, in the package of the library that reads with them; loading English takes 50 ms. It says
`{"ready": true}`, and then answers every line `{"text": …}` with one: `{"text": …}`, null where the grammars failed. It
ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO

from kitten_text_processing import Normalizer

from app.platform.sandbox_child import bound_request


def answers_only() -> TextIO:
    """Our standard output; whatever libraries print goes to standard error from here on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    request = bound_request()
    answers = answers_only()
    normaliser = Normalizer(input_case="cased", lang=request["language"])
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        try:
            spoken = normaliser.normalize(json.loads(line)["text"], punct_post_process=True)
        except Exception:  # whatever it stumbles over, this sentence is read as it is written
            spoken = None
        print(json.dumps({"text": spoken}), file=answers, flush=True)


if __name__ == "__main__":
    main()
