"""Finished files, opened by readers that share nothing with the muxers: mutagen and libsndfile; and by ffmpeg's."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import mutagen
import mutagen.flac
import mutagen.mp4
import numpy as np
import pytest
import soundfile

from app.errors import ManuscriptUnfit
from app.narration.audiobook import Cover, Mark, Tags, read_cover, write_audiobook
from app.speech.audio import Samples
from app.speech.choices import NarrationFormat

RATE_HZ = 24_000
SAMPLES = 7 * RATE_HZ + 777
LOSSLESS = (NarrationFormat.FLAC, NarrationFormat.WAV)
MP3_MORE = 48  # where LAME ends with a frame more than it announced
WITH_CHAPTERS = tuple(format for format in NarrationFormat if format != NarrationFormat.WAV)


def audio(samples: int = SAMPLES, rate_hz: int = RATE_HZ) -> Samples:
    t = np.arange(samples) / rate_hz
    return (0.2 * np.sin(2 * np.pi * (200 + 50 * t) * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def blocks(samples: Samples, block: int = 30_011) -> Iterator[Samples]:
    return (samples[at : at + block] for at in range(0, len(samples), block))


def png(side: int = 48) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes((x * 5 % 256, y * 5 % 256, 99)[c] for x in range(side) for c in range(3)) for y in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg(side: int = 64) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=1, options={"strict": "unofficial"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = side
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), 90, np.uint8), format="rgb24")
        for packet in [*stream.encode(frame.reformat(format="yuvj420p")), *stream.encode(None)]:
            container.mux(packet)
    return sink.getvalue()


COVER = png()
TAGS = Tags(
    title="Der Läufer & Söhne",
    author="A. N. Author",
    language="en",
    marks=(Mark("One", 0, 60_001), Mark("Zwei – ü", 60_001, 120_000), Mark("Trois", 120_000, SAMPLES)),
    cover=read_cover(COVER),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[NarrationFormat, Path]:
    directory = tmp_path_factory.mktemp("books")
    paths = {format: directory / f"book.{format}" for format in NarrationFormat}
    for format, path in paths.items():
        write_audiobook(blocks(audio()), path, format, sample_rate_hz=RATE_HZ, tags=TAGS)
    return paths


def decoded(path: Path) -> tuple[Samples, int]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        values = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(stream)])
        return (values / 32768 if values.dtype == np.int16 else values).astype(np.float32), stream.rate


def tags_of(path: Path) -> Any:
    file = mutagen.File(path)  # pyright: ignore[reportPrivateImportUsage]
    assert file is not None
    return file


# How long it is.


@pytest.mark.parametrize("format", NarrationFormat)
def test_the_file_says_how_long_it_is_to_the_sample(
    files: dict[NarrationFormat, Path], format: NarrationFormat
) -> None:
    with av.open(str(files[format])) as container:
        assert container.duration is not None
        lead_s = 312 / 48_000 if format == NarrationFormat.OPUS else 0.0  # which ffmpeg counts, and decoders skip
        more_s = MP3_MORE / RATE_HZ if format == NarrationFormat.MP3 else 0.0
        assert -1e-6 <= container.duration / 1e6 - SAMPLES / RATE_HZ - lead_s <= more_s + 1e-6


@pytest.mark.parametrize(
    ("format", "more"),
    [("wav", 0), ("flac", 0), ("opus", 0), ("mp3", MP3_MORE), ("m4b", 1_024)],
    ids=str,
)
def test_it_decodes_to_as_much_or_a_codecs_frame_more(
    files: dict[NarrationFormat, Path], format: str, more: int
) -> None:
    samples, rate_hz = decoded(files[NarrationFormat(format)])
    assert SAMPLES <= len(samples) * RATE_HZ / rate_hz <= SAMPLES + more


@pytest.mark.parametrize(
    ("format", "more_s"), [("wav", 0.0), ("flac", 0.0), ("opus", 0.0), ("mp3", 0.074), ("m4b", 0.043)]
)
def test_mutagen_agrees_up_to_what_it_counts_of_the_encoders_lead(
    files: dict[NarrationFormat, Path], format: str, more_s: float
) -> None:
    length_s = tags_of(files[NarrationFormat(format)]).info.length
    assert SAMPLES / RATE_HZ - 1e-6 <= length_s <= SAMPLES / RATE_HZ + more_s + 1e-6


@pytest.mark.parametrize("format", NarrationFormat)
def test_every_sound_is_where_it_was(files: dict[NarrationFormat, Path], format: NarrationFormat) -> None:
    samples, rate_hz = decoded(files[format])
    ours = samples[:: rate_hz // RATE_HZ][:SAMPLES]
    error = ours - audio()
    tolerated = 1e-4 if format in LOSSLESS else 0.03
    assert np.sqrt(np.mean(error**2)) < tolerated


@pytest.mark.parametrize("format", LOSSLESS)
def test_libsndfile_reads_what_is_lossless(files: dict[NarrationFormat, Path], format: NarrationFormat) -> None:
    samples, rate_hz = soundfile.read(files[format], dtype="float32")
    assert rate_hz == RATE_HZ
    np.testing.assert_allclose(samples, audio(), atol=0.6 / 32768)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("format", NarrationFormat)
def test_other_rates_play_as_long(tmp_path: Path, format: NarrationFormat, rate_hz: int) -> None:
    path = tmp_path / "book"
    write_audiobook(blocks(audio(rate_hz, rate_hz)), path, format, sample_rate_hz=rate_hz, tags=Tags())
    samples, played_hz = decoded(path)
    assert 1.0 - 1e-4 <= len(samples) / played_hz <= 1.0 + 1_024 / rate_hz


# What it says.


@pytest.mark.parametrize("format", WITH_CHAPTERS)
def test_chapters_are_marked(files: dict[NarrationFormat, Path], format: NarrationFormat) -> None:
    with av.open(str(files[format])) as container:
        found = [
            (mark["metadata"]["title"], mark["start"] * Fraction(unit), mark["end"] * Fraction(unit))
            for mark in container.chapters()
            if (unit := mark["time_base"])
        ]
    assert [title for title, _, _ in found] == [mark.title for mark in TAGS.marks]
    for (_, start_s, end_s), mark in zip(found, TAGS.marks, strict=True):
        assert float(start_s) == pytest.approx(mark.start_sample / RATE_HZ, abs=0.001)
        assert float(end_s) == pytest.approx(mark.end_sample / RATE_HZ, abs=0.008)  # Opus: the last, with the lead


def test_mutagen_finds_the_chapters_of_each_kind(files: dict[NarrationFormat, Path]) -> None:
    id3 = tags_of(files[NarrationFormat.MP3]).tags
    assert [(chapter.start_time, str(chapter.sub_frames["TIT2"])) for chapter in id3.getall("CHAP")] == [
        (0, "One"),
        (2500, "Zwei – ü"),
        (5000, "Trois"),
    ]
    assert id3.getall("CTOC")[0].child_element_ids == ["ch0", "ch1", "ch2"]
    nero = tags_of(files[NarrationFormat.M4B]).chapters
    assert [chapter.title for chapter in nero] == ["One", "Zwei – ü", "Trois"]
    assert [chapter.start for chapter in nero] == pytest.approx([0, 60_001 / RATE_HZ, 5.0], abs=1e-4)
    for format in (NarrationFormat.FLAC, NarrationFormat.OPUS):
        comments = tags_of(files[format])
        assert comments["chapter001"] == ["00:00:02.500"]
        assert comments["chapter001name"] == ["Zwei – ü"]


def test_of_more_chapters_than_an_mp3_can_list_the_first_are_listed(tmp_path: Path) -> None:
    marks = [Mark(f"Part {number}", 500 * number, 500 * (number + 1)) for number in range(300)]
    for format, listed in ((NarrationFormat.MP3, 255), (NarrationFormat.M4B, 300)):
        path = tmp_path / f"book.{format}"
        write_audiobook(blocks(audio()), path, format, sample_rate_hz=RATE_HZ, tags=Tags(marks=marks))
        with av.open(str(path)) as container:
            assert len(container.chapters()) == listed
    id3 = tags_of(tmp_path / "book.mp3").tags
    assert len(id3.getall("CTOC")[0].child_element_ids) == len(id3.getall("CHAP")) == 255


def test_title_author_and_language_are_told(files: dict[NarrationFormat, Path]) -> None:
    id3 = tags_of(files[NarrationFormat.MP3]).tags
    assert [str(id3[name]) for name in ("TIT2", "TPE1", "TALB", "TCON", "TLAN")] == [
        TAGS.title,
        TAGS.author,
        TAGS.title,
        "Audiobook",
        "eng",
    ]
    mp4 = tags_of(files[NarrationFormat.M4B])
    assert [mp4[name] for name in ("©nam", "©ART", "stik")] == [[TAGS.title], [TAGS.author], [2]]
    for format in (NarrationFormat.FLAC, NarrationFormat.OPUS):
        comments = tags_of(files[format])
        assert [comments[name] for name in ("title", "artist", "language")] == [[TAGS.title], [TAGS.author], ["en"]]
    with av.open(str(files[NarrationFormat.WAV])) as container:
        assert (container.metadata["title"], container.metadata["artist"]) == (TAGS.title, TAGS.author)


def test_the_cover_is_in_it_as_it_was(files: dict[NarrationFormat, Path]) -> None:
    assert tags_of(files[NarrationFormat.MP3]).tags.getall("APIC")[0].data == COVER
    assert bytes(tags_of(files[NarrationFormat.M4B])["covr"][0]) == COVER
    flac, opus = tags_of(files[NarrationFormat.FLAC]), tags_of(files[NarrationFormat.OPUS])
    ogg = mutagen.flac.Picture(base64.b64decode(opus["metadata_block_picture"][0]))
    for picture in (flac.pictures[0], ogg):
        assert (picture.data, picture.mime, picture.width, picture.height) == (COVER, "image/png", 48, 48)


def test_a_jpeg_cover_is_one(tmp_path: Path) -> None:
    cover = read_cover(jpeg())
    assert (cover.media_type, cover.width, cover.height) == ("image/jpeg", 64, 64)
    for format in WITH_CHAPTERS:
        path = tmp_path / f"book.{format}"
        write_audiobook(blocks(audio()), path, format, sample_rate_hz=RATE_HZ, tags=Tags(cover=cover))
        with av.open(str(path)) as container:
            assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg"]
    picture = tags_of(tmp_path / "book.m4b")["covr"][0]
    assert picture.imageformat == mutagen.mp4.MP4Cover.FORMAT_JPEG


def test_an_m4b_is_one_and_plays_while_it_is_loaded(files: dict[NarrationFormat, Path]) -> None:
    data = files[NarrationFormat.M4B].read_bytes()
    assert data[4:12] == b"ftypM4B "
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("format", NarrationFormat)
def test_without_tags_it_is_a_file_all_the_same(tmp_path: Path, format: NarrationFormat) -> None:
    path = tmp_path / "book"
    write_audiobook(blocks(audio()), path, format, sample_rate_hz=RATE_HZ, tags=Tags())
    samples, rate_hz = decoded(path)
    assert len(samples) / rate_hz == pytest.approx(SAMPLES / RATE_HZ, abs=0.043)


@pytest.mark.parametrize("format", NarrationFormat)
def test_the_same_audio_gives_the_same_bytes(
    files: dict[NarrationFormat, Path], tmp_path: Path, format: NarrationFormat
) -> None:
    path = tmp_path / "again"
    write_audiobook(blocks(audio()), path, format, sample_rate_hz=RATE_HZ, tags=TAGS)
    assert path.read_bytes() == files[format].read_bytes()


# Covers.


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a" + bytes(100),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        COVER[:20],
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\x00\x10" + bytes(200),
        b"\xff\xd8\xff\xe0\x00\x00" + b"\xff\xe0\x00\x00" * 50,
    ],
    ids=["empty", "gif", "svg", "cut_png", "no_header", "cut_jpeg", "no_frame", "no_lengths"],
)
def test_what_is_no_jpeg_or_png_is_no_cover(data: bytes) -> None:
    with pytest.raises(ManuscriptUnfit, match="cover"):
        read_cover(data)


@pytest.mark.parametrize(
    "before",
    [b"\xff\x01", b"\xff\xd0", b"\xff\xee\x00\x00", b"\xff\xee\x00\x01", b"\xff\xff\xff", b"\xff\x01noise"],
    ids=["stand_alone", "restart", "no_length", "short_length", "fill", "noise"],
)
def test_a_jpeg_that_decodes_tells_its_size_whatever_stands_before_it(before: bytes) -> None:
    whole = jpeg()
    data = whole[:2] + before + whole[2:]
    with av.open(io.BytesIO(data), "r", format="jpeg_pipe") as container:
        frame = next(container.decode(container.streams.video[0]))
    cover = read_cover(data)
    assert (cover.width, cover.height) == (frame.width, frame.height) == (64, 64)


def test_a_damaged_cover_does_not_hurt_the_audio(tmp_path: Path) -> None:
    """Its header is fine and the rest is noise: players show nothing, and play."""
    cover = Cover(COVER[:40] + bytes(500), "image/png", 48, 48)
    for format in NarrationFormat:
        path = tmp_path / f"book.{format}"
        write_audiobook(blocks(audio()), path, format, sample_rate_hz=RATE_HZ, tags=Tags(cover=cover))
        assert len(decoded(path)[0]) >= SAMPLES
