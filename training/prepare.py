"""Recordings to tokens, as a stage: `python -m training.prepare RUN_DIR`.

    RUN_DIR/consent/        the recorded consent, where there is one
    RUN_DIR/samples.json    the recordings: `file_name`, `path` below RUN_DIR, `transcript`
    RUN_DIR/clips/          what is trained on, as FLAC, to be listened to
    RUN_DIR/dataset.npz     the same as tokens
    RUN_DIR/report.json     what became of every recording

Too little usable speech is in the report, not raised: the report is what its owner needs then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from app.platform.settings import CloningSettings, load_settings
from app.speech.recipe import PrepareConfig
from app.speech.token_layout import read_layout
from app.voices.models import CloneKind, DataReport, RunConfig
from training.consent_voice import RATE_HZ, consent_voice, read_consent, told
from training.data_report import Source, SpeechClip, report_shortfall
from training.recordings import Prepared, prepare
from training.stage_runner import Emit, main, read_run, torch_device
from training.transcriber import open_transcriber

LENIENT = {"min_snr_db": 0.0, "max_gain_db": 60.0}
"""What a model's own renderings must be like."""


def work(directory: Path, emit: Emit) -> None:
    """The whole stage. Raises ConfigurationError for a model that does not fit, and what the transcriber raises."""
    from training.dataset import build_dataset  # torch takes seconds to import

    run = read_run(directory)
    prepared = _clips(directory, run, load_settings().cloning, emit)
    config, report = run.prepare, prepared.report
    if run.kind is CloneKind.CLONE:  # a built-in voice is not made of its renderings, only trimmed by them
        report = report.model_copy(update={"shortfall": report_shortfall(report, config)})
        report = with_consent(report, directory, prepared.clips, load_settings().cloning)
    if prepared.clips and not report.shortfall:
        dataset = build_dataset(
            prepared.clips,
            prompt_name=run.prompt_name,
            model_dir=run.model_dir,
            codec_dir=run.codec_dir,
            speech=run.speech,
            deduplicate=config.deduplicate_frames,
            device=torch_device(run).type,
            progress=lambda done, count: emit("progress", clips=done, of=count),
        )
        dataset.save(directory / "dataset.npz")
        report = report.model_copy(update={"dropped_frame_share": round(dataset.dropped_frame_share, 4)})
    (directory / "report.json").write_text(report.model_dump_json(indent=2), encoding="utf-8")


def _clips(directory: Path, run: RunConfig, settings: CloningSettings, emit: Emit) -> Prepared:
    layout = read_layout(run.model_dir, run.codec_dir, run.speech)
    sources = [
        Source(entry["file_name"], directory / entry["path"], entry["transcript"])
        for entry in json.loads((directory / "samples.json").read_text("utf-8"))
    ]
    with open_transcriber(settings, run.language) as transcriber:
        return prepare(
            sources,
            directory / "clips",
            config_of(run, layout.speech.loudness_lufs),
            sample_rate_hz=layout.sample_rate_hz,
            frame_samples=layout.samples_per_frame,
            language=run.language,
            transcriber=transcriber if run.kind is CloneKind.CLONE else None,
            max_sample_s=settings.max_sample_s,
            progress=lambda done, count: emit("progress", recordings=done, of=count),
        )


def with_consent(
    report: DataReport, directory: Path, clips: Sequence[SpeechClip], settings: CloningSettings
) -> DataReport:
    """The report with how far the recorded consent's voice, if there is one, is from that of the clips."""
    import numpy as np
    from soundfile import read

    recorded = next((directory / "consent").glob("*"), None)
    samples = None if recorded is None else read_consent(recorded, max_duration_s=settings.max_consent_s)
    if samples is None:
        return report
    recordings = (np.asarray(read(clip.path, dtype="float32")[0], np.float32) for clip in clips)
    found = consent_voice(samples, recordings, RATE_HZ)
    if found is None:
        return report
    refused = found.matches is False and settings.consent_voice == "refuse" and not report.shortfall
    return report.model_copy(
        update={
            "consent_distance": found.distance,
            "voice_matches": found.matches,
            "summary": (*report.summary, told(found)),
            "shortfall": told(found) if refused else report.shortfall,
        }
    )


def config_of(run: RunConfig, model_lufs: float) -> PrepareConfig:
    """The thresholds for this job. A model's renderings are as clean as the model is: only silence shall change.

    What was set otherwise than the defaults is left as it is.
    """
    changes: dict[str, float] = {} if run.prepare.loudness_lufs is not None else {"loudness_lufs": model_lufs}
    if run.kind is CloneKind.POLISH:
        usual = PrepareConfig()
        changes |= {
            name: value for name, value in LENIENT.items() if getattr(run.prepare, name) == getattr(usual, name)
        }
    return run.prepare.model_copy(update=changes)


if __name__ == "__main__":
    sys.exit(main(work))
