"""Turns errors into answers: one table from the branches of `errors` to HTTP.

No answer carries a traceback, a secret, or a driver's or store's own words.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from snapshed import errors
from snapshed.errors import MissingImages, PlanChanged, SnapshedError, Unavailable
from snapshed.logs import logger

_STATUS: dict[type[SnapshedError], int] = {
    errors.Invalid: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.Unsupported: 501,
    errors.Refused: 400,
    errors.Unavailable: 503,
    errors.Broken: 500,
}

_RETRY_SECONDS = "5"

_log = logger("problems")

Page = Callable[[Request, int, str], Response]


def status_of(error: SnapshedError) -> int:
    """The HTTP status of an error: that of the nearest class of its line in the table."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return 500


def sentence_of(error: SnapshedError) -> str:
    """What the caller is told."""
    if status_of(error) < 500 or isinstance(error, Unavailable | errors.Unsupported):
        return str(error)
    return "Something that must never happen has happened; everything is kept. The log has the details."


def install(app: FastAPI, page: Page) -> None:
    """Answer every error: JSON for programs, `page` for people."""

    def answer(request: Request, status: int, detail: str, extra: dict[str, object]) -> Response:
        path = request.url.path
        is_program = path.startswith(("/api/", "/v1/")) or path in ("/metrics", "/openapi.json")
        response = JSONResponse({"detail": detail, **extra}, status) if is_program else page(request, status, detail)
        if status == 503 and not path.startswith("/v1/"):
            response.headers["retry-after"] = _RETRY_SECONDS
        if status == 401 and path.startswith("/api/"):
            response.headers["www-authenticate"] = "Bearer"
        return response

    @app.exception_handler(SnapshedError)
    def known(request: Request, error: SnapshedError) -> Response:  # pyright: ignore[reportUnusedFunction]
        status = status_of(error)
        if status >= 500 and status != 501:
            _log.error("request failed", error_class=error.code, path=request.url.path, status=status)
        extra: dict[str, object] = {}
        if isinstance(error, MissingImages):
            extra["missing"] = error.digests
        if isinstance(error, PlanChanged):
            extra |= {"plan": error.plan, "difference": error.difference}
        return answer(request, status, sentence_of(error), extra)

    @app.exception_handler(HTTPException)
    def routing(request: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        return answer(request, error.status_code, str(error.detail), {})

    @app.exception_handler(RequestValidationError)
    def validation(request: Request, error: RequestValidationError) -> Response:  # pyright: ignore[reportUnusedFunction]
        first = error.errors()[0]
        where = ".".join(str(part) for part in first.get("loc", ())[1:])
        return answer(request, 400, f"The parameter {where} is wrong: {first.get('msg', 'unreadable')}.", {})

    @app.exception_handler(ClientDisconnect)
    def left(request: Request, error: ClientDisconnect) -> Response:  # pyright: ignore[reportUnusedFunction]
        del request, error
        return Response(status_code=400)  # nobody reads it

    @app.exception_handler(Exception)
    def unknown(request: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        reference = uuid.uuid4().hex[:12]
        _log.error("request broke", reference=reference, path=request.url.path, exc_info=error)
        return answer(request, 500, f"Internal error; the log has it under {reference}.", {})
