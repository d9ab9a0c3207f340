"""Numbers, dates, currency and abbreviations of a book as words.

English is read as in live sessions, by `app.speech.text.spoken`; other languages by NeMo's grammars, in a process of
their own.

`write_script` makes the script of a manuscript; `Normaliser` reads sentences, and sends the subprocess
(`app.narration.normaliser_child`) only what is not words already: a number and the words around it, since its time
grows with the length. A sentence on which it hangs, crashes twice or returns garbage is left as written, with a
finding. Scripts are made by `app.narration.script`.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import PIPE
from textwrap import wrap
from typing import Any, Self

from app.errors import ManuscriptUnfit, StageFailed
from app.narration.models import Manuscript, NarrationOptions, Script, TextFinding
from app.narration.script import Draft, VoiceOf
from app.platform import sandbox
from app.speech.text import has_speech
from app.speech.text.marks import MAX_READING_CHARS, START, reading_mark
from app.speech.text.maths import formulas_in, in_words
from app.speech.text.options import TextOptions
from app.speech.text.spoken import has_rules, spoken

LANGUAGES = frozenset("ar de en es fr hi hu hy it ja ko pt sv vi zh".split())  # noqa: SIM905
"""What the grammars of NeMo 1.2 read, tried with a sentence of each; without Kinyarwanda, which speaks internals."""

_SCRIPT = Path(__file__).with_name("normaliser_child.py")
_DIGIT_OR_SIGN = re.compile(r"[\d$€£¥₹%°§&@#½¼¾]")
_CONTEXT_WORDS = 3
_LINE_BYTES = 2**20
_MARK = re.compile(r"\s*([“”‘’—])\s*")
_STOP = re.compile(r"[.!?…]+(?=[\"'”’)\]]*\Z)")


@dataclass(frozen=True)
class NormaliserLimits:
    """What reading may take; a number takes 20 to 200 ms of one core, and the process 80 MB."""

    start_s: float = 60.0
    sentence_s: float = 30.0
    total_s: float = 1800.0
    """Of one text's numbers; once spent, the rest is left as written. A text of nothing but numbers takes hours."""
    losses: int = 5
    """Processes that may die or hang over one text, before the rest of it is left as written."""
    memory_bytes: int = 2**30


async def write_script(
    manuscript: Manuscript,
    options: NarrationOptions,
    *,
    tags: Sequence[str],
    language: str,
    voice_of: VoiceOf | None = None,
    operator: TextOptions | None = None,
) -> Script:
    """The script of a manuscript in `language` ("en", "en-GB", …), with `tags` kept as the voice knows them.

    `operator` says how addresses and emoji are read.

    Raises ManuscriptUnfit where nothing can be spoken, or the normaliser cannot be kept running over this text;
    StageFailed where it does not start.
    """
    draft = await asyncio.to_thread(Draft, manuscript, options, tags=tags, voice_of=voice_of)
    code, findings = language.partition("-")[0].lower(), list[TextFinding]()
    read = partial(
        _readings, options=replace(operator or TextOptions(), language=language, normalise=options.normalise), tags=tags
    )
    if options.normalise and not has_rules(code) and code in LANGUAGES:
        async with Normaliser(code, tags=tags) as normaliser:
            while unread := draft.unread:
                plain = await asyncio.to_thread(read, unread)
                readings = await normaliser.read(list(plain.values()))
                await asyncio.to_thread(draft.take, {sentence: readings[words] for sentence, words in plain.items()})
    else:
        if options.normalise and not has_rules(code):
            message = (
                f"there is no normaliser for the language {language!r}: numbers and abbreviations are spoken as "
                f"written; the languages are {', '.join(sorted(LANGUAGES))}"
            )
            findings.append(TextFinding(severity="check", code="not_normalised", message=message))
        while unread := draft.unread:
            await asyncio.to_thread(draft.take, await asyncio.to_thread(read, unread))
    return await asyncio.to_thread(draft.script, language=language, findings=findings)


def _readings(sentences: Sequence[str], *, options: TextOptions, tags: Sequence[str]) -> dict[str, str]:
    """Sentences as live sessions read them; languages without rules lose their emoji, and have paragraphs end."""
    formulas = options.normalise and has_rules(options.language_code)
    return {
        sentence: spoken(_with_formulas(sentence) if formulas else sentence, options, tags=tags)
        for sentence in sentences
    }


def _with_formulas(sentence: str) -> str:
    """What is LaTeX, marked with its words."""
    if START in sentence or not ("$" in sentence or "\\" in sentence):
        return sentence
    parts, at = list[str](), 0
    for start, formula in formulas_in(sentence):
        words = wrap(in_words(formula.written), MAX_READING_CHARS)
        parts += (sentence[at:start], " ".join(reading_mark("", piece) for piece in words))
        at = formula.end
    return "".join((*parts, sentence[at:]))


class Normaliser:
    """Reads the sentences of one language as words: `async with Normaliser("en") as normaliser`.

    Its process starts with the first sentence that needs it and ends with the block.
    """

    def __init__(self, language: str, *, tags: Sequence[str] = (), limits: NormaliserLimits | None = None) -> None:
        self._language = language
        self._tags = re.compile("(" + ("|".join(map(re.escape, tags)) or "(?!)") + ")")
        self._limits = limits or NormaliserLimits()
        self._process: asyncio.subprocess.Process | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the block
        self._losses = 0
        self._spent_s = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()
        self._complaints.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def read(self, sentences: Sequence[str]) -> dict[str, str | None]:
        """How each sentence is spoken; None: it could not be read. Raises ManuscriptUnfit, StageFailed."""
        prepared = await asyncio.to_thread(self._prepared, sentences)
        return {sentence: await self._read(parts) for sentence, parts in prepared.items()}

    def _prepared(self, sentences: Sequence[str]) -> dict[str, list[str]]:
        """Each sentence in parts: words, what must be read, words, …"""
        return {s: self._parts(s) for s in sentences}

    def _parts(self, text: str) -> list[str]:
        parts = [""]
        for number, run in enumerate(self._tags.split(text)):
            done = 0
            for start, end in [] if number % 2 else self._unread(run):
                parts[-1] += run[done:start]
                parts += (run[start:end], "")
                done = end
            parts[-1] += run[done:]
        return parts

    def _unread(self, text: str) -> list[tuple[int, int]]:
        """Where there are no words, with three words on either side; what overlaps is one."""
        if self._is_plain(text):
            return []
        words = [match.span() for match in re.finditer(r"\S+", text)]
        spans: list[tuple[int, int]] = []
        for number, (start, end) in enumerate(words):
            if self._is_plain(text[start:end]):
                continue
            first = words[max(0, number - _CONTEXT_WORDS)][0]
            last = words[min(len(words) - 1, number + _CONTEXT_WORDS)][1]
            if spans and first <= spans[-1][1]:
                first = spans.pop()[0]
            spans.append((first, last))
        return spans

    def _is_plain(self, text: str) -> bool:
        return _DIGIT_OR_SIGN.search(text) is None

    async def _read(self, parts: Sequence[str]) -> str | None:
        spoken: list[str] = []
        for number, part in enumerate(parts):
            reading = mended(part, await self._ask(part)) if number % 2 else part
            if reading is None:
                return None
            spoken.append(reading)
        return "".join(spoken)

    async def _ask(self, text: str) -> str | None:
        """The process's answer; a process that dies or hangs over a sentence is restarted, once for each."""
        if self._spent_s > self._limits.total_s or self._losses > self._limits.losses:
            return None
        for _ in range(2):
            process = self._process or await self._start()
            began_s = time.monotonic()
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(self._limits.sentence_s):
                    answer = await _exchange(process, {"text": text})
                if answer is not None:
                    self._spent_s += time.monotonic() - began_s
                    return answer["text"]
            await self._end()
            self._losses += 1
            if self._losses > self._limits.losses:
                if self._spent_s:
                    return None
                raise ManuscriptUnfit(
                    f"The normaliser died or hung {self._losses} times and read nothing; it said: "
                    f"{self._last_words()}. Look for what kills it (memory?), or hand the text in with normalise off."
                )
        return None

    async def _start(self) -> asyncio.subprocess.Process:
        bounds = {"AS": self._limits.memory_bytes}
        self._process = process = await asyncio.create_subprocess_exec(
            *sandbox.command(_SCRIPT, {"language": self._language}, bounds),
            stdin=PIPE,
            stdout=PIPE,
            stderr=self._complaints,
            start_new_session=True,
            limit=_LINE_BYTES,
            env=sandbox.ENVIRONMENT,
        )
        try:
            async with asyncio.timeout(self._limits.start_s):
                ready = await _exchange(process, None)
        except TimeoutError:
            ready = None
        if ready is None:
            await self._end()
            raise StageFailed(f"The normaliser did not start; it said: {self._last_words()}.")
        return process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        sandbox.kill_group(process.pid)
        await asyncio.shield(process.wait())
        if process.stdin:
            process.stdin.close()

    def _last_words(self) -> str:
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else "nothing"


async def _exchange(process: asyncio.subprocess.Process, line: dict[str, str] | None) -> dict[str, Any] | None:
    """Write a line, if there is one, and return the next response; None where the process has ended."""
    assert process.stdin and process.stdout
    if line is not None:
        process.stdin.write(json.dumps(line).encode() + b"\n")
        await process.stdin.drain()
    answer = await process.stdout.readline()
    return json.loads(answer) if answer.endswith(b"\n") else None


def mended(written: str, reading: str | None) -> str | None:
    """A reading as it is spoken, or None for nonsense.

    They swallow a full stop with an abbreviation ("at 10 p.m." is "at ten PM"), and return a sentence that they fail
    at with backslashes before its brackets, or as they see it within ("tokens { name: …").
    """
    if not reading or not has_speech(reading) or any(reading.count(sign) > written.count(sign) for sign in "\\{}"):
        return None
    words = Counter(re.findall(r"\b[a-z]{4,}\b", written))
    lost = (words - Counter(re.findall(r"\b[a-z]{4,}\b", reading.lower()))).total()
    if lost > max(2, words.total() // 5):
        return None
    stop = _STOP.search(written)
    reading = _spaced(written, " ".join(reading.split()))
    return reading + stop[0] if stop and reading[-1].isalnum() else reading


def _spaced(written: str, reading: str) -> str:
    """Quotes and dashes with the spaces that were written: the grammars read `said—“8!”` as `said —“ eight!”`."""
    marks = list(_MARK.finditer(written.strip()))
    if [mark[1] for mark in marks] != [mark[1] for mark in _MARK.finditer(reading)]:
        return reading
    following = iter(marks)
    return _MARK.sub(lambda _: next(following)[0], reading)
