"""`carillon bench …` and `carillon simulate`: what is measured, and what is reckoned."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli.options import AsJson, Key, Url
from app.cli.target import running_fleet, voices_of
from app.speech.choices import NarrationFormat

if TYPE_CHECKING:
    from app.bench.figures import Target

JsonPath = Annotated[Path | None, typer.Option("--json", help="Write everything measured to this file.")]
Voices = Annotated[list[str] | None, typer.Option(help="Repeat for more; default: every voice there is.")]

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measurements.")


def _progress(text: str) -> None:
    typer.echo(f"bench: {text} …", err=True)


def _write(report: Any, path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


@bench.command("decode")
def bench_decode(
    device: Annotated[Literal["cpu", "cuda"], typer.Option()] = "cpu",
    repetitions: Annotated[int, typer.Option(min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Our decoder beside the sliding window of the published servers: cost and error, for two codecs."""
    from app.platform.model_files import locate
    from app.platform.settings import load_settings
    from workers.bench.decode import run
    from workers.bench.random_codec import random_codec

    codec = locate(load_settings().codec, variable="CARILLON_CODEC")
    codecs = {"configured": codec, "random 24 kHz": random_codec()}
    report = run(codecs, device=device, repetitions=repetitions, progress=_progress)
    typer.echo(report.to_json() if as_json else report.table())


@bench.command("text")
def bench_text(
    cases: Annotated[Path | None, typer.Option(help="Lines of JSON; default: those that are shipped.")] = None,
    grammars: Annotated[bool, typer.Option(help="Beside the grammars of other languages' books.")] = True,
    as_json: AsJson = False,
) -> None:
    """How text is read: the share of cases that is right, and milliseconds a case."""
    from app.bench import text

    scores = text.run(cases, grammars=grammars)
    typer.echo(text.as_json(scores) if as_json else text.table(scores))


@bench.command("start")
def bench_start(
    beside: Annotated[
        list[Path] | None, typer.Option(help="Another checkout, with its environment made; repeat for more.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Starts of each, in turn.")] = 3,
    first: Annotated[bool, typer.Option("--first", help="The first start after an installation, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """CPU seconds of every process until a fleet is ready, and for a second of its speech; medians, side by side."""
    from app.bench import start

    here = Path(start.__file__).resolve().parents[2]
    checkouts = start.run([*(beside or ()), here], rounds=rounds, first=first, progress=_progress)
    typer.echo(start.as_json(checkouts) if as_json else start.table(checkouts))


@bench.command("worker")
def bench_worker(
    *,
    sessions: Annotated[str, typer.Option(help="Sessions at once, one level after another.")] = "50,100,200,400",
    beside: Annotated[
        list[Path] | None, typer.Option(help="Another checkout that runs in this environment; repeat for more.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each at each level, in turn.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement, once all sessions speak.")] = 5.0,
    pace: Annotated[float, typer.Option(min=0.1, help="Of the scripted engine; below 1 every listener waits.")] = 1.2,
    as_json: AsJson = False,
) -> None:
    """What a session costs a worker's own process: a scripted engine and codec, everything else real; side by side."""
    from app.bench import worker

    here = Path(worker.__file__).resolve().parents[2]
    sides = worker.run(
        [*(beside or ()), here],
        sessions=_levels(sessions),
        rounds=rounds,
        seconds=seconds,
        pace=pace,
        progress=_progress,
    )
    typer.echo(worker.as_json(sides) if as_json else worker.table(sides))


@bench.command("gpu")
def bench_gpu(
    *,
    random: Annotated[bool, typer.Option("--random", help="Random weights of Orpheus's shape; no hub needed.")] = False,
    model: Annotated[str | None, typer.Option(help="A language model: a directory or a hub id.")] = None,
    codec: Annotated[str | None, typer.Option(help="Its codec: a directory or a hub id.")] = None,
    device: Annotated[Literal["cuda", "cpu"], typer.Option()] = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="Tiny sizes: whether the command works, and no figure.")] = False,
    budget: Annotated[
        float | None, typer.Option("--budget-s", min=10, help="Seconds for all; default: until all is measured.")
    ] = None,
    price: Annotated[float, typer.Option(min=0, help="$ for an hour of this card.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Directory of results, tables and plots; what it has is kept.")] = Path(
        "bench-gpu"
    ),
    as_json: AsJson = False,
) -> None:
    """What one card carries: streams and $ for an hour of audio; engine, decoder and training.

    The most wanted comes first, each result is kept at once, and the same command goes on where it ended.
    """
    from app.bench.gpu.run import Request, run
    from app.platform.model_files import locate

    if random == bool(model) or bool(model) != bool(codec):
        raise typer.BadParameter("give --random, or --model and --codec", param_hint="--random")
    results, tables = run(
        Request(
            out=out,
            device=device,
            model_dir=locate(model, variable="CARILLON_MODEL") if model else None,
            codec_dir=locate(codec, variable="CARILLON_CODEC") if codec else None,
            tiny=tiny,
            budget_s=budget,
            price=price,
        ),
        progress=_progress,
    )
    typer.echo(results.as_json() if as_json else tables)


@bench.command("speech")
def bench_speech(
    *,
    concurrency: Annotated[str, typer.Option(help="Sessions at once, one level after another.")] = "1,2,4",
    sessions: Annotated[int, typer.Option(min=1, help="Sessions at each level.")] = 8,
    voice: Voices = None,
    model: Annotated[str | None, typer.Option()] = None,
    realtime: Annotated[bool, typer.Option(help="Paced for a listener, not as fast as the fleet can.")] = False,
    json_path: JsonPath = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Sessions end to end at a running fleet: time to first audio, real-time factor, underruns, cancels."""
    from app.bench.sessions import run

    url, key = running_fleet(url, key)
    report = run(
        url=url,
        key=key,
        voices=voice or voices_of([url], key),
        concurrency=_levels(concurrency),
        sessions=sessions,
        model=model,
        pace="realtime" if realtime else "unpaced",
        out=sys.stdout,
    )
    _write(report, json_path)


@bench.command("voice")
def bench_voice(
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Directories of WAV or FLAC, each with its words in a .txt beside it.")
    ] = None,
    *,
    voice: Annotated[list[str] | None, typer.Option(help="Of a running fleet; repeat for more.")] = None,
    sentences: Annotated[int, typer.Option(min=1, help="That each voice of the fleet speaks.")] = 20,
    json_path: JsonPath = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """How well voices are understood: word error rates by two recognisers, DNSMOS, head silence.

    Of the directories given and the voices named; of every voice of the fleet where neither is.
    """
    from app.bench.voice import recorded, run, spoken
    from app.client.http import ApiClient
    from training.gate import bundled_prompts

    rows = {path.name or str(path): list(recorded(path)) for path in recordings or ()}
    if voice or not rows:
        url, key = running_fleet(url, key)
        with ApiClient(url, key) as client:
            for name in voice or voices_of([url], key):
                rows[name] = list(spoken(client, name, bundled_prompts()[:sentences]))
    _write([asdict(figures) for figures in run(rows, out=sys.stdout)], json_path)


@bench.command("narration")
def bench_narration(
    *,
    concurrency: Annotated[int, typer.Option(min=1, help="Live sessions at once.")] = 1,
    sessions: Annotated[int, typer.Option(min=1, help="Live sessions in each half of a round.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Each: sessions alone, then beside a narration.")] = 3,
    voice: Voices = None,
    model: Annotated[str | None, typer.Option()] = None,
    unpaced: Annotated[bool, typer.Option(help="As fast as the fleet can, not paced for a listener.")] = False,
    json_path: JsonPath = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """What a narration costs the live sessions beside it: time to first audio and underruns, without it and with it."""
    from app.bench.narration import run

    url, key = running_fleet(url, key)
    report = run(
        url=url,
        key=key,
        voices=voice or voices_of([url], key),
        concurrency=concurrency,
        sessions=sessions,
        rounds=rounds,
        model=model,
        pace="unpaced" if unpaced else "realtime",
        out=sys.stdout,
    )
    _write(report, json_path)


@bench.command("tenants")
def bench_tenants(
    *,
    way: Annotated[list[str] | None, typer.Option(help="Of flooding; repeat for more; default: every one.")] = None,
    sessions: Annotated[int, typer.Option(min=1, help="In each half of a round, one after the other.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Each: alone, then beside the flood.")] = 3,
    voice: Annotated[str | None, typer.Option(help="Default: the first one.")] = None,
    unlimited: Annotated[bool, typer.Option(help="The flooding project may take every place.")] = False,
    replay: Annotated[
        bool, typer.Option(help="At a fleet of its own, whose workers replay: the front door's share.")
    ] = False,
    unpaced: Annotated[bool, typer.Option(help="As fast as the fleet can, not paced for a listener.")] = False,
    json_path: JsonPath = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Two projects, one of which floods: what the other's P95 of first audio comes to, alone and beside each flood.

    At a running fleet it needs a key with the scope admin.
    """
    from app.bench import tenants
    from app.bench.floods import WAYS

    def measure(url: str, key: str | None, voices: Sequence[str]) -> None:
        report = tenants.run(
            url=url,
            key=key,
            voice=voice or voices[0],
            ways=way or list(WAYS),
            sessions=sessions,
            rounds=rounds,
            limits={} if unlimited else None,
            pace="unpaced" if unpaced else "realtime",
            progress=_progress,
            out=sys.stdout,
        )
        _write(report, json_path)

    if replay:
        tenants.at_a_replaying_fleet(measure)
    else:
        url, key = running_fleet(url, key)
        measure(url, key, voices_of([url], key))


@bench.command("talk")
def bench_talk(
    *,
    turns: Annotated[int, typer.Option(min=1, help="Questions, one after the other.")] = 20,
    voice: Annotated[str | None, typer.Option(help="The voice that answers; default: the first one.")] = None,
    json_path: JsonPath = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Spoken questions at a fleet's /talk: from the end of speech to the first sound of the answer, step by step."""
    from app.bench.talk import run

    url, key = running_fleet(url, key)
    _write(run(url=url, key=key, voice=voice, turns=turns, out=sys.stdout), json_path)


@bench.command("mastering")
def bench_mastering(
    hours: Annotated[float, typer.Option(min=0.01, max=24, help="Of audio.")] = 2.0,
    format: Annotated[NarrationFormat, typer.Option()] = NarrationFormat.M4B,
) -> None:
    """Joining and mastering a long book of synthetic segments: CPU, peak memory, what the file came to."""
    from app.bench.mastering import run

    with tempfile.TemporaryDirectory() as directory:
        typer.echo(run(hours=hours, format=format, directory=Path(directory)))


@bench.command("fleet")
def bench_fleet(
    *,
    sessions: Annotated[
        str, typer.Option(help="Sessions at once, one level after another; none measures starts only.")
    ] = "200,400,600,800,1000",
    starts: Annotated[str, typer.Option(help="Starts per second, one rate after another; none leaves them out.")] = (
        "100,200,300,400,500,600"
    ),
    seconds: Annotated[float, typer.Option(min=0.5, help="Measured at each level, after it has settled.")] = 5.0,
    settle: Annotated[float, typer.Option(min=0.0)] = 3.0,
    length: Annotated[float, typer.Option(min=1.0, help="Mean length of a session in seconds.")] = 60.0,
    workers: Annotated[int, typer.Option(min=1, help="That replay audio.")] = 4,
    frames: Annotated[int, typer.Option(min=1, help="In one message of a worker that is ahead of its listener.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    real: Annotated[bool, typer.Option(help="Load the fleet of `carillon up` here, within its capacity.")] = False,
    json_path: JsonPath = None,
) -> None:
    """The front door alone: live sessions per core, what it adds to a frame's way, starts, memory, placement."""
    from app.bench.figures import Plan
    from app.bench.front_door import run

    plan = Plan(
        sessions=tuple(_levels(sessions, "--sessions")) if sessions else (),
        starts_per_s=tuple(_levels(starts, "--starts")) if starts else (),
        seconds=seconds,
        settle_s=settle,
        length_s=length,
        seed=seed,
    )
    report = run(
        plan=plan,
        workers=workers,
        frames_per_message=frames,
        running=_running_target() if real else None,
        out=sys.stdout,
    )
    _write(report, json_path)


@bench.command("registry")
def bench_registry(
    *,
    workers: Annotated[str, typer.Option(help="Fleets, one after another.")] = "10,100,300,1000",
    session: Annotated[float, typer.Option(min=2, help="Mean length of a session in seconds.")] = 240.0,
    json_path: JsonPath = None,
) -> None:
    """What a fleet costs its Redis and each front door: heartbeats, claims, looks at the fleet."""
    from app.bench.registry import run

    costs = run(workers=_levels(workers, "--workers"), session_s=session, out=sys.stdout)
    _write([asdict(cost) for cost in costs], json_path)


def _running_target() -> Target:
    """The fleet of `carillon up` here."""
    from app.bench.figures import Target
    from app.platform.data_dir import read_run_file
    from app.platform.settings import load_settings

    url, key = running_fleet(None, None)
    running = read_run_file(load_settings().data_dir) or {}
    return Target(
        url=url,
        key=key,
        voices=tuple(voices_of([url], key)),
        front_door_pid=running.get("programs", {}).get("api", {}).get("pid"),
    )


def _levels(text: str, option: str = "--concurrency") -> list[int]:
    levels = text.split(",")
    if not all(level.strip().isdecimal() and int(level) > 0 for level in levels):
        raise typer.BadParameter(f"{text!r} is no list of counts; it looks like 1,2,4", param_hint=option)
    return [int(level) for level in levels]


def simulate(
    *,
    workers: Annotated[int, typer.Option(min=4)] = 100,
    voices: Annotated[int, typer.Option(min=1, help="Each with an adapter of 100 to 200 MB.")] = 10_000,
    hours: Annotated[float, typer.Option(min=0.01, max=24, help="Of traffic, after ten minutes of warm-up.")] = 1.0,
    load: Annotated[float, typer.Option(min=0.01, max=2, help="Sessions wanted at once, of all places.")] = 0.7,
    capacity: Annotated[int, typer.Option(min=1, help="Sessions a worker speaks with at once.")] = 16,
    slots: Annotated[int, typer.Option(min=1, help="Distinct voices it speaks with at once.")] = 12,
    cached: Annotated[int, typer.Option(min=1, help="Adapters it keeps at hand.")] = 64,
    bandwidth: Annotated[float, typer.Option(min=1, help="MB/s at which it takes adapters.")] = 250.0,
    zipf: Annotated[float, typer.Option(min=0, help="How unequally voices are wanted; 0: equally.")] = 1.0,
    pattern: Annotated[
        Literal["steady", "diurnal", "flash-crowd", "bursts"], typer.Option(help="Of the pace of starts.")
    ] = "steady",
    storm: Annotated[float, typer.Option(min=0, help="What a voice unheard of adds to the starts for a while.")] = 0.1,
    session: Annotated[float, typer.Option(min=2, help="Mean length of a session in seconds.")] = 240.0,
    churn: Annotated[int, typer.Option(min=0, max=100, help="Workers lost, and as many that join.")] = 2,
    doors: Annotated[int, typer.Option(min=1, help="Front doors, each with a view of its own.")] = 4,
    refresh: Annotated[float, typer.Option(min=0, help="Seconds between a door's looks at the fleet.")] = 0.5,
    queue: Annotated[float, typer.Option(min=0, help="Seconds a start waits for room.")] = 1.0,
    policy: Annotated[list[str] | None, typer.Option(help="Repeat for more; default: ours and its peers.")] = None,
    price: Annotated[float, typer.Option(min=0, help="$ for an hour of one GPU.")] = 1.0,
    size: Annotated[bool, typer.Option(help="Find how many GPUs each policy needs to refuse at most 1 %.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same table.")] = 0,
    scale: Annotated[
        bool, typer.Option("--scale", help="Compare fleets instead: fixed, and scaled by CPU and by places.")
    ] = False,
    notice: Annotated[
        float, typer.Option(min=0, help="Seconds before a loss that it is said, as of spot machines.")
    ] = 0,
    jobs: Annotated[int | None, typer.Option(min=1, help="Policies at a time; default: one for each core.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write everything to this file.")] = None,
    plot_path: Annotated[Path | None, typer.Option("--plot", help="Draw it to this SVG.")] = None,
) -> None:
    """Our placement of sessions beside that of others, on one trace of traffic in virtual time."""
    from app.simulation.fleet import FleetShape
    from app.simulation.policies import POLICIES
    from app.simulation.report import simulate as run
    from app.simulation.simulation import FrontDoors
    from app.simulation.traffic import Traffic

    unknown = [name for name in policy or () if name not in POLICIES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of: {', '.join(POLICIES)}", param_hint="--policy")
    if scale and (policy or size or json_path or plot_path):
        raise typer.BadParameter(
            "fleets are placed our way: without --policy, --size, --json, --plot", param_hint="--scale"
        )
    if notice and not scale:
        raise typer.BadParameter("it goes with --scale", param_hint="--notice")
    shape = FleetShape(
        workers=workers,
        capacity=capacity,
        max_voices=slots,
        cached_adapters=cached,
        bandwidth_bytes_per_s=bandwidth * 1e6,
    )
    traffic = Traffic(
        seed=seed,
        duration_s=hours * 3600,
        concurrent=load * workers * capacity,
        mean_session_s=session,
        voices=voices,
        zipf=zipf,
        pattern=pattern,
        storm=storm,
        joins=churn,
        losses=min(churn, workers - 1),
    )
    front_doors = FrontDoors(count=doors, refresh_s=refresh, queue_s=queue)
    if scale:
        from app.simulation.scaled import compare

        compare(traffic, shape, front_doors, gpu_hour=price, notice_s=notice, out=sys.stdout)
        return
    run(
        traffic,
        shape,
        front_doors,
        policies=[name for name in POLICIES if not policy or name in policy],
        gpu_hour=price,
        find_size=size,
        json_path=json_path,
        plot_path=plot_path,
        jobs=jobs or os.cpu_count() or 1,
        out=sys.stdout,
    )
