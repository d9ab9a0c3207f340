"""Child processes of `carillon up`: started in order, watched, restarted, and stopped in stages.

Every program runs in a session of its own, so a terminal's Ctrl-C reaches only the supervisor, and a program's whole
process group can be ended with it. A program that dies is restarted after a growing pause, one that ends by itself with
status 0 after a short one; one that dies before it was ever ready ends the start with its last words. The supervisor
knows nothing of what the programs do: each brings a `ready` probe, used for every incarnation.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

from app.errors import ConfigurationError, DeadlineExceeded
from app.platform import reaper
from app.platform.logs import LogFile, read_lines

REAPER = Path(reaper.__file__)
FIRST_PROBE_INTERVAL_S = 0.05
MAX_PROBE_INTERVAL_S = 0.5
FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
LOADING_GRACE_S = 2.0
LAST_WORDS_TIMEOUT_S = 1.0
"""How long the output of a dead program is read on: a process that left its group may hold the pipe open for good."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One child: how it is started, when it counts as ready, and how it may end: the highest stage ends first.

    `ready` gets the process id of the incarnation to probe. With `watchdog_s`, a ready program whose probe then fails
    for so long is killed and restarted: it lives, and does nothing.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[int], Awaitable[bool]]
    environment: Mapping[str, str] = field(default_factory=dict)
    start_timeout_s: float = 30.0
    grace_s: float = 10.0
    watchdog_s: float | None = None
    stage: int = 0


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    """Between two incarnations."""
    STOPPED = "stopped"


class Child:
    """A program's present incarnation and its history."""

    def __init__(self, program: Program, log: LogFile) -> None:
        self.program = program
        self.log = log
        self.state = State.STARTING
        self.incarnation = 0
        self.process: asyncio.subprocess.Process | None = None
        self.reader: asyncio.Task[None] | None = None
        self.keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.returncode is None else None


class Supervisor:
    """Start programs with `start`, inside `async with`; leaving it stops them, stage by stage.

    `directory` receives one log file for each program. `report` gets a sentence whenever a program's state changes;
    `echo` gets each line that a program writes, with its name. `changed` is called after every change of state.
    """

    def __init__(
        self,
        directory: Path,
        *,
        report: Callable[[str], None],
        echo: Callable[[str, str], None] | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._directory = directory
        self._report = report
        self._echo = echo
        self._changed = changed
        self._children: dict[str, Child] = {}
        self._reaper: asyncio.subprocess.Process | None = None
        self._reaper_keeper: asyncio.Task[None] | None = None
        self.stopping = False
        """The end has begun, of itself or after a failed start."""

    @property
    def children(self) -> Mapping[str, Child]:
        return self._children

    @property
    def reaper_pid(self) -> int | None:
        return self._reaper and self._reaper.pid

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        await self._start_reaper()
        self._reaper_keeper = asyncio.create_task(self._keep_reaper(), name="reaper")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping = True
        for stage in sorted({child.program.stage for child in self._children.values()}, reverse=True):
            last_first = [child for child in reversed(self._children.values()) if child.program.stage == stage]
            await asyncio.gather(*(self._stop(child) for child in last_first))
        assert self._reaper and self._reaper.stdin and self._reaper_keeper
        self._reaper_keeper.cancel()
        self._reaper.stdin.close()
        await self._reaper.wait()

    async def start(self, program: Program) -> Child:
        """Start `program` and return when it is ready.

        Raises ConfigurationError with its last words if it ends before that, DeadlineExceeded if it takes too long.
        """
        child = Child(program, LogFile(self._directory / f"{program.name}.log"))
        self._children[program.name] = child
        await self._spawn(child)
        try:
            async with asyncio.timeout(program.start_timeout_s):
                ready = await self._until_ready_or_dead(child)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{program.name} was not ready within {program.start_timeout_s:.0f} s; see {child.log.path}"
            ) from None
        if not ready:
            status = _describe(await self._reap(child))
            raise ConfigurationError(
                f"{program.name} {status} before it was ready; its last words (all in {child.log.path}):\n"
                + child.log.last_words()
            )
        self._set(child, State.READY)
        child.keeper = asyncio.create_task(self._keep(child), name=f"keeper of {program.name}")
        return child

    def kill(self) -> None:
        """End every process group at once, without waiting."""
        for child in self._children.values():
            self._signal(child, signal.SIGKILL)

    async def _keep(self, child: Child) -> None:
        """Wait for the death of one incarnation after another, and start the next."""
        loop = asyncio.get_running_loop()
        backoff_s = FIRST_BACKOFF_S
        while True:
            ready_at = loop.time()
            limit_s = child.program.watchdog_s
            watchdog = asyncio.create_task(self._watch(child, limit_s)) if limit_s else None
            status = await self._reap(child)
            if watchdog:
                watchdog.cancel()
            if child.state is State.READY and (status == 0 or loop.time() - ready_at > MAX_BACKOFF_S):
                backoff_s = FIRST_BACKOFF_S
            if child.state is State.READY and status == 0:
                self._report(f"{child.program.name} has ended; it starts again")
            else:
                self._report(f"{child.program.name} {_describe(status)}; it starts again in {backoff_s:g} s")
            self._set(child, State.WAITING)
            backoff_s = await self._restart_after(backoff_s, child)

    async def _restart_after(self, backoff_s: float, child: Child) -> float:
        """Restart until there is a process, however short of memory the machine is. Returns the next pause."""
        while True:
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
            try:
                await self._restart(child)
            except OSError as error:
                self._report(f"{child.program.name} cannot be started ({error}); the next try is in {backoff_s:g} s")
            else:
                return backoff_s

    async def _restart(self, child: Child) -> None:
        await self._spawn(child)
        try:
            async with asyncio.timeout(child.program.start_timeout_s):
                ready = await self._until_ready_or_dead(child)
        except TimeoutError:
            self._report(f"{child.program.name} was not ready within {child.program.start_timeout_s:g} s; it is killed")
            self._signal(child, signal.SIGKILL)
            return
        if ready:
            self._set(child, State.READY)
            self._report(f"{child.program.name} is back")

    async def _watch(self, child: Child, limit_s: float) -> None:
        """Kill an incarnation whose probe has failed for `limit_s`."""
        loop = asyncio.get_running_loop()
        healthy_at = loop.time()
        while loop.time() - healthy_at < limit_s:
            await asyncio.sleep(limit_s / 4)
            if await self._probe(child):
                healthy_at = loop.time()
        self._report(f"{child.program.name} has not answered for {limit_s:g} s; it is killed")
        self._signal(child, signal.SIGKILL)

    async def _spawn(self, child: Child) -> None:
        """Start the next incarnation.

        Its output goes through a pipe of ours, not asyncio's: asyncio's `wait` would last until every process that
        inherited the pipe is gone, and the group of a dead leader is for us to end.
        """
        output, inherited = os.pipe()
        try:
            child.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(REAPER), "exec", str(os.getpid())),
                *child.program.command,
                env={**os.environ, **child.program.environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=inherited,
                stderr=inherited,
                start_new_session=True,
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(inherited)
        self._notify_reaper("+", child.process.pid)
        child.incarnation += 1
        child.reader = asyncio.create_task(self._read(child, output), name=f"output of {child.program.name}")
        self._set(child, State.STARTING)

    async def _until_ready_or_dead(self, child: Child) -> bool:
        """Whether the probe succeeded before the process ended."""
        interval_s = FIRST_PROBE_INTERVAL_S
        while child.pid is not None:
            if await self._probe(child):
                return True
            await asyncio.sleep(interval_s)
            interval_s = min(1.2 * interval_s, MAX_PROBE_INTERVAL_S)
        return False

    async def _probe(self, child: Child) -> bool:
        if child.pid is None:
            return False
        try:
            async with asyncio.timeout(5):
                return await child.program.ready(child.pid)
        except (OSError, TimeoutError):
            return False

    async def _read(self, child: Child, output: int) -> None:
        async for line in read_lines(output):
            child.log.write(line)
            if self._echo:
                self._echo(child.program.name, line)

    async def _reap(self, child: Child) -> int:
        """Wait for the incarnation's end, then end what is left of its group. Returns its exit status."""
        assert child.process and child.reader
        status = await child.process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        self._notify_reaper("-", child.process.pid)
        await asyncio.wait([child.reader], timeout=LAST_WORDS_TIMEOUT_S)
        child.reader.cancel()
        return status

    async def _stop(self, child: Child) -> None:
        """SIGTERM, `grace_s` to end, then the whole group is killed. What is not ready has nothing to finish."""
        grace_s = child.program.grace_s if child.state is State.READY else min(child.program.grace_s, LOADING_GRACE_S)
        if child.keeper:
            child.keeper.cancel()
            await asyncio.wait([child.keeper])
        if child.process and child.pid is not None:
            self._report(f"stopping {child.program.name}")
            child.process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await child.process.wait()
            except TimeoutError:
                self._report(f"{child.program.name} did not stop within {grace_s:g} s; it is killed")
                self._signal(child, signal.SIGKILL)
            await self._reap(child)
        self._set(child, State.STOPPED)
        child.log.close()

    def _signal(self, child: Child, number: signal.Signals) -> None:
        if child.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)

    def _set(self, child: Child, state: State) -> None:
        child.state = state
        self._changed()

    async def _start_reaper(self) -> None:
        self._reaper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(REAPER), "watch"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        for child in self._children.values():
            if child.pid is not None:
                self._notify_reaper("+", child.pid)

    async def _keep_reaper(self) -> None:
        while True:
            assert self._reaper
            await self._reaper.wait()
            try:
                await self._start_reaper()
            except OSError:
                await asyncio.sleep(FIRST_BACKOFF_S)

    def _notify_reaper(self, sign: str, group: int) -> None:
        assert self._reaper and self._reaper.stdin
        if not self._reaper.stdin.is_closing():
            self._reaper.stdin.write(f"{sign}{group}\n".encode())


def _describe(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
