"""Recordings and books with a few bytes changed: each is read or refused in words, and nothing else happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import Phase
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.core import given

from app.errors import ManuscriptUnfit, RecordingUnfit
from app.narration.models import SourceKind
from tests.support.audio_files import probe
from tests.support.books import read
from tests.support.recordings import recording

FORMATS = ("WAV", "FLAC", "MP3", "OGG")
BOOK = Path(__file__).parents[1] / "books" / "the-bell-on-owl-island.epub"

CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1),  # where, as a share of the file
        st.sampled_from(["overwrite", "insert", "cut", "repeat"]),
        st.binary(min_size=1, max_size=16) | st.sampled_from([b"\0" * 8, b"\xff" * 8]),
    ),
    min_size=1,
    max_size=4,
)


def mutated(original: bytes, count: int) -> list[bytes]:
    """So many mutations of a file, the same at every run."""
    found: list[bytes] = []

    @examples(max_examples=count, derandomize=True, database=None, phases=[Phase.generate])
    @given(CHANGES)
    def collect(changes: list[tuple[float, str, bytes]]) -> None:
        file = bytearray(original)
        for share, what, piece in changes:
            at = int(share * len(file))
            end = {"overwrite": at + len(piece), "cut": at + 16 * len(piece)}.get(what, at)
            file[at:end] = {"cut": b"", "repeat": bytes(file[at : at + 64]) * len(piece)}.get(what, piece)
        found.append(bytes(file))

    collect()
    return found


def check_recordings(directory: Path, format: str, count: int) -> None:
    for number, file in enumerate(mutated(recording(format=format), count)):
        path = directory / f"{number}"
        path.write_bytes(file)
        try:
            assert probe(path, max_duration_s=60, name="yours.audio").duration_s <= 60
        except RecordingUnfit as refused:
            assert "yours.audio" in refused.message and str(directory) not in refused.message


def check_books(directory: Path, count: int) -> None:
    for file in mutated(BOOK.read_bytes(), count):
        try:
            read(directory, file, SourceKind.EPUB)
        except ManuscriptUnfit as refused:
            assert str(directory) not in refused.message


@pytest.mark.parametrize("format", FORMATS)
def test_a_recording_with_changed_bytes_is_read_or_refused(tmp_path: Path, format: str) -> None:
    check_recordings(tmp_path, format, 4)


def test_a_book_with_changed_bytes_is_read_or_refused(tmp_path: Path) -> None:
    check_books(tmp_path, 6)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_so_are_many_recordings(tmp_path: Path, format: str) -> None:
    check_recordings(tmp_path, format, 60)


@pytest.mark.slow
def test_so_are_many_books(tmp_path: Path) -> None:
    check_books(tmp_path, 60)
