"""Clone and polish jobs: recordings in, a published voice out, however often a process dies on the way.

    preparing   samples (or renderings of a built-in voice) -> clips and tokens
    training    tokens -> the best adapter
    gating      the adapter, uploaded under the attempt's key, speaks unseen prompts through the fleet's workers
    publishing  the voice points to it, in the same transaction that ends the job

Each finished step lies in the object store, and the next attempt goes on from there. The row is claimed with an attempt
number and the claim renewed while work goes on; whoever has lost it stops. What a step does is not known here: it is a
process of `training`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.catalog import Catalog
from app.errors import (
    CarillonError,
    ConfigurationError,
    GateFailed,
    JobLost,
    NotFound,
    ObjectMissing,
    RecordingUnfit,
    StageFailed,
    StoreUnavailable,
    TrainingFailed,
)
from app.platform.jobs import Cancelled, JobError, may_pass, patiently, under_claim, unforeseen
from app.platform.model_files import locate
from app.platform.object_store import ObjectStore, persistently
from app.platform.settings import Settings
from app.speech.recipe import TrainConfig
from app.speech.token_layout import read_layout
from app.speech.voices import AdapterVersion, Voice
from app.voices.models import (
    CloneJob,
    CloneKind,
    CloneState,
    DataReport,
    GateReport,
    RunConfig,
    TrainProgress,
    VoiceRecord,
)
from tasks.archive import JobArchive
from tasks.stage import Event, run_stage, with_memory

TOLD_EVERY_S = 1.0

log = logging.getLogger(__name__)


async def work_on(settings: Settings, job_id: str) -> CloneJob | None:
    """Claim the job and bring it to its end; None when it is another's, or another shall go on with it."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    store = ObjectStore(settings.store)
    try:
        job = await patiently(lambda: catalog.jobs.claim(job_id))
        if job is None:
            log.info("job not taken", extra={"job": job_id})
            return None
        log.info("job taken", extra={"job": job_id, "attempt": job.attempt})
        return await JobRun(settings, catalog, store, job).to_the_end()
    finally:
        store.close()
        await catalog.aclose()


class JobRun:
    """One attempt at one job."""

    def __init__(self, settings: Settings, catalog: Catalog, store: ObjectStore, job: CloneJob) -> None:
        self._settings = settings
        self._catalog = catalog
        self._store = store
        self._job = job
        self._archive = JobArchive(store, job)
        self._directory = settings.data_dir / "jobs" / f"{job.id}-{job.attempt}"

    async def to_the_end(self) -> CloneJob | None:
        """Do what is left to do. Returns the job when it is over, None when another attempt goes on with it."""
        try:
            return await self._ended()
        except JobLost:
            log.warning("job lost", extra={"job": self._job.id, "attempt": self._job.attempt})
            return None
        finally:
            await asyncio.to_thread(shutil.rmtree, self._directory, ignore_errors=True)

    async def _ended(self) -> CloneJob | None:
        """The attempt's end, whatever it met. Raises JobLost."""
        try:
            if self._job.attempt > self._settings.cloning.max_attempts:
                raise TrainingFailed(f"{self._job.attempt - 1} workers died over this job; see their logs")
            return await self._complete(await under_claim(lambda: self._catalog.jobs.renew(self._job), self._work()))
        except JobLost:
            raise
        except Cancelled:
            return await self._finish(CloneState.CANCELLED)
        except asyncio.CancelledError:
            # This process is told to end: the next one shall not wait for the claim to lapse.
            await asyncio.shield(self._hand_over())
            raise
        except CarillonError as error:
            return await self._failed(error)
        except OSError as error:
            return await self._failed(StageFailed(f"this machine cannot go on with the job: {error}"))
        except Exception as error:
            log.exception("job broke", extra={"job": self._job.id, "attempt": self._job.attempt})
            return await self._failed(unforeseen(error, "job"))

    async def _failed(self, error: CarillonError) -> CloneJob | None:
        """End the job, or leave it to the next attempt if the failure may pass and there is one. Raises JobLost."""
        facts = {"job": self._job.id, "attempt": self._job.attempt, "code": error.code}
        if await patiently(lambda: self._catalog.jobs.renew(self._job)):
            return await self._finish(CloneState.CANCELLED)  # what failed may be what was deleted
        if not may_pass(error) or self._job.attempt >= self._settings.cloning.max_attempts:
            log.warning("job failed", extra=facts, exc_info=error)
            return await self._finish(CloneState.FAILED, JobError.of(error))
        log.warning("job given back", extra=facts, exc_info=error)
        await self._hand_over()
        return None

    async def _hand_over(self) -> None:
        """Keep the newest checkpoint, and leave the job to whoever comes next."""
        with suppress(StoreUnavailable, FileNotFoundError):
            if newest := max((self._directory / "checkpoints").glob("checkpoint-*"), default=None):
                await self._archive.save(newest.name, newest)
        with suppress(JobLost):
            await patiently(lambda: self._catalog.jobs.give_back(self._job))

    async def _finish(self, state: CloneState, error: JobError | None = None) -> CloneJob:
        await self._tidy_up(state)
        ended = await patiently(lambda: self._catalog.jobs.finish(self._job, state, error=error))
        log.info("job over", extra={"job": self._job.id, "state": ended.state.value})
        return ended

    async def _complete(self, version: int) -> CloneJob | None:
        try:
            ended = await patiently(lambda: self._catalog.jobs.complete(self._job, version))
        except NotFound:  # the voice was deleted at this moment
            return await self._finish(CloneState.CANCELLED)
        await self._tidy_up(ended.state)
        log.info("job over", extra={"job": self._job.id, "state": ended.state.value, "version": ended.version})
        return ended

    async def _tidy_up(self, state: CloneState) -> None:
        """Nothing of an ended job stays in the store but its adapter: in force, or failed and to be looked into."""
        kept = None if state is CloneState.CANCELLED else f"{self._archive.attempt_prefix}adapter/"
        try:
            await self._archive.clear(kept=kept)
        except Exception as error:  # no reason for a job not to end: the janitor comes by
            log.warning("job's files left", extra={"job": self._job.id}, exc_info=error)

    # The steps.

    async def _work(self) -> int:
        """All steps; returns the version to publish."""
        await asyncio.to_thread(_sweep, self._directory, await self._living_attempts())
        self._directory.mkdir(parents=True)
        record = await self._catalog.voices.get(self._job.voice_id)
        run = await asyncio.to_thread(self._run_config, record)  # a model may have to be fetched from its hub
        report = await self._prepare(run)
        await self._train(run)
        adapter = await self._upload(run)
        voice = Voice(
            id=record.id,
            name=record.name,
            model=record.model,
            language=record.language,
            adapter=adapter,
            trained_as=record.prompt_name,
        )
        await self._pass_gate(run.model_copy(update={"voice": voice, "seconds_per_char": report.seconds_per_char}))
        await self._tell(state=CloneState.PUBLISHING)
        return adapter.version

    async def _living_attempts(self) -> set[str]:
        """The directories of attempts that may be going on; others are what killed processes left."""
        directories = [path.name for path in self._directory.parent.glob("job-*")]
        living = set()
        for name in directories:
            job_id, _, attempt = name.rpartition("-")
            with suppress(NotFound):
                job = await self._catalog.jobs.get(job_id)
                if not job.state.over and str(job.attempt) == attempt:
                    living.add(name)
        return living

    def _run_config(self, record: VoiceRecord) -> RunConfig:
        """What the stages are told. Raises ConfigurationError when this process holds another model."""
        settings, config = self._settings, self._job.config
        model_dir = locate(settings.model, variable="CARILLON_MODEL")
        codec_dir = locate(settings.codec, variable="CARILLON_CODEC")
        speech = read_layout(model_dir, codec_dir, settings.speech).speech
        if speech.name != record.model:
            raise ConfigurationError(
                f"the voice {record.name!r} is of the model {record.model!r}, and this machine trains {speech.name!r}; "
                "run `carillon tasks --queue train` with CARILLON_MODEL and CARILLON_CODEC of that model"
            )
        return RunConfig(
            kind=self._job.kind,
            prompt_name=record.prompt_name,
            language=record.language,
            model_dir=model_dir.absolute(),
            codec_dir=codec_dir.absolute(),
            speech=speech,
            base_voices=tuple(
                Voice(id=name, name=name, model=speech.name, language=speech.languages[0]) for name in speech.voices
            ),
            reference="clips",
            device=settings.device,
            threads=settings.cloning.trainer_threads,
            prepare=config.prepare,
            train=TrainConfig.model_validate({**speech.recipe, **config.train.model_dump(exclude_unset=True)}),
            gate=config.gate,
            adapter_prefix=f"{self._archive.attempt_prefix}adapter",
        )

    async def _prepare(self, run: RunConfig) -> DataReport:
        """Clips, tokens and the report in the run's directory, made or fetched."""
        if await self._archive.restore("prepared", self._directory) is None:
            await self._tell(state=CloneState.PREPARING)
            if self._job.kind is CloneKind.POLISH:
                own = next(voice for voice in run.base_voices if voice.name == run.prompt_name)
                await self._stage("renderings", run.model_copy(update={"voice": own}))
            else:
                await self._fetch_samples()
            await self._stage("prepare", run)
            await asyncio.to_thread(shutil.rmtree, self._directory / "samples")
            await self._archive.save("prepared", self._directory)
        report = _report(self._directory)
        await self._tell(report=report)
        if report.shortfall:
            raise RecordingUnfit(report.shortfall)
        return report

    async def _fetch_samples(self) -> None:
        """The voice's recordings in `samples/`, and what is known of them in `samples.json`."""
        directory = self._directory / "samples"
        directory.mkdir()
        listed = []
        for sample in await self._catalog.voices.samples(self._job.voice_id):
            folder, _, name = sample.object_key.rpartition("/")
            path = directory / name
            try:
                await persistently(lambda f=folder, n=name, p=path: self._store.fetch(self._store.uri(f), n, p))
            except ObjectMissing:  # deleted since it was listed
                continue
            listed.append({"file_name": sample.file_name, "path": f"samples/{name}", "transcript": sample.transcript})
        (self._directory / "samples.json").write_text(json.dumps(listed), encoding="utf-8")

    async def _train(self, run: RunConfig) -> None:
        """The best adapter in `adapter/`, trained on from the newest checkpoint, or fetched."""
        if await self._archive.restore("trained", self._directory / "adapter"):
            return
        await self._tell(state=CloneState.TRAINING)
        checkpoints = self._directory / "checkpoints"
        resumed = await self._archive.restore(r"checkpoint-\d+", self._directory / "restored")
        if resumed:
            checkpoints.mkdir()
            (self._directory / "restored").rename(checkpoints / resumed)
            log.info("training resumed", extra={"job": self._job.id, "checkpoint": resumed})
        await with_memory(lambda: self._stage("lora", run))
        await self._archive.save("trained", self._directory / "adapter")
        await self._archive.forget(r"checkpoint-\d+", but="")

    async def _upload(self, run: RunConfig) -> AdapterVersion:
        """The adapter under this attempt's key, as a version that is not yet in force."""
        published = await self._stage("publish", run)
        return await self._catalog.voices.add_version(
            self._job.voice_id, uri=published["uri"], sha256=published["sha256"], rank=published["rank"]
        )

    async def _pass_gate(self, run: RunConfig) -> None:
        await self._tell(state=CloneState.GATING)
        report = GateReport.model_validate((await self._stage("gate", run))["report"])
        await self._tell(gate=report)
        if not report.passed:
            wrong = "; ".join(
                f"{figure.name} is {figure.measured:g}, wanted {figure.limit}"
                for figure in report.failures
                if figure.measured is not None
            )
            raise GateFailed(
                f"the adapter was not published: {wrong}. It is kept below {run.adapter_prefix} for inspection; "
                "more or cleaner recordings, or other `overrides.train`, may help"
            )

    # What steps are made of.

    async def _stage(self, stage: str, run: RunConfig) -> Event:
        """Run a stage; returns its last event, with what it has made."""
        (self._directory / "run.json").write_text(run.model_dump_json(indent=2), encoding="utf-8")
        progress, epochs_told = _Throttle(TOLD_EVERY_S), 0

        async def on_event(event: Event) -> None:
            nonlocal epochs_told
            if event["event"] == "progress" and stage == "lora":
                told = TrainProgress.model_validate({k: v for k, v in event.items() if k != "event"})
                if progress.due(always=told.step == told.steps or len(told.held_out_losses) > epochs_told):
                    epochs_told = len(told.held_out_losses)
                    await self._tell(progress=told)
            elif event["event"] == "waiting":
                log.warning("training waits", extra={"job": self._job.id, "reason": event["message"]})
            elif event["event"] == "checkpoint":
                await self._keep_checkpoint(self._directory / "checkpoints" / event["name"])

        return await run_stage(stage, self._directory, on_event, threads=run.threads)

    async def _keep_checkpoint(self, directory: Path) -> None:
        """A checkpoint that the trainer has outrun, or the store does not take, is no loss: another follows."""
        with suppress(FileNotFoundError, StoreUnavailable):
            await self._archive.save(directory.name, directory)
            await self._archive.forget(r"checkpoint-\d+", but=directory.name)

    async def _tell(self, **changes: Any) -> None:
        await patiently(lambda: self._catalog.jobs.update(self._job, **changes))


class _Throttle:
    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last_s = float("-inf")

    def due(self, *, always: bool) -> bool:
        now_s = asyncio.get_running_loop().time()
        if always or now_s - self._last_s >= self._interval_s:
            self._last_s = now_s
            return True
        return False


def _sweep(directory: Path, living: set[str]) -> None:
    """Remove what killed attempts left beside `directory`: it is users' recordings."""
    for path in directory.parent.glob("job-*"):
        if path.name not in living or path == directory:
            shutil.rmtree(path, ignore_errors=True)


def _report(directory: Path) -> DataReport:
    return DataReport.model_validate_json((directory / "report.json").read_bytes())
