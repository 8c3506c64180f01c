"""One invocation as a joint problem: what leaves its prompt, and how many more calls the budget holds.

Where no limit couples them, the pieces of one prompt and the budgets of other agents have nothing to do with each
other, and `masking` and `budgets` plan each exactly. Where tokens are short they do: what this prompt sends again in
every call is what later calls cannot use. Then both are one problem:

- the asking run with its prompt: pieces that may be masked, and everything between them as pinned pieces, in order, so
  that the cached prefix can break at any of them; its variants make 1, 2, 4, ... more calls
- the other runs of the stage, and the stages to come, by their demand
- the tokens that are left as the limit of all

A plan is worth the calls that it is expected to make possible. The asking run ends after each call with the same
probability, a context is no nearer to its end for being old, so a variant of k calls makes on average
m * (1 - (1 - 1/m)^k) of them, with m the expected number without a limit. Money is counted in billionths of the
prices' currency: nano-dollars, where they are in US dollars.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.masking import EXPANSION_OUTPUT_TOKENS
from apportion.planner.problem import MILLION, Agent, Form, Item, ItemUse, Model, Problem, Stage, Variant
from apportion.records import Action, Demand

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from apportion.planner.masking import PromptState, TokenPrices
    from apportion.planner.plan import Plan

STAGE = "left"
"""The one stage of the problem: all that is left of the workflow."""

MODEL = "model"
"""All runs are priced like the asking one: the models of the others are not known here."""


POINTS_PER_CALL = 1_000_000
"""What one call is worth."""


class Waiting(NamedTuple):
    """Another run, or the stages to come: a name, the tokens that it will use, and those of one of its calls."""

    id: str
    demand: Demand
    tokens_per_call: float


class InvocationProblem(NamedTuple):
    """A joint problem, and which row of the prompt each of its maskable pieces is.

    Attributes:
        problem: The problem.
        rows: Row of the prompt of each piece that may be masked, by the piece's name.
    """

    problem: Problem
    rows: dict[str, int]

    def masked(self, plan: Plan) -> NDArray[np.intp]:
        """Return the rows that a plan masks, increasing."""
        pieces = plan.agents[0].pieces
        return np.array([self.rows[piece.item_id] for piece in pieces if piece.form == str(Action.MASK)], dtype=np.intp)


def invocation_problem(
    run_id: str,
    state: PromptState,
    prices: TokenPrices,
    others: Sequence[Waiting],
    *,
    output_tokens: int,
    growth_tokens: int,
    max_tokens: int,
    reserve_tokens: int,
) -> InvocationProblem:
    """Return an invocation as a joint problem.

    Args:
        run_id: The run that asks.
        state: Its prompt.
        prices: Prices per token.
        others: Who else will use tokens.
        output_tokens: Expected output of one call.
        growth_tokens: Expected growth of the prompt from call to call.
        max_tokens: What is left of the budget.
        reserve_tokens: What nobody may use of that.
    """
    items, uses, rows, cached = _pieces(state)
    expected = 1.0 + max(0.0, state.remaining_calls)
    asking = Agent(
        id=run_id,
        stage_id=STAGE,
        variants=tuple(_variant(calls, expected, output_tokens, growth_tokens) for calls in _calls(expected)),
        uses=uses,
        cached_uses=cached,
        can_expand=True,
    )
    waiting = [
        Agent(
            id=other.id,
            stage_id=STAGE,
            variants=(
                Variant(
                    model_id=MODEL,
                    demand=other.demand,
                    weight=max(1, round(POINTS_PER_CALL / max(1.0, other.tokens_per_call))),
                ),
            ),
        )
        for other in others
    ]
    problem = Problem(
        models=(_model(prices),),
        stages=(Stage(id=STAGE),),
        agents=(asking, *waiting),
        items=items,
        max_tokens=max_tokens,
        reserve_tokens=reserve_tokens,
    )
    return InvocationProblem(problem, rows)


def _calls(expected: float) -> list[int]:
    """Return 1, 2, 4, ... and the expected number of calls."""
    most = max(1, round(expected))
    return sorted({*(2**power for power in range(most.bit_length()) if 2**power < most), most})


def _variant(calls: int, expected: float, output_tokens: int, growth_tokens: int) -> Variant:
    """Return the variant that makes so many calls: outputs and growth are sent for certain."""
    work = calls * output_tokens + growth_tokens * calls * (calls - 1) // 2 + EXPANSION_OUTPUT_TOKENS
    made = expected * (1.0 - (1.0 - 1.0 / expected) ** calls)
    return Variant(
        id=f"{calls} calls",
        model_id=MODEL,
        demand=Demand(probabilities=(0.5,), tokens=(work,)),
        floor_tokens=work,
        max_tokens=work,
        value_points=round(made * POINTS_PER_CALL),
        calls=calls,
    )


def _pieces(state: PromptState) -> tuple[tuple[Item, ...], tuple[ItemUse, ...], dict[str, int], int]:
    """Return the pieces of a prompt, which rows may be masked, and how many leading pieces are cached.

    Neighbours that stay anyway are one piece, unless the cached prefix ends between them.
    """
    free = state.maskable & (state.tokens > state.stub_tokens)
    warm = np.arange(len(free)) < state.cached_items
    items = [Item(id="overhead", tokens=round(state.overhead_tokens), pinned=True)]
    rows: dict[str, int] = {}
    cached = 1 if state.cached_items else 0
    for (may_leave, is_warm, _), group in groupby(
        range(len(free)), key=lambda row: (bool(free[row]), bool(warm[row]), row if free[row] else -1)
    ):
        members = list(group)
        first = members[0]
        name = f"row {first}"
        tokens = math.ceil(float(state.tokens[members].sum()))
        if may_leave:
            stub = min(tokens - 1, round(float(state.stub_tokens[first])))
            need = round(float(state.need[first]) * MILLION)
            items.append(Item(id=name, tokens=tokens, forms=(Form(action=Action.MASK, tokens=stub, need_ppm=need),)))
            rows[name] = first
        else:
            items.append(Item(id=name, tokens=tokens, pinned=True))
        cached += is_warm
    return tuple(items), tuple(ItemUse(item_id=item.id) for item in items), rows, cached


def _model(prices: TokenPrices) -> Model:
    read, write, output = (round(price * 1e12) for price in prices)
    return Model(id=MODEL, input=write, output=output, cache_read=read, cache_write_5m=write, cache_write_1h=write)
