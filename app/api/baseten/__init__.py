"""The socket of Baseten's Orpheus deployments, as LiveKit's plugin speaks it; CLIENTS.md says what it needs."""

from app.api.baseten.stream import router as stream

routers = (stream,)
