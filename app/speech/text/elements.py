"""What is done about the elements of HTML and SSML, and about what is not read at all."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from app.speech.text.html import BLOCKS, CALLS, REASONING, SSML_IGNORED, UNSPOKEN, Tag
from app.speech.text.marks import (
    MAX_PAUSE_S,
    MAX_RATE,
    MIN_RATE,
    START,
    pause_mark,
    rate_mark,
    reading_mark,
    without_marks,
)
from app.speech.text.options import CodeReading, MarkupKind, TextOptions
from app.speech.text.plain_text import CLOSERS, ENDED, MarkupState, PlainText
from app.speech.text.thoughts import ENDS

MAX_OPEN_TAG_CHARS = 400

_PAUSES_S = {"none": 0.0, "x-weak": 0.1, "weak": 0.25, "medium": 0.5, "strong": 0.8, "x-strong": 1.2}
_RATES = {"x-slow": 0.6, "slow": 0.8, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6}
_PERCENTAGE = re.compile(r"([+-]?)(\d{1,4}(?:\.\d{1,3})?)%")
_FACTOR = re.compile(r"\d{1,3}(?:\.\d{1,3})?|\.\d{1,3}")
MAX_NESTED = 32
_TIME = re.compile(r"\+?(\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})\s*(ms|s)", re.I)


def _rate(written: str) -> float | None:
    """Of SSML: a word, a percentage of the usual one or more or less than it, a factor. None: none of these."""
    if found := _PERCENTAGE.fullmatch(written):
        rate = (100.0 if found[1] else 0.0) + float(found[1] + found[2])
    elif _FACTOR.fullmatch(written):
        rate = 100 * float(written)
    else:
        return _RATES.get(written)
    return max(MIN_RATE, min(rate / 100, MAX_RATE))


class Elements(PlainText):
    """Plain text that knows what tags say."""

    def __init__(self, options: TextOptions, tags: Sequence[str], state: MarkupState) -> None:
        super().__init__(state)
        self.options = options
        self._tags = {tag.strip("<>").lower(): tag for tag in tags}
        self._ssml = options.markup in (MarkupKind.AUTO, MarkupKind.SSML)

    def _obey(self, tag: Tag) -> None:  # noqa: PLR0912 - a branch for each kind
        """Do what a tag says."""
        state, name = self.state, tag.name
        if name in self._tags and not tag.closing and not tag.attributes:
            self._say(self._tags[name])
            state.prev = ">"
            return
        if state.said and (tag.closing and name == state.said):
            self._end_said()
            return
        if not tag.closing and not tag.empty and self._is_silent(tag):
            state.skipped, state.depth = name, 1
            if name not in REASONING:
                state.prev = state.prev or " "
            if name == "pre":
                self._announce_code()
            return
        if name == "break" and self._ssml:
            self._break(tag)
        elif name == "prosody":
            self._prosody(tag)
        elif name == "sub" and "alias" in tag.attributes and self._ssml:
            self._begin_said("sub", tag.attributes["alias"])
        elif name == "say-as" and self._ssml and not tag.closing:
            self._begin_said("say-as", f"{tag.attributes.get('interpret-as', '')} {tag.attributes.get('format', '')}")
        elif name == "s" and self._ssml:
            self._sentence(tag)
        elif name in BLOCKS or (tag.closing and name in REASONING):  # a thought whose beginning was not sent
            self._end_block()
        elif name == "br" and state.block == "row":
            state.cell = True
        elif name == "br":
            self._say("\n")
            state.prev = "\n"
        elif name in ("td", "th"):
            state.block, state.cell = "row", True
        elif name == "img":
            self._say(without_marks(html.unescape(tag.attributes.get("alt", ""))))
        elif name in SSML_IGNORED and not tag.closing and name not in state.ignored:
            state.ignored.append(name)

    def _is_silent(self, tag: Tag) -> bool:
        listing = tag.name == "pre" and self.options.code is not CodeReading.READ
        return tag.name in UNSPOKEN or listing or (tag.hidden and tag.name not in ("br", "img", "hr", "input"))

    def _sentence(self, tag: Tag) -> None:
        state = self.state
        if not tag.closing:
            core = state.tail.rstrip(CLOSERS)
            state.sentence = not core or core[-1] in ENDED or self.options.markup is MarkupKind.SSML
        elif state.sentence:
            self._end_block()

    def _break(self, tag: Tag) -> None:
        if tag.closing:
            return
        time, strength = tag.attributes.get("time", ""), tag.attributes.get("strength", "medium")
        found = _TIME.fullmatch(time.strip())
        pause_s = _PAUSES_S.get(strength, 0.5)
        if found:
            pause_s = float(found[1]) / (1000 if found[2].lower() == "ms" else 1)
        if ((time and not found) or pause_s > MAX_PAUSE_S) and "break" not in self.state.ignored:
            self.state.ignored.append("break")
        if pause_s:
            self._say(f" {pause_mark(pause_s)} ")
            self.state.prev = " "

    def _prosody(self, tag: Tag) -> None:
        """Of what it may say of a voice, only its rate is done."""
        state = self.state
        if tag.closing:
            del state.rates[-1:]
        elif not tag.empty and len(state.rates) < MAX_NESTED:
            rate = _rate(tag.attributes.get("rate", "").strip().lower()) if self._ssml else None
            state.rates.append(rate or state.rate)
            if (rate is None or len(tag.attributes) > 1) and "prosody" not in state.ignored:
                state.ignored.append("prosody")
        rate = state.rates[-1] if state.rates else 1.0
        if rate != state.rate:
            state.rate = rate
            self._say(f" {rate_mark(rate)} ")
            state.prev = " "

    def _begin_said(self, name: str, how: str) -> None:
        if self.state.said:
            self._end_said()
        self._say(START)
        self.state.said, self.state.said_as, self.state.inner = name, how, ""

    def _end_block(self) -> None:
        """A blank line, or the border of an element."""
        state = self.state
        state.block, state.code_run, state.emphasis, state.cell, state.gap = "", 0, 0, False, False
        if state.tail:
            self._say("\n\n")
        state.prev, state.line_chars, state.line_began = "\n", 0, state.plain_chars

    def _announce_code(self) -> None:
        if self.options.code is CodeReading.ANNOUNCE and self.options.language_code == "en":
            self._say(reading_mark("", "Code block."))
            self._say(" ")

    def _skip(self, text: str, at: int, *, final: bool) -> int:
        """On to the end of what is skipped; a flush does not end it."""
        name = self.state.skipped
        if name == "(":
            return self._target(text, at)
        if name in ENDS:
            return self._skip_to(ENDS[name], text, at, final=final)
        pattern = re.compile(rf"<(/?){re.escape(name)}(?=[\s/>])[^<>]*>", re.I)
        for found in pattern.finditer(text, at):
            raw = name in REASONING | CALLS or name in ("script", "style")  # whose text may speak of tags
            self.state.depth += -1 if found[1] else 0 if raw or found[0].endswith("/>") else 1
            if self.state.depth <= 0:
                self.state.skipped = ""
                return found.end()
            at = found.end()
        last = text.rfind("<", at)
        rest = text[last:].lower() if last >= 0 else ""
        part = rest and ">" not in rest and len(rest) < MAX_OPEN_TAG_CHARS
        if (
            part
            and not final
            and any(tag.startswith(rest) or rest.startswith(tag) for tag in (f"<{name}", f"</{name}"))
        ):
            return last
        return len(text)

    def _skip_to(self, ends: Sequence[str], text: str, at: int, *, final: bool) -> int:
        found = min(((text.find(end, at), end) for end in ends if end in text[at:]), default=None)
        if found:
            self.state.skipped = ""
            return found[0] + len(found[1])
        if final:
            return len(text)
        most = min(max(map(len, ends)) - 1, len(text) - at)
        keep = next((n for n in range(most, 0, -1) if any(end.startswith(text[-n:]) for end in ends)), 0)
        return len(text) - keep

    def _target(self, text: str, at: int) -> int:
        """A link's target and title, up to the bracket that closes it, or the paragraph's end."""
        state = self.state
        while at < len(text):
            char = text[at]
            if char == "\n" and state.prev == "\n":
                state.skipped, state.line_start = "", True
                self._end_block()
                return at + 1
            state.prev = char if char == "\n" else "x"
            at += 1
            state.depth += (char == "(") - (char == ")")
            if not state.depth:
                state.skipped = ""
                break
        return at
