"""What the pages say of the tree is there: paths, names, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("app", "workers", "training", "tasks", "compose", "tests")
PAGES = sorted(chain(ROOT.glob("*.md"), *((ROOT / folder).rglob("*.md") for folder in FOLDERS)))
MAPS = tuple(ROOT / "app" / name for name in ("ARCHITECTURE.md", "GLOSSARY.md"))
OF_THE_PAST = {"CHANGELOG.md"}

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
NAME = re.compile(r"[A-Za-z_]\w*")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    lost = [link for link in LINK.findall(text) if "://" not in link and not _leads(page, link)]
    assert lost == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in OF_THE_PAST], ids=shown)
def test_paths_on_a_page_are_in_the_tree(page: Path) -> None:
    paths = PATH.findall(page.read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", MAPS, ids=shown)
def test_names_on_a_map_are_in_the_tree(page: Path) -> None:
    spans = CODE.findall(FENCED.sub("", page.read_text("utf-8")))
    named = {span for span in spans if NAME.fullmatch(span)}
    assert named
    assert {name for name in named if name not in defined() | said()} == set()


@pytest.mark.parametrize("journey", ["session", "clone", "narration", "conversation"])
def test_a_journey_enters_no_file_twice(journey: str) -> None:
    text = MAPS[0].read_text("utf-8")
    files = PATH.findall(text.partition(f"## The path of a {journey}\n")[2].partition("\n## ")[0])
    assert len(files) > 10
    assert [file for file in set(files) if files.count(file) > 1] == []


def _leads(page: Path, link: str) -> bool:
    place, _, fragment = link.partition("#")
    target = (page.parent / place).resolve() if place else page
    if not fragment:
        return target.exists()
    return target.is_file() and fragment in {_anchor(heading) for heading in HEADING.findall(target.read_text("utf-8"))}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def defined() -> frozenset[str]:
    """Every class, function, constant and field of the program."""
    files = chain.from_iterable((ROOT / folder).rglob("*.py") for folder in FOLDERS[:4])
    return frozenset(chain.from_iterable(_definitions(ast.parse(file.read_text("utf-8"))) for file in files))


def _definitions(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign | ast.Assign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node)


@cache
def said() -> frozenset[str]:
    """The settings, and the messages of the session protocol."""
    settings = (ROOT / "app" / "platform" / "SETTINGS.md").read_text("utf-8")
    protocol = (ROOT / "app" / "api" / "native" / "PROTOCOL.md").read_text("utf-8")
    return frozenset(re.findall(r"`(CARILLON_\w+)`", settings) + re.findall(r"^### `(\w+)`", protocol, re.MULTILINE))
