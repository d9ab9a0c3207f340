"""Where packages come from: what the host's pip is configured with, and two indexes that disagree.

In the two, the first has a package as a pure wheel, without the library that the second has it with: both have the same
version, and only the wheel's tags tell which of them fits a machine. An installer that takes the first index that has a
version takes the wrong one.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

DISAGREED = "soundfile"
_PIP_SETTINGS = (
    *("index-url", "extra-index-url", "find-links", "no-index", "constraint"),
    *("cert", "trusted-host", "timeout", "default-timeout"),
)
_LIBRARY = re.compile(r"\.(?:so|dylib|dll)(?:\.|$)")


def host_configuration() -> dict[str, str]:
    """What pip is told here, by its files and by variables, as far as it says where packages come from."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    settings: dict[str, str] = {}
    for line in subprocess.run(pip, capture_output=True, text=True, check=True).stdout.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in _PIP_SETTINGS:
            settings[key] = " ".join(shlex.split(value)).replace("\\n", " ").strip()
    return settings


def directories(settings: Mapping[str, str]) -> list[Path]:
    """The directories that a configuration names; an index at …/simple links to files beside it."""
    paths = [Path(unquote(urlsplit(word).path)) for value in settings.values() for word in value.split()]
    return [path.parent if path.name == "simple" else path for path in paths if path.is_absolute() and path.is_dir()]


def with_files_in(directory: Path, settings: Mapping[str, str], *, seen_as: Path) -> dict[str, str]:
    """The configuration with the files that it names (certificates, constraints) copied to a place of their own."""
    moved = dict(settings)
    for key, value in settings.items():
        if Path(value).is_file():
            directory.mkdir(parents=True, exist_ok=True)
            copy = directory / f"{key}-{Path(value).name}"
            shutil.copy(value, copy)
            moved[key] = str(seen_as / copy.name)
    return moved


def pip_conf(settings: Mapping[str, str]) -> str:
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(settings.items()))


def disagreeing(directory: Path, version: str) -> tuple[str, str]:
    """Two indexes under the directory; their addresses, the one with the pure wheel first."""
    first, second = directory / "first", directory / "second"
    wheels = directory / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*download, "--dest", str(wheels), f"{DISAGREED}=={version}"], check=True)
    (whole,) = wheels.glob("*.whl")
    index(second, [whole])
    index(first, [without_library(whole, wheels)])
    return f"file://{first}/simple", f"file://{second}/simple"


def index(directory: Path, wheels: list[Path]) -> None:
    page = directory / "simple" / DISAGREED
    page.mkdir(parents=True)
    links = [f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in wheels]
    (page / "index.html").write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")
    for wheel in wheels:
        (page / wheel.name).write_bytes(wheel.read_bytes())


def without_library(wheel: Path, directory: Path) -> Path:
    """The same release as its pure wheel."""
    name, version, *_ = wheel.name.split("-")
    pure = directory / f"{name}-{version}-py2.py3-none-any.whl"
    with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(pure, "w") as out:
        entries = {entry: whole.read(entry) for entry in whole.namelist() if not _LIBRARY.search(entry)}
        for entry, content in entries.items():
            if entry.endswith(".dist-info/WHEEL"):
                tagged = re.sub(rb"(?m)^Tag: .*\n", b"", content) + b"Tag: py2-none-any\nTag: py3-none-any\n"
                entries[entry] = re.sub(rb"(?m)^Root-Is-Purelib: .*$", b"Root-Is-Purelib: true", tagged)
        record = next(entry for entry in entries if entry.endswith(".dist-info/RECORD"))
        entries[record] = "".join(f"{e},{_hash(c)},{len(c)}\n" for e, c in entries.items() if e != record).encode()
        entries[record] += f"{record},,\n".encode()
        for entry, content in entries.items():
            out.writestr(entry, content)
    return pure


def _hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
