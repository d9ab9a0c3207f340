"""compose/NOTICES.md names what is installed under a licence that asks for more than a mention."""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[3]
COPYLEFT = re.compile(r"\b(A?L?GPL|MPL|EPL|CDDL)|Mozilla Public|General Public")


def locked() -> set[str]:
    """The packages of compose/lock: what an environment may have besides is not ours."""
    texts = [(REPOSITORY / "compose/lock" / name).read_text() for name in ("cpu.txt", "dev.txt")]
    return {canonicalize_name(name) for text in texts for name in re.findall(r"(?m)^([A-Za-z0-9._-]+)==", text)}


def licence(package: Distribution) -> str:
    metadata = package.metadata.json  # PEP 566
    named = [each for each in metadata.get("classifier", ()) if str(each).startswith("License ::")]
    return str(metadata.get("license_expression") or "; ".join(named) or metadata.get("license", ""))[:200]


def test_every_installed_package_under_a_copyleft_licence_is_named() -> None:
    page = (REPOSITORY / "compose/NOTICES.md").read_text()
    wanted = locked()
    asking = {
        canonicalize_name(package.name) for package in distributions() if COPYLEFT.search(licence(package))
    } & wanted
    assert {"psycopg", "soxr"} <= asking  # the metadata is read as it should be
    assert {name for name in asking if f"`{name}`" not in page} == set()
