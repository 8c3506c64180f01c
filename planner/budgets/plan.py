"""What a budget plan is: who may use how many tokens, and how good that is proven to be."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.budgets.segments import SLOPE_PER_POINT
from apportion.records import Record, Share, Tokens

Value = Annotated[int, Field(ge=0)]
"""A value in whole units: points times tokens, times `SLOPE_PER_POINT / QUANTUM_TOKENS`."""


Stop = Literal["proof", "deterministic_time", "wall_time", "failure"]
"""What ended a search: a proof, one of two limits, or a model that the solver refused."""


class Allocation(Record):
    """The budget of one agent.

    Attributes:
        agent_id: The agent run.
        stage_id: Its stage.
        tokens: What it may use, prompt and output over all its calls.
        cut_off_probability: How likely it needs more than that, by its demand forecast; beyond the forecast's largest
            quantile an upper bound.
    """

    agent_id: str
    stage_id: str
    tokens: Tokens
    cut_off_probability: Share


class LimitPrice(Record):
    """A limit that binds, and what it costs.

    Attributes:
        limit: `"workflow"`, `"stage:ID"` or `"agent:ID"`.
        price: Value of one more quantum there, beyond the prices of the limits above; in units of the objective.
    """

    limit: str
    price: Annotated[int, Field(gt=0)]

    @property
    def per_1k_tokens(self) -> float:
        """Points gained by 1,000 more tokens, as long as they fill the segment that is next in turn."""
        return self.price * 1000 / SLOPE_PER_POINT


class BudgetPlan(Record):
    """Budgets for all agents of a problem, with their proof; equal problems get equal plans.

    Attributes:
        allocations: One per agent, in the order of the problem.
        objective: Value of the tokens above the floors.
        bound: What no plan can exceed, by a proof that does not come from CP-SAT.
        bound_source: How the bound was proven.
        gap: `(bound - objective) / bound`, or 0 where the bound is 0.
        status: `"OPTIMAL"` where the gap is within the solver's relative gap limit, else `"FEASIBLE"`.
        source: What made the allocations: `"cp-sat"`, or `"greedy"` where CP-SAT's answer could not be used.
        stopped_by: What ended the search: a proof, or a time limit.
        prices: The limits that bind, with their shadow prices; together they prove the bound.
        degraded: Why this is not the plan that was asked for; empty when all went well.
        fingerprint: Hash of the problem.
    """

    allocations: tuple[Allocation, ...]
    objective: Value
    bound: Value
    bound_source: str
    gap: Share
    status: Literal["OPTIMAL", "FEASIBLE"]
    source: Literal["cp-sat", "greedy"]
    stopped_by: Stop
    prices: tuple[LimitPrice, ...] = ()
    degraded: tuple[str, ...] = ()
    fingerprint: str

    @property
    def binding(self) -> tuple[str, ...]:
        """The limits that keep the plan from being better."""
        return tuple(price.limit for price in self.prices)

    @property
    def points(self) -> float:
        """The objective in points: tokens above the floors expected to be used, each times its agent's weight."""
        return self.objective * QUANTUM_TOKENS / SLOPE_PER_POINT
