"""Synthetic speech: flite and espeak-ng as subprocesses, room tone, levels, and the sounds of emotion tags."""

from __future__ import annotations

import io
import math
import shutil
import subprocess

import numpy as np
import soundfile
import soxr

SAMPLE_RATE_HZ = 24_000
FRAME_SAMPLES = 2048
ROOM_TONE_RMS = 0.0008
SPEECH_RMS = 0.08
LEAD_SAMPLES = 240  # 10 ms of room tone before a word's onset


class SynthesiserMissing(RuntimeError):
    """flite or espeak-ng is not installed."""


def run(command: list[str]) -> bytes:
    if shutil.which(command[0]) is None:
        raise SynthesiserMissing(f"{command[0]} is not installed; on Debian or Ubuntu: apt-get install flite espeak-ng")
    return subprocess.run(command, check=True, capture_output=True).stdout


def decoded(wav: bytes) -> np.ndarray:
    """RIFF bytes (a pipe's header may lie about its length) -> mono float32 at 24 kHz."""
    with soundfile.SoundFile(io.BytesIO(wav)) as file:
        samples, rate_hz = file.read(dtype="float32"), file.samplerate
    return soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)


def flite(text: str, flite_voice: str, stretch: float = 1.0, pitch_spread_hz: float | None = None) -> np.ndarray:
    """`text` spoken by a flite voice (slt, rms, awb, kal16): (samples,) float32 at 24 kHz."""
    command = ["flite", "-voice", flite_voice, "--setf", f"duration_stretch={stretch}"]
    if pitch_spread_hz is not None:
        command += ["--setf", f"int_f0_target_stddev={pitch_spread_hz}"]
    return decoded(run([*command, "-t", text, "-o", "/dev/stdout"]))


def espeak(text: str, variant: str, pitch: int = 50, words_per_minute: int = 165) -> np.ndarray:
    """`text` spoken by an espeak-ng voice such as `en+f3`: (samples,) float32 at 24 kHz."""
    command = ["espeak-ng", "-v", variant, "-p", str(pitch), "-s", str(words_per_minute), "--stdout", text]
    return decoded(run(command))


def room_tone(frames: int) -> np.ndarray:
    """`frames` times the same frame of faint noise: (frames * FRAME_SAMPLES,) float32."""
    noise = np.random.default_rng(7).standard_normal(FRAME_SAMPLES)
    return np.tile((noise * (ROOM_TONE_RMS / noise.std())).astype(np.float32), frames)


def trimmed(samples: np.ndarray, below_peak_db: float = 38.0) -> np.ndarray:
    """`samples` without the silence around the speech, 5 ms margins kept and faded."""
    window = 120
    level = np.sqrt(np.convolve(samples**2, np.ones(window) / window, mode="same"))
    loud = np.flatnonzero(level > level.max() * 10 ** (-below_peak_db / 20))
    speech = samples[max(0, loud[0] - window) : loud[-1] + window].copy()
    fade = np.linspace(0.0, 1.0, window, dtype=np.float32)
    speech[:window] *= fade
    speech[-window:] *= fade[::-1]
    return speech


def levelled(samples: np.ndarray, rms: float = SPEECH_RMS, peak: float = 0.7) -> np.ndarray:
    """`samples` with the loudest half of its 20 ms windows at `rms`, its peak at most `peak`."""
    windows = samples[: len(samples) // 480 * 480].reshape(-1, 480) if len(samples) >= 480 else samples[None]
    powers = np.sort((windows**2).mean(axis=1))
    loud_rms = math.sqrt(float(powers[len(powers) // 2 :].mean())) + 1e-9
    return samples * min(rms / loud_rms, peak / (float(np.abs(samples).max()) + 1e-9))


def framed(speech: np.ndarray) -> np.ndarray:
    """`speech` after a short lead, padded to whole frames, over room tone."""
    frames = math.ceil((LEAD_SAMPLES + len(speech)) / FRAME_SAMPLES)
    framed_speech = room_tone(frames)
    framed_speech[LEAD_SAMPLES : LEAD_SAMPLES + len(speech)] += speech
    return framed_speech


def _puff(seed: int, seconds: float, low_hz: float, high_hz: float, rise: float) -> np.ndarray:
    """A breath: noise between two frequencies that swells until `rise` of its length and dies away."""
    count = int(seconds * SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    frequency_hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    spectrum[(frequency_hz < low_hz) | (frequency_hz > high_hz)] = 0
    when = np.linspace(0, 1, count)
    envelope = np.minimum(when / rise, (1 - when) / (1 - rise)) ** 1.5
    return (np.fft.irfft(spectrum, count) * envelope).astype(np.float32)


def tag_sound(tag: str, flite_voice: str) -> np.ndarray:
    """The short fixed sound of an emotion tag in a voice: (samples,) float32."""
    said = {"<laugh>": ("ha ha ha", 0.7), "<chuckle>": ("heh heh", 0.7), "<groan>": ("er", 1.8), "<yawn>": ("ah", 2.2)}
    if tag in said:
        text, stretch = said[tag]
        return levelled(trimmed(flite(text, flite_voice, stretch)))
    if tag == "<sigh>":
        return levelled(_puff(11, 0.6, 300, 2500, 0.2), rms=0.03)
    if tag == "<cough>":
        burst = _puff(12, 0.16, 200, 4000, 0.1)
        return levelled(np.concatenate([burst, np.zeros(960, np.float32), burst]), rms=0.06)
    if tag == "<sniffle>":
        return levelled(_puff(13, 0.3, 2500, 8000, 0.7), rms=0.03)
    return levelled(_puff(14, 0.35, 500, 4500, 0.8), rms=0.04)  # <gasp>
