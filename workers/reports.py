"""When the engine's front half reports codes: once a frame is whole.

vLLM 0.32 has an interval between two reports, and sends the first token at once (`RequestState.make_request_output`):
with an interval of 7 it reports after tokens 1, 8, 15, …, and every frame waits for a token that is not its own. The
processor here holds the first report back as well, so that they come after 7, 14, 21, … The last one comes in any case.
"""

from __future__ import annotations

from typing import Any

from vllm.v1.engine import FinishReason
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import OutputProcessor, RequestState


class EvenRequest(RequestState):
    """A request whose first report comes after as many tokens as the others."""

    def make_request_output(
        self,
        new_token_ids: list[int],
        pooling_output: Any,
        finish_reason: FinishReason | None,
        *rest: Any,
        **named: Any,
    ) -> Any:
        if finish_reason is None and self.detokenizer and self.detokenizer.num_output_tokens() < self.stream_interval:
            return None
        return super().make_request_output(new_token_ids, pooling_output, finish_reason, *rest, **named)


class EvenReports(OutputProcessor):
    """vLLM's processor; each request that comes in is an even one."""

    def add_request(self, request: Any, *rest: Any, **named: Any) -> None:
        super().add_request(request, *rest, **named)
        # vLLM makes the state itself. The class adds no field, so an instance may change into it.
        self.request_states[request.request_id].__class__ = EvenRequest


def report_evenly(llm: AsyncLLM) -> None:
    """Before the first request: its reports, and those of all others, come every `stream_interval` tokens."""
    llm.output_processor.__class__ = EvenReports
