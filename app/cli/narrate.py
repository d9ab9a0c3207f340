"""`carillon narrate`: a book to a running front door, its progress back, and the finished file.

It knows the HTTP interface and nothing behind it. The job belongs to the fleet: a command that is interrupted leaves it
running, and `--resume` comes back to it, to a download that broke off as well.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from app.cli.narrate_progress import duration, progress_reporter
from app.cli.options import Key, Url, json_object, name_value_pairs
from app.cli.target import open_client
from app.errors import CarillonError, ConfigurationError, Conflict
from app.speech.choices import CaptionsBy

if TYPE_CHECKING:
    from app.client.http import ApiClient

Json = dict[str, Any]

FORMATS = ("m4b", "mp3", "flac", "opus", "wav")
CAPTIONS = ("vtt", "srt")
MAX_REMARKS = 20


def narrate(
    book: Annotated[Path | None, typer.Argument(help="A text, Markdown or EPUB file.")] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Its ending says how: .m4b .mp3 .flac .opus .wav.")],
    voice: Annotated[str | None, typer.Option(help="The narrator's.")] = None,
    cast: Annotated[list[str] | None, typer.Option(help="CHARACTER=VOICE; repeat for more.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: whichever has the narrator's voice.")] = None,
    cover: Annotated[Path | None, typer.Option(help="A JPEG or PNG; default: the book's own.")] = None,
    options: Annotated[str, typer.Option(help='As JSON: {"pauses": {"chapter_s": 3}}.')] = "{}",
    replace: Annotated[list[str] | None, typer.Option(help="WORD=RESPELLING; repeat for more.")] = None,
    captions: Annotated[bool, typer.Option(help="Write .vtt and .srt files beside the audio.")] = False,
    captions_by: Annotated[
        CaptionsBy | None,
        typer.Option(help="Write them, too; word: .vtt says when each word begins, .srt shows one at a time."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="ID", help="Come back to a narration; set it going again.")
    ] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have a book read aloud by a running fleet. Ctrl-C leaves it at work; --resume comes back to it."""
    request = NarrationRequest(
        voice=voice,
        cast=name_value_pairs(cast or (), "--cast"),
        model=model,
        options=json_object(options, "--options"),
        replacements=name_value_pairs(replace or (), "--replace"),
        cover=cover,
    )
    with open_client(url, key) as client:
        narrate_book(
            book,
            output,
            client=client,
            request=request,
            resume=resume,
            captions=captions_by or (CaptionsBy.LINE if captions else None),
            out=sys.stdout,
        )


@dataclass(frozen=True)
class NarrationRequest:
    """What the command line says of a narration; only what is said is sent."""

    voice: str | None = None
    cast: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    replacements: Mapping[str, str] = field(default_factory=dict)
    cover: Path | None = None

    @property
    def voices(self) -> Json:
        return ({"voice": self.voice} if self.voice else {}) | ({"cast": dict(self.cast)} if self.cast else {})

    def fields(self, format: str) -> Json:
        options = dict(self.options)
        if self.replacements:
            options["replacements"] = {**options.get("replacements", {}), **self.replacements}
        return self.voices | ({"model": self.model} if self.model else {}) | {"format": format, "options": options}


def narrate_book(
    book: Path | None,
    output: Path,
    *,
    client: ApiClient,
    request: NarrationRequest,
    resume: str | None = None,
    captions: CaptionsBy | None = None,
    out: TextIO,
) -> Json:
    """Hand `book` in, or come back to the narration `resume`; follow it to its end and fetch the file.

    Returns the narration. Raises CarillonError when it fails.
    """
    if (book is None) == (resume is None):
        raise ConfigurationError("name the book to read, or else the narration to go on with (--resume ID)")
    format = _format(output)
    beside = {output.with_suffix(f".{form}"): captions for form in CAPTIONS if captions}
    for path in (output, *beside):
        _check_writable(path)
    if book is not None:
        narration = client.narrations.create_from_file(book, request.fields(format), request.cover)
    else:
        assert resume is not None
        narration = _resumed(client, resume, request, format)
    out.write(narration["id"])
    out.flush()  # whatever comes now, it can be come back to
    try:
        out.write(f": {narration['title'] or (book or output).name}\n")
        narration = _followed(client, narration, out)
        with progress_reporter(out) as progress:
            client.narrations.download(narration["id"], output, progress.fetched)
        for path, by in beside.items():
            _write(path, client.narrations.captions(narration["id"], path.suffix.removeprefix("."), by))
        flagged = client.narrations.flagged_segments(narration["id"]) if narration["flagged"] else []
    except (KeyboardInterrupt, CarillonError):
        out.write(f"come back to it with: carillon narrate --resume {narration['id']} -o {shlex.quote(str(output))}\n")
        raise
    for line in report(narration, output, flagged):
        out.write(line + "\n")
    return narration


def _format(output: Path) -> str:
    """The format that a file's ending means. Raises ConfigurationError."""
    ending = output.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ConfigurationError(f"{output}: a narration becomes one of .{', .'.join(FORMATS)}; name such a file (-o)")
    return ending


def _check_writable(path: Path) -> None:
    """Raises ConfigurationError for what could not be written in the end, before any work is done for it."""
    from app.client.download import partial_path

    try:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory; name a file (-o)")
        partial = partial_path(path, "")
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}; name another (-o)") from None


def _write(path: Path, content: bytes) -> None:
    """Raises ConfigurationError."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def _resumed(client: ApiClient, narration_id: str, request: NarrationRequest, format: str) -> Json:
    """The narration, set going again if it has stopped. Raises ConfigurationError for what cannot be changed now."""
    if request.model or request.options or request.replacements or request.cover:
        raise ConfigurationError("a narration that is gone on with can change its voices (--voice, --cast) alone")
    narration = client.narrations.get(narration_id)
    if narration["format"] != format:
        raise ConfigurationError(f"{narration_id} becomes a .{narration['format']} file; name one with -o")
    if narration["state"] in ("failed", "cancelled"):
        narration = client.narrations.resume(narration_id, request.voices)
    elif request.voices:
        raise ConfigurationError(
            f"{narration_id} is {narration['state']}; its voices can be changed once it has stopped"
        )
    return narration


def _followed(client: ApiClient, narration: Json, out: TextIO) -> Json:
    """Report a narration's progress until it is over. Raises its error if it failed."""
    with progress_reporter(out) as progress:
        progress.show(narration)
        for seen in client.narrations.follow(narration):
            narration = seen
            progress.show(narration)
    if error := narration["error"]:
        raise CarillonError.from_wire(error["code"], error["message"])
    if narration["output"] is None:
        raise Conflict(f"{narration['id']} was cancelled; what is spoken is kept", param="id")
    return narration


def report(narration: Json, output: Path, flagged: list[Json]) -> Iterator[str]:
    """What was made, what it took, and what should be looked at, one thing a line."""
    made, rendered = narration["output"], narration["real_time_factor"]
    yield (
        f"{output}: {duration(made['duration_s'])} in {len(narration['chapters'])} chapters, "
        f"{made['size_bytes'] / 1e6:.1f} MB, {made['loudness_lufs']:.1f} LUFS, "
        f"true peak {made['true_peak_dbtp']:.1f} dBTP"
    )
    if rendered is not None:
        cost = "" if narration["cost_usd"] is None else f", {narration['cost_usd']:.4f} USD"
        yield f"real-time factor {rendered:.2f}: {duration(narration['busy_s'])} of a worker's place{cost}"
    yield f"{narration['segments']} segments, {narration['flagged'] or 'none'} flagged"
    things = [(one["chapter"], one["segment"], one["message"]) for one in narration["findings"]]
    things += [(one["chapter"], one["number"], f"{', '.join(one['flags'])}: {one['written']}") for one in flagged]
    for chapter, segment, message in things[:MAX_REMARKS]:
        places = [f"{what} {number}" for what, number in (("chapter", chapter), ("segment", segment)) if number]
        named = [place for place in places if not re.match(rf"{place}\b", message)]  # which may begin with its place
        yield f"  {', '.join(named) + ': ' if named else ''}{message}"
    if len(things) > MAX_REMARKS:
        yield f"  and {len(things) - MAX_REMARKS} more: GET /v1/narrations/{narration['id']} and its /segments"
