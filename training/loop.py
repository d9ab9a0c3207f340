"""The LoRA training loop: model, clips, steps, held-out losses, checkpoints, the best adapter.

A training is a pure function of its configuration and its clips. Its progress lives in `TrainerState` and the
tensors beside it, so that going on after any interruption, at any step, ends with the very adapter of a run without.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from app.errors import ConfigurationError, InvalidRequest, OutOfMemory, Overloaded, TrainingFailed
from app.speech.recipe import TrainConfig
from app.speech.token_layout import LORA_MODULES, TokenLayout, read_layout
from app.voices.models import RunConfig, TrainProgress
from training import adapter
from training.checkpoints import Checkpoints, TrainerState
from training.clips import Clip, epoch_batches, held_out_split, micro_batches, read_clips
from training.learning import Batch, summed_loss, target_count
from training.stage_runner import Emit, Stopped, torch_device

logger = logging.getLogger(__name__)

DATASET_FILE, TENSORS_FILE = "dataset.npz", "training.pt"
NAMED_CLIPS = 20
"""Clips a notice names; the rest it counts."""


class Training:
    """One training in its directory. `check` raises Stopped when the process is to end, and Overloaded when another
    process wants its memory.
    """

    def __init__(
        self,
        run: RunConfig,
        directory: Path,
        emit: Emit,
        check: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # 1. The model, with a LoRA that changes nothing yet
        self.config, self._emit, self._check, self._clock = run.train, emit, check, clock
        self.device = torch_device(run)
        self.layout = read_layout(run.model_dir, run.codec_dir, run.speech)
        torch.manual_seed(self.config.seed)
        self.lora = LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=list(LORA_MODULES),
            bias="none",
        )
        self.model = _load_model(run, self.layout, self.lora, self.device)
        # 2. The clips: batches of every epoch, and some held out
        described: Any = self.model.get_base_model().config
        limit = min(self.config.max_tokens, described.max_position_embeddings)
        clips = read_clips(directory / DATASET_FILE, self.layout, vocabulary_size=described.vocab_size)
        usable = _fitting(clips, limit, emit)
        self.clips, self.held_out = held_out_split(usable, self.config.held_out_share, self.config.seed)
        self.epoch_steps = math.ceil(len(self.clips) / self.config.batch_clips)
        self.steps = self.epoch_steps * self.config.epochs
        # 3. What is done so far
        self.optimiser = torch.optim.AdamW(_weights(self.model), weight_decay=0.0, fused=True)
        self.checkpoints = Checkpoints(directory / "checkpoints")
        self.state = TrainerState(fingerprint=_fingerprint(run, self.layout, clips))
        self.best: dict[str, Tensor] = {}
        self._prompt_name, self._adapter_dir = run.prompt_name, directory / "adapter"
        self._resume()

    def run(self) -> dict[str, Any]:
        """Train from where the last run ended, and keep the best epoch's adapter: the figures of the outcome.

        Raises Stopped, or Overloaded where `check` does, with a checkpoint saved, and TrainingFailed with the best
        adapter so far kept.
        """
        began, first_step = self._clock(), self.state.step
        randomness = _randomness(self.device)
        try:
            if not self.state.held_out_losses:
                self._hold_out()
            while not self.finished:
                epoch = self.state.finished_epochs + 1
                batches = epoch_batches(self.clips, self.config.batch_clips, seed=self.config.seed, epoch=epoch)
                for batch in batches[self.state.step - (epoch - 1) * self.epoch_steps :]:
                    loss = self._step(batch)
                    self.state = self.state.model_copy(update={"step": self.state.step + 1})
                    pace_s = (self._clock() - began) / (self.state.step - first_step)
                    randomness = _randomness(self.device)
                    self._emit_progress(loss, eta_s=pace_s * (self.steps - self.state.step))
                    if self.state.step % self.config.checkpoint_steps == 0:
                        self._save(randomness)
                self._hold_out()
                self._keep_best()
                self._save(randomness)
        except (Stopped, Overloaded):
            if self.state.held_out_losses:
                self._save(randomness)
            raise
        return self._outcome()

    @property
    def finished(self) -> bool:
        """All epochs are over, or the last `patience` of them brought no improvement."""
        epochs = self.state.finished_epochs
        return epochs >= self.config.epochs or (epochs > 0 and epochs - self.state.best_epoch >= self.config.patience)

    def _step(self, batch: list[Clip]) -> float:
        """One step of the optimiser over a batch of clips, however many go through at once: its mean loss.

        Stopped half-way it has changed no weight.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(self.state.step, self.steps, self.config)
        self.optimiser.zero_grad(set_to_none=True)
        targets = sum(target_count(clip, self.config.loss) for clip in batch)
        mean = 0.0
        self.model.train()
        with self._room_for(batch):
            for clips in micro_batches(batch, self.config.micro_batch_tokens):
                self._check()
                loss = self._loss(clips, corruption=self.config.corruption) / targets
                loss.backward()
                mean += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(_weights(self.model), self.config.max_grad_norm)
        self._refuse_nonsense("loss", mean, norm.item())
        self.optimiser.step()
        return mean

    @torch.no_grad()
    def _hold_out(self) -> None:
        """Measures the mean loss over the clips held out, and adds it to the state."""
        self.model.eval()
        total = 0.0
        with self._room_for(self.held_out):
            for clips in micro_batches(self.held_out, self.config.micro_batch_tokens):
                self._check()
                total += self._loss(clips).item()
        mean = total / sum(target_count(clip, self.config.loss) for clip in self.held_out)
        self._refuse_nonsense("held-out loss", mean)
        losses = (*self.state.held_out_losses, mean)
        self.state = self.state.model_copy(update={"held_out_losses": losses})
        self._emit_progress(None, eta_s=0.0 if self.finished else None)

    def _loss(self, clips: list[Clip], *, corruption: float = 0.0) -> Tensor:
        batch = Batch.of(clips, self.layout.speech.pad_id, self.device)
        # A CPU without instructions for bfloat16 would take ten times as long.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            model = self.model.get_base_model()
            return summed_loss(model, batch, self.layout, self.config.loss, corruption=corruption)

    def _keep_best(self) -> None:
        """Keeps the weights of the epoch just measured, where they are the best, and writes the adapter.

        They are kept as bf16, which is what they are served as.
        """
        if self.state.best_epoch == self.state.finished_epochs:
            weights = get_peft_model_state_dict(self.model, save_embedding_layers=False)
            self.best = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in weights.items()}
            self._write_adapter()

    def _write_adapter(self) -> None:
        figures = {
            "model": self.layout.speech.name,
            "prompt_name": self._prompt_name,
            "train": self.config.model_dump(),
            "clips": len(self.clips),
            "held_out_clips": len(self.held_out),
            "targets": sum(target_count(clip, self.config.loss) for clip in self.clips),
            "best_epoch": self.state.best_epoch,
            "held_out_losses": self.state.held_out_losses[: self.state.best_epoch + 1],
        }
        adapter.save(self._adapter_dir, self.best, self.lora, model=self.layout.speech.name, run=figures)

    def _outcome(self) -> dict[str, Any]:
        base, *losses = self.state.held_out_losses
        best = losses[self.state.best_epoch - 1]
        if best >= base:
            raise TrainingFailed(
                f"training made the voice no likelier: held-out loss {base:.3f} before, {best:.3f} at best; "
                f"lower train.learning_rate (now {self.config.learning_rate:g}) or add recordings"
            )
        return {
            "best_epoch": self.state.best_epoch,
            "epochs": len(losses),
            "steps": self.state.step,
            "base_loss": base,
            "best_loss": best,
            "held_out_losses": self.state.held_out_losses,
        }

    def _save(self, randomness: dict[str, Tensor]) -> None:
        tensors = {
            "lora": get_peft_model_state_dict(self.model, save_embedding_layers=False),
            "optimiser": self.optimiser.state_dict(),
            "best": self.best,
            "randomness": randomness,
        }

        def write(place: Path) -> None:
            with (place / TENSORS_FILE).open("wb") as file:  # a file of Python's, for a full disk to be an OSError
                torch.save(tensors, file)

        path = self.checkpoints.save(self.state, write)
        self._emit("checkpoint", name=path.name, step=self.state.step, epochs=self.state.finished_epochs)

    def _resume(self) -> None:
        newest = self.checkpoints.newest()
        if newest is None:
            return
        path, state = newest
        if state.fingerprint != self.state.fingerprint:
            raise InvalidRequest(
                f"{path.name} is of another configuration, model or dataset; remove checkpoints/ to start over"
            )
        tensors = torch.load(path / TENSORS_FILE, map_location="cpu", weights_only=True)
        set_peft_model_state_dict(self.model, tensors["lora"])
        self.optimiser.load_state_dict(tensors["optimiser"])
        self.state, self.best = state, tensors["best"]
        _set_randomness(tensors["randomness"], self.device)
        if self.best:
            self._write_adapter()
        self._emit("notice", message=f"goes on after {path.name}")

    def _emit_progress(self, loss: float | None, *, eta_s: float | None) -> None:
        progress = TrainProgress(
            epoch=max(1, math.ceil(self.state.step / self.epoch_steps)),
            epochs=self.config.epochs,
            step=self.state.step,
            steps=self.steps,
            loss=loss,
            held_out_losses=self.state.held_out_losses,
            eta_s=eta_s,
        )
        self._emit("progress", **progress.model_dump())

    def _refuse_nonsense(self, what: str, *figures: float) -> None:
        if not all(map(math.isfinite, figures)):
            kept = f"the adapter of epoch {self.state.best_epoch} is kept" if self.best else "no adapter was kept"
            raise TrainingFailed(
                f"the {what} is no number any more at step {self.state.step} of {self.steps}; {kept}; "
                f"lower train.learning_rate (now {self.config.learning_rate:g})"
            )

    @contextmanager
    def _room_for(self, clips: list[Clip]) -> Iterator[None]:
        """The error for insufficient memory, with the setting to lower."""
        try:
            yield
        except RuntimeError as error:  # a CPU's allocator has no class of its own for it
            on_card = isinstance(error, torch.OutOfMemoryError)  # the card is shared: another attempt may succeed
            if not on_card and "can't allocate memory" not in str(error):
                raise
            raise (OutOfMemory if on_card else TrainingFailed)(
                f"out of memory with a clip of {max(len(clip.ids) for clip in clips)} tokens; lower "
                f"train.micro_batch_tokens (now {self.config.micro_batch_tokens}) or train.max_tokens "
                f"(now {self.config.max_tokens})"
            ) from error


def rate_at(step: int, steps: int, config: TrainConfig) -> float:
    """The learning rate of a step: a linear warm-up, then half a cosine down to nothing."""
    warmup = max(1, round(config.warmup_share * steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _load_model(run: RunConfig, layout: TokenLayout, lora: LoraConfig, device: torch.device) -> PeftModel:
    """The base model with a fresh LoRA in it: the base bf16 on a GPU, float32 on a CPU, the LoRA float32."""
    transformers_logging.disable_progress_bar()
    try:
        base = AutoModelForCausalLM.from_pretrained(
            run.model_dir, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the model in {run.model_dir} cannot be loaded: {error}") from None
    base.config.use_cache = False
    on_gpu, wanted = device.type == "cuda", run.train.gradient_checkpointing
    if on_gpu if wanted is None else wanted:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = get_peft_model(base, lora)
    assert isinstance(model, PeftModel)
    return model.to(device)


def _weights(model: PeftModel) -> list[Tensor]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _fitting(clips: list[Clip], max_tokens: int, emit: Emit) -> list[Clip]:
    """The clips that are not too long; those that are, are reported. Raises InvalidRequest where none is left."""
    long = [clip.name for clip in clips if len(clip.ids) > max_tokens]
    if len(long) == len(clips):
        raise InvalidRequest(f"all {len(clips)} clips are longer than train.max_tokens {max_tokens}; raise it")
    if long:
        named = ", ".join(long[:NAMED_CLIPS]) + (" …" if len(long) > NAMED_CLIPS else "")
        emit("notice", message=f"{len(long)} of {len(clips)} clips are longer than {max_tokens} tokens: {named}")
    return [clip for clip in clips if len(clip.ids) <= max_tokens]


def _fingerprint(run: RunConfig, layout: TokenLayout, clips: list[Clip]) -> str:
    """Equal for runs of one outcome: the hyper-parameters, the model's name and the clips, not paths or devices."""
    digest = hashlib.sha256(run.train.model_dump_json().encode())
    digest.update(f"{layout.speech.name}\0{run.prompt_name}\0".encode())
    for clip in clips:
        digest.update(hashlib.sha256(clip.ids.tobytes()).digest())
    return digest.hexdigest()


def _randomness(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_randomness(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
