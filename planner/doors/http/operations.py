"""What the resident planner answers: one table, from which routes and the OpenAPI description are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.planner.doors.http import messages
from apportion.planner.doors.mcp.arguments import PlanArguments, ValidateArguments
from apportion.planner.doors.mcp.results import PlanResult, ValidateResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel

    from apportion.planner.doors.http.service import Service

    Path = Mapping[str, str]


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
        waits: Whether it does nothing but wait for others with what was given, so that it must not keep them out.
    """

    method: str
    path: str
    summary: str
    run: Callable[[Service, Any, Path], Any]
    takes: type[BaseModel] | None = None
    gives: type[BaseModel] | None = None
    status: int = 200
    waits: Callable[[Any], bool] | None = None


def _describe(_service: Service, _given: Any, _path: Path) -> dict[str, Any]:
    from apportion.planner.doors.http.openapi import description

    return description(OPERATIONS)


def _expand(service: Service, given: messages.Expand, path: Path) -> messages.Expanded:
    return messages.Expanded(content=service.session(path["session_id"]).expand(given.handle, given.range))


def _load(service: Service, given: messages.Load, path: Path) -> messages.Expanded:
    return messages.Expanded(content=service.session(path["session_id"]).load(given.run_id, given.name))


def _finished(service: Service, given: messages.Run, path: Path) -> messages.Done:
    service.session(path["session_id"]).finished(given.run_id)
    return messages.Done()


def _forgive(service: Service, given: messages.Run, path: Path) -> messages.Done:
    service.session(path["session_id"]).forgive(given.run_id)
    return messages.Done()


def _next_stage(service: Service, _given: Any, path: Path) -> messages.Done:
    service.session(path["session_id"]).next_stage()
    return messages.Done()


def _top_up(service: Service, given: messages.TopUp, path: Path) -> messages.Done:
    service.session(path["session_id"]).top_up(tokens=given.tokens, usd=given.usd, key=given.key)
    return messages.Done()


def _checkpoint(service: Service, _given: Any, path: Path) -> dict[str, Any]:
    return service.session(path["session_id"]).checkpoint()


SESSION = "/v1/sessions/{session_id}"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "GET",
        "/health",
        "Say whether the planner works, and what is degraded",
        lambda service, _given, _path: service.health(),
        gives=messages.Health,
    ),
    Operation("GET", "/openapi.json", "Describe all operations (OpenAPI 3.1)", _describe),
    Operation(
        "POST",
        "/v1/plan",
        "Plan a whole workflow: budgets, context, policies",
        lambda service, given, _path: service.plan(given),
        PlanArguments,
        PlanResult,
    ),
    Operation(
        "POST",
        "/v1/validate",
        "Compare a shortened text with its original: facts, constraints, similarity",
        lambda service, given, _path: service.validate(given),
        ValidateArguments,
        ValidateResult,
    ),
    Operation(
        "POST",
        "/v1/sessions",
        "Open the session of a workflow",
        lambda service, given, _path: service.open_session(given),
        messages.OpenSession,
        messages.SessionOpened,
        201,
    ),
    Operation(
        "GET",
        SESSION,
        "Say what is done and what is left",
        lambda service, _given, path: service.state(path["session_id"]),
        gives=messages.StateAnswer,
    ),
    Operation(
        "DELETE",
        SESSION,
        "End a session; calls that have not come back expire",
        lambda service, _given, path: service.close_session(path["session_id"], "expire"),
        gives=messages.StateAnswer,
    ),
    Operation(
        "POST",
        f"{SESSION}/close",
        "End a session, and say what becomes of calls that have not come back",
        lambda service, given, path: service.close_session(path["session_id"], given.pending),
        messages.Close,
        messages.StateAnswer,
    ),
    Operation(
        "POST",
        f"{SESSION}/before",
        "Plan one invocation: what to send, and how much it may use",
        lambda service, given, path: service.before(path["session_id"], given),
        messages.Before,
        messages.StepAnswer,
    ),
    Operation(
        "POST",
        f"{SESSION}/after",
        "Tell what a step used",
        lambda service, given, path: service.after(path["session_id"], given),
        messages.After,
        messages.Done,
    ),
    Operation(
        "POST",
        f"{SESSION}/spend",
        "Tell what an agent used without having asked",
        lambda service, given, path: service.spend(path["session_id"], given),
        messages.Spend,
        messages.Done,
    ),
    Operation(
        "POST",
        f"{SESSION}/ingest",
        "Hand over results as soon as they are there",
        lambda service, given, path: service.ingest(path["session_id"], given),
        messages.Ingest,
        messages.Done,
        202,
    ),
    Operation(
        "POST",
        f"{SESSION}/ready",
        "Return what was deferred and fits now",
        lambda service, given, path: service.ready(path["session_id"], given),
        messages.Wait,
        messages.StepsAnswer,
        waits=lambda given: given.timeout_s > 0,
    ),
    Operation(
        "POST", f"{SESSION}/finished", "Tell that an agent run has ended", _finished, messages.Run, messages.Done
    ),
    Operation(
        "POST",
        f"{SESSION}/forgive",
        "Let a run go on that the watchdog has refused",
        _forgive,
        messages.Run,
        messages.Done,
    ),
    Operation("POST", f"{SESSION}/next-stage", "Begin the next stage", _next_stage, gives=messages.Done),
    Operation("POST", f"{SESSION}/top-up", "Raise the budget", _top_up, messages.TopUp, messages.Done),
    Operation(
        "POST", f"{SESSION}/expand", "Return what stands behind a handle", _expand, messages.Expand, messages.Expanded
    ),
    Operation(
        "POST",
        f"{SESSION}/load",
        "Return what a run's prompt left out of what was on offer",
        _load,
        messages.Load,
        messages.Expanded,
    ),
    Operation("GET", f"{SESSION}/checkpoint", "Save the session as JSON", _checkpoint),
)
"""All operations, in the order in which they are described."""
