"""What language models write besides their answer: thoughts, the headers of turns, and tokens of control.

Each family has its own marks: `<think>` in HTML's shape, `[THINK]`, `◁think▷`, `<|begin_of_thought|>`, and channels, of
which one is the answer (`<|channel|>analysis<|message|>…<|end|>`). It says where such a mark ends and what it begins;
what is done about it is `app.speech.text.markup`'s matter.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from app.speech.text.html import REASONING
from app.speech.text.options import MarkupKind, TextOptions

MAX_HEADER_CHARS = 120

ENDS = {
    "[THINK]": ("[/THINK]",),
    "◁think▷": ("◁/think▷",),
    "<|begin_of_thought|>": ("<|end_of_thought|>",),
    "<|START_THINKING|>": ("<|END_THINKING|>",),
    "<|message|>": ("<|end|>", "<|call|>"),
    "!--": ("-->",),
}
"""What is not read by its opening mark, a comment of HTML among them, and what ends it."""

THOUGHTS = ("[THINK]", "◁think▷", "<|begin_of_thought|>", "<|START_THINKING|>")
"""Of these, what thoughts begin with."""
_HEADERS = {
    "start": "<|message|>", "channel": "<|message|>", "start_header_id": "<|end_header_id|>", "im_start": "\n",
}  # fmt: skip
"""Tokens behind which stands who speaks and to whom, up to another."""
_TOKEN = re.compile(r"<([|｜])([\w▁-]{1,40})\1>")
_TOKEN_PART = re.compile(r"<[|｜][\w▁-]{0,40}[|｜]?\Z")
_UNSPOKEN_CHANNEL = re.compile(r"(?:\A|<\|channel\|>)\s*analysis|\bto=")
"""Of thoughts, and of calls to tools."""
_THOUGHT = re.compile(rf"<(?:{'|'.join(sorted(REASONING))})\b", re.I)
_THOUGHT_END = re.compile(
    rf"</(?:{'|'.join(sorted(REASONING))})\s*>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|END_THINKING)\|>", re.I
)
_WHOLE_OPENING = re.compile(
    rf"(?<!`)(?:(?i:<({'|'.join(sorted(REASONING))})\b[^<>]{{0,200}}>)|{'|'.join(map(re.escape, THOUGHTS))})"
)


class Control(NamedTuple):
    """A token of control, up to the end of its header. `thought` is a key of ENDS where it begins one."""

    end: int
    thought: str = ""


def control_at(text: str, at: int, *, final: bool) -> Control | bool | None:
    """The token of control that begins at `text[at]`; False: there is none; None: more must come."""
    found = _TOKEN.match(text, at)
    if found is None:
        return None if not final and _TOKEN_PART.match(text, at) else False
    if found[0] in ENDS and found[2] != "message":
        return Control(found.end(), thought=found[0])
    closes = _HEADERS.get(found[2])
    if closes is None:
        return Control(found.end())
    end = text.find(closes, found.end(), found.end() + MAX_HEADER_CHARS)
    if end < 0:
        return None if not final and len(text) - found.end() < MAX_HEADER_CHARS else Control(found.end())
    unspoken = closes == "<|message|>" and _UNSPOKEN_CHANNEL.search(text[found.end() : end])
    return Control(end + len(closes), thought=closes if unspoken else "")


def behind_thought(text: str, options: TextOptions) -> str:
    """What is left of a whole text that begins within a thought, as some models' templates have it: `… </think>`.

    In text that streams in, what comes before that tag has been spoken by the time it comes; there, `thought_open` is
    to be said.
    """
    if options.markup is MarkupKind.PLAIN or options.thought_open:
        return text
    end = _THOUGHT_END.search(text)
    if end is None or _THOUGHT.search(text, 0, end.start()) or text.count("`", 0, end.start()) % 2:
        return text
    opened = any(opens in text[: end.start()] for opens, ends in ENDS.items() if end[0] in ends)
    return text if opened else text[end.end() :]


def without_thoughts(text: str) -> tuple[str, int]:
    """A whole text without the thoughts that have both their marks, and how many they were.

    One that has no end is text: a book may well name the mark.
    """
    kept, at, thoughts = list[str](), 0, 0
    endless: set[str] = set()
    for opening in _WHOLE_OPENING.finditer(text):
        closing = f"</{opening[1].lower()}>" if opening[1] else ENDS[opening[0]][0]
        if opening.start() < at or closing in endless:
            continue
        end = re.compile(re.escape(closing).replace(">", r"\s*>"), re.I).search(text, opening.end())
        if end is None:
            endless.add(closing)  # nor has a later one
            continue
        kept.append(text[at : opening.start()])
        at, thoughts = end.end(), thoughts + 1
    return "".join((*kept, text[at:])), thoughts
