"""Names of voices: printable, short, and none that looks like another by letters of a second alphabet.

It knows no voice: whether a name is taken is for the store to say.
"""

from __future__ import annotations

import unicodedata

from app.errors import InvalidRequest

MAX_NAME_CHARS = 64

LOOK_ALIKES = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC"})
"""Alphabets with letters that look the same, as their characters' names begin (Unicode TR 39 has all such pairs)."""


def checked_name(name: str) -> str:
    """The name as it is kept, in normal form C. Raises InvalidRequest."""
    name = unicodedata.normalize("NFC", name).strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise InvalidRequest(
            f"name: it has {len(name)} characters; give 1 to {MAX_NAME_CHARS} printable ones", param="name"
        )
    if len(alphabets := _alphabets(name)) > 1:
        found = " and ".join(alphabet.capitalize() for alphabet in sorted(alphabets))
        raise InvalidRequest(
            f"name: it mixes letters of {found}, which look alike; write it in one alphabet", param="name"
        )
    return name


def folded(name: str) -> str:
    """What two names have in common that differ in case or in width alone."""
    return unicodedata.normalize("NFKC", name).casefold()


def _alphabets(name: str) -> set[str]:
    letters = (letter for letter in unicodedata.normalize("NFKC", name) if letter.isalpha())
    return {unicodedata.name(letter, "").partition(" ")[0] for letter in letters} & LOOK_ALIKES
