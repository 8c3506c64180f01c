"""How long a budget plan takes, and how good it is.

    python benchmarks/budget_plan.py [--quick] [--json FILE]

One call is everything between plain data and a plan that may be used: the problem checks itself, the model is built,
CP-SAT solves it, the independent bound is computed, the validator runs. CPU is that of the whole process. A first
round warms up and is not counted; the import of the solver, once per process, is a mark of its own.

Realistic instances have log-normal demands, weights, floors, caps, several stages of which most are capped, and a
workflow limit of 35, 50 or 65 % of what is wanted above the floors. The gap is measured against the independent bound.

`alone_vs_greedy` is the value of CP-SAT's plan without any hint, divided by that of the greedy plan. Budgets alone
are separable, so greedy is optimal and CP-SAT can only match it, within the relative gap at which it may stop;
`cp_sat_ms` beside `greedy_ms` is the price of a model that can grow.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from _harness import Mark, Timing, arguments, percentile, report, time_calls
from apportion.planner.budgets.bound import plan_greedily
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.segments import quantize
from apportion.planner.budgets.solver import RELATIVE_GAP_LIMIT, solve_budget, solve_with_cp_sat
from apportion.planner.budgets.validate import validate_budget
from apportion.records import Demand

if TYPE_CHECKING:
    from apportion.planner.budgets.plan import BudgetPlan
    from apportion.planner.budgets.segments import QuantizedProblem

SIZES = (3, 10, 50, 200, 1000)
QUICK_SIZES = (3, 10, 50)
MARK_MS = 2.0
PROBABILITIES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
NORMAL_QUANTILES = (-1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.6449)
TIGHTNESS = (0.35, 0.5, 0.65)
RESERVE_TOKENS = 2000


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", quick="fewer sizes, and a tenth of the repetitions")
    rows = [measure("realistic", instances(size), quick=options.quick) for size in _sizes(quick=options.quick)]
    ten = next(row for row in rows if row["agents"] == 10)
    rows += [measure(name, [problem], quick=options.quick) for name, problem in degenerate().items()]
    gap = max(row["gap_percent_max"] for row in rows)
    imported = import_ms()
    marks = [
        Mark("10 agents, data to proven plan, p95", ten["cpu_ms_p95"], "ms CPU", "< 2", ten["cpu_ms_p95"] < MARK_MS),
        Mark("largest gap to the independent bound", gap, "%", "<= 0.1", gap <= 100 * RELATIVE_GAP_LIMIT),
        Mark("import of the solver", imported, "ms CPU", "< 300", imported < 300),
    ]
    report("budget_plan", rows, marks, packages=("ortools", "pydantic"), file=options.json, notes=(options.cut,))


def measure(kind: str, problems: list[BudgetProblem], *, quick: bool) -> dict[str, Any]:
    """Measure the whole path and its parts on problems of one size."""
    plans = [_proven_plan(problem) for problem in problems]
    quantized = [quantize(problem) for problem in problems]
    agents = len(problems[0].agents)
    repetitions = max(1, (2_000 if quick else 20_000) // (agents * len(problems)))
    whole = time_calls(
        [partial(_plan_from_data, problem.model_dump()) for problem in problems], repetitions=repetitions
    )
    greedy = time_calls([partial(plan_greedily, each) for each in quantized], repetitions=repetitions)
    cp_sat = time_calls(
        [partial(solve_with_cp_sat, each, plan_greedily(each).quanta) for each in quantized], repetitions=repetitions
    )
    return {
        "kind": kind,
        "agents": agents,
        "calls": len(whole.cpu_ms),
        **whole.columns(),
        "greedy_ms": _median(greedy),
        "cp_sat_ms": _median(cp_sat),
        "cp_sat_vs_greedy_time": _median(cp_sat) / _median(greedy),
        "alone_vs_greedy": min(_alone_vs_greedy(each) for each in quantized),
        "gap_percent_max": 100 * max(plan.gap for plan in plans),
        "status": dict(Counter(plan.status for plan in plans)),
        "degraded": sum(bool(plan.degraded) for plan in plans),
    }


def instances(size: int) -> list[BudgetProblem]:
    """Return realistic instances of one size, the same ones in every run."""
    return [realistic(size, seed) for seed in range(max(5, min(60, 1200 // size)))]


def realistic(size: int, seed: int) -> BudgetProblem:
    """Draw a workflow of some agents as they are met in practice."""
    rng = random.Random(size * 1000 + seed)  # noqa: S311  (instances, not secrets)
    stage_ids = [f"stage-{number}" for number in range(max(1, min(20, size // 3)))]
    agents = [_agent(rng, f"agent-{number}", stage_ids[number % len(stage_ids)]) for number in range(size)]
    stages = []
    for stage_id in stage_ids:
        inside = [agent for agent in agents if agent.stage_id == stage_id]
        cap = _between(inside, rng.uniform(0.5, 0.9)) if rng.random() < 0.7 else None
        stages.append(StageCap(id=stage_id, max_tokens=cap))
    return BudgetProblem(
        agents=tuple(agents),
        stages=tuple(stages),
        max_tokens=_between(agents, TIGHTNESS[seed % 3]) + RESERVE_TOKENS,
        reserve_tokens=RESERVE_TOKENS,
    )


def degenerate() -> dict[str, BudgetProblem]:
    """Return problems of 10 agents that are odd in one way each."""
    stages = (StageCap(id="s"), StageCap(id="t"))
    base = realistic(10, 0)
    equal = Demand(probabilities=PROBABILITIES, tokens=(8_000, 16_000, 32_000, 64_000, 128_000, 190_000))
    certain = Demand(probabilities=(0.5,), tokens=(40_000,))
    huge = Demand(probabilities=PROBABILITIES, tokens=tuple(10**10 * number for number in range(1, 7)))
    floors = sum(agent.floor_tokens for agent in base.agents)
    identical = tuple(AgentNeed(id=f"a{number}", stage_id="st"[number % 2], demand=equal) for number in range(10))
    return {
        "identical agents": BudgetProblem(agents=identical, stages=stages, max_tokens=600_000),
        "certain demands": BudgetProblem(
            agents=tuple(agent.model_copy(update={"demand": certain}) for agent in identical),
            stages=stages,
            max_tokens=200_000,
        ),
        "one huge agent": BudgetProblem(
            agents=(*identical[:9], identical[9].model_copy(update={"demand": huge, "weight": 9})),
            stages=stages,
            max_tokens=10**10,
        ),
        "no limits": BudgetProblem(agents=identical, stages=stages),
        "floors only": base.model_copy(update={"max_tokens": floors, "reserve_tokens": 0, "stages": tuple(
            StageCap(id=stage.id) for stage in base.stages
        )}),
    }  # fmt: skip


def import_ms() -> float:
    """Return the CPU time of importing what the solver needs, in a fresh process."""
    code = (
        "import time, apportion.planner.budgets.solver; start = time.process_time(); "
        "from ortools.sat.python import cp_model_helper; print(1000 * (time.process_time() - start))"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)  # noqa: S603


def _sizes(*, quick: bool) -> tuple[int, ...]:
    return QUICK_SIZES if quick else SIZES


def _agent(rng: random.Random, name: str, stage_id: str) -> AgentNeed:
    median, spread = math.exp(rng.gauss(10.5, 1)), rng.uniform(0.3, 1)
    tokens = tuple(round(median * math.exp(spread * quantile)) for quantile in NORMAL_QUANTILES)
    return AgentNeed(
        id=name,
        stage_id=stage_id,
        demand=Demand(probabilities=PROBABILITIES, tokens=tokens, sample_size=40),
        weight=rng.choice((1, 2, 3, 5, 8)),
        floor_tokens=round(tokens[0] * rng.choice((0, 0, 0.5))),
        max_tokens=tokens[4] if rng.random() < 0.3 else None,
    )


def _between(agents: list[AgentNeed], share: float) -> int:
    """Return the agents' floors plus a share of what they want above them."""
    floors = sum(agent.floor_tokens for agent in agents)
    return floors + round(share * (sum(agent.most_tokens for agent in agents) - floors))


def _plan_from_data(data: dict[str, Any]) -> BudgetPlan:
    return solve_budget(BudgetProblem.model_validate(data))


def _proven_plan(problem: BudgetProblem) -> BudgetPlan:
    plan = solve_budget(problem)
    violations = validate_budget(problem, plan)
    if violations:
        raise SystemExit(f"invalid plan: {'; '.join(violations)}")
    return plan


def _alone_vs_greedy(problem: QuantizedProblem) -> float:
    greedy = plan_greedily(problem).value
    return solve_with_cp_sat(problem, None).objective / greedy if greedy else 1.0


def _median(timing: Timing) -> float:
    return percentile(timing.cpu_ms, 0.5)


if __name__ == "__main__":
    main()
