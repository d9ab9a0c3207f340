"""Turns a speaker's recordings into training clips, with a report that the speaker can act on.

Decoded, checked for rate, clipping and noise, cut at pauses, given their transcripts, levelled, trimmed: clip by clip
as FLAC, one recording in memory at a time. What is done to the samples is in `training.cutting`; thresholds are
`PrepareConfig`'s. Speech is distinguished from silence by level above an adaptive floor: silero would be a second
opinion, but its import sets torch's threads to one for the whole process, and the floor alone errs by less than a hop
down to 25 dB. Nothing here knows codes, models or where the recordings came from.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import soundfile

from app.errors import InvalidRequest
from app.hearing.ear import Heard, Transcriber
from app.hearing.words import letter_agreement, word_agreement, words_of
from app.speech.audio import Samples, hop_levels_dbfs, signal_to_noise_db
from app.speech.recipe import PrepareConfig
from app.voices import audio_probe
from app.voices.models import DataReport, Transcription
from training import cutting
from training.cutting import Cut, Grid, Recording
from training.data_report import (
    KeptClip,
    RecordingFile,
    Source,
    SpeechClip,
    clock,
    leave_out_odd_paces,
    percent,
    point_out_twins,
    report_of,
)
from training.transcripts import STRANGE, fits, parting, shared_out

CLIPPING_EXPLAINED = "Lower the input gain and re-record."
SHORTEST_TEXT = 3  # characters (F5-TTS)
SILENT_DBFS = -60.0
DC_OFFSET = 0.005
PEAKY_DB = 3.0
SPOT_CHECKS = 8
MANY_STRANGE = 3
NOTED_HEAD_S = 0.1
NOTED_TAIL_S = 0.1


class PreparationCancelled(Exception):
    """The clips are not wanted any more; those written so far are in the directory."""


@dataclass(frozen=True)
class Prepared:
    """The clips, and the outcome of every recording."""

    clips: tuple[SpeechClip, ...]
    report: DataReport


def prepare(
    sources: Sequence[Source],
    directory: Path,
    config: PrepareConfig,
    *,
    sample_rate_hz: int = 24_000,
    frame_samples: int = 2048,
    language: str | None = None,
    transcriber: Transcriber | None = None,
    max_sample_s: float = 7200.0,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Writes the clips of all `sources` into `directory`; `progress` gets (recordings done, recordings).

    A recording that cannot be used, or is longer than `max_sample_s`, is a finding, never an error. Raises
    PreparationCancelled between two recordings, and what the transcriber raises. Whether it is enough is for
    `report_shortfall`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    preparation = _Preparation(
        directory, config, Grid(sample_rate_hz, frame_samples), language, transcriber, max_sample_s
    )
    files: list[RecordingFile] = []
    for number, source in enumerate(sources):
        if cancelled():
            raise PreparationCancelled
        file = RecordingFile(source, number + 1)
        files.append(file)
        try:
            preparation.work(file)
        except InvalidRequest as error:
            file.note("rejected", "unreadable", error.message)
        if progress is not None:
            progress(number + 1, len(sources))
    preparation.judge_strange()
    leave_out_odd_paces(files)
    point_out_twins(files)
    return Prepared(tuple(clip.clip for file in files for clip in file.clips), report_of(files, config))


@dataclass
class _Preparation:
    """Works on one recording after the other."""

    directory: Path
    config: PrepareConfig
    grid: Grid
    language: str | None
    transcriber: Transcriber | None
    max_sample_s: float
    _seen: dict[str, str] = field(default_factory=dict)
    _checked: int = 0
    _strange: list[tuple[RecordingFile, KeptClip, str]] = field(default_factory=list)

    def work(self, file: RecordingFile) -> None:
        """One recording from file to clips; it returns early where a finding rules it out.

        Raises InvalidRequest for a file that does not decode.
        """
        name, digest = file.source.name, _sha256(file.source.path)
        if digest in self._seen:
            file.note("rejected", "duplicate", f"{name}: the same file as {self._seen[digest]}; one of them is enough.")
            return
        self._seen[digest] = name
        if file.source.transcript is None and self.transcriber is None:
            file.note("rejected", "no_transcript", f"{name}: no transcript; add one, or configure a transcriber.")
            return
        samples = self._decoded(file)
        recording = None if samples is None else self._levelled(file, samples)
        if recording is None:
            return
        file.head_s = self.grid.seconds(recording.speech[0])
        whole = cutting.cut(recording, recording.speech, self.grid, self.config)
        is_one_clip = len(whole.samples) <= self.grid.samples(self.config.max_clip_s)
        if file.source.transcript is not None and is_one_clip:
            self._keep_whole(file, recording, whole, file.source.transcript)
        elif self.transcriber is not None:
            self._keep_segments(file, recording, self.transcriber)
        else:
            file.note(
                "rejected",
                "too_long",
                f"{name}: {clock(file.duration_s)} under one transcript, and a clip has at most "
                f"{self.config.max_clip_s:g} s; split it at its sentences, or configure a transcriber.",
            )

    def _decoded(self, file: RecordingFile) -> Samples | None:
        """The samples of a file whose rate and clipping are acceptable."""
        name, config = file.source.name, self.config
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=".decoded-") as scratch:
            target = Path(scratch) / "mono.f32"
            decoding = audio_probe.decode(
                file.source.path,
                target,
                max_duration_s=self.max_sample_s,
                sample_rate_hz=self.grid.sample_rate_hz,
                name=name,
            )
            decoded = asyncio.run(decoding)
            samples = np.fromfile(target, "<f4")
        file.duration_s = decoded.facts.duration_s
        if decoded.lone_channel:
            file.note("fixed", "one_channel", f"{name}: {decoded.lone_channel}.")
        rate_hz = decoded.facts.sample_rate_hz
        wanted = f"{_khz(config.min_source_rate_hz)} minimum, {_khz(config.good_source_rate_hz)} recommended."
        if rate_hz < config.min_source_rate_hz:
            kind = "telephone audio" if rate_hz == 8_000 else "audio"
            file.note("rejected", "low_rate", f"{name}: {_khz(rate_hz)} {kind}; {wanted}")
            return None
        if rate_hz < config.good_source_rate_hz:
            file.note("check", "low_rate", f"{name}: {_khz(rate_hz)} audio will sound dull; {wanted}")
        if decoded.first_clip_s is not None:
            excessive = decoded.clipped_share > config.max_clipped_share
            message = (
                f"{name}: {percent(decoded.clipped_share)} of samples clip (first at {clock(decoded.first_clip_s)})."
            )
            at = (decoded.first_clip_s, decoded.first_clip_s)
            file.note("rejected" if excessive else "check", "clipping", f"{message} {CLIPPING_EXPLAINED}", at)
            if excessive:
                return None
        return samples

    def _levelled(self, file: RecordingFile, samples: Samples) -> Recording | None:
        """The recording filtered and levelled (in place), if it is speech, and neither noisy nor faint."""
        name, config, rate_hz = file.source.name, self.config, self.grid.sample_rate_hz
        offset = float(np.mean(samples, dtype=np.float64)) if len(samples) else 0.0
        if abs(offset) > DC_OFFSET:
            file.note("fixed", "dc_offset", f"{name}: a DC offset of {100 * offset:+.1f} % was removed.")
        samples -= np.float32(offset)
        cutting.high_pass(samples, rate_hz, config.high_pass_hz)
        level = cutting.speech_level_dbfs(samples, rate_hz)
        if level is None or level < SILENT_DBFS:
            file.note("rejected", "no_speech", f"{name}: no speech was found; check the microphone.")
            return None
        file.snr_db = signal_to_noise_db(samples, rate_hz)
        if file.snr_db is not None and file.snr_db < config.good_snr_db:
            excessive = file.snr_db < config.min_snr_db
            message = (
                f"{name}: background noise {'too high' if excessive else 'audible'} "
                f"(SNR {file.snr_db:.0f} dB; need {config.min_snr_db:g}, aim for 35)."
            )
            file.note("rejected" if excessive else "check", "noise", message)
            if excessive:
                return None
        gain_db = cutting.wanted_lufs(config) - level
        if abs(gain_db) > config.max_gain_db:
            file.note("rejected", *self._misled(name, gain_db))
            return None
        recording = cutting.levelled_recording(samples, gain_db, self.grid, config)
        if recording is None:
            file.note("rejected", "no_speech", f"{name}: no speech was found; check the microphone.")
        return recording

    def _misled(self, name: str, gain_db: float) -> tuple[str, str]:
        code, remedy = ("too_quiet", "record closer to it") if gain_db > 0 else ("too_loud", "lower the input gain")
        limit = self.config.max_gain_db
        return code, f"{name}: needs {gain_db:+.0f} dB to be as loud as the others, at most {limit:g}; {remedy}."

    def _keep_whole(self, file: RecordingFile, recording: Recording, whole: Cut, transcript: str) -> None:
        """A recording under one transcript, short enough for one clip."""
        kept = self._keep(file, recording, whole, " ".join(transcript.split()))
        if kept is None or self.transcriber is None or not self._is_to_be_checked(self.transcriber):
            return
        self._checked += 1
        heard = self.transcriber.transcribe(kept.clip.path, language=self.language).text
        if self.transcriber.coarse:
            if letter_agreement(transcript, heard) < STRANGE:
                self._strange.append((file, kept, heard))
        elif not fits(transcript, heard, self.transcriber, self.config.min_word_agreement):
            file.leave_out(kept, "mismatch", self._mismatch(file, kept, heard))

    def _is_to_be_checked(self, transcriber: Transcriber) -> bool:
        """A coarse recogniser hears some, and the rest only where these raise doubts: hearing all takes minutes."""
        return not transcriber.coarse or self._checked < SPOT_CHECKS or 2 * len(self._strange) >= self._checked

    def judge_strange(self) -> None:
        """Texts that were not heard: where they are many, transcripts were mixed up; a few may be the recogniser's."""
        many = len(self._strange) >= MANY_STRANGE and 2 * len(self._strange) >= self._checked
        for file, kept, heard in self._strange:
            if many:
                file.leave_out(kept, "mismatch", self._mismatch(file, kept, heard))
            else:
                span_s = (kept.clip.start_s, kept.clip.start_s + kept.clip.duration_s)
                message = f"{file.source.name}: check the transcript: {parting(kept.clip.text, heard)}."
                file.note("check", "transcript", message, span_s)

    def _mismatch(self, file: RecordingFile, kept: KeptClip, heard: str) -> str:
        agreement = percent(word_agreement(kept.clip.text, heard))
        message = f"{file.source.name}: transcript and audio differ ({agreement} match)"
        return f"{message}: {parting(kept.clip.text, heard)}; excluded."

    def _keep_segments(self, file: RecordingFile, recording: Recording, transcriber: Transcriber) -> None:
        """A recording of several clips: each has the text spoken there, in a transcript's words if there is one."""
        transcript = file.source.transcript
        spans = cutting.segments(recording, self.grid, self.config)
        cuts = [cutting.cut(recording, span, self.grid, self.config) for span in spans]
        made_clips = [self._keep(file, recording, made, "") for made in cuts]
        if transcript is None:  # else what is left out has words of the transcript too
            cuts, made_clips = _without_none(cuts, made_clips)
        heard = [self._heard(made, kept, transcriber) for made, kept in zip(cuts, made_clips, strict=True)]
        spoken = [one.text for one in heard]
        texts = spoken if transcript is None else shared_out(transcript, spoken)
        clips: list[tuple[KeptClip, str]] = []
        for kept, text, said in zip(made_clips, texts, spoken, strict=True):
            if kept is not None:
                kept.clip = replace(kept.clip, text=text)
                clips.append((kept, said))
        if transcript is None:
            self._note_transcription(file, heard, transcriber)
        self._leave_out_misfits(file, clips, transcriber)

    def _heard(self, made: Cut, kept: KeptClip | None, transcriber: Transcriber) -> Heard:
        if kept is not None:
            return transcriber.transcribe(kept.clip.path, language=self.language)
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=".heard-") as scratch:
            path = Path(scratch) / "clip.flac"
            soundfile.write(path, made.samples, self.grid.sample_rate_hz, subtype="PCM_16")
            return transcriber.transcribe(path, language=self.language)

    def _leave_out_misfits(
        self, file: RecordingFile, clips: Sequence[tuple[KeptClip, str]], transcriber: Transcriber
    ) -> None:
        """Clips that do not match their text, each with its transcript."""
        name = file.source.name
        wrong = [
            (kept, said)
            for kept, said in clips
            if not fits(kept.clip.text, said, transcriber, self.config.min_word_agreement)
        ]
        if len(clips) > 1 and 2 * len(wrong) > len(clips):
            self._leave_out_all(file, *wrong[0])
            return
        for kept, said in wrong:
            at, agreement = clock(kept.clip.start_s), percent(word_agreement(kept.clip.text, said))
            message = f"{name}: transcript and audio differ at {at} ({agreement} match): "
            file.leave_out(kept, "mismatch", f"{message}{parting(kept.clip.text, said)}; excluded.")
        for kept in list(file.clips):
            if len(kept.clip.text.strip()) < SHORTEST_TEXT:
                file.leave_out(
                    kept, "no_words", f"{name}: no words were heard at {clock(kept.clip.start_s)}; excluded."
                )

    def _leave_out_all(self, file: RecordingFile, first: KeptClip, heard: str) -> None:
        """A transcript of which most clips say something else is one finding, not many."""
        name, at = file.source.name, clock(first.clip.start_s)
        message = (
            f"{name}: the transcript is not of this recording; they part at {at}: {parting(first.clip.text, heard)}. "
            "Send the right one, or none."
        )
        for kept in file.clips:
            kept.clip.path.unlink(missing_ok=True)
        file.clips = []
        file.note("rejected", "mismatch", message)

    def _note_transcription(self, file: RecordingFile, heard: Sequence[Heard], transcriber: Transcriber) -> None:
        """Recognised text goes into the report, for the owner to correct."""
        text = " ".join(one.text for one in heard if one.text)
        told = [one.confidence for one in heard if one.confidence is not None]
        confidence = round(sum(told) / len(told), 3) if told else None
        file.transcription = Transcription(text=text, by=transcriber.name, confidence=confidence)
        sure = "" if confidence is None else f" with a confidence of {percent(confidence)}"
        message = f"{file.source.name}: no transcript; {transcriber.name} heard {len(words_of(text))} words{sure}."
        file.note("check", "transcribed", f"{message} Check them, and send the right text where they are wrong.")

    def _keep(self, file: RecordingFile, recording: Recording, made: Cut, text: str) -> KeptClip | None:
        """Levels and writes one clip, unless it is too short, too long, or out of reach of the gain."""
        name, config, grid = file.source.name, self.config, self.grid
        span_s = (grid.seconds(made.speech[0]), grid.seconds(made.speech[1]))
        speech_s = span_s[1] - span_s[0] - made.shortened_s
        if speech_s < config.min_clip_s:
            message = f"{name}: {speech_s:.1f} s of speech at {clock(span_s[0])}; {config.min_clip_s:g} s minimum."
            file.note("rejected", "too_short", message, span_s)
            return None
        if len(made.samples) > grid.samples(config.max_clip_s):
            message = (
                f"{name}: {speech_s:.0f} s without a pause at {clock(span_s[0])}; {config.max_clip_s:g} s maximum."
            )
            file.note("rejected", "too_long", message, span_s)
            return None
        wanted_db, allowed_db = cutting.clip_gain_db(made.samples, grid.sample_rate_hz, config)
        total_db = recording.gain_db + wanted_db
        if abs(total_db) > config.max_gain_db:
            file.note("rejected", *self._misled(f"{name} at {clock(span_s[0])}", total_db), span_s)
            return None
        samples = made.samples * np.float32(10.0 ** (min(wanted_db, allowed_db) / 20.0))
        self._note(file, made, wanted_db, allowed_db, span_s)
        clip_name = f"{file.number:04}-{len(file.clips) + 1:03}"
        path = self.directory / f"{clip_name}.flac"
        soundfile.write(path, samples, grid.sample_rate_hz, subtype="PCM_16")
        start_s = grid.seconds(made.start)
        clip = SpeechClip(clip_name, path, text, grid.seconds(len(samples)), speech_s, name, start_s)
        kept = KeptClip(clip, hop_levels_dbfs(samples, grid.sample_rate_hz))
        file.clips.append(kept)
        return kept

    def _note(
        self, file: RecordingFile, made: Cut, wanted_db: float, allowed_db: float, span_s: tuple[float, float]
    ) -> None:
        """Repairs of a clip, and what should be checked."""
        name, at = file.source.name, clock(span_s[0])
        first_head_s = file.head_s if not file.clips else None
        if first_head_s is not None and first_head_s - made.head_s > NOTED_HEAD_S:
            message = f"{name}: {1000 * first_head_s:.0f} ms before the speech cut to {1000 * made.head_s:.0f} ms."
            file.note("fixed", "head_silence", message, (0.0, first_head_s - made.head_s))
        if made.head_s < cutting.SHORTEST_HEAD_S:
            file.note("check", "no_head", f"{name}: speech begins at once; leave 0.2 s of silence before it.", span_s)
        if made.shortened_s:
            message = f"{name}: pauses after {at} shortened by {made.shortened_s:.1f} s in total."
            file.note("fixed", "long_pause", message, span_s)
        if made.added_s > NOTED_TAIL_S:
            message = f"{name}: {1000 * made.added_s:.0f} ms of its own room tone added after {clock(span_s[1])}."
            file.note("fixed", "short_tail", message, span_s)
        if wanted_db - allowed_db > PEAKY_DB:
            message = f"{name}: peaks keep the clip at {at} {wanted_db - allowed_db:.0f} dB quieter than the others."
            file.note("check", "peaks", message, span_s)


def _without_none(cuts: Sequence[Cut], clips: Sequence[KeptClip | None]) -> tuple[list[Cut], list[KeptClip | None]]:
    """Both without the places where there is no clip."""
    pairs = [(made, kept) for made, kept in zip(cuts, clips, strict=True) if kept is not None]
    return [made for made, _ in pairs], [kept for _, kept in pairs]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _khz(rate_hz: int) -> str:
    return f"{rate_hz / 1000:g} kHz"
