"""A script on a stranger's file: its answer comes back, and whatever it does in there ends at its bounds."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import CarillonError
from app.platform.sandbox import Fault, Limits, Wording, run
from tests.support.processes import children_running, ended, until

LIMITS = Limits(memory_bytes=2**29, cpu_s=10, wall_s=30.0)
WORDING = Wording(
    verb="read",
    script="its reader",
    remedy="split it",
    crash_remedy="export it again",
    work="reading",
)
SCRIPT = """
from __future__ import annotations

import os, signal, subprocess, sys, tempfile, time
from pathlib import Path

from app.platform.sandbox_child import Fault, main


def answer(request):
{body}


main(answer, out_of_memory="needs too much memory", damaged="is damaged", damage=(LookupError,))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


def written(script: Path, body: str) -> Path:
    script.write_text(SCRIPT.format(body="\n".join(f"    {line}" for line in body.splitlines())))
    return script


def answer_of(script: Path, body: str, request: dict[str, Any] | None = None, limits: Limits = LIMITS) -> Any:
    return asyncio.run(run(written(script, body), request or {}, limits=limits, wording=WORDING))


def fault_of(script: Path, body: str, limits: Limits = LIMITS) -> str:
    with pytest.raises(Fault) as found:
        answer_of(script, body, limits=limits)
    return str(found.value)


# What comes back


def test_the_answer_is_what_the_script_made_of_the_request(script: Path) -> None:
    assert answer_of(script, "return {'twice': 2 * request['once']}", {"once": "é"}) == {"twice": "éé"}


@pytest.mark.anyio
async def test_coroutines_get_the_same_answer(script: Path) -> None:
    written(script, "return request")
    assert await run(script, {"a": 1}, limits=LIMITS, wording=WORDING) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise Fault('is empty; upload it again')", "is empty; upload it again"),
        ("{}['absent']", "is damaged"),
        ("raise MemoryError", "needs too much memory"),
        ("return answer(request)", "needs too much memory"),
        ("raise OSError(12, 'Cannot allocate memory')", "needs too much memory"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "made its reader crash (SIGSEGV); it may be damaged: export it again"),
    ],
)
def test_a_fault_is_words_to_be_read_after_the_files_name(script: Path, body: str, fault: str) -> None:
    assert fault_of(script, body) == fault


def test_what_is_no_fault_of_the_file_is_a_defect_with_its_last_words(script: Path) -> None:
    with pytest.raises(CarillonError, match="reading failed with status 1: TypeError: of ours"):
        answer_of(script, "raise TypeError('of ours')")
    with pytest.raises(CarillonError, match="reading failed with status 3: it said nothing"):
        answer_of(script, "os._exit(3)")


# Bounds


def test_memory_has_a_bound(script: Path) -> None:
    assert fault_of(script, "bytearray(2**30)") == "needs too much memory"


def test_cpu_time_has_a_bound(script: Path) -> None:
    limits = replace(LIMITS, cpu_s=1)
    assert fault_of(script, "while True: pass", limits) == "took more than 1 s of CPU to read; split it"


def test_an_answer_has_a_bound_and_is_not_kept_beyond_it(script: Path) -> None:
    assert fault_of(script, "return {'text': 'a' * 2**24}") == "reads as more than 1 MB; split it"


def test_files_have_a_bound_and_scratch_files_are_gone_afterwards(script: Path) -> None:
    body = "path = Path(tempfile.mkdtemp()) / 'a'\npath.write_bytes(bytes(1000))\nreturn {'path': str(path)}"
    path = Path(answer_of(script, body, limits=replace(LIMITS, file_bytes=1000))["path"])
    assert not path.parent.parent.exists()
    with pytest.raises(CarillonError, match="File too large"):
        answer_of(script, body, limits=replace(LIMITS, file_bytes=999))


def test_a_script_sees_nothing_of_ours(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARILLON_SECRET", "x")
    monkeypatch.setenv("PYTHONPATH", str(script.parent))
    body = "return {'modules': [*sys.modules], 'path': sys.path, 'environment': [*os.environ], 'session': os.getsid(0)}"
    inside = answer_of(script, body)
    assert [name for name in inside["modules"] if name.partition(".")[0] == "app"] == ["app.platform.sandbox_child"]
    assert not {str(script.parent), ""} & set(inside["path"])
    assert set(inside["environment"]) == {"PATH", "LC_ALL", "TMPDIR"}
    assert inside["session"] != os.getsid(0)


# Ends

WITH_ANOTHER = """
another = subprocess.Popen(["sleep", "60"])
Path(request["pid"]).write_text(f"{another.pid}\\n")
"""


@pytest.mark.parametrize("after", ["time.sleep(60)", "return {}"])
def test_when_time_is_up_the_script_is_killed_with_all_that_it_started(script: Path, after: str) -> None:
    """`sleep` holds the script's output open, so that there is no end of it."""
    pid = script.with_name("pid")
    with pytest.raises(Fault, match=r"took longer than 1\.5 s to read; split it"):
        answer_of(script, WITH_ANOTHER + after, {"pid": str(pid)}, replace(LIMITS, wall_s=1.5, file_bytes=100))
    asyncio.run(ended(int(pid.read_text())))
    assert not children_running(script.name)


@pytest.mark.anyio
async def test_a_cancelled_caller_leaves_no_process(script: Path) -> None:
    pid = script.with_name("pid")
    written(script, WITH_ANOTHER + "time.sleep(60)")
    limits = replace(LIMITS, file_bytes=100)
    running = asyncio.create_task(run(script, {"pid": str(pid)}, limits=limits, wording=WORDING))
    await until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await ended(int(pid.read_text()))
    assert not children_running(script.name)
