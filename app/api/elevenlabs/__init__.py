"""ElevenLabs' API as its SDKs and the frameworks' plugins call it; CLIENTS.md says what each needs.

    speech.py     one text over HTTP, with and without the times of its characters
    streams.py    `stream-input` and `multi-stream-input`, whose contexts are in `context.py`
    voices.py     voices, models and the account, as listings
    cloning.py    voices in the making, on our clones
    studio.py     studio projects, on our narrations

A translator: sessions, voices and limits are the fleet's own.
"""

from app.api.elevenlabs.cloning import router as cloning
from app.api.elevenlabs.speech import router as speech
from app.api.elevenlabs.streams import router as streams
from app.api.elevenlabs.studio import router as studio
from app.api.elevenlabs.voices import router as voices

routers = (speech, streams, voices, cloning, studio)
