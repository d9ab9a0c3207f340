"""The one map from errors to the wire: a status and OpenAI's body `{"error": {"message", "type", "param", "code"}}`.

An error that cannot change the answer any more, because the response has begun, is not for here: streaming responses
end themselves (see `app.api.openai.speech`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

from app.errors import (
    AdapterUnavailable,
    AuthenticationFailed,
    CarillonError,
    Conflict,
    ConsentMissing,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    NotFound,
    ObjectMissing,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    SlowReader,
    SpeechFailed,
    StoreUnavailable,
    UnknownModel,
    UnknownVoice,
    WorkerLost,
)
from app.platform.logs import Throttle
from app.speech.field_errors import first_fault

REFUSALS_A_MINUTE = 120
"""That are logged: enough to see what a client does wrong, and some 20 MB a day from one that does nothing else."""

STATUS: dict[type[CarillonError], int] = {
    InvalidRequest: 400,
    AuthenticationFailed: 401,
    PermissionDenied: 403,
    UnknownModel: 404,
    UnknownVoice: 404,
    ObjectMissing: 404,
    NotFound: 404,
    Conflict: 409,
    ConsentMissing: 409,
    SlowReader: 408,
    RateLimited: 429,
    QuotaExceeded: 429,
    EngineFailed: 502,
    WorkerLost: 502,
    SpeechFailed: 502,
    AdapterUnavailable: 503,
    Overloaded: 503,
    StoreUnavailable: 503,
    DeadlineExceeded: 504,
}
"""A class that is absent has its nearest ancestor's status; a plain CarillonError is a 500."""

TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}

CLIENT_CLOSED_REQUEST = 499

PLACES = frozenset({"body", "query", "path", "header"})
"""What FastAPI puts before a parameter's name."""

log = logging.getLogger(__name__)
log.addFilter(Throttle(REFUSALS_A_MINUTE))


def status_of(error: CarillonError) -> int:
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def error_body(status: int, message: str, *, code: str, param: str | None = None) -> dict[str, Any]:
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


BODY = "carillon.error_body"
"""In the scope of a request to another dialect: the function that writes its errors, called as `error_body` is."""


def error_response(error: CarillonError, body_of: Callable[..., dict[str, Any]] = error_body) -> JSONResponse:
    """The whole answer for an error of ours."""
    status = status_of(error)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = body_of(status, error.message, code=error.code, param=error.param)
    return JSONResponse(body, status_code=status, headers=headers)


def invalid(error: ValidationError | RequestValidationError) -> InvalidRequest:
    """The first thing wrong with a request, by field and reason; never its contents."""
    place, reason = first_fault(error, without=PLACES)
    return InvalidRequest(f"{place or 'body'}: {reason}", param=place or None)


def _methods(request: Request) -> set[str]:
    """What the path takes, by all routes of it: the framework knows of the first one's alone.

    A route that names the path in more words than another hides it: `narrations/preview` is no narration's id.
    """
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    fewest = min((len(route.param_convertors) for route in matching), default=0)
    return {method for route in matching if len(route.param_convertors) == fewest for method in route.methods or ()}


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception of `app` in one shape."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, CarillonError)
        # `request.url` is made of the client's Host; the scope has what was asked for, and no query.
        log.info("request refused", extra={"path": request.scope["path"], "code": error.code})
        request.app.state.services.metrics.refused(error)
        return error_response(error, request.scope.get(BODY, error_body))

    async def unfit(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ValidationError | RequestValidationError)
        return await ours(request, invalid(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        words = {
            404: f"there is nothing at {request.scope['path'][:200]!r}; GET /docs shows what there is",
            405: f"{request.scope['path'][:200]!r} takes no {request.method}; GET /docs shows what it takes",
        }
        message = words.get(error.status_code, str(error.detail))
        if request.method == "OPTIONS" and "origin" in request.headers:
            message = (
                "no web page of another origin may call this front door; CARILLON_CORS_ORIGINS names those that may"
            )
        body_of = request.scope.get(BODY, error_body)
        body = body_of(error.status_code, message, code=HTTP_CODES.get(error.status_code, "http_error"))
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(sorted(_methods(request)))
        return JSONResponse(body, status_code=error.status_code, headers=headers)

    async def gone(request: Request, error: Exception) -> Response:
        # No client reads this; it keeps a client's leaving from being logged as a defect.
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    async def defect(request: Request, error: Exception) -> JSONResponse:
        # Starlette logs the traceback after this; the client gets no details of ours.
        body = error_body(500, "something failed here; the server's log has the details", code="internal_error")
        return JSONResponse(body, status_code=500)

    app.add_exception_handler(CarillonError, ours)
    app.add_exception_handler(RequestValidationError, unfit)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, defect)
