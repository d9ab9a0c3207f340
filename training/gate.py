"""Evaluates a new adapter before it is published: `python -m training.gate RUN_DIR`.

Real workers of the fleet speak unseen prompts with the candidate and with base voices; nothing filters silence. What is
measured goes out with `done` as a GateReport, passed or not: what follows from it, the parent decides. The candidate's
audio is left in RUN_DIR/gate/, the base voice's in RUN_DIR/gate-base/. A figure that could not be measured has no
`measured`, and says why.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from app.errors import CarillonError, ConfigurationError
from app.hearing.ear import Transcriber
from app.hearing.words import word_error_rate
from app.platform.settings import load_settings
from app.realtime.background import Spoken, open_background_speech
from app.speech.recipe import GateConfig
from app.speech.voices import Voice
from app.voices.models import GateFigure, GateReport
from training import measures
from training.measures import Closeness, percentile
from training.stage_runner import Emit, main, read_run, run_cancellable
from training.synthesis import Synthesizer, speak_each
from training.transcriber import NO_EAR, open_transcriber

PROMPTS_FILE = Path(__file__).with_name("prompts.txt")
AT_ONCE = 2
OTHER_BASE_PROMPTS = 5
"""What further base voices speak, for closeness only. Measured with four flite voices: each is at a distance of 0.2-0.4
from itself with 12 other sentences, of 0.3-0.7 with 5; from the others at 13 to 60."""

NOT_UNDERSTOOD = 0.8
"""The word error rate of a base voice above which a clone's is not meaningful."""

REFERENCE_CLIPS = 40  # two minutes of speech say all there is to say

REMEDIES = {
    "head_silence_p50_ms": "train for more epochs, or add recordings",
    "head_silence_p95_ms": "train for more epochs, or add recordings",
    "ended_share": "train for fewer epochs or with a lower learning rate, and check that no recording is cut off",
    "duration_ratio": "check that the transcripts say what the recordings do",
    "longest_silence_s": "shorten pauses (prepare.max_pause_s), or train for fewer epochs",
    "closeness": "train for more epochs, or add recordings of this speaker alone",
    "word_error_rate": "check the transcripts, and train for fewer epochs or with a lower learning rate",
    "sound_share": "listen to the gate's renderings; train with a lower learning rate",
}


@dataclass(frozen=True)
class GateSpeech:
    """The utterances of the voices, by prompt: the candidate, and each base voice by its name."""

    clone: list[Spoken]
    bases: dict[str, list[Spoken]]

    @property
    def base(self) -> list[Spoken]:
        """The base voice that spoke every prompt; nothing where the model has no voice of its own."""
        return next(iter(self.bases.values()), [])


def bundled_prompts() -> list[str]:
    """The sentences of prompts.txt, in order."""
    return [line for line in PROMPTS_FILE.read_text("utf-8").splitlines() if line and not line.startswith("#")]


async def listen(
    voice: Voice, base_voices: Sequence[Voice], prompts: Sequence[str], synthesizer: Synthesizer, emit: Emit
) -> GateSpeech:
    """Have the prompts spoken. Raises CarillonError where that cannot be done."""
    own_first = sorted(base_voices, key=lambda base: base.name != voice.prompt_name)  # a polished voice's own
    speech = GateSpeech(clone=[], bases={base.name: [] for base in own_first})
    lines = [(voice, text, speech.clone) for text in prompts]
    for number, base in enumerate(own_first):
        spoken_by_base = prompts if number == 0 else prompts[:OTHER_BASE_PROMPTS]
        lines += [(base, text, speech.bases[base.name]) for text in spoken_by_base]
    done = 0

    def keep(number: int, spoken: Spoken) -> None:
        nonlocal done
        done += 1
        lines[number][2].append(spoken)
        emit("progress", spoken=done, of=len(lines))

    await speak_each(synthesizer, [(voice, text) for voice, text, _ in lines], keep, at_once=AT_ONCE)
    order = {text: number for number, text in enumerate(prompts)}
    for utterances in (speech.clone, *speech.bases.values()):
        utterances.sort(key=lambda spoken: order[spoken.text])
    return speech


def report_of(
    gate: GateConfig,
    speech: GateSpeech,
    *,
    prompt_name: str,
    reference: Sequence[Spoken] = (),
    seconds_per_char: float | None = None,
    transcripts: Sequence[str] | str = "no transcriber",
    base_transcripts: Sequence[str] | str = "no transcriber",
) -> GateReport:
    """Every figure of the candidate, which is prompted under `prompt_name`, and of the base voice.

    `reference` is the speaker, `seconds_per_char` their pace; `transcripts` of what was heard of the
    clone and `base_transcripts` of the base voice, or why there are none.
    """
    clone = speech.clone
    values = _values(clone, speech.base, seconds_per_char)
    base_values = _values(speech.base, speech.base, seconds_per_char)
    near = _closeness(speech, prompt_name, reference)
    figures = [
        _figure("head_silence_p50_ms", values, most=gate.max_head_silence_p50_ms),
        _figure("head_silence_p95_ms", values, most=gate.max_head_silence_p95_ms),
        _figure("ended_share", values, least=gate.min_ended_share),
        GateFigure(
            name="band_order",
            measured=None,
            limit="every code in its band",
            passed=None,
            note="not measured: the engine's band mask allows nothing else, and audio does not show it",
        ),
        _figure("duration_ratio", values, least=gate.duration_ratio[0], most=gate.duration_ratio[1]),
        _figure("longest_silence_s", values, most=gate.max_silence_run_s),
        _closeness_figure(near, required=gate.require_closeness),
        _words_figure(gate, _word_errors(clone, transcripts), _word_errors(speech.base, base_transcripts)),
        _figure("sound_share", values, least=1.0),
    ]
    base_words = _word_errors(speech.base, base_transcripts)
    base_values["word_error_rate"] = None if isinstance(base_words, str) else _rounded(base_words)
    base_values["closeness"] = _rounded(near and near.bases.get(next(iter(speech.bases), "")))
    return GateReport(figures=tuple(figures), base=base_values, prompts=len(clone))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _values(utterances: Sequence[Spoken], base: Sequence[Spoken], pace: float | None) -> dict[str, float | None]:
    """What utterances alone tell; the pace is compared with the speaker's, or else with the base voice's."""
    heads = measures.head_silences_ms(utterances)
    found = {
        "head_silence_p50_ms": percentile(heads, 50),
        "head_silence_p95_ms": percentile(heads, 95),
        "ended_share": measures.ended_share(utterances),
        "duration_ratio": measures.pace_ratio(utterances, pace) if pace else measures.length_ratio(utterances, base),
        "longest_silence_s": measures.longest_silence_s(utterances),
        "sound_share": measures.sound_share(utterances),
    }
    return {name: _rounded(value) for name, value in found.items()}


def _figure(
    name: str, values: Mapping[str, float | None], *, least: float = -math.inf, most: float = math.inf
) -> GateFigure:
    bounds = [f"≥ {least:g}"] * math.isfinite(least) + [f"≤ {most:g}"] * math.isfinite(most)
    measured = values[name]
    passed = None if measured is None else least <= measured <= most
    note = "not measured: nothing to compare with" if passed is None else "" if passed else REMEDIES[name]
    return GateFigure(name=name, measured=measured, limit=" and ".join(bounds), passed=passed, note=note)


def _closeness(speech: GateSpeech, prompt_name: str, reference: Sequence[Spoken]) -> Closeness | None:
    """A polished voice's speaker is its base voice, and no rival."""
    rivals = {name: spoken for name, spoken in speech.bases.items() if name != prompt_name}
    return measures.closeness(reference or speech.bases.get(prompt_name, ()), speech.clone, rivals)


def _closeness_figure(near: Closeness | None, *, required: bool) -> GateFigure:
    name, limit = "closeness", "nearer to the speaker than any base voice"
    if near is None:
        note = "not measured: too little speech of the speaker or of the clone"
        return GateFigure(name=name, measured=None, limit=limit, passed=None, note=note)
    told = [f"{base} {far:.1f}" for base, far in near.bases.items()]
    told += [] if near.speaker is None else [f"the speaker's own recordings {near.speaker:.1f}"]
    passed = near.clone < min(near.bases.values()) if near.bases and required else None
    note = f"distances in nats: {', '.join(told) or 'none to compare with'}"
    if passed is False:
        note += f"; {REMEDIES[name]}"
    return GateFigure(name=name, measured=_rounded(near.clone), limit=limit, passed=passed, note=note)


def _word_errors(utterances: Sequence[Spoken], transcripts: Sequence[str] | str) -> float | str:
    """The word error rate, 1 at most, or why it is not known."""
    if isinstance(transcripts, str):
        return transcripts
    pairs = [(spoken.text, said) for spoken, said in zip(utterances, transcripts, strict=True)]
    rate = word_error_rate(pairs)
    return "nothing was spoken" if rate is None else min(rate, 1.0)


def _words_figure(gate: GateConfig, clone: float | str, base: float | str) -> GateFigure:
    name, limit = "word_error_rate", f"≤ the base voice's + {gate.max_word_error_rate:g}"
    if isinstance(clone, str) or isinstance(base, str):
        why = clone if isinstance(clone, str) else "there is no base voice to compare with"
        return GateFigure(name=name, measured=None, limit=limit, passed=None, note=f"not measured: {why}")
    told = f"the base voice's is {base:.2f}"
    if base > NOT_UNDERSTOOD:
        note = f"not measured: the base voice itself is not understood ({told}, this one's {clone:.2f})"
        return GateFigure(name=name, measured=None, limit=limit, passed=None, note=note)
    passed = clone <= base + gate.max_word_error_rate
    note = told if passed else f"{told}; {REMEDIES[name]}"
    return GateFigure(name=name, measured=_rounded(clone), limit=limit, passed=passed, note=note)


def read_reference(directory: Path) -> list[Spoken]:
    """The recordings to compare with, in order; stereo becomes mono. Raises ConfigurationError."""
    recordings: list[Spoken] = []
    for path in sorted(directory.glob("*.flac"))[:REFERENCE_CLIPS]:
        try:
            samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError) as error:
            raise ConfigurationError(f"the reference {path.name} cannot be read: {error}; prepare it again") from None
        recordings.append(Spoken("", samples.mean(axis=1), rate_hz))
    return recordings


def save(utterances: Sequence[Spoken], directory: Path) -> list[Path]:
    """Write the utterances as 001.flac and so on, in place of older ones."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.flac"):
        old.unlink()
    paths = [directory / f"{number:03}.flac" for number in range(1, len(utterances) + 1)]
    for path, spoken in zip(paths, utterances, strict=True):
        soundfile.write(path, spoken.samples, spoken.sample_rate_hz, subtype="PCM_16")
    return paths


def transcripts_of(paths: Sequence[Path], transcriber: Transcriber | None, language: str) -> list[str] | str:
    """The transcript of each file, or why there is none: a failing transcriber does not fail the adapter."""
    if transcriber is None:
        return NO_EAR.format(language=language)
    try:
        return [transcriber.transcribe(path, language=language).text for path in paths]
    except CarillonError as error:
        return error.message


def work(directory: Path, emit: Emit) -> dict[str, Any]:
    """The stage."""
    run, settings = read_run(directory), load_settings()
    if run.voice is None:
        raise ConfigurationError("run.json has no voice; name the candidate with its adapter")
    voice, prompts = run.voice, bundled_prompts()[: run.gate.prompts]

    async def listen_to_fleet() -> GateSpeech:
        async with open_background_speech(settings) as synthesizer:
            return await listen(voice, run.base_voices, prompts, synthesizer, emit)

    speech = run_cancellable(listen_to_fleet())
    paths = save(speech.clone, directory / "gate")
    with open_transcriber(settings.cloning, run.language) as transcriber:
        transcripts = transcripts_of(paths, transcriber, run.language)
        base_paths = save(speech.base, directory / "gate-base")
        base_transcripts = transcripts_of(base_paths, transcriber, run.language)
    report = report_of(
        run.gate,
        speech,
        prompt_name=voice.prompt_name,
        reference=read_reference(directory / run.reference) if run.reference else (),
        seconds_per_char=run.seconds_per_char,
        transcripts=transcripts,
        base_transcripts=base_transcripts,
    )
    return {"report": report.model_dump(mode="json")}


if __name__ == "__main__":
    sys.exit(main(work))
