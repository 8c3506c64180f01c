from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InputError
from apportion.models.demand import StageUse
from apportion.models.features import Caller
from apportion.planner import planner as module
from apportion.planner.budgets.solver import solve_budget
from apportion.planner.forecasts import Forecasts, require_trained
from apportion.planner.masking import TokenPrices
from apportion.planner.planner import (
    BUDGET_USED_UP,
    CUT_TO_BUDGET,
    LATER,
    Birth,
    Invocation,
    PlanOptions,
    StageRecord,
    Used,
    WorkflowPlanner,
)
from apportion.planner.prompt import REFERENCE_TOKENS, PlannedPrompt
from apportion.records import Action, Budget, Demand

if TYPE_CHECKING:
    from pathlib import Path

    from apportion.planner.budgets.plan import BudgetPlan
    from apportion.planner.budgets.problem import BudgetProblem

PRICES = TokenPrices(read=0.5e-6, write=6.25e-6, output=25e-6)


class Recorded:
    """Solves for real, and keeps the problems."""

    def __init__(self) -> None:
        self.problems: list[BudgetProblem] = []

    def __call__(self, problem: BudgetProblem) -> BudgetPlan:
        self.problems.append(problem)
        return solve_budget(problem)


def planner(options: PlanOptions | None = None) -> tuple[WorkflowPlanner, Recorded]:
    solve = Recorded()
    return WorkflowPlanner(options or PlanOptions(), solve=solve), solve


class Told:
    """A forecaster that needs ten times the prompt, and keeps what it was told."""

    def __init__(self) -> None:
        self.callers: list[Caller | None] = []
        self.prompts: list[int] = []

    def forecast(self, role: str, *, prompt_tokens: int, caller: Caller | None = None, **_others: Any) -> Demand:
        assert role in {"main", "sub"}
        self.callers.append(caller)
        self.prompts.append(prompt_tokens)
        return Demand(probabilities=(0.5, 0.9), tokens=(prompt_tokens, 10 * prompt_tokens), sample_size=7)

    def per_call(self, role: str, *, caller: Caller | None = None, **_others: Any) -> tuple[int, int]:
        assert role in {"main", "sub"}
        self.callers.append(caller)
        return 10, 10

    def overhead_tokens(self, caller: Caller) -> int | None:
        return 2_000 if caller.agent == "main" else None


def test_demand_comes_from_the_forecaster_that_was_given_who_is_told_who_calls() -> None:
    told, caller = Told(), Caller("codex-cli", "shop", "main", "main", "gpt-5.5")
    plans, _ = planner()
    plans.forecasts = Forecasts(told, learned=True)
    plans.before(ask(prompt_of(9000), caller=caller, call=0, overhead_tokens=0.0))
    assert plans.stages["main", 1].likely_tokens == 10 * (9_000 + 2_000), "system prompt and tools are expected"
    assert set(told.callers) == {caller}


def test_a_prompt_that_is_known_is_not_expected_to_hold_a_system_prompt_once_more() -> None:
    told, caller = Told(), Caller("codex-cli", "shop", "main", "main", "gpt-5.5")
    plans, _ = planner(PlanOptions(budget=Budget(max_tokens=10**6)))
    plans.forecasts = Forecasts(told, learned=True)
    plans.before(ask(prompt_of(9000), caller=caller, call=0, overhead_tokens=0.0))
    assert set(told.prompts) == {11_000}
    plans.stages["main", 1].last_prompt = 12_000.0
    other = Caller("codex-cli", "shop", "helper", "sub", "gpt-5.5")
    told.prompts.clear()
    plans.before(ask(prompt_of(500), run_id="sub", role="sub", caller=other, call=0, overhead_tokens=0.0))
    assert set(told.prompts) == {500, 12_000}


def test_a_folder_that_cannot_be_used_leaves_the_priors_and_says_so(tmp_path: Path) -> None:
    version = tmp_path / "0001-0123abcd"
    version.mkdir()
    (version / "manifest.json").write_text("{", encoding="ascii")
    (tmp_path / "current").write_text("0001-0123abcd\n", encoding="ascii")
    plans, _ = planner(PlanOptions(models=tmp_path))
    plan = plans.before(ask(prompt_of(9000)))
    assert not plans.forecasts.learned
    assert plans.stages["main", 1].likely_tokens == planner_with_priors().likely_tokens
    assert any("manifest" in reason for reason in plan.degraded)


def planner_with_priors() -> StageRecord:
    plans, _ = planner()
    plans.before(ask(prompt_of(9000)))
    return plans.stages["main", 1]


def test_models_are_asked_for_only_where_some_were_trained(tmp_path: Path) -> None:
    require_trained(None)
    with pytest.raises(InputError, match="no models have been trained"):
        require_trained(tmp_path)


def prompt_of(*tokens: int, born: int = 0, need: float = 0.0, maskable: bool = True) -> PlannedPrompt:
    prompt = PlannedPrompt()
    for number, size in enumerate(tokens):
        prompt.append(
            piece=number, logged=number, visible=size, tokens=float(size), born=born, need=need, maskable=maskable
        )
    prompt.sent()
    return prompt


def ask(prompt: PlannedPrompt, **changes: Any) -> Invocation:
    plain = Invocation(
        run_id="main",
        role="main",
        stage=1,
        call=1,
        prompt=prompt,
        overhead_tokens=0.0,
        cached_items=0,
        prices=PRICES,
        priced=True,
        context_window=None,
    )
    return replace(plain, **changes)


def used(tokens: float, *, cost: float = 0.0, unplanned: float = 0.0, **changes: Any) -> Used:
    plain = Used(
        run_id="main",
        stage=1,
        prompt_tokens=tokens,
        output_tokens=0.0,
        cost=cost,
        cost_unplanned=unplanned,
        visible_tokens=0,
        visible_unplanned=0,
    )
    return replace(plain, **changes)


def test_what_was_never_sent_is_never_masked() -> None:
    plans, _ = planner()
    plans.after(used(1, unplanned=1e6))
    assert plans.before(ask(prompt_of(9000, born=1), call=1)).masks.items.size == 0
    assert plans.before(ask(prompt_of(9000, born=0), call=1)).masks.items.size == 1


def test_a_prompt_beyond_the_window_is_cut_to_fit_and_says_so() -> None:
    plans, _ = planner()
    prompt = prompt_of(*[3000] * 10, need=0.9)
    fits = plans.before(ask(prompt, cached_items=10, context_window=30_000))
    assert fits.masks.items.size == 0
    cut = plans.before(ask(prompt, cached_items=10, context_window=20_000))
    assert cut.masks.saved_tokens >= 10_000
    assert any("context window" in reason for reason in cut.degraded)


def test_a_prompt_that_was_counted_too_high_is_not_cut() -> None:
    plans, _ = planner()
    prompt = prompt_of(*[3000] * 10, need=0.9)
    plan = plans.before(ask(prompt, cached_items=10, context_window=20_000, calibration=0.6))
    assert plan.masks.items.size == 0
    assert plan.degraded == ()


def exposure(tokens: int) -> float:
    """What masking one uncached item that is never needed can lose: its expansion, less what is saved for sure."""
    calls, saved = 8, tokens - 24
    expansion = PRICES.read * tokens + PRICES.output * 60 + tokens * (PRICES.write + PRICES.read * calls)
    return expansion - saved * (PRICES.write + PRICES.read * calls)


@pytest.mark.parametrize(("share", "masked"), [(0.99, 0), (1.01, 1)])
def test_a_mask_is_affordable_from_half_a_percent_of_the_bill_so_far(share: float, masked: int) -> None:
    plans, _ = planner()
    bill = share * exposure(9000) / 0.005
    plans.after(used(1, cost=bill, unplanned=bill))
    assert plans.before(ask(prompt_of(9000))).masks.items.size == masked


@pytest.mark.parametrize(("share", "masked"), [(0.99, 0), (1.01, 1)])
def test_a_mask_is_affordable_from_what_planning_has_saved(share: float, masked: int) -> None:
    plans, _ = planner()
    saved = share * exposure(9000) / 1.005
    plans.after(used(1, cost=0.0, unplanned=saved))
    assert plans.before(ask(prompt_of(9000))).masks.items.size == masked


def test_losses_stop_further_masks() -> None:
    plans, _ = planner()
    plans.after(used(1, cost=2.0, unplanned=1.0))
    assert plans.before(ask(prompt_of(9000))).masks.items.size == 0


def break_even_prompt() -> PlannedPrompt:
    """Two results: masking the second alone is the cheaper plan, masking both saves more tokens."""
    prompt = PlannedPrompt()
    for number, (size, maskable) in enumerate([(3000, True), (6000, False), (3000, True)]):
        prompt.append(
            piece=number, logged=number, visible=size, tokens=float(size), born=0, need=0.0, maskable=maskable
        )
    prompt.sent()
    return prompt


def masked_items(options: PlanOptions, *used_so_far: Used) -> list[int]:
    plans, _ = planner(options)
    for one in used_so_far:
        plans.after(one)
    items: list[int] = plans.before(ask(break_even_prompt(), cached_items=3)).masks.items.tolist()
    return items


def test_a_token_not_sent_is_worth_more_than_its_price(monkeypatch: pytest.MonkeyPatch) -> None:
    rich = used(1, unplanned=1e6)
    monkeypatch.setattr(module, "REMAINING_CALLS", {"main": 20.0, "sub": 7.0})
    assert masked_items(PlanOptions(), rich) == [0, 2]
    monkeypatch.setattr(module, "DEFAULT_TOKEN_WEIGHT", 0.0)
    assert masked_items(PlanOptions(), rich) == [2]


def test_a_missed_target_raises_what_a_token_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEFAULT_TOKEN_WEIGHT", 0.005)
    monkeypatch.setattr(module, "REMAINING_CALLS", {"main": 20.0, "sub": 7.0})
    missed = used(1, unplanned=1e6, visible_tokens=100, visible_unplanned=100)
    reached = used(1, unplanned=1e6, visible_tokens=40, visible_unplanned=100)
    assert masked_items(PlanOptions(target_reduction=0.5), missed) == [0, 2]
    assert masked_items(PlanOptions(target_reduction=0.5), reached) == [2]
    assert masked_items(PlanOptions(target_reduction=0.0), missed) == [2]


def test_switched_off_nothing_is_planned() -> None:
    plans, solve = planner(PlanOptions(enabled=False))
    plans.after(used(1, unplanned=1e6))
    plan = plans.before(ask(prompt_of(9000)))
    assert (plan.status, plan.masks.items.size, plan.allocated_tokens, solve.problems) == ("OFF", 0, None, [])


def test_a_budget_plan_stands_while_its_tokens_last() -> None:
    plans, solve = planner()
    first = plans.before(ask(prompt_of(5000)))
    assert first.status == "OPTIMAL"
    assert first.allocated_tokens is not None
    plans.after(used(5000))
    again = plans.before(ask(prompt_of(5000), call=2))
    assert (again.status, again.allocated_tokens) == ("STANDING", first.allocated_tokens)
    plans.after(used(first.allocated_tokens))
    assert plans.before(ask(prompt_of(5000), call=3)).status == "OPTIMAL"
    assert len(solve.problems) == 2


def test_a_limit_keeps_a_reserve_and_tokens_for_later_stages() -> None:
    plans, solve = planner(PlanOptions(budget=Budget(max_tokens=1_000_000, reserve_share=0.1)))
    plans.before(ask(prompt_of(5000)))
    (problem,) = solve.problems
    assert (problem.max_tokens, problem.reserve_tokens) == (1_000_000, 100_000)
    assert {agent.id: agent.stage_id for agent in problem.agents} == {"main": "1", LATER: LATER}


def test_runs_of_the_same_stage_share_its_budget_and_earlier_stages_do_not() -> None:
    plans, solve = planner()
    plans.before(ask(prompt_of(5000), run_id="old", stage=0))
    plans.before(ask(prompt_of(5000), run_id="main"))
    plans.before(ask(prompt_of(5000), run_id="helper", role="sub"))
    assert [agent.id for agent in solve.problems[-1].agents] == ["helper", "main"]


def test_what_was_spent_is_gone() -> None:
    plans, solve = planner(PlanOptions(budget=Budget(max_tokens=1_000_000)))
    plans.after(used(300_000))
    plans.before(ask(prompt_of(5000)))
    assert solve.problems[0].max_tokens == 700_000


def test_a_limit_in_dollars_is_converted_at_what_a_token_has_cost() -> None:
    plans, solve = planner(PlanOptions(budget=Budget(max_usd=3.0)))
    plans.after(used(100_000, cost=1.0, unplanned=1.0))
    plans.before(ask(prompt_of(5000)))
    assert solve.problems[0].max_tokens == pytest.approx(200_000, abs=1)


def test_a_limit_in_dollars_needs_a_price() -> None:
    plans, solve = planner(PlanOptions(budget=Budget(max_usd=3.0)))
    plans.before(ask(prompt_of(5000), priced=False))
    assert solve.problems[0].max_tokens is None


def test_a_budget_that_is_used_up_gives_no_allocation_and_says_so() -> None:
    plans, _ = planner(PlanOptions(budget=Budget(max_tokens=10_000)))
    plans.after(used(9000))
    plan = plans.before(ask(prompt_of(5000, maskable=False)))
    assert (plan.status, plan.allocated_tokens, plan.degraded) == ("INFEASIBLE", None, (BUDGET_USED_UP,))


def test_what_is_left_of_a_token_budget_may_force_a_dearer_plan_which_says_so() -> None:
    for budget, forced in ((Budget(max_tokens=20_000), True), (Budget(max_usd=0.02), False)):
        plans, _ = planner(PlanOptions(budget=budget))
        plans.after(used(9000, cost=0.009, unplanned=0.009))
        plan = plans.before(ask(prompt_of(6000, 6000, need=0.95), cached_items=2))
        assert plan.masks.forced == forced
        assert (CUT_TO_BUDGET in plan.degraded) == forced
        assert (plan.status == "INFEASIBLE") != forced


def test_a_short_token_budget_masks_what_the_workflow_could_not_afford_otherwise() -> None:
    masked = []
    for budget in (Budget(), Budget(max_tokens=10**9), Budget(max_tokens=100_000), Budget(max_usd=0.5)):
        plans, _ = planner(PlanOptions(budget=budget))
        plans.after(used(10_000, cost=0.01, unplanned=0.01))
        masked.append(plans.before(ask(prompt_of(6000, 100, need=0.1), cached_items=2, call=3)).masks.items.tolist())
    assert masked == [[], [], [0, 1], []]


def test_a_stage_may_not_take_what_later_stages_are_likely_to_need() -> None:
    plans, solve = planner(PlanOptions(budget=Budget(max_tokens=1_000_000)))
    plans.before(ask(prompt_of(5000)))
    caps = {stage.id: stage.max_tokens for stage in solve.problems[0].stages}
    assert caps == {"1": 475_000, LATER: None}
    plans, solve = planner()
    plans.before(ask(prompt_of(5000)))
    assert [stage.max_tokens for stage in solve.problems[0].stages] == [None]


def test_a_sub_agent_that_has_handed_back_needs_no_more_and_informs_the_next_one() -> None:
    plans, solve = planner(PlanOptions(budget=Budget(max_tokens=5_000_000)))
    for number in range(3):
        plans.before(ask(prompt_of(9000), run_id=f"sub{number}", role="sub"))
        for _ in range(2):
            plans.after(used(9000, run_id=f"sub{number}", output_tokens=100.0))
        if number != 1:
            plans.finished(f"sub{number}")
    last = solve.problems[-1]
    assert [agent.id for agent in last.agents] == ["sub2", "sub1", LATER]
    assert last.agents[0].demand.sample_size == 1


def test_a_finished_run_that_is_called_again_is_open_again() -> None:
    plans, solve = planner(PlanOptions(budget=Budget(max_tokens=5_000_000)))
    plans.before(ask(prompt_of(9000), run_id="sub", role="sub"))
    plans.after(used(9000, run_id="sub"))
    plans.finished("sub")
    plans.finished("sub")
    plans.before(ask(prompt_of(9000), run_id="sub", role="sub", call=2))
    plans.before(ask(prompt_of(9000), run_id="other", role="sub"))
    assert [agent.id for agent in solve.problems[-1].agents] == ["other", "sub", LATER]
    assert solve.problems[-1].agents[0].demand.sample_size == 0
    plans.after(used(9000, run_id="sub"))
    plans.finished("sub")
    plans.before(ask(prompt_of(9000), run_id="third", role="sub"))
    assert solve.problems[-1].agents[0].demand.sample_size == 1


def test_extra_calls_are_used_tokens_but_no_growth_of_the_prompt() -> None:
    plans, _ = planner()
    plans.before(ask(prompt_of(5000)))
    plans.after(used(5000))
    plans.after(used(6000, output_tokens=10.0, extra_tokens=6060.0))
    record = plans.stages["main", 1]
    assert record.used_tokens == 5000 + 6000 + 10 + 6060
    assert record.use == StageUse(calls=2, growth_tokens=1000, output_tokens=5)


def twice(*, copy: int = 0) -> PlannedPrompt:
    """A prompt that was sent, and a new result with the same bytes as its first item."""
    prompt = prompt_of(4000)
    prompt.append(piece=1, logged=1, visible=4000, tokens=4000.0, born=1, need=0.3, maskable=True, copy=copy)
    return prompt


def test_a_repeated_result_is_referred_to_and_its_copy_is_not_masked() -> None:
    plans, _ = planner()
    plans.after(used(1, unplanned=1e6))
    plan = plans.before(ask(twice()))
    assert plan.births == (Birth(1, Action.REFERENCE, REFERENCE_TOKENS, 0),)
    assert plan.masks.items.size == 0
    record = plans.stages["main", 1]
    assert record.first_prompt == 4000 + REFERENCE_TOKENS


def test_what_has_no_whole_copy_is_sent_as_it_is() -> None:
    plans, _ = planner()
    assert plans.before(ask(twice(copy=-1))).births == ()
    masked = twice()
    masked.replace(0, Action.MASK, visible=20, tokens=20.0)
    assert plans.before(ask(masked)).births == ()
    assert plans.before(ask(twice(), call=2)).births == ()
    off, _ = planner(PlanOptions(enabled=False))
    assert off.before(ask(twice())).births == ()


def new_result(*, structured: float = 4000.0, selected: float = 4000.0, need: float = 0.0) -> PlannedPrompt:
    """A prompt that was sent, and a new result of 4,000 tokens with shorter forms."""
    prompt = prompt_of(4000)
    prompt.append(
        piece=1,
        logged=1,
        visible=4000,
        tokens=4000.0,
        born=1,
        need=0.3,
        maskable=True,
        structured=structured,
        selected=selected,
        selected_need=need,
    )
    return prompt


def test_a_new_result_enters_in_its_shortest_lossless_form() -> None:
    plans, _ = planner()
    plan = plans.before(ask(new_result(structured=2500.0, selected=2500.0)))
    assert plan.births == (Birth(1, Action.STRUCTURE, 2500.0),)
    assert plans.stages["main", 1].first_prompt == 4000 + 2500


def test_what_lossless_forms_save_is_not_put_at_stake() -> None:
    plans, _ = planner()
    stale = prompt_of(4000, 4000, 4000, maskable=False)
    stale.shorten(0, Action.STRUCTURE, visible=1000, tokens=1000.0)
    plans.before(ask(stale))
    saved = 3000 * ask(stale).prices.write
    plans.after(replace(used(9000), cost=1.0, cost_unplanned=1.0 + saved))
    assert plans._solvency().credit == pytest.approx(0.0)
    plans.before(ask(stale, cached_items=3))
    plans.after(replace(used(9000), cost=1.0, cost_unplanned=1.0 + 3000 * ask(stale).prices.read + 0.25))
    assert plans._solvency().credit == pytest.approx(0.25)


def test_parts_are_left_out_only_where_that_repays_the_need() -> None:
    plans, _ = planner()
    for need, action in ((0.0, Action.SELECT), (0.9, Action.STRUCTURE)):
        (birth,) = plans.before(ask(new_result(structured=2500.0, selected=1000.0, need=need))).births
        assert birth.action is action


def test_an_earlier_stage_of_a_run_informs_its_next_one() -> None:
    plans, solve = planner()
    plans.before(ask(prompt_of(5000)))
    for _ in range(3):
        plans.after(used(5000, output_tokens=100.0))
    plans.before(ask(prompt_of(5000), stage=2))
    assert [problem.agents[0].demand.sample_size for problem in solve.problems] == [0, 1]
