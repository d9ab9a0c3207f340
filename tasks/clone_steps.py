"""The steps of a clone job, each a process of `training`, from recordings to an adapter that passed its gate.

    preparing   samples (or renderings of a built-in voice) -> clips and tokens
    training    tokens -> the best adapter
    gating      the adapter, uploaded under the attempt's key, speaks unseen prompts through the fleet's workers

Each finished step lies in the object store, and the next attempt goes on from there. It knows neither claims nor how a
job ends, nor what a stage does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.catalog import Catalog
from app.errors import ConfigurationError, GateFailed, ObjectMissing, RecordingUnfit, StoreUnavailable
from app.platform.model_files import locate
from app.platform.object_store import ObjectStore, retry_in_thread
from app.platform.retry import retry_store
from app.platform.settings import Settings
from app.platform.tracing import span
from app.speech.recipe import GateConfig, TrainConfig
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
from tasks.metrics import meters
from tasks.stage import Event, run_stage, with_memory

TOLD_EVERY_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CloneSteps:
    """What one attempt at `job` does in `directory`, which exists; what it has finished is kept in `archive`."""

    settings: Settings
    catalog: Catalog
    store: ObjectStore
    job: CloneJob
    archive: JobArchive
    directory: Path

    async def run(self) -> int:
        """All steps; returns the version to publish."""
        record = await self.catalog.voices.get(self.job.voice_id)
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

    async def keep_newest_checkpoint(self) -> None:
        """What the trainer has saved last and the store may not have yet."""
        with suppress(StoreUnavailable, FileNotFoundError):
            if newest := max((self.directory / "checkpoints").glob("checkpoint-*"), default=None):
                await self.archive.save(newest.name, newest)

    def _run_config(self, record: VoiceRecord) -> RunConfig:
        """The configuration of the stages. Raises ConfigurationError when this process holds another model."""
        settings, config = self.settings, self.job.config
        model_dir = locate(settings.model, variable="CARILLON_MODEL")
        codec_dir = locate(settings.codec, variable="CARILLON_CODEC")
        speech = read_layout(model_dir, codec_dir, settings.speech).speech
        if speech.name != record.model:
            raise ConfigurationError(
                f"the voice {record.name!r} is of the model {record.model!r}, and this machine trains {speech.name!r}; "
                "run `carillon tasks --queue train` with CARILLON_MODEL and CARILLON_CODEC of that model"
            )
        return RunConfig(
            kind=self.job.kind,
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
            gate=GateConfig.model_validate({**speech.gate, **config.gate.model_dump(exclude_unset=True)}),
            adapter_prefix=f"{self.archive.attempt_prefix}adapter",
        )

    async def _prepare(self, run: RunConfig) -> DataReport:
        """Clips, tokens and the report in the run's directory, made or fetched."""
        if await self.archive.restore("prepared", self.directory) is None:
            await self._tell(state=CloneState.PREPARING)
            if self.job.kind is CloneKind.POLISH:
                own = next(voice for voice in run.base_voices if voice.name == run.prompt_name)
                await self._stage("renderings", run.model_copy(update={"voice": own}))
            else:
                await self._fetch_samples()
                await self._fetch_consent()
            await self._stage("prepare", run)
            await asyncio.to_thread(shutil.rmtree, self.directory / "samples")
            await asyncio.to_thread(shutil.rmtree, self.directory / "consent", ignore_errors=True)
            await self.archive.save("prepared", self.directory)
        report = DataReport.model_validate_json((self.directory / "report.json").read_bytes())
        await self._tell(report=report)
        if report.shortfall:
            raise RecordingUnfit(report.shortfall)
        return report

    async def _fetch_samples(self) -> None:
        """The voice's recordings in `samples/`, and what is known of them in `samples.json`."""
        directory = self.directory / "samples"
        directory.mkdir()
        listed = []
        for sample in await self.catalog.voices.samples(self.job.voice_id):
            folder, _, name = sample.object_key.rpartition("/")
            path = directory / name
            try:
                await retry_in_thread(lambda f=folder, n=name, p=path: self.store.fetch(self.store.uri(f), n, p))
            except ObjectMissing:  # deleted since it was listed
                continue
            listed.append({"file_name": sample.file_name, "path": f"samples/{name}", "transcript": sample.transcript})
        (self.directory / "samples.json").write_text(json.dumps(listed), encoding="utf-8")

    async def _fetch_consent(self) -> None:
        """The recorded consent in `consent/`, for its voice; an operator's word has none."""
        consent = (await self.catalog.voices.get(self.job.voice_id)).consent
        if consent is None or consent.object_key is None:
            return
        folder, _, name = consent.object_key.rpartition("/")
        directory = self.directory / "consent"
        directory.mkdir()
        with suppress(ObjectMissing):
            await retry_in_thread(lambda: self.store.fetch(self.store.uri(folder), name, directory / name))

    async def _train(self, run: RunConfig) -> None:
        """The best adapter in `adapter/`, trained on from the newest checkpoint, or fetched."""
        if await self.archive.restore("trained", self.directory / "adapter"):
            return
        await self._tell(state=CloneState.TRAINING)
        checkpoints = self.directory / "checkpoints"
        resumed = await self.archive.restore(r"checkpoint-\d+", self.directory / "restored")
        if resumed:
            checkpoints.mkdir()
            (self.directory / "restored").rename(checkpoints / resumed)
            log.info("training resumed", extra={"job": self.job.id, "checkpoint": resumed})
        await with_memory(lambda: self._stage("lora", run))
        await self.archive.save("trained", self.directory / "adapter")
        await self.archive.forget(r"checkpoint-\d+", but="")

    async def _upload(self, run: RunConfig) -> AdapterVersion:
        """The adapter under this attempt's key, as a version that is not yet in force."""
        published = await self._stage("publish", run)
        return await self.catalog.voices.add_version(
            self.job.voice_id, uri=published["uri"], sha256=published["sha256"], rank=published["rank"]
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
        (self.directory / "run.json").write_text(run.model_dump_json(indent=2), encoding="utf-8")
        clock = asyncio.get_running_loop().time
        told_at, epochs_told = float("-inf"), 0

        async def on_event(event: Event) -> None:
            nonlocal told_at, epochs_told
            if event["event"] == "progress" and stage == "lora":
                told = TrainProgress.model_validate({k: v for k, v in event.items() if k != "event"})
                news = told.step == told.steps or len(told.held_out_losses) > epochs_told
                if news or clock() - told_at >= TOLD_EVERY_S:
                    told_at, epochs_told = clock(), len(told.held_out_losses)
                    await self._tell(progress=told)
            elif event["event"] == "waiting":
                log.warning("training waits", extra={"job": self.job.id, "reason": event["message"]})
            elif event["event"] == "checkpoint":
                await self._keep_checkpoint(self.directory / "checkpoints" / event["name"])

        began_at, outcome = clock(), "failed"
        try:
            with span(f"stage {stage}", job=self.job.id):
                last = await run_stage(stage, self.directory, on_event, threads=run.threads)
            outcome = "done"
            return last
        finally:
            meters().stages.labels(stage, outcome).observe(clock() - began_at)

    async def _keep_checkpoint(self, directory: Path) -> None:
        """A checkpoint that the trainer has outrun, or the store does not take, is no loss: another follows."""
        with suppress(FileNotFoundError, StoreUnavailable):
            await self.archive.save(directory.name, directory)
            await self.archive.forget(r"checkpoint-\d+", but=directory.name)

    async def _tell(self, **changes: Any) -> None:
        await retry_store(lambda: self.catalog.jobs.update(self.job, **changes))
