"""`carillon bench start`: CPU seconds of a start and of a second of speech, by process.

It starts `carillon up` in an empty data directory, of this checkout and of others beside it, in turn, so that a busy
machine is as busy for each. The first start after an installation has nothing compiled yet; it is measured apart, with
empty caches in place of those that are there. CPU seconds are the kernel's, by process; of waiting it knows only how
long until ready. It knows what is printed and what processes are called, and nothing of how they work.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

import psutil

from app.errors import ConfigurationError
from app.local.embedded import LOOPBACK, free_port

SENTENCES = (
    "The old clock in the kitchen stopped again last night.",
    "She said that the river would be high in spring.",
    "We walked home along the quiet street and talked about the war.",
)
STOP_TIMEOUT_S = 120.0
SPEECH_TIMEOUT_S = 300.0

PARTS = (
    ("engine", re.compile(r"VLLM::EngineCore|vllm\.model_executor")),
    ("tasks", re.compile(r"celeryd|billiard|app\.cli(\.main)? tasks")),
    ("worker", re.compile(r"app\.cli(\.main)? worker")),
    ("front door", re.compile(r"app\.cli(\.main)? api")),
    ("stores", re.compile(r"valkey-server|rclone")),
)
"""What a process belongs to, by its command line; the first that is found. The rest is `up` itself."""

CACHES = ("PYTHONPYCACHEPREFIX", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "VLLM_CACHE_ROOT")
"""Where what was compiled is kept: Python's modules, and kernels."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds until ready, CPU seconds until then by part, and CPU seconds for a second of speech."""

    ready_s: float
    cpu_s: Mapping[str, float]
    engine_s_per_s: float
    worker_s_per_s: float

    @property
    def total_cpu_s(self) -> float:
        return sum(self.cpu_s.values())

    @property
    def speech_s_per_s(self) -> float:
        return self.engine_s_per_s + self.worker_s_per_s


@dataclass(frozen=True, slots=True)
class Checkout:
    """A checkout whose environment is made, and what was measured of it: of first starts, or of later ones."""

    path: Path
    starts: list[Start] = field(default_factory=list)
    first: bool = False

    @property
    def name(self) -> str:
        return f"{self.path.name}, first" if self.first else self.path.name

    @property
    def command(self) -> Path:
        return self.path / ".venv" / "bin" / "carillon"


def run(paths: Sequence[Path], *, rounds: int, first: bool, progress: Callable[[str], None]) -> list[Checkout]:
    """Measure each checkout `rounds` times, in turn; `first`: its first start, too. Raises ConfigurationError where one
    does not start."""
    kinds = (True, False) if first else (False,)
    checkouts = [Checkout(path.resolve(), first=kind) for path in paths for kind in kinds]
    for checkout in checkouts:
        if not checkout.command.exists():
            raise ConfigurationError(f"{checkout.command} does not exist; run `make .venv/.run` in {checkout.path}")
    for number in range(1, rounds + 1):
        for checkout in checkouts:
            progress(f"round {number} of {rounds}: {checkout.path}{', first start' if checkout.first else ''}")
            checkout.starts.append(measure(checkout.command, first=checkout.first))
    return checkouts


def measure(command: Path, *, first: bool = False) -> Start:
    """Start a fleet with one worker, have it speak, and stop it."""
    with tempfile.TemporaryDirectory(prefix="carillon-bench-") as directory:
        began_at = monotonic()
        with _running(command, Path(directory), first=first) as (process, printed):
            ready_s = monotonic() - began_at
            family = psutil.Process(process.pid)
            at_ready = cpu_by_part(family)
            audio_s = sum(_spoken_s(printed, sentence) for sentence in SENTENCES)
            after = cpu_by_part(family)
        speech = {part: (after[part] - at_ready.get(part, 0.0)) / audio_s for part in ("engine", "worker")}
        return Start(ready_s, at_ready, speech["engine"], speech["worker"])


def cpu_by_part(root: psutil.Process) -> dict[str, float]:
    """CPU seconds of `root` and all below it, those of children that have ended with their parent's."""
    spent: dict[str, float] = {}
    for process in [root, *root.children(recursive=True)]:
        try:
            times, words = process.cpu_times(), " ".join(process.cmdline())
        except psutil.Error:  # it has ended a moment ago
            continue
        part = next((name for name, pattern in PARTS if pattern.search(words)), "up")
        ended = times.children_user + times.children_system
        spent[part] = spent.get(part, 0.0) + times.user + times.system + ended
    return spent


def table(checkouts: Sequence[Checkout]) -> str:
    """Medians, one line a checkout; the last one's ratio to the first is what a change is judged by."""
    parts = sorted({part for checkout in checkouts for start in checkout.starts for part in start.cpu_s})
    heads = ("ready, s", "CPU to ready, s", *parts, "CPU s per s of speech", "engine", "worker")
    rows = [_row(checkout, parts) for checkout in checkouts]
    lines = [f"| checkout | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    for checkout, row in zip(checkouts, rows, strict=True):
        lines.append(f"| {checkout.name} | {' | '.join(f'{value:.2f}' for value in row)} |")
    if len(rows) > 1:
        ratios = (first / last if last else 0.0 for first, last in zip(rows[0], rows[-1], strict=True))
        lines.append(f"| first ÷ last | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join(lines)


def as_json(checkouts: Sequence[Checkout]) -> str:
    measured = [
        {"checkout": str(each.path), "first": each.first, "starts": [asdict(start) for start in each.starts]}
        for each in checkouts
    ]
    return json.dumps(measured, indent=2)


def _row(checkout: Checkout, parts: Sequence[str]) -> list[float]:
    def median(value: Callable[[Start], float]) -> float:
        return statistics.median(value(start) for start in checkout.starts)

    return [
        median(lambda start: start.ready_s),
        median(lambda start: start.total_cpu_s),
        *(median(lambda start, part=part: start.cpu_s.get(part, 0.0)) for part in parts),
        median(lambda start: start.speech_s_per_s),
        median(lambda start: start.engine_s_per_s),
        median(lambda start: start.worker_s_per_s),
    ]


@contextmanager
def _running(command: Path, directory: Path, *, first: bool) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A fleet that is ready, with what it has printed; it is stopped at the end."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
    environment = own | {"CARILLON_DATA_DIR": str(directory / "data"), "CARILLON_API_PORT": str(free_port(LOOPBACK))}
    if first:
        environment |= {name: str(directory / name.lower()) for name in CACHES}
    process = subprocess.Popen(
        [str(command), "up"],
        cwd=command.parents[2],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    printed: list[str] = []
    try:
        for line in process.stdout or ():
            printed.append(line)
            if "Ctrl-C" in line:
                break
        else:
            raise ConfigurationError(f"{command} up has ended before it was ready:\n{''.join(printed[-20:])}")
        yield process, "".join(printed)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=STOP_TIMEOUT_S)


def _spoken_s(printed: str, sentence: str) -> float:
    """Seconds of speech that the fleet makes of a sentence, with its first voice."""
    [address, *_], [key, *_] = re.findall(r"front door +(http\S+)", printed), re.findall(r"key +(cari_\S+)", printed)
    asked = json.loads(re.findall(r"-d '(.*)'", printed)[0]) | {"input": sentence, "response_format": "pcm"}
    request = urllib.request.Request(
        f"{address}/v1/audio/speech",
        data=json.dumps(asked).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=SPEECH_TIMEOUT_S) as answer:
        return len(answer.read()) / 48_000  # s16le at 24 kHz
