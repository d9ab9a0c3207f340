"""When vLLM's front half handles what its core has written: once a frame is whole.

The core sends a token for every request at each step. vLLM 0.32 takes each token through statistics, detokenising and
its outputs (15 µs a token here), and its `stream_interval` only keeps it from reporting each; with an interval of 7 it
reports after tokens 1, 8, 15, …, so every frame waits for a token that is not its own. The processor here keeps a
request's tokens until there are `stream_interval` of them or the last has come, and hands vLLM one output for all.

vLLM's own histograms of tokens and requests are off: the worker counts both (`workers.metrics`), and they cost as much
again. Its gauges of the scheduler stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor


class EvenReports(OutputProcessor):
    """vLLM's processor, which gets a request's outputs joined."""

    def process_outputs(self, engine_core_outputs: list[EngineCoreOutput], *rest: Any, **named: Any) -> Any:
        return super().process_outputs(self._joined(engine_core_outputs), *rest, **named)

    def _joined(self, outputs: Sequence[EngineCoreOutput]) -> list[EngineCoreOutput]:
        """Those that are worth a report, each with what was kept before it."""
        due: list[EngineCoreOutput] = []
        for output in outputs:
            state: Any = self.request_states.get(output.request_id)
            if state is None:  # given up a moment ago
                continue
            kept: EngineCoreOutput | None = state.__dict__.get("kept")
            if kept is not None:
                output.new_token_ids = kept.new_token_ids + output.new_token_ids
                _carry(kept, output)
            if output.finish_reason is None and len(output.new_token_ids) < state.stream_interval:
                state.kept = output
            else:
                state.kept = None
                due.append(output)
        return due


def _carry(kept: EngineCoreOutput, output: EngineCoreOutput) -> None:
    """What a request's first outputs say once, into the one that is handed on."""
    if kept.prefill_stats is not None:
        output.prefill_stats = kept.prefill_stats
    if kept.events is not None:
        output.events = kept.events + (output.events or [])


def report_evenly(llm: AsyncLLM) -> None:
    """To be called before the first request: reports then come every `stream_interval` tokens."""
    # vLLM makes the processor itself. The class adds no field, so the instance may change into it.
    llm.output_processor.__class__ = EvenReports
    # Off from the start, they would take the scheduler's gauges with them. Nothing has begun that counts on them.
    assert llm.output_handler is None
    llm.log_stats = llm.output_processor.log_stats = llm.output_processor.lora_states.log_stats = False
