"""Resumable downloads, also by a later process. The file appears whole or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from app.client.connection import Connection
from app.errors import CarillonError, ConfigurationError, WorkerLost

FIRST_BYTE = re.compile(r"bytes 0-0/(\d+)")

Progress = Callable[[int, int], None]
"""Called with the bytes received and the total."""


def download(connection: Connection, source: str, path: Path, progress: Progress) -> None:
    """Fetch what is at `source`. What is there of an earlier try is not fetched again."""
    patience = connection.patience()

    def received(have: int, size: int) -> None:
        patience.renew()
        progress(have, size)

    while True:
        try:
            return _fetch(connection, source, path, received)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
        except CarillonError as error:
            patience.wait(error)


def partial_path(path: Path, etag: str) -> Path:
    """Where a file is while it is fetched. Named after the very file, so that two are never mixed."""
    return path.with_name(f".{path.name}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.part")


def _fetch(connection: Connection, source: str, path: Path, progress: Progress) -> None:
    etag, size = _announced(connection, source)
    partial = partial_path(path, etag)
    have = partial.stat().st_size if partial.exists() else 0
    if have < size:
        _fetch_rest(connection, source, partial, etag=etag, rest=range(have, size), progress=progress)
    if partial.stat().st_size != size:
        partial.unlink()
        raise WorkerLost(f"{source} came with another length than was announced")
    partial.replace(path)
    for left in path.absolute().parent.iterdir():
        if left.name.startswith(f".{path.name}.") and left.suffix == ".part":
            left.unlink()


def _announced(connection: Connection, source: str) -> tuple[str, int]:
    """The file's tag and size. Raises WorkerLost where something on the way takes the ranges out of the answer."""
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    with connection.stream(source, headers=headers) as response:  # which may be the whole file
        etag, span = response.headers.get("etag"), FIRST_BYTE.fullmatch(response.headers.get("content-range", ""))
        if response.status_code != httpx.codes.PARTIAL_CONTENT or etag is None or span is None:
            raise WorkerLost(
                f"{connection.url} does not serve ranges of {source}; does a proxy before it take out Range?"
            )
        return etag, int(span[1])


def _fetch_rest(
    connection: Connection, source: str, partial: Path, *, etag: str, rest: range, progress: Progress
) -> None:
    headers = {"Range": f"bytes={rest.start}-", "If-Range": etag, "Accept-Encoding": "identity"}
    with connection.stream(source, headers=headers) as response:
        if response.headers.get("etag") != etag:
            raise WorkerLost(f"{source} was made again while it was fetched")
        have = rest.start if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
        with partial.open("ab" if have else "wb") as file:
            for piece in response.iter_bytes():
                file.write(piece)
                have += len(piece)
                progress(have, rest.stop)
