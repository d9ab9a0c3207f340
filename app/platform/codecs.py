"""Speech as it leaves the front door: streaming encoders from float32 mono PCM to the formats clients ask for.

An encoder is a synchronous object for one stream, fed by one thread at a time; encoding costs about 5 ms of CPU per
second of audio. Bytes come out as audio goes in, nothing ever seeks back, and `finish` leaves no sample behind:

    format  heard after   in the stream
    pcm     at once       little-endian 16-bit samples, no header
    wav     at once       the same under a header whose sizes are 0xFFFFFFFF: "until the end", as ffmpeg pipes it
    flac    26 ms         16 bit, lossless; the header leaves the number of samples open, which libsndfile cannot read
    opus    41 ms         Ogg pages of one 20 ms packet; decoders trim to the exact samples
    mp3     96 ms         24 ms frames without an Xing header; decoders give about 1,100 samples of lead and a padded
                          last frame, since a stream cannot say how much to trim
    aac     171 ms        ADTS frames of 43 ms, with 1,024 samples of lead, likewise

("Heard after": the audio that has gone in when ffmpeg first decodes some from the bytes that have come out.)
It knows nothing of HTTP beyond the content type, and does not decode what users send.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import Protocol

import av
import numpy as np
import soxr

from app.errors import InvalidRequest
from app.platform.tempo import Tempo, audio_frame
from app.speech.audio import Samples, finite, pcm16_of

MIN_SPEED, MAX_SPEED = 0.25, 4.0  # OpenAI's range


class Encoder(Protocol):
    """One stream being encoded."""

    content_type: str

    @property
    def samples(self) -> int:
        """That have gone into the stream so far, at its own tempo."""
        ...

    def encode(self, samples: Samples) -> bytes:
        """Take samples, shape [n], and return the bytes that are ready; NaN and infinity are made silent."""
        ...

    def skip(self) -> None:
        """Forget what a filter holds back: the audio that follows is of something else."""
        ...

    def finish(self) -> bytes:
        """End the stream and return its last bytes. Only `close` may follow."""
        ...

    def close(self) -> None:
        """Let go of the codec's memory; called alone, it abandons the stream."""
        ...


@dataclass(frozen=True)
class Encoding:
    """A format with its parameters; None: what the audio has, and what the format is given by default."""

    format: str
    """One of FORMATS or TELEPHONE_FORMATS."""
    sample_rate_hz: int | None = None
    bit_rate_bps: int | None = None


def open_encoder(format: str | Encoding, *, sample_rate_hz: int = 24_000, speed: float = 1.0) -> Encoder:
    """An encoder for `format`, one of FORMATS, or an Encoding; `speed` changes the tempo and keeps the pitch.

    Raises InvalidRequest for another format, for a speed outside 0.25-4, and for a rate the format does not have.
    """
    if isinstance(format, Encoding):
        return _open_encoding(format, sample_rate_hz=sample_rate_hz, speed=speed)
    if format not in FORMATS:
        raise InvalidRequest(
            f"response_format {format!r} is not supported; choose one of {', '.join(FORMATS)}.", param="response_format"
        )
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise InvalidRequest(f"speed {speed:g} is out of range; choose one from 0.25 to 4.", param="speed")
    codec = _CODECS.get(format)
    encoder = _PlainEncoder(format, sample_rate_hz) if codec is None else _CodecEncoder(codec, sample_rate_hz)
    return encoder if speed == 1.0 else _TempoEncoder(encoder, sample_rate_hz, speed)


def _open_encoding(wanted: Encoding, *, sample_rate_hz: int, speed: float) -> Encoder:
    rate_hz = wanted.sample_rate_hz or sample_rate_hz
    codec = _TELEPHONE.get(wanted.format) or _CODECS.get(wanted.format)
    if codec and wanted.bit_rate_bps:
        codec = replace(codec, bit_rate_bps=wanted.bit_rate_bps)
    encoder: Encoder
    encoder = _CodecEncoder(codec, rate_hz) if codec else open_encoder(wanted.format, sample_rate_hz=rate_hz)
    if rate_hz != sample_rate_hz:
        encoder = _ResamplingEncoder(encoder, sample_rate_hz, rate_hz)
    return encoder if speed == 1.0 else _TempoEncoder(encoder, sample_rate_hz, speed)


class _PlainEncoder:
    """PCM, bare or under a WAV header."""

    def __init__(self, format: str, sample_rate_hz: int) -> None:
        self.content_type = f"audio/{format}"
        self.samples = 0
        self._header = _wav_header(sample_rate_hz) if format == "wav" else b""

    def encode(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        self.samples += len(samples)
        return header + pcm16_of(samples)

    def skip(self) -> None:
        pass

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header

    def close(self) -> None:
        pass


def _wav_header(sample_rate_hz: int) -> bytes:
    """RIFF/WAVE for 16-bit mono PCM of unknown length."""
    unknown = 0xFFFFFFFF
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate_hz, 2 * sample_rate_hz, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE") + form + struct.pack("<4sI", b"data", unknown)


@dataclass(frozen=True)
class _Codec:
    """How ffmpeg is asked for a format; `options` and `codec_options` are those of its muxer and encoder."""

    content_type: str
    container: str
    encoder: str
    bit_rate_bps: int | None = None
    options: dict[str, str] = field(default_factory=dict)
    codec_options: dict[str, str] = field(default_factory=dict)


_CODECS = {
    "mp3": _Codec("audio/mpeg", "mp3", "libmp3lame", 96_000, {"write_xing": "0", "id3v2_version": "0"}),
    # An Ogg page waits a second for company unless told otherwise.
    "opus": _Codec("audio/ogg", "ogg", "libopus", 48_000, {"page_duration": "20000"}, {"frame_duration": "20"}),
    "aac": _Codec("audio/aac", "adts", "aac", 64_000),
    # Level 2 is the highest with blocks of 24 ms; from level 3 they are four times as long. The muxer would else
    # reserve 8 kB for tags.
    "flac": _Codec("audio/flac", "flac", "flac", None, {"metadata_header_padding": "0"}, {"compression_level": "2"}),
}
FORMATS = (*_CODECS, "wav", "pcm")

_TELEPHONE = {
    "ulaw": _Codec("audio/basic", "mulaw", "pcm_mulaw"),
    "alaw": _Codec("audio/x-alaw-basic", "alaw", "pcm_alaw"),
    "f32": _Codec("audio/pcm", "f32le", "pcm_f32le"),
}
TELEPHONE_FORMATS = tuple(_TELEPHONE)
"""Samples as telephone lines (G.711) and other programs' memories have them, without a header."""

CONTENT_TYPES = (*(codec.content_type for codec in _CODECS.values()), "audio/wav", "audio/pcm")


class _Sink:
    """What the muxer has written; it cannot seek, so the muxer does not try to mend its header at the end."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken, self._written = bytes(self._written), bytearray()
        return taken


class _CodecEncoder:
    """A compressed format by ffmpeg's encoder and muxer."""

    def __init__(self, codec: _Codec, sample_rate_hz: int) -> None:
        rates_hz = av.Codec(codec.encoder, "w").audio_rates
        if rates_hz and sample_rate_hz not in rates_hz:
            choices = ", ".join(map(str, sorted(rates_hz)))
            raise InvalidRequest(
                f"{codec.content_type} has no sample rate of {sample_rate_hz} Hz; choose one of {choices}.",
                param="sample_rate",
            )
        self.content_type = codec.content_type
        self._sample_rate_hz = sample_rate_hz
        self._sink = _Sink()
        self._container = av.open(
            self._sink, "w", format=codec.container, container_options={"flush_packets": "1", **codec.options}
        )
        stream = self._container.add_stream(codec.encoder, rate=sample_rate_hz, options=dict(codec.codec_options))
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._stream.layout = "mono"
        if codec.bit_rate_bps:
            self._stream.bit_rate = codec.bit_rate_bps
        self.samples = 0

    def encode(self, samples: Samples) -> bytes:
        if len(samples):
            self._mux(audio_frame(finite(samples), self._sample_rate_hz, self.samples))
            self.samples += len(samples)
        return self._sink.take()

    def skip(self) -> None:
        pass

    def finish(self) -> bytes:
        if not self.samples:  # encoders cannot end what never began: 20 ms of silence
            self._mux(audio_frame(np.zeros(self._sample_rate_hz // 50, np.float32), self._sample_rate_hz, 0))
        self._mux(None)
        self._container.close()
        return self._sink.take()

    def close(self) -> None:
        self._container.close()

    def _mux(self, frame: av.AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class _TempoEncoder:
    """Another encoder behind a change of the tempo."""

    def __init__(self, encoder: Encoder, sample_rate_hz: int, speed: float) -> None:
        self.content_type = encoder.content_type
        self._encoder = encoder
        self._tempo = Tempo(sample_rate_hz, speed)

    @property
    def samples(self) -> int:
        return self._encoder.samples

    def encode(self, samples: Samples) -> bytes:
        return self._encoder.encode(self._tempo.push(samples))

    def skip(self) -> None:
        self._tempo.skip()

    def finish(self) -> bytes:
        return self._encoder.encode(self._tempo.finish()) + self._encoder.finish()

    def close(self) -> None:
        self._encoder.close()


class _ResamplingEncoder:
    """Another encoder behind a change of the sample rate."""

    def __init__(self, encoder: Encoder, rate_hz: int, wanted_hz: int) -> None:
        self.content_type = encoder.content_type
        self.samples = 0
        self._encoder = encoder
        self._rates_hz = rate_hz, wanted_hz
        self._begin()

    def _begin(self) -> None:
        self._stream = soxr.ResampleStream(*self._rates_hz, 1, dtype="float32")

    def encode(self, samples: Samples) -> bytes:
        self.samples += len(samples)
        return self._encoder.encode(self._stream.resample_chunk(finite(samples)))

    def skip(self) -> None:
        self._begin()
        self._encoder.skip()

    def finish(self) -> bytes:
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        return self._encoder.encode(rest) + self._encoder.finish()

    def close(self) -> None:
        self._encoder.close()
