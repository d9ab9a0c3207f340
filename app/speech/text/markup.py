"""Markdown, HTML and SSML read away from text that streams in: what is left is what a person would read aloud.

`Markup` is incremental and pure: a character, a word or a page at a time gives the same plain text. It holds back no
more than it must: a "*" until the next character, a tag until its ">", a link's text until its "]". Whatever is a block
ends in a blank line, cells are parted by commas. Pauses and respoken words become marks (`app.speech.text.marks`).

Its whole state is `MarkupState`, plain values, so that another process can take a session up. It knows nothing of
how words are read, of chunks or of the model, but for its tags.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from app.speech.text.characters import clean
from app.speech.text.code import INDENT, MAX_RUN_CHARS, Code, begins_tag, run_end
from app.speech.text.emoji import CHARS as EMOJI_CHARS
from app.speech.text.emoji import MAX_RUN_CHARS as MAX_EMOJI
from app.speech.text.emoji import emoji_end, named
from app.speech.text.html import KNOWN, Partial, tag_at
from app.speech.text.links import CITATION, CITATION_PART, CITED, MAX_LINK_CHARS, MAX_NESTED_LINKS, closing_bracket
from app.speech.text.markdown import Line, opening
from app.speech.text.marks import MAX_READING_CHARS, reading_mark, without_marks
from app.speech.text.maths import Formula, formula_at, in_words
from app.speech.text.options import EmojiReading, MarkupKind, TextOptions, options_of
from app.speech.text.plain_text import ENDED, MarkupState
from app.speech.text.spoken import is_silent
from app.speech.text.thoughts import Control, control_at
from app.speech.token_layout import ORPHEUS_TAGS

MAX_VERSE_CHARS = 60
"""Of a line that is meant to end there; prose that was broken to a width has longer ones."""
_PRIVATE = "\ue000-\uf8ff\U000f0000-\U0010ffff"
_INLINE = re.compile(rf"[^\n*_~=`\[!<&\\|$【◁\x1b\u200d{EMOJI_CHARS}{_PRIVATE}]+")
_XML = re.compile(rf"[^<&◁\u200d{EMOJI_CHARS}{_PRIVATE}]+")
_EMOJI = re.compile(f"[{EMOJI_CHARS}]")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ENTITY_PART = re.compile(r"&(?:#(?:\d{0,7}|[xX][0-9a-fA-F]{0,6})?|[A-Za-z][A-Za-z0-9]{0,31})?\Z")
_DECLARATION = re.compile(r"<[!?][^<>]*>|<!\[CDATA\[|\]\]>")
_AUTOLINK = re.compile(r"<((?!seed:)[A-Za-z][A-Za-z0-9+.-]{1,30}:[^\s<>]*|[\w.+-]+@[^\s<>]+)>")
_AUTOLINK_PART = re.compile(r"<(?:[A-Za-z][A-Za-z0-9+.-]{1,30}:[^\s<>]*|[\w.+-]*@?[^\s<>/!?]*)\Z")
_OPERATORS = tuple("!<>:+-*/%&|^")
_COLOUR = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z])?")
_COLOUR_PART = re.compile(r"\x1b(?:\[[0-9;?]{0,20})?\Z")
"""Of a terminal."""
_AFTER_NOTE = ("", "\n", ".", ",", ";", ":", "[")


class Markup(Code):
    """Makes plain text of written text, piece by piece; `source` says where plain text came from."""

    def __init__(
        self,
        options: TextOptions | None = None,
        *,
        tags: Sequence[str] = ORPHEUS_TAGS,
        state: MarkupState | None = None,
        nested: int = 0,
    ) -> None:
        super().__init__(options or TextOptions(), tags, state or MarkupState())
        if state is None and self.options.thought_open and self.options.markup is not MarkupKind.PLAIN and not nested:
            self.state.skipped, self.state.depth = "think", 1
        self._known = frozenset(self._tags) | KNOWN
        self._list = tuple(tags)
        self._nested = nested
        self._markdown = self.options.markup in (MarkupKind.AUTO, MarkupKind.MARKDOWN)

    # What a session needs.

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of what was met and is not done, each once."""
        return tuple(self.state.ignored)

    @property
    def received_chars(self) -> int:
        """Characters of written text that were pushed."""
        return self.state.raw_chars + len(self.state.held)

    def push(self, piece: str) -> str:
        """Take a piece; returns the plain text that nothing to come can change."""
        if self.options.markup is MarkupKind.PLAIN:
            return self._plainly(piece)
        return self._read(piece, final=False)

    def finish(self) -> str:
        """Return what was held back, as if nothing came after it; more may follow all the same."""
        if self.options.markup is MarkupKind.PLAIN:
            return ""
        text = self._read("", final=True)
        if self.state.said:
            self._end_said()
        return text + self._taken()

    def record(self) -> dict[str, Any]:
        """All of it, as JSON has it; see `restored`."""
        return {"options": asdict(self.options), "state": asdict(self.state), "anchors": self._anchors}

    @classmethod
    def restored(cls, record: dict[str, Any], *, tags: Sequence[str]) -> Markup:
        """The reading that a `record` is of."""
        markup = cls(options_of(record["options"]), tags=tags, state=MarkupState(**record["state"]))
        markup._anchors = [(plain, raw) for plain, raw in record["anchors"]]
        return markup

    # Reading.

    def _plainly(self, piece: str) -> str:
        plain = without_marks(piece)
        if len(plain) < len(piece):  # no one writes them: all of this piece is then taken to come from its beginning
            self._anchors.append((self.state.plain_chars, self.state.raw_chars))
            self._anchors.append((self.state.plain_chars + len(plain), self.state.raw_chars + len(piece)))
        self.state.raw_chars += len(piece)
        self.state.plain_chars += len(plain)
        return plain

    def _read(self, piece: str, *, final: bool) -> str:
        state = self.state
        text, at = state.held + piece, 0
        self._base = state.raw_chars
        while at < len(text):
            self._at = at
            end = self._step(text, at, final=final)
            if end <= at:
                break
            at = end
        state.held = text[at:]
        state.raw_chars = self._base + at
        self._at = 0
        self._base = state.raw_chars
        return self._taken()

    def _step(self, text: str, at: int, *, final: bool) -> int:
        """Read on from `at`; returns up to where. No further: more must come."""
        state = self.state
        if state.skipped:
            return self._skip(text, at, final=final)
        if state.fence == INDENT and state.line_start and not text[at].isspace():
            self._end_indented()
        if state.fence:
            return self._listing(text, at, final=final)
        if not self._markdown:
            return self._inline(text, at, _XML, final=final)
        if state.code_run and not (state.line_start and text[at] == "\n"):
            state.line_start = False
            return self._code(text, at, final=final)
        if state.line_start:
            return self._line(text, at, final=final)
        return self._inline(text, at, _INLINE, final=final)

    def _inline(self, text: str, at: int, plain: re.Pattern[str], *, final: bool) -> int:  # noqa: PLR0911, PLR0912 - one a sign
        if found := plain.match(text, at):
            if self.state.prev > "\u2000" and text[at].isalnum() and _EMOJI.match(self.state.prev):
                self._say(" ")  # words with an emoji between them are two
            self._say(found[0])
            self.state.prev = text[found.end() - 1]
            return found.end()
        char = text[at]
        if char == "<":
            return self._angle(text, at, final=final)
        if char == "&":
            return self._entity(text, at, final=final)
        if char == "\u200d":  # of a sequence of emoji, or where spelling needs it
            return at + 1 if _EMOJI.match(self.state.prev) else self._literal(text, at, at + 1)
        if char == "\n":
            return self._newline(at)
        if char in "*_~=":
            return self._run(text, at, final=final)
        if char == "`":
            return self._backticks(text, at, final=final)
        if char in "![":
            return self._bracket(text, at, final=final)
        if char in "\\$":
            return self._formula(text, at, final=final)
        if char == "◁":
            thought = self._thought("◁think▷", text, at, final=final)
            return self._literal(text, at, at + 1) if thought is None else thought
        if char == "【":
            return self._citation(text, at, final=final)
        if char == "\x1b":
            found = _COLOUR.match(text, at)
            return found.end() if found and (final or not _COLOUR_PART.match(text, at)) else at
        if char == "|":
            return self._pipe(text, at, final=final)
        if _EMOJI.match(char):
            return self._emoji(text, at, final=final)
        return at + 1  # a private character

    def _literal(self, text: str, at: int, end: int) -> int:
        self._say(text[at:end])
        self.state.prev = text[end - 1]
        return end

    # Lines.

    def _line(self, text: str, at: int, *, final: bool) -> int:
        state = self.state
        if text[at] in " \t\r":
            return self._indented(text, at, final=final)
        if text[at] == "\n":
            self._end_block()
            state.blank = True
            return at + 1
        state.blank = False
        listed = state.block == "item" or state.prev in ("", "\n") or not state.tail or state.tail[-1] in ENDED
        found = opening(text, at, final=final, lists=listed)
        if found is None:
            return at
        state.line_start = found.kind is Line.QUOTE or found.kind is Line.FOOTNOTE
        if found.kind is Line.TEXT:
            self._part_lines(text[at])
            return found.end if found.end > at else self._first(text, at, final=final)
        if found.kind is not Line.QUOTE:
            self._end_block()
        self._begin(found.kind)
        if found.kind is Line.FENCE:
            state.fence = found.fence
            state.line_start = True
            self._announce_code()
        elif found.kind in (Line.DEFINITION, Line.RULER):
            state.line_start = True
        return found.end if found.end > at else self._first(text, at, final=final)

    def _begin(self, kind: Line) -> None:
        state = self.state
        state.cell = False
        if kind in (Line.ITEM, Line.NUMBERED):
            state.block = "item"
        elif kind in (Line.HEADING, Line.ROW):
            state.block = kind.value
        else:
            state.block = ""
        state.prev = ""

    def _first(self, text: str, at: int, *, final: bool) -> int:
        """The first characters of a line that are text; `line_start` comes back where more must come."""
        end = self._inline(text, at, _INLINE, final=final)
        if end <= at:
            self.state.line_start = True
        return end

    def _part_lines(self, first: str) -> None:
        """A breath where a short line ends without a stop and another begins like one: of verse, or an address."""
        state = self.state
        ends = state.tail and state.tail[-1] not in ENDED and state.prev == "\n" and not state.block
        if ends and 0 < state.line_chars <= MAX_VERSE_CHARS and (first.isupper() or first.isdigit()):
            self._say(reading_mark("", ",") + " ")

    # Emphasis, escapes, cells, emoji.

    def _run(self, text: str, at: int, *, final: bool) -> int:
        """A run of "*", "_", "~" or "=": emphasis, which is not heard, or text."""
        state, sign, end = self.state, text[at], run_end(text, at)
        if end - at == MAX_RUN_CHARS:
            return end
        if end == len(text) and not final:
            return at
        run, following = end - at, text[end : end + 1]
        opens = bool(following) and not following.isspace()
        closes = bool(state.prev) and not state.prev.isspace()
        if sign == "~":
            literal = run == 1
        elif sign == "=":
            literal = run != 2 or opens == closes or state.prev in _OPERATORS
        elif sign == "_":
            literal = (state.prev.isalnum() and following.isalnum()) or not (opens or closes)
        else:
            between = state.prev.isalnum() and following.isalnum()
            digits = state.prev.isdigit() or following.isdigit()
            path = state.prev == "/" and following == "."  # tests/*.py
            factor = state.prev.isdigit() and not state.emphasis and (not opens or following in "([")
            literal = (
                not (opens or closes) or (between and (digits or run == 1) and not state.emphasis) or factor or path
            )
            if not literal:
                state.emphasis = max(0, state.emphasis - 1) if closes and state.emphasis else state.emphasis + opens
        return self._literal(text, at, end) if literal else end

    def _formula(self, text: str, at: int, *, final: bool) -> int:
        """Mathematics in LaTeX becomes words; else a backslash escapes, and a dollar is one."""
        reads = self.options.normalise and self.options.language_code == "en" and not self.state.said
        found = formula_at(text, at, final=final) if reads else False
        if found is None:
            return at
        if found:
            assert isinstance(found, Formula)
            self._say_as(" ".join(found.written.split()), in_words(found.written))
            self.state.prev = "x"
            return found.end
        return self._escape(text, at, final=final) if text[at] == "\\" else self._literal(text, at, at + 1)

    def _citation(self, text: str, at: int, *, final: bool) -> int:
        """`【3†source】`, as assistants with a search cite: not read."""
        if found := CITATION.match(text, at):
            return found.end()
        return at if not final and CITATION_PART.match(text, at) else self._literal(text, at, at + 1)

    def _escape(self, text: str, at: int, *, final: bool) -> int:
        if at + 1 == len(text):
            return self._literal(text, at, at + 1) if final else at
        following = text[at + 1]
        if following.isascii() and following.isprintable() and not following.isalnum() and following != " ":
            self._say(following)
            self.state.prev = following
            return at + 2
        return self._literal(text, at, at + 1)

    def _pipe(self, text: str, at: int, *, final: bool) -> int:
        """Between two cells, also of a table whose rows do not begin with one."""
        state = self.state
        if state.block != "row":
            if state.prev not in (" ", "\t"):
                return self._literal(text, at, at + 1)
            if at + 1 == len(text) and not final:
                return at
            if text[at + 1 : at + 2] not in (" ", "\t"):
                return self._literal(text, at, at + 1)
        state.block, state.cell, state.prev = "row", True, " "
        return at + 1

    def _emoji(self, text: str, at: int, *, final: bool) -> int:
        end = emoji_end(text, at)
        if self.state.prev == "\n":  # lines that begin with emoji are a list
            self._end_block()
        if self.options.emoji is EmojiReading.DROP:
            self.state.prev = text[at]
            return end  # of a sequence that is cut, the rest is emoji by itself
        if end == len(text) and end - at < MAX_EMOJI and not final:
            return at
        name, chars = named(text[at:end], most=MAX_READING_CHARS)
        if name:
            self._say(("" if self.state.prev in ("", " ", "\n") else " ") + reading_mark(text[at : at + chars], name))
            self.state.prev = "x"
        return at + chars

    def _entity(self, text: str, at: int, *, final: bool) -> int:
        if found := _ENTITY.match(text, at):
            char = html.unescape(found[0])
            if char == "<" and text[found.end() :] in ("", "/") and not final:
                return at
            if char == "<" and begins_tag(text, found.end(), self.state.prev):
                char = " "
            self._say(without_marks(char.replace("\xa0", " ")))
            self.state.prev = char[-1:]
            return found.end()
        if not final and _ENTITY_PART.match(text, at):
            return at
        return self._literal(text, at, at + 1)

    def _thought(self, opens: str, text: str, at: int, *, final: bool) -> int | None:
        """Up to behind `opens`, which begins what is not read; `at` where it may yet come, None where it does not."""
        if text.startswith(opens, at):
            self.state.skipped = opens
            return at + len(opens)
        return at if not final and opens.startswith(text[at:]) else None

    # Links, pictures, footnotes.

    def _bracket(self, text: str, at: int, *, final: bool) -> int:  # noqa: PLR0911, PLR0912 - one a kind
        """A link becomes its text, a picture its description; what points to a note is not read."""
        state, picture = self.state, text[at] == "!"
        if picture:
            if state.prev and not state.prev.isspace():
                return self._literal(text, at, at + 1)
            if at + 1 == len(text) and not final:
                return at
            if text[at + 1 : at + 2] != "[":
                return self._literal(text, at, at + 1)
        begin = at + picture
        if (thought := self._thought("[THINK]", text, begin, final=final)) is not None:
            return thought if state.skipped else at
        end = closing_bracket(text, begin)
        if end is None and len(text) - begin < MAX_LINK_CHARS and not final:
            return at
        if not end:
            return self._literal(text, at, begin + 1)
        if end == len(text) and not final:
            return at
        inner, following = text[begin + 1 : end - 1], text[end : end + 1]
        cited = state.prev and (not state.prev.isspace() or (state.prev != "\n" and following in _AFTER_NOTE))
        if inner.startswith("^") or (cited and CITED.fullmatch(inner)):
            note = following != "("
            if note:
                return end
        if following == "(":
            state.skipped, state.depth = "(", 1
            return self._link(inner, end + 1, picture=picture)
        if following == "[":
            target = text.find("]", end)
            if target < 0 and len(text) - end < MAX_LINK_CHARS and "\n" not in text[end:] and not final:
                return at
            if 0 <= target < end + MAX_LINK_CHARS and "\n" not in text[end:target]:
                return self._link(inner, target + 1, picture=picture)
        if picture:
            return self._link(inner, end, picture=picture)
        return self._literal(text, at, begin + 1)

    def _link(self, inner: str, end: int, *, picture: bool) -> int:
        if self._nested < MAX_NESTED_LINKS:
            child = Markup(self.options, tags=self._list, nested=self._nested + 1)
            child.state.line_start, child.state.prev = False, self.state.prev
            inner = child.push(inner) + child.finish()
        self._at += 2 if picture else 1
        self._say(inner)
        self.state.prev = inner[-1:] or self.state.prev
        return end

    # Tags.

    def _angle(self, text: str, at: int, *, final: bool) -> int:  # noqa: PLR0911 - one a kind
        state = self.state
        if text.startswith("<!--", at):
            state.skipped = "!--"
            return at + 4
        if found := _DECLARATION.match(text, at):
            return found.end()
        if control := control_at(text, at, final=final):
            assert isinstance(control, Control)
            self._end_block()
            state.skipped = control.thought
            return control.end
        rest = text[at : at + 50]
        waits = control is None or rest in ("<", "<!", "<!-", "<?")
        if waits or (rest.startswith(("<!", "<?")) and ">" not in text[at:] and len(text) - at < MAX_LINK_CHARS):
            return self._literal(text, at, at + 1) if final else at
        if address := _AUTOLINK.match(text, at):
            self._say(address[1])
            state.prev = "x"
            return address.end()
        if not final and _AUTOLINK_PART.match(text, at):
            return at if len(text) - at < MAX_LINK_CHARS else self._literal(text, at, at + 1)
        tag = tag_at(text, at, after_word=state.prev.isalnum(), known=self._known)
        if isinstance(tag, Partial) and not final:
            return at
        if tag is None or isinstance(tag, Partial):
            return self._literal(text, at, at + 1)
        self._obey(tag)
        return tag.end


def has_nothing_to_speak(text: str, options: TextOptions, *, tags: Sequence[str] = ORPHEUS_TAGS) -> bool:
    """Whether a whole text leaves no word, no tag and no pause: an emoji, "…", a thought. That is no error."""
    markup = Markup(options, tags=tags)
    return is_silent(clean(markup.push(text) + markup.finish(), tags=tags))
