"""The README's first screen, on a machine that has nothing: python3 -m tests.bare.run bookworm [--two-indexes]

It makes a bare Debian, clones HEAD into it, and does as a newcomer who reads README.md does: installs the packages,
`make up`, the `curl` and the `carillon say` that it prints, Ctrl-C, `make test`. The host's part is what a newcomer has
of his own: pip's configuration and apt's proxies. Nothing is left behind: neither mounts, nor processes, nor the
directory. It needs root, for the mounts.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import wave
from array import array
from pathlib import Path

from tests.bare import indexes, root
from tests.bare.commands import NoCommand, Printed, Readme, as_root
from tests.bare.root import HOME, Failed

REPOSITORY = Path(__file__).parents[2]
CARILLON = HOME / "carillon"
INSTALLING_TIMEOUT_S = 3600.0
"""Until `make up` is ready: about a gigabyte over whatever line, and a model loaded on two slow cores."""
ENDING_TIMEOUT_S = 300.0
TESTING_TIMEOUT_S = 5400.0


def main() -> int:
    options = _options()
    if os.geteuid():
        print("the bare machine needs root, for mounts of its own: sudo python3 -m tests.bare.run …", file=sys.stderr)
        return 2
    if options.inside:
        return _inside(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    directory = Path(tempfile.mkdtemp(prefix="carillon-bare-"))
    # The first process of a PID namespace takes the others along when it ends; the mounts are gone with the namespace.
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    command = [sys.executable, "-m", "tests.bare.run", *sys.argv[1:], "--inside", str(directory)]
    try:
        return subprocess.run([*namespaces, *command], cwd=REPOSITORY, check=False).returncode
    finally:
        shutil.rmtree(directory)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.bare.run", description="Do what README.md says on a machine that has nothing."
    )
    parser.add_argument("suite", help="Debian's name: bookworm, trixie")
    parser.add_argument("--two-indexes", action="store_true", help="the first has a package without its library")
    parser.add_argument("--no-tests", action="store_true", help="leave out `make test`")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _inside(options: argparse.Namespace) -> int:
    bare = options.inside / "root"
    try:
        began_s = time.monotonic()
        _prepare(bare, options)
        _follow(bare, with_tests=not options.no_tests)
        if options.two_indexes:
            _has_its_library(bare)
    except (Failed, NoCommand, subprocess.CalledProcessError) as error:
        _show_logs(bare)
        print(f"\n{options.suite}: FAILED: {error}", flush=True)
        return 1
    print(f"\n{options.suite}: the README's first screen holds, after {time.monotonic() - began_s:.0f} s", flush=True)
    return 0


def _prepare(bare: Path, options: argparse.Namespace) -> None:
    """The machine, its owner's configuration, and the clone."""
    root.make(bare, options.suite)
    settings = indexes.host_configuration()
    if options.two_indexes:
        version = re.search(rf"(?m)^{indexes.DISAGREED}==(\S+)", (REPOSITORY / "compose/lock/cpu.txt").read_text())
        assert version
        pair = indexes.disagreeing(options.inside / "indexes", version[1])
        settings["extra-index-url"] = " ".join([*pair, settings.get("extra-index-url", "")]).strip()
    for directory in indexes.directories(settings):
        root.show(bare, directory)
    settings = indexes.with_files_in(bare / "etc/pip", settings, seen_as=Path("/etc/pip"))
    (bare / "etc/pip.conf").write_text(indexes.pip_conf(settings))
    clone = bare / CARILLON.relative_to("/")
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{REPOSITORY}", str(clone)], check=True)
    root.run(bare, f"chown -R newcomer:newcomer {HOME}", as_root=True)
    root.run(bare, "apt-get update -qq", as_root=True)


def _follow(bare: Path, *, with_tests: bool) -> None:
    """What README.md says, in its order."""
    readme = Readme.read((REPOSITORY / "README.md").read_text())
    root.run(
        bare,
        as_root(readme.packages.replace("apt-get install", "apt-get install -qq -y -o Dpkg::Use-Pty=0")),
        as_root=True,
    )
    up = root.start(bare, readme.up)
    try:
        output = _ready(up)
        printed = Printed.read(output)
        for command in (printed.curl, printed.say):
            _spoken(bare, command)
        print("\n^C", flush=True)
        root.kill(up, signal.SIGINT)
        ending = "".join(root.lines(up, ENDING_TIMEOUT_S))
    finally:
        root.kill(up)
    # make itself ends by the signal, whatever its command did; of a command that failed it says "Error 1".
    if up.returncode not in (0, -signal.SIGINT, 128 + signal.SIGINT) or re.search(r"\*\*\* .*Error \d", ending):
        raise Failed(f"`{readme.up}` ended with status {up.returncode} at Ctrl-C")
    if left := root.survivors(bare):
        raise Failed(f"`{readme.up}` left running: {'; '.join(left)}")
    if with_tests:
        root.run(bare, readme.test, timeout_s=TESTING_TIMEOUT_S)


def _ready(up: subprocess.Popen[str]) -> str:
    """What `make up` prints until it has said all that there is to try."""
    output = ""
    for line in root.lines(up, INSTALLING_TIMEOUT_S):
        output += line
        if re.search(r"carillon say ", line):
            return output
    raise Failed(f"it ended with status {up.returncode} before it was ready")


def _spoken(bare: Path, command: str) -> None:
    name = re.search(r"-o (\S+)", command)
    if name is None:
        raise NoCommand(f"it writes no file: {command}")
    path = bare / CARILLON.relative_to("/") / name[1]
    path.unlink(missing_ok=True)
    root.run(bare, command, timeout_s=300)
    seconds, loudest = heard(path.read_bytes())
    if seconds < 0.5 or loudest < 1000:
        raise Failed(f"{name[1]} has {seconds:.2f} s of sound, of {loudest}/32767 at most, after: {command}")
    print(f"  ({seconds:.2f} s of sound)", flush=True)


def heard(wav: bytes) -> tuple[float, int]:
    """Seconds and peak of what is there: the length in a streamed file's header is of a file without end."""
    with wave.open(io.BytesIO(wav)) as sound:
        samples = array("h", sound.readframes(len(wav) // 2))
        return len(samples) / sound.getframerate(), max(map(abs, samples), default=0)


def _show_logs(bare: Path) -> None:
    """The ends of the fleet's logs: the directory goes with the machine."""
    for path in sorted((bare / CARILLON.relative_to("/") / "data/logs").glob("*.log")):
        print(f"\n{path.name}:")
        print("".join(f"  {line}\n" for line in path.read_text(errors="replace").splitlines()[-60:]), end="")


def _has_its_library(bare: Path) -> None:
    libraries = list((bare / CARILLON.relative_to("/")).glob(".venv/lib/python3*/site-packages/_soundfile_data/*.so"))
    if not libraries:
        raise Failed(f"{indexes.DISAGREED} was installed without its library")
    print(f"\n{indexes.DISAGREED} has its library: {libraries[0].name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
