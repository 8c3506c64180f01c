"""Simplifying: an agent runs with less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.planner.policies.types import BasePolicy, Offer
from apportion.planner.problem import Variant

if TYPE_CHECKING:
    from collections.abc import Collection

    from apportion.planner.problem import Agent, Model, Problem
    from apportion.records import Demand


class Simplify(BasePolicy):
    """Add a simplified variant: another model, less effort, or fewer tools.

    The defaults stand for half the effort with the same model, at 70 % of the worth; measure yours.

    Args:
        model: Another model, or `None` for the same.
        effort_share: Work tokens that it then needs, as a share.
        calls_share: Calls that it then makes, as a share; fewer tools mean fewer calls.
        value_share: What it is then worth that the agent runs, as a share.
        agent_ids: The agents that may be simplified; by default all.
        variant_id: How the variant is called; an agent that has it already gets no offer.
    """

    name = "simplify"

    def __init__(
        self,
        *,
        model: Model | None = None,
        effort_share: float = 0.5,
        calls_share: float = 1.0,
        value_share: float = 0.7,
        agent_ids: Collection[str] | None = None,
        variant_id: str = "simplified",
    ) -> None:
        self.model = model
        self.effort_share = effort_share
        self.calls_share = calls_share
        self.value_share = value_share
        self.agent_ids = agent_ids
        self.variant_id = variant_id

    def offer(self, agent: Agent, problem: Problem) -> Offer:  # noqa: ARG002  (the protocol's)
        """Offer the first variant, simplified."""
        chosen = self.agent_ids is None or agent.id in self.agent_ids
        if not chosen or any(variant.id == self.variant_id for variant in agent.variants):
            return Offer()
        models = () if self.model is None else (self.model,)
        return Offer(variants=(self._simplified(agent.variants[0]),), models=models)

    def _simplified(self, full: Variant) -> Variant:
        return Variant(
            id=self.variant_id,
            model_id=full.model_id if self.model is None else self.model.id,
            demand=self._scaled(full.demand),
            weight=full.weight,
            value_points=round(full.value_points * self.value_share),
            floor_tokens=round(full.floor_tokens * self.effort_share),
            max_tokens=full.max_tokens,
            contingency_tokens=round(full.contingency_tokens * self.effort_share),
            calls=max(1, round(full.calls * self.calls_share)),
            latency_ms=full.latency_ms,
        )

    def _scaled(self, demand: Demand) -> Demand:
        tokens = tuple(round(tokens * self.effort_share) for tokens in demand.tokens)
        return demand.model_copy(update={"tokens": tokens})
