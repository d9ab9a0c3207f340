"""`carillon clone` and `carillon polish`: recordings to a running front door, and the job's progress back.

It knows the HTTP interface and nothing behind it, so that it shows what any client can do. What is there already is not
sent again: a command that was interrupted is simply given again.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from app.cli.clone_progress import follow
from app.cli.options import Key, Url, json_object
from app.cli.target import open_client
from app.errors import ConfigurationError, Conflict, InvalidRequest, NotFound, RecordingUnfit

if TYPE_CHECKING:
    from app.client.http import ApiClient

Json = dict[str, Any]
Watch = Annotated[bool, typer.Option(help="Follow the job to its end.")]

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".aac", ".webm"})
FILES_AT_ONCE = 16


def clone(
    recordings: Annotated[
        Path, typer.Argument(help="A directory: audio, and manifest.csv or a .txt beside each file.")
    ],
    *,
    name: Annotated[str, typer.Option(help="Of the voice; one that exists gets a new version.")],
    model: Annotated[str | None, typer.Option(help="Default: the first the fleet serves.")] = None,
    language: Annotated[str, typer.Option()] = "en",
    consent: Annotated[Path | None, typer.Option(help="A recording of the speaker reading the phrase.")] = None,
    consent_statement: Annotated[str | None, typer.Option(help="With an admin key: where the consent is kept.")] = None,
    overrides: Annotated[str, typer.Option(help='Of the recipe, as JSON: {"train": {"epochs": 3}}.')] = "{}",
    watch: Watch = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Make a voice of a consenting speaker's recordings. Given again, it goes on where it was interrupted."""
    with open_client(url, key) as client:
        clone_voice(
            recordings,
            name=name,
            client=client,
            model=model,
            language=language,
            consent=consent,
            consent_statement=consent_statement,
            overrides=json_object(overrides, "--overrides"),
            watch=watch,
            out=sys.stdout,
        )


def polish(
    name: Annotated[str, typer.Argument(help="A built-in voice.")],
    *,
    model: Annotated[str | None, typer.Option(help="Needed where several models have the voice.")] = None,
    overrides: Annotated[str, typer.Option(help="Of the recipe, as JSON.")] = "{}",
    watch: Watch = True,
    url: Url = None,
    key: Key = None,
) -> None:
    """Take the silence at the head from a built-in voice, with no recordings but its own.

    Given again, it follows the job that was started.
    """
    with open_client(url, key) as client:
        polish_voice(
            name,
            client=client,
            model=model,
            overrides=json_object(overrides, "--overrides"),
            watch=watch,
            out=sys.stdout,
        )


def clone_voice(
    directory: Path,
    *,
    name: str,
    client: ApiClient,
    model: str | None = None,
    language: str = "en",
    consent: Path | None = None,
    consent_statement: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    watch: bool,
    out: TextIO,
) -> Json:
    """Upload the recordings in `directory`, record consent, start the job and, with `watch`, follow it to its end.

    Of all this, only what has not been done yet. Returns the job as last seen. Raises CarillonError when a watched job
    fails.
    """
    files, transcripts = found(directory)
    if consent is not None and not consent.is_file():
        raise ConfigurationError(f"{consent} is no file; name a recording of the speaker reading the phrase")
    voice = client.voices.find_or_create(name, model=model, language=language)
    upload(client, voice["id"], files, transcripts, out=out)
    if voice["consent"] is None:
        if not (consent or consent_statement):
            raise ConfigurationError(
                f"the speaker's consent is needed: a recording of “{voice['consent_phrase']}” (--consent FILE), or, "
                "with an admin key, where it is kept (--consent-statement TEXT)"
            )
        client.voices.record_consent(voice["id"], recording=consent, statement=consent_statement)
    try:
        job = client.clones.start(voice["id"], overrides or {})
    except Conflict:
        job = _under_way(client.clones.active(voice["id"]), out)
        if job is None:
            raise
    return follow(client, job, out=out) if watch else _print_job(job, out)


def polish_voice(
    name: str,
    *,
    client: ApiClient,
    model: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    watch: bool,
    out: TextIO,
) -> Json:
    """Start the polishing of a built-in voice, unless it is under way, and, with `watch`, follow it.

    Raises CarillonError when it fails.
    """
    try:
        job = client.clones.start_polish(name, overrides or {}, model=model)
    except Conflict:
        job = _under_way(_active_polish(client, name, model), out)
        if job is None:
            raise
    return follow(client, job, out=out) if watch else _print_job(job, out)


def _active_polish(client: ApiClient, name: str, model: str | None) -> Json | None:
    """The job that polishes a built-in voice now, if there is one."""
    polished = [voice for voice in client.voices.named(name, model) if voice["prompt_name"] == name]
    return next((job for voice in polished if (job := client.clones.active(voice["id"]))), None)


def _under_way(job: Json | None, out: TextIO) -> Json | None:
    if job is not None:
        out.write(f"{job['id']} is under way already, with the overrides it was started with\n")
    return job


def _print_job(job: Json, out: TextIO) -> Json:
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
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: it is not UTF-8; save it as UTF-8") from None


def upload(client: ApiClient, voice_id: str, files: list[Path], transcripts: Mapping[str, str], *, out: TextIO) -> None:
    """Send what the front door does not have yet, some files at a time, and say what it refused.

    Recordings that are there get the transcripts that have changed.

    Raises RecordingUnfit when the voice has no recording in the end.
    """
    there = {(sample["file_name"], sample["size_bytes"]): sample for sample in client.voices.samples(voice_id)}
    missing = [path for path in files if (path.name, path.stat().st_size) not in there]
    corrected = 0
    for sample in there.values():
        text = " ".join(transcripts.get(sample["file_name"], "").split())
        if text and text != sample["transcript"]:
            client.voices.set_transcript(voice_id, sample["id"], text)
            corrected += 1
    if corrected:
        out.write(f"sent {corrected} transcripts that were missing or different\n")
    sent = 0
    for start in range(0, len(missing), FILES_AT_ONCE):
        try:
            answer = client.voices.upload_samples(voice_id, missing[start : start + FILES_AT_ONCE], transcripts)
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
