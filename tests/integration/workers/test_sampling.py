"""The band mask on logits, without an engine around it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from app.platform.settings import STAND_IN
from app.speech.token_layout import TOKENS_PER_FRAME, read_layout

if TYPE_CHECKING:
    from workers.sampling import BandMaskV1

LAYOUT = read_layout(STAND_IN / "model", STAND_IN / "codec")
VOCABULARY = LAYOUT.band(TOKENS_PER_FRAME - 1)[1]
POSITIONS = [0, 1, 6, 7, 8, 700]
WRITTEN_ELSEWHERE = [0, 0, 0, 7, 0, 350]
"""How many of these codes are in the prompt, where speech goes on that began at another worker."""


def allowed(row: torch.Tensor) -> set[int]:
    return set(torch.isfinite(row).nonzero().flatten().tolist())


def expected(position: int) -> set[int]:
    may_end = position > 0 and position % TOKENS_PER_FRAME == 0
    return set(range(*LAYOUT.band(position))) | ({LAYOUT.end_id} if may_end else set())


def config() -> Any:
    from workers.sampling import band_config  # here and below: vLLM, which collecting tests need not import

    return SimpleNamespace(additional_config=band_config(LAYOUT))


def params(written: int) -> Any:
    from workers.sampling import WRITTEN

    return SimpleNamespace(extra_args={WRITTEN: written} if written else None)


def mask_v1() -> BandMaskV1:
    from workers.sampling import BandMaskV1

    mask = BandMaskV1(config(), torch.device("cpu"), is_pin_memory=False)
    outputs = [
        (row, params(written), None, [0] * (position - written))
        for row, (position, written) in enumerate(zip(POSITIONS, WRITTEN_ELSEWHERE, strict=True))
    ]
    mask.update_state(SimpleNamespace(added=outputs, removed=(), moved=()))  # type: ignore[arg-type]
    return mask


def masked_v1(logits: torch.Tensor) -> torch.Tensor:
    return mask_v1().apply(logits)


def masked_v2(logits: torch.Tensor) -> torch.Tensor:
    from workers.sampling import BandMaskV2

    prompt_len = torch.tensor(WRITTEN_ELSEWHERE) + 5
    slots = torch.arange(len(POSITIONS))
    states: Any = SimpleNamespace(device=torch.device("cpu"), prompt_len=SimpleNamespace(gpu=prompt_len))
    context: Any = SimpleNamespace(expanded_idx_mapping=slots, pos=torch.tensor(POSITIONS) + 5 - 1)
    mask = BandMaskV2(config(), states)
    for row, written in enumerate(WRITTEN_ELSEWHERE):
        assert mask.add_request(row, params(written))
    return mask.apply(logits, context)


def test_a_head_that_reads_one_band_gives_the_masked_logits_of_the_whole_head() -> None:
    hidden, head = torch.randn(len(POSITIONS), 8), torch.randn(VOCABULARY, 8)
    whole = masked_v1(hidden @ head.T)
    torch.testing.assert_close(mask_v1().logits(hidden, head), whole)


@pytest.mark.parametrize("masked", [masked_v1, masked_v2])
def test_each_position_may_hold_its_own_band_or_the_end_of_speech_at_a_frame(masked: Any) -> None:
    logits = torch.randn(len(POSITIONS), VOCABULARY)
    kept = masked(logits.clone())
    for row, position in enumerate(POSITIONS):
        assert allowed(kept[row]) == expected(position)
        chosen = sorted(expected(position))
        torch.testing.assert_close(kept[row, chosen], logits[row, chosen])
