"""Forms with files, read piece by piece: `multipart/form-data` from the socket to the disk.

A form's files are written to a directory of their own as they arrive, which is gone when their reader is done, however
that ends. A file that is larger than it may be is dropped as it comes in; the form's other parts stand. Nothing here
looks into a file.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

from app.errors import InvalidRequest, StoreUnavailable
from app.platform.workspace import workspace

WRITE_BYTES = 2**20
"""Written to disk at once, in a thread."""

MAX_HEADER_BYTES = 64 * 1024
"""Of one line of a part's header: a file name of 10 kB is shortened later, and no reason to refuse the form."""

MAX_SHOWN_CHARS = 100
"""Of a field's name, in an error."""

MAX_FIELD_BYTES = 16 * 2**20
"""Of all fields that are no files, together."""

MAX_LARGEST_FILES = 4
"""A form of many files may be so large as this many of the largest."""


def form_body(**fields: str) -> dict[str, Any]:
    """What `received_form` takes, for the OpenAPI page: each field as `file`, `files`, `text` or `texts`; `text?` may
    be left out."""
    one = {"file": {"type": "string", "format": "binary"}, "text": {"type": "string"}}
    kinds = {name: kind.removesuffix("?") for name, kind in fields.items()}
    properties = {
        name: one[kind] if kind in one else {"type": "array", "items": one[kind.removesuffix("s")], "minItems": 1}
        for name, kind in kinds.items()
    }
    required = [name for name, kind in fields.items() if not kind.endswith("?")]
    schema = {"type": "object", "required": required, "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@dataclass(frozen=True)
class FormLimits:
    """What a form may hold, and how long nothing of it may come.

    A file above `file_bytes` is dropped; anything else above its limit ends the request.
    """

    file_bytes: int
    total_bytes: int
    parts: int
    stall_s: float = 60.0

    @classmethod
    def one_file(cls, max_bytes: int) -> Self:
        """Of a form with one file and some fields."""
        return cls(file_bytes=max_bytes, total_bytes=2 * max_bytes, parts=8)

    @classmethod
    def many_files(cls, max_bytes: int, *, parts: int) -> Self:
        """Of a form with many files, which may be so large as MAX_LARGEST_FILES of the largest."""
        return cls(file_bytes=max_bytes, total_bytes=MAX_LARGEST_FILES * max_bytes, parts=parts)


@dataclass
class FormFile:
    """One file of a form. `name` is the client's own word: never a path of ours. `path` has nothing if not `whole`."""

    field: str
    name: str
    path: Path
    size_bytes: int = 0
    whole: bool = True


@dataclass
class Form:
    """A form that has arrived: its parts in the order they were sent."""

    files: list[FormFile] = field(default_factory=list)
    fields: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]

    def value(self, name: str) -> str:
        """The one value of a field. Raises InvalidRequest for none or several."""
        values = self.values(name)
        if len(values) != 1:
            raise InvalidRequest(f"{name}: the form has it {len(values)} times; send it once", param=name)
        return values[0]

    def file(self, name: str, *, max_bytes: int) -> FormFile:
        """The one file of a field. Raises InvalidRequest for none, several, or one above `max_bytes`."""
        files = [file for file in self.files if file.field == name]
        if len(files) != 1:
            raise InvalidRequest(f"{name}: the form has {len(files)} such files; send one", param=name)
        if not files[0].whole:
            raise InvalidRequest(f"{name}: the file has more than {max_bytes} bytes", param=name)
        return files[0]


@asynccontextmanager
async def received_form(request: Request, parent: Path, limits: FormLimits) -> AsyncIterator[Form]:
    """The request's `multipart/form-data`, whole, its files in a directory below `parent`.

    Raises InvalidRequest for another or a broken body, 413 for one above the limits, 408 for one that
    stops coming, ClientDisconnect.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("the body is no form; send multipart/form-data with a boundary", param="content-type")
    async with workspace(parent) as directory:
        reader = _FormReader(directory, limits)
        try:
            parser = MultipartParser(boundary, reader.callbacks, max_header_size=MAX_HEADER_BYTES)  # type: ignore[arg-type]
            async for piece in _pieces(request, limits.stall_s):
                parser.write(piece)
                if reader.waiting_bytes >= WRITE_BYTES:
                    await reader.write()
            parser.finalize()
            await reader.write()
        except FormParserError:
            raise InvalidRequest("the form is broken or was cut off; its parts stand between its boundary") from None
        if not reader.ended:
            raise InvalidRequest("the form was cut off: its closing boundary is missing")
        yield reader.form


async def _pieces(request: Request, stall_s: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(stall_s):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"nothing more of the form came for {stall_s:g} s; send it again") from None
        yield piece


class _FormReader:
    """Builds a form from the parser's callbacks; `write` flushes buffered data to disk."""

    def __init__(self, directory: Path, limits: FormLimits) -> None:
        self.form = Form()
        self.waiting_bytes = 0
        self.ended = False
        self._directory = directory
        self._limits = limits
        self._waiting: list[tuple[FormFile, bytes]] = []
        self._total_bytes = self._field_bytes = self._parts = 0
        self._header_name = self._header_value = b""
        self._disposition = b""
        self._field_name = ""
        self._file: FormFile | None = None
        self._text = bytearray()

    @property
    def callbacks(self) -> dict[str, Any]:
        names = "part_begin part_data part_end header_field header_value header_end headers_finished end"
        return {f"on_{name}": getattr(self, f"_on_{name}") for name in names.split()}

    async def write(self) -> None:
        """Raises StoreUnavailable when the disk is full."""
        waiting, self._waiting, self.waiting_bytes = self._waiting, [], 0
        try:
            await asyncio.shield(asyncio.to_thread(_append, waiting))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreUnavailable("the front door has no room for this upload; try a smaller one") from error

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.parts:
            raise HTTPException(413, f"the form has more than {self._limits.parts} parts; send several forms")
        self._disposition, self._file, self._text = b"", None, bytearray()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise InvalidRequest("a part of the form has no name in its Content-Disposition")
        self._field_name = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            path = self._directory / f"{self._parts:06}"
            path.touch()
            self._file = FormFile(self._field_name, options[b"filename"].decode("utf-8", "replace"), path)
            self.form.files.append(self._file)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        size = end - start
        self._total_bytes += size
        if self._total_bytes > self._limits.total_bytes:
            raise HTTPException(
                413, f"the form has more than {self._limits.total_bytes} bytes; send several, or use presigned uploads"
            )
        if self._file is None:
            self._field_bytes += size
            if self._field_bytes > MAX_FIELD_BYTES:
                raise HTTPException(413, f"the form's fields have more than {MAX_FIELD_BYTES} bytes")
            self._text += data[start:end]
        elif self._file.whole:
            self._file.size_bytes += size
            if self._file.size_bytes > self._limits.file_bytes:
                self._file.whole = False
                self._file.path.unlink()
            else:
                self._waiting.append((self._file, data[start:end]))
                self.waiting_bytes += size

    def _on_part_end(self) -> None:
        if self._file is not None:
            return
        shown = self._field_name.replace("\0", "\ufffd")[:MAX_SHOWN_CHARS]
        try:
            text = self._text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self._text.count(b"\n", 0, error.start) + 1
            raise InvalidRequest(f"{shown}: line {line} is no UTF-8; save the text as UTF-8", param=shown) from None
        if "\0" in text or "\0" in self._field_name:
            raise InvalidRequest(f"{shown}: it holds a NUL character; leave it out", param=shown)
        self.form.fields.append((self._field_name, text))

    def _on_end(self) -> None:
        self.ended = True


def _append(waiting: list[tuple[FormFile, bytes]]) -> None:
    for file, data in waiting:
        if file.whole:
            with file.path.open("ab") as stream:
                stream.write(data)
