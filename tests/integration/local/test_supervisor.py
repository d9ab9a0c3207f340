"""The supervisor with real processes: small Python programs that report what becomes of them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ConfigurationError, DeadlineExceeded
from app.local.supervisor import Program, State, Supervisor
from app.local.up import until_signal
from tests.support.processes import ended, until

pytestmark = pytest.mark.anyio

FAMILY = """
import json, pathlib, subprocess, sys, os, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
path = pathlib.Path(sys.argv[1])
path.with_suffix(".new").write_text(json.dumps([os.getpid(), grandchild.pid]))
path.with_suffix(".new").replace(path)
time.sleep(600)
"""
"""A program with a child of its own, as vLLM has its engine process; it writes both process ids into a file."""

SUPERVISED = """
import asyncio, sys
from pathlib import Path
from app.local.supervisor import Program, Supervisor

async def main(directory):
    async def ready(pid):
        return (directory / "family.json").exists()
    async with Supervisor(directory / "logs", report=print) as supervisor:
        command = [sys.executable, "-c", sys.argv[2], str(directory / "family.json")]
        await supervisor.start(Program(name="family", command=command, ready=ready))
        known = None
        while True:
            if supervisor.reaper_pid != known:
                known = supervisor.reaper_pid
                (directory / "reaper.new").write_text(str(known))
                (directory / "reaper.new").replace(directory / "reaper")
                print("started", flush=True)
            await asyncio.sleep(0.02)

asyncio.run(main(Path(sys.argv[1])))
"""
"""A supervisor of it, which writes down which reaper knows of its programs."""


def script(source: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", source, *map(str, arguments)]


async def at_once(_: int) -> bool:
    return True


def family(directory: Path) -> Program:
    """The program above; ready when this incarnation has written its file."""

    async def ready(pid: int) -> bool:
        return members(directory)[:1] == [pid]

    return Program(name="family", command=script(FAMILY, directory / "family.json"), ready=ready)


def members(directory: Path) -> list[int]:
    try:
        return json.loads((directory / "family.json").read_text())
    except FileNotFoundError:
        return []


@pytest.fixture
def reported() -> list[str]:
    return []


@pytest.fixture
def supervise(tmp_path: Path, reported: list[str]) -> Callable[[], Supervisor]:
    return lambda: Supervisor(tmp_path / "logs", report=reported.append)


async def test_a_killed_program_comes_back_and_its_own_children_do_not_outlive_it(
    supervise: Callable[[], Supervisor], tmp_path: Path
) -> None:
    async with supervise() as supervisor:
        child = await supervisor.start(family(tmp_path))
        parent, grandchild = members(tmp_path)
        os.kill(parent, signal.SIGKILL)
        await ended(grandchild)
        await until(lambda: child.incarnation == 2 and child.state is State.READY)
        assert members(tmp_path)[0] == child.pid != parent


async def test_leaving_ends_the_highest_stage_first_and_every_program_with_its_children(
    supervise: Callable[[], Supervisor], tmp_path: Path, reported: list[str]
) -> None:
    async with supervise() as supervisor:
        await supervisor.start(Program(name="last", command=["sleep", "600"], ready=at_once, stage=1))
        await supervisor.start(family(tmp_path))
    for pid in members(tmp_path):
        await ended(pid)
    assert reported == ["stopping last", "stopping family"]


async def test_a_program_that_ends_before_it_is_ready_is_quoted(supervise: Callable[[], Supervisor]) -> None:
    async def never(_: int) -> bool:
        return False

    with pytest.raises(ConfigurationError, match=r"(?s)broken ended with status 3 .*no such model"):
        async with supervise() as supervisor:
            command = script("import sys; print('no such model', file=sys.stderr); sys.exit(3)")
            await supervisor.start(Program(name="broken", command=command, ready=never))


async def test_a_program_that_is_never_ready_is_named_with_its_log(supervise: Callable[[], Supervisor]) -> None:
    async def never(_: int) -> bool:
        return False

    with pytest.raises(DeadlineExceeded, match=r"idle was not ready within 0 s; see .*idle\.log"):
        async with supervise() as supervisor:
            await supervisor.start(Program(name="idle", command=["sleep", "600"], ready=never, start_timeout_s=0.1))


async def test_a_program_deaf_to_sigterm_is_killed_after_its_grace(
    supervise: Callable[[], Supervisor], tmp_path: Path, reported: list[str]
) -> None:
    deaf = script(
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)",
        tmp_path / "deaf",
    )

    async def ready(_: int) -> bool:
        return (tmp_path / "deaf").exists()

    async with supervise() as supervisor:
        child = await supervisor.start(Program(name="deaf", command=deaf, ready=ready, grace_s=0.1))
        assert child.process
    assert child.process.returncode == -signal.SIGKILL
    assert reported == ["stopping deaf", "deaf did not stop within 0.1 s; it is killed"]


async def test_a_program_that_stops_answering_is_killed_and_started_again(
    supervise: Callable[[], Supervisor], reported: list[str]
) -> None:
    stuck: set[int] = set()

    async def answers(pid: int) -> bool:
        return pid not in stuck

    async with supervise() as supervisor:
        child = await supervisor.start(Program(name="stuck", command=["sleep", "600"], ready=answers, watchdog_s=0.2))
        assert child.pid
        stuck.add(child.pid)
        await until(lambda: child.incarnation == 2 and child.state is State.READY)
    assert "stuck has not answered for 0.2 s; it is killed" in reported


async def test_a_program_that_ends_by_itself_in_order_starts_again_and_is_no_failure(
    supervise: Callable[[], Supervisor], tmp_path: Path, reported: list[str]
) -> None:
    ends = script(
        "import pathlib, sys, time\nwhile pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)\n",
        tmp_path / "go on",
    )
    (tmp_path / "go on").touch()
    async with supervise() as supervisor:
        child = await supervisor.start(Program(name="worker-1", command=ends, ready=at_once))
        (tmp_path / "go on").unlink()
        await until(lambda: child.incarnation >= 4)
    ended_so_often = reported.count("worker-1 has ended; it starts again")
    assert ended_so_often >= 3
    assert not [sentence for sentence in reported if "status" in sentence]


async def test_a_program_that_the_machine_cannot_start_is_tried_until_it_can(
    supervise: Callable[[], Supervisor], reported: list[str]
) -> None:
    environment: dict[str, str] = {}
    program = Program(name="late", command=["sleep", "600"], ready=at_once, environment=environment)
    async with supervise() as supervisor:
        child = await supervisor.start(program)
        assert child.pid
        environment["TOO_LONG_FOR_EXEC"] = "x" * 4_000_000
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: any("late cannot be started" in sentence for sentence in reported))
        environment.clear()
        await until(lambda: child.incarnation == 2 and child.state is State.READY)


async def test_a_signal_while_a_failed_start_is_cleaned_up_does_not_hide_the_failure(
    supervise: Callable[[], Supervisor], tmp_path: Path
) -> None:
    tells_its_parent = script(
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGINT))\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while True: time.sleep(600)",
        tmp_path / "listens",
    )

    async def ready(_: int) -> bool:
        return (tmp_path / "listens").exists()

    supervisor = supervise()
    with pytest.raises(ConfigurationError, match="no such model"):
        async with until_signal(supervisor), supervisor:
            await supervisor.start(Program(name="first", command=tells_its_parent, ready=ready, grace_s=0.5))
            raise ConfigurationError("no such model")


async def test_what_a_program_writes_is_kept_whatever_it_is(
    supervise: Callable[[], Supervisor], tmp_path: Path
) -> None:
    writes = script(
        "import sys, time\n"
        "sys.stdout.buffer.write(b'plain\\n' + b'\\xff broken\\n' + b'x' * 100_000 + b'\\nno end of line')\n"
        "sys.stdout.flush(); time.sleep(600)"
    )
    log = tmp_path / "logs" / "writer.log"

    async def written(_: int) -> bool:
        return log.stat().st_size > 100_000

    async with supervise() as supervisor:
        await supervisor.start(Program(name="writer", command=writes, ready=written))
    text = log.read_text()
    assert text.startswith("plain\n\N{REPLACEMENT CHARACTER} broken\n")
    assert text.count("x") == 100_000
    assert text.endswith("no end of line\n")


async def run_supervisor(directory: Path) -> tuple[asyncio.subprocess.Process, list[int]]:
    """A supervisor in a process of its own, and the processes it has started."""
    process = await asyncio.create_subprocess_exec(
        *script(SUPERVISED, directory, FAMILY), stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    assert process.stdout
    assert await process.stdout.readline() == b"started\n"
    return process, members(directory)


async def test_a_killed_supervisor_leaves_no_orphan(tmp_path: Path) -> None:
    supervisor, pids = await run_supervisor(tmp_path)
    supervisor.kill()
    await supervisor.wait()
    for pid in [*pids, reaper_in(tmp_path)]:
        await ended(pid)


async def test_a_killed_guardian_is_replaced_and_still_guards(tmp_path: Path) -> None:
    supervisor, pids = await run_supervisor(tmp_path)
    reaper = reaper_in(tmp_path)
    os.kill(reaper, signal.SIGKILL)
    await until(lambda: reaper_in(tmp_path) != reaper)
    supervisor.kill()
    await supervisor.wait()
    for pid in pids:
        await ended(pid)


async def test_a_program_does_not_outlive_its_supervisor_and_guardian_killed_together(tmp_path: Path) -> None:
    supervisor, (parent, grandchild) = await run_supervisor(tmp_path)
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(reaper_in(tmp_path), signal.SIGKILL)
    supervisor.kill()
    await supervisor.wait()
    await ended(parent)
    os.kill(grandchild, signal.SIGKILL)


def reaper_in(directory: Path) -> int:
    return int((directory / "reaper").read_text())
