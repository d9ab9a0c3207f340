"""Assigns transcripts to recordings: manifests and side files. Pure text."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from pathlib import PurePosixPath

from app.errors import InvalidRequest
from app.platform.file_names import shown_name

MAX_TRANSCRIPT_CHARS = 200_000
"""Two hours read aloud fast."""

MAX_LINE_CHARS = 4096 + 12 * MAX_TRANSCRIPT_CHARS
"""Of JSON: a transcript of which every character is escaped, and a file name."""

_FILE_COLUMNS = ("file", "file_name", "filename", "audio", "path", "id")
_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TEXT_COLUMNS = ("text", "transcript", "transcription", "sentence", "normalized_text")


def stem(name: str) -> str:
    return PurePosixPath(name).stem


def transcript(text: str) -> str | None:
    """A transcript on one line, None for an empty one. Raises InvalidRequest for one that no recording can be of."""
    clean = "".join(" " if unicodedata.category(char) in _NO_TEXT else char for char in text)
    line = " ".join(clean.split())
    if len(line) > MAX_TRANSCRIPT_CHARS:
        raise InvalidRequest(
            f"the transcript has {len(line)} characters; at most {MAX_TRANSCRIPT_CHARS}", param="transcript"
        )
    return line or None


def decoded(data: bytes, *, name: str) -> str:
    """The text of a UTF-8 file, with a byte order mark or without. Raises InvalidRequest naming a line that is none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidRequest(f"{name}, line {line}: it is not UTF-8; save it as UTF-8", param="transcripts") from None


def is_sidecar(name: str) -> bool:
    return name.lower().endswith(".txt")


def parse_manifest(text: str) -> list[tuple[str, str]]:
    """The (file name, transcript) pairs of a manifest, in its order.

    JSON lines (`{"file": "a.wav", "text": "…"}`), CSV with a header that has `file` and `text`, or lines divided by
    `|`, whose first column names the file, with or without its ending, and whose last is the text (LJSpeech).
    Raises InvalidRequest naming the line that cannot be read.
    """
    text = text.removeprefix("\ufeff")
    first = next((line for line in text.splitlines() if line.strip()), "")
    if not first:
        raise InvalidRequest("the manifest is empty", param="manifest")
    if first.lstrip().startswith("{"):
        rows = _json_lines(text)
    elif "|" in first:
        rows = _divided(text)
    else:
        rows = _csv(text)
    return [(shown_name(name), words) for name, words in rows]


def _json_lines(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE_CHARS:
            raise _unreadable(number, f"a line has at most {MAX_LINE_CHARS} characters")
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise TypeError
            name, words = _of(entry, _FILE_COLUMNS), _of(entry, _TEXT_COLUMNS)
        except (ValueError, TypeError, RecursionError):
            raise _unreadable(number, 'write {"file": "a.wav", "text": "…"}') from None
        if not isinstance(name, str) or not isinstance(words, str):
            raise _unreadable(number, 'write {"file": "a.wav", "text": "…"}')
        yield name, words


def _divided(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        columns = [column.strip() for column in line.split("|")]
        if not line.strip() or (number == 1 and columns[0].lower() in _FILE_COLUMNS):
            continue
        if len(columns) < 2 or not columns[0]:
            raise _unreadable(number, "write file|text")
        yield columns[0], next((column for column in reversed(columns[1:]) if column), "")


def _csv(text: str) -> Iterator[tuple[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        if not set(header) & set(_FILE_COLUMNS) or not set(header) & set(_TEXT_COLUMNS):
            raise _unreadable(1, "a CSV begins with the line file,text")
        for row in reader:
            name, words = _of(row, _FILE_COLUMNS), _of(row, _TEXT_COLUMNS)
            if not name or words is None or None in row:
                raise _unreadable(reader.line_num, 'write file,text, and a text with commas in "quotes"')
            yield name, words
    except csv.Error:
        raise _unreadable(reader.reader.line_num, 'close every "quote" that was opened') from None


def _of(row: dict[str, str], columns: tuple[str, ...]) -> str | None:
    return next((row[column] for column in columns if column in row), None)


def _unreadable(number: int, remedy: str) -> InvalidRequest:
    return InvalidRequest(f"manifest, line {number}: it cannot be read; {remedy}", param="manifest")


def assign(
    names: list[str], *, given: list[str], manifest: list[tuple[str, str]], sidecars: list[tuple[str, str]]
) -> tuple[list[str | None], list[tuple[str, str]]]:
    """The transcript of each of `names`, and what could not be assigned as (name, why).

    `given` are in the order of `names`; they come before the manifest's, and these before sidecars', which have their
    recording's name but for the ending. Raises InvalidRequest when `given` are not as many as the files.
    """
    if given and len(given) != len(names):
        raise InvalidRequest(
            f"transcripts: there are {len(given)} for {len(names)} files; send one for each, in the same order, "
            "empty where there is none",
            param="transcripts",
        )
    words: list[str | None] = [transcript(text) for text in given] or [None] * len(names)
    strays: list[tuple[str, str]] = []
    whole, stems = _places(names), _places([stem(name) for name in names])
    for source, pairs in (("the manifest", manifest), ("a .txt file", sidecars)):
        for name, text in pairs:
            places = whole.get(name) or stems.get(name) or stems.get(stem(name)) or []
            if len(places) != 1:
                found = "no file of that name was sent" if not places else f"{len(places)} files have that name"
                strays.append((name, f"{source} has words for {name}, but {found}."))
            elif words[places[0]] is None:
                words[places[0]] = transcript(text)
    return words, strays


def _places(names: list[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places
