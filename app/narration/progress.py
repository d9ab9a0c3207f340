"""Progress, remaining time and cost of a narration, from its figures alone."""

from __future__ import annotations

from app.narration.models import Narration, NarrationState


def doing(narration: Narration) -> str:
    """The state of a narration, for error messages."""
    far = f", {narration.segments_done} of {narration.segments} segments are spoken" if narration.segments else ""
    why = f" ({narration.error.message})" if narration.error else ""
    return f"narration {narration.id} is {narration.state.value}{why}{far}"


def waits_for(narration: Narration, *, workers: int) -> str | None:
    """What keeps a narration from going on, as far as can be told from here; None: nothing, or it is over."""
    match narration.state:
        case NarrationState.QUEUED if narration.ahead:
            others = "narration" if narration.ahead == 1 else "narrations"
            return f"{narration.ahead} {others} before it"
        case NarrationState.QUEUED:
            return "a tasks process (`carillon tasks`) to take it up"
        case NarrationState.RENDERING if not workers:
            return "a worker that serves its model"
        case NarrationState.RENDERING if not narration.segments_done:
            return "a spare place at a worker: live sessions go first"
        case _:
            return None


def eta_s(narration: Narration, *, lanes: int) -> float | None:
    """Seconds until all is spoken, as it has gone so far; None before anything was spoken, and when it is over.

    The audio to come, from the mean of the segments so far, times the real-time factor, over the chapters that are
    spoken at a time: at most `lanes`.
    """
    if narration.state.over or narration.real_time_factor is None or not narration.segments_done:
        return None
    left = narration.segments - narration.segments_done
    audio_s = left * narration.audio_s / narration.segments_done
    unfinished = sum(not chapter.finished for chapter in narration.chapters)
    return audio_s * narration.real_time_factor / max(1, min(lanes, unfinished))


def cost_usd(narration: Narration, *, worker_usd_per_hour: float | None, places: float | None) -> float | None:
    """Its share of the workers' price: hours that places were taken, times a worker's price an hour, over its places.

    None where no price is set, or the places are unknown.
    """
    if worker_usd_per_hour is None or places is None:
        return None
    return narration.busy_s / 3600 * worker_usd_per_hour / places
