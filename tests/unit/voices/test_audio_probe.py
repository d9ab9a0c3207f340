"""What strangers upload: every container is measured, everything else is refused with its reason, nothing gets hurt."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from app.errors import RecordingUnfit
from app.platform.sandbox import Limits
from app.speech.audio import Samples
from app.voices import audio_probe
from app.voices.audio_probe import LIMITS
from app.voices.models import AudioFacts
from tests.support.audio_files import decode, probe
from tests.support.processes import children_running

RATE_HZ = 24_000
CAP_S = 7200.0


def hum(length_s: float, rate_hz: int = RATE_HZ) -> Samples:
    """A hum under noise that swells, with one click: lossy codecs keep it recognisable."""
    t = np.arange(round(length_s * rate_hz)) / rate_hz
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.2 * np.sin(2 * np.pi * 200 * t) * np.sin(np.pi * t / length_s) + 0.02 * noise).astype(np.float32)


def ffmpeg(path: Path, codec: str, format: str, samples: Samples) -> None:
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=RATE_HZ)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp" if codec == "aac" else "flt", layout="mono")
        frame.sample_rate = RATE_HZ
        for part in (frame, None):
            container.mux(stream.encode(part))


WRITERS: dict[str, Callable[[Path, Samples], None]] = {
    "a.wav": lambda path, samples: soundfile.write(path, samples, RATE_HZ),
    "a.flac": lambda path, samples: soundfile.write(path, samples, RATE_HZ),
    "a.mp3": lambda path, samples: soundfile.write(path, samples, RATE_HZ),
    "a.ogg": lambda path, samples: soundfile.write(path, samples, RATE_HZ, format="OGG", subtype="VORBIS"),
    "opus.ogg": lambda path, samples: ffmpeg(path, "libopus", "ogg", samples),
    "a.m4a": lambda path, samples: ffmpeg(path, "aac", "ipod", samples),
    "a.webm": lambda path, samples: ffmpeg(path, "libopus", "webm", samples),
}


def written(directory: Path, name: str, length_s: float = 2.0) -> Path:
    WRITERS[name](directory / name, hum(length_s))
    return directory / name


def refusal(path: Path, *, max_duration_s: float = CAP_S, limits: Limits = LIMITS) -> str:
    with pytest.raises(RecordingUnfit) as refused:
        probe(path, max_duration_s=max_duration_s, limits=limits)
    assert refused.value.message.startswith(path.name)
    return refused.value.message


@pytest.mark.parametrize("name", WRITERS)
def test_every_container_is_known_by_its_bytes_and_measured_by_decoding(tmp_path: Path, name: str) -> None:
    facts = probe(written(tmp_path, name).rename(tmp_path / "anything"), max_duration_s=CAP_S)
    assert (facts.container, facts.sample_rate_hz, facts.channels) == (name.rpartition(".")[2], RATE_HZ, 1)
    assert facts.duration_s == pytest.approx(2.0, abs=0.1)


def test_a_wav_that_was_piped_has_no_length_in_its_header_and_is_measured(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path, "a.wav").read_bytes())
    data[4:8] = data[40:44] = b"\xff" * 4
    (tmp_path / "piped.wav").write_bytes(data)
    assert probe(tmp_path / "piped.wav", max_duration_s=CAP_S).duration_s == pytest.approx(2.0)


# Refusals


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.wav", b"Dear all, please find the recording attached.\n", "is a text file, not audio"),
        ("empty.wav", b"", "is empty (0 bytes)"),
        ("blank.wav", bytes(1000), "nothing but zero bytes"),
        ("photo.wav", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "neither WAV, FLAC, MP3, OGG, M4A, AAC nor WebM"),
        ("torn.wav", b"RIFF\x00\x01\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00", "is damaged or cut off"),
        ("list.wav", b"#EXTM3U\nfile:///etc/passwd\n", "is a text file"),
    ],
)
def test_what_is_no_audio_is_refused_by_what_it_is(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_a_file_cut_off_in_the_middle_is_told_with_what_is_missing(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, length_s=4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "of 0:04: it was cut off; upload it again" in refusal(path)


def test_an_m4a_cut_off_before_its_index_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.m4a")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged or cut off" in refusal(path)


def test_an_mp3_without_a_length_is_seen_to_end_inside_a_frame(tmp_path: Path) -> None:
    frame = b"\xff\xfb\x90\x00" + bytes(413)  # 128 kbit/s, 44.1 kHz: 417 bytes
    (tmp_path / "whole.mp3").write_bytes(frame * 50)
    (tmp_path / "torn.mp3").write_bytes((frame * 50)[:-200])
    assert probe(tmp_path / "whole.mp3", max_duration_s=CAP_S).duration_s == pytest.approx(50 * 1152 / 44_100, abs=0.1)
    assert "ends inside a frame" in refusal(tmp_path / "torn.mp3")


def test_a_file_of_0_seconds_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0, np.float32), RATE_HZ)
    assert "holds no sound (0 seconds)" in refusal(tmp_path / "nothing.wav")


def test_a_file_of_12_hours_is_refused_by_its_header_before_decoding(tmp_path: Path) -> None:
    path = written(tmp_path, "a.flac")
    data = bytearray(path.read_bytes())
    total = 12 * 3600 * RATE_HZ  # STREAMINFO keeps it in the low 36 bits of bytes 18 to 25
    packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | total
    data[18:26] = packed.to_bytes(8, "big")
    path.write_bytes(data)
    assert "is 12:00:00 long; at most 2:00:00 are accepted" in refusal(path)


def test_a_long_file_that_hides_its_length_is_stopped_at_the_cap(tmp_path: Path) -> None:
    path = written(tmp_path, "opus.ogg", length_s=5.0)
    assert "is longer than 0:03" in refusal(path, max_duration_s=3.0)


def test_a_small_flac_that_decodes_to_gigabytes_is_stopped_early(tmp_path: Path) -> None:
    path = tmp_path / "bomb.flac"
    with soundfile.SoundFile(path, "w", 48_000, 2, subtype="PCM_16") as file:
        for _ in range(400):
            file.write(np.zeros((48_000, 2), np.int16))
    assert path.stat().st_size < 100_000
    assert "which no speech does" in refusal(path)


@pytest.mark.parametrize(
    ("rate_hz", "channels", "reason"),
    [(RATE_HZ, 9, "has 9 channels; 1 to 8"), (4_000, 1, "4000 Hz"), (384_000, 1, "384000 Hz")],
)
def test_odd_shapes_are_refused_with_what_is_accepted(tmp_path: Path, rate_hz: int, channels: int, reason: str) -> None:
    soundfile.write(tmp_path / "odd.wav", np.full((rate_hz, channels), 0.1, np.float32), rate_hz)
    assert reason in refusal(tmp_path / "odd.wav")


def test_a_wav_of_no_channels_is_refused(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path, "a.wav").read_bytes())
    data[22:24] = struct.pack("<H", 0)
    (tmp_path / "none.wav").write_bytes(data)
    refusal(tmp_path / "none.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    samples = hum(2.0)
    samples[RATE_HZ] = value
    soundfile.write(tmp_path / "float.wav", samples, RATE_HZ, subtype="FLOAT")
    assert "no numbers (NaN or infinite) at 0:0" in refusal(tmp_path / "float.wav")


@pytest.mark.parametrize("name", WRITERS)
def test_damage_anywhere_ends_in_facts_or_a_refusal_and_never_in_a_defect(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    data, draw = bytearray(path.read_bytes()), np.random.default_rng(len(name))
    for place in draw.integers(4, len(data), 40):
        data[place] = draw.integers(256)
    path.write_bytes(data)
    try:
        assert isinstance(probe(path, max_duration_s=CAP_S), AudioFacts)
    except RecordingUnfit as refused:
        assert refused.message


# Bounds


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that never says anything."""
    os.mkfifo(tmp_path / "endless.wav")
    return tmp_path / "endless.wav"


def test_a_decoder_that_never_ends_is_a_refusal_with_the_time(endless: Path) -> None:
    assert refusal(endless, limits=replace(LIMITS, wall_s=0.2)) == (
        "endless.wav took longer than 0.2 s to decode; convert it to WAV or FLAC."
    )


@pytest.mark.anyio
async def test_a_decoder_that_crashes_is_a_refusal_with_the_signal(endless: Path) -> None:
    inspecting = asyncio.create_task(audio_probe.probe(endless, max_duration_s=CAP_S))
    with await asyncio.to_thread(endless.open, "wb"):  # returns when the decoder has opened its end
        for decoder in children_running("audio_probe_child.py"):
            decoder.send_signal(signal.SIGSEGV)
        with pytest.raises(RecordingUnfit, match=r"made the decoder crash \(SIGSEGV\)"):
            await inspecting


def test_too_little_memory_is_a_refusal(tmp_path: Path) -> None:
    assert "memory" in refusal(written(tmp_path, "a.flac"), limits=replace(LIMITS, memory_bytes=2**20))


# Decoding


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "opus.ogg"])
def test_decoded_sample_0_is_sample_0(tmp_path: Path, name: str) -> None:
    decode(written(tmp_path, name), tmp_path / "out.f32", max_duration_s=CAP_S)
    heard, said = np.fromfile(tmp_path / "out.f32", "<f4"), hum(2.0)
    assert len(heard) == len(said)
    middle = heard[12_000:36_000]
    likeness = [float(middle @ said[12_000 + lag : 36_000 + lag]) for lag in range(-50, 51)]
    assert int(np.argmax(likeness)) - 50 == 0
    assert np.corrcoef(heard, said)[0, 1] > 0.98


def test_channels_are_averaged_and_rates_converted(tmp_path: Path) -> None:
    left = hum(2.0, 44_100)
    right = 0.5 * left
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44_100)
    decoded = decode(tmp_path / "a.wav", tmp_path / "out.f32", max_duration_s=CAP_S, sample_rate_hz=RATE_HZ)
    assert decoded.facts == AudioFacts(container="wav", sample_rate_hz=44_100, channels=2, duration_s=2.0)
    heard = np.fromfile(tmp_path / "out.f32", "<f4")
    assert len(heard) == 2 * RATE_HZ
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(0.75 * np.sqrt(np.mean(left**2)), rel=0.02)
    assert decoded.lone_channel is None


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_means_the_same(tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "a.wav", hum(1.0), RATE_HZ, subtype=subtype)
    decode(tmp_path / "a.wav", tmp_path / "out.f32", max_duration_s=CAP_S)
    assert np.abs(np.fromfile(tmp_path / "out.f32", "<f4") - hum(1.0)).max() < (0.01 if subtype == "PCM_U8" else 1e-4)


def test_clipping_is_counted_where_it_happened(tmp_path: Path) -> None:
    samples = hum(2.0)
    samples[RATE_HZ : RATE_HZ + 480] = 1.0
    soundfile.write(tmp_path / "a.flac", samples, RATE_HZ)
    decoded = decode(tmp_path / "a.flac", tmp_path / "out.f32", max_duration_s=CAP_S)
    assert decoded.clipped_share == pytest.approx(480 / 48_000)
    assert decoded.first_clip_s == pytest.approx(1.0)


def test_a_refused_file_leaves_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(RecordingUnfit):
        decode(written(tmp_path, "a.flac"), tmp_path / "out.f32", max_duration_s=1.0)
    assert not (tmp_path / "out.f32").exists()
