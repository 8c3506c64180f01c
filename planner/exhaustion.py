"""What happens where the budget does not hold the next call: it is simplified, is the last one, waits, or is aborted.

The order is always the same. A variant that a policy offers and the plan chooses comes first; then, for a run that has
begun, one last call within what is kept for handing back; then waiting in the queue, or the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import ApportionError
from apportion.planner.problem import Agent, Item, ItemUse, Model, Problem, Stage, Variant
from apportion.records import Demand

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.planner.policies import Policy
    from apportion.planner.replay.billing import Rates
    from apportion.planner.steps import Request

HAND_BACK_TOKENS = 1_000
"""Output that is kept for each run that has begun, for handing back what it has: a page of text.

All of it together never exceeds the budget's `reserve_share`, so that what is kept does not starve the work.
"""

LOW_CALLS = 3
"""An agent is told that its budget runs low when what is left holds fewer calls like the next one."""

MOST_PASSED = 8
"""How often a waiting run may be overtaken by smaller or more important ones; then it is next, whatever it needs."""

POINTS_PER_RUN = 1_000_000
"""What it is worth that an invocation runs at all; only shares of it count."""

STAGE = "now"
PROMPT = "prompt"


class Chosen(NamedTuple):
    """The variant that a plan chose.

    Attributes:
        name: Of the variant.
        model: The model that runs it; `None` where it is the one that was asked for.
        work_tokens: Output that it may have.
        effort_share: Its expected output, as a share of that of the full variant.
    """

    name: str
    model: str | None
    work_tokens: int
    effort_share: float


class Ways(NamedTuple):
    """What may be done with an invocation that does not fit.

    Attributes:
        chosen: The variant that a plan chose, or `None` where none fits.
        may_defer: Whether a policy lets it wait.
    """

    chosen: Chosen | None
    may_defer: bool


def ways_out(
    policies: Sequence[Policy],
    agent: str,
    *,
    prompt_tokens: int,
    output_tokens: int,
    rates: Rates,
    max_tokens: int | None,
    max_cost_nusd: int | None,
) -> Ways:
    """Let a plan choose how an invocation runs where it does not fit as it is; never raises.

    Args:
        policies: What may be done.
        agent: Type name of the agent, which policies may go by.
        prompt_tokens: Tokens of the prompt, which every variant sends.
        output_tokens: Output that is expected of the full variant.
        rates: Prices per token of the model that was asked for.
        max_tokens: What is left in tokens, or `None`.
        max_cost_nusd: What is left in nano-dollars, or `None`.
    """
    from apportion.planner.plan import Plan
    from apportion.planner.policies import plan_under, with_policies

    if not policies:
        return Ways(None, may_defer=False)
    full = Variant(
        model_id=PROMPT,
        demand=Demand(probabilities=(0.5,), tokens=(output_tokens,)),
        floor_tokens=output_tokens,
        value_points=POINTS_PER_RUN,
    )
    try:
        problem = Problem(
            models=(_model(rates),),
            stages=(Stage(id=STAGE),),
            agents=(Agent(id=agent, stage_id=STAGE, variants=(full,), uses=(ItemUse(item_id=PROMPT),)),),
            items=(Item(id=PROMPT, tokens=prompt_tokens, pinned=True),),
            max_tokens=max_tokens,
            max_cost_nusd=max_cost_nusd,
        )
        planned = with_policies(problem, policies)
        may_defer = not planned.agents[0].mandatory
        outcome = plan_under(planned)
    except (ValueError, ApportionError):  # a name that no problem takes, or a policy that contradicts itself
        return Ways(None, may_defer=False)
    if not isinstance(outcome, Plan) or outcome.agents[0].variant_id in {None, full.id}:
        return Ways(None, may_defer)
    variant = next(one for one in planned.agents[0].variants if one.id == outcome.agents[0].variant_id)
    model = None if variant.model_id == PROMPT else planned.model_of[variant.model_id]
    chosen = Chosen(
        name=variant.id,
        model=None if model is None else model.id,
        work_tokens=outcome.agents[0].work_tokens,
        effort_share=min(1.0, max(variant.demand.tokens[0], 1) / max(1, output_tokens)),
    )
    return Ways(chosen, may_defer)


def _model(rates: Rates) -> Model:
    read, write, output = (round(price * 1e12) for price in rates.prices)
    asked = max(round(rates.input * 1e12), write)
    return Model(id=PROMPT, input=asked, output=output, cache_read=read, cache_write_5m=asked, cache_write_1h=asked)


def reserve_tokens(begun: int, total: int | None, share: float) -> int:
    """Return what is kept for handing back: for so many runs that have begun, out of a budget.

    Args:
        begun: Runs that have begun and not ended.
        total: The budget in tokens, or `None`.
        share: The part of it that may be kept at most, in [0, 1].
    """
    return 0 if total is None else min(begun * HAND_BACK_TOKENS, int(total * share))


def low_notice(left_tokens: int, calls: int) -> str:
    """Return what an agent is told whose budget runs low."""
    many = "no further call" if calls < 1 else "one more call" if calls == 1 else f"{calls} more calls"
    return (
        f"Budget notice: about {max(0, left_tokens):,} tokens are left after this call, enough for {many} like it. "
        "Finish what matters most, and hand back what you have."
    )


def final_notice(output_tokens: int | None) -> str:
    """Return what an agent is told whose next call is the last one."""
    most = "" if output_tokens is None else f" in at most {output_tokens:,} tokens"
    return (
        f"Budget notice: this is the last call that the budget holds. Hand back now{most}: what is done, what is left, "
        "and where it can be found."
    )


@dataclass(slots=True)
class Waiting:
    """An invocation that waits for budget.

    Attributes:
        request: What was asked for.
        since: Number of the step that deferred it first.
        needs_tokens: What it lacked then at least: its prompt and the shortest output.
        passed: How often another one was let through before it.
    """

    request: Request
    since: int
    needs_tokens: int = 0
    passed: int = 0


class Queue:
    """Invocations that wait for budget: the most important first, and among equals the oldest.

    Smaller ones may overtake one that does not fit, but each only so often (`MOST_PASSED`): after that it is next.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(sorted(self._waiting.values(), key=_rank))

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs that wait, the next one first."""
        return tuple(one.request.run_id for one in self)

    def put(self, request: Request, number: int, needs_tokens: int) -> None:
        """Let an invocation wait; one of the same run is replaced and keeps its place."""
        known = self._waiting.get(request.run_id)
        since, passed = (number, 0) if known is None else (known.since, known.passed)
        self._waiting[request.run_id] = Waiting(request, since, needs_tokens, passed)

    def restore(self, waiting: Waiting) -> None:
        """Take up one that waited in an earlier session."""
        self._waiting[waiting.request.run_id] = waiting

    def drop(self, run_id: str) -> None:
        """Let a run wait no more."""
        self._waiting.pop(run_id, None)

    def let_through(self, run_id: str, before: Sequence[str]) -> None:
        """Note that a run no longer waits, and which ones it has overtaken."""
        self.drop(run_id)
        for other in before:
            if other in self._waiting:
                self._waiting[other].passed += 1


def must_be_next(waiting: Waiting) -> bool:
    """Say whether nobody may overtake an invocation any more."""
    return waiting.passed >= MOST_PASSED


def _rank(waiting: Waiting) -> tuple[bool, int, int]:
    return (not must_be_next(waiting), -waiting.request.priority, waiting.since)
