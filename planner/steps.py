"""What sessions say: the answer to one question, and what is done and left at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from apportion.planner.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.planner.ledger import Reservation
    from apportion.planner.live import ContextItem, SentItem
    from apportion.planner.offers import Loading, Offered
    from apportion.planner.policies import Policy


class Decision(StrEnum):
    """What becomes of an invocation."""

    RUN = "run"
    """Send what the step holds."""
    DEFER = "defer"
    """Not now: the budget does not hold it. It is offered again when tokens come free."""
    ABORT = "abort"
    """Not at all: the budget is used up, and the invocation was mandatory."""
    REFUSE = "refuse"
    """Not like this: the watchdog sees a run that goes round in circles. The budget may well hold it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One invocation as it was asked for; the fields are the arguments of `Session.before`."""

    agent: str
    items: tuple[ContextItem, ...]
    run_id: str
    model: str | None = None
    task: str = ""
    sub_agent: bool = False
    expands: bool = False
    mandatory: bool = True
    parent: str | None = None
    priority: int = 0
    policies: Sequence[Policy] = ()
    offered: tuple[Offered, ...] = ()
    folds: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The answer to one question: what to send, and how much the agent may use.

    Attributes:
        agent: Type name of the agent.
        run_id: Its context window.
        number: Number of the step within the session.
        decision: Whether to send it.
        items: What to send, piece by piece; empty unless it runs.
        max_output_tokens: Most tokens that the output may have, or `None` where nothing limits it.
        allocated_tokens: What the run may use in this stage, prompts and outputs, or `None`.
        reasons: Why it is not run, or not as it should be; empty if it is.
        saved_tokens: Prompt tokens that are not sent.
        reservation: What the ledger holds for it, or `None` without one.
        model: The model to call: the one that was asked for, or that of a simplified variant.
        variant: How it runs: `"full"`, or the variant of a policy that the plan chose.
        effort_share: Share of the usual effort that the variant stands for, in (0, 1].
        final: Whether the budget holds this call and no other: it is for handing back what there is.
        notice: What the agent should be told about its budget, or `None`.
        loading_budget_tokens: Tokens by which tools, skills and agent files may lengthen this prompt and all later
            ones; `None` where no budget limits it.
        loading: What to load of the tools, skills and agent files on offer; `None` where nothing was offered.
    """

    agent: str
    run_id: str
    number: int
    decision: Decision
    items: tuple[SentItem, ...] = ()
    max_output_tokens: int | None = None
    allocated_tokens: int | None = None
    reasons: tuple[str, ...] = ()
    saved_tokens: int = 0
    reservation: Reservation | None = None
    model: str | None = None
    variant: str = "full"
    effort_share: float = 1.0
    final: bool = False
    notice: str | None = None
    loading_budget_tokens: int | None = None
    loading: Loading | None = None

    @property
    def runs(self) -> bool:
        """Whether to make the call."""
        return self.decision is Decision.RUN

    @property
    def degraded(self) -> tuple[str, ...]:
        """Why a step that runs is not as it should be; empty if it is."""
        return self.reasons if self.runs else ()

    @property
    def contents(self) -> tuple[str, ...]:
        """The texts to send, in the order of the pieces."""
        return tuple(item.content for item in self.items)

    @property
    def offers_expand(self) -> bool:
        """Whether anything is behind a handle, so that the agent needs the way back."""
        return any(item.handle is not None for item in self.items)

    @property
    def limits(self) -> Limits:
        """The same limits in the words of those who can enforce them: `step.limits.as_anthropic()` and others."""
        return Limits(
            work_tokens=self.max_output_tokens,
            tokens=self.allocated_tokens,
            turns=1 if self.final else None,
            model=self.model,
        )


@dataclass(frozen=True, slots=True)
class HandBack:
    """What is done and what is left when a session ends.

    Attributes:
        used_tokens: Tokens of all prompts and outputs.
        used_usd: What they cost, or `None` where a price is unknown.
        saved_tokens: Prompt tokens that were not sent.
        steps: Calls that were made.
        deferred: Agent runs that wait for budget, the next one first.
        aborted: Agent runs that could not run.
        finished: Agent runs that have ended.
        pending: Agent runs whose calls have not come back.
    """

    used_tokens: int
    used_usd: float | None
    saved_tokens: int
    steps: int
    deferred: tuple[str, ...]
    aborted: tuple[str, ...]
    finished: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()


@dataclass(slots=True)
class Sums:
    """What a session has used so far, and which of its runs could not run, or have ended."""

    tokens: int = 0
    usd: float = 0.0
    priced: bool = True
    saved: int = 0
    steps: int = 0
    aborted: dict[str, None] = field(default_factory=dict)
    finished: dict[str, None] = field(default_factory=dict)
