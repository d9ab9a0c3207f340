"""The tree is the architecture: what speech may know, and no circle anywhere; import-linter holds the layers."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "workers", "training", "tasks")
KNOWN_TO_SPEECH = sys.stdlib_module_names | {"app", "numpy", "pydantic"}
MAX_LINES = 500
MAX_MEDIAN_LINES = 200


def test_speech_imports_the_standard_library_numpy_and_pydantic_only() -> None:
    files = [ROOT / "app" / "errors.py", *(ROOT / "app" / "speech").glob("**/*.py")]
    foreign = {
        (file.name, name) for file in files for name in imported(file) if name.partition(".")[0] not in KNOWN_TO_SPEECH
    }
    assert len(files) > 1
    assert not foreign


def test_no_module_imports_itself_by_way_of_others_not_even_for_types() -> None:
    modules = {name_of(file): file for file in python_files()}
    graph = {name: set(imported(file)) & modules.keys() - {name} for name, file in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' <- '.join(error.args[1])}") from None


def test_no_router_imports_a_router() -> None:
    routers = {name_of(file): file for file in (ROOT / "app" / "api").glob("**/*.py") if defines_router(file)}
    assert len(routers) > 1
    assert not {(name, other) for name, file in routers.items() for other in set(imported(file)) & routers.keys()}


def test_files_can_be_read_at_once() -> None:
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in python_files()}
    assert {file.name for file, lines in lengths.items() if lines > MAX_LINES} == set()
    assert median(lengths.values()) <= MAX_MEDIAN_LINES


def python_files() -> list[Path]:
    return [file for package in PACKAGES for file in (ROOT / package).glob("**/*.py")]


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def defines_router(file: Path) -> bool:
    """Whether the module has a variable `router` that is made by `APIRouter(...)`."""
    return any(
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).endswith("APIRouter")
        and "router" in map(ast.unparse, node.targets)
        for node in ast.parse(file.read_text("utf-8")).body
    )


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it. `from a import b` may mean the module `a.b`: both are named."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
