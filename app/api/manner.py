"""How a text is to be spoken, whatever the dialect of the request."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from app.api.stream_encoder import StreamEncoder
from app.platform.codecs import Encoding
from app.realtime.meter import MeteredRouter
from app.realtime.session import RoutedSession
from app.speech.choices import AudioFormat
from app.speech.text.options import TextOptions
from app.speech.voices import Voice


@dataclass(frozen=True)
class Manner:
    """The voice, how the text is read, and the audio format. `edge` is the dialect, for the metrics."""

    edge: str
    voice: Voice
    encoding: AudioFormat | Encoding
    options: TextOptions
    speed: float = 1.0
    temperature: float | None = None
    timed: bool = False
    """Whether word timings are requested."""

    def opened(self, router: MeteredRouter) -> AbstractAsyncContextManager[RoutedSession]:
        """A session, spoken as fast as the fleet can. Raises as `SessionRouter.open` does."""
        return router.open(self.voice, pace="unpaced", temperature=self.temperature, text=self.options)

    def encoder(self, session: RoutedSession) -> StreamEncoder:
        """Of what `session` speaks."""
        return StreamEncoder(self.encoding, sample_rate_hz=session.ready.sample_rate_hz, speed=self.speed)
