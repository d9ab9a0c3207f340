"""What compose/lock fixes: what pyproject.toml asks for, all that comes along, and no place to get it from."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[3]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
EXTRAS, GROUPS = PROJECT["project"]["optional-dependencies"], PROJECT["dependency-groups"]
ASKED = {
    "cpu": [*PROJECT["project"]["dependencies"], *EXTRAS["cpu"], *GROUPS["build"]],
    "gpu": [*PROJECT["project"]["dependencies"], *EXTRAS["gpu"], *GROUPS["build"]],
    "dev": GROUPS["dev"],
}


def lines(name: str) -> list[str]:
    """Each with the hashes of its files."""
    text = (REPOSITORY / "compose/lock" / f"{name}.txt").read_text().replace("\\\n", "")
    return [line for line in text.splitlines() if not line.lstrip().startswith("#")]


def fixed(*names: str) -> dict[str, Version]:
    """The versions that are for this machine and this Python."""
    wishes = [Requirement(line.partition(" --hash=")[0]) for name in names for line in lines(name)]
    return {
        canonicalize_name(wish.name): Version(next(iter(wish.specifier)).version)
        for wish in wishes
        if wish.marker is None or wish.marker.evaluate()
    }


@pytest.mark.parametrize("name", ASKED)
def test_everything_that_is_asked_for_is_fixed_at_a_version_that_was_asked_for(name: str) -> None:
    """Where it fails, pyproject.toml was changed without `make lock`."""
    have = fixed(name)
    wrong = [
        wish
        for wish in map(Requirement, ASKED[name])
        if wish.marker is None or wish.marker.evaluate()
        if (version := have.get(canonicalize_name(wish.name))) is None or version not in wish.specifier
    ]
    assert not wrong


@pytest.mark.parametrize("name", ASKED)
def test_a_lock_has_one_version_and_the_hashes_of_each_and_names_no_place(name: str) -> None:
    assert lines(name)
    for line in lines(name):
        assert re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.!]+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+", line.rstrip())
        assert "://" not in line


@pytest.mark.parametrize("build", ["cpu", "gpu"])
def test_the_tests_packages_go_with_both_builds(build: str) -> None:
    run, dev = fixed(build), fixed("dev")
    assert {name: run[name] for name in run.keys() & dev.keys()} == {
        name: dev[name] for name in run.keys() & dev.keys()
    }


def test_whatever_is_installed_with_it_is_fixed_too() -> None:
    build = "gpu" if installed("vllm") else "cpu"
    have = fixed(build, "dev")
    assert {name: str(v) for name, v in brought_along(ASKED[build] + ASKED["dev"]).items() if have.get(name) != v} == {}


def brought_along(asked: list[str]) -> dict[str, Version]:
    """What is installed because of these, and because of what they ask for; torch's build is no part of its version."""
    left, seen, found = [Requirement(wish) for wish in asked], set[tuple[str, str]](), dict[str, Version]()
    while left:
        wish = left.pop()
        if (here := installed(wish.name)) is None:
            continue
        found[canonicalize_name(wish.name)] = Version(Version(here.version).public)
        for extra in {"", *wish.extras} - {extra for name, extra in seen if name == wish.name}:
            seen.add((wish.name, extra))
            wishes = map(Requirement, here.requires or ())
            left += [other for other in wishes if other.marker is None or other.marker.evaluate({"extra": extra})]
    return found


def installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
