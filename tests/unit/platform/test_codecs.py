"""Every format there and back: nothing lost, bytes from the start, hostile audio silenced, streams side by side."""

from __future__ import annotations

import io
import math
import wave
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import soundfile

from app.errors import InvalidRequest
from app.platform.codecs import FORMATS, TELEPHONE_FORMATS, Encoding, open_encoder
from app.speech.audio import Samples, pcm16_of, rms_dbfs, samples_of

RATE_HZ = 24_000
PACKET = 480
EXACT = ("wav", "pcm", "flac", "opus")
# The lead and padding of mp3 and aac streams: the encoder's delay and at most two frames.
PADDING_SAMPLES = {"mp3": 1105 + 2 * 576, "aac": 1024 + 2 * 1024}


def tone(length_s: float, hz: float = 440.0) -> Samples:
    t = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32)


def encoded(samples: Samples, format: str, *, speed: float = 1.0, packet: int = PACKET) -> bytes:
    encoder = open_encoder(format, speed=speed)
    data = b"".join(encoder.encode(samples[at : at + packet]) for at in range(0, len(samples), packet))
    data += encoder.finish()
    encoder.close()
    return data


def decoded(data: bytes, format: str) -> Samples:
    """What a client hears, at 24 kHz."""
    if format == "pcm":
        return samples_of(data)
    resampler = av.AudioResampler("flt", "mono", RATE_HZ)
    with av.open(io.BytesIO(data), "r") as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def pitch_hz(samples: Samples) -> float:
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.argmax(np.abs(np.fft.rfft(middle * np.hanning(len(middle))))) * RATE_HZ / len(middle))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("length", [240, 479, 24_000, 72_777])
def test_every_sample_comes_back(format: str, length: int) -> None:
    heard = decoded(encoded(tone(4)[:length], format), format)
    if format in EXACT:
        assert len(heard) == pytest.approx(length, abs=1)  # resampling opus from 48 kHz may round
    else:
        assert length <= len(heard) <= length + PADDING_SAMPLES[format]


@pytest.mark.parametrize("format", FORMATS)
def test_the_tail_is_heard_at_full_level(format: str) -> None:
    samples = np.concatenate([np.zeros(30_000, np.float32), tone(0.05)])
    heard = decoded(encoded(samples, format), format)
    loud = np.flatnonzero(np.abs(heard) > 0.15)
    lead = 0 if format in EXACT else PADDING_SAMPLES[format] // 2
    assert loud[0] == pytest.approx(30_000 + lead, abs=lead + 240)
    assert loud[-1] - loud[0] == pytest.approx(0.05 * RATE_HZ, abs=120)


@pytest.mark.parametrize("format", ["wav", "pcm", "flac"])
def test_the_lossless_formats_are_16_bit_exact(format: str) -> None:
    samples = np.random.default_rng(0).uniform(-1.1, 1.1, 10_000).astype(np.float32)
    assert decoded(encoded(samples, format), format).tolist() == samples_of(pcm16_of(samples)).tolist()


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac"])
def test_audio_can_be_heard_before_200_ms_have_gone_in(format: str) -> None:
    encoder = open_encoder(format)
    data = b"".join(encoder.encode(packet) for packet in np.split(tone(0.2), 10))
    assert rms_dbfs(decoded(data, format)[-PACKET:]) > -20
    encoder.close()


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_keep_coming_at_least_every_100_ms(format: str) -> None:
    encoder = open_encoder(format)
    encoder.encode(tone(0.5))
    assert all(encoder.encode(tone(0.1)) for _ in range(20))
    encoder.close()


@pytest.mark.parametrize("format", FORMATS)
def test_packets_of_any_size_make_the_same_audio(format: str) -> None:
    samples = tone(1.0)
    small, whole = (decoded(encoded(samples, format, packet=packet), format) for packet in (37, len(samples)))
    assert small == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize("speed", [0.25, 0.7, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("format", ["pcm", "opus"])
def test_speed_changes_the_duration_and_keeps_the_pitch(format: str, speed: float) -> None:
    samples = tone(3.0)
    heard = decoded(encoded(samples, format, speed=speed), format)
    assert len(heard) == pytest.approx(len(samples) / speed + 0.01 * RATE_HZ, abs=2)
    assert pitch_hz(heard) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.9, 1.5, 3.0])
def test_speed_loses_no_tail(speed: float) -> None:
    samples = np.concatenate([tone(1.0) * np.float32(0.1), tone(0.1)])
    heard = decoded(encoded(samples, "pcm", speed=speed), "pcm")
    assert np.sum(np.abs(heard) > 0.15) / RATE_HZ == pytest.approx(0.1 / speed * 2 / 3, rel=0.2)


def test_speed_one_changes_nothing() -> None:
    assert encoded(tone(0.3), "pcm", speed=1.0) == pcm16_of(tone(0.3))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("speed", [1.0, 2.0])
def test_a_stream_without_audio_is_valid_and_nearly_empty(format: str, speed: float) -> None:
    data = encoded(np.zeros(0, np.float32), format, speed=speed)
    assert len(data) < 1000
    if format in ("pcm", "wav"):
        assert data[44:] == b""
    else:
        assert not decoded(data, format).any()


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_no_number_is_silenced_and_what_is_too_loud_clipped(format: str) -> None:
    samples = tone(0.5)
    samples[3000:3500] = math.nan
    samples[4000:4100] = math.inf
    samples[5000:6000] *= 1e9
    heard = decoded(encoded(samples, format), format)
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() < 2.0


def test_a_wav_stream_reads_as_a_file_that_ends_where_it_ends() -> None:
    data = encoded(tone(0.5), "wav")
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="float32")
    assert (len(samples), rate_hz) == (12_000, RATE_HZ)
    with wave.open(io.BytesIO(data)) as file:
        assert len(file.readframes(1 << 20)) == 24_000


def test_an_ogg_stream_has_its_exact_length_for_other_decoders_too() -> None:
    samples, rate_hz = soundfile.read(io.BytesIO(encoded(tone(1.0)[:23_457], "opus")))
    assert len(samples) / rate_hz == pytest.approx(23_457 / RATE_HZ, abs=1e-4)


@pytest.mark.parametrize(
    ("format", "content_type"),
    [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("wav", "audio/wav"),
        ("pcm", "audio/pcm"),
    ],
)
def test_a_format_has_its_content_type_at_any_speed(format: str, content_type: str) -> None:
    assert open_encoder(format).content_type == open_encoder(format, speed=2.0).content_type == content_type


def test_another_format_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidRequest, match=r"'ogg' is not supported; choose one of mp3, opus, aac, flac, wav, pcm"):
        open_encoder("ogg")


@pytest.mark.parametrize("speed", [0.0, -1.0, 0.24, 4.01, math.nan, math.inf])
def test_a_speed_out_of_range_is_refused(speed: float) -> None:
    with pytest.raises(InvalidRequest, match=r"choose one from 0\.25 to 4") as caught:
        open_encoder("mp3", speed=speed)
    assert caught.value.param == "speed"


def test_a_rate_the_format_does_not_have_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidRequest, match="no sample rate of 22050 Hz; choose one of 8000, 12000"):
        open_encoder("opus", sample_rate_hz=22_050)


@pytest.mark.parametrize("format", FORMATS)
def test_an_abandoned_stream_is_closed_without_complaint(format: str) -> None:
    for samples in (0, 1000):
        encoder = open_encoder(format, speed=1.5)
        encoder.encode(np.zeros(samples, np.float32))
        encoder.close()
        encoder.close()


RAW = {"pcm": "s16le", "ulaw": "mulaw", "alaw": "alaw", "f32": "f32le"}
"""ffmpeg's names for samples without a header."""


@pytest.mark.parametrize("format", ["pcm", *TELEPHONE_FORMATS])
@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100])
def test_samples_have_the_rate_that_was_asked_for(format: str, rate_hz: int) -> None:
    encoder = open_encoder(Encoding(format, rate_hz), sample_rate_hz=RATE_HZ)
    samples = tone(2.0)
    data = b"".join(encoder.encode(samples[at : at + PACKET]) for at in range(0, len(samples), PACKET))
    data += encoder.finish()
    options = {"sample_rate": str(rate_hz), "ch_layout": "mono"}
    with av.open(io.BytesIO(data), "r", format=RAW[format], options=options) as container:
        resampler = av.AudioResampler("flt", "mono", RATE_HZ)
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    assert len(heard) == pytest.approx(len(samples), abs=RATE_HZ // 100)
    assert pitch_hz(heard) == pytest.approx(440, abs=1)
    assert rms_dbfs(heard) == pytest.approx(rms_dbfs(samples), abs=0.5)


def test_a_bit_rate_is_kept_to() -> None:
    def size(bit_rate_bps: int) -> int:
        encoder = open_encoder(Encoding("mp3", 44_100, bit_rate_bps), sample_rate_hz=RATE_HZ)
        return len(encoder.encode(tone(2.0)) + encoder.finish())

    assert size(64_000) == pytest.approx(2 * 64_000 / 8, rel=0.1)
    assert size(192_000) == pytest.approx(2 * 192_000 / 8, rel=0.1)


def test_another_rate_and_another_speed_go_together() -> None:
    encoder = open_encoder(Encoding("pcm", 8_000), sample_rate_hz=RATE_HZ, speed=2.0)
    assert len(encoder.encode(tone(2.0)) + encoder.finish()) == pytest.approx(2 * 8_000, rel=0.03)


def test_streams_in_many_threads_do_not_disturb_each_other() -> None:
    jobs = [(tone(0.3, hz=200.0 + 20 * n), FORMATS[n % len(FORMATS)], (1.0, 1.5)[n // 6 % 2]) for n in range(24)]
    alone = [encoded(samples, format, speed=speed) for samples, format, speed in jobs]
    with ThreadPoolExecutor(16) as threads:
        together = list(threads.map(lambda job: encoded(job[0], job[1], speed=job[2]), jobs))
    for (_, format, _), one, other in zip(jobs, alone, together, strict=True):
        assert decoded(one, format) == pytest.approx(decoded(other, format), abs=1e-6)
