"""What the CPU's engine core is given: a number format, and batches by adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.cpu_engine import dtype_here
from workers.cpu_llama import AdaptedRows, adapted_rows


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu sse2 avx2", "float32"),
        ("fpu avx2 avx512f avx512_vnni", "float32"),
        ("fpu avx2 avx512f avx512_bf16", "bfloat16"),
        ("fpu avx2 amx_bf16 amx_tile", "bfloat16"),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it(tmp_path: Path, flags: str, dtype: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert dtype_here(cpuinfo) == dtype


def test_a_processor_that_reports_nothing_computes_in_float32(tmp_path: Path) -> None:
    assert dtype_here(tmp_path / "none") == "float32"


def rows_of(group: AdaptedRows) -> list[int] | None:
    return None if group.rows is None else group.rows.tolist()


def test_rows_are_grouped_by_the_slot_of_their_adapter_and_base_rows_are_in_no_group() -> None:
    first, second = adapted_rows([0, 7, 9, 7, 0], slots=[9, None, 7])
    assert (first.slot, rows_of(first)) == (2, [1, 3])
    assert (second.slot, rows_of(second)) == (0, [2])


def test_a_batch_of_one_voice_needs_no_choice_of_rows() -> None:
    assert adapted_rows([7, 7], slots=[None, 7]) == [(1, None)]


def test_a_batch_without_adapters_has_no_groups() -> None:
    assert adapted_rows([0, 0, 0], slots=[7, None]) == []
