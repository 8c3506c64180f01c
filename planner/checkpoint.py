"""A session as JSON: what it has used, what it holds, and who waits.

A checkpoint holds the contents of invocations that wait, because they are offered again; of all other prompts it holds
nothing, since the orchestrator gives its histories anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, field_serializer

from apportion.compression.loading import EntryKind  # noqa: TC001  (pydantic reads the annotations)
from apportion.errors import InputError
from apportion.planner.exhaustion import Waiting
from apportion.planner.live import ContextItem
from apportion.planner.offers import Offered
from apportion.planner.steps import Request
from apportion.records import Budget, Kind, Record, Tokens, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apportion.planner.policies import Policy

SCHEMA = "apportion.checkpoint/1"
"""What a checkpoint calls itself."""


class SavedItem(Record):
    """A piece of context that waits."""

    content: str
    kind: Kind
    name: str | None = None
    link: str | None = None
    pinned: bool = False


class SavedOffer(Record):
    """A tool, skill or agent file that was offered to an invocation that waits."""

    name: str
    content: str
    kind: EntryKind
    description: str = ""
    pinned: bool = False


class SavedRequest(Record):
    """An invocation that waits; policies are not kept, because they are code: those of the new session hold."""

    agent: str
    run_id: str
    items: tuple[SavedItem, ...]
    model: str | None = None
    task: str = ""
    sub_agent: bool = False
    expands: bool = False
    mandatory: bool = True
    parent: str | None = None
    priority: int = 0
    folds: bool = False
    since: int = 0
    needs_tokens: Tokens = 0
    passed: int = Field(default=0, ge=0)
    offered: tuple[SavedOffer, ...] = ()


class SavedStep(Record):
    """A call that has not come back."""

    number: int
    agent: str
    run_id: str
    model: str | None = None
    held_tokens: Tokens = 0
    held_nusd: int = Field(default=0, ge=0)
    allocated_tokens: Tokens | None = None
    saved_tokens: int = 0
    reservation: str | None = None


class SavedSettled(Record):
    """What was said of a call that has come back, so that saying it again changes nothing."""

    number: int
    usage: Usage | None = None

    @field_serializer("usage")
    def _plain(self, usage: Usage | None) -> dict[str, Any] | None:
        return None if usage is None else usage.model_dump(mode="json", exclude_defaults=True)


class Checkpoint(Record):
    """A session, as JSON can say it."""

    schema_name: str = SCHEMA
    workflow: str
    parent: str | None = None
    budget: Budget
    number: int = Field(ge=0)
    stage: int = Field(ge=0)
    used_tokens: Tokens
    used_usd: float
    priced: bool
    used_nusd: int = Field(ge=0)
    saved_tokens: int
    steps: int = Field(ge=0)
    plan: dict[str, float]
    pending: tuple[SavedStep, ...] = ()
    deferred: tuple[SavedRequest, ...] = ()
    aborted: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    settled: tuple[SavedSettled, ...] = ()
    keys: tuple[str, ...] = ()
    begun: tuple[str, ...] = ()
    final: tuple[str, ...] = ()


def saved_request(waiting: Waiting) -> SavedRequest:
    """Return an invocation that waits, as it is saved."""
    request = waiting.request
    items = tuple(
        SavedItem(content=one.content, kind=one.kind, name=one.name, link=one.link, pinned=one.pinned)
        for one in request.items
    )
    offered = tuple(
        SavedOffer(name=one.name, content=one.content, kind=one.kind, description=one.description, pinned=one.pinned)
        for one in request.offered
    )
    named = {name: getattr(request, name) for name in _REQUEST_FIELDS}
    return SavedRequest(
        items=items,
        offered=offered,
        since=waiting.since,
        needs_tokens=waiting.needs_tokens,
        passed=waiting.passed,
        **named,
    )


def read_request(saved: SavedRequest, policies: Sequence[Policy]) -> Waiting:
    """Return an invocation that was saved, to wait under other policies."""
    items = tuple(ContextItem(**dict(item)) for item in saved.items)
    named = {name: getattr(saved, name) for name in _REQUEST_FIELDS}
    offered = tuple(Offered(**dict(one)) for one in saved.offered)
    request = Request(items=items, policies=tuple(policies), offered=offered, **named)
    return Waiting(request, saved.since, saved.needs_tokens, saved.passed)


_REQUEST_FIELDS = (
    "agent",
    "run_id",
    "model",
    "task",
    "sub_agent",
    "expands",
    "mandatory",
    "parent",
    "priority",
    "folds",
)


def read_checkpoint(data: Mapping[str, Any]) -> Checkpoint:
    """Return a checkpoint that was written by a session.

    Raises:
        InputError: It is none, or one of another version.
    """
    try:
        checkpoint = Checkpoint.model_validate(dict(data))
    except (ValidationError, TypeError, ValueError) as error:
        kind = type(error).__name__
        raise InputError(
            f"this is no checkpoint of a session: {kind}", hint="Give what Session.checkpoint() returned"
        ) from None
    if checkpoint.schema_name != SCHEMA:
        raise InputError(f"a checkpoint of another version: {checkpoint.schema_name[:40]}", hint=f"This reads {SCHEMA}")
    return checkpoint
