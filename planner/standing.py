"""The planner of live sessions: a plan stands until something telling changes, and the next one is made ahead.

What leaves a prompt is not worth asking anew before every call: nothing that the cache holds has changed, and the
pieces that are new are seen whole first. So after a call, while the model or the tools work, the plan for the next
one is made from the prompt as it then stands (`prepare`), and the next `before` takes it up. It is asked anew at once
where something telling has changed: the cache has run out, or a hard limit would be broken. A plan that does not fit
what has come is not used, and the prompt stays as it is for one more call.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.masking import MaskPlan
from apportion.planner.planner import WorkflowPlanner, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.budgets.plan import BudgetPlan
    from apportion.planner.budgets.problem import BudgetProblem
    from apportion.planner.planner import Birth, Invocation, PlanOptions


class _Prepared(NamedTuple):
    """A plan that was made ahead: for which call, for how many items, all of them cached, and what leaves."""

    call: int
    items: int
    masks: MaskPlan


class StandingPlanner(WorkflowPlanner):
    """Plans one workflow, invocation by invocation, with masks that are planned ahead.

    Args:
        options: What the user wants.
        solve: Solves a budget problem.
        ahead: Whether anybody calls `prepare` between calls; else masks are planned when they are asked for.
    """

    def __init__(
        self, options: PlanOptions, *, solve: Callable[[BudgetProblem], BudgetPlan], ahead: bool = True
    ) -> None:
        super().__init__(options, solve=solve)
        self._ahead = ahead
        self._prepared: dict[str, _Prepared] = {}

    def plan_masks(self, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan:
        """Return the masks that were planned ahead, or plan them where something telling has changed."""
        prepared = self._prepared.pop(ask.run_id, None)
        if not self._ahead:
            return super().plan_masks(ask, births)
        if not bool((ask.prompt.column("maskable") & (ask.prompt.column("born") < ask.call)).any()):
            return MaskPlan.nothing()
        if self._telling(ask):
            return super().plan_masks(ask, births)
        if prepared is None or (prepared.call, prepared.items) != (ask.call, ask.cached_items):
            return MaskPlan.nothing()
        return _without(prepared.masks, ask, births)

    def plan_jointly(self, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan | None:
        """Return nothing where plans are made ahead: the joint problem was solved then."""
        return None if self._ahead else super().plan_jointly(ask, births)

    def shadow(self) -> StandingPlanner:
        """Return a copy that plans from what is known now, whatever happens meanwhile."""
        other = copy.copy(self)
        other._ahead = False  # noqa: SLF001  (our own)
        other.stages = dict(self.stages)
        other._history = self._history.copy()  # noqa: SLF001  (our own)
        other._prepared = {}  # noqa: SLF001  (our own)
        return other

    def masks_for(self, ask: Invocation) -> MaskPlan:
        """Return which items should leave before a call, from the joint problem where tokens are short; takes long."""
        masks, joint = self.plan_masks(ask, ()), self.plan_jointly(ask, ())
        if joint is not None and not masks.forced and joint.saved_tokens > masks.saved_tokens:
            return joint
        return masks

    def prepare(self, ask: Invocation, masks: MaskPlan) -> None:
        """Take up what was planned for the next call of a run; see `masks_for`."""
        if masks.items.size and not masks.forced:
            self._prepared[ask.run_id] = _Prepared(ask.call, len(ask.prompt), masks)

    def forget(self, run_id: str) -> None:
        """Drop what was planned ahead for a run."""
        self._prepared.pop(run_id, None)

    def top_up(self, tokens: int, usd: float) -> None:
        """Raise the limits, where there are any."""
        budget = self.options.budget
        more = {
            "max_tokens": None if budget.max_tokens is None else budget.max_tokens + tokens,
            "max_usd": None if budget.max_usd is None else budget.max_usd + usd,
        }
        self.options = replace(self.options, budget=budget.model_copy(update=more))

    def expected_call(self, ask: Invocation) -> tuple[int, int]:
        """Return the expected growth of the prompt from call to call, and the expected output of a call, in tokens."""
        history = self._history[kind_of(ask)]
        return self.forecasts.demand.per_call(ask.role, history=history, caller=ask.caller)

    def state(self) -> dict[str, object]:
        """Return what is worth keeping of past calls, as JSON can say it."""
        return {
            "spent_tokens": self._spent_tokens,
            "cost": self._cost,
            "cost_unplanned": self._cost_unplanned,
            "sure": self._sure,
            "visible": self._visible,
            "visible_unplanned": self._visible_unplanned,
        }

    def restore(self, state: dict[str, float]) -> None:
        """Take up what `state` returned."""
        self._spent_tokens = float(state["spent_tokens"])
        self._cost, self._cost_unplanned = float(state["cost"]), float(state["cost_unplanned"])
        self._sure = float(state["sure"])
        self._visible, self._visible_unplanned = int(state["visible"]), int(state["visible_unplanned"])

    def _telling(self, ask: Invocation) -> bool:
        """Say whether the masks have to be planned now: the cache is cold, or a hard limit would be broken."""
        if ask.cached_items == 0:
            return True
        prompt_tokens = ask.overhead_tokens + float(ask.prompt.column("tokens").sum())
        if ask.context_window is not None and prompt_tokens > ask.context_window / min(1.0, ask.calibration):
            return True
        return self._beyond_budget(prompt_tokens, float("inf")) > 0


def _without(masks: MaskPlan, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan:
    """Return the masks without those items that new ones refer to, or that may not be masked any more."""
    keep = ask.prompt.column("maskable")[masks.items]
    copies = [birth.copy for birth in births if birth.copy >= 0]
    if copies:
        keep = keep & ~np.isin(masks.items, copies)
    if bool(keep.all()):
        return masks
    return masks._replace(items=masks.items[keep], saved_tokens=masks.saved_tokens * float(keep.mean()))
