"""The order in which agents of a workflow take the floor, and tools of an agent run are called.

A *trail* is such an order. It ends with `END`, so that "nothing more comes" can be forecast like anything else:

- Agents: a step is an agent that takes the floor, that is a new agent run, or in a shared context another speaker.
  That a caller goes on once its sub-agent is done is no step: it was there before. `END` ends the workflow.
- Tools: a step is a tool call of one agent run. `END` ends a turn, with an answer, so it occurs within trails too.

Only names and kinds of events are looked at, and the text that was asked, so that stored workflows without their
contents do as well as logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from apportion.records import Kind
from apportion.telemetry.stored import StoredWorkflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.telemetry.events import Event, WorkflowLog
    from apportion.telemetry.stored import StoredEvent

END = "(end)"
"""The step after which nothing comes."""

WINDOW = 16
"""How many of the latest steps can matter to a forecast."""


class Step(NamedTuple):
    """One step of a trail, with what was known before it.

    Attributes:
        workflow_id: The workflow to which it belongs.
        source: Where the log of the workflow comes from.
        agent: For tools, the agent that calls them; `None` for agents.
        history: Names of the earlier steps, at most `WINDOW`, the latest last.
        text: What was asked when the latest earlier step was taken, or `None` where it is not known.
        name: The step itself, or `END`.
    """

    workflow_id: str
    source: str
    agent: str | None
    history: tuple[str, ...]
    text: str | None
    name: str


def agent_steps(workflow: WorkflowLog | StoredWorkflow) -> Iterator[Step]:
    """Yield the steps of a workflow's agents; nothing where no model was called."""
    trail = _Trail(None)
    speaker: tuple[str, str] | None = None
    known: set[tuple[str, str]] = set()
    ask = _question(workflow)
    root = workflow.events[0].agent_run
    for event in workflow.events:
        if event.kind is Kind.USER and event.agent_run == root:
            ask = event.content or ask
        if not _written(event):
            continue
        now = (event.agent_run, event.agent)
        if now != speaker and (now not in known or (speaker is not None and speaker[0] == event.agent_run)):
            trail.take(event.agent, ask)
        known.add(now)
        speaker = now
    if trail.names:
        trail.take(END, ask)
    yield from trail.steps(workflow)


def tool_steps(workflow: WorkflowLog | StoredWorkflow) -> Iterator[Step]:
    """Yield the steps of the tools of all agent runs, run by run; nothing where no model was called."""
    trails: dict[str, _Trail] = {}
    for event in workflow.events:
        trail = trails.setdefault(event.agent_run, _Trail(event.agent))
        if event.kind is Kind.USER:
            trail.end_turn()
            trail.ask = event.content or trail.ask
        elif _written(event):
            trail.answering = True
            if event.kind is Kind.TOOL_CALL and event.name:
                trail.take(event.name, trail.ask)
    for trail in trails.values():
        trail.end_turn()
        yield from trail.steps(workflow)


@dataclass(slots=True)
class _Trail:
    """A trail while its workflow is read.

    Attributes:
        agent: For tools, the agent that calls them.
        names: The steps.
        texts: What was known to be asked before each of them.
        ask: For tools, what the run was asked last.
        answering: For tools, whether the model has written something since.
    """

    agent: str | None
    names: list[str] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    ask: str | None = None
    answering: bool = False
    _ask_at_last_step: str | None = None

    def take(self, name: str, ask: str | None) -> None:
        """Add a step. Before an agent takes the floor, only what was asked of the one before it is known."""
        self.names.append(name)
        self.texts.append(ask if self.agent is not None else self._ask_at_last_step)
        self._ask_at_last_step = ask

    def end_turn(self) -> None:
        """Let the turn end, if there was one."""
        if self.answering:
            self.take(END, self.ask)
        self.answering = False

    def steps(self, workflow: WorkflowLog | StoredWorkflow) -> Iterator[Step]:
        """Yield the steps; an agent that takes the floor first is none, because nothing is known before it."""
        about = workflow.summary if isinstance(workflow, StoredWorkflow) else workflow
        for nth in range(0 if self.agent is not None else 1, len(self.names)):
            history = tuple(self.names[max(0, nth - WINDOW) : nth])
            yield Step(about.id, about.source, self.agent, history, self.texts[nth], self.names[nth])


def _written(event: Event | StoredEvent) -> bool:
    return event.call is not None and event.kind.written_by_model


def _question(workflow: WorkflowLog | StoredWorkflow) -> str | None:
    """Return what a benchmark asked, where the log says so beside the events."""
    question = workflow.meta.get("question")
    return question if isinstance(question, str) else None
