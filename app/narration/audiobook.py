"""A finished audiobook as one file: encoded speech with title, author, chapter marks and cover.

Every format says how long it is to the sample, or to a codec's frame where it cannot (mp3 of other decoders than
ffmpeg's), and the same audio gives the same bytes: no dates, no versions, no random serial numbers.

    format  audio                    chapters                         cover
    mp3     LAME, 96 kbit/s, Xing    ID3v2.3 CHAP and CTOC, 255       APIC
    m4b     AAC-LC, 64 kbit/s        QuickTime text track and chpl    covr
    flac    16 bit                   CHAPTERxxx comments              PICTURE
    opus    libopus, 48 kbit/s       CHAPTERxxx comments              METADATA_BLOCK_PICTURE
    wav     16 bit, RF64 past 4 GB   -                                -

Marks are exact to the sample in m4b and to the millisecond elsewhere. Audio streams in and nothing is kept; the m4b
muxer's index grows by some 70 bytes a frame. It reads of a cover no more than its size, and knows nothing of loudness.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import av.container
import numpy as np
import soxr
from av.stream import Disposition

from app.errors import ManuscriptUnfit
from app.speech.audio import Samples, finite, pcm16_of
from app.speech.choices import NarrationFormat

_ISO_639_2 = {
    "de": "deu",
    "en": "eng",
    "es": "spa",
    "fr": "fra",
    "hi": "hin",
    "it": "ita",
    "ja": "jpn",
    "ko": "kor",
    "nl": "nld",
    "pl": "pol",
    "pt": "por",
    "ru": "rus",
    "zh": "zho",
}
"""As ID3 and mp4 want the languages that voices speak; others go untold there."""

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))  # no marker, TEM, RSTm and SOI (T.81, table B.1)


@dataclass(frozen=True)
class Mark:
    """A chapter mark: [start_sample, end_sample) at the rate of the audio that is written."""

    title: str
    start_sample: int
    end_sample: int


@dataclass(frozen=True)
class Cover:
    """A JPEG or PNG, as it was handed in."""

    data: bytes
    media_type: str
    width: int
    height: int


@dataclass(frozen=True)
class Tags:
    """What a player shows; empty is left out."""

    title: str = ""
    author: str = ""
    language: str = ""
    marks: Sequence[Mark] = ()
    cover: Cover | None = None


@dataclass(frozen=True)
class Encoding:
    """One format: what ffmpeg calls its muxer and encoder, how many chapters it can mark, what it does to levels.

    Decoded, a file is louder by `level_db` than what was encoded (LAME scales by 0.95), and beyond that it peaks up to
    `overshoot_db` higher: the most of five flite and espeak voices, 2.5 minutes each, mastered to -19 LUFS.
    """

    content_type: str
    container: str
    encoder: str
    sample_format: str
    bit_rate_bps: int | None = None
    container_options: Mapping[str, str] = field(default_factory=dict)
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    level_db: float = 0.0
    overshoot_db: float = 0.0
    max_marks: int | None = None


ENCODINGS: Mapping[NarrationFormat, Encoding] = {
    NarrationFormat.MP3: Encoding(
        "audio/mpeg",
        "mp3",
        "libmp3lame",
        "fltp",
        96_000,
        {"id3v2_version": "3", "write_id3v1": "0"},
        level_db=-0.446,
        overshoot_db=0.35,
        max_marks=255,  # CTOC counts them in one byte (ID3v2 Chapter Frame Addendum, 3.2)
    ),
    # ffmpeg's default coder is made for rates below ours: here the fast one errs 12 dB less in half the time, and
    # peaks 0.1 dB higher instead of 1.9.
    NarrationFormat.M4B: Encoding(
        "audio/mp4",
        "mp4",
        "aac",
        "fltp",
        64_000,
        {"brand": "M4B ", "movflags": "+faststart"},
        {"aac_coder": "fast"},
        overshoot_db=0.1,
    ),
    NarrationFormat.FLAC: Encoding("audio/flac", "flac", "flac", "s16"),
    NarrationFormat.OPUS: Encoding("audio/ogg", "ogg", "libopus", "flt", 48_000, level_db=-0.1, overshoot_db=0.55),
    NarrationFormat.WAV: Encoding("audio/wav", "wav", "pcm_s16le", "s16", None, {"rf64": "auto"}),
}


def write_audiobook(
    blocks: Iterable[Samples], path: Path, format: NarrationFormat, *, sample_rate_hz: int, tags: Tags
) -> None:
    """Encode mono blocks, shape [n] each and of any size, into `path`, which is replaced.

    Of more marks than the format has room for, the first are written.
    """
    it = ENCODINGS[format]
    rates_hz = av.Codec(it.encoder, "w").audio_rates
    rate_hz = sample_rate_hz if not rates_hz or sample_rate_hz in rates_hz else 48_000
    options = dict(it.container_options)
    if it.container == "mp4":
        options["movie_timescale"] = str(rate_hz)  # of the edit list, which cuts the encoder's lead off: not in ms
    with av.open(str(path), "w", format=it.container, container_options=options) as container:
        container.flags |= av.container.Flags.bitexact.value
        stream = container.add_stream(it.encoder, rate=rate_hz, options=dict(it.encoder_options))
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        stream.format = it.sample_format
        stream.time_base = Fraction(1, rate_hz)
        if it.bit_rate_bps:
            stream.bit_rate = it.bit_rate_bps
        _write_tags(container, stream, replace(tags, marks=tags.marks[: it.max_marks]), sample_rate_hz)
        cover = _add_cover(container, tags.cover)
        if cover:
            container.mux(cover)
        position = 0
        for block in _at_rate(blocks, sample_rate_hz, rate_hz):
            for packet in stream.encode(_frame(block, it.sample_format, rate_hz, position)):
                container.mux(packet)
            position += len(block)
        for packet in stream.encode(None):
            container.mux(packet)


def _at_rate(blocks: Iterable[Samples], from_hz: int, to_hz: int) -> Iterable[Samples]:
    """The blocks that hold samples, resampled where the encoder does not have their rate."""
    if from_hz == to_hz:
        yield from (block for block in blocks if len(block))
        return
    resampler = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32")
    for block in blocks:
        resampled = resampler.resample_chunk(block)
        if len(resampled):
            yield resampled
    rest = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    if len(rest):
        yield rest


def _frame(samples: Samples, sample_format: str, rate_hz: int, position: int) -> av.AudioFrame:
    frame = av.AudioFrame(format=sample_format, layout="mono", samples=len(samples))
    frame.planes[0].update(pcm16_of(samples) if sample_format == "s16" else finite(samples).tobytes())
    frame.sample_rate = rate_hz
    frame.time_base = Fraction(1, rate_hz)
    frame.pts = position
    return frame


def _write_tags(
    container: av.container.OutputContainer, stream: av.AudioStream, tags: Tags, sample_rate_hz: int
) -> None:
    language = tags.language
    if container.format.name in ("mp3", "mp4"):
        language = _ISO_639_2.get(language.partition("-")[0].lower(), "")
    if container.format.name == "mp4":
        container.metadata["media_type"] = "2"  # the kind "audiobook" of iTunes
    texts = {"title": tags.title, "album": tags.title, "artist": tags.author, "album_artist": tags.author}
    texts |= {"genre": "Audiobook", "language": language}
    container.metadata.update({name: text for name, text in texts.items() if text})
    if language:
        stream.metadata["language"] = language  # where mp4 keeps it
    if container.format.name in ("flac", "ogg"):
        container.metadata.update(_chapter_comments(tags.marks, sample_rate_hz))
        return
    container.set_chapters(
        [
            {
                "id": number,
                "start": mark.start_sample,
                "end": mark.end_sample,
                "time_base": Fraction(1, sample_rate_hz),
                "metadata": {"title": mark.title},
            }
            for number, mark in enumerate(tags.marks, start=1)
        ]
    )


def _chapter_comments(marks: Sequence[Mark], sample_rate_hz: int) -> dict[str, str]:
    """Chapters as Vorbis comments, which ffmpeg's FLAC muxer lacks; its Ogg muxer rounds the seconds and then adds the
    milliseconds: 2.5 s become 3.5 (ffmpeg 8)."""
    comments = {}
    for number, mark in enumerate(marks):
        minutes, milliseconds = divmod(round(mark.start_sample * 1000 / sample_rate_hz), 60_000)
        comments[f"CHAPTER{number:03}"] = (
            f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"
        )
        comments[f"CHAPTER{number:03}NAME"] = mark.title
    return comments


def _add_cover(container: av.container.OutputContainer, cover: Cover | None) -> av.Packet | None:
    """Announce the cover, and return what is to be muxed once the header is written."""
    if cover is None or container.format.name == "wav":
        return None
    if container.format.name == "ogg":
        container.metadata["METADATA_BLOCK_PICTURE"] = base64.b64encode(_flac_picture(cover)).decode()
        return None
    codec = {"image/jpeg": "mjpeg", "image/png": "png"}[cover.media_type]
    stream = container.add_mux_stream(codec, width=cover.width, height=cover.height)
    stream.disposition = Disposition.attached_pic
    packet = av.Packet(cover.data)
    packet.stream = stream
    packet.pts = packet.dts = 0
    packet.is_keyframe = True
    return packet


def _flac_picture(cover: Cover) -> bytes:
    """FLAC's PICTURE block (RFC 9639, 8.8), which Ogg files carry in a comment. 3 is the front cover."""
    media_type = cover.media_type.encode()
    return (
        struct.pack(">II", 3, len(media_type))
        + media_type
        + struct.pack(">IIIIII", 0, cover.width, cover.height, 24, 0, len(cover.data))
        + cover.data
    )


def read_cover(data: bytes) -> Cover:
    """The image as a cover. Only its header is read: untrusted data reaches no decoder.

    Raises ManuscriptUnfit for anything but a JPEG or PNG that states its size.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 33:
        media_type, (width, height) = "image/png", struct.unpack(">II", data[16:24])
    elif data.startswith(b"\xff\xd8\xff"):
        media_type, (width, height) = "image/jpeg", _jpeg_size(data)
    else:
        raise ManuscriptUnfit("the cover is neither a JPEG nor a PNG; convert it to one of them", param="cover")
    if not (0 < width <= 2**16 and 0 < height <= 2**16):
        raise ManuscriptUnfit("the cover is damaged: it does not state its size; save it again", param="cover")
    return Cover(data, media_type, width, height)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first start-of-frame segment (ITU-T T.81, B.2.2); zeros where there is none.

    As decoders do, it looks for the next marker where a segment does not state a length that can be one.
    """
    at = data.find(b"\xff", 2)
    while 0 <= at <= len(data) - 9:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _START_OF_FRAME:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        if marker == 0xFF:  # fill bytes may precede a marker
            at += 1
        elif marker in _WITHOUT_LENGTH or length < 2:
            at = data.find(b"\xff", at + 2)
        else:
            at = data.find(b"\xff", at + 2 + length)
    return 0, 0
