"""What replaying one workflow finds: plain sums that can be added up and sent between processes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from apportion.records import Usage

if TYPE_CHECKING:
    from apportion.planner.replay.loading import RunLoading

NO_PROMPT_USAGE = "no prompt usage in the log: invisible overhead taken as 0"
NO_OUTPUT_USAGE = "no output usage in the log: output counted from its text"
"""Reasons why figures of a workflow are estimated."""

LOST_ORIGINAL = "an original did not come back from the handle store"
"""Why something was left whole, or was not recoverable."""


@dataclass(slots=True)
class Totals:
    """Sums of one workflow, or of many added up; pairs are (baseline, planned)."""

    workflows: int = 0
    calls: int = 0
    agents: int = 0
    usage: Usage = field(default_factory=Usage)
    visible: tuple[float, float] = (0.0, 0.0)
    real: tuple[float, float] = (0.0, 0.0)
    transmitted: tuple[float, float] = (0.0, 0.0)
    bill: tuple[float, float] = (0.0, 0.0)
    priced_workflows: int = 0
    kept_prefix: tuple[float, float] = (0.0, 0.0)
    previous_prompt: tuple[float, float] = (0.0, 0.0)
    facts: tuple[int, int, int] = (0, 0, 0)
    """Facts in the baseline prompts; of these visible, and recoverable, as planned."""
    support: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Facts that next actions used; of these visible, visible after expansion, and recoverable."""
    expansions: int = 0
    read_simulated: tuple[float, float] = (0.0, 0.0)
    """Tokens read from cache, and prompt tokens, of the calls whose cache reads are logged."""
    read_logged: tuple[float, float] = (0.0, 0.0)
    bill_of_logged: tuple[float, float] = (0.0, 0.0)
    """The baseline's bill of the calls whose logged usage has a price: as simulated, and as that usage costs."""

    def __iadd__(self, other: Totals) -> Self:
        """Add the sums of another."""
        for name in (column.name for column in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, add_pairs(mine, theirs) if isinstance(mine, tuple) else mine + theirs)
        return self


def add_pairs(left: tuple[Any, ...], right: tuple[Any, ...]) -> tuple[Any, ...]:
    """Add two tuples of numbers, position by position."""
    return tuple(mine + theirs for mine, theirs in zip(left, right, strict=True))


@dataclass(frozen=True, slots=True)
class CallFigures:
    """One call as logged and as planned, for charts."""

    agent: str
    call: int
    visible: tuple[int, int]
    bill: tuple[float, float] | None
    stage: int = 0


@dataclass(frozen=True, slots=True)
class PlanFigures:
    """One plan: how long it took and what came of it."""

    ms: float
    status: str
    gap: float | None
    degraded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Planned against used, for one agent run in one stage."""

    agent: str
    likely_tokens: int
    allocated_tokens: int | None
    used_tokens: float
    stage: int = 0


class NextFigures(NamedTuple):
    """What was forecast of one agent that took the floor next: how sure, whether it came, whether it would be used.

    `named` is whether an agent was forecast, and `came` whether one came, not the end.
    `after` is the agent that had the floor before, `predicted` the one that was forecast.
    """

    confidence: float
    hit: bool
    sure: bool
    named: bool = True
    came: bool = True
    after: str = ""
    predicted: str = ""


class ActionFigures(NamedTuple):
    """What was done to pieces of context, added up.

    Attributes:
        pieces: How many.
        tokens: Their visible tokens.
        sent_tokens: Visible tokens of what was sent in their place.
        saved_tokens: Visible tokens saved over all calls, before expansions are charged.
        fetched: Pieces that a later output needed, each charged as fetched back.
    """

    pieces: int
    tokens: int
    sent_tokens: int
    saved_tokens: int
    fetched: int


@dataclass(frozen=True, slots=True)
class LeftOutFigures:
    """One piece of context that was left out behind a handle."""

    agent: str
    call: int
    kind: str
    tool: str | None
    action: str
    reason: str
    tokens: int
    sent_tokens: int
    saved_tokens: int
    fetched: bool
    handle: str | None = None
    head: str | None = None


@dataclass(slots=True)
class WorkflowResult:
    """What replaying one workflow found."""

    id: str
    source: str
    framework: str
    origin: str
    totals: Totals
    calls: list[CallFigures] = field(default_factory=list)
    plans: list[PlanFigures] = field(default_factory=list)
    stages: list[StageFigures] = field(default_factory=list)
    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)
    runs_by_agent: dict[str, int] = field(default_factory=dict)
    tokens_used: tuple[float, float] = (0.0, 0.0)
    calls_beyond: tuple[int, int] = (0, 0)
    degraded: set[str] = field(default_factory=set)
    against: dict[str, WorkflowResult] = field(default_factory=dict)
    """What the named baselines would have come to: sums only."""
    unpriced_models: set[str | None] = field(default_factory=set)
    """Models without a known price, as logged; `None` stands for calls whose log names no model."""
    next_agents: list[NextFigures] = field(default_factory=list)
    """What trained models forecast of the order of agents, and what came."""
    loadings: list[RunLoading] = field(default_factory=list)
    """What is known of the fixed overhead of each run, and which tools it used."""
    actions: dict[tuple[str, str, str], ActionFigures] = field(default_factory=dict)
    """What was done to pieces of context, by agent, action and reason."""
    left_out: list[LeftOutFigures] = field(default_factory=list)
    """The pieces that were left out, those that saved most first; no more than are kept."""
    left_out_pieces: int = 0
    """How many there were."""

    def sums(self) -> WorkflowResult:
        """Return the same without what is known of single calls, plans and stages."""
        return replace(
            self,
            calls=[],
            plans=[],
            stages=[],
            kinds={},
            runs_by_agent={},
            against={},
            next_agents=[],
            actions={},
            left_out=[],
            loadings=[],
        )
