"""The master problem: CP-SAT combines columns into a plan.

    z[p] in {0, 1}                      column p is used
    d[a] in {0, 1}                      agent a is deferred
    s[m, k] in 0 .. length              work quanta of segment k of mode m, beyond those that the columns contain
    y[f] in {0, 1}                      shared form f is made

    exactly one of d[a] and z[p], p of a                                    for each agent
    s[m, k] <= length * sum of z[p], p of m                                 for each free segment
    consumption of columns, segments and forms <= amount                    for each limit
    sum of z[p] with a needing cell <= sum of z[p] with a giving cell       for each link
    z[p] <= y[f]                                                            for each column with a cell of a form

Asked as a decision, "is there a plan worth at least this much?", CP-SAT answers several times faster than asked for
the best plan, and a refusal is a certain sign that the pool is too poor.

The same rows as a linear program give prices at which better columns can be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.choice import Choice
from apportion.planner.compiled import NO_LIMIT
from apportion.planner.dual import Prices, Weights
from apportion.planner.exact import parameters, run_cp_sat
from apportion.planner.problem import SAFE_SUM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from ortools.sat.python.cp_model_helper import CpModelProto, SatParameters

    from apportion.planner.columns import Columns
    from apportion.planner.compiled import Compiled
    from apportion.planner.dual import Dual

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Terms = tuple[list[int], list[int]]
"""Variables and their coefficients."""

MAX_WALL_S = 5.0
"""Safety net for a machine that is busy with something else."""

FREE_SEGMENTS = 1
"""Segments on either side of the margin that stay open; those further away are part of the columns, or closed."""


class Work(NamedTuple):
    """Which work segments are decided: shapes (modes, segments).

    Attributes:
        folded: Quanta that columns contain from the start.
        open: Segments of which more may be taken.
    """

    folded: Ints
    open: NDArray[np.bool_]

    @classmethod
    def undecided(cls, compiled: Compiled) -> Work:
        """Leave all segments open."""
        return cls(np.zeros_like(compiled.quanta), compiled.quanta > 0)

    @classmethod
    def near_margin(cls, compiled: Compiled, net: Floats) -> Work:
        """Leave those open whose value after paying the prices is near 0: one that pays, and one that does not."""
        paying = (net > 0.0).sum(axis=1)[:, None]
        number = np.arange(net.shape[1])[None, :]
        folded = np.where(number < paying - FREE_SEGMENTS, compiled.quanta, 0)
        return cls(folded, (abs(number - paying + 0.5) < FREE_SEGMENTS) & (compiled.quanta > 0))


class Limits(NamedTuple):
    """How long CP-SAT may take: in its own deterministic unit, and in seconds until a deadline."""

    deterministic_time: float
    wall_s: float = MAX_WALL_S


class Answer(NamedTuple):
    """What CP-SAT says: its status, and the plan if there is one."""

    status: str
    choice: Choice | None


class Relaxation(NamedTuple):
    """What the linear relaxation says.

    Attributes:
        objective: Its objective.
        prices: Its prices.
        weights: The weights for which they are prices.
        columns: How much of each column it uses.
        work: Quanta of each segment; shape (modes, segments).
    """

    objective: float
    prices: Prices
    weights: Weights
    columns: Floats
    work: Floats


class Master:
    """The master problem over some columns.

    Args:
        dual: The bounds of the problem.
        columns: The columns to combine.
        work: Which work segments are decided.
    """

    def __init__(self, dual: Dual, columns: Columns, work: Work) -> None:
        self._compiled: Compiled = dual.compiled
        self._work = work
        self._columns, self._bare = self._with_bare(columns)
        self._agents = self._compiled.agent_of[self._columns.mode]
        self._most: list[int] = []
        self._limits: list[Terms] = [([], []) for _ in self._compiled.limits]
        self._value: Terms = ([], [])
        self._cost: Terms = ([], [])
        self._at_most_rows: list[tuple[Terms, int]] = []
        self._exactly_one_rows: list[list[int]] = []
        self._link_rows: dict[int, int] = {}
        self._model: CpModelProto | None = None
        self._build()

    # The model.

    def _build(self) -> None:
        self._add_columns()
        self._deferred = self._add_deferrals()
        self._exactly_one()
        self._segments = self._add_segments()
        self._add_links()
        self._add_forms()

    def _with_bare(self, columns: Columns) -> tuple[Columns, NDArray[np.bool_]]:
        """Offer the columns that must be there a second time, without folded work: the most frugal plans need that."""
        folds = self._work.folded.sum(axis=1)[columns.mode] > 0
        extra = np.flatnonzero(columns.needed & folds)
        bare = np.arange(len(columns.mode) + len(extra)) >= len(columns.mode)
        return columns.take(np.concatenate((np.arange(len(columns.mode)), extra))), bare

    def _variable(self, most: int) -> int:
        self._most.append(most)
        return len(self._most) - 1

    def _add_columns(self) -> None:
        compiled, columns = self._compiled, self._columns
        folded = np.where(self._bare[:, None], 0, self._work.folded[columns.mode])
        self._column_quanta = folded.sum(axis=1)
        work = self._column_quanta
        value = columns.value + (folded * compiled.slopes[columns.mode]).sum(axis=1)
        tokens = columns.tokens + work * QUANTUM_TOKENS
        cost = columns.cost + work * compiled.quantum_cost[columns.mode]
        window = columns.window + work * QUANTUM_TOKENS
        indices = list(range(len(columns.mode)))
        for _ in indices:
            self._variable(1)
        self._extend(self._value, indices, value)
        self._extend(self._cost, indices, cost + columns.given_cost)
        stage = compiled.stage_of[self._agents]
        receiver = compiled.receiver[self._agents]
        to = np.maximum(receiver, 0)
        given = receiver >= 0
        self._spend(compiled.tokens_limit, indices, tokens + columns.given_tokens)
        self._spend(compiled.cost_limit, indices, cost + columns.given_cost)
        self._spend_each(compiled.stage_tokens_limit[stage], indices, tokens)
        self._spend_each(compiled.stage_cost_limit[stage], indices, cost)
        self._spend_each(compiled.window_limit[self._agents], indices, window)
        self._spend(compiled.memory_limit, indices, np.where(columns.preload, compiled.preload_bytes[self._agents], 0))
        if given.any():
            to_stage = compiled.stage_of[to]
            self._spend_each(
                np.where(given, compiled.stage_tokens_limit[to_stage], NO_LIMIT), indices, columns.given_tokens
            )
            self._spend_each(
                np.where(given, compiled.stage_cost_limit[to_stage], NO_LIMIT), indices, columns.given_cost
            )
            self._spend_each(np.where(given, compiled.window_limit[to], NO_LIMIT), indices, columns.given_window)

    def _add_deferrals(self) -> dict[int, int]:
        compiled = self._compiled
        deferred = {}
        for agent in np.flatnonzero(compiled.deferrable):
            variable = deferred[int(agent)] = self._variable(1)
            row = int(compiled.window_limit[agent])
            if row != NO_LIMIT:
                self._term(self._limits[row], variable, -int(compiled.deferred_window[agent]))
        return deferred

    def _exactly_one(self) -> None:
        members: list[list[int]] = [[] for _ in self._compiled.problem.agents]
        for column, agent in enumerate(self._agents.tolist()):
            members[agent].append(column)
        for agent, columns in enumerate(members):
            self._exactly_one_rows.append([*columns, self._deferred[agent]] if agent in self._deferred else columns)

    def _add_segments(self) -> list[tuple[int, int, int]]:
        """Add the free segments; returns `(variable, mode, segment)`."""
        compiled = self._compiled
        segments = []
        users: dict[int, list[int]] = {}
        for column, mode in enumerate(self._columns.mode.tolist()):
            users.setdefault(mode, []).append(column)
        for mode, columns in users.items():
            for segment in np.flatnonzero(self._work.open[mode]).tolist():
                length = int(compiled.quanta[mode, segment])
                variable = self._variable(length)
                self._at_most_rows.append((([variable, *columns], [1, *[-length] * len(columns)]), 0))
                self._consume_work(mode, variable, int(compiled.slopes[mode, segment]))
                segments.append((variable, mode, segment))
        return segments

    def _consume_work(self, mode: int, variable: int, slope: int) -> None:
        self._term(self._value, variable, slope)
        self._term(self._cost, variable, int(self._compiled.quantum_cost[mode]))
        for row, amount in self._compiled.work_rows(mode):
            self._term(self._limits[row], variable, amount)

    def _add_links(self) -> None:
        """Let columns need what others give."""
        for number, link in enumerate(self._compiled.links):
            needs = self._with_cells(link.needs)
            if needs:
                self._need(number, needs, self._with_cells(link.gives))

    def _add_forms(self) -> None:
        """Let columns need the shared forms that they contain to be made; links of forms follow the others."""
        compiled = self._compiled
        number = len(compiled.links)
        for form in compiled.shared:
            by_agent: dict[int, list[int]] = {}
            for mode, _, _ in form.cells:
                by_agent.setdefault(int(compiled.agent_of[mode]), [])
            for column in self._with_cells(form.cells):
                by_agent[int(self._agents[column])].append(column)
            variable = self._variable(1)
            self._term(self._cost, variable, form.prepare_nusd)
            if compiled.cost_limit != NO_LIMIT:
                self._term(self._limits[compiled.cost_limit], variable, form.prepare_nusd)
            for members in by_agent.values():
                if members:
                    self._need(number, members, [variable])
                number += 1

    def _with_cells(self, cells: tuple[tuple[int, int, int], ...]) -> list[int]:
        """Return the columns that hold one of some cells."""
        columns = self._columns
        held = np.zeros(len(columns.mode), dtype=np.bool_)
        for mode, slot, option in cells:
            here = columns.mode == mode
            held |= here if slot < 0 else here & (columns.options[:, slot] == option)
        return [int(column) for column in np.flatnonzero(held)]

    def _need(self, link: int, needs: list[int], gives: list[int]) -> None:
        self._link_rows[link] = len(self._at_most_rows)
        self._at_most_rows.append((([*needs, *gives], [*[1] * len(needs), *[-1] * len(gives)]), 0))

    def _spend(self, limit: int, variables: list[int], amounts: Ints) -> None:
        if limit != NO_LIMIT:
            self._extend(self._limits[limit], variables, amounts)

    def _spend_each(self, limits: Ints, variables: list[int], amounts: Ints) -> None:
        for limit, variable, amount in zip(limits.tolist(), variables, amounts.tolist(), strict=True):
            if limit != NO_LIMIT:
                self._term(self._limits[limit], variable, amount)

    @staticmethod
    def _extend(row: tuple[list[int], list[int]], variables: list[int], amounts: Ints) -> None:
        row[0].extend(variables)
        row[1].extend(amounts.tolist())

    @staticmethod
    def _term(row: tuple[list[int], list[int]], variable: int, amount: int) -> None:
        row[0].append(variable)
        row[1].append(amount)

    # Questions.

    def change_limits(self, amounts: Sequence[int]) -> None:
        """Change how much there is of each limit; everything else stays, which makes re-planning cheap."""
        model = self._asked(0)
        for number, amount in enumerate(amounts):
            domain = model.constraints[self._first_limit + number].linear.domain
            domain[0], domain[1] = min(domain[0], amount), amount

    def decide(self, least_value: int, *, limit: Limits, hint: Choice | None = None) -> Answer:
        """Ask for any plan that is worth at least `least_value`."""
        model = self._asked(least_value)
        return self._solve(model, _decision(limit), hint)

    def cheapest(self, least_value: int, *, limit: Limits, gap: float, hint: Choice | None) -> Answer:
        """Ask for the cheapest plan that is worth at least `least_value`."""
        model = self._asked(least_value)
        model.objective.vars.extend(self._cost[0])
        model.objective.coeffs.extend(self._cost[1])
        return self._solve(model, _optimisation(limit, gap), hint)

    def best(self, least_value: int, *, limit: Limits, gap: float, hint: Choice | None) -> Answer:
        """Ask for the plan that is worth most, if any is worth at least `least_value`."""
        model = self._asked(least_value)
        model.objective.vars.extend(self._value[0])
        model.objective.coeffs.extend([-amount for amount in self._value[1]])
        model.objective.scaling_factor = -1.0
        return self._solve(model, _optimisation(limit, gap), hint)

    def _asked(self, least_value: int) -> CpModelProto:
        """Return the model without an objective, and with a least value."""
        if self._model is None:
            self._model = self._as_model()
        model = self._model
        model.constraints[len(model.constraints) - 1].linear.domain[0] = least_value
        model.clear_objective()
        return model

    def _as_model(self) -> CpModelProto:
        from ortools.sat.python.cp_model_helper import CpModelProto

        model = CpModelProto()
        for most in self._most:
            model.variables.add().domain.extend([0, most])
        for literals in self._exactly_one_rows:
            model.constraints.add().exactly_one.literals.extend(literals)
        limits = [(terms, limit.amount) for terms, limit in zip(self._limits, self._compiled.limits, strict=True)]
        self._first_limit = len(self._exactly_one_rows) + len(self._at_most_rows)
        for (variables, amounts), most in (*self._at_most_rows, *limits):
            row = model.constraints.add().linear
            row.vars.extend(variables)
            row.coeffs.extend(amounts)
            least = sum([amount * self._most[v] for v, amount in zip(variables, amounts, strict=True) if amount < 0])
            row.domain.extend([min(least, most), most])
        worth = model.constraints.add().linear
        worth.vars.extend(self._value[0])
        worth.coeffs.extend(self._value[1])
        worth.domain.extend([-SAFE_SUM, SAFE_SUM])
        return model

    def relax(self, least_value: int | None = None) -> Relaxation | None:
        """Solve the linear relaxation with GLOP, a simplex solver; `None` where it has no solution.

        Its prices only tell where to look for better columns and bounds.

        Args:
            least_value: `None` asks for the most value, a number for the least cost of at least that value.
        """
        from ortools.linear_solver.python.model_builder_helper import ModelBuilderHelper, ModelSolverHelper, SolveStatus
        from scipy.sparse import csr_matrix

        limits = [(terms, limit.amount) for terms, limit in zip(self._limits, self._compiled.limits, strict=True)]
        ones = [((literals, [1] * len(literals)), 1) for literals in self._exactly_one_rows]
        by_cost = least_value is not None
        worth = [((self._value[0], [-amount for amount in self._value[1]]), -(least_value or 0))] if by_cost else []
        rows = [*limits, *self._at_most_rows, *worth, *ones]
        lengths = [len(terms[0]) for terms, _ in rows]
        matrix = csr_matrix(
            (
                np.concatenate([np.array(terms[1], dtype=np.float64) for terms, _ in rows]),
                np.concatenate([np.array(terms[0], dtype=np.int32) for terms, _ in rows]),
                np.concatenate(([0], np.cumsum(lengths))),
            ),
            shape=(len(rows), len(self._most)),
        )
        upper = np.array([float(most) for _, most in rows])
        lower = np.full(len(rows), -np.inf)
        lower[len(rows) - len(ones) :] = 1.0
        aims = np.zeros(len(self._most))
        if by_cost:
            np.add.at(aims, self._cost[0], -np.array(self._cost[1], dtype=np.float64))
        else:
            np.add.at(aims, self._value[0], np.array(self._value[1], dtype=np.float64))
        model = ModelBuilderHelper()
        least, most = np.zeros(len(self._most)), np.array(self._most, dtype=np.float64)
        model.fill_model_from_sparse_data(least, most, aims, lower, upper, matrix)  # type: ignore[arg-type]
        model.set_maximize(True)
        solver = ModelSolverHelper("glop")
        solver.set_solver_specific_parameters("use_dual_simplex:true")
        solver.solve(model)
        if solver.status() != SolveStatus.OPTIMAL:
            return None
        duals = np.asarray(solver.dual_values())
        links = np.zeros(len(self._compiled.links) + sum(self._form_links()))
        for link, row in self._link_rows.items():
            links[link] = max(0.0, duals[len(limits) + row])
        weights = Weights(1.0, 0.0)
        if by_cost:
            weights = Weights(max(0.0, float(duals[len(limits) + len(self._at_most_rows)])), 1.0)
        prices = Prices(np.maximum(0.0, duals[: len(limits)]), links)
        solution = np.asarray(solver.variable_values())
        quanta = self._work.folded.astype(np.float64)
        for variable, mode, segment in self._segments:
            quanta[mode, segment] = solution[variable]
        used = solution[: int((~self._bare).sum())]
        return Relaxation(float(solver.objective_value()), prices, weights, used, quanta)

    def _form_links(self) -> list[int]:
        agents = self._compiled.agent_of
        return [len({int(agents[mode]) for mode, _, _ in form.cells}) for form in self._compiled.shared]

    def _solve(self, model: CpModelProto, settings: SatParameters, hint: Choice | None) -> Answer:
        model.clear_solution_hint()
        if hint is not None:
            self._hint(model, hint)
        response = run_cp_sat(model, settings)
        status = response.status.name
        found = status in {"OPTIMAL", "FEASIBLE"}
        return Answer(status, self._read(list(response.solution)) if found else None)

    def _hint(self, model: CpModelProto, choice: Choice) -> None:
        columns = self._columns
        used = np.zeros(len(columns.mode), dtype=np.bool_)
        for agent, (mode, options) in enumerate(zip(choice.modes, choice.options, strict=True)):
            here = np.flatnonzero((self._agents == agent) & (columns.mode == mode))
            same = here[(columns.options[here] == np.array(options)[None, :]).all(axis=1)]
            used[same[:1]] = True
        hint = model.solution_hint
        hint.vars.extend(range(len(used)))
        hint.values.extend([int(value) for value in used])

    def _read(self, solution: list[int]) -> Choice:
        compiled = self._compiled
        agents = len(compiled.problem.agents)
        slots = compiled.value.shape[1]
        modes, quanta, preloads = [-1] * agents, [0] * agents, [False] * agents
        options: list[tuple[int, ...]] = [(0,) * slots] * agents
        for column in np.flatnonzero(solution[: len(self._columns.mode)]).tolist():
            agent = int(self._agents[column])
            modes[agent] = int(self._columns.mode[column])
            options[agent] = tuple(self._columns.options[column].tolist())
            quanta[agent] = int(self._column_quanta[column])
            preloads[agent] = bool(self._columns.preload[column])
        for variable, mode, _ in self._segments:
            agent = int(compiled.agent_of[mode])
            if modes[agent] == mode:
                quanta[agent] += solution[variable]
        return Choice(tuple(modes), tuple(options), tuple(quanta), tuple(preloads))


def _base(limit: Limits) -> SatParameters:
    """Return the settings of the hot path: one worker, no presolve, the linear relaxation does the work."""
    settings = parameters(limit.deterministic_time, presolve=False, relative_gap=0.0)
    settings.cut_level = 0
    settings.cp_model_probing_level = 0
    settings.symmetry_level = 0
    settings.use_sat_inprocessing = False
    settings.max_time_in_seconds = min(settings.max_time_in_seconds, limit.wall_s)
    return settings


def _decision(limit: Limits) -> SatParameters:
    settings = _base(limit)
    settings.stop_after_first_solution = True
    return settings


def _optimisation(limit: Limits, gap: float) -> SatParameters:
    settings = _base(limit)
    settings.relative_gap_limit = gap
    return settings
