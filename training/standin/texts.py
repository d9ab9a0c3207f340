"""What the speakers of the corpus say: the usage examples of WordNet 3.0 (Debian's `wordnet-base`, free to use).

Short, varied, everyday and rare words alike. Nothing here knows who says them.
"""

from __future__ import annotations

import re
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
WORDS = (4, 16)
_EXAMPLE = re.compile(r'"([^"]+)"')
_PLAIN = re.compile(r"[A-Za-z][A-Za-z',;:\- ]+[.?!]?")
_UNSURE = re.compile(r"\b(?:[A-Z]{2,}|[b-hj-zB-HJ-Z])\b")  # abbreviations and letters, which are read in many ways


def sentences(directory: Path = WORDNET) -> list[str]:
    """Every example once, in the order of the files. Raises FileNotFoundError, with the remedy."""
    files = sorted(directory.glob("data.*"))
    if not files:
        raise FileNotFoundError(f"no WordNet in {directory}; on Debian or Ubuntu: apt-get install wordnet-base")
    lines = (line for path in files for line in path.read_text(encoding="latin-1").splitlines())
    examples = (example.strip() for line in lines for example in _EXAMPLE.findall(line))
    return list(dict.fromkeys(_sentence(example) for example in examples if _readable(example)))


def _readable(example: str) -> bool:
    words = len(example.split())
    return WORDS[0] <= words <= WORDS[1] and bool(_PLAIN.fullmatch(example)) and not _UNSURE.search(example)


def _sentence(example: str) -> str:
    return example[0].upper() + example[1:] + ("" if example[-1] in ".?!" else ".")
