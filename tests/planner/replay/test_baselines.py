from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apportion.errors import InputError
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.solver import solve_budget
from apportion.planner.masking import TokenPrices
from apportion.planner.planner import Invocation, PlanOptions
from apportion.planner.prompt import PlannedPrompt
from apportion.planner.replay.baselines import BASELINES, NO_BUDGET, find_baselines
from apportion.planner.replay.workflow import replay_workflow
from apportion.records import Budget, Demand
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from apportion.planner.planner import InvocationPlan
    from apportion.planner.replay.results import WorkflowResult

SESSIONS = Path(__file__).parents[3] / "fixtures" / "logs" / "sessions"
OPTIONS = PlanOptions()


@pytest.fixture(scope="module")
def codex() -> WorkflowResult:
    (log,) = read_logs([SESSIONS / "codex-agentv.jsonl.zst"], SkipLog())
    return replay_workflow(log, OPTIONS, against=tuple(BASELINES))


def decided(name: str, *, call: int, results: int, cached: int = 0) -> InvocationPlan:
    """What a rule does before a call, when each earlier call brought one result."""
    prompt = PlannedPrompt()
    for born in range(results):
        prompt.append(piece=born, logged=born, visible=900, tokens=900.0, born=born, need=0.1, maskable=True)
    prompt.sent()
    prices = TokenPrices(0.1, 1.25, 5.0)
    ask = Invocation("main", "main", 0, call, prompt, 0.0, cached, prices, priced=True, context_window=None)
    return BASELINES[name].planner(OPTIONS, solve=solve_budget).before(ask)


def test_clear_masks_what_is_older_than_ten_calls_at_every_call() -> None:
    assert decided("clear-10", call=10, results=10, cached=10).masks.items.tolist() == []
    assert decided("clear-10", call=13, results=13, cached=13).masks.items.tolist() == [0, 1, 2]


def test_keep_last_drops_all_but_the_newest_for_good() -> None:
    plan = decided("keep-last-20", call=23, results=23, cached=23)
    assert (plan.dropped, plan.masks.items.tolist()) == ((0, 1, 2), [])
    assert decided("keep-last-20", call=20, results=20).dropped == ()


def test_rule_a_masks_all_when_cold_and_every_twenty_calls_what_is_old() -> None:
    assert decided("rule-a", call=5, results=6).masks.items.tolist() == [0, 1, 2, 3, 4]
    assert decided("rule-a", call=19, results=19, cached=19).masks.items.size == 0
    assert decided("rule-a", call=20, results=20, cached=20).masks.items.tolist() == list(range(10))


def test_an_equal_split_gives_everybody_the_same() -> None:
    demand = Demand(probabilities=(0.5,), tokens=(9000,))
    agents = tuple(AgentNeed(id=name, stage_id="1", demand=demand) for name in "abc")
    problem = BudgetProblem(agents=agents, stages=(StageCap(id="1"),), max_tokens=1000, reserve_tokens=100)
    split = BASELINES["equal-split"].planner(OPTIONS, solve=solve_budget)
    assert split.allocate(problem)[0] == {"a": 300, "b": 300, "c": 300}
    assert BASELINES["equal-split"].note(OPTIONS) == NO_BUDGET
    assert BASELINES["equal-split"].note(PlanOptions(budget=Budget(max_tokens=1))) is None


def test_every_baseline_has_the_same_yardstick(codex: WorkflowResult) -> None:
    assert list(codex.against) == list(BASELINES)
    for other in codex.against.values():
        assert other.totals.visible[0] == codex.totals.visible[0]
        assert other.totals.bill[0] == pytest.approx(codex.totals.bill[0])
        assert other.totals.facts[0] == codex.totals.facts[0]
        assert (other.calls, other.plans, other.stages) == ([], [], [])


def test_nothing_changes_nothing(codex: WorkflowResult) -> None:
    totals = codex.against["nothing"].totals
    for pair in (totals.visible, totals.real, totals.transmitted, totals.bill):
        assert pair[0] == pair[1]


def test_what_is_dropped_is_out_of_reach_and_what_is_masked_is_not(codex: WorkflowResult) -> None:
    dropped, cleared = codex.against["keep-last-20"].totals, codex.against["clear-10"].totals
    assert dropped.facts[1] == dropped.facts[2] < dropped.facts[0]
    assert dropped.support[1] == dropped.support[2] == dropped.support[3] < dropped.support[0]
    assert dropped.expansions == 0
    assert cleared.facts[1] < cleared.facts[2] == cleared.facts[0]
    assert cleared.expansions > 0


def test_the_plan_beats_every_rule_on_a_real_session(codex: WorkflowResult) -> None:
    rules = [codex.against[name].totals.bill[1] for name in ("nothing", "clear-10", "keep-last-20")]
    assert codex.totals.bill[1] < min(rules)


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="rule-b") as caught:
        find_baselines(["rule-b"])
    assert all(name in str(caught.value.hint) for name in BASELINES)
