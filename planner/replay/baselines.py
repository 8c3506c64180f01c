"""Named rules that a replay can set beside the plan: what others do, and the best known rule of thumb.

Each is a planner that decides by its rule and is billed, checked and measured as ours is. A rule is made from its name,
so a name is all that travels to another process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from apportion.errors import InfeasiblePlanError, InputError
from apportion.planner.masking import MaskPlan
from apportion.planner.planner import Birth, Invocation, InvocationPlan, PlanOptions, WorkflowPlanner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.planner.budgets.problem import BudgetProblem
    from apportion.planner.planner import Allocations, PlannerMaker

CLEARED_AGE = 10
"""Calls after which `clear-10` clears a result, and every 20 calls rule A."""

KEPT_RESULTS = 20
"""Results that `keep-last-20` keeps."""

RULE_A_PERIOD = 20
"""Calls between the clearings of rule A while the cache is warm."""

NO_BUDGET = "no budget was given: there is nothing to split, so this is our plan without one"


class Nothing(WorkflowPlanner):
    """Sends every prompt as it is; base of the rules that know no budget."""

    masks = False
    shortens = False

    def before(self, ask: Invocation) -> InvocationPlan:
        """Plan one invocation by the rule."""
        births = self.plan_births(ask)
        return InvocationPlan(
            masks=self.plan_masks(ask, births),
            births=births,
            allocated_tokens=None,
            status="OFF",
            gap=None,
            degraded=(),
            dropped=self.plan_drops(ask),
        )

    def plan_births(self, ask: Invocation) -> tuple[Birth, ...]:  # noqa: ARG002
        """Let everything enter whole."""
        return ()

    def plan_masks(self, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan:  # noqa: ARG002
        """Mask nothing."""
        return MaskPlan.nothing()

    def plan_drops(self, ask: Invocation) -> tuple[int, ...]:  # noqa: ARG002
        """Drop nothing."""
        return ()


class Clear(Nothing):
    """Masks, before every call, each result that was first sent more than some calls ago."""

    masks = True

    def plan_masks(self, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan:  # noqa: ARG002
        """Mask what is old."""
        old = ask.call - ask.prompt.column("born") > CLEARED_AGE
        return MaskPlan.nothing()._replace(items=np.flatnonzero(ask.prompt.column("maskable") & old))


class KeepLast(Nothing):
    """Drops all but the newest results, without handles: what is dropped cannot come back."""

    def plan_drops(self, ask: Invocation) -> tuple[int, ...]:
        """Drop all results but the newest ones."""
        return tuple(np.flatnonzero(ask.prompt.column("maskable"))[:-KEPT_RESULTS].tolist())


class RuleA(WorkflowPlanner):
    """Masks everything seen once when the cache is cold, and every 20 calls what is older than 10.

    It refers to repeated results as our plan does; it knows no budget.
    """

    shortens = False

    def before(self, ask: Invocation) -> InvocationPlan:
        """Plan one invocation by the rule."""
        births = self.plan_births(ask)
        return InvocationPlan(self.plan_masks(ask, births), births, None, "OFF", None, ())

    def plan_masks(self, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan:
        """Mask by age and by the state of the cache."""
        age = ask.call - ask.prompt.column("born")
        cold = ask.call > 0 and ask.cached_items == 0
        least = 1 if cold else CLEARED_AGE + 1 if ask.call % RULE_A_PERIOD == 0 else ask.call + 1
        maskable = ask.prompt.column("maskable") & (age >= least)
        maskable[[birth.copy for birth in births if birth.copy >= 0]] = False
        return MaskPlan.nothing()._replace(items=np.flatnonzero(maskable))


class EqualSplit(WorkflowPlanner):
    """Our masks and references, but each agent run, and all later stages together, gets the same part of the budget."""

    def allocate(self, problem: BudgetProblem) -> Allocations:
        """Give everybody the same.

        Raises:
            InfeasiblePlanError: The part of an agent run does not hold its next call.
        """
        if problem.spendable_tokens is None:
            return super().allocate(problem)
        part = problem.spendable_tokens // len(problem.agents)
        if any(part < agent.floor_tokens for agent in problem.agents):
            raise InfeasiblePlanError(f"{part:,} tokens each do not hold the next call")
        return {agent.id: part for agent in problem.agents}, "EQUAL", None, ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """A rule to compare with.

    Attributes:
        name: By which it is asked for.
        summary: What it does, in one line.
        planner: Makes the planner of one workflow.
        note: Says what a reader must know of its figures with the given options, or returns `None`.
    """

    name: str
    summary: str
    planner: PlannerMaker
    note: Callable[[PlanOptions], str | None] = lambda _: None


def _without_budget(options: PlanOptions) -> str | None:
    return NO_BUDGET if options.budget.max_tokens is None and options.budget.max_usd is None else None


BASELINES = {
    baseline.name: baseline
    for baseline in (
        Baseline("nothing", "send every prompt as it is", Nothing),
        Baseline("clear-10", "mask tool results older than 10 calls, at every call", Clear),
        Baseline("keep-last-20", "drop all tool results but the last 20, for good", KeepLast),
        Baseline(
            "rule-a", "mask what was seen once when the cache is cold, else every 20 calls what is older than 10", RuleA
        ),
        Baseline("equal-split", "our plan, with the budget in equal parts", EqualSplit, _without_budget),
    )
}
"""All baselines by name, in the order in which they are explained."""


def find_baselines(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of baselines, checked, each once.

    Raises:
        InputError: A name is unknown.

    >>> find_baselines(["rule-a", "Nothing", "rule-a"])
    ('rule-a', 'nothing')
    """
    found = dict.fromkeys(re.sub(r"[\s_]+", "-", name.strip().lower()) for name in names)
    for name in found:
        if name not in BASELINES:
            raise InputError(f"no baseline is called {name!r}", hint=f"Known baselines: {', '.join(BASELINES)}")
    return tuple(found)
