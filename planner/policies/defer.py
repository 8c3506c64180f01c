"""Deferring: an agent does not run now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.planner.policies.types import BasePolicy, Offer

if TYPE_CHECKING:
    from collections.abc import Collection

    from apportion.planner.problem import Agent, Problem


class Defer(BasePolicy):
    """Allow agents to be deferred; whoever needs their results is then deferred too, or keeps them running.

    Args:
        agent_ids: The agents that may be; by default all.
    """

    name = "defer"

    def __init__(self, agent_ids: Collection[str] | None = None) -> None:
        self.agent_ids = agent_ids

    def offer(self, agent: Agent, problem: Problem) -> Offer:  # noqa: ARG002  (the protocol's)
        """Offer that the agent need not run."""
        return Offer(may_defer=self.agent_ids is None or agent.id in self.agent_ids)
