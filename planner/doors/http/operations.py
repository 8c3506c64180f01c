"""What the resident planner answers: one table, from which routes and the OpenAPI description are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.planner.doors.http import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

    from apportion.planner.doors.http.service import Service


class Operation(NamedTuple):
    """One thing that can be asked for.

    Attributes:
        method: `"GET"`, `"POST"` or `"DELETE"`.
        path: With the names of its parts in braces: `/v1/sessions/{session_id}`.
        summary: What it does, in one line.
        run: Does it: gets the service, what was given, and the parts of the path; may block.
        takes: The record of the body; `None`: a JSON object as it is, or no body for `GET` and `DELETE`.
        gives: The record of the answer; `None`: any JSON object.
        status: Of the answer when all is well.
    """

    method: str
    path: str
    summary: str
    run: Callable[[Service, Any, Mapping[str, str]], Any]
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    status: int = 200


def _health(service: Service, _given: Any, _path: Mapping[str, str]) -> messages.Health:
    return service.health()


def _describe(_service: Service, _given: Any, _path: Mapping[str, str]) -> dict[str, Any]:
    from apportion.planner.doors.http.openapi import description

    return description(OPERATIONS)


OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/health", "Say whether the planner works, and what is degraded", _health, None, messages.Health),
    Operation("GET", "/openapi.json", "Describe all operations (OpenAPI 3.1)", _describe),
)
"""All operations, in the order in which they are described."""
