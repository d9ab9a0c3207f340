"""Cartesia's API as its SDK and the frameworks' plugins call it; CLIENTS.md says what each needs.

    speech.py     one text over HTTP: bytes, or events with the times of its words
    stream.py     the socket, with any number of contexts beside each other
    voices.py     voices, as a listing

A translator: sessions, voices and limits are the fleet's own. All versions (`Cartesia-Version`) are answered alike.
"""

from app.api.cartesia.speech import router as speech
from app.api.cartesia.stream import router as stream
from app.api.cartesia.voices import router as voices

routers = (speech, stream, voices)
