"""A SNAC decoder that can be stopped and resumed at any frame, for many utterances in one batch.

A convolution needs a few inputs on either side of each output. Here every convolution keeps the inputs on its left
and answers late by the inputs on its right, so that each input is computed once and the concatenated output is the
full decode of the utterance, whatever the chunks. What an utterance keeps between chunks is one row of floats.

Audio runs `lookahead_samples` behind the codes; an utterance is ended by steps beyond its end, which are silenced at
every convolution exactly as the full decode's zero padding is. The noise of the decoder's noise blocks, where a codec
has them, is the utterance's own: see `workers.codec_noise`.

It knows no asyncio, no sessions and no deadlines: those are `workers.decoder`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from snac import SNAC
from snac.layers import DecoderBlock, NoiseBlock, ResidualUnit, Snake1d
from torch import Tensor, nn

from app.errors import ConfigurationError
from workers.codec_noise import CodecNoise, NoiseSite

IMAGINED_DECAY = 0.6
"""How much of its distance from the mean an imagined latent keeps from one step to the next."""


@dataclass(frozen=True)
class CodecLayout:
    """How codes become time. A frame is one code of the coarsest level with all the finer ones below it.

    `strides` are the latent steps that one code of each level lasts, coarsest first; Orpheus's are (4, 2, 1).
    """

    sample_rate_hz: int
    codebook_size: int
    strides: tuple[int, ...]
    samples_per_step: int

    @property
    def steps_per_frame(self) -> int:
        return self.strides[0]

    @property
    def samples_per_frame(self) -> int:
        return self.steps_per_frame * self.samples_per_step

    @cached_property
    def tokens_per_frame(self) -> int:
        return sum(self.steps_per_frame // stride for stride in self.strides)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """[steps_per_frame, levels]: where in a frame each latent step finds its code of each level.

        A frame is written depth first: a code, then the finer codes within its time. For Orpheus's strides that is
        [L0, L1, L2, L2, L1, L2, L2].
        """
        places = np.zeros((self.steps_per_frame, len(self.strides)), dtype=np.int64)
        position = 0
        for step in range(self.steps_per_frame):
            for level, stride in enumerate(self.strides):
                if step % stride == 0:
                    places[step : step + stride, level] = position
                    position += 1
        return places

    def codes_by_step(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """[frames, tokens_per_frame] in frame order → [frames * steps_per_frame, levels]."""
        return codes.take(self.positions, axis=1).reshape(-1, len(self.strides))


@dataclass(frozen=True)
class Span:
    """Where a chunk lies in its utterance: its first latent step, and the utterance's length in steps once known.

    `seed` (int64) is the utterance's, of its noise.
    """

    first_step: int
    end_step: int | None = None
    seed: int = 0


class StreamingSnac:
    """The decoding half of a `snac.SNAC`, batched over utterances of any age. `codec` itself is left as it was.

    Without `noise` its noise blocks, if it has any, add nothing. With `tf32` a card rounds what it convolves to TF32,
    which is faster and not exact. Raises ConfigurationError for a codec with attention, whose output no finite
    lookahead makes final.
    """

    def __init__(
        self, codec: SNAC, *, device: str | torch.device = "cpu", noise: bool = True, tf32: bool = False
    ) -> None:
        if codec.attn_window_size is not None:
            raise ConfigurationError(
                f"codec has attn_window_size={codec.attn_window_size}: only codecs without attention "
                "(attn_window_size null, as snac_24khz) can be decoded as a stream"
            )
        strides = tuple(int(stride) for stride in codec.vq_strides)
        if any(coarse % fine for coarse, fine in zip(strides, (*strides[1:], 1), strict=True)):
            raise ConfigurationError(f"codec has vq_strides={list(strides)}: each must be a multiple of the next")
        self.layout = CodecLayout(
            sample_rate_hz=int(codec.sampling_rate),
            codebook_size=int(codec.codebook_size),
            strides=strides,
            samples_per_step=int(np.prod(codec.decoder_rates)),
        )
        self.device = torch.device(device)
        self._tf32 = tf32
        with torch.inference_mode():
            self._quantizer = _Quantizer(codec, self.device)
            chain = _Chain(self.device, noise=noise)
            for layer in codec.decoder.model:
                chain.append(layer)
        self._layers = chain.layers
        self.lookahead_samples = chain.delay
        """Samples by which exact audio runs behind the codes: the decoder's right receptive field."""
        self.lookback_samples = chain.reach
        """Samples past its own end over which a latent step still has an effect: the left receptive field."""
        self.state_floats = chain.state_floats
        self.dtype = chain.dtype
        self._noise = CodecNoise(chain.noise, self.device, self.dtype) if chain.noise else None

    @property
    def flush_steps(self) -> int:
        """Steps beyond the end that bring the last samples out."""
        return self.steps_for(0)

    def steps_for(self, samples: int) -> int:
        """The fewest latent steps after which the first `samples` samples have come out."""
        return -(-(samples + self.lookahead_samples) // self.layout.samples_per_step)

    def fresh_states(self, count: int) -> Tensor:
        """[count, state_floats], each row the state of an utterance not yet begun."""
        return torch.zeros(count, self.state_floats, device=self.device, dtype=self.dtype)

    @torch.inference_mode()
    def embed(self, codes: Tensor) -> Tensor:
        """Codes by step [batch, steps, levels] (int64) → latents [batch, steps, latent_dim]."""
        return self._quantizer(codes)

    @torch.inference_mode()
    def imagine(self, codes: Tensor, steps: int) -> Tensor:
        """Latents that might follow the last known step [batch, levels]: [batch, steps, latent_dim].

        The last step's latent, fading into the mean of the codebooks. On real speech this brings provisional audio
        3 dB nearer the truth than silence and 1 to 2 dB nearer than the last latent held; 0.5 to 0.7 do equally well.
        """
        weight = IMAGINED_DECAY ** torch.arange(1, steps + 1, device=self.device, dtype=self.dtype)[:, None]
        mean = self._quantizer.mean_latent
        return mean + weight * (self._quantizer(codes)[:, None] - mean)

    @torch.inference_mode()
    def advance(self, latents: Tensor, states: Tensor, spans: Sequence[Span]) -> Tensor:
        """Decode the next steps of a batch: latents [batch, steps, latent_dim] → audio [batch, samples].

        `states` [batch, state_floats] is updated in place. `samples` is steps * samples_per_step, and row b's first is
        sample spans[b].first_step * samples_per_step - lookahead_samples of its utterance: those before 0 or beyond
        the end are to be thrown away.
        """
        steps = latents.shape[1]
        edges = [(row, span) for row, span in enumerate(spans) if self._has_edge(span, steps)]
        return self._advance(latents, states, edges, self._places(spans))

    @torch.inference_mode()
    def advance_within(self, latents: Tensor, states: Tensor, places: Tensor) -> Tensor:
        """As `advance`, of rows that are in the middle of their utterances; nothing is copied from the host, so that a
        CUDA graph can record it.

        `places` [batch, 2] (int64, on the device) are each row's seed and first step.
        """
        return self._advance(latents, states, (), places)

    def _advance(
        self, latents: Tensor, states: Tensor, edges: Sequence[tuple[int, Span]], places: Tensor | None
    ) -> Tensor:
        noise: Sequence[Tensor] = ()
        if self._noise is not None and places is not None:
            noise = self._noise.draw(places[:, 0], places[:, 1], latents.shape[1])
        x, chunk = latents, _Chunk(states, edges, noise)
        with _precision(self.device, tf32=self._tf32):
            for layer in self._layers:
                x = layer(x, chunk)
        return torch.tanh(x[..., 0])

    def _places(self, spans: Sequence[Span]) -> Tensor | None:
        """What the noise depends on, where there is any."""
        if self._noise is None:
            return None
        return torch.tensor([(span.seed, span.first_step) for span in spans], device=self.device)

    def _has_edge(self, span: Span, steps: int) -> bool:
        starting = span.first_step * self.layout.samples_per_step < self.lookahead_samples
        return starting or (span.end_step is not None and span.first_step + steps > span.end_step)


def _precision(device: torch.device, *, tf32: bool) -> AbstractContextManager[None]:
    """cuDNN rounds the inputs of fp32 convolutions to TF32, which is not exact, unless that is disabled."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32) if device.type == "cuda" else nullcontext()


class _Quantizer:
    """Codes → latents: the sum over levels of each code's embedding, projected."""

    def __init__(self, codec: SNAC, device: torch.device) -> None:
        levels: Any = codec.quantizer.quantizers
        self._tables = [level.codebook.weight.detach().to(device, copy=True) for level in levels]
        weights = [level.out_proj.weight.detach()[..., 0] for level in levels]
        self._weight = torch.cat(weights, dim=1).to(device, copy=True)
        self._bias = torch.stack([level.out_proj.bias.detach() for level in levels]).sum(0).to(device)
        means = torch.cat([table.mean(0) for table in self._tables])
        self.mean_latent = F.linear(means, self._weight, self._bias)

    def __call__(self, codes: Tensor) -> Tensor:
        embedded = [F.embedding(codes[..., level], table) for level, table in enumerate(self._tables)]
        return F.linear(torch.cat(embedded, dim=-1), self._weight, self._bias)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What the layers need of a batch beside its values: `states` [batch, state_floats], updated in place."""

    states: Tensor
    edges: Sequence[tuple[int, Span]]
    """The rows that hold the beginning or the end of their utterance, and where they lie in it."""
    noise: Sequence[Tensor]
    """[batch, time, 1] of each noise block."""


class _Chain:
    """Lays the decoder's layers out one behind the other, adding up rate, delay, reach and state on the way.

    `rate` is positions per latent step, `delay` the positions by which the stream runs late, `reach` those over which a
    step has an effect beyond its own, all at the current layer.
    """

    def __init__(self, device: torch.device, *, noise: bool) -> None:
        self.device = device
        self.layers: list[_Layer] = []
        self.noise: list[NoiseSite] = []
        self._noisy = noise
        self.rate, self.delay, self.reach = 1, 0, 0
        self.state_floats = 0
        self.dtype = torch.float32

    def append(self, layer: nn.Module) -> None:
        if isinstance(layer, DecoderBlock):
            for part in layer.block:
                self.append(part)
        elif isinstance(layer, ResidualUnit):
            self._append_residual(layer)
        elif isinstance(layer, Snake1d):
            self.layers.append(_Snake(layer, self.device))
        elif isinstance(layer, nn.ConvTranspose1d):
            self.layers.append(_Upsample(layer, self))
        elif isinstance(layer, nn.Conv1d):
            self.layers.append(_Convolution(layer, self))
        elif isinstance(layer, NoiseBlock):
            if self._noisy:
                self.layers.append(_Noise(layer, self))
        elif not isinstance(layer, nn.Tanh):
            raise ConfigurationError(f"codec has a {type(layer).__name__} in its decoder: only stock SNAC is known")

    def _append_residual(self, unit: ResidualUnit) -> None:
        parts = cast(tuple[Snake1d, nn.Conv1d, Snake1d, nn.Conv1d], tuple(unit.block))
        snake, convolution, snake_within, pointwise = parts
        before = self.delay
        first = _Snake(snake, self.device)
        second = _Convolution(convolution, self)
        kept = _Keep(self, self.delay - before, pointwise.out_channels)
        third = _Snake(snake_within, self.device)
        self.layers.append(_Residual([first, second, third, _Convolution(pointwise, self)], kept))

    def claim_state(self, length: int, channels: int) -> tuple[int, int, int]:
        """Reserve `length` rows of `channels` floats in the state; returns what `_view` needs to find them."""
        place = (self.state_floats, length, channels)
        self.state_floats += length * channels
        return place


def _view(states: Tensor, place: tuple[int, int, int]) -> Tensor:
    """[batch, length, channels]: one layer's part of the states."""
    offset, length, channels = place
    return states[:, offset : offset + length * channels].unflatten(1, (length, channels))


class _Keep:
    """The last inputs of a layer, put before its new ones."""

    def __init__(self, chain: _Chain, length: int, channels: int) -> None:
        self.length = length
        self._place = chain.claim_state(length, channels)

    def __call__(self, x: Tensor, states: Tensor) -> Tensor:
        """[batch, time, channels] → [batch, length + time, channels]; the last `length` become the state."""
        kept = _view(states, self._place)
        joined = torch.cat((kept, x), dim=1)
        kept.copy_(joined[:, x.shape[1] :])
        return joined


class _Layer:
    def __call__(self, x: Tensor, chunk: _Chunk) -> Tensor:
        """[batch, time, channels] → [batch, time * stride, channels']."""
        raise NotImplementedError


class _Snake(_Layer):
    """x + sin²(alpha * x) / alpha, as snac.layers.snake."""

    def __init__(self, snake: Snake1d, device: torch.device) -> None:
        alpha = snake.alpha.detach()[0, :, 0].to(device)
        self._alpha = alpha.clone()
        self._inverse = (alpha + 1e-9).reciprocal()

    def __call__(self, x: Tensor, chunk: _Chunk) -> Tensor:
        wave = torch.mul(x, self._alpha).sin_().square_()
        return wave.mul_(self._inverse).add_(x)


class _Noise(_Layer):
    """x + noise * linear(x): one number at a position, for all channels."""

    def __init__(self, block: NoiseBlock, chain: _Chain) -> None:
        linear = cast(nn.Conv1d, block.linear)
        self._weight = linear.weight.detach()[..., 0].to(chain.device, copy=True)
        self._number = len(chain.noise)
        chain.noise.append(NoiseSite(self._number, chain.rate, chain.delay))

    def __call__(self, x: Tensor, chunk: _Chunk) -> Tensor:
        return torch.addcmul(x, chunk.noise[self._number], F.linear(x, self._weight))


class _Padded(_Layer):
    """A layer whose full decode pads its input with zeros: outside the utterance its input must be silent."""

    def __init__(self, chain: _Chain) -> None:
        self._rate, self._delay = chain.rate, chain.delay

    def silence(self, x: Tensor, chunk: _Chunk) -> None:
        for row, span in chunk.edges:
            start = span.first_step * self._rate - self._delay
            if start < 0:
                x[row, :-start] = 0
            if span.end_step is not None:
                x[row, max(0, span.end_step * self._rate - start) :] = 0


class _Convolution(_Padded):
    """A convolution that keeps its left context and answers half a kernel late. One of width 1 keeps nothing."""

    def __init__(self, conv: nn.Conv1d, chain: _Chain) -> None:
        super().__init__(chain)
        (width,), (self._dilation,), self._groups = conv.kernel_size, conv.dilation, conv.groups
        weight = conv.weight.detach()
        self._bias = None if conv.bias is None else conv.bias.detach().to(chain.device, copy=True)
        chain.dtype = weight.dtype
        self._pointwise = width == 1
        if self._pointwise:
            self._weight = weight[..., 0].to(chain.device, copy=True)
            return
        weight = weight.unsqueeze(2).to(chain.device, copy=True)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        context = (width - 1) * self._dilation
        self._left = _Keep(chain, context, conv.in_channels)
        chain.delay += context // 2
        chain.reach += context // 2

    def __call__(self, x: Tensor, chunk: _Chunk) -> Tensor:
        if self._pointwise:
            return F.linear(x, self._weight, self._bias)
        self.silence(x, chunk)
        image = self._left(x, chunk.states).transpose(1, 2).unsqueeze(2)
        out = F.conv2d(image, self._weight, self._bias, dilation=(1, self._dilation), groups=self._groups)
        return out.squeeze(2).transpose(1, 2)


class _Upsample(_Padded):
    """A transposed convolution of width 2·stride: each output depends on one input and the one before it."""

    def __init__(self, conv: nn.ConvTranspose1d, chain: _Chain) -> None:
        super().__init__(chain)
        (stride,), (padding,) = conv.stride, cast(tuple[int], conv.padding)
        if conv.kernel_size != (2 * stride,):
            raise ConfigurationError(f"codec has a transposed convolution of width {conv.kernel_size}: not stock SNAC")
        weight = conv.weight.detach()  # [in, out, 2 * stride]
        before, now = weight[..., stride:], weight[..., :stride]
        both = torch.cat((before, now), dim=0)  # [2 * in, out, stride]
        self._weight = both.permute(2, 1, 0).reshape(stride * conv.out_channels, -1).to(chain.device).contiguous()
        assert conv.bias is not None  # stock SNAC's always have one
        self._bias = conv.bias.detach().to(chain.device).repeat(stride)
        self._left = _Keep(chain, 1, conv.in_channels)
        self._stride = stride
        chain.rate *= stride
        chain.delay = chain.delay * stride + padding
        chain.reach = chain.reach * stride + stride - padding

    def __call__(self, x: Tensor, chunk: _Chunk) -> Tensor:
        self.silence(x, chunk)
        joined = self._left(x, chunk.states)
        pairs = torch.cat((joined[:, :-1], joined[:, 1:]), dim=2)
        out = F.linear(pairs, self._weight, self._bias)  # [batch, time, stride * out]
        return out.view(x.shape[0], x.shape[1] * self._stride, -1)


class _Residual(_Layer):
    """x + layers(x), where x waits for as long as the layers delay."""

    def __init__(self, layers: Sequence[_Layer], waiting: _Keep) -> None:
        self._layers = layers
        self._waiting = waiting

    def __call__(self, x: Tensor, chunk: _Chunk) -> Tensor:
        y = x
        for layer in self._layers:
            y = layer(y, chunk)
        return y.add_(self._waiting(x, chunk.states)[:, : x.shape[1]])


def load_codec(directory: Path | str) -> SNAC:
    """The codec of a model directory: config.json with the constructor's arguments, and pytorch_model.bin."""
    directory = Path(directory)
    missing = [name for name in ("config.json", "pytorch_model.bin") if not (directory / name).is_file()]
    if missing:
        raise ConfigurationError(f"no {' and no '.join(missing)} in {directory}: a codec is a directory with both")
    return SNAC.from_pretrained(str(directory))
