"""A stage of `carillon bench gpu` that measures nothing, and breaks as its measurement says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from app.bench.gpu.plan import Measurement
from app.bench.gpu.results import Result
from app.bench.gpu.stage import Emit, Job, main


class MeasuringStage:
    def __init__(self, job: Job) -> None: ...

    async def measure(self, measurement: Measurement, emit: Emit) -> Mapping[str, Any]:
        match measurement.name:
            case "raises":
                raise ValueError("no such thing")
            case "dies":
                os._exit(3)
            case "prints":
                print("a library speaks")
            case "parts":
                emit(Result(table="engine", name="part", parameters={}, figures={"value": 0}))
        return {"value": 1}

    async def aclose(self) -> None: ...


if __name__ == "__main__":
    main(MeasuringStage)
