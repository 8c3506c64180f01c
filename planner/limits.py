"""What a plan allots to an agent run, in the words of those who can enforce it.

    limits = Limits.of(problem, plan.agents[0])
    client.beta.messages.create(..., **limits.as_anthropic())
    agent.run_sync(..., usage_limits=limits.as_pydantic_ai())

Nothing here calls anybody. Packages of others are imported only by the method that makes one of their objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.planner.plan import AgentPlan
    from apportion.planner.problem import Problem

TASK_BUDGET_BETA = "task-budgets-2026-03-13"
"""The beta header that Anthropic asks for (platform.claude.com, build-with-claude/task-budgets)."""

LEAST_TASK_BUDGET = 20_000
"""The smallest task budget that Anthropic takes, in tokens (the same page)."""

TURNS_PER_CALL = 2
"""Turns that are allowed per expected call: tokens limit the work, turns only a loop that makes no progress."""

_NUSD_PER_USD = 10**9


@dataclass(frozen=True, slots=True)
class Limits:
    """What one agent run may use; `None` means no limit.

    Attributes:
        work_tokens: Work tokens over all calls: thinking, outputs, and what tools add.
        tokens: Total tokens over all calls: prompts and outputs.
        cost_nusd: Nano-dollars over all calls.
        turns: Calls.
        model: The model that runs it.

    Raises:
        InputError: A limit is negative, or no turn is allowed.
    """

    work_tokens: int | None = None
    tokens: int | None = None
    cost_nusd: int | None = None
    turns: int | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("work_tokens", 0), ("tokens", 0), ("cost_nusd", 0), ("turns", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, not {value}", hint="None means no limit")

    @classmethod
    def of(cls, problem: Problem, agent: AgentPlan) -> Limits:
        """Return the limits that a plan sets for an agent run.

        Money is limited where the problem limits it: what a run is expected to cost is no limit by itself.

        Raises:
            InputError: The agent is deferred, and so has no limits.
        """
        if agent.variant_id is None:
            raise InputError(f"agent '{agent.agent_id}' is deferred by the plan", hint="Do not call it now")
        planned = next(one for one in problem.agents if one.id == agent.agent_id)
        variant = next(one for one in planned.variants if one.id == agent.variant_id)
        return cls(
            work_tokens=agent.work_tokens,
            tokens=agent.tokens,
            cost_nusd=None if problem.max_cost_nusd is None else agent.cost_nusd,
            turns=TURNS_PER_CALL * variant.calls,
            model=variant.model_id,
        )

    def as_max_tokens(self) -> int | None:
        """Return `max_tokens` of a request: no single answer may be longer than all the work; at least 1."""
        return None if self.work_tokens is None else max(1, self.work_tokens)

    def as_anthropic_task_budget(self, *, used_tokens: int = 0) -> dict[str, Any] | None:
        """Return Anthropic's `task_budget`, or `None` where there is no limit or it is below what Anthropic takes.

        The model sees a countdown of it and winds down in time. It advises, and enforces nothing: that is what the
        ledger is for.

        Args:
            used_tokens: Work tokens that earlier requests of the same run used.

        Raises:
            InputError: `used_tokens` is negative.
        """
        if used_tokens < 0:
            raise InputError(f"used_tokens must be at least 0, not {used_tokens}")
        if self.work_tokens is None or self.work_tokens < LEAST_TASK_BUDGET:
            return None
        budget: dict[str, Any] = {"type": "tokens", "total": self.work_tokens}
        if used_tokens:
            budget["remaining"] = max(0, self.work_tokens - used_tokens)
        return budget

    def as_anthropic(self, *, used_tokens: int = 0) -> dict[str, Any]:
        """Return arguments for Anthropic's `beta.messages.create`: `max_tokens`, and a task budget with its header."""
        arguments: dict[str, Any] = {}
        if self.work_tokens is not None:
            arguments["max_tokens"] = max(1, self.work_tokens - used_tokens)
        budget = self.as_anthropic_task_budget(used_tokens=used_tokens)
        if budget is not None:
            arguments |= {"output_config": {"task_budget": budget}, "betas": [TASK_BUDGET_BETA]}
        return arguments

    def as_claude_code(self) -> dict[str, Any]:
        """Return fields for the front matter of an agent of Claude Code: `maxTurns`, `model`."""
        fields = {"maxTurns": self.turns, "model": self.model}
        return {name: value for name, value in fields.items() if value is not None}

    def as_litellm(self) -> dict[str, Any]:
        """Return caps for a key of a LiteLLM proxy: `max_budget` in US dollars, `models`.

        LiteLLM caps money and not tokens, so where there is no limit in money there is no cap.
        """
        caps: dict[str, Any] = {}
        if self.cost_nusd is not None:
            caps["max_budget"] = self.cost_nusd / _NUSD_PER_USD
        if self.model is not None:
            caps["models"] = [self.model]
        return caps

    def as_pydantic_ai(self) -> Any:
        """Return pydantic-ai's `UsageLimits`.

        Raises:
            InputError: pydantic-ai is not installed.
        """
        try:
            from pydantic_ai.usage import UsageLimits
        except ImportError as error:
            raise InputError(
                "limits for pydantic-ai need the package pydantic-ai", hint="pip install pydantic-ai-slim"
            ) from error
        given: dict[str, Any] = {
            "request_limit": self.turns,
            "output_tokens_limit": self.work_tokens,
            "total_tokens_limit": self.tokens,
        }
        if self.cost_nusd is not None:
            given["cost_limit"] = Decimal(self.cost_nusd) / _NUSD_PER_USD
        return UsageLimits(**given)
