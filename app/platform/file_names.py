"""File names that clients give, made safe to show; they are never a path of ours."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME_CHARS = 128


def shown_name(name: str) -> str:
    """The last part of a client's file name, without what cannot be printed, shortened.

    shown_name("../../etc/pass\\x00wd.wav") -> "passwd.wav"
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name).rstrip("/\\"))[-1]
    printable = "".join(char for char in last if char.isprintable()).strip(" .")
    stem, dot, ending = printable.rpartition(".")
    if not dot or len(ending) > 8:
        return printable[:MAX_NAME_CHARS] or "recording"
    return f"{stem[: MAX_NAME_CHARS - len(ending) - 1] or 'recording'}.{ending}"
