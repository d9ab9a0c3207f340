"""Emoji: which characters make them, and what they are called."""

from __future__ import annotations

import re
import unicodedata

from app.speech.text.options import EmojiReading

CHARS = (
    "\u203c\u2049\u20e3\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u27bf\u2934"
    "\u2935\u2b00-\u2bff\u3030\u303d\u3297\u3299\ufe0e\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f"
)
"""As the inside of a class of a regular expression: symbols, skin tones, flags, keycaps, and what selects or tags them.
The zero-width joiner makes part of one only between these."""

_RUN = re.compile(f"[{CHARS}](?:\u200d*[{CHARS}])*")
_PART = re.compile(f"[{CHARS}\u200d]")
_MODIFIER = re.compile("[\u200d\u20e3\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
MAX_RUN_CHARS = 40
_FLAG_A = 0x1F1E6


def emoji_end(text: str, at: int) -> int:
    """Where a run of emoji that begins at `at` ends, or MAX_RUN_CHARS of it do."""
    last = at + MAX_RUN_CHARS
    while at < min(len(text), last) and _PART.match(text, at):
        at += 1
    return at


def without_emoji(text: str, reading: EmojiReading) -> str:
    """A text whose emoji are named, or left out; words with one between them stay two."""
    return text if text.isascii() else _RUN.sub(lambda run: _read(run, reading), text)


def _read(run: re.Match[str], reading: EmojiReading) -> str:
    before, after = run.string[: run.start()][-1:], run.string[run.end() :][:1]
    said = named(run[0], most=len(run[0]) * 100)[0] if reading is EmojiReading.NAME else ""
    left = " " if before.isalnum() and (said or after.isalnum()) else ""
    return left + said + (" " if said and after.isalnum() else "")


def named(run: str, *, most: int) -> tuple[str, int]:
    """The names of a run of emoji, as Unicode has them, in at most `most` characters, and how much of it they name.

    What modifies an emoji is not named: `👍🏽` is `thumbs up sign`. One name is always given; none has 100 characters.
    """
    names: list[str] = []
    chars, letter, joined = 0, "", False
    for at, char in enumerate(run):
        name = ""
        if 0 <= ord(char) - _FLAG_A < 26:
            letter += chr(ord("A") + ord(char) - _FLAG_A)
            if len(letter) == 2:
                name, letter = f"flag of {' '.join(letter)}", ""
        elif not joined and not _MODIFIER.match(char):
            name = unicodedata.name(char, "").lower().replace("-", " ")
        if name and names and chars + len(name) + 2 > most:
            return ", ".join(names), at - name.startswith("flag of")
        if name:
            names.append(name)
            chars += len(name) + 2
        joined = char == "\u200d"
    return ", ".join(names), len(run)
