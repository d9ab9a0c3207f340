"""`openapi.json` as a contract: what FastAPI finds, with the key, answers, failures and examples that it cannot know.

It names the routes that need no key and those with an example; what each answers with is `app.api.answers`. A route
that is named in neither has FastAPI's own description, with the key and the failures.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.answers import ANSWERS, Answer
from app.api.errors import HTTP_CODES, status_of
from app.errors import CarillonError

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

EVENT = {
    "type": "object",
    "description": "One event of a stream of server-sent events.",
    "required": ["data"],
    "properties": {
        "data": {"type": "string", "description": "JSON."},
        "event": {"type": "string"},
        "id": {"type": "string"},
    },
}

EXAMPLES: dict[tuple[str, str], Any] = {
    ("post", SPEECH_PATH): {
        "model": "tts-1",
        "voice": "alloy",
        "input": "The bells are ringing.",
        "response_format": "wav",
    },
    ("post", "/v1/voices"): {"name": "ada", "language": "en"},
    ("post", "/v1/voices/{voice_id}/rollback"): {"version": 1},
    ("post", "/v1/voices/{voice_id}/uploads"): {"files": [{"file_name": "001.flac", "size_bytes": 1200000}]},
    ("post", "/v1/clones"): {"voice": "voice_0123456789ab", "overrides": {"train": {"epochs": 3}}},
    ("post", "/v1/narrations"): {"voice": "wren", "text": "# One\n\nThe bells are ringing.", "kind": "markdown"},
    ("put", "/v1/pronunciations"): {"words": {"GIF": "jif", "nginx": "engine x"}},
    ("put", "/v1/voices/{name}/pronunciations"): {"words": {"Nguyen": "win"}},
    ("post", "/v1/keys"): {"name": "web", "scopes": ["speak"], "days": 90},
    ("post", "/v1/fleet/workers/{id}/drain"): {"deadline_s": 60},
}

FILE_PATHS = frozenset(
    f"/v1/narrations/{{narration_id}}/{file}"
    for file in ("audio", "captions.vtt", "captions.srt", "chapters", "segments", "segments/{number}/audio")
)
"""Which there are none of before a narration is finished."""

CHANGING = frozenset({"post", "put", "patch", "delete"})


def describe(app: FastAPI, *, max_input_chars: int) -> None:
    """Let `app` serve the contract; it is made at the first request and kept."""

    def contract() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _contract(app, max_input_chars)
        return app.openapi_schema

    app.openapi = contract


def _contract(app: FastAPI, max_input_chars: int) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = document.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}}
    schemas = components.setdefault("schemas", {})
    schemas["Error"] = ERROR
    schemas["Event"] = EVENT
    for unused in ("HTTPValidationError", "ValidationError"):  # a field that is wrong is a 400 here, in our shape
        schemas.pop(unused, None)
    references = _add_answers(schemas)
    for path, method, operation in _operations(document):
        if path not in OPEN_PATHS:
            operation["security"] = [{"key": []}]
        _name_body(operation, schemas, EXAMPLES.get((method, path)))
        if answer := ANSWERS.get((method, path)):
            _describe_success(operation["responses"], answer, references)
        _describe_failures(operation, path, method)
    schemas["SpeechRequest"]["properties"]["input"]["maxLength"] = max_input_chars
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _add_answers(schemas: dict[str, Any]) -> dict[Any, Any]:
    """Put the answers' models among the schemas; returns where each is."""
    found = [model for it in ANSWERS.values() for model in (it.model, *(other for _, other in it.others.values()))]
    models = [(model, "serialization") for model in found if model]
    references, definitions = models_json_schema(
        list(dict.fromkeys(models)),  # type: ignore[arg-type]
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(definitions["$defs"])
    return {model: reference for (model, _), reference in references.items()}


def _name_body(operation: dict[str, Any], schemas: dict[str, Any], example: Any) -> None:
    """Let a JSON body be known by its name, for generators, and show one."""
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is None:
        return
    name = body["schema"].get("title")
    if name and schemas.setdefault(name, body["schema"]) == body["schema"]:
        body["schema"] = {"$ref": f"#/components/schemas/{name}"}
    if example is not None:
        body["example"] = example


def _describe_success(responses: dict[str, Any], answer: Answer, references: dict[Any, Any]) -> None:
    success = next(response for status, response in responses.items() if status.startswith("2"))
    success["description"] = answer.description or success["description"]
    for status, (description, model) in answer.others.items():
        content = {"content": {"application/json": {"schema": references[model]}}} if model else {}
        responses[str(status)] = {"description": description, **content}
    if answer.model:
        success["content"] = {"application/json": {"schema": references[answer.model]}}
        return
    success["content"] = {kind: {"schema": _schema_of(kind)} for kind in answer.media_types}


def _schema_of(media_type: str) -> dict[str, Any]:
    """Of a body that is no JSON. A stream of events is described by one of them: OpenAPI has no stream before 3.2."""
    if media_type == "text/event-stream":
        return {"$ref": "#/components/schemas/Event"}
    return {"type": "string"} if media_type.startswith("text/") else {"type": "string", "format": "binary"}


def _describe_failures(operation: dict[str, Any], path: str, method: str) -> None:
    """Every status that the operation can fail with, and the codes that have it."""
    responses = operation["responses"]
    responses.pop("422", None)
    has_body = "requestBody" in operation
    possible = {400: has_body or operation.get("parameters"), 401: "security" in operation, 403: True}
    possible |= {404: "{" in path or has_body, 408: has_body, 409: method in CHANGING or path in FILE_PATHS}
    possible |= {413: has_body, 503: path not in ("/healthz", "/version"), 500: True}
    possible |= dict.fromkeys((502, 504), path == SPEECH_PATH)
    codes = _codes()
    for status in sorted(status for status, may in possible.items() if may):
        responses.setdefault(str(status), _failure(f"{HTTPStatus(status).phrase}: {', '.join(codes[status])}"))
    responses["default"] = _failure("Another failure")


def _failure(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _codes() -> dict[int, list[str]]:
    """The codes of errors by the status that they have."""
    found: dict[int, set[str]] = {}
    kinds = [CarillonError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        found.setdefault(status_of(kind("")), set()).add(kind.code)
    for status, code in HTTP_CODES.items():
        found.setdefault(status, set()).add(code)
    found.setdefault(408, set()).add("http_error")
    return {status: sorted(codes) for status, codes in found.items()}
