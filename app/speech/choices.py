"""What may be chosen by a word: formats and scopes. Plain enumerations, so that a command line lists them at once."""

from __future__ import annotations

from enum import StrEnum


class AudioFormat(StrEnum):
    """The encodings a client can choose; `pcm` is raw signed 16-bit little-endian mono."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"


class NarrationFormat(StrEnum):
    MP3 = "mp3"
    M4B = "m4b"
    FLAC = "flac"
    OPUS = "opus"
    WAV = "wav"


class CaptionsBy(StrEnum):
    """What captions tell the times of: the lines that are shown, or each of their words."""

    LINE = "line"
    WORD = "word"


class Scope(StrEnum):
    """What a key may do, to what is its project's.

    `manage` is for the project's keys and its usage. `admin` is an operator's: it may do everything, in every project.
    """

    SPEAK = "speak"
    CLONE = "clone"
    NARRATE = "narrate"
    FLEET = "fleet"
    MANAGE = "manage"
    ADMIN = "admin"


MAX_KEY_DAYS = 36_500
"""A century: anything longer means for good."""

MAX_OVERLAP_HOURS = 24 * 90
"""How long a token may hold beside the one that replaces it."""
