"""Program code in a text: in fences, between backticks, indented. Which of it is spoken is the sender's choice."""

from __future__ import annotations

import re

from app.speech.text.elements import Elements
from app.speech.text.marks import without_marks
from app.speech.text.options import CodeReading

INDENT = "    "
"""What stands for the fence of a listing that has none, but is indented."""
MAX_INDENTED_CHARS = 200
MAX_RUN_CHARS = 40
"""Of a row of one sign; a longer one is an ornament."""

_INDENTED = re.compile(r"(?: {4}|\t)[ \t]*")
_INDENTED_PART = re.compile(r" {1,3}\Z")
_OF_CODE = re.compile(
    r"[;{}]\s*\Z|\w\([^()]*\)[;:]?\s*\Z|\w\s?[-+*/:]?=\s?\S|\A\s*(?:[$>%] |//|#!|</?\w)"
    r"|\A\s*(?:sudo|pip3?|npm|npx|git|docker|curl|wget|brew|apt(?:-get)?|kubectl|mkdir|chmod|ssh) \S"
    r"|\A\s*(?:def|class|for|while|if|else|import|from|return|let|const|var|function|sudo|pip3?|npm|git|cd|docker|curl"
    r"|python3?|make|echo)\b.*(?:[:({=/-]|\w\.\w)"
)
"""What a line of code has that one of prose has not: an indented paragraph may be a quotation, or verse."""
_TAG_NAME = re.compile("/?[A-Za-z]")
_CODE = re.compile("[^`\n<\ue000-\uf8ff\U000f0000-\U0010ffff]+")


class Code(Elements):
    """Plain text and elements, and code among them."""

    def _newline(self, at: int) -> int:
        state = self.state
        state.line_chars, state.line_began = state.plain_chars - state.line_began, state.plain_chars
        if state.block in ("heading", "row"):
            self._end_block()
        else:
            self._say("\n")
        state.line_start = True
        state.prev = "\n"
        return at + 1

    def _indented(self, text: str, at: int, *, final: bool) -> int:
        """Spaces at a line's beginning: behind an empty line, code begins with four, if it looks like any."""
        state = self.state
        if not state.blank or state.block:
            return at + 1
        found = _INDENTED.match(text, at)
        if found is None:
            return at if not final and _INDENTED_PART.match(text, at) else at + 1
        end = text.find("\n", at)
        if end < 0 and not final and len(text) - at < MAX_INDENTED_CHARS:
            return at
        line = text[found.end() :] if end < 0 else text[found.end() : end]
        if not _OF_CODE.search(line):
            state.blank = not line.strip()
            return found.end()
        state.fence = INDENT
        self._announce_code()
        return self._listing(text, at, final=final)

    def _end_indented(self) -> None:
        self.state.fence, self.state.blank = "", False
        self._end_block()

    def _listing(self, text: str, at: int, *, final: bool) -> int:
        """Within a fence: up to the line that closes it."""
        state = self.state
        end = text.find("\n", at)
        line = text[at:] if end < 0 else text[at:end]
        run, mark = state.fence, line.lstrip("> \t").rstrip()  # within a quotation, too
        closes = run != INDENT and state.line_start and mark and not mark.strip(run[0]) and len(mark) >= len(run)
        if (
            end < 0
            and not final
            and state.line_start
            and (len(line) < MAX_INDENTED_CHARS if run == INDENT else not mark.strip(run[0]))
        ):
            return at
        if closes:
            state.fence = ""
            self._end_block()
        elif self.options.code is CodeReading.READ:
            self._say(without_marks(line if end < 0 else line + "\n"))
        state.line_start = end >= 0
        return len(text) if end < 0 else end + 1

    def _backticks(self, text: str, at: int, *, final: bool) -> int:
        state = self.state
        end = run_end(text, at)
        run = end - at
        if run == MAX_RUN_CHARS:
            return end
        if end == len(text) and not final:
            return at
        if not state.code_run:
            state.code_run, state.prev = run, " "
            if run >= 3:
                self._announce_code()
            return end
        if run == state.code_run:
            state.code_run = 0
        state.prev = "x"
        return end

    def _code(self, text: str, at: int, *, final: bool) -> int:
        """Within code in a line, where nothing is markup. Three backticks make a listing of it."""
        if text[at] == "`":
            return self._backticks(text, at, final=final)
        if text[at] == "\n":
            return self._newline(at)
        found = _CODE.match(text, at)
        if found is None:
            return at + 1 if text[at] != "<" else self._bracket_in_code(text, at, final=final)
        self._say_code(found[0])
        return found.end()

    def _bracket_in_code(self, text: str, at: int, *, final: bool) -> int:
        """Of a tag in code its name is heard: `<div>`. Elsewhere the sign stays."""
        if text[at:] in ("<", "</") and not final:
            return at
        self._say_code(" " if begins_tag(text, at + 1, self.state.prev) else "<")
        return at + 1

    def _say_code(self, code: str) -> None:
        if self.state.code_run < 3 or self.options.code is CodeReading.READ:
            self._say(code)
        self.state.prev = code[-1]


def run_end(text: str, at: int) -> int:
    """Where a row of one character ends, or MAX_RUN_CHARS of it do."""
    end = at
    while end < min(len(text), at + MAX_RUN_CHARS) and text[end] == text[at]:
        end += 1
    return end


def begins_tag(text: str, at: int, before: str) -> bool:
    """Whether a "<" that is no tag itself, but stands for one, would begin it: its `<` is not heard then."""
    return not before.isalnum() and _TAG_NAME.match(text, at) is not None
