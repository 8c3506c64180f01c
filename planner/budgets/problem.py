"""The budget problem: which agents want tokens, and which limits stand above them.

No solver is known here. Everything is a whole number of tokens; a record checks itself once, on construction, and
says in words what is wrong.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from apportion.errors import ProblemError
from apportion.records import Demand, Record, Tokens, content_hash

QUANTUM_TOKENS = 64
"""Budgets above the floor come in whole quanta: fine enough for an agent, coarse enough for a solver."""

PROBABILITY_SCALE = 10_000
"""Probabilities are counted in ten-thousandths, so that all values are whole numbers."""

SAFE_VALUE = 2**53
"""Largest sum that a double holds exactly: the linear relaxation inside CP-SAT works with doubles."""

Identifier = Annotated[str, Field(min_length=1)]


class AgentNeed(Record):
    """One agent run that needs a budget.

    Attributes:
        id: Names the agent run in the plan.
        stage_id: The stage in which it runs.
        demand: How many tokens it will use, prompt and output over all its calls, as quantiles.
        weight: Points that one token is worth when it is used; compares agents with each other.
        floor_tokens: What it must get at least.
        max_tokens: What it must not exceed, or `None`.
    """

    id: Identifier
    stage_id: Identifier
    demand: Demand
    weight: Annotated[int, Field(gt=0)] = 1
    floor_tokens: Tokens = 0
    max_tokens: Tokens | None = None

    @model_validator(mode="after")
    def _floor_is_below_the_cap(self) -> Self:
        if self.max_tokens is not None and self.floor_tokens > self.max_tokens:
            raise ProblemError(
                f"agent {self.id!r} must get {self.floor_tokens:,} tokens but may use only {self.max_tokens:,}",
                hint="Lower floor_tokens or raise max_tokens",
            )
        return self

    @property
    def most_tokens(self) -> int:
        """Tokens beyond which more are worthless or forbidden: the largest quantile, but within floor and cap."""
        wanted = max(self.floor_tokens, self.demand.tokens[-1])
        return wanted if self.max_tokens is None else min(wanted, self.max_tokens)


class StageCap(Record):
    """One stage of the workflow; `max_tokens` limits all its agents together, `None` means no limit."""

    id: Identifier
    max_tokens: Tokens | None = None


class BudgetProblem(Record):
    """Share the tokens of one workflow among its agents; every agent runs.

    Attributes:
        agents: Who needs tokens; at least one.
        stages: The stages that the agents name.
        max_tokens: Limit of the whole workflow, or `None`.
        reserve_tokens: Part of `max_tokens` that nobody is given: it pays for handing results back.
    """

    agents: tuple[AgentNeed, ...]
    stages: tuple[StageCap, ...]
    max_tokens: Tokens | None = None
    reserve_tokens: Tokens = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._require_agents_and_unique_ids()
        self._require_known_stages()
        self._require_reserve_within_limit()
        self._require_safe_numbers()
        return self

    @property
    def spendable_tokens(self) -> int | None:
        """What the agents may use together: the limit less the reserve, or `None` for no limit."""
        return None if self.max_tokens is None else self.max_tokens - self.reserve_tokens

    @property
    def fingerprint(self) -> str:
        """Hash of the whole problem: equal problems, and only they, have the same one."""
        return content_hash(self.model_dump_json())

    def _require_agents_and_unique_ids(self) -> None:
        if not self.agents:
            raise ProblemError("a budget problem needs at least one agent")
        for noun, ids in (("agent", [a.id for a in self.agents]), ("stage", [s.id for s in self.stages])):
            if len(set(ids)) < len(ids):
                twice = next(name for position, name in enumerate(ids) if name in ids[:position])
                raise ProblemError(f"{noun} {twice!r} is there twice", hint=f"Give each {noun} an id of its own")

    def _require_known_stages(self) -> None:
        known = {stage.id for stage in self.stages}
        for agent in self.agents:
            if agent.stage_id not in known:
                raise ProblemError(
                    f"agent {agent.id!r} names the stage {agent.stage_id!r}, which does not exist",
                    hint=f"Known stages: {', '.join(sorted(known)) or 'none'}",
                )

    def _require_reserve_within_limit(self) -> None:
        if self.reserve_tokens > (self.max_tokens or 0):
            limit = "no limit" if self.max_tokens is None else f"a limit of {self.max_tokens:,} tokens"
            raise ProblemError(
                f"a reserve of {self.reserve_tokens:,} tokens cannot be held back from {limit}",
                hint="Lower reserve_tokens or raise max_tokens",
            )

    def _require_safe_numbers(self) -> None:
        tokens = sum(agent.most_tokens for agent in self.agents)
        if tokens > SAFE_VALUE:
            raise ProblemError(f"the agents want {tokens:,} tokens together, more than 2^53: too many to add exactly")
        value = sum(
            agent.weight * 2 * PROBABILITY_SCALE * (agent.most_tokens // QUANTUM_TOKENS + 1) for agent in self.agents
        )
        if value > SAFE_VALUE:
            raise ProblemError(
                f"weights times tokens reach {value:,}, more than 2^53: too much to compare exactly",
                hint="Divide all weights by a common factor, or cap the agents",
            )
