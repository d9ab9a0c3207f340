"""The file of results: each is written at once, so that a run that ends anywhere has lost at most one measurement.

A file is of one device, one voice model and one size; what it has is not measured again, what failed is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.bench.gpu.plan import Measurement, Table
from app.errors import ConfigurationError
from app.speech.voices import Frozen


class Subject(Frozen):
    """What is measured, and on what."""

    device: str
    model: str
    tiny: bool
    versions: Mapping[str, str] = {}


class Result(Frozen):
    """What came of one measurement: figures, or the error that ended it."""

    table: Table
    name: str
    parameters: Mapping[str, str | int | bool]
    figures: Mapping[str, Any] = {}
    error: str | None = None

    @property
    def key(self) -> str:
        return Measurement(table=self.table, name=self.name, parameters=self.parameters).key


class Results:
    """The results in a file; `put` writes it."""

    def __init__(self, path: Path, subject: Subject) -> None:
        """Raises ConfigurationError where the file is of another subject, or no such file."""
        self._path = path
        self.subject = subject
        self._results: dict[str, Result] = {}
        if path.is_file():
            self._read()

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def has(self, measurement: Measurement) -> bool:
        """Whether it has been measured; one that failed has not."""
        found = self._results.get(measurement.key)
        return found is not None and found.error is None

    def of(self, table: Table, name: str | None = None) -> list[Result]:
        """Those of a table that have figures."""
        return [each for each in self if each.table == table and name in (None, each.name) and each.error is None]

    def errors(self) -> list[Result]:
        return [each for each in self if each.error is not None]

    def put(self, result: Result) -> None:
        self._results[result.key] = result
        arriving = self._path.with_name(f"{self._path.name}.arriving")
        arriving.write_text(self.as_json(), "utf-8")
        arriving.replace(self._path)

    def as_json(self) -> str:
        """What the file has."""
        results = [each.model_dump(mode="json") for each in self]
        return json.dumps({"subject": self.subject.model_dump(mode="json"), "results": results}, indent=1)

    def _read(self) -> None:
        try:
            stored = json.loads(self._path.read_text("utf-8"))
            subject = Subject.model_validate(stored["subject"])
            results = [Result.model_validate(each) for each in stored["results"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{self._path} is no file of results ({error}); give another --out") from None
        if subject != self.subject:
            raise ConfigurationError(
                f"{self._path} has results of {subject.model} on {subject.device}, this is {self.subject.model} on "
                f"{self.subject.device}, or other versions; give another --out"
            )
        self._results = {each.key: each for each in results}
