"""Audio on its way into a file or a pipe: written as it comes, in the format that was asked for.

It encodes as the front door does (`app.platform.codecs`), but here, so that a session that is resumed elsewhere goes on
in one and the same stream. It knows nothing of sessions.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from app.errors import ConfigurationError
from app.speech.choices import AudioFormat

SAMPLE_BYTES = 2
UNKNOWN_SAMPLES = 2**30
"""What a WAV header claims until the end is known, so that a player can follow a file that grows."""

ENDINGS = {
    ".wav": AudioFormat.WAV,
    ".mp3": AudioFormat.MP3,
    ".flac": AudioFormat.FLAC,
    ".opus": AudioFormat.OPUS,
    ".ogg": AudioFormat.OPUS,
    ".aac": AudioFormat.AAC,
    ".pcm": AudioFormat.PCM,
}

STANDARD_OUTPUT = Path("-")


def format_of(output: Path, wanted: AudioFormat | None) -> AudioFormat:
    """The format that a file's ending means, or that is wanted where it means none; WAV for standard output.

    Raises ConfigurationError where the two differ, or neither says.
    """
    meant = ENDINGS.get(output.suffix.lower())
    if output == STANDARD_OUTPUT:
        return wanted or AudioFormat.WAV
    if meant is None and wanted is None:
        raise ConfigurationError(
            f"{output}: its ending names no format of audio; end it in one of {' '.join(ENDINGS)}, or say --format"
        )
    if meant is not None and wanted not in (None, meant):
        raise ConfigurationError(f"{output} is {meant.value} by its name, and --format says {wanted}; give one of them")
    return wanted or meant or AudioFormat.WAV


@contextmanager
def destination(output: Path) -> Iterator[BinaryIO]:
    """The file to write, made where there is none; one that is there is as it was until something is written.

    If nothing is, the file that was made is gone again. Raises ConfigurationError where it cannot be written.
    """
    if output == STANDARD_OUTPUT:
        if sys.stdout.isatty():
            raise ConfigurationError("standard output is a terminal, which shows no audio; redirect it, or name a file")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    there = output.exists()
    try:
        file = os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT, 0o666), "wb")
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}; name another file (-o)") from None
    with file:
        try:
            yield file
        finally:
            if not there and _can_seek(file) and os.fstat(file.fileno()).st_size == 0:
                output.unlink()


class Recording:
    """Audio that grows. `write` takes PCM s16le mono from a sample on, which may be one that was written already."""

    def __init__(self, file: BinaryIO, format: AudioFormat, sample_rate_hz: int, *, speed: float = 1.0) -> None:
        self._file = file
        self._format = format
        self._rate_hz = sample_rate_hz
        self._speed = speed
        self._writer: _Writer | None = None

    def write(self, sample: int, pcm16: bytes) -> None:
        if self._writer is None:
            self._writer = self._begin()
        self._writer.write(sample, pcm16)
        self._file.flush()

    def close(self) -> None:
        """Write what ends the stream, if there is one."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self) -> _Writer:
        mendable = _can_seek(self._file)
        if mendable:
            self._file.truncate(0)
        if mendable and self._format is AudioFormat.WAV and self._speed == 1.0:
            return _WavWriter(self._file, self._rate_hz)
        return _EncodedWriter(self._file, self._format, self._rate_hz, self._speed)


class _Writer(Protocol):
    def write(self, sample: int, pcm16: bytes) -> None: ...

    def close(self) -> None: ...


class _WavWriter:
    """A WAV file whose end may be rewritten."""

    def __init__(self, file: BinaryIO, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._file = file
        self._begin = self._file.write(wav_header(UNKNOWN_SAMPLES, sample_rate_hz))

    def write(self, sample: int, pcm16: bytes) -> None:
        self._file.seek(self._begin + sample * SAMPLE_BYTES)
        self._file.write(pcm16)
        self._file.truncate()

    def close(self) -> None:
        samples = (self._file.tell() - self._begin) // SAMPLE_BYTES
        self._file.seek(0)
        self._file.write(wav_header(samples, self._rate_hz))


class _EncodedWriter:
    """A stream of which nothing is taken back: audio that comes again is left out."""

    def __init__(self, file: BinaryIO, format: AudioFormat, sample_rate_hz: int, speed: float) -> None:
        from app.platform.codecs import open_encoder

        self._file = file
        self._rate_hz = sample_rate_hz
        self._encoder = open_encoder(format, sample_rate_hz=sample_rate_hz, speed=speed)
        self._mendable = format is AudioFormat.WAV and _can_seek(file)
        self._samples = 0

    def write(self, sample: int, pcm16: bytes) -> None:
        from app.speech.audio import samples_of

        new = pcm16[max(0, self._samples - sample) * SAMPLE_BYTES :]
        self._samples += len(new) // SAMPLE_BYTES
        self._file.write(self._encoder.encode(samples_of(new)))

    def close(self) -> None:
        self._file.write(self._encoder.finish())
        self._encoder.close()
        if self._mendable:
            samples = (self._file.tell() - len(wav_header(0, self._rate_hz))) // SAMPLE_BYTES
            self._file.seek(0)
            self._file.write(wav_header(samples, self._rate_hz))


def wav_header(samples: int, sample_rate_hz: int) -> bytes:
    """RIFF/WAVE for so many samples of PCM s16le mono."""
    size = samples * SAMPLE_BYTES
    form = (b"fmt ", 16, 1, 1, sample_rate_hz, sample_rate_hz * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    return struct.pack("<4sI4s 4sIHHIIHH 4sI", b"RIFF", 36 + size, b"WAVE", *form, b"data", size)


def _can_seek(file: BinaryIO) -> bool:
    """Whether what is written can be mended later: in a file of our own, never in what standard output leads to."""
    return file is not sys.stdout.buffer and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
