"""The commands that a newcomer meets: on the README's first screen, and on the screen of a fleet that is ready."""

from __future__ import annotations

import re
from dataclasses import dataclass


class NoCommand(Exception):
    """The text has no such command; the message says what was looked for, and where."""


@dataclass(frozen=True)
class Readme:
    """The first screen: everything before the first section."""

    packages: str
    up: str
    test: str

    @classmethod
    def read(cls, text: str) -> Readme:
        screen = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
        blocks = "\n".join(re.findall(r"^```(?:sh|bash|shell)\n(.*?)^```", screen, flags=re.MULTILINE | re.DOTALL))
        packages = re.search(r"(?:sudo )?apt-get install [^`\n]+", screen)
        if packages is None:
            raise NoCommand("README.md: no `apt-get install …` before the first section")
        return cls(packages[0], _command(blocks, "make up"), _command(blocks, "make test"))


@dataclass(frozen=True)
class Printed:
    """What `make up` says to try, once it is ready."""

    curl: str
    say: str

    @classmethod
    def read(cls, output: str) -> Printed:
        joined = re.sub(r"\\\n\s*", "", output)
        found = {
            name: re.search(rf"^\s*((?:\S*/)?{pattern}.*)$", joined, flags=re.MULTILINE)
            for name, pattern in {"curl": "curl ", "say": "carillon say "}.items()
        }
        if missing := [name for name, match in found.items() if match is None]:
            raise NoCommand(f"the fleet prints no command with {' and none with '.join(missing)}")
        return cls(**{name: match[1].strip() for name, match in found.items() if match})


def as_root(command: str) -> str:
    """`sudo` asks for what a bare root has not got, by one who is root there."""
    return re.sub(r"(^|[;&|]\s*)sudo ", r"\1", command)


def _command(blocks: str, beginning: str) -> str:
    for line in blocks.splitlines():
        command = line.removeprefix("$ ").strip()
        if re.match(rf"{beginning}\b", command):
            return command.partition(" #")[0].strip()
    raise NoCommand(f"README.md: no `{beginning}` in a block of shell before the first section")
