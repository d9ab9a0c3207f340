"""Text on its way to the voice: its markup read, cleaned, cut into chunks, and each chunk made words.

    written ── markup ──▶ plain ── splitter ──▶ chunks ── spoken ──▶ what the model reads

`Markup` takes text as an LLM or a person wrote it, in pieces, and gives plain text. It has a state (a fence, a
thought, a tag may be open for pages), so it runs where a session lives for its whole life: in the front door, whose
journal keeps the state, and which maps plain text back to what was written. A worker gets plain text only; one that
takes a session over in the middle of a listing need not know that there is one.

`TextSplitter` cuts plain text at the worker, which knows when audio is needed. `spoken` makes words of the numbers,
dates and symbols in one chunk, just before the engine reads it: it has no state and depends on nothing but the chunk
and the options, so a chunk that is continued at another worker has the same prompt there; and offsets, segments and
captions are all of what was written, since they are counted before. Texts of narrations go through the same functions.
"""

from app.speech.text.boundaries import Chunk, Cut, boundaries
from app.speech.text.characters import Cleaner, clean, has_speech, joins_previous
from app.speech.text.splitter import TextSplitter
from app.speech.token_layout import ORPHEUS_TAGS

__all__ = [
    "ORPHEUS_TAGS",
    "Chunk",
    "Cleaner",
    "Cut",
    "TextSplitter",
    "boundaries",
    "clean",
    "has_speech",
    "joins_previous",
]
