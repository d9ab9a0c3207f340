"""Characters as voices are given them: composed, without what is not heard, whitespace collapsed.

`Cleaner` is incremental and pure: a character, a word or a book at a time gives the same result. It knows the model's
tags and the names of HTML, and nothing of markup else: `app.speech.text.markup` has read that before.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from app.errors import ConfigurationError
from app.speech.text.html import KNOWN
from app.speech.token_layout import ORPHEUS_TAGS

MAX_MARKS = 30  # combining marks on one letter, the bound of Unicode's Stream-Safe format (UAX #15, section 13)
_TAG_HOLD_CHARS = 12  # a "<" waits this long to become a tag
_TOKEN = re.compile(r"\s+|</?[A-Za-z][A-Za-z_-]*/?>|[^\s<]+|<")
_JOINERS = "\u200c\u200d"
_TAG_SHAPE = re.compile(r"<[A-Za-z][A-Za-z_-]{0,30}>")


def clean(text: str, *, tags: Sequence[str] = ORPHEUS_TAGS) -> str:
    """The text as the splitter sees it: see `Cleaner` for what happens to each kind of character."""
    cleaner = Cleaner(tags)
    return cleaner.push(text) + cleaner.finish()


def has_speech(text: str) -> bool:
    """Whether cleaned text has anything to speak: a letter or a digit of any script, or a tag."""
    return any(map(str.isalnum, text))


def joins_previous(char: str) -> bool:
    """Whether `char` may belong to the character before it: a combining mark, or a Hangul vowel or tail.

    Every other character starts afresh under NFC, so text may be normalised in parts, cut before such characters.
    """
    if char < "\u0300":
        return False
    hangul = "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"
    return hangul or unicodedata.category(char)[0] == "M"


class Cleaner:
    """Makes cleaned text of pieces of any size; the pieces' borders leave no trace.

    * Unicode is composed (NFC); beyond 30 combining marks on one letter the rest are dropped.
    * Control characters (NUL, ESC, ...) and invisible format characters (zero-width spaces, byte-order and direction
      marks, soft hyphens) are dropped; zero-width joiners and non-joiners are, but where spelling needs them: between
      letters of a script that joins, as Persian or Hindi. Lone surrogates become U+FFFD.
    * Whitespace of every kind becomes one space, or one newline where it holds a blank line: a paragraph ends there.
      Text neither begins nor ends with whitespace.
    * Known tags are kept, written as the checkpoint writes them ("<Laugh>" becomes "<laugh>"). Other markup of that
      shape ("<b>", "</laugh>", "<br/>") is dropped; any other "<" is kept, as in `List<String>`.
    * Emoji and all scripts pass unchanged.
    """

    def __init__(self, tags: Sequence[str] = ORPHEUS_TAGS) -> None:
        if misshapen := [tag for tag in tags if not _TAG_SHAPE.fullmatch(tag)]:
            raise ConfigurationError(f"Speech tags must look like <laugh>; {misshapen[0]!r} does not.", param="tags")
        self._tags = {tag.lower(): tag for tag in tags}
        self._hold = max([_TAG_HOLD_CHARS, *(len(tag) - 1 for tag in tags)])
        self._partial_tag = re.compile(rf"<[A-Za-z_/-]{{0,{self._hold - 1}}}\Z")
        self._marks = 0
        self._joiner = ""  # dropped, unless what is on either side needs it
        self._spelt = False  # whether the last character is of a script that joins
        self._unsettled = ""  # a coming mark may still change it
        self._undecided = ""  # normalised, but may be the beginning of a tag
        self._gap = ""  # whitespace since the last character given out
        self._newlines = 0
        self._began = False
        self._last = ""

    @property
    def in_gap(self) -> bool:
        """Whether whitespace follows the last character given out, so that its word is complete."""
        return bool(self._gap) and not self._undecided

    def push(self, piece: str) -> str:
        """Take a piece; return the cleaned characters that nothing to come can change."""
        kept = self._unsettled + self._filter(piece)
        settled = len(kept) - 1
        while settled > 0 and joins_previous(kept[settled]):
            settled -= 1
        settled = max(settled, 0)
        self._unsettled = kept[settled:]
        return self._scan(unicodedata.normalize("NFC", kept[:settled]))

    def settle(self) -> str:
        """Return the character held back for a coming mark; only the beginning of a tag waits on."""
        settled, self._unsettled = self._unsettled, ""
        return self._scan(unicodedata.normalize("NFC", settled))

    def finish(self) -> str:
        """Return everything held back: nothing to come belongs to it. Pieces may follow all the same."""
        settled, self._unsettled = self._unsettled, ""
        return self._scan(unicodedata.normalize("NFC", settled), final=True)

    def _filter(self, piece: str) -> str:
        if piece.isascii() and piece.isprintable():
            if piece:
                self._marks, self._joiner, self._spelt = 0, "", False
            return piece
        kept: list[str] = []
        for char in piece:
            category = unicodedata.category(char)
            if char in _JOINERS:
                self._joiner = char if self._spelt else ""
                continue
            if joins_previous(char):
                self._marks += 1
                if self._marks > MAX_MARKS:
                    continue
            elif category in ("Cc", "Cf") and not char.isspace():
                continue
            else:
                self._marks = 0
            joins = char > "\u0530" and category[0] in "LM"
            if self._joiner and joins:
                kept.append(self._joiner)
            self._joiner, self._spelt = "", joins
            kept.append("\ufffd" if category == "Cs" else char)
        return "".join(kept)

    def _scan(self, text: str, *, final: bool = False) -> str:
        """Collapse whitespace and resolve tags in normalised text, each "<" decided once and for all."""
        text = self._undecided + text
        partial = None if final else self._partial_tag.search(text)
        decided = partial.start() if partial else len(text)
        self._undecided = text[decided:]
        out: list[str] = []
        for match in _TOKEN.finditer(text, 0, decided):
            token = match[0]
            if token.isspace():
                self._newlines += token.count("\n") + 2 * token.count("\u2029")
                self._gap = "\n" if self._newlines > 1 else " "
                continue
            if len(token) <= self._hold + 1 and token[0] == "<" and token[-1] == ">":
                token = self._tags.get(token.lower()) or ("" if self._is_markup(token) else token)
            if token:
                out += (self._gap, token) if self._began else (token,)
                self._gap, self._newlines, self._began = "", 0, True
                self._last = token[-1]
        return "".join(out)

    def _is_markup(self, token: str) -> bool:
        """Whether what has the shape of a tag is one: behind a letter only what HTML knows, or what closes."""
        generic = self._last.isalnum() and not self._gap and "/" not in token
        return not generic or token[1:-1].lower() in KNOWN
