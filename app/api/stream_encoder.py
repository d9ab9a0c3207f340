"""One session's audio on its way out: the worker's PCM becomes the client's format."""

from __future__ import annotations

from app.platform.codecs import Encoder, Encoding, open_encoder
from app.speech.audio import samples_of
from app.speech.choices import AudioFormat

CONTENT_TYPE_PCM = "audio/pcm"


class StreamEncoder:
    """Encodes PCM s16le mono as it comes. Raw PCM at its own tempo passes through, byte for byte."""

    def __init__(self, format: AudioFormat | Encoding, *, sample_rate_hz: int, speed: float) -> None:
        self.speed = speed
        self._samples = 0
        self._encoder: Encoder | None = None
        if format is not AudioFormat.PCM or speed != 1.0:
            self._encoder = open_encoder(format, sample_rate_hz=sample_rate_hz, speed=speed)

    @property
    def content_type(self) -> str:
        return self._encoder.content_type if self._encoder else CONTENT_TYPE_PCM

    @property
    def samples(self) -> int:
        """That have been delivered, or are in a frame that the encoder collects."""
        return self._encoder.samples if self._encoder else self._samples

    def delivered(self, samples: int) -> int:
        """How many samples a stretch of the worker's is, as it is heard."""
        return round(samples / self.speed)

    def spoken(self, samples: int) -> int:
        """How many samples of the worker's are heard in so many."""
        return round(samples * self.speed)

    def encode(self, pcm16: bytes) -> bytes:
        """What can be sent now; may be empty while the encoder collects a frame."""
        if self._encoder:
            return self._encoder.encode(samples_of(pcm16))
        self._samples += len(pcm16) // 2
        return pcm16

    def skip(self) -> None:
        """Forget what is held back: what follows is of another turn."""
        if self._encoder:
            self._encoder.skip()

    def finish(self) -> bytes:
        """The last bytes of the stream."""
        return self._encoder.finish() if self._encoder else b""

    def close(self) -> None:
        if self._encoder:
            self._encoder.close()
