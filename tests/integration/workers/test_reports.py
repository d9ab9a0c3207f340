"""vLLM's own output processor, given the core's tokens one by one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector

from workers.reports import EvenReports

INTERVAL = 7


@pytest.fixture
def processor() -> OutputProcessor:
    processor = OutputProcessor(None, log_stats=False, stream_interval=1)
    processor.__class__ = EvenReports
    return processor


async def spoken(processor: OutputProcessor, id: str) -> RequestOutputCollector:
    """A request that was accepted, and where its reports come."""
    params = SamplingParams(
        detokenize=False, output_kind=RequestOutputKind.DELTA, stream_interval=INTERVAL, max_tokens=100
    )
    request = EngineCoreRequest(
        request_id=id,
        prompt_token_ids=[1, 2, 3],
        mm_features=None,
        sampling_params=params,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
        external_req_id=id,
    )
    reports = RequestOutputCollector(RequestOutputKind.DELTA, id)
    processor.add_request(request, None, queue=reports)
    return reports


def step(processor: OutputProcessor, *outputs: EngineCoreOutput) -> None:
    processor.process_outputs(list(outputs))


def taken(reports: RequestOutputCollector) -> list[int] | None:
    output: Any = reports.get_nowait()
    return None if output is None else list(output.outputs[0].token_ids)


def test_tokens_are_reported_once_a_frame_is_whole_and_with_the_last(processor: OutputProcessor) -> None:
    async def check() -> None:
        one, another = await spoken(processor, "one"), await spoken(processor, "another")
        for token in range(INTERVAL - 1):
            step(processor, EngineCoreOutput("one", [token]))
            assert taken(one) is None
        step(processor, EngineCoreOutput("one", [6]), EngineCoreOutput("another", [100]))
        assert taken(one) == list(range(7))
        step(processor, EngineCoreOutput("one", [7]), EngineCoreOutput("another", [101]))
        step(processor, EngineCoreOutput("one", [8], finish_reason=FinishReason.STOP))
        assert taken(one) == [7, 8]
        step(processor, EngineCoreOutput("another", [], finish_reason=FinishReason.LENGTH))
        assert taken(another) == [100, 101]
        assert not processor.request_states

    asyncio.run(check())


def test_a_request_given_up_leaves_nothing_behind(processor: OutputProcessor) -> None:
    async def check() -> None:
        await spoken(processor, "one")
        step(processor, EngineCoreOutput("one", [1]))
        assert processor.abort_requests(["one"], internal=True) == ["one"]
        step(processor, EngineCoreOutput("one", [2]))
        reports = await spoken(processor, "one")
        for token in range(INTERVAL):
            step(processor, EngineCoreOutput("one", [10 + token]))
        assert taken(reports) == list(range(10, 17)), "none of the request before"

    asyncio.run(check())
