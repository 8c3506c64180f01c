"""Small workflows in which agents and tools follow each other in a known way, and others drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from apportion.records import Kind, Usage
from apportion.telemetry.events import Event, LogBuilder, WorkflowLog

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


TOOLS = ("read", "search", "edit")


class Drawn:
    """Builds one workflow: stages of a main agent, which may start sub-agents, with compactions and missing counts."""

    def __init__(self, seed: int, *, stages: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = LogBuilder(f"w{seed}", source=f"project-{seed % 3}", framework=f"tool-{seed % 2}")
        self.pace = float(self.rng.lognormal(0.0, 0.5))
        """What the runs of this workflow have in common."""
        self.subs = 0
        for stage in range(stages):
            self._stage(stage)

    def _text(self, words: float) -> str:
        return " ".join(["word"] * int(self.rng.exponential(words) + 1))

    def _stage(self, stage: int) -> None:
        self.builder.add(Kind.USER, self._text(30), agent="main", agent_run="main", stage=stage)
        for _ in range(self._calls()):
            self._call("main", "main", None, stage)
            if self.rng.random() < 0.1:
                self._sub(stage)
            if self.rng.random() < 0.05:
                self.builder.add(
                    Kind.USER, self._text(10), agent="main", agent_run="main", stage=stage, compaction=True
                )

    def _calls(self) -> int:
        return 1 + int(self.rng.exponential(2.0 * self.pace))

    def _sub(self, stage: int) -> None:
        self.subs += 1
        run, agent = f"sub:{self.subs}", f"helper-{self.subs % 2}"
        self.builder.add(Kind.USER, self._text(20), agent=agent, agent_run=run, parent_agent="main", stage=stage)
        for _ in range(self._calls()):
            self._call(agent, run, "main", stage)

    def _call(self, agent: str, run: str, parent: str | None, stage: int) -> None:
        number = self.builder.next_call()
        usage = Usage(input_uncached=int(self.rng.integers(100, 5000)), output=int(self.rng.lognormal(5, 1)))
        who: dict[str, Any] = {"agent": agent, "agent_run": run, "parent_agent": parent, "stage": stage, "call": number}
        tool = TOOLS[int(self.rng.integers(len(TOOLS)))]
        self.builder.add(
            Kind.ASSISTANT, self._text(15), usage=usage if self.rng.random() < 0.8 else None, model="gpt-4o", **who
        )
        self.builder.add(Kind.TOOL_CALL, self._text(5), name=tool, **who)
        result = {**who, "call": None, "is_error": bool(self.rng.random() < 0.2)}
        self.builder.add(Kind.TOOL_RESULT, self._text(40), name=tool, **result)


@pytest.fixture(scope="session")
def draw_log() -> Callable[..., WorkflowLog]:
    """Return a function that draws a workflow by seed; one seed always gives the same."""

    def draw(seed: int, *, stages: int = 3) -> WorkflowLog:
        log = Drawn(seed, stages=stages).builder.build()
        assert log is not None
        return log

    return draw
