"""What stands in a prompt of all that could: which tools whole, which brief, which as a line, which parts of an agent.

    needs = ToolNeeds().fit(logs).predict("Explore", names, source="claude_code")
    options = [option_of(tool, registry.load(tool), cautious(needs[tool.name])) for tool in registry.entries()]
    plan = choose(options, RunShape(calls=9, prompt_tokens=30_000, prices=RELATIVE_PRICES), budget_tokens=6_000)

System prompt and tools come first in every prompt of a run, so they are settled before its first call and stay. What a
form costs over the run, in money:

- It is written to the cache with the first call and read with every other one.
- With its need's probability a tool that stands only as a line has to be loaded: one extra call, which reads the whole
  prompt once more and puts out `LOAD_OUTPUT_TOKENS`, and its schema as a tool result at the end of the prompt, written
  once and read by half of the run's calls. A tool that is not even listed takes two such calls.
- A brief definition can be called as it is. That a model looks up the whole in one of `1 / LOOK_UPS` uses is an
  assumption: nobody has measured it, and nothing here says how well a model works with brief descriptions.

Options do not depend on each other, so each takes its cheapest form, and that is exact. A budget of tokens couples them
by one sum: a knapsack with one form per option, solved exactly by dynamic programming over the tokens; no solver is
needed. A limit of misses enters as a price of one miss, the least of a fixed row of prices at which the limit holds
without a budget: as a limit it is kept, but the plan need not be the cheapest of all that keep it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from apportion.compression.loading import (
    EntryKind,
    Loader,
    brief_form,
    line_form,
    loader_tokens,
    outline,
    parts_of,
)
from apportion.errors import InfeasiblePlanError, InputError
from apportion.planner.masking import EXPANSION_OUTPUT_TOKENS
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.compression.loading import Entry, Preloader
    from apportion.models.next_agent import NextForecast
    from apportion.models.tool_needs import Need
    from apportion.planner.masking import TokenPrices

LOAD_OUTPUT_TOKENS = EXPANSION_OUTPUT_TOKENS
"""Output of an extra call that loads a tool: the call of the loader."""

LOOK_UPS = 0.1
"""Share of the uses of a brief tool before which the whole text is looked up; an assumption."""

MAX_MISS_RATE = 0.0075
"""Share of calls that are expected to need a tool that was not loaded. The mark is 0.01; on 2,000 calls chance alone (a
standard error of 0.002) would carry a plan that aims at the mark over it half of the time."""

LEAST_RUNS = 10
"""Learned runs of an agent type from which it counts that none of them used a tool."""

UNSURE_NEED = 0.5
"""How likely a tool is taken to be needed at least by an agent type of which fewer runs were learned."""

SECTION_NEED = 0.5
"""How likely a section of an agent file is needed where nothing of it stands in the task; an assumption."""

MISS_PRICES = (0.0, *(0.25 * 2.0**power for power in range(12)))
"""Prices of a miss that are tried, in extra calls."""

CELLS = 20_000_000
"""Cells of the table of the knapsack; what would take more is counted in units of several tokens, rounded up."""


class LoadForm(StrEnum):
    """How something stands in a prompt."""

    WHOLE = "whole"
    BRIEF = "brief"
    """A definition with brief descriptions; it can be called."""
    LINE = "line"
    """Name and first sentence, in the description of the loader."""
    UNLISTED = "unlisted"
    """Not at all; the loader lists it when asked."""


@dataclass(frozen=True, slots=True)
class Option:
    """Something that can be loaded.

    Attributes:
        name: Its name.
        need: Probability that the run needs it, in [0, 1].
        whole_tokens: Tokens of all of it.
        line_tokens: Tokens of its line.
        brief_tokens: Tokens of its brief form; `None` where there is none.
        pinned: Whether it stays whole.
        hides: Whether it may be left out without a line.

    Raises:
        InputError: A count is negative, or the need no probability.
    """

    name: str
    need: float
    whole_tokens: int
    line_tokens: int
    brief_tokens: int | None = None
    pinned: bool = False
    hides: bool = True

    def __post_init__(self) -> None:
        counts = (self.whole_tokens, self.line_tokens, self.brief_tokens or 0)
        if not 0.0 <= self.need <= 1.0 or min(counts) < 0 or max(counts) > 2**31:
            raise InputError(f"{self.name!r} has a need or a size that there is not", hint="0 <= need <= 1")

    def tokens(self, form: LoadForm) -> int | None:
        """Return the tokens of a form, or `None` where there is no such form."""
        return {
            LoadForm.WHOLE: self.whole_tokens,
            LoadForm.BRIEF: self.brief_tokens,
            LoadForm.LINE: self.line_tokens,
            LoadForm.UNLISTED: 0 if self.hides else None,
        }[form]


@dataclass(frozen=True, slots=True)
class RunShape:
    """What is expected of a run.

    Attributes:
        calls: Its calls, at least 1.
        prompt_tokens: Its mean prompt.
        prices: Per token.
        warm: Whether another run has written the same head to the cache already.
    """

    calls: float
    prompt_tokens: float
    prices: TokenPrices
    warm: bool = False

    def __post_init__(self) -> None:
        if not self.calls >= 1.0 or not self.prompt_tokens >= 0.0:
            raise InputError(f"a run of {self.calls} calls is none", hint="A run has one call or more.")

    @property
    def held(self) -> float:
        """What a token at the beginning of the prompt costs over the run."""
        first = self.prices.read if self.warm else self.prices.write
        return first + self.prices.read * (self.calls - 1.0)

    @property
    def extra_call(self) -> float:
        """What one more call costs."""
        return LOAD_OUTPUT_TOKENS * self.prices.output + self.prompt_tokens * self.prices.read

    @property
    def loaded(self) -> float:
        """What a token costs that is loaded in the middle of the run."""
        return self.prices.write + self.prices.read * (self.calls - 1.0) / 2.0

    def cost(self, option: Option, form: LoadForm) -> float | None:
        """Return what an option is expected to cost in a form, or `None` where there is no such form."""
        tokens = option.tokens(form)
        if tokens is None:
            return None
        fetched = self.extra_call + option.whole_tokens * self.loaded
        extra = {
            LoadForm.WHOLE: 0.0,
            LoadForm.BRIEF: LOOK_UPS * fetched,
            LoadForm.LINE: fetched,
            LoadForm.UNLISTED: fetched + self.extra_call,
        }[form]
        return tokens * self.held + option.need * extra


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is sent of what can be loaded.

    Attributes:
        forms: The form of each option, by name.
        tokens: Tokens of all forms, the loader's schema included where anything was left out.
        whole_tokens: Tokens if everything stood there whole.
        expected_cost: Expected cost over the run, in the money of its prices.
        whole_cost: Cost if everything stood there whole.
        expected_misses: Expected number of calls of the run that need something that was not loaded.
        loader: Whether the loader is offered.
        status: `separable` where each option took its cheapest form, `knapsack` where a budget had to be kept.
        degraded: What could not be kept.
    """

    forms: dict[str, LoadForm]
    tokens: int
    whole_tokens: int
    expected_cost: float
    whole_cost: float
    expected_misses: float
    loader: bool
    status: str
    degraded: tuple[str, ...] = ()


def choose(
    options: Sequence[Option],
    run: RunShape,
    *,
    budget_tokens: int | None = None,
    max_miss_rate: float | None = None,
    brief: bool = True,
    loader: int | None = None,
) -> LoadPlan:
    """Return the forms with the least expected cost.

    Args:
        options: What can be loaded; names differ.
        run: What is expected of the run.
        budget_tokens: Most tokens of all forms and the loader; `None` for no limit.
        max_miss_rate: Expected share of calls that may need something that was not loaded; `None` for no limit. Where
            it cannot be kept, `degraded` says so.
        brief: Whether brief forms may be used.
        loader: Tokens of the loader's schema without lines; `None` counts them.

    Raises:
        InputError: Two options have the same name.
        InfeasiblePlanError: What is pinned does not fit the budget, or the loader beside it.
    """
    if len({option.name for option in options}) != len(options):
        raise InputError("two options have the same name", hint="Tell agents, skills and tools apart by a prefix.")
    fixed = loader_tokens() if loader is None else loader
    forms = [_forms(option, brief=brief) for option in options]
    plan = _cheapest(options, forms, run, fixed, 0.0, None)
    price = 0.0
    if max_miss_rate is not None:
        for calls in MISS_PRICES:
            price = calls * run.extra_call
            plan = _cheapest(options, forms, run, fixed, price, None)
            if plan.expected_misses <= max_miss_rate * run.calls:
                break
    if budget_tokens is not None and plan.tokens > budget_tokens:
        plan = _cheapest(options, forms, run, fixed, price, budget_tokens)
    if max_miss_rate is not None and plan.expected_misses > max_miss_rate * run.calls:
        rate = plan.expected_misses / run.calls
        plan = replace(plan, degraded=(f"{rate:.1%} of calls are expected to miss something, not {max_miss_rate:.1%}",))
    return plan


def cautious(need: Need) -> float:
    """Return the probability to plan with: at least `UNSURE_NEED` where too few runs were learned to trust less."""
    return need.probability if need.sample_size >= LEAST_RUNS else max(need.probability, UNSURE_NEED)


def option_of(entry: Entry, content: bytes, need: float) -> Option:
    """Return a tool, skill or agent of a registry as an option."""
    brief = brief_form(content) if entry.kind is EntryKind.TOOL else None
    return Option(
        name=entry.name,
        need=need,
        whole_tokens=entry.tokens,
        line_tokens=count_tokens(line_form(entry.name, entry.description) + "\n"),
        brief_tokens=None if brief is None else count_tokens(brief.decode("utf-8", "replace")),
    )


def load_as_planned(
    plan: LoadPlan, contents: Iterable[tuple[Entry, bytes]], loader: Loader
) -> tuple[dict[str, bytes], dict[str, object] | None]:
    """Return what is sent of tools, by name, and the loader's schema where it is offered.

    Everything that is not sent whole is kept in the loader, and comes back byte for byte.

    Raises:
        StoreError: The loader's store is full.
    """
    sent: dict[str, bytes] = {}
    for entry, content in contents:
        form = plan.forms.get(entry.name, LoadForm.WHOLE)
        short = brief_form(content) if form is LoadForm.BRIEF else None
        if form is LoadForm.WHOLE or (form is LoadForm.BRIEF and short is None):
            sent[entry.name] = content
            continue
        if short is not None:
            sent[entry.name] = short
        loader.leave_out(entry.name, content, entry.description, listed=form is LoadForm.LINE)
    return sent, loader.schema() if len(loader) else None


def outline_within(
    name: str, content: bytes, loader: Loader, *, budget_tokens: int, task: str = "", run: RunShape
) -> bytes:
    """Return an agent or skill file within a budget of tokens: what stays are front matter, what binds, and headings.

    Sections that share words with the task are needed more likely. What is left out can be loaded from the loader.

    Raises:
        InfeasiblePlanError: What has to stay does not fit.
    """
    parts = parts_of(name, content)
    words = {word for word in task.lower().split() if len(word) > 3}
    options = [
        Option(
            name=part.name,
            need=section_need(part.content, words),
            whole_tokens=part.tokens,
            line_tokens=count_tokens(part.stub.decode("utf-8", "replace")),
            pinned=part.pinned,
            hides=False,
        )
        for part in parts
    ]
    if sum(option.whole_tokens for option in options) <= budget_tokens:
        return content
    plan = choose(options, run, budget_tokens=budget_tokens, brief=False, loader=0)
    return outline(parts, {name for name, form in plan.forms.items() if form is not LoadForm.WHOLE}, loader)


def preload(preloader: Preloader, forecast: NextForecast) -> bool:
    """Load ahead what the next agent needs, where a forecast names one and does not abstain; return whether it is."""
    if forecast.expected is None:
        return False
    return preloader.expect(forecast.expected, forecast.confidence)


def section_need(content: bytes, words: set[str]) -> float:
    """Return how likely a section of an agent file is needed, in [0, 1]: by the words that it shares with the task."""
    if not words:
        return SECTION_NEED
    found = set(content.decode("utf-8", "replace").lower().split())
    return SECTION_NEED + (1.0 - SECTION_NEED) * len(words & found) / len(words)


def _forms(option: Option, *, brief: bool) -> list[LoadForm]:
    if option.pinned:
        return [LoadForm.WHOLE]
    return [form for form in LoadForm if option.tokens(form) is not None and (brief or form is not LoadForm.BRIEF)]


def _misses(option: Option, form: LoadForm) -> float:
    return option.need if form in {LoadForm.LINE, LoadForm.UNLISTED} else 0.0


def _cheapest(
    options: Sequence[Option],
    forms: Sequence[Sequence[LoadForm]],
    run: RunShape,
    loader: int,
    price: float,
    budget: int | None,
) -> LoadPlan:
    """Return the cheapest plan at a price of one miss, within a budget: everything whole, or some of it left out.

    Raises:
        InfeasiblePlanError: Neither fits the budget.
    """
    weighed = [
        [(run.cost(option, form) or 0.0) + price * _misses(option, form) for form in each]
        for option, each in zip(options, forms, strict=True)
    ]
    found: list[list[LoadForm]] = []
    if budget is None or sum(option.whole_tokens for option in options) <= budget:
        found.append([LoadForm.WHOLE] * len(options))
    if budget is None:
        picks: list[int] | None = [min(range(len(each)), key=each.__getitem__) for each in weighed]
    else:
        sizes = [[option.tokens(form) or 0 for form in each] for option, each in zip(options, forms, strict=True)]
        picks = _knapsack(sizes, weighed, budget - loader)
    if picks is not None:
        found.append([each[pick] for each, pick in zip(forms, picks, strict=True)])
    if not found:
        smallest = (min(o.tokens(form) or 0 for form in each) for o, each in zip(options, forms, strict=True))
        least = loader + sum(smallest)
        raise InfeasiblePlanError(
            f"what has to stay takes {least:,} tokens, more than {budget:,}",
            missing_tokens=max(1, least - (budget or 0)),
            hint="Raise the budget, or pin less.",
        )
    status = "separable" if budget is None else "knapsack"
    plans = [_plan(options, each, run, loader, status) for each in found]
    return min(plans, key=lambda plan: plan.expected_cost + price * plan.expected_misses)


def _knapsack(sizes: list[list[int]], costs: list[list[float]], budget: int) -> list[int] | None:
    """Return which form of each option gives the least cost within a budget; `None` where none fits.

    The table has a column for each number of tokens, or of units of several tokens where it would become too large. The
    unit depends on the options alone, so that a larger budget always allows what a smaller one did.
    """
    import numpy as np

    most = sum(max(each) for each in sizes)
    unit = max(1, -(-most * len(sizes) // CELLS))
    columns = min(budget, most + unit * len(sizes)) // unit + 1
    if budget < 0 or columns < 1:
        return None
    best = np.zeros(columns)
    taken = np.zeros((len(sizes), columns), dtype=np.uint8)
    for row, (of_sizes, of_costs) in enumerate(zip(sizes, costs, strict=True)):
        after = np.full(columns, np.inf)
        for number, (size, cost) in enumerate(zip(of_sizes, of_costs, strict=True)):
            units = -(-size // unit)
            if units >= columns:
                continue
            candidate = best[: columns - units] + cost
            better = candidate < after[units:]
            after[units:][better] = candidate[better]
            taken[row, units:][better] = number
        best = after
    if not np.isfinite(best[-1]):
        return None
    picks, column = [], columns - 1
    for row in range(len(sizes) - 1, -1, -1):
        pick = int(taken[row, column])
        picks.append(pick)
        column -= -(-sizes[row][pick] // unit)
    return picks[::-1]


def _plan(
    options: Sequence[Option],
    forms: Sequence[LoadForm],
    run: RunShape,
    loader: int,
    status: str,
    degraded: tuple[str, ...] = (),
) -> LoadPlan:
    pairs = list(zip(options, forms, strict=True))
    offered = any(form is not LoadForm.WHOLE for form in forms)
    fixed = loader if offered else 0
    return LoadPlan(
        forms={option.name: form for option, form in pairs},
        tokens=sum(option.tokens(form) or 0 for option, form in pairs) + fixed,
        whole_tokens=sum(option.whole_tokens for option in options),
        expected_cost=sum(run.cost(option, form) or 0.0 for option, form in pairs) + fixed * run.held,
        whole_cost=sum(option.whole_tokens for option in options) * run.held,
        expected_misses=sum(_misses(option, form) for option, form in pairs),
        loader=offered,
        status=status,
        degraded=degraded,
    )
