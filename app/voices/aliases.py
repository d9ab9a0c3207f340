"""The names that clients send without having asked what is served: OpenAI's models and its thirteen voices, and the
voices that other services' SDKs, plugins and examples have as defaults.

A served model or an existing voice of such a name always comes first. It does not know which models are served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ANY_MODEL = frozenset({"tts-1", "tts-1-hd", "gpt-4o-mini-tts"})
"""OpenAI's speech models: a client that sends one has not chosen among ours, so any model with the voice will do."""

WOMEN = ("tara", "leah", "jess", "mia", "zoe", "wren")
MEN = ("leo", "dan", "zac", "rook")
"""Built-in voices of which it is known (Orpheus's, then the stand-in's), the most natural first."""

_LIKE_WOMEN = ("alloy", "nova", "shimmer", "coral", "sage", "marin")
_LIKE_MEN = ("onyx", "echo", "fable", "ash", "ballad", "verse", "cedar")

OPENAI_VOICES = frozenset(_LIKE_WOMEN + _LIKE_MEN)

_DEFAULT_WOMEN = (
    "hpp4J3VqNfWAUOO0d1Us",  # ElevenLabs: LiveKit's plugin
    "21m00Tcm4TlvDq8ikWAM",  # ElevenLabs: its SDK's examples
    "f786b574-daa5-4673-aa0c-cbe3e8534c02",  # Cartesia: LiveKit's plugin
    "6ccbfb76-1fc6-48f7-b71d-91ac6298247b",  # Cartesia: its SDK
    "86e30c1d-714b-4074-a1f2-1cb6b552fb49",  # Cartesia: Pipecat's templates
    "tara",  # Orpheus: LiveKit's plugin for Baseten
)
_DEFAULT_MEN = ("JBFqnCBsd6RMkjVDRZzb",)  # ElevenLabs: its SDK's examples


def stand_in_for(alias: str, built_in: Sequence[str], table: Mapping[str, str]) -> str | None:
    """The voice that `alias` means: the operator's choice in `table`, else one of the `built_in` that sounds alike.

    None for a name that is no alias, and where nothing is built in.
    """
    if alias in table:
        return table[alias]
    for alike, known in ((_LIKE_WOMEN, WOMEN), (_LIKE_MEN, MEN), (_DEFAULT_WOMEN, WOMEN), (_DEFAULT_MEN, MEN)):
        if alias in alike:
            fitting = [name for name in known if name in built_in] or sorted(built_in)
            return fitting[alike.index(alias) % len(fitting)] if fitting else None
    return None
