"""Solving the full joint model by CP-SAT: the judge, the last resort, and the proof where there is time.

CP-SAT 9.15 runs with one worker and a fixed seed, so that equal problems get equal answers; a limit on deterministic
time, and a wall-clock limit only as a safety net. Presolve is off in hot use: it costs most of the time and has known
wrong answers on models of this class (google/or-tools issues 5293, 5274 and 5003). Where it is on, the step that was
found to be wrong is off.

What CP-SAT claims is not believed: its choice is checked in whole numbers, and complaints travel with the answer. An
`INFEASIBLE` is for `elastic` to confirm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from apportion.planner.amounts import Amounts
from apportion.planner.choice import cost, latency_ms, value, violations
from apportion.planner.constraints import Constraints
from apportion.planner.objective import Objective
from apportion.planner.variables import Variables

if TYPE_CHECKING:
    from collections.abc import Callable

    from ortools.sat.python.cp_model_helper import CpModelProto, CpSolverResponse, SatParameters

    from apportion.planner.choice import Choice
    from apportion.planner.compiled import Compiled
    from apportion.planner.plan import Stop

Status = Literal["OPTIMAL", "FEASIBLE", "INFEASIBLE", "UNKNOWN", "MODEL_INVALID"]

SEED = 1
"""Fixed, so that equal problems get equal answers."""

WALL_S_PER_UNIT = 600.0
"""The safety net: so many seconds per unit of deterministic time, on a machine that is busy with something else."""

LEAST_WALL_S = 60.0
"""The safety net is at least this long."""


class Answer(NamedTuple):
    """What CP-SAT says about a problem.

    Attributes:
        choice: The best choice found, or `None`.
        status: CP-SAT's word.
        bound: What it claims that no choice can beat: from above for value, from below for cost and latency; `None`
            without a claim.
        stopped_by: What ended the search.
        complaints: What is wrong with the answer, in words; nothing means that the choice can be used.
    """

    choice: Choice | None
    status: Status
    bound: int | None
    stopped_by: Stop
    complaints: tuple[str, ...] = ()


def solve_exactly(
    compiled: Compiled,
    *,
    hint: Choice | None = None,
    lower: int | None = None,
    upper: int | None = None,
    deterministic_time: float,
    presolve: bool = False,
    relative_gap: float = 0.0,
) -> Answer:
    """Ask CP-SAT for the choice of most value.

    Args:
        compiled: The problem as arrays.
        hint: Where to start.
        lower: A value that is known to be reachable, or demanded; choices below it are not looked for.
        upper: A value that no choice exceeds.
        deterministic_time: Limit on the work, in CP-SAT's own unit.
        presolve: Whether CP-SAT may simplify the model first; both ways must agree.
        relative_gap: How far from its own bound CP-SAT may stop.
    """
    model = JointModel(compiled)
    model.objective.maximise_value(lower, upper)
    return model.solve(
        value, hint=hint, deterministic_time=deterministic_time, presolve=presolve, relative_gap=relative_gap
    )


def lower_cost(
    compiled: Compiled, *, start: Choice, least_value: int, deterministic_time: float, presolve: bool = False
) -> Answer:
    """Ask CP-SAT for the cheapest choice that is worth at least `least_value`."""
    model = JointModel(compiled)
    model.objective.keep_value(least_value)
    model.objective.minimise_cost()
    return model.solve(cost, hint=start, deterministic_time=deterministic_time, presolve=presolve)


def lower_latency(
    compiled: Compiled,
    *,
    start: Choice,
    least_value: int,
    most_cost: int,
    deterministic_time: float,
    presolve: bool = False,
) -> Answer:
    """Ask CP-SAT for the fastest choice that keeps value and cost; this is where preloading is decided."""
    model = JointModel(compiled)
    model.objective.keep_value(least_value)
    model.objective.keep_cost(most_cost)
    model.objective.minimise_latency()
    return model.solve(latency_ms, hint=start, deterministic_time=deterministic_time, presolve=presolve)


def stay_close(
    compiled: Compiled,
    *,
    start: Choice,
    running: Choice,
    least_value: int,
    most_cost: int,
    most_latency_ms: int,
    deterministic_time: float,
    presolve: bool = False,
) -> Answer:
    """Ask CP-SAT for the choice that keeps value, cost and latency and changes the running one least."""
    model = JointModel(compiled)
    model.objective.keep_value(least_value)
    model.objective.keep_cost(most_cost)
    model.objective.keep_latency(most_latency_ms)
    model.objective.minimise_change(running)
    return model.solve(None, hint=start, deterministic_time=deterministic_time, presolve=presolve)


class JointModel:
    """The full model of a problem, without an objective yet.

    Args:
        compiled: The problem as arrays.

    Attributes:
        proto: The model as CP-SAT takes it.
        variables, amounts, objective: Its parts.
    """

    def __init__(self, compiled: Compiled) -> None:
        from ortools.sat.python.cp_model_helper import CpModelProto

        self._compiled = compiled
        self.proto: CpModelProto = CpModelProto()
        self.variables = Variables(self.proto, compiled)
        self.amounts = Amounts(compiled, self.variables)
        self.objective = Objective(self.proto, compiled, self.variables, self.amounts)
        Constraints(self.proto, compiled, self.variables, self.amounts).add_constraints()

    def solve(
        self,
        measure: Callable[[Compiled, Choice], int] | None,
        *,
        hint: Choice | None,
        deterministic_time: float,
        presolve: bool,
        relative_gap: float = 0.0,
    ) -> Answer:
        """Return CP-SAT's answer, checked.

        Args:
            measure: What the objective says of a choice, computed without CP-SAT; `None` skips the comparison.
            hint: Where to start.
            deterministic_time: Limit on the work.
            presolve: Whether CP-SAT may simplify the model first.
            relative_gap: How far from its own bound CP-SAT may stop.
        """
        if hint is not None:
            self.variables.hint(hint)
        limits = parameters(deterministic_time, presolve=presolve, relative_gap=relative_gap)
        response = run_cp_sat(self.proto, limits)
        status: Status = response.status.name
        if status not in {"OPTIMAL", "FEASIBLE"}:
            bound = _claimed_bound(response) if status == "UNKNOWN" else None
            return Answer(None, status, bound, stopped_by(response, limits))
        choice = self.variables.read(list(response.solution))
        complaints = [f"the answer of CP-SAT is not valid: {fault}" for fault in violations(self._compiled, choice)]
        if not complaints and measure is not None:
            complaints = _false_claims(response, measure(self._compiled, choice), maximising=measure is value)
        return Answer(choice, status, _claimed_bound(response), stopped_by(response, limits), tuple(complaints))


def _false_claims(response: CpSolverResponse, real: int, *, maximising: bool) -> list[str]:
    """Compare what CP-SAT claims of its choice with what that really measures.

    The choice may be better than the solution that it was read from: it fills segments in order, makes no form for
    nothing and uses all of an intact prefix. But it is never worse, nor better than what CP-SAT says is possible.
    """
    sign = 1 if maximising else -1
    claimed, bound = round(response.objective_value), round(response.best_objective_bound)
    complaints = []
    if sign * real < sign * claimed:
        complaints.append(f"CP-SAT claims that its choice measures {claimed:,}, but it measures {real:,}")
    if sign * real > sign * bound:
        complaints.append(f"CP-SAT claims that no choice beats {bound:,}, but its own measures {real:,}")
    return complaints


def run_cp_sat(model: CpModelProto, parameters: SatParameters) -> CpSolverResponse:
    """Hand a model to CP-SAT."""
    from ortools.sat.python.cp_model_helper import SolveWrapper

    wrapper = SolveWrapper()
    wrapper.set_parameters(parameters)
    response: CpSolverResponse = wrapper.solve(model)  # type: ignore[no-untyped-call]
    return response


def parameters(deterministic_time: float, *, presolve: bool = False, relative_gap: float = 0.0) -> SatParameters:
    """Return the settings of CP-SAT; see the module."""
    from ortools.sat.python.cp_model_helper import SatParameters

    settings = SatParameters()
    settings.num_workers = 1
    settings.random_seed = SEED
    settings.linearization_level = 2
    settings.cp_model_presolve = presolve
    settings.presolve_inclusion_work_limit = 0
    settings.relative_gap_limit = relative_gap
    settings.max_deterministic_time = deterministic_time
    settings.max_time_in_seconds = max(LEAST_WALL_S, WALL_S_PER_UNIT * deterministic_time)
    settings.catch_sigint_signal = False  # else CP-SAT leaves Ctrl-C killing the process without a word
    return settings


def stopped_by(response: CpSolverResponse, limits: SatParameters) -> Stop:
    """Say what ended a search within some limits."""
    status = response.status.name
    if status in {"OPTIMAL", "INFEASIBLE"}:
        return "proof"
    if status == "MODEL_INVALID":
        return "failure"
    return "deadline" if response.wall_time >= limits.max_time_in_seconds else "deterministic_time"


def _claimed_bound(response: CpSolverResponse) -> int | None:
    bound = response.best_objective_bound
    return round(bound) if abs(bound) < 2**62 else None
