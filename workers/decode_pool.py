"""The decoder state of many utterances in one tensor, and the arithmetic of one batch.

A batch gathers the slots it needs, takes every utterance on by the same number of steps, and writes the slots back.
Provisional heads are decoded on copies that are never written back.

Synchronous, for one thread at a time. It knows neither queues nor deadlines: those are `workers.decoder`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.codec_noise import noise_seed
from workers.provisional_head import HeadRamp, SampleJoin, Samples
from workers.snac_stream import Span, StreamingSnac

FRAMES_PER_BATCH = 4
"""Frames decoded at most before something more urgent gets its turn: of each utterance, or on a CPU in all."""


@dataclass(eq=False)
class Utterance:
    """How far one utterance is decoded: `step` counts latent steps, the flush beyond its end included.

    `last_codes` [levels] are the last step's; `seed` is the noise's, None before the first frame is known.
    """

    slot: int
    join: SampleJoin
    step: int = 0
    seed: int | None = None
    last_codes: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(eq=False)
class Work:
    """Codes of one utterance to decode, and the audio they have given so far.

    `codes` [steps, levels] are those still to decode. When they end the utterance, `end_step` is its length and the
    steps that flush it follow its own.
    """

    utterance: Utterance
    codes: NDArray[np.int64]
    end_step: int | None = None
    provisional: bool = False
    parts: list[Samples] = field(default_factory=list)

    @property
    def span(self) -> Span:
        return Span(self.utterance.step, self.end_step, self.utterance.seed or 0)

    @property
    def done(self) -> bool:
        return not len(self.codes)

    @property
    def has_audio(self) -> bool:
        return any(map(len, self.parts))


class DecodePool:
    def __init__(self, snac: StreamingSnac, *, slots: int, head: HeadRamp) -> None:
        self.snac = snac
        self.head = head
        self.on_cuda = snac.device.type == "cuda"
        self._states = snac.fresh_states(slots)
        self._stream: torch.cuda.Stream | None = None

    def utterance(self, slot: int) -> Utterance:
        return Utterance(slot, SampleJoin(self.head.fade_samples))

    def work(
        self, utterance: Utterance, frames: NDArray[np.int64], end_frame: int | None = None, provisional: bool = False
    ) -> Work:
        """Frames [frames, tokens_per_frame] to decode next; with `end_frame`, the utterance's length, they end it."""
        if utterance.seed is None and len(frames):
            utterance.seed = noise_seed(frames[0])
        codes = self.snac.layout.codes_by_step(frames)
        if end_frame is None:
            return Work(utterance, codes, provisional=provisional)
        flush = np.zeros((self.snac.flush_steps if end_frame else 0, codes.shape[1]), dtype=np.int64)
        return Work(utterance, np.concatenate((codes, flush)), end_step=end_frame * self.snac.layout.steps_per_frame)

    def prepare_thread(self) -> None:
        """Call in the thread that will decode: one torch thread on a CPU, a stream of high priority on CUDA."""
        if self.on_cuda:
            torch.cuda.synchronize(self.snac.device)  # the weights were copied on another stream
            self._stream = torch.cuda.Stream(self.snac.device, priority=-1)
            torch.cuda.set_stream(self._stream)
        else:
            torch.set_num_threads(1)

    @torch.inference_mode()
    def decode(self, batch: Sequence[Work]) -> int:
        """Take all on by as many steps as the shortest has left, within the limit.

        Returns how many provisional packets it made.
        """
        self._decode_exact(batch)
        heads = [(work, wanted) for work in batch if (wanted := self._wanted_provisionally(work))]
        if heads:
            self._decode_heads(heads)
        return len(heads)

    def _decode_exact(self, batch: Sequence[Work]) -> None:
        limit = FRAMES_PER_BATCH * self.snac.layout.steps_per_frame // (1 if self.on_cuda else len(batch))
        steps = max(1, min(limit, *(len(work.codes) for work in batch)))
        codes = np.stack([work.codes[:steps] for work in batch])
        slots = self._slots([work.utterance for work in batch])
        states = self._states[slots]
        for row, work in enumerate(batch):
            if work.utterance.step == 0:
                states[row] = 0  # what the slot's last utterance left
        latents = self.snac.embed(torch.from_numpy(codes).to(self.snac.device))
        audio = self.snac.advance(latents, states, [work.span for work in batch])
        self._states[slots] = states
        for work, row in zip(batch, audio.float().cpu().numpy(), strict=True):
            work.parts.append(self._exact_audio(work, row))
            work.utterance.step += steps
            work.utterance.last_codes = work.codes[steps - 1]
            work.codes = work.codes[steps:]

    def _exact_audio(self, work: Work, row: Samples) -> Samples:
        """Of the audio decoded from the utterance's step on, what lies within it and has not been spoken."""
        start = self._position(work.utterance)
        if work.end_step is not None:
            row = row[: max(0, work.end_step * self.snac.layout.samples_per_step - start)]
        return work.utterance.join.exact(start, row)

    def _wanted_provisionally(self, work: Work) -> int:
        """How many samples in all the utterance shall have spoken, if that is more than it has; else 0."""
        if not work.provisional or not work.done or work.end_step is not None:
            return 0
        layout, utterance = self.snac.layout, work.utterance
        wanted = self.head.samples(utterance.step // layout.steps_per_frame, layout.samples_per_frame)
        return wanted if wanted > utterance.join.spoken else 0

    def _decode_heads(self, heads: Sequence[tuple[Work, int]]) -> None:
        """Run copies of the states on through imagined latents, as far as what is to be spoken needs."""
        utterances = [work.utterance for work, _ in heads]
        fade = self.head.fade_samples
        steps = max(self.snac.steps_for(wanted + fade) - work.utterance.step for work, wanted in heads)
        last = torch.from_numpy(np.stack([utterance.last_codes for utterance in utterances])).to(self.snac.device)
        spans = [work.span for work, _ in heads]
        audio = self.snac.advance(self.snac.imagine(last, steps), self._states[self._slots(utterances)], spans)
        for (work, wanted), row in zip(heads, audio.float().cpu().numpy(), strict=True):
            start, join = self._position(work.utterance), work.utterance.join
            work.parts.append(join.provisional(row[join.spoken - start : wanted + fade - start]))

    def _slots(self, utterances: Sequence[Utterance]) -> Tensor:
        return torch.tensor([utterance.slot for utterance in utterances], device=self.snac.device)

    def _position(self, utterance: Utterance) -> int:
        """The sample that the next decoded audio starts with; negative at the beginning."""
        return utterance.step * self.snac.layout.samples_per_step - self.snac.lookahead_samples
