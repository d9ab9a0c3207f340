"""Decodes one untrusted audio file; run by `audio_probe` in a sandbox, never imported into a server.

    {"source": …, "target": …, "max_duration_s": …, "sample_rate_hz": …} -> {"facts": …, "clipped_share": …, …}

It decodes block by block and answers with the file's facts. With a `target` it writes there what it heard: mono float32
at `sample_rate_hz`, raw and little-endian. Channels are averaged, unless one of two is dead or the other's inverse:
then one is taken, and the answer says so. ffmpeg gets to see the file alone, through the one demuxer that its first
bytes name and the codecs that belong in there.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads' stacks would count against the memory limit

import av
import av.error
import numpy as np
import soxr

from app.platform.sandbox_child import Fault, main

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
MAX_CHANNELS = 8
MAX_EXPANSION = 400  # decoded 16-bit PCM over the file's size; Opus at its lowest useful rate reaches 256
BOMB_BYTES = 64 * 2**20  # of decoded PCM, below which no file is a bomb
FULL_SCALE = 0.999
TORN_S = 0.15  # a file that plays so much less than its header says was cut off
PLACEHOLDER_BYTES = 1_900_000_000  # no recording that is accepted is so large
STRAY_S = 0.5  # sound behind the end that a WAV's header states
MAX_DAMAGED_SHARE = 0.01  # of the packets

DEAD_DB = 30.0  # a channel so much quieter than the other one recorded nothing
INVERSE = -0.95  # the correlation of two channels of which averaging leaves next to nothing

_DEMUXERS = {
    "wav": "wav", "flac": "flac", "mp3": "mp3", "ogg": "ogg", "m4a": "mov", "webm": "matroska", "aac": "aac"
}  # fmt: skip
_CODECS = {
    "wav": ("pcm_",),
    "flac": ("flac",),
    "mp3": ("mp3",),
    "ogg": ("vorbis", "opus", "libopus", "libvorbis", "flac"),
    "m4a": ("aac", "alac"),
    "webm": ("vorbis", "opus", "libopus", "libvorbis", "pcm_"),
    "aac": ("aac",),
}


@dataclass
class Heard:
    """What decoding found so far."""

    sample_rate_hz: int = 0
    channels: int = 0
    samples: int = 0
    clipped: int = 0
    first_clip: int | None = None
    packets: int = 0
    damaged: list[float] = field(default_factory=list)
    products: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))
    """Of two channels with each other, summed up."""

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate_hz if self.sample_rate_hz else 0.0

    def hear(self, block: np.ndarray) -> None:
        """Count a block of shape [channels, samples]."""
        if not np.isfinite(block).all():
            raise Fault(f"holds values that are no numbers (NaN or infinite) at {clock(self.seconds)}; export it again")
        clipped = np.flatnonzero((np.abs(block) >= FULL_SCALE).any(axis=0))
        if len(clipped) and self.first_clip is None:
            self.first_clip = self.samples + int(clipped[0])
        self.clipped += len(clipped)
        self.samples += block.shape[1]
        if self.channels == 2:
            self.products += block.astype(np.float64) @ block.T

    @property
    def taken(self) -> tuple[int, str] | None:
        """Which of two channels is to be heard alone, and why; None to average them."""
        (left, both), (_, right) = self.products.tolist()
        if not (left or right) or self.channels != 2:
            return None
        louder = int(right > left)
        quiet, loud = sorted((left, right))
        if quiet < loud * 10 ** (-DEAD_DB / 10):
            return louder, "dead"
        return (louder, "inverse") if both < INVERSE * (left * right) ** 0.5 else None

    def facts(self, container: str) -> dict[str, Any]:
        return {
            "container": container,
            "sample_rate_hz": self.sample_rate_hz,
            "channels": self.channels,
            "duration_s": round(self.seconds, 6),
        }


def clock(seconds: float) -> str:
    """`75` -> `1:15`, `43200` -> `12:00:00`."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def container_of(head: bytes, behind_tag: bytes) -> str:
    """The container that a file's first bytes name; `behind_tag` are those behind an ID3 tag, the same without one."""
    sync = behind_tag[:2] if len(behind_tag) > 2 else bytes(2)
    named = {
        "wav": head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE",
        "flac": behind_tag[:4] == b"fLaC",
        "ogg": head[:4] == b"OggS",
        "m4a": head[4:8] == b"ftyp",
        "webm": head[:4] == b"\x1aE\xdf\xa3",  # EBML
        "aac": sync[0] == 0xFF and sync[1] & 0xF6 == 0xF0,  # ADTS
        "mp3": head[:3] == b"ID3" or (sync[0] == 0xFF and sync[1] & 0xE6 == 0xE2),  # MPEG audio, layer 3
    }
    for container, is_it in named.items():
        if is_it:
            return container
    if not head:
        raise Fault("is empty (0 bytes); upload it again")
    if not head.strip(b"\x00"):
        raise Fault("holds nothing but zero bytes; upload it again")
    if all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        raise Fault("is a text file, not audio; upload the recording itself")
    raise Fault("is neither WAV, FLAC, MP3, OGG, M4A, AAC nor WebM by its first bytes; convert it to one of them")


def decode(request: dict[str, Any]) -> dict[str, Any]:
    """Facts of the source; writes the target if there is one."""
    source = Path(request["source"])
    with source.open("rb") as file:
        container_name = container_of(file.read(4096), _behind_tag(source))
    cap_s, size_bytes, heard = float(request["max_duration_s"]), source.stat().st_size, Heard()
    options = {"protocol_whitelist": "file"}
    with av.open(f"file:{source.absolute()}", format=_DEMUXERS[container_name], options=options) as container:
        stream = _stream_of(container, container_name)
        heard.sample_rate_hz, heard.channels = stream.rate, stream.channels
        promised_s = _promised_s(source, container_name, stream)
        if promised_s and promised_s > cap_s and not _is_torn(source, container_name):
            raise Fault(_too_long(promised_s, cap_s))
        with _writer(request, stream.rate, stream.channels) as write:
            for block in _blocks(container, stream, heard):
                heard.hear(block)
                _check_size(heard, size_bytes, cap_s)
                write(block)
    _check_whole(heard, promised_s, source, container_name)
    if request.get("target") and heard.channels == 2:
        _mix_down(Path(request["target"]), heard.taken)
    facts = heard.facts(container_name)
    facts["sample_rate_hz"] = _original_rate_hz(stream)
    return {
        "facts": facts,
        "clipped_share": heard.clipped / heard.samples,
        "first_clip_s": None if heard.first_clip is None else heard.first_clip / heard.sample_rate_hz,
        "taken": heard.taken,
    }


def _stream_of(container: Any, container_name: str) -> av.AudioStream:
    if not container.streams.audio:
        raise Fault("has no audio track; upload a recording with sound")
    stream: av.AudioStream = container.streams.audio[0]
    codec = stream.codec_context.name
    if not codec.startswith(_CODECS[container_name]):
        raise Fault(f"holds {codec}, which is not accepted in {container_name.upper()}; convert it to WAV or FLAC")
    if not 1 <= stream.channels <= MAX_CHANNELS:
        raise Fault(f"has {stream.channels} channels; 1 to {MAX_CHANNELS} are accepted: mix it down to one")
    if not MIN_RATE_HZ <= stream.rate <= MAX_RATE_HZ:
        raise Fault(
            f"has a sample rate of {stream.rate} Hz; {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz are accepted: "
            "record at 24 kHz or more"
        )
    return stream


def _blocks(container: Any, stream: av.AudioStream, heard: Heard) -> Iterator[np.ndarray]:
    """Float32 blocks of shape [channels, samples]; packets that do not decode are noted in `heard.damaged`."""
    for packet in container.demux(stream):
        heard.packets += 1
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            heard.damaged.append(heard.seconds)
            continue
        for frame in frames:
            if frame.sample_rate != heard.sample_rate_hz or len(frame.layout.channels) != heard.channels:
                raise Fault(f"changes its rate or channels at {clock(heard.seconds)}; export it as one recording")
            yield _float32(frame, heard.channels)


def _float32(frame: av.AudioFrame, channels: int) -> np.ndarray:
    block = frame.to_ndarray()
    if not frame.format.is_planar:
        block = block.reshape(-1, channels).T
    if block.dtype.kind == "f":
        return block.astype(np.float32)
    if block.dtype == np.uint8:
        return (block.astype(np.float32) - 128.0) / 128.0
    return block.astype(np.float32) / np.float32(2 ** (8 * block.dtype.itemsize - 1))


class _writer:
    """Resamples blocks and writes raw float32: both channels of two, else their mean. Without a target it rests."""

    def __init__(self, request: dict[str, Any], source_rate_hz: int, channels: int) -> None:
        self._target: str | None = request.get("target")
        self._rates = (source_rate_hz, int(request.get("sample_rate_hz", source_rate_hz)))
        self._channels = 2 if channels == 2 else 1
        self._file: BinaryIO | None = None

    def __enter__(self) -> Callable[[np.ndarray], None]:
        if self._target is None:
            return lambda block: None
        self._file = file = open(self._target, "wb")
        same = self._rates[0] == self._rates[1]
        self._resampler = None if same else soxr.ResampleStream(*self._rates, self._channels)
        return lambda block: self._write(file, self._mixed(block), last=False)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._file is not None:
            if kind is None:
                self._write(self._file, np.zeros((0, self._channels), np.float32), last=True)
            self._file.close()

    def _mixed(self, block: np.ndarray) -> np.ndarray:
        """[channels, samples] -> [samples, channels kept]."""
        kept = block if self._channels == 2 else block.mean(axis=0, dtype=np.float32, keepdims=True)
        return np.ascontiguousarray(kept.T)

    def _write(self, file: BinaryIO, samples: np.ndarray, *, last: bool) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        file.write(samples.astype("<f4").tobytes())


def _mix_down(target: Path, taken: tuple[int, str] | None) -> None:
    """Makes a file of two channels one of one, in place: what is written never overtakes what is read."""
    with target.open("r+b") as source, target.open("r+b") as mixed:
        while piece := source.read(8 * 2**18):
            pairs = np.frombuffer(piece, "<f4").reshape(-1, 2)
            mono = pairs.mean(axis=1, dtype=np.float32) if taken is None else pairs[:, taken[0]]
            mixed.write(mono.astype("<f4").tobytes())
            mixed.flush()
        mixed.truncate()


# What the header promises, and whether the file keeps it.


def _promised_s(source: Path, container_name: str, stream: av.AudioStream) -> float | None:
    """The length the header states; None where ffmpeg's figure is a guess from the bit rate, or there is none."""
    if container_name == "wav":
        return _wav_s(source)
    if container_name == "mp3" and not _has_xing(source):
        return None
    if container_name in ("ogg", "webm", "aac") or stream.duration is None or stream.time_base is None:
        return None
    return float(stream.duration * stream.time_base)


def _wav_s(source: Path) -> float | None:
    """From the size of the data chunk, unless it is a placeholder: then the sound goes on until the end.

    Recorders that do not know the length yet write 0, 0xFFFFFFFF (ffmpeg), 0x7FFFFFFF or 0x7FFFF000 (sox, arecord),
    2,000,000,000 …; nothing so large is accepted. Raises Fault where more sound lies behind the data.
    """
    bytes_per_s = 0
    with source.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = header[:4], struct.unpack("<I", header[4:])[0]
            if name == b"data":
                if not bytes_per_s or size == 0 or size >= PLACEHOLDER_BYTES:
                    return None
                _check_behind_data(file, size, bytes_per_s)
                return size / bytes_per_s
            if name == b"fmt " and size >= 16:
                bytes_per_s = struct.unpack("<I", file.read(16)[8:12])[0]
                file.seek(size - 16 + size % 2, os.SEEK_CUR)
            else:
                file.seek(size + size % 2, os.SEEK_CUR)
    return None


def _check_behind_data(file: BinaryIO, size: int, bytes_per_s: int) -> None:
    """Raises Fault where what follows the data chunk is no chunk, and so much that it must be sound."""
    end = file.tell() + size + size % 2
    rest = file.seek(0, os.SEEK_END) - end
    if rest < STRAY_S * bytes_per_s:
        return
    file.seek(end)
    name, length = struct.unpack("<4sI", file.read(8))
    if not (name.isascii() and name.decode().isprintable() and length <= rest):
        raise Fault(
            f"has {clock(size / bytes_per_s)} of sound by its header and {clock(rest / bytes_per_s)} more behind it: "
            "the recorder did not finish it; open it in an audio editor and export it again"
        )


def _behind_tag(source: Path) -> bytes:
    """The first bytes behind an ID3 tag, whose size is four times seven bits; the file's first without one."""
    with source.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte & 0x7F
            file.seek(size + 10)
        else:
            file.seek(0)
        return file.read(4096)


def _has_xing(source: Path) -> bool:
    frame = _behind_tag(source)
    return b"Xing" in frame[:256] or b"Info" in frame[:256]


def _is_torn(source: Path, container_name: str) -> bool:
    """Whether a WAV promises more bytes than there are: then it was cut off, however long it says it is."""
    return container_name == "wav" and source.stat().st_size < 0.99 * _riff_bytes(source)


def _riff_bytes(source: Path) -> int:
    with source.open("rb") as file:
        size = struct.unpack("<4sI", file.read(8))[1]
    return 0 if size >= PLACEHOLDER_BYTES else size


def _original_rate_hz(stream: av.AudioStream) -> int:
    """Opus always decodes at 48 kHz; its header (RFC 7845) keeps the rate that was recorded."""
    header = stream.codec_context.extradata or b""
    if header[:8] == b"OpusHead" and len(header) >= 16:
        recorded = struct.unpack("<I", header[12:16])[0]
        if MIN_RATE_HZ <= recorded <= stream.rate:
            return recorded
    return stream.rate


def _too_long(seconds: float, cap_s: float) -> str:
    return f"is {clock(seconds)} long; at most {clock(cap_s)} are accepted: split it"


def _check_size(heard: Heard, size_bytes: int, cap_s: float) -> None:
    pcm_bytes = 2 * heard.channels * heard.samples
    if pcm_bytes > BOMB_BYTES and pcm_bytes > MAX_EXPANSION * size_bytes:
        raise Fault(
            f"holds {size_bytes} bytes that decode to more than {pcm_bytes // 2**20} MB, which no speech does; "
            "upload the recording itself"
        )
    if heard.seconds > cap_s:
        raise Fault(f"is longer than {clock(cap_s)}, the most that is accepted: split it")


def _check_whole(heard: Heard, promised_s: float | None, source: Path, container_name: str) -> None:
    if promised_s and heard.seconds < promised_s - TORN_S:
        raise Fault(f"ends after {clock(heard.seconds)} of {clock(promised_s)}: it was cut off; upload it again")
    if container_name == "mp3" and _ends_inside_a_frame(source):
        raise Fault(f"ends inside a frame at {clock(heard.seconds)}: it was cut off; upload it again")
    if heard.samples == 0:
        raise Fault("holds no sound (0 seconds); record it again")
    if len(heard.damaged) > MAX_DAMAGED_SHARE * heard.packets:
        raise Fault(f"is damaged at {clock(heard.damaged[0])} and does not decode; export it again")


_KBPS_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_RATES_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _mp3_frame_bytes(header: bytes) -> int | None:
    """The length of a layer-3 frame with this header; None for what is none (ISO 11172-3, 13818-3)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, kbps, rate, padding = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or kbps in (0, 15) or rate == 3:
        return None
    bits = 1000 * (_KBPS_V1 if version == 3 else _KBPS_V2)[kbps]
    return (144 if version == 3 else 72) * bits // _RATES_HZ[version][rate] + padding


def _ends_inside_a_frame(source: Path) -> bool:
    """Whether the last of the frames that follow each other to the end of the file is incomplete.

    The search begins 8 kB before the end: three frames in a row there are no coincidence. What is no frame, such as a
    tag at the end, ends it without a verdict.
    """
    size = source.stat().st_size
    with source.open("rb") as file:
        file.seek(max(size - 8192, 0))
        tail = file.read()
    for start in range(len(tail)):
        at, frames = start, 0
        while length := _mp3_frame_bytes(tail[at : at + 4]):
            at, frames = at + length, frames + 1
            if at > len(tail):
                return frames > 3
        if frames > 3:
            return False
    return False


if __name__ == "__main__":
    main(
        decode,
        out_of_memory="needs more memory to decode than any speech does; convert it to WAV or FLAC",
        damaged="is damaged or cut off, and its header cannot be read; export or upload it again",
        damage=(av.error.FFmpegError, ValueError, NotImplementedError, struct.error),
    )
