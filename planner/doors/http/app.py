"""The application: finds the operation, checks the body, runs it in a thread, and answers in JSON, whatever happens."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from apportion.errors import (
    ApportionError,
    BudgetExhaustedError,
    InfeasiblePlanError,
    InputError,
    LedgerError,
    StoreError,
)
from apportion.planner.doors._guards import MAX_BODY_BYTES, Guard, hosts_of
from apportion.planner.doors.http.operations import OPERATIONS
from apportion.planner.doors.http.service import UnknownSessionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from apportion.planner.doors._guards import App
    from apportion.planner.doors.http.operations import Operation
    from apportion.planner.doors.http.service import Service

AT_ONCE = 40
"""Operations that run at the same time; others wait."""

WAITING_AT_ONCE = 400
"""Operations that only wait for what others do, beside those: each is a thread that sleeps."""

STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (UnknownSessionError, 404),
    (LedgerError, 409),
    (InfeasiblePlanError, 409),
    (BudgetExhaustedError, 409),
    (StoreError, 503),
    (InputError, 422),
    (ApportionError, 400),
)
"""Status of each error; the first that fits counts."""

_log = logging.getLogger("apportion.serve")


def http_app(
    service: Service,
    *,
    token: str,
    port: int,
    names: Sequence[str] = (),
    more: Sequence[Operation] = (),
) -> App:
    """Return the application behind its guard.

    Args:
        service: What the operations do.
        token: The bearer token.
        port: The port at which it is served, which is part of Host and Origin.
        names: Further names by which it may be called.
        more: Operations beside those of `operations.OPERATIONS`.
    """
    limiters: list[anyio.CapacityLimiter] = []

    def limit(*, waits: bool = False) -> anyio.CapacityLimiter:
        if not limiters:  # made where there is an event loop
            limiters.extend((anyio.CapacityLimiter(AT_ONCE), anyio.CapacityLimiter(WAITING_AT_ONCE)))
        return limiters[waits]

    routes = [Route(one.path, _endpoint(service, one, limit), methods=[one.method]) for one in (*OPERATIONS, *more)]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
    app.router.redirect_slashes = False
    hosts = hosts_of(port, names)
    return Guard(app, token=token, hosts=hosts, told="the file that apportion serve names at the start holds it")


def _endpoint(
    service: Service, operation: Operation, limit: Callable[..., anyio.CapacityLimiter]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request) if operation.method == "POST" else b""
            key = request.headers.get("idempotency-key")

            def work() -> bytes:
                return _written(operation.run(service, _given(operation, body, key), request.path_params))

            waits = False
            if operation.waits is not None:
                given = await anyio.to_thread.run_sync(_given, operation, body, key, limiter=limit())
                waits = operation.waits(given)
            answer = await anyio.to_thread.run_sync(work, limiter=limit(waits=waits))
        except HTTPException:
            raise
        except Exception as error:  # noqa: BLE001  (a defect of ours must neither end the server nor show contents)
            return problem_of(error)
        return Response(answer, operation.status, media_type="application/json")

    return endpoint


async def _body(request: Request) -> bytes:
    """Read the body, but never more than is allowed, whatever its length claims to be."""
    told = request.headers.get("content-length", "0")
    if told.isdigit() and int(told[:12]) > MAX_BODY_BYTES:
        raise HTTPException(413, f"a body may have {MAX_BODY_BYTES:,} bytes")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise HTTPException(413, f"a body may have {MAX_BODY_BYTES:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _given(operation: Operation, body: bytes, key: str | None) -> Any:
    if operation.method != "POST":
        return None
    try:
        given = json.loads(body or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON: {type(error).__name__}", hint="Send a JSON object as UTF-8") from None
    if not isinstance(given, dict):
        raise InputError("the body is no JSON object", hint="Send an object with members")
    if operation.takes is None:
        return given
    if key is not None and "key" in operation.takes.model_fields:
        given.setdefault("key", key)
    return operation.takes.model_validate(given)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _written(answer: Any) -> bytes:
    data = answer.model_dump() if isinstance(answer, BaseModel) else answer
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()  # ASCII: lone surrogates come through


def problem_of(error: Exception) -> Response:
    """Return the answer that tells of an error: what is wrong and what to do next, without what was sent."""
    if isinstance(error, ValidationError):
        from apportion.planner.doors.mcp.arguments import refusals

        return _problem(422, "InputError", "; ".join(refusals(error)), "See /openapi.json")
    if isinstance(error, ApportionError):
        status = next(status for kind, status in STATUSES if isinstance(error, kind))
        return _problem(status, type(error).__name__, error.message, error.hint)
    _log.error("%s in an operation", type(error).__name__)
    hint = "This is a defect of apportion: go on without it only if GET /v1/sessions/ID says that budget is left"
    return _problem(500, type(error).__name__, "the operation failed", hint)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problem(error.status_code, "HTTPException", str(error.detail), None, error.headers)


def _problem(
    status: int, kind: str, detail: str, hint: str | None, headers: Mapping[str, str] | None = None
) -> Response:
    told = {"type": f"urn:apportion:{kind}", "title": kind, "status": status, "detail": detail[:2_000], "hint": hint}
    return Response(
        json.dumps(told).encode(), status, media_type="application/problem+json", headers=dict(headers or {})
    )
