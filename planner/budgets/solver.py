"""Solving a budget problem: CP-SAT decides, an independent bound and a validator judge.

CP-SAT 9.15 runs with the settings of a hot path: one worker and a fixed seed, so that equal problems get equal plans;
no presolve, which costs most of the time here and has known wrong answers on models of this class (google/or-tools
issues 5293, 5274 and 5003); a deterministic time limit, and a wall-clock limit only as a safety net, because stopping
by the clock is not reproducible. The model is built as a proto, which is several times faster than by expressions and
does not import pandas.

Nothing that CP-SAT claims is believed: its objective is recomputed in whole numbers and compared with a bound and a
plan that do not come from it, and the plan passes the validator before it leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from apportion.errors import PlanError
from apportion.planner.budgets.bound import BOUND_SOURCE, limit_prices, plan_greedily
from apportion.planner.budgets.plan import Allocation, BudgetPlan, Stop
from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.budgets.segments import cut_off_probability, quantize
from apportion.planner.budgets.validate import validate_budget

if TYPE_CHECKING:
    from ortools.sat.python.cp_model_helper import CpSolverResponse, SatParameters

    from apportion.planner.budgets.bound import GreedyPlan
    from apportion.planner.budgets.problem import AgentNeed, BudgetProblem
    from apportion.planner.budgets.segments import Curve, QuantizedProblem

    Quanta = tuple[tuple[int, ...], ...]

RELATIVE_GAP_LIMIT = 1e-3
"""CP-SAT may stop within 0.1 % of its own bound: demand forecasts are never as sharp."""

MAX_DETERMINISTIC_TIME = 0.1
"""Limit on the work of CP-SAT, in its own unit; 1,000 agents need 0.02."""

MAX_WALL_S = 5.0
"""Safety net for a machine that is busy with something else."""

SEED = 1
"""Fixed, so that equal problems get equal plans."""


class Answer(NamedTuple):
    """What an engine says about a problem.

    Attributes:
        status: CP-SAT's word: `"OPTIMAL"`, `"FEASIBLE"`, `"INFEASIBLE"`, `"UNKNOWN"` or `"MODEL_INVALID"`.
        objective: The value that it claims.
        quanta: Quanta per agent and segment; `None` without a solution.
        stopped_by: What ended the search.
    """

    status: str
    objective: int
    quanta: Quanta | None
    stopped_by: Stop


class Engine(Protocol):
    """Answers a problem, starting from a known plan."""

    def __call__(self, problem: QuantizedProblem, start: Quanta, /) -> Answer:
        """Return the best plan found."""
        ...


def solve_budget(problem: BudgetProblem, *, hint: BudgetPlan | None = None, engine: Engine | None = None) -> BudgetPlan:
    """Return the best budgets, with their proof.

    Equal problems with equal hints get equal plans, in any thread and on any run; should the wall-clock limit fire,
    the plan says that this no longer holds.

    Args:
        problem: Agents, stages and limits.
        hint: A running plan. The search starts there if it still fits and is as good as any, so that a plan does not
            change for nothing.
        engine: Who answers; CP-SAT by default. Whatever it answers is checked.

    Raises:
        InfeasiblePlanError: The floors alone break a limit.
    """
    quantized = quantize(problem)
    greedy = plan_greedily(quantized)
    start = _still_good(problem, quantized, greedy, hint) or greedy.quanta
    answer = (engine or solve_with_cp_sat)(quantized, start)
    complaints = judge(quantized, greedy, answer)
    if answer.quanta is not None and not complaints:
        plan = _plan(problem, quantized, greedy, answer.quanta, source="cp-sat", stopped_by=answer.stopped_by)
        violations = validate_budget(problem, plan)
        if not violations:
            return plan
        complaints = tuple(f"the answer of CP-SAT is not valid: {violation}" for violation in violations)
    return _greedy_instead(problem, quantized, greedy, answer, complaints)


def judge(problem: QuantizedProblem, greedy: GreedyPlan, answer: Answer) -> tuple[str, ...]:
    """Return what is wrong with an engine's answer, in words; nothing means that it can be used.

    A plan that fits is known here, the greedy one, and so is a bound: both are proven without CP-SAT.
    """
    if answer.status == "INFEASIBLE":
        return (f"CP-SAT claims that no plan fits, but one worth {greedy.value:,} does",)
    if answer.quanta is None:
        return (f"CP-SAT found no plan: {answer.status}, stopped by {answer.stopped_by}",)
    value = _value(problem, answer.quanta)
    highest = max(answer.objective, value)
    if highest > greedy.bound:
        return (f"CP-SAT claims {answer.status} at {highest:,}, but no plan is worth more than {greedy.bound:,}",)
    if answer.objective != value:
        return (f"CP-SAT claims that its plan is worth {answer.objective:,}, but it is worth {value:,}",)
    if value < greedy.value:
        return (f"the plan of CP-SAT, {answer.status}, is worth {value:,}, but greedy reaches {greedy.value:,}",)
    return ()


def solve_with_cp_sat(problem: QuantizedProblem, start: Quanta | None, /, *, presolve: bool = False) -> Answer:
    """Ask CP-SAT.

    Args:
        problem: The problem in quanta.
        start: A plan that fits, as a hint, or `None`.
        presolve: Whether CP-SAT may simplify the model first; both ways must agree.
    """
    from ortools.sat.python.cp_model_helper import CpModelProto, SolveWrapper

    from apportion.planner.budgets.constraints import Constraints
    from apportion.planner.budgets.objective import Objective
    from apportion.planner.budgets.variables import Variables

    model = CpModelProto()
    variables = Variables(model, problem)
    Constraints(model, problem, variables).add_constraints()
    Objective(model, problem, variables).maximise_expected_use()
    if start is not None:
        variables.hint(start)
    wrapper = SolveWrapper()
    wrapper.set_parameters(_parameters(presolve=presolve))
    response = wrapper.solve(model)  # type: ignore[no-untyped-call]
    status = response.status.name
    return Answer(
        status=status,
        objective=round(response.objective_value),
        quanta=variables.read(list(response.solution)) if status in {"OPTIMAL", "FEASIBLE"} else None,
        stopped_by=_stopped_by(response),
    )


def _parameters(*, presolve: bool) -> SatParameters:
    from ortools.sat.python.cp_model_helper import SatParameters

    parameters = SatParameters()
    parameters.num_workers = 1
    parameters.random_seed = SEED
    parameters.cp_model_presolve = presolve
    parameters.relative_gap_limit = RELATIVE_GAP_LIMIT
    parameters.max_deterministic_time = MAX_DETERMINISTIC_TIME
    parameters.max_time_in_seconds = MAX_WALL_S
    parameters.catch_sigint_signal = False  # else CP-SAT leaves Ctrl-C killing the process without a word
    return parameters


def _stopped_by(response: CpSolverResponse) -> Stop:
    status = response.status.name
    if status in {"OPTIMAL", "INFEASIBLE"}:
        return "proof"
    if status == "MODEL_INVALID":
        return "failure"
    return "wall_time" if response.wall_time >= MAX_WALL_S else "deterministic_time"


def _still_good(
    problem: BudgetProblem, quantized: QuantizedProblem, greedy: GreedyPlan, plan: BudgetPlan | None
) -> Quanta | None:
    """Return a running plan as quanta per segment if it still fits and is as good as any."""
    if plan is None:
        return None
    tokens = {allocation.agent_id: allocation.tokens for allocation in plan.allocations}
    if tokens.keys() != {agent.id for agent in problem.agents}:
        return None
    quanta = tuple(
        _filled(curve, (tokens[agent.id] - agent.floor_tokens) // QUANTUM_TOKENS)
        for agent, curve in zip(problem.agents, quantized.curves, strict=True)
    )
    return quanta if _fits(quantized, quanta) and _value(quantized, quanta) == greedy.value else None


def _filled(curve: Curve, quanta: int) -> tuple[int, ...]:
    """Fill the segments of an agent in their order."""
    filled = []
    for length in curve.quanta:
        filled.append(max(0, min(length, quanta)))
        quanta -= length
    return tuple(filled)


def _fits(problem: QuantizedProblem, quanta: Quanta) -> bool:
    used = [0] * len(problem.stage_rooms)
    for stage, values in zip(problem.stage_of, quanta, strict=True):
        used[stage] += sum(values)
    rooms = (*problem.stage_rooms, problem.workflow_room)
    return all(room is None or total <= room for total, room in zip((*used, sum(used)), rooms, strict=True))


def _value(problem: QuantizedProblem, quanta: Quanta) -> int:
    return sum(
        [
            slope * value
            for curve, values in zip(problem.curves, quanta, strict=True)
            for slope, value in zip(curve.slopes, values, strict=True)
        ]
    )


def _greedy_instead(
    problem: BudgetProblem, quantized: QuantizedProblem, greedy: GreedyPlan, answer: Answer, why: tuple[str, ...]
) -> BudgetPlan:
    plan = _plan(problem, quantized, greedy, greedy.quanta, source="greedy", stopped_by=answer.stopped_by, degraded=why)
    violations = validate_budget(problem, plan)
    if violations:
        raise PlanError(
            f"neither CP-SAT nor greedy gives a valid plan: {'; '.join((*why, *violations))}",
            hint="This is a defect of apportion: please report it with the problem",
        )
    return plan


def _plan(
    problem: BudgetProblem,
    quantized: QuantizedProblem,
    greedy: GreedyPlan,
    quanta: Quanta,
    *,
    source: Literal["cp-sat", "greedy"],
    stopped_by: Stop,
    degraded: tuple[str, ...] = (),
) -> BudgetPlan:
    if stopped_by == "wall_time":
        degraded = (*degraded, f"stopped by the clock after {MAX_WALL_S:g} s: another run may give another plan")
    objective = _value(quantized, quanta)
    gap = (greedy.bound - objective) / greedy.bound if greedy.bound else 0.0
    return BudgetPlan(
        allocations=tuple(
            [
                _allocation(agent, agent.floor_tokens + QUANTUM_TOKENS * sum(values))
                for agent, values in zip(problem.agents, quanta, strict=True)
            ]
        ),
        objective=objective,
        bound=greedy.bound,
        bound_source=BOUND_SOURCE,
        gap=gap,
        status="OPTIMAL" if gap <= RELATIVE_GAP_LIMIT else "FEASIBLE",
        source=source,
        stopped_by=stopped_by,
        prices=limit_prices(problem, quantized, greedy),
        degraded=degraded,
        fingerprint=problem.fingerprint,
    )


def _allocation(agent: AgentNeed, tokens: int) -> Allocation:
    return Allocation(
        agent_id=agent.id,
        stage_id=agent.stage_id,
        tokens=tokens,
        cut_off_probability=cut_off_probability(agent.demand, tokens),
    )
