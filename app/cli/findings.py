"""Findings of `carillon doctor`: one check, its severity, and the remedy."""

from __future__ import annotations

from enum import StrEnum

from app.speech.voices import Frozen


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Finding(Frozen):
    """The result of one check. `remedy` says what to do, if anything."""

    level: Level
    what: str
    found: str
    remedy: str = ""

    def line(self) -> str:
        remedy = f"\n{'':11}→ {self.remedy}" if self.remedy else ""
        return f"{self.level:8}  {self.what}: {self.found}{remedy}"


def ok(what: str, found: str) -> Finding:
    return Finding(level=Level.OK, what=what, found=found)


def warning(what: str, found: str, remedy: str) -> Finding:
    return Finding(level=Level.WARNING, what=what, found=found, remedy=remedy)


def failure(what: str, found: str, remedy: str) -> Finding:
    return Finding(level=Level.FAILURE, what=what, found=found, remedy=remedy)
