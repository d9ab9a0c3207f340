"""How a process logs, and where the output of `carillon up`'s children goes.

A record is a static event and its data: `log.info("session started", extra={"session": id})`. The text form appends the
data as `key=value`; the JSON form makes one object a line. No text or audio of a user belongs in either.

Untrusted input is safe to log: values are truncated, control characters escaped, and events that clients can cause at
will are rate-limited (`Throttle`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from app.platform.settings import Settings

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that this task works for; every log line has it."""

LAST_WORDS = 20
MAX_LINE_BYTES = 16 * 1024
MAX_LOG_BYTES = 16 * 1024 * 1024
MAX_VALUE_CHARS = 400

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would act on a terminal, begin a line, or turn its direction around."""

log = logging.getLogger(__name__)

_FOREIGN = {"color_message", "vllm_process_name"}
"""What uvicorn and vLLM put on records: the second on every record of its process, ours too."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"} | _FOREIGN


def configure_logging(settings: Settings) -> None:
    """Send every logger of this process to standard error, in the form and from the level that `settings` say."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # At DEBUG these would write headers and messages, which are keys and users' texts.
    for indiscreet in ("uvicorn", "websockets"):
        logging.getLogger(indiscreet).setLevel(max(logging.INFO, logging.getLogger().level))
    for chatty in ("botocore", "boto3", "s3transfer", "urllib3", "httpx", "httpcore", "alembic", "aiosqlite", "picows"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def printable(text: str) -> str:
    """The text on one line, cut, with what is no character to be seen written as `\\x1b`."""
    cut = text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}… ({len(text)} characters)"
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), cut)


class Throttle(logging.Filter):
    """Lets `per_minute` records of each event through; the first of the next minute carries the number suppressed."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._per_minute = per_minute
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}
        """Of each event, which are few: when its minute began, and how many there were."""

    def filter(self, record: logging.LogRecord) -> bool:
        now, event = self._clock(), str(record.msg)
        since, count = self._counts.get(event, (now, 0))
        if now - since >= 60:
            if count > self._per_minute:
                record.left_out = count - self._per_minute
            since, count = now, 0
        self._counts[event] = since, count + 1
        return count < self._per_minute


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    found = {
        name: printable(value) if isinstance(value, str) else value
        for name, value in vars(record).items()
        if name not in _STANDARD
    }
    request_id = REQUEST_ID.get()
    return found if request_id is None else {**found, "request": request_id}


def _event(record: logging.LogRecord) -> str:
    """The event; a foreign one has its data in it."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), record.getMessage())


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO app.api.native.socket: session started session=abc voice=tara`"""

    def format(self, record: logging.LogRecord) -> str:
        data = "".join(f" {name}={value}" for name, value in _extra(record).items())
        line = f"{_timestamp(record)} {record.levelname} {record.name}: {_event(record)}{data}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `event`, the data, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "event": _event(record),
            **_extra(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


class LogFile:
    """One program's output on disk, kept below `MAX_LOG_BYTES` with one older file beside it, and its last words.

    A line that the disk does not take is lost; the first of them is reported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._tail: deque[str] = deque(maxlen=LAST_WORDS)
        self._complete = True

    def write(self, line: str) -> None:
        self._tail.append(line)
        try:
            self._file.write(f"{line}\n".encode())
            if self._file.tell() > MAX_LOG_BYTES:
                self._begin_anew()
        except OSError as error:
            if self._complete:
                log.warning("log file is not written", extra={"path": self.path, "error": error.strerror})
            self._complete = False

    def _begin_anew(self) -> None:
        self.path.replace(self.path.with_suffix(".log.1"))
        fresh = self.path.open("ab", buffering=0)
        self._file.close()
        self._file = fresh

    def last_words(self) -> str:
        return "\n".join(f"    {line}" for line in self._tail) or "    (it wrote nothing)"

    def close(self) -> None:
        self._file.close()


async def read_lines(descriptor: int) -> AsyncIterator[str]:
    """Lines of text from a pipe, which is closed at the end. A line beyond `MAX_LINE_BYTES` comes in pieces."""
    stream = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb")
    )
    try:
        rest = b""
        while piece := await stream.read(MAX_LINE_BYTES):
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                whole, rest = [*whole, rest], b""
            for line in whole:
                yield line.decode("utf-8", "replace").rstrip("\r")
        if rest:
            yield rest.decode("utf-8", "replace")
    finally:
        transport.close()
