"""Decides which old tool results leave a prompt, when every change to a cached prefix has its price.

A provider caches the prompt as a prefix: tokens before the first change are read cheaply, everything after it is
written anew. Masking item j at the break position b therefore costs the rewrite of what follows b, once, and saves the
item's tokens in this call and in every later one; and with some probability the item is needed again, which costs an
extra call, and its tokens from then on: what is needed once is taken as needed soon, so nothing was saved. With prices
per token p_r (read) and p_w (write), R expected later calls, C cached tokens and B tokens before the break:

    expansion(j) = an extra call over the whole prompt + tokens_j * (p_w + p_r * R)
    value(j)     = saved_j * (p_w + p_r * R) - need_j * expansion(j)
    plan(b)      = sum of value(j) > 0 over j >= b  -  (p_w - p_r) * (C - B(b))

For a fixed b the items are independent, so the best plan is found exactly by suffix sums over all b. Results become
stale one by one, and each break is paid once for all that it cuts: a break comes when what has become stale behind it
repays it, at once where nothing follows it in the cache, and for everything that the needs allow when the cache is
cold. A token that is not sent also counts for more than its price (`token_weight`), an expansion for more than its
(`CAUTION`); both decide between plans and never make a dearer one acceptable.

A plan is taken only if its expected bill is not above doing nothing, and only if the workflow can afford it to go
wrong: what it costs at once, plus what expansions cost within the next few calls (that of its dearest item, or those
that are to be expected, whichever is more), less what these calls save for sure, must be covered by what planning has
saved so far and a small share of the bill
(`Solvency`). Where the best break cannot be afforded, later ones are tried, which rewrite less.

Waiting until a break is worth 1.5 times what it rewrites was tried on samples of four sources of logs: it changed
tokens by at most 0.9 points and the bill by 0.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPANSION_OUTPUT_TOKENS = 60
"""Output tokens of the tool call that asks for a left-out item back."""


SURE_CALLS = 8.0
"""Later calls on whose savings a plan may count when it weighs what it can afford."""

REALISED_NEEDS = 0.55
"""Share of the predicted needs that came true on five sources of logs: from 0.5 to 0.8."""

CAUTION = 0.5
"""By how much an expansion counts for more than it costs: what is missing when it is needed may not be asked for."""

FACTORS = (1.0, 0.25, 0.0625, 0.0)
"""Token weights that are tried, as shares of the given one, until a plan is not dearer than doing nothing."""

PRESSING_FACTORS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.0625, 0.0)
"""The same while tokens are short."""

BREAK_SHARES = (1.0, 0.5, 0.25, 0.1, 0.0)
"""Breaks that are tried: the best one, and the best ones among those with so much of its rewriting at most."""


class TokenPrices(NamedTuple):
    """Prices of one token in one currency: from cache, into cache, and as output."""

    read: float
    write: float
    output: float


@dataclass(frozen=True, slots=True)
class PromptState:
    """The prompt about to be sent, item by item, and what the provider's cache holds of it.

    Attributes:
        tokens: Tokens of each item as it stands, shape (n,).
        stub_tokens: Tokens of each item if it were masked, shape (n,).
        maskable: Whether the item may be masked, shape (n,).
        need: Probability that a masked item is needed again, in [0, 1], shape (n,).
        cached_items: How many leading items the cache holds; 0 when it is cold.
        overhead_tokens: Invisible tokens before the first item: system prompt and tool schemas.
        remaining_calls: Expected number of later calls with this context.
    """

    tokens: NDArray[np.float64]
    stub_tokens: NDArray[np.float64]
    maskable: NDArray[np.bool_]
    need: NDArray[np.float64]
    cached_items: int
    overhead_tokens: float
    remaining_calls: float


class Solvency(NamedTuple):
    """What a workflow can afford to lose, in the currency of the prices.

    Attributes:
        credit: What planning has saved so far; negative after losses.
        allowance: Loss that is tolerated on top: a small share of the bill so far.
    """

    credit: float
    allowance: float

    @property
    def free(self) -> float:
        """What a new plan may risk."""
        return self.credit + self.allowance


UNLIMITED = Solvency(credit=float("inf"), allowance=0.0)
"""For a workflow that would rather risk a loss than run out of tokens."""


class MaskPlan(NamedTuple):
    """Which items to mask now.

    Attributes:
        items: Positions of the items, increasing; empty means: keep everything.
        expected_saving: Expected saving of the bill over the horizon, never negative unless `forced`.
        risk: Cost of the expansions that it risks.
        saved_tokens: Tokens that leave the prompt.
        forced: Whether a hard limit forced a plan whose expected bill is above doing nothing.
    """

    items: NDArray[np.intp]
    expected_saving: float
    risk: float
    saved_tokens: float
    forced: bool

    @classmethod
    def nothing(cls) -> MaskPlan:
        """Return the plan that keeps everything."""
        return cls(np.empty(0, dtype=np.intp), 0.0, 0.0, 0.0, forced=False)


def plan_masks(
    state: PromptState,
    prices: TokenPrices,
    solvency: Solvency,
    *,
    token_weight: float = 0.0,
    must_save: float = 0.0,
    press: bool = False,
) -> MaskPlan:
    """Return the best set of items to mask before this call.

    Args:
        state: The prompt about to be sent.
        prices: Prices per token; the plan is in their currency.
        solvency: What the workflow can afford to lose.
        token_weight: What one prompt token not sent is worth beyond its price, in the same currency. It decides
            between plans whose expected bill is not above doing nothing; it never justifies a dearer one.
        must_save: Tokens that have to leave because of a hard limit; such a plan may be dearer.
        press: Whether tokens are short. Of the plans for several weights, the one that saves most tokens is taken
            then: a higher weight alone may want a wider break, which the workflow cannot afford, and save less.
    """
    candidates = np.flatnonzero(state.maskable & (state.tokens > state.stub_tokens))
    if candidates.size == 0:
        return MaskPlan.nothing()
    if must_save > 0:
        return _forced(state, prices, candidates, must_save)
    table = _Candidates.of(state, prices, candidates)
    best = MaskPlan.nothing()
    for factor in PRESSING_FACTORS if press else FACTORS:
        plan = table.best(solvency, factor * token_weight)
        if plan.saved_tokens > best.saved_tokens:
            best = plan
        if best.items.size and not press:
            break
    return best


def mask_exactly(state: PromptState, prices: TokenPrices, items: NDArray[np.intp]) -> MaskPlan:
    """Return the plan that masks the given items, with what it is expected to save; see `plan_masks`."""
    if items.size == 0:
        return MaskPlan.nothing()
    saved, expansion = _savings(state, prices, items)
    risk = state.need[items] * expansion
    value = saved * (prices.write + prices.read * state.remaining_calls) - risk
    saving = float(value.sum() - _break_costs(state, prices, items)[0])
    return MaskPlan(
        items=items,
        expected_saving=saving,
        risk=float(risk.sum()),
        saved_tokens=float(saved.sum()),
        forced=saving <= 0,
    )


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The items that may be masked, in the order of the prompt; everything has shape (m,).

    Attributes:
        items: Positions in the prompt.
        saved: Tokens that masking saves in each call.
        value: What masking is expected to save over the horizon, before the break is paid.
        risk: Expected cost of expansions.
        break_costs: Rewriting the cached suffix if the item is the first to change.
        sure: What the next few calls save.
        lost: What an expansion within the next few calls costs.
        need: Probability of an expansion.
        calls: Calls over which a token is saved.
    """

    items: NDArray[np.intp]
    saved: NDArray[np.float64]
    value: NDArray[np.float64]
    risk: NDArray[np.float64]
    break_costs: NDArray[np.float64]
    sure: NDArray[np.float64]
    lost: NDArray[np.float64]
    need: NDArray[np.float64]
    calls: float

    @classmethod
    def of(cls, state: PromptState, prices: TokenPrices, items: NDArray[np.intp]) -> _Candidates:
        saved, expansion = _savings(state, prices, items)
        risk = state.need[items] * expansion
        soon = min(SURE_CALLS, state.remaining_calls)
        return cls(
            items=items,
            saved=saved,
            value=saved * (prices.write + prices.read * state.remaining_calls) - risk,
            risk=risk,
            break_costs=_break_costs(state, prices, items),
            sure=saved * (prices.write + prices.read * soon),
            lost=expansion - state.tokens[items] * prices.read * (state.remaining_calls - soon),
            need=state.need[items],
            calls=1.0 + state.remaining_calls,
        )

    def best(self, solvency: Solvency, weight: float) -> MaskPlan:
        """Return the best affordable plan whose expected bill is not above doing nothing.

        The break that is worth most comes first; where it is not affordable, later ones with less to rewrite are
        tried.
        """
        wanted = self.value + weight * self.saved * self.calls - CAUTION * self.risk
        chosen = wanted > 0
        totals = np.cumsum(np.where(chosen, wanted, 0.0)[::-1])[::-1] - self.break_costs
        widest = self.break_costs[int(np.argmax(totals))]
        best, most = MaskPlan.nothing(), 0.0
        tried = -1
        for share in BREAK_SHARES:
            start = int(np.argmax(np.where(self.break_costs <= share * widest, totals, -np.inf)))
            if start == tried or totals[start] <= 0 or self.break_costs[start] > share * widest:
                continue
            tried = start
            plan, picked = self._affordable(solvency, start, chosen)
            worth = float(wanted[picked].sum() - self.break_costs[picked[0]]) if picked.size else 0.0
            if plan.expected_saving > 0 and worth > most:
                best, most = plan, worth
        return best

    def _affordable(
        self, solvency: Solvency, start: int, chosen: NDArray[np.bool_]
    ) -> tuple[MaskPlan, NDArray[np.intp]]:
        """Return the largest part of the chosen items from a start on that the workflow can afford, safest first."""
        picked = start + np.flatnonzero(chosen[start:])
        picked = picked[np.argsort(self.risk[picked] / self.saved[picked], kind="stable")]
        expected = REALISED_NEEDS * np.cumsum(self.need[picked] * self.lost[picked])
        lost = np.maximum(np.maximum.accumulate(self.lost[picked]), expected)
        exposure = self.break_costs[start] - np.cumsum(self.sure[picked]) + lost
        affordable = np.flatnonzero(exposure <= solvency.free)
        if affordable.size == 0:
            return MaskPlan.nothing(), affordable
        picked = np.sort(picked[: affordable[-1] + 1])
        plan = MaskPlan(
            items=self.items[picked],
            expected_saving=float(self.value[picked].sum() - self.break_costs[picked[0]]),
            risk=float(self.risk[picked].sum()),
            saved_tokens=float(self.saved[picked].sum()),
            forced=False,
        )
        return plan, picked


def _forced(state: PromptState, prices: TokenPrices, candidates: NDArray[np.intp], must_save: float) -> MaskPlan:
    """Mask the items with the least risk per token until enough has left the prompt."""
    saved, expansion = _savings(state, prices, candidates)
    risk = state.need[candidates] * expansion
    order = np.argsort(risk / saved, kind="stable")
    enough = int(np.searchsorted(np.cumsum(saved[order]), must_save)) + 1
    return mask_exactly(state, prices, candidates[np.sort(order[:enough])])


def _savings(
    state: PromptState, prices: TokenPrices, candidates: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the tokens that each candidate saves, and what its expansion would cost."""
    tokens = state.tokens[candidates]
    extra_call = prices.read * (state.overhead_tokens + float(state.tokens.sum()))
    extra_call += prices.output * EXPANSION_OUTPUT_TOKENS
    expansion = extra_call + tokens * (prices.write + prices.read * state.remaining_calls)
    return tokens - state.stub_tokens[candidates], expansion


def _break_costs(state: PromptState, prices: TokenPrices, candidates: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return what rewriting the cached suffix costs if each candidate were the first to change."""
    before = np.concatenate(([0.0], np.cumsum(state.tokens[: state.cached_items])))
    after: NDArray[np.float64] = before[-1] - before[np.minimum(candidates, state.cached_items)]
    return (prices.write - prices.read) * after
