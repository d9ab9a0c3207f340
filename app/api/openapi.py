"""`openapi.json` as a contract: what FastAPI finds, with the key, the failures and the bodies that it cannot know.

It does not know the routes, but for those that need no key and those that send audio.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.platform.codecs import CONTENT_TYPES

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/version", "/metrics", "/v1/sessions/reference"})

SPEECH_PATH = "/v1/audio/speech"

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "The value that is wrong, and the remedy."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field that is wrong."},
                "code": {"type": "string", "description": "Stable, for programs; ERRORS.md lists them."},
            },
        }
    },
    "example": {
        "error": {
            "message": "voice 'wern' does not exist; the nearest are: wren",
            "type": "invalid_request_error",
            "param": "voice",
            "code": "unknown_voice",
        }
    },
}

SPEECH_EXAMPLE = {"model": "tts-1", "voice": "alloy", "input": "The bells are ringing.", "response_format": "wav"}


def describe(app: FastAPI) -> None:
    """Let `app` serve the contract; it is made at the first request and kept."""

    def contract() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _contract(app)
        return app.openapi_schema

    app.openapi = contract


def _contract(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
    schemas = components.setdefault("schemas", {})
    schemas["Error"] = ERROR
    for unused in ("HTTPValidationError", "ValidationError"):  # a field that is wrong is a 400 here, in our shape
        schemas.pop(unused, None)
    failure = {
        "description": "A failure",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = failure
            if path not in OPEN_PATHS:
                operation["security"] = [{"key": []}]
    speak = document["paths"][SPEECH_PATH]["post"]
    speak["requestBody"]["content"]["application/json"]["example"] = SPEECH_EXAMPLE
    speak["responses"]["200"] = {"description": "Audio, sent as it is made", "content": _speech_bodies()}
    return document


def _speech_bodies() -> dict[str, Any]:
    audio = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in CONTENT_TYPES}
    return {**audio, "text/event-stream": {"schema": {"type": "string"}}}
