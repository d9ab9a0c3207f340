"""`carillon clone` and `carillon polish`: recordings to a running front door, and the job's progress back.

It knows the HTTP interface and nothing behind it, so that it shows what any client can do. What is there already is not
sent again: a command that was interrupted is simply given again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from app.client.http import FrontDoor, Json
from app.errors import CarillonError, ConfigurationError, Conflict, InvalidRequest, NotFound, RecordingUnfit

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"})
FILES_AT_ONCE = 16


class Studio(FrontDoor):
    """The voices and the jobs that make them."""

    def voice(self, name: str, *, model: str | None, language: str) -> Json:
        """The voice of that name, made if there is none. Raises Conflict for the name of a built-in voice."""
        for voice in self._named(name, model):
            if voice["prompt_name"] == voice["id"]:  # no polished built-in one
                return voice
        fields = {"name": name, "language": language} | ({"model": model} if model else {})
        return self.ask("POST", "/v1/voices", json=fields)

    def speakable(self) -> list[Json]:
        """Every voice that can be spoken with now."""
        return self.listed("/v1/audio/voices")

    def recordings(self, voice_id: str) -> list[Json]:
        return self.ask("GET", f"/v1/voices/{voice_id}/samples")["data"]

    def upload(self, voice_id: str, files: list[Path], transcripts: Mapping[str, str]) -> Json:
        """Send some recordings, with the transcripts that are known by their names. Returns samples and rejected."""
        known = [{"file": path.name, "text": transcripts[path.name]} for path in files if path.name in transcripts]
        with ExitStack() as stack:
            parts: list[Any] = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in files]
            if known:
                lines = "\n".join(json.dumps(entry) for entry in known)
                parts.append(("manifest", ("manifest.jsonl", io.BytesIO(lines.encode()), "application/jsonl")))
            return self.ask("POST", f"/v1/voices/{voice_id}/samples", files=parts)

    def consent(self, voice_id: str, *, recording: Path | None, statement: str | None) -> Json:
        """Record the speaker's consent: a recording of the phrase, or an operator's statement."""
        path = f"/v1/voices/{voice_id}/consent"
        if recording is None:
            return self.ask("POST", path, json={"statement": statement})
        with recording.open("rb") as file:
            return self.ask("POST", path, files={"recording": (recording.name, file)})

    def clone(self, voice_id: str, overrides: Mapping[str, Any]) -> Json:
        return self.ask("POST", "/v1/clones", json={"voice": voice_id, "overrides": overrides})

    def polish(self, name: str, overrides: Mapping[str, Any], *, model: str | None = None) -> Json:
        fields = {"overrides": overrides} | ({"model": model} if model else {})
        return self.ask("POST", f"/v1/voices/{quote(name, safe='')}/polish", json=fields)

    def active_job(self, voice_id: str) -> Json | None:
        """The job of a voice that is not over, if there is one."""
        jobs = self.ask("GET", "/v1/clones", params={"voice": voice_id})["data"]
        return next((job for job in jobs if not job["over"]), None)

    def active_polish(self, name: str, *, model: str | None = None) -> Json | None:
        """The job that polishes a built-in voice now, if there is one."""
        polished = [voice for voice in self._named(name, model) if voice["prompt_name"] == name]
        return next((job for voice in polished if (job := self.active_job(voice["id"]))), None)

    def watch(self, job_id: str) -> Iterator[Json]:
        """The job whenever it changes, until it is over; see `follow`."""
        return self.follow(f"/v1/clones/{job_id}/events")

    def _named(self, name: str, model: str | None) -> list[Json]:
        voices = self.ask("GET", "/v1/voices")["data"]
        return [voice for voice in voices if voice["name"] == name and model in (None, voice["model"])]


def clone(
    directory: Path,
    *,
    name: str,
    studio: Studio,
    model: str | None = None,
    language: str = "en",
    consent: Path | None = None,
    consent_statement: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    watch: bool,
    out: TextIO,
) -> Json:
    """Upload the recordings in `directory`, record consent, start the job and, if told to, follow it to its end.

    Of all this, only what has not been done yet. Returns the job as last seen. Raises CarillonError when a watched job
    fails.
    """
    files, transcripts = found(directory)
    if consent is not None and not consent.is_file():
        raise ConfigurationError(f"{consent} is no file; name a recording of the speaker reading the phrase")
    voice = studio.voice(name, model=model, language=language)
    upload(studio, voice["id"], files, transcripts, out=out)
    if voice["consent"] is None:
        if not (consent or consent_statement):
            raise ConfigurationError(
                f"the speaker's consent is needed: a recording of “{voice['consent_phrase']}” (--consent FILE), or, "
                "with an admin key, where it is kept (--consent-statement TEXT)"
            )
        studio.consent(voice["id"], recording=consent, statement=consent_statement)
    try:
        job = studio.clone(voice["id"], overrides or {})
    except Conflict:
        job = _under_way(studio.active_job(voice["id"]), out)
        if job is None:
            raise
    return follow(studio, job, out=out) if watch else told(job, out)


def polish(
    name: str,
    *,
    studio: Studio,
    model: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    watch: bool,
    out: TextIO,
) -> Json:
    """Start the polishing of a built-in voice, unless it is under way, and, if told to, follow it.

    Raises CarillonError when it fails.
    """
    try:
        job = studio.polish(name, overrides or {}, model=model)
    except Conflict:
        job = _under_way(studio.active_polish(name, model=model), out)
        if job is None:
            raise
    return follow(studio, job, out=out) if watch else told(job, out)


def _under_way(job: Json | None, out: TextIO) -> Json | None:
    if job is not None:
        out.write(f"{job['id']} is under way already, with the overrides it was started with\n")
    return job


def told(job: Json, out: TextIO) -> Json:
    out.write(f"{job['id']} is {job['state']}; GET /v1/clones/{job['id']} tells how far it is\n")
    return job


def found(directory: Path) -> tuple[list[Path], dict[str, str]]:
    """The recordings below a directory, and transcripts by file name from manifests and `.txt` files beside them.

    Raises ConfigurationError when there are none, or two of one name.
    """
    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is no directory")
    files = sorted(path for path in directory.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ConfigurationError(f"{directory} has no recordings ({', '.join(sorted(AUDIO_SUFFIXES))})")
    names = [path.name for path in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"{directory} has two recordings named {twice[0]}; give each its own name")
    transcripts = {
        path.name: _text(sidecar).strip() for path in files if (sidecar := path.with_suffix(".txt")).is_file()
    }
    for manifest in (directory / "manifest.csv", directory / "manifest.jsonl"):
        if manifest.is_file():
            transcripts |= _manifest(manifest)
    return files, transcripts


def _manifest(path: Path) -> dict[str, str]:
    """`file,text` with that header, or one `{"file": …, "text": …}` a line."""
    text = _text(path)
    try:
        rows = csv.DictReader(io.StringIO(text)) if path.suffix == ".csv" else map(json.loads, text.splitlines())
        return {Path(row["file"]).name: row["text"].strip() for row in rows}
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error):
        form = "a CSV with the header file,text" if path.suffix == ".csv" else '{"file": …, "text": …} on each line'
        raise ConfigurationError(f"{path} cannot be read; it must be {form}") from None


def _text(path: Path) -> str:
    """A text file as people's programs write them, with a byte order mark or without. Raises ConfigurationError."""
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None


def upload(studio: Studio, voice_id: str, files: list[Path], transcripts: Mapping[str, str], *, out: TextIO) -> None:
    """Send what the front door does not have yet, some files at a time, and say what it refused.

    Raises RecordingUnfit when the voice has no recording in the end.
    """
    there = {(sample["file_name"], sample["size_bytes"]) for sample in studio.recordings(voice_id)}
    missing = [path for path in files if (path.name, path.stat().st_size) not in there]
    sent = 0
    for start in range(0, len(missing), FILES_AT_ONCE):
        try:
            answer = studio.upload(voice_id, missing[start : start + FILES_AT_ONCE], transcripts)
        except NotFound:
            raise
        except InvalidRequest as error:  # nothing of this batch could be used
            out.write(f"  {error.message}\n")
        else:
            sent += len(answer["samples"])
            for refused in answer["rejected"]:
                out.write(f"  {refused['file_name']}: {refused['message']}\n")
        out.write(f"uploaded {sent} of {len(missing)} recordings\n")
        out.flush()
    if not there and not sent:
        raise RecordingUnfit(f"none of the {len(files)} recordings can be used; the lines above say why", param="files")
    if not missing:
        out.write(f"all {len(files)} recordings are there already\n")


def follow(studio: Studio, job: Json, *, out: TextIO) -> Json:
    """Tell a job's progress line by line until it is over. Raises its error if it failed."""
    progress_reporter, seen = _Teller(out), job
    for seen in studio.watch(job["id"]):
        progress_reporter.tell(seen)
    if seen["error"]:
        raise CarillonError.from_wire(seen["error"]["code"], seen["error"]["message"])
    return seen


class _Teller:
    """Says what is new about a job, each thing once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._state = ""
        self._epochs = 0
        self._report: Json | None = None
        self._told: set[str] = set()

    def tell(self, job: Json) -> None:
        if job["state"] != self._state:
            self._state = job["state"]
            self._line(self._state + (f" (attempt {job['attempt']})" if job["attempt"] > 1 else ""))
        if (report := job.get("report")) and report != self._report:
            self._report = report
            for line in report["summary"]:
                self._line(f"  {line}")
        if progress := job["progress"]:
            self._tell_progress(progress)
        if (gate := job["gate"]) and self._first("gate"):
            for line in gate_table(gate):
                self._line(f"  {line}")
        if job["version"] and self._first("version"):
            self._line(f"version {job['version']} is in force")

    def _tell_progress(self, progress: Json) -> None:
        done = progress["held_out_losses"]
        if len(done) > self._epochs:
            self._epochs = len(done)
            name = "untrained" if len(done) == 1 else f"epoch {len(done) - 1}"
            self._line(f"  {name}: held-out loss {done[-1]:.3f}")
        if self._out.isatty():
            left = f", {progress['eta_s']:.0f} s left" if progress["eta_s"] is not None else ""
            self._out.write(f"\r  step {progress['step']} of {progress['steps']}{left}   \r")
            self._out.flush()

    def _first(self, what: str) -> bool:
        first = what not in self._told
        self._told.add(what)
        return first

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def gate_table(gate: Json) -> Iterator[str]:
    """The gate's figures, one a line, with the base voice's beside them where they were measured."""
    for figure in gate["figures"]:
        measured = "not measured" if figure["measured"] is None else f"{figure['measured']:.4g}"
        base = gate["base"].get(figure["name"])
        beside = "" if base is None else f", base {base:.4g}"
        mark = {True: "ok", False: "FAILED", None: "  "}[figure["passed"]]
        yield f"{mark:6}  {figure['name']}: {measured}{beside} ({figure['limit']})"
