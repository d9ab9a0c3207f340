"""Plain text and SSML in blocks, for `text_blocks_child`: paragraphs, and lines that name a chapter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.platform.sandbox_child import Fault

Block = tuple[str, str, int]

_PUSH_CHARS = 8192
_WORD_NUMBER = (
    r"(?:the )?(?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)[- ])?(?:one|two|three|four|five|six|seven|"
    r"eight|nine|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|last)|ten|eleven|twelve|thirteen|fourteen|"
    r"fifteen|sixteen|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
)
_DIVISION = re.compile(
    r"(?P<word>(?i:chapter|part|book|volume|act|canto|letter|stave|section))\s+"
    rf"(?:\d{{1,4}}|[IVXLCDM]{{1,8}}|[ivxlcdm]{{1,8}}|(?i:{_WORD_NUMBER}))"
    r"(?P<title>\s*[.:—–-]\s*.{0,80}|\s+[^\W\d_a-z].{0,80}|)"
)
_NAMED = re.compile(
    r"(?:prologue|epilogue|preface|foreword|introduction|afterword|interlude|appendix)(?:\s*[.:—–-].{0,80}|)", re.I
)
_SPACES = re.compile(r"[^\S\n]+")
_LARGE = ("part", "book", "volume", "act")


def decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Fault("is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Fault(
            f"is not UTF-8: byte 0x{content[error.start]:02X} at offset {error.start} (line {line}); save it as UTF-8"
        ) from None
    if (at := text.find("\0")) >= 0:
        raise Fault(f"is no text: character {at} is a zero byte; hand in a text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def text_blocks(text: str) -> Iterator[Block]:
    """Paragraphs stand between blank lines; where there are none and lines are long, each line is one."""
    blocks = re.split(r"\n(?:[^\S\n]*\n)+", text.strip())
    if len(blocks) == 1 and max(map(len, text.split("\n"))) > 200:
        blocks = text.split("\n")
    for block in blocks:
        lines = [line.strip() for line in block.strip().split("\n")]
        if level := _heading_level(lines):
            yield "heading", " ".join(lines), level
        elif any(lines):
            yield "text", "\n".join(lines), 0


def _heading_level(lines: list[str]) -> int:
    """1 or 2 for a chapter's name on a line of its own, perhaps with its title on the next; else 0."""
    if len(lines) > 2 or not lines[0] or len(lines[-1]) > 80:
        return 0
    if match := _DIVISION.fullmatch(lines[0]):
        bare = not match["title"].strip(" .:—–-")
        sentence = not bare and match["title"].rstrip().endswith((".", "!", "?", ",", ";")) and len(lines[0]) > 60
        two_lines = len(lines) == 2 and (not bare or lines[1].endswith((".", ",", ";")))
        return 0 if sentence or two_lines else 1 if match["word"].lower() in _LARGE else 2
    return 2 if len(lines) == 1 and _NAMED.fullmatch(lines[0]) else 0


def ssml_blocks(text: str) -> list[Block]:
    """Its words, pauses as `<break>`, and what is spoken otherwise as marks (`app.speech.text.marks`)."""
    from app.speech.text.marks import PAUSE, RATE, seconds_of
    from app.speech.text.markup import Markup
    from app.speech.text.options import MarkupKind, TextOptions

    markup = Markup(TextOptions(markup=MarkupKind.SSML))
    plain = "".join(markup.push(text[at : at + _PUSH_CHARS]) for at in range(0, len(text), _PUSH_CHARS))
    plain = PAUSE.sub(lambda pause: f'<break time="{seconds_of(pause[0]):g}s"/>', plain + markup.finish())
    ignored = dict.fromkeys((*markup.ignored, *(("prosody",) if RATE.search(plain) else ())))
    blocks = text_blocks(_SPACES.sub(" ", RATE.sub("", plain)).replace("\n", "\n\n"))
    return [*blocks, *(("dropped", f"ssml: {name}", 0) for name in ignored)]
