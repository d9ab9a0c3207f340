"""What is measured of a card, and in which order."""

from __future__ import annotations

from app.bench.gpu.plan import TINY, Sizes, plan, stages


def test_the_headline_comes_first_and_the_talks_two_figures_next() -> None:
    first, *rest = plan(Sizes(), "cuda")
    assert (first.table, first.name, first.parameters["precision"]) == ("speech", "streams", "fp8_per_channel")
    talk = [(each.parameters["batch"], each.parameters["loras"]) for each in rest[:2]]
    assert talk == [(10, 0), (10, 10)]


def test_nothing_is_measured_twice() -> None:
    keys = [each.key for each in plan(Sizes(), "cuda")]
    assert len(keys) == len(set(keys))


def test_every_batch_is_measured_with_every_number_of_loras_that_it_can_have() -> None:
    sizes = Sizes()
    found = {
        (each.parameters["precision"], each.parameters["batch"], each.parameters["loras"])
        for each in plan(sizes, "cuda")
        if each.name == "tokens" and each.parameters["mask"] and each.parameters["penalties"]
    }
    wanted = {
        (precision, batch, loras)
        for precision in sizes.precisions
        for batch in sizes.batches
        for loras in sizes.loras
        if loras <= batch
    }
    assert wanted <= found


def test_more_loras_than_the_usual_slots_get_an_engine_that_has_as_many() -> None:
    slots = {
        each.parameters["loras"]: each.parameters["slots"] for each in plan(Sizes(), "cuda") if each.name == "tokens"
    }
    assert slots[16] == 16
    assert slots[64] == 64


def test_what_only_a_card_can_do_is_left_out_on_a_cpu() -> None:
    def schemes(device: str) -> set[object]:
        return {each.parameters["scheme"] for each in plan(TINY, device) if each.name == "scheme"}

    assert schemes("cuda") - schemes("cpu") == {"graph", "pinned", "tf32"}


def test_a_stage_has_what_stands_together_of_one_table() -> None:
    groups = stages(plan(Sizes(), "cuda"))
    assert [group[0].table for group in groups[:4]] == ["speech", "engine", "decoder", "training"]
    assert all(len({each.table for each in group}) == 1 for group in groups)
