"""When vLLM's front half hands on what its core has written: once a frame is whole, all requests of a step in one pass.

The core sends a token for every request at each step. vLLM 0.32 takes each token through statistics, detokenising and
its outputs (15 µs a token here), and its `stream_interval` only keeps it from reporting each; with an interval of 7 it
reports after tokens 1, 8, 15, …, so every frame waits for a token that is not its own. The processor here collects a
request's tokens, hands on `stream_interval` of them as they are, and shows vLLM only the last, with which it ends the
request.

vLLM's own histograms of tokens and requests are off: the worker counts both (`workers.metrics`), and they cost as much
again. Its gauges of the scheduler stay.
"""

from __future__ import annotations

from typing import Any

from vllm.outputs import RequestOutput
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor


class TokensOnly(RequestOutput):
    """The tokens of a request that goes on; with what vLLM says at its end, where that came before they were taken."""

    def __init__(self, token_ids: list[int]) -> None:
        self.token_ids = token_ids
        self.finished = False
        self.finish_reason: str | None = None

    @property
    def outputs(self) -> list[Any]:  # type: ignore[override]
        """As vLLM's outputs have them, of the one completion that there is."""
        return [self]

    def add(self, next_output: RequestOutput, aggregate: bool) -> None:
        completion = next_output.outputs[0]
        self.token_ids = [*self.token_ids, *completion.token_ids]
        self.finished, self.finish_reason = next_output.finished, completion.finish_reason


class EvenReports(OutputProcessor):
    """vLLM's processor, which gets of a request only its last output, with all tokens that were not handed on."""

    def process_outputs(self, engine_core_outputs: list[EngineCoreOutput], *rest: Any, **named: Any) -> Any:
        return super().process_outputs(self._last(engine_core_outputs), *rest, **named)

    def _last(self, outputs: list[EngineCoreOutput]) -> list[EngineCoreOutput]:
        last: list[EngineCoreOutput] = []
        states: dict[str, Any] = self.request_states
        for output in outputs:
            state = states.get(output.request_id)
            if state is None:  # given up a moment ago
                continue
            kept: list[int] | None = state.__dict__.get("kept")
            if kept is None:
                kept = state.kept = output.new_token_ids[:]
            else:
                kept += output.new_token_ids
            if output.finish_reason is not None:
                output.new_token_ids = kept
                last.append(output)
            elif len(kept) >= state.stream_interval:
                state.kept = None
                state.queue.put(TokensOnly(kept))
        return last


def report_evenly(llm: AsyncLLM) -> None:
    """To be called before the first request: reports then come every `stream_interval` tokens."""
    # vLLM makes the processor itself. The class adds no field, so the instance may change into it.
    llm.output_processor.__class__ = EvenReports
    # Off from the start, they would take the scheduler's gauges with them. Nothing has begun that counts on them.
    assert llm.output_handler is None
    llm.log_stats = llm.output_processor.log_stats = llm.output_processor.lora_states.log_stats = False
