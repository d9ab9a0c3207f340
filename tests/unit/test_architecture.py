"""What the domain may know; import-linter (`make check`) holds who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import app.core

ALLOWED = sys.stdlib_module_names | {"app", "numpy", "pydantic", "uhashring"}


def test_the_domain_imports_the_standard_library_numpy_pydantic_and_the_ring() -> None:
    files = list(Path(app.core.__path__[0]).glob("**/*.py"))
    assert files
    foreign = {(file.name, root) for file in files for root in imported_roots(file)} - {
        (file.name, root) for file in files for root in ALLOWED
    }
    assert not foreign


def imported_roots(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}
