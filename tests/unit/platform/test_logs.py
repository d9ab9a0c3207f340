"""Log lines: a static event and its data, for people and for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.platform.logs import LAST_WORDS, MAX_LOG_BYTES, JsonFormatter, LogFile, TextFormatter, configure_logging
from app.platform.settings import Settings

INDISCREET = ("uvicorn", "websockets")


def record(**data: object) -> logging.LogRecord:
    values = {"name": "app.x", "levelname": "INFO", "msg": "session started", "created": 0.5, "msecs": 500, **data}
    return logging.makeLogRecord(values)


def test_the_text_form_appends_the_data() -> None:
    line = TextFormatter().format(record(session="abc", voice="tara"))
    assert line == "1970-01-01T00:00:00.500Z INFO app.x: session started session=abc voice=tara"


def test_what_libraries_put_on_every_record_is_not_data() -> None:
    assert TextFormatter().format(record(vllm_process_name="EngineCore")).endswith("app.x: session started")


def test_the_json_form_is_one_object_a_line_whatever_the_data_is() -> None:
    line = JsonFormatter().format(record(path=Path("a\nb"), count=3))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.500Z",
        "level": "INFO",
        "logger": "app.x",
        "event": "session started",
        "path": "a\nb",
        "count": 3,
    }


def test_an_exception_is_told_in_both_forms() -> None:
    try:
        raise ValueError("why")
    except ValueError as error:
        failed = record(exc_info=(type(error), error, error.__traceback__))
    assert TextFormatter().format(failed).endswith("ValueError: why")
    assert json.loads(JsonFormatter().format(failed))["exception"].endswith("ValueError: why")


@pytest.fixture
def kept_loggers() -> Iterator[None]:
    """The levels and handlers that were, afterwards."""
    loggers = [logging.getLogger(name) for name in (None, *INDISCREET)]
    before = [(logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.usefixtures("kept_loggers")
def test_what_would_log_headers_and_frames_never_does() -> None:
    configure_logging(Settings(log_level="DEBUG"))
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "websockets.client", "websockets.server")]
    assert not any(logger.isEnabledFor(logging.DEBUG) for logger in loggers)
    assert logging.getLogger("app.api.native.socket").isEnabledFor(logging.DEBUG)


def test_a_log_file_that_cannot_be_written_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    log = LogFile(Path("/dev/full"))
    log.write("lost")
    log.write("lost too")
    log.close()
    assert [record.getMessage() for record in caplog.records] == ["log file is not written"]
    assert log.last_words().endswith("lost too")


def test_a_log_file_keeps_its_last_words_and_one_older_file(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    for number in range(LAST_WORDS + 1):
        log.write(f"line {number}")
    log.write("x" * MAX_LOG_BYTES)
    log.write("after")
    log.close()
    assert "line 0\n" not in log.last_words()
    assert log.last_words().endswith("after")
    assert (tmp_path / "a.log").read_text() == "after\n"
    assert (tmp_path / "a.log.1").read_text().startswith("line 0\n")
