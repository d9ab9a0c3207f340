"""Narrations and their steps on a real SQLite file: the order of steps, claims that lapse, attempts that fence."""

from __future__ import annotations

import asyncio

import pytest

from app.catalog import Catalog
from app.errors import Conflict, JobLost, NotFound
from app.narration.models import (
    ChapterProgress,
    Narration,
    NarrationOptions,
    NarrationOutput,
    NarrationSource,
    NarrationState,
    SourceKind,
    StepKind,
    TextFinding,
)
from app.narration.rows import new_narration_id
from app.narration.steps import Step
from app.platform.jobs import CLAIM_S, JobError
from app.platform.projects import Tenant
from app.speech.choices import NarrationFormat
from app.speech.voices import Voice
from tests.support.wall_clock import WallClock

pytestmark = pytest.mark.anyio

WREN = Voice(id="wren", name="wren", model="standin")
ROOK = Voice(id="rook", name="rook", model="standin")
BROKEN = JobError(code="unknown_voice", message="chapter 1, segment 2: the voice was deleted")
OUTPUT = NarrationOutput(
    format=NarrationFormat.M4B,
    content_type="audio/mp4",
    key="narrations/x/audio-1.m4b",
    timeline_key="narrations/x/timeline-1.json",
    size_bytes=1,
    duration_s=60,
    sample_rate_hz=24_000,
    loudness_lufs=-19,
    true_peak_dbtp=-3,
)


@pytest.fixture
async def narration(catalog: Catalog) -> Narration:
    return await handed_in(catalog)


async def handed_in(catalog: Catalog, *, project: str = "default", key_id: str | None = None) -> Narration:
    return await catalog.seen_by(Tenant(project)).narrations.create(
        narration_id=new_narration_id(),
        voice="wren",
        cast={},
        voices={"wren": WREN},
        model="standin",
        format=NarrationFormat.M4B,
        options=NarrationOptions(loudness_lufs=-20),
        source=NarrationSource(kind=SourceKind.TEXT, file_name="a.txt", key="k", size_bytes=3),
        title="A book",
        webhook_url="https://example.org/hook",
        key_id=key_id,
    )


def chapter(number: int, **fields: object) -> ChapterProgress:
    return ChapterProgress(number=number, title=f"Chapter {number}", segments=3).model_copy(update=fields)


async def claimed(catalog: Catalog, narration: Narration) -> Step:
    step = await catalog.steps.claim(narration.id)
    assert step
    return step


async def planned(catalog: Catalog, narration: Narration, *, chapters: int = 2) -> None:
    plan = await claimed(catalog, narration)
    await catalog.steps.planned(
        plan,
        tuple(chapter(number) for number in range(1, chapters + 1)),
        script_key="script",
        title="A book",
        findings=(),
    )


async def rendered(catalog: Catalog, narration: Narration, *, chapters: int = 2) -> None:
    for _ in range(chapters):
        step = await claimed(catalog, narration)
        done = chapter(step.number, segments_done=3, audio_s=30.0, rendered_s=30.0, busy_s=6.0)
        await catalog.steps.finish_chapter(step, done, result_key=f"takes-{step.number}")


async def completed(catalog: Catalog, narration: Narration) -> Narration:
    await planned(catalog, narration)
    await rendered(catalog, narration)
    return await catalog.steps.complete(await claimed(catalog, narration), OUTPUT)


async def test_a_narration_is_planned_then_rendered_chapter_by_chapter_then_mastered(
    catalog: Catalog, narration: Narration
) -> None:
    assert narration.state is NarrationState.QUEUED
    plan = await claimed(catalog, narration)
    assert (plan.kind, plan.narration.state) == (StepKind.PLAN, NarrationState.PLANNING)
    assert await catalog.steps.claim(narration.id) is None
    await catalog.steps.planned(plan, (chapter(1), chapter(2)), script_key="script", title="A book", findings=())
    first, second = await claimed(catalog, narration), await claimed(catalog, narration)
    assert (first.number, second.number) == (1, 2)
    await catalog.steps.finish_chapter(second, chapter(2, segments_done=3), result_key="takes-2")
    assert await catalog.steps.claim(narration.id) is None  # the mastering waits for every chapter
    await catalog.steps.finish_chapter(first, chapter(1, segments_done=3), result_key="takes-1")
    mastering = await claimed(catalog, narration)
    assert (mastering.kind, mastering.narration.state) == (StepKind.MASTER, NarrationState.MASTERING)
    assert await catalog.steps.result_keys(narration.id) == ["takes-1", "takes-2"]
    ended = await catalog.steps.complete(mastering, OUTPUT)
    assert (ended.state, ended.output, ended.segments_done) == (NarrationState.COMPLETED, OUTPUT, 6)
    assert await catalog.steps.claim(narration.id) is None


async def test_options_that_were_not_given_are_still_the_defaults_when_read_back(narration: Narration) -> None:
    assert narration.options.model_fields_set == {"loudness_lufs"}
    assert narration.options.max_true_peak_dbtp == -3


async def test_steps_claimed_at_once_go_to_one_worker_each(catalog: Catalog, narration: Narration) -> None:
    await planned(catalog, narration, chapters=3)
    steps = await asyncio.gather(*(catalog.steps.claim(narration.id) for _ in range(5)))
    assert sorted(step.number for step in steps if step) == [1, 2, 3]


async def test_a_lapsed_claim_goes_to_the_next_worker_and_the_first_can_change_nothing(
    catalog: Catalog, narration: Narration, clock: WallClock
) -> None:
    lost = await claimed(catalog, narration)
    clock.advance(CLAIM_S + 1)
    assert await catalog.narrations.stalled(for_s=0) == [(narration.id, False)]
    taken = await claimed(catalog, narration)
    assert (taken.kind, taken.attempt) == (StepKind.PLAN, 2)
    with pytest.raises(JobLost):
        await catalog.steps.renew(lost)
    with pytest.raises(JobLost):
        await catalog.steps.planned(lost, (chapter(1),), script_key="s", title="", findings=())
    assert await catalog.steps.renew(taken) is False
    assert (await catalog.narrations.get(narration.id)).chapters == ()


async def test_a_step_given_back_waits_for_the_reconciler(
    catalog: Catalog, narration: Narration, clock: WallClock
) -> None:
    await catalog.steps.give_back(await claimed(catalog, narration))
    assert await catalog.narrations.stalled(for_s=10) == []
    clock.advance(11)
    assert await catalog.narrations.stalled(for_s=10) == [(narration.id, False)]


async def test_a_death_and_a_failure_stand_against_a_step_and_a_turn_that_ends_does_not(
    catalog: Catalog, narration: Narration, clock: WallClock
) -> None:
    await catalog.steps.give_back(await claimed(catalog, narration))
    await catalog.steps.give_back(await claimed(catalog, narration), failure=True)
    assert (await claimed(catalog, narration)).failures == 1
    clock.advance(CLAIM_S + 1)
    assert (await claimed(catalog, narration)).failures == 2


async def test_a_step_waiting_while_another_is_worked_on_is_told_from_one_that_nobody_will_come_to(
    catalog: Catalog, narration: Narration, clock: WallClock
) -> None:
    await planned(catalog, narration)
    clock.advance(11)
    step = await claimed(catalog, narration)
    assert await catalog.narrations.stalled(for_s=10) == [(narration.id, True)]
    await catalog.steps.give_back(step)
    assert await catalog.narrations.stalled(for_s=10) == [(narration.id, False)]


async def test_one_failed_chapter_leaves_the_others_to_be_rendered_and_then_fails_the_narration(
    catalog: Catalog, narration: Narration
) -> None:
    await planned(catalog, narration)
    first = await claimed(catalog, narration)
    going_on = await catalog.steps.finish_chapter(first, chapter(1, segments_done=1, error=BROKEN), result_key=None)
    assert not going_on.state.over
    second = await claimed(catalog, narration)
    failed = await catalog.steps.finish_chapter(second, chapter(2, segments_done=3), result_key="takes-2")
    assert (failed.state, failed.error) == (NarrationState.FAILED, BROKEN)
    assert [(c.finished, c.error) for c in failed.chapters] == [(False, BROKEN), (True, None)]


async def test_a_failed_narration_goes_on_with_the_chapter_that_failed(catalog: Catalog, narration: Narration) -> None:
    await planned(catalog, narration)
    for error in (BROKEN, None):
        step = await claimed(catalog, narration)
        await catalog.steps.finish_chapter(step, chapter(step.number, error=error), result_key=error and "takes")
    resumed = await catalog.narrations.resume(narration.id)
    assert (resumed.state, resumed.error, resumed.finished_at) == (NarrationState.QUEUED, None, None)
    assert [c.error for c in resumed.chapters] == [None, None]
    again = await claimed(catalog, narration)
    assert (again.number, again.failures) == (1, 0)
    await catalog.steps.finish_chapter(again, chapter(1, segments_done=3), result_key="takes-1")
    assert (await claimed(catalog, narration)).kind is StepKind.MASTER


async def test_other_voices_on_resuming_mean_that_every_chapter_is_looked_at_again(
    catalog: Catalog, narration: Narration
) -> None:
    await planned(catalog, narration)
    for error in (BROKEN, None):
        step = await claimed(catalog, narration)
        await catalog.steps.finish_chapter(step, chapter(step.number, error=error), result_key=None)
    resumed = await catalog.narrations.resume(narration.id, voice="rook", voices={"rook": ROOK})
    assert (resumed.voice, resumed.voices) == ("rook", {"rook": ROOK})
    assert [(await claimed(catalog, narration)).number for _ in range(2)] == [1, 2]


async def test_what_was_found_about_voices_and_the_file_is_replaced_and_the_rest_stays(
    catalog: Catalog, narration: Narration
) -> None:
    cut, uncast, quiet = (
        TextFinding(severity="check", code=code, message="…")
        for code in ("long_sentence", "uncast_character", "loudness_missed")
    )
    plan = await claimed(catalog, narration)
    await catalog.steps.planned(plan, (chapter(1),), script_key="s", title="", findings=(cut, uncast))
    await catalog.narrations.request_cancel(narration.id)
    resumed = await catalog.narrations.resume(narration.id, voice="rook", voices={"rook": ROOK})
    assert resumed.findings == (cut,)
    await rendered(catalog, narration, chapters=1)
    ended = await catalog.steps.complete(await claimed(catalog, narration), OUTPUT, findings=(quiet,))
    assert ended.findings == (cut, quiet)
    await catalog.narrations.regenerate(narration.id, {1: 1})
    await rendered(catalog, narration, chapters=1)
    assert (await catalog.steps.complete(await claimed(catalog, narration), OUTPUT)).findings == (cut,)


async def test_only_one_that_failed_or_was_cancelled_can_be_resumed(catalog: Catalog, narration: Narration) -> None:
    with pytest.raises(Conflict, match="is queued; this needs one that is failed or cancelled"):
        await catalog.narrations.resume(narration.id)


async def test_cancelling_while_nobody_works_ends_it_at_once_and_it_can_be_resumed(
    catalog: Catalog, narration: Narration
) -> None:
    await planned(catalog, narration)
    cancelled = await catalog.narrations.request_cancel(narration.id)
    assert cancelled.state is NarrationState.CANCELLED
    assert await catalog.steps.claim(narration.id) is None
    assert await catalog.narrations.request_cancel(narration.id) == cancelled
    await catalog.narrations.resume(narration.id)
    assert (await claimed(catalog, narration)).number == 1


async def test_one_that_is_completed_cannot_be_cancelled(catalog: Catalog, narration: Narration) -> None:
    await completed(catalog, narration)
    with pytest.raises(Conflict, match="over already: completed"):
        await catalog.narrations.request_cancel(narration.id)


async def test_a_worker_is_told_of_a_cancel_and_its_giving_back_ends_the_narration(
    catalog: Catalog, narration: Narration
) -> None:
    await planned(catalog, narration)
    first, second = await claimed(catalog, narration), await claimed(catalog, narration)
    assert not (await catalog.narrations.request_cancel(narration.id)).state.over
    assert await catalog.steps.renew(first)
    await catalog.steps.give_back(first)
    assert not (await catalog.narrations.get(narration.id)).state.over
    await catalog.steps.give_back(second)
    assert (await catalog.narrations.get(narration.id)).state is NarrationState.CANCELLED
    with pytest.raises(JobLost):
        await catalog.steps.report(second, chapter(2))


async def test_a_cancel_that_comes_during_the_mastering_wins(catalog: Catalog, narration: Narration) -> None:
    await planned(catalog, narration)
    await rendered(catalog, narration)
    mastering = await claimed(catalog, narration)
    await catalog.narrations.request_cancel(narration.id)
    ended = await catalog.steps.complete(mastering, OUTPUT)
    assert (ended.state, ended.output) == (NarrationState.CANCELLED, None)
    await catalog.narrations.resume(narration.id)
    assert (await claimed(catalog, narration)).kind is StepKind.MASTER


async def test_a_segment_read_again_opens_its_chapter_and_the_mastering_and_keeps_the_file(
    catalog: Catalog, narration: Narration
) -> None:
    await completed(catalog, narration)
    again = await catalog.narrations.regenerate(narration.id, {5: 2})
    assert (again.state, again.takes, again.output) == (NarrationState.QUEUED, {5: 1}, OUTPUT)
    step = await claimed(catalog, narration)
    assert step.number == 2
    assert await catalog.steps.claim(narration.id) is None
    await catalog.steps.finish_chapter(step, chapter(2, segments_done=3), result_key="takes-2-again")
    assert await catalog.steps.result_keys(narration.id) == ["takes-1", "takes-2-again"]
    assert (await claimed(catalog, narration)).kind is StepKind.MASTER


async def test_only_a_completed_narration_has_segments_to_read_again(catalog: Catalog, narration: Narration) -> None:
    with pytest.raises(Conflict, match="needs one that is completed"):
        await catalog.narrations.regenerate(narration.id, {1: 1})


async def test_segments_that_are_gone_send_the_mastering_back_to_the_chapters(
    catalog: Catalog, narration: Narration
) -> None:
    await planned(catalog, narration)
    await rendered(catalog, narration)
    await catalog.steps.render_again(await claimed(catalog, narration))
    assert [(await claimed(catalog, narration)).number for _ in range(2)] == [1, 2]


async def test_a_failed_plan_fails_the_narration_and_is_done_again_on_resuming(
    catalog: Catalog, narration: Narration
) -> None:
    failed = await catalog.steps.fail(await claimed(catalog, narration), BROKEN)
    assert (failed.state, failed.error) == (NarrationState.FAILED, BROKEN)
    await catalog.narrations.resume(narration.id)
    assert (await claimed(catalog, narration)).kind is StepKind.PLAN


async def test_one_that_is_over_can_be_deleted_and_one_that_is_not_cannot(
    catalog: Catalog, narration: Narration
) -> None:
    with pytest.raises(Conflict, match="cancel it first"):
        await catalog.narrations.delete(narration.id)
    await completed(catalog, narration)
    await catalog.narrations.delete(narration.id)
    with pytest.raises(NotFound):
        await catalog.narrations.get(narration.id)
    assert await catalog.narrations.all() == []


async def test_whoever_held_a_step_before_it_was_opened_anew_has_lost_it(
    catalog: Catalog, narration: Narration, clock: WallClock
) -> None:
    await planned(catalog, narration, chapters=1)
    asleep = await claimed(catalog, narration)
    clock.advance(CLAIM_S + 1)
    await catalog.narrations.request_cancel(narration.id)
    await catalog.narrations.resume(narration.id, voice="rook", voices={"rook": ROOK})
    with pytest.raises(JobLost):
        await catalog.steps.finish_chapter(asleep, chapter(1), result_key="old")


async def test_a_segment_can_be_read_again_as_often_as_somebody_likes(catalog: Catalog, narration: Narration) -> None:
    await completed(catalog, narration)
    for _ in range(30):
        await catalog.narrations.regenerate(narration.id, {1: 1})
        await rendered(catalog, narration, chapters=1)
        mastering = await claimed(catalog, narration)
        assert mastering.failures == 0
        await catalog.steps.complete(mastering, OUTPUT)
    assert (await catalog.narrations.get(narration.id)).takes == {1: 30}


async def test_an_end_that_was_told_too_late_leaves_the_next_to_be_told(
    catalog: Catalog, narration: Narration, clock: WallClock
) -> None:
    first = await completed(catalog, narration)
    assert await catalog.narrations.to_announce(narration.id) == first
    await catalog.narrations.regenerate(narration.id, {1: 1})
    assert await catalog.narrations.to_announce(narration.id) is None
    await rendered(catalog, narration, chapters=1)
    second = await catalog.steps.complete(await claimed(catalog, narration), OUTPUT)
    await catalog.narrations.announced(first)
    assert await catalog.narrations.to_announce(narration.id) == second
    await catalog.narrations.announced(second)
    assert await catalog.narrations.to_announce(narration.id) is None


async def test_its_end_is_announced_once_and_again_after_it_ended_again(
    catalog: Catalog, narration: Narration, clock: WallClock
) -> None:
    assert await catalog.narrations.unannounced(since=clock()) == []
    await completed(catalog, narration)
    assert await catalog.narrations.unannounced(since=clock()) == [(narration.id, clock())]
    await catalog.narrations.announced(await catalog.narrations.get(narration.id))
    assert await catalog.narrations.unannounced(since=clock()) == []
    await catalog.narrations.regenerate(narration.id, {1: 1})
    await rendered(catalog, narration, chapters=1)
    await catalog.steps.complete(await claimed(catalog, narration), OUTPUT)
    assert await catalog.narrations.unannounced(since=clock()) == [(narration.id, clock())]


async def test_every_change_grows_the_revision(catalog: Catalog, narration: Narration) -> None:
    revisions = [narration.revision]

    async def note() -> None:
        revisions.append((await catalog.narrations.get(narration.id)).revision)

    await planned(catalog, narration)
    await note()
    step = await claimed(catalog, narration)
    await note()
    await catalog.steps.report(step, chapter(1, segments_done=1))
    await note()
    await catalog.steps.finish_chapter(step, chapter(1, segments_done=3), result_key="k")
    await note()
    assert revisions == sorted(set(revisions))
    assert (await catalog.narrations.all())[0].chapters[0].segments_done == 3


async def test_ten_narrations_of_one_project_make_anothers_wait_for_a_step_only(
    catalog: Catalog, clock: WallClock
) -> None:
    theirs = {(await handed_in(catalog, project="many")).id for _ in range(10)}
    mine = await handed_in(catalog, project="one")
    order: list[str] = []
    for _ in range(4):
        clock.advance(1)
        step = await catalog.steps.claim_next()
        assert step
        order.append("mine" if step.narration.id == mine.id else "theirs")
        if step.kind is StepKind.PLAN:
            await catalog.steps.planned(step, (chapter(1),), script_key="script", title="", findings=())
        else:
            await catalog.steps.finish_chapter(step, chapter(1, segments_done=3), result_key="takes")
    assert order.count("mine") == 2
    assert len(theirs) == 10


async def test_keys_of_one_project_have_their_turns_too(catalog: Catalog) -> None:
    for _ in range(3):
        await handed_in(catalog, key_id="k1")
    second = await handed_in(catalog, key_id="k2")
    steps = [await catalog.steps.claim_next() for _ in range(2)]
    assert second.id in {step.narration.id for step in steps if step}


async def test_a_step_that_cannot_be_done_yet_is_nobodys_turn(catalog: Catalog, narration: Narration) -> None:
    await planned(catalog, narration, chapters=1)
    assert await catalog.steps.claim_next()
    assert await catalog.steps.claim_next() is None, "the mastering waits for the chapter"
