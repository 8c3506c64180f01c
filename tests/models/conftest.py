"""Small workflows in which agents and tools follow each other in a known way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apportion.records import Kind
from apportion.telemetry.events import Event, WorkflowLog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@pytest.fixture
def workflow() -> Callable[..., WorkflowLog]:
    """Makes a workflow from `(agent_run, agent, kind, name)` of its events; only what a model writes has a call."""

    def make(events: Sequence[tuple[str, str, Kind, str | None]], **fields: Any) -> WorkflowLog:
        made = [
            Event(
                step=nth,
                agent_run=run,
                agent=agent,
                kind=kind,
                name=name,
                content=f"text {nth}",
                call=nth if kind.written_by_model else None,
            )
            for nth, (run, agent, kind, name) in enumerate(events)
        ]
        return WorkflowLog(**{"id": "one", "source": "tests", "framework": "none", "events": made, **fields})

    return make


@pytest.fixture
def relay(workflow: Callable[..., WorkflowLog]) -> Callable[..., WorkflowLog]:
    """Makes a workflow in which agents take the floor one after the other, each calling its tools."""

    def make(
        number: int, agents: Sequence[str] = ("plan", "code", "review"), *, tools: Sequence[str] = (), **fields: Any
    ) -> WorkflowLog:
        events: list[tuple[str, str, Kind, str | None]] = [("r0", agents[0], Kind.USER, None)]
        for nth, agent in enumerate(agents):
            events += [(f"r{nth}", agent, Kind.TOOL_CALL, tool) for tool in tools]
            events.append((f"r{nth}", agent, Kind.ASSISTANT, None))
        return workflow(events, **{"id": f"w{number}", **fields})

    return make
