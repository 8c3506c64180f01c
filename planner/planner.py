"""The planner as an orchestrator asks it: before each invocation, and told after it what was used.

It sees what a live orchestrator sees, and nothing later: the prompt about to be sent, what earlier calls used, the
clock, and the limits. `WorkflowPlanner` keeps one workflow's state; plans are values.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from apportion.errors import InfeasiblePlanError
from apportion.models.demand import StageUse
from apportion.planner.budgets.problem import QUANTUM_TOKENS, AgentNeed, BudgetProblem, StageCap
from apportion.planner.forecasts import forecasts
from apportion.planner.invocation_problem import Waiting, invocation_problem
from apportion.planner.masking import (
    CAUTION,
    EXPANSION_OUTPUT_TOKENS,
    UNLIMITED,
    MaskPlan,
    PromptState,
    Solvency,
    TokenPrices,
    mask_exactly,
    plan_masks,
)
from apportion.planner.prompt import REFERENCE_TOKENS
from apportion.planner.solver import plan_workflow
from apportion.records import Action, Budget, Feature

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from apportion.models.features import Caller
    from apportion.planner.budgets.plan import BudgetPlan
    from apportion.planner.forecasts import Widening
    from apportion.planner.prompt import PlannedPrompt
    from apportion.records import Demand

    Allocations = tuple[dict[str, int], str, float | None, tuple[str, ...]]
    """Tokens per agent run, status, gap to the bound, and why the plan is not what it should be."""

LOSS_ALLOWANCE = 0.005
"""Share of the bill so far that planning may lose before it stops taking risks: a quarter of what is tolerated."""

DEFAULT_TOKEN_WEIGHT = 0.25
"""What a token not sent is worth beyond its price, as a share of the price of writing one."""

VIEWS = 2
"""Calls that see a result whole before it may be masked: most needs come in the next few calls."""

TINY_NEED = 0.05
"""Probability of a need up to which one call is enough: right after it, next to nothing has to be rewritten."""

REMAINING_CALLS = {"main": 30.0, "sub": 7.0}
"""Expected later calls with the same context, for main agents and sub-agents.

Samples of five sources had 14 to 91 on average for main agents up to their 60th call, with little trend, and 3 to 12
for sub-agents in their first 15.
"""

BUDGET_USED_UP = "budget used up: the next prompt does not fit what is left"
"""Why there is no allocation; a live orchestrator would defer or refuse the call."""

CUT_TO_WINDOW = "masked beyond the cheapest plan to fit the context window"
CUT_TO_BUDGET = "masked beyond the cheapest plan to fit what is left of the budget"
"""Which hard limit forced a plan whose expected bill is above doing nothing."""

LATER = "later stages"
"""The pseudo-agent that keeps tokens for stages which have not begun."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user wants of the plans.

    Attributes:
        budget: Limits of each workflow.
        target_reduction: Share of visible prompt tokens to save where that costs nothing, in [0, 1], or `None`.
        enabled: Off switch: every prompt is sent as it is.
        select: Level at which parts of new results may be left out behind handles (`compression.pipeline.LEVELS`);
            `None`: none, they enter in lossless forms.
        summaries: Whether the stub of a masked result says in one line what it holds. In replays this did not repay
            its tokens (docs/replay.md), so it is off unless asked for.
        models: Folder of trained models that forecast demand; `None` means documented priors.
        widening: What past outcomes say of their forecasts; see `forecasts.widening_of`.
        off: Kinds of action that are switched off.
        head_chars: Characters that a replay's report shows of what was left out; 0: no content, only figures.
        originals: Store of originals in which a replay keeps what its report says was left out; `None`: it keeps none.
    """

    budget: Budget = field(default_factory=Budget)
    target_reduction: float | None = None
    enabled: bool = True
    select: str | None = None
    summaries: bool = False
    models: Path | None = None
    widening: Widening | None = None
    off: frozenset[Feature] = frozenset()
    head_chars: int = 0
    originals: Path | None = None

    def allows(self, feature: Feature) -> bool:
        """Whether a kind of action may be taken."""
        return self.enabled and feature not in self.off

    @property
    def level(self) -> str | None:
        """The level at which parts may be left out, or `None` where none may be."""
        return self.select if self.allows(Feature.SELECT) else None


@dataclass(frozen=True, slots=True)
class Invocation:
    """One model call that is about to be made.

    Attributes:
        run_id: The agent run.
        role: `"main"` or `"sub"`, for demand.
        stage: Number of the stage.
        call: Number of the call within the run.
        prompt: The run's prompt as it would be sent.
        overhead_tokens: Invisible tokens of the prompt, as known from the run's earlier calls.
        cached_items: Leading items of the prompt that the provider's cache holds.
        prices: Prices per token.
        priced: Whether the prices are the model's own, so that a limit in US dollars can be applied.
        context_window: Most tokens of a prompt, or `None`.
        calibration: Real prompt tokens per counted one, at the run's previous call; 1 where that is unknown.
        caller: Who calls, for learned forecasts; `None` where only the role is known.
        features: What is known before the call, in the order of `models.features.FEATURES`; `None` without a model.
    """

    run_id: str
    role: str
    stage: int
    call: int
    prompt: PlannedPrompt
    overhead_tokens: float
    cached_items: int
    prices: TokenPrices
    priced: bool
    context_window: int | None
    calibration: float = 1.0
    caller: Caller | None = None
    features: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What one call used, as its response tells.

    Attributes:
        run_id: The agent run.
        stage: Number of the stage.
        prompt_tokens: Tokens of the prompt as planned, extra calls not included.
        output_tokens: Tokens of the output.
        cost: What was paid, in the currency of the prices.
        cost_unplanned: What the call would have cost without planning.
        visible_tokens: Visible prompt tokens sent.
        visible_unplanned: Visible prompt tokens without planning.
        extra_tokens: Prompts and outputs of the extra calls that asked for left-out items back.
    """

    run_id: str
    stage: int
    prompt_tokens: float
    output_tokens: float
    cost: float
    cost_unplanned: float
    visible_tokens: int
    visible_unplanned: int
    extra_tokens: float = 0.0


class Birth(NamedTuple):
    """How a new item enters the prompt, where that is not whole.

    It has not been sent yet, so no cached prefix changes, whatever is done with it.

    Attributes:
        row: The item.
        action: `REFERENCE`, `STRUCTURE` or `SELECT`.
        tokens: Tokens of what is sent.
        copy: The earlier row that holds the same bytes, for a reference to all of it; -1 for one to parts.
    """

    row: int
    action: Action
    tokens: float
    copy: int = -1


@dataclass(frozen=True, slots=True)
class InvocationPlan:
    """The answer to one question.

    Attributes:
        masks: Items to mask before the call.
        births: New items that are not sent whole.
        allocated_tokens: Total tokens that the run may use in this stage, or `None` without a valid budget plan.
        status: `STANDING`, or how the budget plan was solved anew.
        gap: Relative gap to the independent bound if it was.
        degraded: Why the plan is not what it should be; empty if it is.
        dropped: Items to leave out for good; only rules that are compared with do so.
    """

    masks: MaskPlan
    births: tuple[Birth, ...]
    allocated_tokens: int | None
    status: str
    gap: float | None
    degraded: tuple[str, ...]
    dropped: tuple[int, ...] = ()


@dataclass(slots=True)
class StageRecord:
    """Planned against used, for one agent run in one stage."""

    begun: Invocation
    """The first call."""
    likely_tokens: int
    """The 90 % quantile of the demand, as forecast when the stage began."""
    allocated_tokens: int | None = None
    used_tokens: float = 0.0
    calls: int = 0
    first_prompt: float = 0.0
    last_prompt: float = 0.0
    output_tokens: float = 0.0
    recorded: StageUse | None = None
    """What of it informs later forecasts, once it is over."""

    @property
    def use(self) -> StageUse:
        """What was used, as the demand model wants it."""
        growth = (self.last_prompt - self.first_prompt) / max(1, self.calls - 1)
        return StageUse(
            calls=self.calls,
            growth_tokens=max(0, round(growth)),
            output_tokens=round(self.output_tokens / max(1, self.calls)),
        )


class PlannerMaker(Protocol):
    """Makes the planner of one workflow: `WorkflowPlanner` itself, or another policy of its kind."""

    def __call__(self, options: PlanOptions, *, solve: Callable[[BudgetProblem], BudgetPlan]) -> WorkflowPlanner:
        """Return a planner that knows nothing yet."""


class WorkflowPlanner:
    """Plans one workflow, invocation by invocation.

    Args:
        options: What the user wants.
        solve: Solves a budget problem; `planner.budgets.solver.solve_budget`.
    """

    masks = True
    """Whether it ever masks: then every prompt has to offer the tool that expands stubs."""

    shortens = True
    """Whether new results may enter in shorter forms, which have to be worked out first."""

    def __init__(self, options: PlanOptions, *, solve: Callable[[BudgetProblem], BudgetPlan]) -> None:
        self.options = options
        self.stages: dict[tuple[str, int], StageRecord] = {}
        self._solve = solve
        self.forecasts = forecasts(options.models, options.widening)
        self._history: defaultdict[str, list[StageUse]] = defaultdict(list)
        self._main: Invocation | None = None
        self._current: dict[str, int] = {}
        self._spent_tokens = 0.0
        self._cost = 0.0
        self._cost_unplanned = 0.0
        self._sure = 0.0
        self._visible = 0
        self._visible_unplanned = 0

    def before(self, ask: Invocation) -> InvocationPlan:
        """Plan one invocation."""
        if not self.options.enabled:
            return InvocationPlan(MaskPlan.nothing(), (), None, "OFF", None, ())
        births = self.plan_births(ask)
        self._sure += _saved_for_sure(ask, births)
        masks, joint = self.plan_masks(ask, births), self.plan_jointly(ask, births)
        if joint is not None and not masks.forced and joint.saved_tokens > masks.saved_tokens:
            masks = joint
        degraded = (self._forced_by(ask, births),) if masks.forced else ()
        prompt_tokens = ask.overhead_tokens + float(tokens_with(ask.prompt, births).sum()) - masks.saved_tokens
        allocated, status, gap, reasons = self._plan_budget(ask, prompt_tokens)
        return InvocationPlan(masks, births, allocated, status, gap, degraded + reasons + self.forecasts.degraded)

    def plan_births(self, ask: Invocation) -> tuple[Birth, ...]:
        """Return how new items enter the prompt: by reference where it holds the same bytes, else shorter if that pays.

        References, to all of it or to blocks of lines, and lossless forms are never dearer, and the receiver has all
        of the text.
        """
        prompt = ask.prompt
        new = np.flatnonzero(prompt.column("born") == ask.call)
        return tuple(birth for row in new.tolist() if (birth := self._birth(ask, row)) is not None)

    def _birth(self, ask: Invocation, row: int) -> Birth | None:
        prompt, off = ask.prompt, self.options.off
        tokens, copy = prompt.value("tokens", row), int(prompt.value("copy", row))
        if copy >= 0 and tokens > REFERENCE_TOKENS and prompt.shown(copy) and Feature.REFERENCE not in off:
            return Birth(row, Action.REFERENCE, float(REFERENCE_TOKENS), copy)
        structured, selected = prompt.value("structured", row), prompt.value("selected", row)
        referred = prompt.value("referred", row)
        if Feature.STRUCTURE in off:
            structured = tokens
        if Feature.REFERENCE in off:
            referred = tokens
        lossless = min(structured, referred)
        worth = selected < lossless and Feature.SELECT not in off
        if worth and self._worth_selecting(ask, row, lossless, selected):
            return Birth(row, Action.SELECT, selected)
        if referred < min(structured, tokens):
            return Birth(row, Action.REFERENCE, referred)
        return Birth(row, Action.STRUCTURE, structured) if structured < tokens else None

    def _worth_selecting(self, ask: Invocation, row: int, structured: float, selected: float) -> bool:
        """Say whether to leave parts of a new item out: what that saves repays the expansions that it risks."""
        prompt, prices, later = ask.prompt, ask.prices, REMAINING_CALLS[ask.role]
        held = prices.write + prices.read * later
        asked = prices.read * (ask.overhead_tokens + float(prompt.column("tokens").sum()))
        expansion = asked + prices.output * EXPANSION_OUTPUT_TOKENS + float(prompt.column("tokens")[row]) * held
        saved = (structured - selected) * (held + DEFAULT_TOKEN_WEIGHT * prices.write * (1.0 + later))
        return saved > (1.0 + CAUTION) * float(prompt.column("selected_need")[row]) * expansion

    def plan_jointly(self, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan | None:
        """Return which items to mask where tokens are short, or `None` where nothing couples them to other runs.

        What leaves this prompt, and what it and all others may still use, are one problem then; see
        `invocation_problem`. A plan that is expected to be dearer than doing nothing is not taken.
        """
        limit = self._tokens_left()
        if limit is None or not self.options.allows(Feature.ELIDE):
            return None
        state = self._prompt_state(ask, births)
        prompt_tokens = ask.overhead_tokens + float(state.tokens.sum())
        if not self._binding(ask, prompt_tokens) or _beyond_window(ask, prompt_tokens) > 0:
            return None
        history = self._history[kind_of(ask)]
        growth, output = self.forecasts.demand.per_call(ask.role, history=history, caller=ask.caller)
        others = [
            Waiting(run_id, self._forecast(record.begun, record.last_prompt), record.last_prompt)
            for (run_id, number), record in self.stages.items()
            if number == ask.stage and run_id != ask.run_id and record.recorded is None
        ]
        joint = invocation_problem(
            ask.run_id,
            state,
            ask.prices,
            (
                *others,
                Waiting(LATER, self._forecast_later(ask, self._expected_prompt(ask, prompt_tokens)), prompt_tokens),
            ),
            output_tokens=output,
            growth_tokens=growth,
            max_tokens=limit,
            reserve_tokens=int(limit * self.options.budget.reserve_share),
        )
        try:
            plan = plan_workflow(joint.problem, deadline_ms=None)
        except InfeasiblePlanError:
            return None
        masks = mask_exactly(state, ask.prices, joint.masked(plan))
        return None if masks.forced else masks

    def plan_masks(self, ask: Invocation, births: tuple[Birth, ...]) -> MaskPlan:
        """Return which items to mask before a call, given how new ones enter; other policies override this."""
        if not self.options.allows(Feature.ELIDE):
            return MaskPlan.nothing()
        state = self._prompt_state(ask, births)
        tokens, prompt_tokens = state.tokens, ask.overhead_tokens + float(state.tokens.sum())
        seen = self._seen(ask, births)
        saveable = float((tokens - state.stub_tokens)[seen & (tokens > state.stub_tokens)].sum())
        must_save = max(_beyond_window(ask, prompt_tokens), self._beyond_budget(prompt_tokens, saveable))
        short = self._binding(ask, prompt_tokens)
        return plan_masks(
            replace(state, maskable=seen) if must_save > 0 else state,
            ask.prices,
            UNLIMITED if short else self._solvency(),
            token_weight=DEFAULT_TOKEN_WEIGHT * ask.prices.write,
            must_save=must_save,
            press=short or self._target_missed(),
        )

    def _seen(self, ask: Invocation, births: tuple[Birth, ...]) -> NDArray[np.bool_]:
        """Say which items may be masked because a call has seen them whole."""
        seen: NDArray[np.bool_] = ask.prompt.column("maskable") & (ask.call > ask.prompt.column("viewed"))
        for birth in births:
            if birth.action is Action.REFERENCE:
                seen[[*ask.prompt.owed_by(birth.row), *([birth.copy] if birth.copy >= 0 else [])]] = False
        return seen

    def _prompt_state(self, ask: Invocation, births: tuple[Birth, ...]) -> PromptState:
        prompt = ask.prompt
        need = prompt.need_at(ask.call)
        old = ask.call - prompt.column("viewed") >= VIEWS
        return PromptState(
            tokens=tokens_with(prompt, births),
            stub_tokens=prompt.column("stub") + owed_with(prompt, births),
            maskable=self._seen(ask, births) & (old | (need <= TINY_NEED)),
            need=need,
            cached_items=ask.cached_items,
            overhead_tokens=ask.overhead_tokens,
            remaining_calls=REMAINING_CALLS[ask.role],
        )

    def _solvency(self) -> Solvency:
        """Return what masks may risk: what they have saved. What lossless forms save for sure is not put at stake."""
        return Solvency(self._cost_unplanned - self._cost - self._sure, LOSS_ALLOWANCE * self._cost_unplanned)

    def _target_missed(self) -> bool:
        target = self.options.target_reduction
        return bool(target) and self._visible > (1.0 - (target or 0.0)) * self._visible_unplanned

    def _binding(self, ask: Invocation, prompt_tokens: float) -> bool:
        """Say whether tokens are short: the run is expected to use more than it is allocated, or than is left.

        The masks that save most tokens are wanted then, up to the bill of doing nothing, and what the workflow can
        afford to lose counts no more. Where dollars alone are short it does count: a loss would use them up sooner.
        """
        left = self._tokens_left()
        if left is None:
            return False
        share = left * (1.0 - self.options.budget.reserve_share)
        record = self.stages.get((ask.run_id, ask.stage))
        if record is not None and record.allocated_tokens is not None:
            share = min(share, record.allocated_tokens - record.used_tokens)
        return prompt_tokens * (1.0 + REMAINING_CALLS[ask.role]) > share

    def _tokens_left(self) -> int | None:
        limit = self.options.budget.max_tokens
        return None if limit is None else max(0, int(limit - self._spent_tokens))

    def _beyond_budget(self, prompt_tokens: float, saveable: float) -> float:
        """Return the tokens that have to leave for the call to fit what is left, or 0 where that does not help.

        A limit in dollars forces nothing: a plan that is dearer than doing nothing would use it up sooner.
        """
        limit = self._tokens_left()
        if limit is None:
            return 0.0
        beyond = prompt_tokens + EXPANSION_OUTPUT_TOKENS - (limit - int(limit * self.options.budget.reserve_share))
        return beyond + QUANTUM_TOKENS if 0 < beyond + QUANTUM_TOKENS <= saveable else 0.0

    def _forced_by(self, ask: Invocation, births: tuple[Birth, ...]) -> str:
        tokens = ask.overhead_tokens + float(tokens_with(ask.prompt, births).sum())
        return CUT_TO_WINDOW if _beyond_window(ask, tokens) > 0 else CUT_TO_BUDGET

    def after(self, used: Used) -> None:
        """Take note of what a call used."""
        tokens = used.prompt_tokens + used.output_tokens + used.extra_tokens
        self._spent_tokens += tokens
        self._cost += used.cost
        self._cost_unplanned += used.cost_unplanned
        self._visible += used.visible_tokens
        self._visible_unplanned += used.visible_unplanned
        record = self.stages.get((used.run_id, used.stage))
        if record is not None:
            record.used_tokens += tokens
            record.output_tokens += used.output_tokens
            record.last_prompt = used.prompt_tokens
            record.calls += 1

    def finished(self, run_id: str) -> None:
        """Take note that an agent run has ended and handed its result back.

        It needs no more tokens; what it used informs the forecasts for later runs of its role.
        """
        stage = self._current.pop(run_id, None)
        if stage is not None:
            self._close((run_id, stage))

    def _close(self, key: tuple[str, int]) -> None:
        record = self.stages[key]
        if not record.calls:  # its calls failed, or were never made: nothing to learn from
            del self.stages[key]
            return
        record.recorded = record.use
        self._history[kind_of(record.begun)].append(record.recorded)

    def _plan_budget(
        self, ask: Invocation, prompt_tokens: float
    ) -> tuple[int | None, str, float | None, tuple[str, ...]]:
        record = self._begin_stage(ask, prompt_tokens)
        if record.allocated_tokens is not None and record.used_tokens + prompt_tokens <= record.allocated_tokens:
            return record.allocated_tokens, "STANDING", None, ()
        try:
            granted, status, gap, degraded = self.allocate(self._problem(ask, prompt_tokens))
        except InfeasiblePlanError:
            record.allocated_tokens = None
            return None, "INFEASIBLE", None, (BUDGET_USED_UP,)
        record.allocated_tokens = round(record.used_tokens) + granted[ask.run_id]
        return record.allocated_tokens, status, gap, degraded

    def allocate(self, problem: BudgetProblem) -> Allocations:
        """Share out a budget; other policies override this.

        Raises:
            InfeasiblePlanError: What is left does not hold the next call.
        """
        plan = self._solve(problem)
        granted = {allocation.agent_id: allocation.tokens for allocation in plan.allocations}
        return granted, plan.status, plan.gap, plan.degraded

    def _begin_stage(self, ask: Invocation, prompt_tokens: float) -> StageRecord:
        key = (ask.run_id, ask.stage)
        record = self.stages.get(key)
        if record is None:
            previous = self._current.get(ask.run_id)
            if previous is not None:
                self._close((ask.run_id, previous))
            if ask.role == "main":
                self._main = ask
            demand = self._forecast(ask, self._expected_prompt(ask, prompt_tokens))
            likely = dict(zip(demand.probabilities, demand.tokens, strict=True))[0.9]
            record = StageRecord(ask, likely, first_prompt=prompt_tokens, last_prompt=prompt_tokens)
            self.stages[key] = record
        elif record.recorded is not None:  # it was over, and has been called again
            self._history[kind_of(record.begun)].remove(record.recorded)
            record.recorded = None
        self._current[ask.run_id] = ask.stage
        return record

    def _problem(self, ask: Invocation, prompt_tokens: float) -> BudgetProblem:
        """Share what is left among the runs of this stage, and keep some for the stages to come."""
        limit = self._limit_tokens(ask)
        stage = str(ask.stage)
        expected = self._expected_prompt(ask, prompt_tokens)
        later = AgentNeed(id=LATER, stage_id=LATER, demand=self._forecast_later(ask, expected))
        asking = AgentNeed(
            id=ask.run_id,
            stage_id=stage,
            demand=self._forecast(ask, expected),
            floor_tokens=round(prompt_tokens) + EXPANSION_OUTPUT_TOKENS,
        )
        others = [
            AgentNeed(id=run_id, stage_id=stage, demand=self._forecast(record.begun, record.last_prompt))
            for (run_id, number), record in self.stages.items()
            if number == ask.stage and run_id != ask.run_id and record.recorded is None
        ]
        if limit is None:
            return BudgetProblem(agents=(asking, *others), stages=(StageCap(id=stage),))
        reserve = int(limit * self.options.budget.reserve_share)
        cap = max(asking.floor_tokens, _share_of_stage((asking, *others), later, limit - reserve))
        return BudgetProblem(
            agents=(asking, *others, later),
            stages=(StageCap(id=stage, max_tokens=cap), StageCap(id=LATER)),
            max_tokens=limit,
            reserve_tokens=reserve,
        )

    def _limit_tokens(self, ask: Invocation) -> int | None:
        """Return what the workflow may still use in total tokens, or `None` for no limit.

        A limit in US dollars is converted at what a token of this workflow has cost so far.
        """
        budget = self.options.budget
        limits = []
        if budget.max_tokens is not None:
            limits.append(budget.max_tokens - self._spent_tokens)
        if budget.max_usd is not None and ask.priced:
            rate = self._cost / self._spent_tokens if self._spent_tokens else ask.prices.write
            limits.append((budget.max_usd - self._cost) / rate)
        return max(0, int(min(limits))) if limits else None

    def _forecast(self, ask: Invocation, prompt_tokens: float) -> Demand:
        return self.forecasts.demand.forecast(
            ask.role,
            prompt_tokens=round(prompt_tokens),
            history=self._history[kind_of(ask)],
            caller=ask.caller,
            features=ask.features,
        )

    def _expected_prompt(self, ask: Invocation, prompt_tokens: float) -> float:
        """Return how large the prompt of this call is likely to be.

        Before the first call of a run nobody has told what it holds beyond its visible text: what is usual is added.
        """
        if ask.caller is None or ask.call > 0 or ask.overhead_tokens:
            return prompt_tokens
        return prompt_tokens + (self.forecasts.demand.overhead_tokens(ask.caller) or 0)

    def _forecast_later(self, ask: Invocation, prompt_tokens: float) -> Demand:
        """Forecast what the main agent will need in a later stage, of which nothing else is known yet."""
        main = self._main or replace(ask, role="main", caller=None)
        return self._forecast(replace(main, features=None), prompt_tokens)


def kind_of(ask: Invocation) -> str:
    """Return what agent runs have in common that learn from each other: their type, or at least their role."""
    return ask.role if ask.caller is None else f"{ask.role}/{ask.caller.agent}"


def _saved_for_sure(ask: Invocation, births: Sequence[Birth]) -> float:
    """Return what lossless forms save in one call, in the currency of the prices."""
    held = ask.prompt.structured_away()
    cached = float(held[: ask.cached_items].sum())
    whole = ask.prompt.column("tokens")
    new = sum(float(whole[birth.row]) - birth.tokens for birth in births if birth.action is not Action.SELECT)
    written = float(held.sum()) - cached + new
    return ask.calibration * (cached * ask.prices.read + written * ask.prices.write)


def tokens_with(prompt: PlannedPrompt, births: Sequence[Birth]) -> NDArray[np.float64]:
    """Return the tokens of each item once new ones have entered as planned, shape (n,)."""
    tokens: NDArray[np.float64] = prompt.column("tokens").copy()
    for birth in births:
        tokens[birth.row] = birth.tokens
    return tokens


def owed_with(prompt: PlannedPrompt, births: Sequence[Birth]) -> NDArray[np.float64]:
    """Return by how many tokens later items grow once each item is gone, new ones having entered, shape (n,)."""
    owed: NDArray[np.float64] = prompt.column("owed").copy()
    for birth in births:
        for source, grows in prompt.owed_by(birth.row).items() if birth.action is Action.REFERENCE else ():
            owed[source] += grows
    return owed


def _beyond_window(ask: Invocation, prompt_tokens: float) -> float:
    if ask.context_window is None:
        return 0.0
    return max(0.0, prompt_tokens - ask.context_window / min(1.0, ask.calibration))


def _share_of_stage(agents: Sequence[AgentNeed], later: AgentNeed, left: int) -> int:
    """Return the part of what is left that the runs of a stage may use together: by demand, as the rest wants it."""
    wanted = sum(agent.most_tokens for agent in agents)
    return left * wanted // max(1, wanted + later.most_tokens)
