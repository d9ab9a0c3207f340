"""Files as recorders, browsers and converters really make them: each is read whole, or refused with what is wrong."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from app.errors import RecordingUnfit
from app.speech.audio import Samples
from tests.support.audio_files import decode, probe

RATE_HZ = 48_000
CAP_S = 7200.0
LENGTH_S = 3.0
INVERTED = "one channel is the other's inverse, and both together would be silent; the left one is used alone"


def hum(length_s: float = LENGTH_S) -> Samples:
    """A hum that swells, under noise."""
    t = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.2 * np.sin(2 * np.pi * 200 * t) * np.sin(np.pi * t / length_s) + 0.02 * noise).astype(np.float32)


def encoded(path: Path, codec: str, format: str, **options: str) -> Path:
    """A recording made by a real encoder; `movflags` and `live` are for the muxer, other options for the codec."""
    muxer = {name: options.pop(name) for name in ("movflags", "live") if name in options}
    with av.open(str(path), "w", format=format, options=muxer) as container:
        stream = container.add_stream(codec, rate=RATE_HZ, options=options)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        planar = codec == "aac"
        frame = av.AudioFrame.from_ndarray(hum()[None], format="fltp" if planar else "flt", layout="mono")
        frame.sample_rate = RATE_HZ
        for part in (frame, None):
            container.mux(stream.encode(part))
    return path


def heard(path: Path) -> Samples:
    target = path.with_suffix(".f32")
    decode(path, target, max_duration_s=CAP_S, sample_rate_hz=RATE_HZ)
    return np.fromfile(target, "<f4")


def is_the_hum(samples: Samples) -> bool:
    """Whether it is there, wherever it begins."""
    said = hum()[RATE_HZ : 2 * RATE_HZ]
    return float(np.correlate(samples, said, "valid").max()) > 0.9 * float(said @ said)


@pytest.mark.parametrize("placeholder", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 2_000_000_000, 0xFFFFFFFF - 36])
def test_a_wav_whose_recorder_did_not_know_the_length_is_read_to_its_end(tmp_path: Path, placeholder: int) -> None:
    soundfile.write(tmp_path / "a.wav", hum(), RATE_HZ, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[40:44] = struct.pack("<I", placeholder)
    data[4:8] = struct.pack("<I", min(placeholder + 36, 0xFFFFFFFF) if placeholder else 0)
    (tmp_path / "a.wav").write_bytes(data)
    assert probe(tmp_path / "a.wav", max_duration_s=CAP_S).duration_s == pytest.approx(LENGTH_S)
    np.testing.assert_allclose(heard(tmp_path / "a.wav"), hum(), atol=1e-4)


def test_a_wav_that_hides_half_of_its_sound_is_refused_and_not_halved(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", hum(), RATE_HZ, subtype="PCM_16")
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[40:44] = struct.pack("<I", len(hum()))
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(RecordingUnfit, match="0:01 of sound by its header and 0:01 more behind it"):
        probe(tmp_path / "a.wav", max_duration_s=CAP_S)


def test_chunks_behind_the_sound_are_no_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", hum(), RATE_HZ, subtype="PCM_16")
    notes = b"LIST" + struct.pack("<I", 100_000) + b"INFO" + bytes(99_996)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes() + notes)
    assert probe(tmp_path / "a.wav", max_duration_s=CAP_S).duration_s == pytest.approx(LENGTH_S)


def test_what_a_browsers_media_recorder_writes_has_no_duration_and_is_read(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.webm", "libopus", "webm", live="1")
    with av.open(str(path)) as container:
        assert container.streams.audio[0].duration is None
    facts = probe(path, max_duration_s=CAP_S)
    assert facts.container == "webm"
    assert facts.duration_s == pytest.approx(LENGTH_S, abs=0.1)
    assert is_the_hum(heard(path))


ENCODERS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "60ms.opus": ("libopus", "ogg", {"frame_duration": "60"}, "ogg"),
    "60ms.webm": ("libopus", "webm", {"frame_duration": "60"}, "webm"),
    "moov-at-the-end.m4a": ("aac", "ipod", {}, "m4a"),
    "moov-first.m4a": ("aac", "ipod", {"movflags": "faststart"}, "m4a"),
    "safari.mp4": ("aac", "mp4", {"movflags": "frag_keyframe+empty_moov"}, "m4a"),
    "adts.aac": ("aac", "adts", {}, "aac"),
    "wrong-suffix.mp3": ("aac", "ipod", {}, "m4a"),
    "wrong-suffix.wav": ("libopus", "ogg", {}, "ogg"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoders_file_is_known_by_its_bytes_and_read_whole(tmp_path: Path, name: str) -> None:
    codec, format, options, container = ENCODERS[name]
    path = encoded(tmp_path / name, codec, format, **options)
    facts = probe(path, max_duration_s=CAP_S)
    assert facts.container == container
    assert facts.duration_s == pytest.approx(LENGTH_S, abs=0.15)
    assert is_the_hum(heard(path))


def test_a_flac_behind_an_id3_tag_is_a_flac(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", hum(), RATE_HZ)
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 15, 104]) + bytes(15 * 128 + 104)  # of 2024 bytes
    (tmp_path / "tagged.flac").write_bytes(tag + (tmp_path / "a.flac").read_bytes())
    assert probe(tmp_path / "tagged.flac", max_duration_s=CAP_S).container == "flac"
    np.testing.assert_allclose(heard(tmp_path / "tagged.flac"), hum(), atol=1e-4)


def test_a_wave_extensible_file_is_a_wav(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", hum(), RATE_HZ, format="WAVEX", subtype="PCM_24")
    assert probe(tmp_path / "a.wav", max_duration_s=CAP_S).duration_s == pytest.approx(LENGTH_S)
    np.testing.assert_allclose(heard(tmp_path / "a.wav"), hum(), atol=1e-4)


@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (1.0, 0.0, "the right channel is silent; the left one is used alone"),
        (0.003, 1.0, "the left channel is silent; the right one is used alone"),
        (
            1.0,
            -1.0,
            "one channel is the other's inverse, and both together would be silent; the left one is used alone",
        ),
        (1.0, 0.8, None),
        (0.0, 0.0, None),
    ],
)
def test_a_dead_or_inverted_channel_is_left_out_and_said(
    tmp_path: Path, left: float, right: float, said: str | None
) -> None:
    soundfile.write(tmp_path / "a.flac", np.stack([left * hum(), right * hum()], axis=1), RATE_HZ)
    decoded = decode(tmp_path / "a.flac", tmp_path / "a.f32", max_duration_s=CAP_S, sample_rate_hz=RATE_HZ)
    assert decoded.lone_channel == said
    mono = np.fromfile(tmp_path / "a.f32", "<f4")
    wanted = max(left, right) if said else (left + right) / 2
    np.testing.assert_allclose(mono, wanted * hum(), atol=2e-4)


def test_two_unlike_channels_are_averaged_at_another_rate_too(tmp_path: Path) -> None:
    other = np.roll(hum(), 1000)
    soundfile.write(tmp_path / "a.flac", np.stack([hum(), other], axis=1), RATE_HZ)
    decode(tmp_path / "a.flac", tmp_path / "a.f32", max_duration_s=CAP_S, sample_rate_hz=24_000)
    mono = np.fromfile(tmp_path / "a.f32", "<f4")
    assert len(mono) == round(LENGTH_S * 24_000)
    soundfile.write(tmp_path / "b.flac", (hum() + other) / 2, RATE_HZ)
    decode(tmp_path / "b.flac", tmp_path / "b.f32", max_duration_s=CAP_S, sample_rate_hz=24_000)
    np.testing.assert_allclose(mono, np.fromfile(tmp_path / "b.f32", "<f4"), atol=1e-4)
