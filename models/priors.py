"""How many tokens an agent run will need in a stage, before anything has been learned.

The prompts of an agent are nearly deterministic: each is the previous one plus what the last call added. What is
uncertain is how many calls follow. A run that starts at a prompt of C tokens, makes n calls, grows by g tokens from
call to call and puts out o tokens per call uses, prompt and output over all its calls,

    n * C + g * n * (n - 1) / 2 + n * o

tokens. It grows with n, so quantiles of n become quantiles of the demand. g and o are taken at their medians.

    PriorDemand().forecast("main", prompt_tokens=40_000, history=[StageUse(calls=4, growth_tokens=900, ...)])
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

from pydantic import Field

from apportion.errors import InputError
from apportion.records import Demand, Record, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.models.features import Caller

PROBABILITIES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Of the quantiles that are forecast, and of those in the priors."""

PRIOR_WEIGHT = 5
"""How many observations a prior is worth: after five stages of its own, a run counts as much as all others."""

MAX_TOKENS = 2**53
"""What a record can hold."""


class StageUse(Record):
    """What one agent run used in one stage.

    Attributes:
        calls: Number of model calls.
        growth_tokens: By how much the prompt grew from call to call; `None` where there was no second call.
        output_tokens: Output per call, or `None` where the log does not say.
    """

    calls: Annotated[int, Field(gt=0)]
    growth_tokens: Tokens | None = None
    output_tokens: Tokens | None = None

    @classmethod
    def of_calls(cls, prompts: Sequence[int], outputs: Sequence[int] = ()) -> Self:
        """Summarise the calls of a stage.

        The growth is the even one that gives the same total of prompt tokens: runs often grow faster at first. Where
        a compaction makes it negative, it counts as 0.

        Args:
            prompts: Prompt tokens of each call, in order; at least one.
            outputs: Output tokens of those calls for which they are known.

        >>> StageUse.of_calls([100, 200, 300], [10, 20])
        StageUse(calls=3, growth_tokens=100, output_tokens=15)
        """
        calls = len(prompts)
        added = sum(prompts) - calls * prompts[0]
        return cls(
            calls=calls,
            growth_tokens=max(0, round(2 * added / (calls * (calls - 1)))) if calls > 1 else None,
            output_tokens=round(sum(outputs) / len(outputs)) if outputs else None,
        )


class Spread(NamedTuple):
    """A distribution by its quantiles at `PROBABILITIES`, linear in between and from 0 at 0."""

    quantiles: tuple[int, ...]

    def share_up_to(self, value: int) -> float:
        """Return the probability of at most `value`; beyond the last quantile, its probability."""
        corners = ((0, 0.0), *zip(self.quantiles, PROBABILITIES, strict=True))
        for (left, low), (right, high) in pairwise(corners):
            if value < right:
                return low + (high - low) * (value - left) / (right - left)
        return PROBABILITIES[-1]


class CallPattern(NamedTuple):
    """How an agent works through a stage: calls, growth of the prompt per call, output per call."""

    calls: Spread
    growth_tokens: Spread
    output_tokens: Spread


# Measured by `python benchmarks/prior_demand.py PATHS` on logs of the coding agents Claude Code, Codex and OpenCode:
# 1,680 stages of main agents and 517 runs of sub-agents, each counted once; rounded. Output only where the log gives
# final counts. Single-question agents, such as CrewAI's examples, make 1 or 2 calls: give them a history.
PRIORS = {
    "main": CallPattern(
        calls=Spread((1, 2, 5, 12, 27, 42)),
        growth_tokens=Spread((350, 630, 1_100, 2_100, 4_100, 5_800)),
        output_tokens=Spread((200, 290, 440, 650, 1_080, 1_370)),
    ),
    "sub": CallPattern(
        calls=Spread((6, 9, 11, 14, 18, 19)),
        growth_tokens=Spread((2_500, 4_300, 6_900, 10_800, 14_800, 17_800)),
        output_tokens=Spread((240, 350, 500, 630, 790, 880)),
    ),
}
"""How main agents (per stage, that is per user turn) and sub-agents (per run) work."""


class Mixture(NamedTuple):
    """A prior, worth `PRIOR_WEIGHT` observations, mixed with real observations.

    >>> calls = PRIORS["main"].calls
    >>> Mixture(calls, ()).quantile(0.5), Mixture(calls, (20,) * 5).quantile(0.5)
    (5, 20)
    """

    prior: Spread
    observations: tuple[int, ...]

    def quantile(self, probability: float) -> int:
        """Return the smallest whole number that is not exceeded with the given probability."""
        return _quantile(self, probability)

    def share_up_to(self, value: int) -> float:
        """Return the probability of at most `value`."""
        seen = sum(observation <= value for observation in self.observations)
        return (PRIOR_WEIGHT * self.prior.share_up_to(value) + seen) / (PRIOR_WEIGHT + len(self.observations))


@lru_cache(maxsize=1 << 14)
def _quantile(mixture: Mixture, probability: float) -> int:
    """Return a quantile; every new run of a stage asks for the same ones of all the others."""
    candidates = range(max(mixture.prior.quantiles[-1], *mixture.observations, 0) + 1)
    return bisect_left(candidates, probability - 1e-9, key=mixture.share_up_to)


class PriorDemand:
    """Forecasts demand from documented priors and from what the same workflow used before.

    Nothing is learned ahead: the priors stand in this file. Forecasts say so by their sample size, which counts the
    history only.
    """

    def forecast(
        self,
        role: str,
        *,
        prompt_tokens: int,
        history: Sequence[StageUse] = (),
        caller: Caller | None = None,  # noqa: ARG002  (the priors know roles only)
        features: Sequence[float] | None = None,  # noqa: ARG002
    ) -> Demand:
        """Return the demand of one agent run in one stage, as quantiles at `PROBABILITIES`.

        Args:
            role: `"main"` for the main agent, `"sub"` for one that it started.
            prompt_tokens: Size of the prompt with which the run starts the stage.
            history: What the same workflow used so far: the run's earlier stages, or earlier runs of its kind.
            caller: Not used.
            features: Not used.

        Raises:
            InputError: The role is unknown.

        >>> PriorDemand().forecast("main", prompt_tokens=40_000).tokens
        (40440, 81980, 213200, 557880, 1477980, 2645580)
        """
        calls, growth, output = self._with_history(role, history)
        growth_tokens, output_tokens = growth.quantile(0.5), output.quantile(0.5)
        totals = [
            count * (prompt_tokens + output_tokens) + growth_tokens * count * (count - 1) // 2
            for count in [calls.quantile(probability) for probability in PROBABILITIES]
        ]
        return Demand(
            probabilities=PROBABILITIES,
            tokens=tuple(min(total, MAX_TOKENS) for total in totals),
            sample_size=len(history),
        )

    def per_call(
        self,
        role: str,
        *,
        history: Sequence[StageUse] = (),
        caller: Caller | None = None,  # noqa: ARG002
    ) -> tuple[int, int]:
        """Return the median growth of the prompt from call to call, and the median output of a call, in tokens.

        Args:
            role: `"main"` or `"sub"`.
            history: What the same workflow used so far.
            caller: Not used.

        Raises:
            InputError: The role is unknown.

        >>> PriorDemand().per_call("main")
        (1100, 440)
        """
        _, growth, output = self._with_history(role, history)
        return growth.quantile(0.5), output.quantile(0.5)

    def overhead_tokens(self, _caller: Caller) -> None:
        """Return `None`: how large system prompt and tool schemas are, no prior tells."""

    def _with_history(self, role: str, history: Sequence[StageUse]) -> tuple[Mixture, Mixture, Mixture]:
        """Mix the prior of a role with a history, for calls, growth and output each."""
        if role not in PRIORS:
            raise InputError(f"no prior for the role {role!r}", hint=f"Known roles: {', '.join(PRIORS)}")
        prior = PRIORS[role]
        return (
            Mixture(prior.calls, tuple(use.calls for use in history)),
            Mixture(prior.growth_tokens, tuple(u.growth_tokens for u in history if u.growth_tokens is not None)),
            Mixture(prior.output_tokens, tuple(u.output_tokens for u in history if u.output_tokens is not None)),
        )
