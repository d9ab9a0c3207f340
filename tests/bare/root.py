"""A bare Debian in a directory, and commands run in it; meant for a process in mount and PID namespaces of its own.

What is mounted here is gone with the namespace, and so is every process; only the directory is left to its owner.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

NEWCOMER = 1000
HOME = Path("/home/newcomer")
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": str(HOME)}


class Failed(Exception):
    """A command did not do what it is said to do; the message is for a person."""


def make(root: Path, suite: str) -> None:
    """The smallest Debian that has apt, from the mirror and through the proxies that apt has here."""
    mirror = _mirror()
    if shutil.which("mmdebstrap"):
        aptopts = [word for option in _proxies() for word in ("--aptopt", option)]
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            *aptopts,
            suite,
            str(root),
            *([mirror] if mirror else []),
        ]
    elif shutil.which("debootstrap"):
        command = ["debootstrap", "--variant=minbase", suite, str(root), *([mirror] if mirror else [])]
    else:
        raise Failed("neither mmdebstrap nor debootstrap is here: apt-get install mmdebstrap")
    subprocess.run(command, check=True)
    (root / "etc/apt/apt.conf.d/90host").write_text("".join(f"{option};\n" for option in _proxies()))
    mount("-t", "proc", "proc", root / "proc")
    mount("--rbind", "/sys", root / "sys")
    mount("--rbind", "/dev", root / "dev")
    mount("-t", "tmpfs", "tmpfs", root / "dev/shm")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy("/etc/hosts", root / "etc/hosts")
    run(root, f"useradd --uid {NEWCOMER} --create-home --home-dir {HOME} --shell /bin/bash newcomer", as_root=True)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def show(root: Path, directory: Path) -> None:
    """A directory of the host, to be read at the same place."""
    inside = root / directory.relative_to("/")
    inside.mkdir(parents=True, exist_ok=True)
    mount("--bind", "-o", "ro", directory, inside)


def run(root: Path, command: str, *, as_root: bool = False, timeout_s: float = 1800) -> str:
    """The command's output, which is shown too. Raises Failed."""
    process = start(root, command, as_root=as_root)
    output: list[str] = []
    try:
        for line in lines(process, timeout_s):
            output.append(line)
    finally:
        kill(process)
    if process.returncode:
        raise Failed(f"`{command}` ended with status {process.returncode}")
    return "".join(output)


def start(root: Path, command: str, *, as_root: bool = False) -> subprocess.Popen[str]:
    """A shell in the root and a process group of its own, as a terminal would start it."""
    print(f"\n$ {command}", flush=True)
    user = [] if as_root else [f"--userspec={NEWCOMER}:{NEWCOMER}"]
    place = "cd; [ ! -d carillon ] || cd carillon" if not as_root else "cd /"
    return subprocess.Popen(
        ["chroot", *user, str(root), "/bin/sh", "-c", f"{place}\n{command}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=_ENVIRONMENT | ({"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"} if as_root else {}),
    )


def lines(process: subprocess.Popen[str], timeout_s: float) -> Iterator[str]:
    """What the command prints, until it ends. Raises Failed after the timeout, which a timer enforces by a kill."""
    late = False

    def stop(*_: object) -> None:
        nonlocal late
        late = True
        kill(process)

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        assert process.stdout
        for line in process.stdout:
            print(f"  {line}", end="", flush=True)
            yield line
        process.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    if late:
        raise Failed(f"nothing more happened within {timeout_s:g} s")


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Signals the whole group, as Ctrl-C in a terminal does."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def survivors(root: Path, within_s: float = 10) -> list[str]:
    """What still runs in this namespace besides its first process, which is the caller's."""
    deadline_s = time.monotonic() + within_s
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = [_command_line(path) for path in (root / "proc").iterdir() if path.name.isdigit() and path.name != "1"]
        if not (left := [line for line in left if line]) or time.monotonic() > deadline_s:
            return left
        time.sleep(0.2)


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _mirror() -> str | None:
    """The first that apt has here; None leaves the choice to the program that makes the root."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in sources:
        if path.is_file() and (
            found := re.search(r"(?m)^(?:URIs:|deb(?: \[.*?\])?)\s+(\S*debian/?)\s", path.read_text())
        ):
            return found[1]
    return None


def _proxies() -> list[str]:
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return re.findall(r'(?m)^(Acquire::\w+::(?:Proxy|CaInfo|Verify-Peer)\S* "[^"]+");$', dump)
