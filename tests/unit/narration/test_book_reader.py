"""What strangers hand in to be narrated: text, Markdown and EPUB are read, the rest is refused with its reason."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pypandoc
import pytest

from app.errors import ManuscriptUnfit
from app.narration.book_reader import (
    LIMITS,
    BookLimits,
    check_cover,
    read_manuscript,
)
from app.narration.models import NarrationOptions, SourceKind
from app.narration.normaliser import write_script
from app.speech.text.marks import as_spoken
from app.speech.text.options import CodeReading
from tests.support.books import chapters, epub, found, picture, read, read_epub, refusal
from tests.support.processes import children_running

# Plain text


def test_a_plain_text_is_paragraphs_between_blank_lines(tmp_path: Path) -> None:
    manuscript = read(tmp_path, "\ufeffIt was\r\ndark.\r\n \r\n\r\nNobody came.\r\n", SourceKind.TEXT)
    assert chapters(manuscript) == {"": ["It was dark.", "Nobody came."]}


@pytest.mark.parametrize(
    "line",
    [
        "Chapter 1", "CHAPTER IV", "Chapter Twenty-One: The Storm", "chapter ii.", "CHAPTER I.\nDown the Well",
        "Chapter 3 The Storm", "Epilogue", "STAVE ONE",
    ],
)  # fmt: skip
def test_a_plain_texts_chapters_begin_at_lines_that_name_one(tmp_path: Path, line: str) -> None:
    manuscript = read(tmp_path, f"Chapter 0\n\nIt was dark.\n\n{line}\n\nIt was light.", SourceKind.TEXT)
    assert list(chapters(manuscript)) == ["Chapter 0", " ".join(line.split())]


@pytest.mark.parametrize(
    "line", ["Chapter one was dull.", "Chapters 1 and 2", "Chapter 1\nwas the last of them,\nhe said.", "Part of it"]
)
def test_a_sentence_that_begins_like_a_heading_is_none(tmp_path: Path, line: str) -> None:
    assert len(read(tmp_path, f"It was dark.\n\n{line}\n\nIt was light.", SourceKind.TEXT).chapters) == 1


def test_a_part_over_its_first_chapter_goes_into_its_title(tmp_path: Path) -> None:
    text = "PART ONE\n\nChapter 1\n\na\n\nChapter 2\n\nb\n\nPART TWO\n\nChapter 3\n\nc"
    assert list(chapters(read(tmp_path, text, SourceKind.TEXT))) == [
        "PART ONE: Chapter 1",
        "Chapter 2",
        "PART TWO: Chapter 3",
    ]


def test_long_lines_without_blank_ones_between_are_paragraphs(tmp_path: Path) -> None:
    line = "It was a long line. " * 20
    assert len(read(tmp_path, f"{line}\n{line}\n", SourceKind.TEXT).chapters[0].paragraphs) == 2


def test_markup_is_found_in_a_plain_text(tmp_path: Path) -> None:
    manuscript = read(tmp_path, '[hero]\nWait. <break time="1s"/> Now. <laugh>', SourceKind.TEXT)
    first, second = manuscript.chapters[0].paragraphs
    assert (first.character, first.pause_s, second.text) == ("hero", 1.0, "Now. <laugh>")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        ("Was it?\ncaf\u00e9".encode("latin-1"), "byte 0xE9 at offset 11 (line 2); save it as UTF-8"),
        ("Dark.".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"Dark.\0", "character 5 is a zero byte"),
        (b"* * *\n\n---\n", "holds nothing to speak"),
    ],
)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refusal(tmp_path, content, SourceKind.TEXT)


@pytest.mark.parametrize("kind", [SourceKind.TEXT, SourceKind.MARKDOWN])
@pytest.mark.parametrize("times", [1.5, 10])
def test_too_much_text_is_refused_with_its_size(tmp_path: Path, kind: SourceKind, times: float) -> None:
    text = "It was dark.\n\n" * round(times * 2**17 / 12)
    reason = refusal(tmp_path, text, kind, BookLimits(max_text_bytes=2**17))
    assert "MB of text; at most 0.1 MB are accepted: split it" in reason


# Markdown


def test_markdown_loses_its_formatting_and_keeps_its_words(tmp_path: Path) -> None:
    text = """---
title: The Lantern
author: Ann Writer
lang: en
---

## One

It was *very* dark, "quite" **so**; see [the map](http://a.b/c) for $5 or $6.
The `lamp` burned.

> Who is there?

1. First.
2. Second.

## Two

    It was light.

* * *

It ended.
"""
    manuscript = read(tmp_path, text, SourceKind.MARKDOWN)
    assert (manuscript.title, manuscript.author, manuscript.language) == ("The Lantern", "Ann Writer", "en")
    assert chapters(manuscript) == {
        "One": [
            'It was very dark, "quite" so; see the map for $5 or $6. The lamp burned.',
            "Who is there?",
            "1. First.",
            "2. Second.",
        ],
        "Two": ["It was light.", "It ended."],
    }


def test_pictures_notes_tables_and_code_are_left_out_of_markdown_and_told(tmp_path: Path) -> None:
    text = (
        "It was dark[^1].\n\n[^1]: At night.\n\n![A map](map.png)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "```python\nprint()\n```\n"
    )
    manuscript = read(tmp_path, text, SourceKind.MARKDOWN)
    assert chapters(manuscript) == {"": ["It was dark."]}
    assert found(manuscript) == {"note", "picture", "table", "code"}


def test_markup_is_found_in_markdown(tmp_path: Path) -> None:
    text = (
        '[hero]: Yes.\n\n[hero] *Wait*. <break time="1s"/> Now <laugh> come.\n\n<laugh>\nIt is <b>dark</b>.\n\n'
        '<break time="2s"/>\n\n<!-- a secret --> The end.'
    )
    said = read(tmp_path, text, SourceKind.MARKDOWN).chapters[0].paragraphs
    assert [(p.character, p.text, p.pause_s) for p in said] == [
        ("hero", "Yes.", None),
        ("hero", "Wait.", 1.0),
        ("hero", "Now <laugh> come.", None),
        ("narrator", "<laugh> It is dark.", 2.0),
        ("narrator", "The end.", None),
    ]


def test_a_rule_at_the_start_of_markdown_is_no_metadata(tmp_path: Path) -> None:
    assert chapters(read(tmp_path, "---\nIt was dark.\n\n---\n\nIt ended.", SourceKind.MARKDOWN)) == {
        "": ["It was dark.", "It ended."]
    }


def test_blocks_nested_without_end_are_refused(tmp_path: Path) -> None:
    assert "nests its blocks" in refusal(tmp_path, "> " * 400 + "a", SourceKind.MARKDOWN)


def test_a_reading_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    text = "It was *dark*. " * 60_000
    assert "memory or time" in refusal(tmp_path, text, SourceKind.MARKDOWN, BookLimits(heap_bytes=48 * 2**20))
    little = BookLimits(reading=replace(LIMITS, memory_bytes=2**20))
    assert "needs more memory" in refusal(tmp_path, text, SourceKind.TEXT, little)


# Sizes


def test_too_many_paragraphs_are_refused_with_their_number(tmp_path: Path) -> None:
    assert "holds 150000 paragraphs; at most 100000" in refusal(tmp_path, "a\n\n" * 150_000, SourceKind.TEXT)


def test_names_that_are_books_themselves_are_cut(tmp_path: Path) -> None:
    contents = f'<li><a href="a.xhtml">{"x" * 10_000}</a></li>'
    path = epub(tmp_path / "b.epub", {"a.xhtml": "<p>Dark.</p>"}, contents=contents, author="é" * 100_000)
    manuscript = read_epub(path).manuscript
    assert (manuscript.author, list(chapters(manuscript))) == ("é" * 300, ["x" * 300])
    text = f"---\ntitle: {'t' * 1000}\nlang: {'l' * 1000}\n---\n\nDark."
    manuscript = read(tmp_path, text, SourceKind.MARKDOWN)
    assert (manuscript.title, manuscript.language) == ("t" * 300, "l" * 35)


# Covers


@pytest.mark.parametrize(("name", "codec", "kind"), [("c.jpg", "mjpeg", "image/jpeg"), ("c.png", "png", "image/png")])
def test_a_cover_is_known_by_decoding_it(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    cover = picture(tmp_path / name, codec).rename(tmp_path / "cover")
    assert asyncio.run(check_cover(cover, name="cover")) == kind


def test_a_cover_that_is_none_is_refused_with_its_reason(tmp_path: Path) -> None:
    png = picture(tmp_path / "c.png", "png", side_px=256).read_bytes()
    huge = png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:]
    for content, reason in [
        (b"GIF89a" + bytes(100), "is no picture: neither JPEG nor PNG"),
        (b"", "is no picture"),
        (png[: len(png) // 2], "is damaged or cut off"),
        (huge, "has 60000 × 60000 pixels"),
        (bytes(2 * 2**20), "is 2.0 MB; a cover may have 1.0 MB"),
    ]:
        (tmp_path / "cover").write_bytes(content)
        with pytest.raises(ManuscriptUnfit, match=reason) as refused:
            asyncio.run(check_cover(tmp_path / "cover", name="cover.png", limits=BookLimits(max_cover_bytes=2**20)))
        assert refused.value.param == "cover"


# Bounds


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that never says anything."""
    os.mkfifo(tmp_path / "endless.png")
    return tmp_path / "endless.png"


def test_a_reader_that_never_ends_is_a_refusal_with_the_time(endless: Path) -> None:
    with pytest.raises(ManuscriptUnfit, match=r"took longer than 0\.2 s to read; split it, or hand it in as"):
        asyncio.run(check_cover(endless, name="cover.png", limits=BookLimits(reading=replace(LIMITS, wall_s=0.2))))


@pytest.mark.anyio
async def test_a_reader_that_crashes_is_a_refusal_with_the_signal(endless: Path) -> None:
    checking = asyncio.create_task(check_cover(endless, name="cover.png"))
    with await asyncio.to_thread(endless.open, "wb"):  # returns when the reader has opened its end
        for reader in children_running("cover_child.py"):
            reader.send_signal(signal.SIGSEGV)
        with pytest.raises(ManuscriptUnfit, match=r"made its reader crash \(SIGSEGV\)"):
            await checking


# Pages, Word's documents, listings

PAGE = """<!doctype html><html lang="en"><head><title>Owls</title><style>p{}</style><script>var no = 1;</script></head>
<body><nav><a href="/">Home</a></nav><h1>Owls</h1><h2>One</h2><p>It was <b>dark</b> &amp; still.</p><p hidden>No.</p>
<div style="display: none">No.</div><h2>Two</h2><p>A <ruby>word<rt>gloss</rt></ruby>.</p>
<svg><title>No</title></svg></body></html>"""


def test_a_page_is_read_without_what_it_does_not_show(tmp_path: Path) -> None:
    manuscript = read(tmp_path, PAGE, SourceKind.HTML)
    assert manuscript.title == "Owls"
    assert chapters(manuscript) == {"Owls: One": ["It was dark & still."], "Two": ["A word."]} or chapters(
        manuscript
    ) == {"One": ["It was dark & still."], "Two": ["A word."]}


def test_a_document_of_words_is_read_by_its_headings(tmp_path: Path) -> None:
    source = tmp_path / "owls.docx"
    pypandoc.convert_text(PAGE, "docx", format="html", outputfile=str(source))
    book = asyncio.run(read_manuscript(source, SourceKind.DOCX, name="owls.docx"))
    assert "It was dark & still." in [p.text for chapter in book.manuscript.chapters for p in chapter.paragraphs]
    assert [chapter.title for chapter in book.manuscript.chapters][-1] == "Two"


def zipped(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no more", zipped({"a.txt": "no"})])
def test_what_only_looks_like_a_document_is_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "owls.docx"
    source.write_bytes(content)
    with pytest.raises(ManuscriptUnfit, match=r"owls\.docx is no DOCX"):
        asyncio.run(read_manuscript(source, SourceKind.DOCX, name="owls.docx"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (CodeReading.SKIP, ["Run:", "Done."]),
        (CodeReading.ANNOUNCE, ["Run:", "Code block.", "Done."]),
        (CodeReading.READ, ["Run:", "print(1)", "Done."]),
    ],
)
def test_listings_are_left_out_announced_or_read(tmp_path: Path, code: CodeReading, said: list[str]) -> None:
    source = tmp_path / "text.md"
    source.write_text("Run:\n\n```py\nprint(1)\n```\n\nDone.", "utf-8")
    book = asyncio.run(read_manuscript(source, SourceKind.MARKDOWN, name="text.md", code=code))
    assert [p.text for chapter in book.manuscript.chapters for p in chapter.paragraphs] == said


SSML = """<speak><p>The <sub alias="World Wide Web">WWW</sub> was slow.</p>
<p><s>Wait</s><break time="800ms"/><s>Go.</s> It cost <prosody rate="slow">$5</prosody> &amp; more.</p></speak>"""


def test_ssml_is_read_by_its_paragraphs_and_what_it_says_otherwise_is_spoken_so(tmp_path: Path) -> None:
    manuscript = read(tmp_path, SSML, SourceKind.SSML)
    (chapter,) = manuscript.chapters
    assert [(p.text if n else as_spoken(p.text), p.pause_s) for n, p in enumerate(chapter.paragraphs)] == [
        ("The World Wide Web was slow.", None),
        ("Wait", 0.8),
        ("Go.", None),
        ("It cost $5 & more.", None),
    ]
    assert [finding.message for finding in manuscript.findings if finding.code == "ssml"] == [
        "<prosody> is read, and not obeyed: what it says of the voice is not done"
    ]
    script = asyncio.run(write_script(manuscript, NarrationOptions(), tags=(), language="en"))
    segments = [segment for one in script.chapters for segment in one.segments]
    assert segments[0].written == "The WWW was slow."
    assert segments[0].spoken == "The World Wide Web was slow."
    assert "It cost five dollars and more." in segments[-1].spoken
