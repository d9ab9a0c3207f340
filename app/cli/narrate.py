"""`carillon narrate`: a book to a running front door, its progress back, and the finished file.

It knows the HTTP interface and nothing behind it. The job belongs to the fleet: a command that is interrupted leaves it
running, and `--resume` comes back to it, to a download that broke off as well.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx

from app.cli.narrate_progress import duration, progress_reporter
from app.client.http import FrontDoor, Json, Patience
from app.errors import CarillonError, ConfigurationError, Conflict, WorkerLost

FORMATS = ("m4b", "mp3", "flac", "opus", "wav")
CAPTIONS = ("vtt", "srt")
MAX_THINGS_TOLD = 20
FIRST_BYTE = re.compile(r"bytes 0-0/(\d+)")


class Publisher(FrontDoor):
    """The narrations of a front door, and what becomes of them."""

    def narrate(self, book: Path, wanted: Json, cover: Path | None) -> Json:
        """Hand a book in."""
        with ExitStack() as stack:
            parts: list[Any] = [
                ("narration", (None, json.dumps(wanted))),
                ("file", (book.name, stack.enter_context(_opened(book)))),
            ]
            if cover is not None:
                parts.append(("cover", (cover.name, stack.enter_context(_opened(cover)))))
            return self.ask("POST", "/v1/narrations", files=parts)

    def narration(self, narration_id: str) -> Json:
        return self.ask("GET", f"/v1/narrations/{narration_id}")

    def resume(self, narration_id: str, changes: Json) -> Json:
        return self.ask("POST", f"/v1/narrations/{narration_id}/resume", json=changes)

    def watch(self, narration: Json) -> Iterator[Json]:
        """The narration whenever it changes, until it is over; see `follow`."""
        for news in self.follow(f"/v1/narrations/{narration['id']}/events"):
            narration = narration | news  # findings come only when they are new
            yield narration

    def flagged(self, narration_id: str) -> list[Json]:
        """The segments that failed a check in every try."""
        return self.ask("GET", f"/v1/narrations/{narration_id}/segments", params={"flagged": True})["data"]

    def captions(self, narration_id: str, form: str) -> bytes:
        return self._answer("GET", f"/v1/narrations/{narration_id}/captions.{form}").content

    def download(self, narration_id: str, path: Path, told: Callable[[int, int], None]) -> None:
        """Fetch the finished file; `told` hears how many bytes of how many are there.

        It appears whole or not at all, and what is there of an earlier try is not fetched again.
        """
        patience = Patience(self._clock, self._sleep)

        def heard(have: int, size: int) -> None:
            patience.renew()
            told(have, size)

        while True:
            try:
                return self._fetch(f"/v1/narrations/{narration_id}/audio", path, heard)
            except httpx.TransportError as error:
                failure: CarillonError = self._absence(error)
            except OSError as error:
                raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
            except CarillonError as error:
                failure = error
            patience.wait(failure)

    def _fetch(self, source: str, path: Path, heard: Callable[[int, int], None]) -> None:
        etag, size = self._announced(source)
        partial = _partial(path, etag)
        have = partial.stat().st_size if partial.exists() else 0
        if have < size:
            self._fetch_rest(source, partial, etag, range(have, size), heard)
        if partial.stat().st_size != size:
            partial.unlink()
            raise WorkerLost(f"{source} came with another length than was announced")
        partial.replace(path)
        for left in path.absolute().parent.iterdir():
            if left.name.startswith(f".{path.name}.") and left.suffix == ".part":
                left.unlink()

    def _announced(self, source: str) -> tuple[str, int]:
        """The file's tag and size. Raises WorkerLost where something on the way takes the ranges out of the answer."""
        headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
        with self._http.stream("GET", source, headers=headers) as answer:  # which may be the whole file
            if not answer.is_success:
                answer.read()
                raise self._refusal(answer)
            etag, span = answer.headers.get("etag"), FIRST_BYTE.fullmatch(answer.headers.get("content-range", ""))
            if answer.status_code != httpx.codes.PARTIAL_CONTENT or etag is None or span is None:
                raise WorkerLost(
                    f"{self._http.base_url} does not serve ranges of {source}; does a proxy before it take out Range?"
                )
            return etag, int(span[1])

    def _fetch_rest(
        self, source: str, partial: Path, etag: str, rest: range, heard: Callable[[int, int], None]
    ) -> None:
        headers = {"Range": f"bytes={rest.start}-", "If-Range": etag, "Accept-Encoding": "identity"}
        with self._http.stream("GET", source, headers=headers) as answer:
            if not answer.is_success:
                answer.read()
                raise self._refusal(answer)
            if answer.headers.get("etag") != etag:
                raise WorkerLost(f"{source} was made anew while it was fetched")
            have = rest.start if answer.status_code == httpx.codes.PARTIAL_CONTENT else 0
            with partial.open("ab" if have else "wb") as file:
                for piece in answer.iter_bytes():
                    file.write(piece)
                    have += len(piece)
                    heard(have, rest.stop)


def _partial(path: Path, etag: str) -> Path:
    """Where a file is while it is fetched. Named after the very file: what is left of another is never gone on with."""
    return path.with_name(f".{path.name}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.part")


def _opened(path: Path) -> Any:
    """Raises ConfigurationError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Wish:
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


def narrate(
    book: Path | None,
    output: Path,
    *,
    publisher: Publisher,
    wish: Wish,
    resume: str | None = None,
    captions: bool = False,
    out: TextIO,
) -> Json:
    """Hand `book` in, or come back to the narration `resume`; follow it to its end and fetch the file.

    Returns the narration. Raises CarillonError when it fails.
    """
    if (book is None) == (resume is None):
        raise ConfigurationError("name the book to read, or else the narration to go on with (--resume ID)")
    format = _format(output)
    beside = [output.with_suffix(f".{form}") for form in CAPTIONS] if captions else []
    for path in (output, *beside):
        _check_writable(path)
    if book is not None:
        narration = publisher.narrate(book, wish.fields(format), wish.cover)
    else:
        assert resume is not None
        narration = _resumed(publisher, resume, wish, format)
    out.write(narration["id"])
    out.flush()  # whatever comes now, it can be come back to
    try:
        out.write(f": {narration['title'] or (book or output).name}\n")
        narration = _followed(publisher, narration, out)
        with progress_reporter(out) as tells:
            publisher.download(narration["id"], output, tells.fetched)
        for path in beside:
            _write(path, publisher.captions(narration["id"], path.suffix.removeprefix(".")))
        flagged = publisher.flagged(narration["id"]) if narration["flagged"] else []
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
    """Raises ConfigurationError for what could not be written in the end, before anybody has worked for it."""
    try:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory; name a file (-o)")
        partial = _partial(path, "")
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


def _resumed(publisher: Publisher, narration_id: str, wish: Wish, format: str) -> Json:
    """The narration, set going again if it has stopped. Raises ConfigurationError for what cannot be changed now."""
    if wish.model or wish.options or wish.replacements or wish.cover:
        raise ConfigurationError("a narration that is gone on with can change its voices (--voice, --cast) alone")
    narration = publisher.narration(narration_id)
    if narration["format"] != format:
        raise ConfigurationError(f"{narration_id} becomes a .{narration['format']} file; name one with -o")
    if narration["state"] in ("failed", "cancelled"):
        narration = publisher.resume(narration_id, wish.voices)
    elif wish.voices:
        raise ConfigurationError(
            f"{narration_id} is {narration['state']}; its voices can be changed once it has stopped"
        )
    return narration


def _followed(publisher: Publisher, narration: Json, out: TextIO) -> Json:
    """Tell a narration's progress until it is over. Raises its error if it failed."""
    with progress_reporter(out) as tells:
        tells.tell(narration)
        for seen in publisher.watch(narration):
            narration = seen
            tells.tell(narration)
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
    for chapter, segment, message in things[:MAX_THINGS_TOLD]:
        places = [f"{what} {number}" for what, number in (("chapter", chapter), ("segment", segment)) if number]
        told = [place for place in places if not re.match(rf"{place}\b", message)]  # which may begin with its place
        yield f"  {', '.join(told) + ': ' if told else ''}{message}"
    if len(things) > MAX_THINGS_TOLD:
        yield f"  and {len(things) - MAX_THINGS_TOLD} more: GET /v1/narrations/{narration['id']} and its /segments"
