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

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.choice import Choice
from apportion.planner.compiled import NO_LIMIT
from apportion.planner.dual import VALUE, Prices, Weights, matches
from apportion.planner.exact import parameters, run_cp_sat
from apportion.planner.problem import SAFE_SUM

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from ortools.sat.python.cp_model_helper import CpModelProto, SatParameters

    from apportion.planner.columns import Columns
    from apportion.planner.compiled import Compiled
    from apportion.planner.dual import Dual

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MAX_WALL_S = 60.0
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


_NONE: Ints = np.zeros(0, dtype=np.int64)


class _Variables:
    """Whole numbers from 0, side by side: how large each may be, what one unit is worth, and what it costs."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Ints, Ints, Ints]] = []
        self._count = 0

    def add(self, most: Ints, *, value: Ints | int = 0, cost: Ints | int = 0) -> Ints:
        """Return the positions of new variables."""
        like = np.zeros_like(most)
        self._blocks.append((most, like + value, like + cost))
        self._count += len(most)
        return np.arange(self._count - len(most), self._count)

    def tables(self) -> tuple[Ints, Ints, Ints]:
        """Return the largest amount, value and cost of all variables."""
        most, value, cost = (np.concatenate(parts) for parts in zip(*self._blocks, strict=True))
        return most, value, cost


class _Terms:
    """Sums, collected term by term: row, variable, amount."""

    def __init__(self) -> None:
        self._parts: list[tuple[Ints, Ints, Ints]] = []

    def add(self, rows: Ints | int, variables: Ints, amounts: Ints | int) -> None:
        """Add terms; those of row `NO_LIMIT` count nowhere."""
        like = np.zeros_like(variables)
        rows = like + rows
        counts = rows != NO_LIMIT
        self._parts.append((rows[counts], variables[counts], (like + amounts)[counts]))

    def table(self) -> tuple[Ints, Ints, Ints]:
        """Return rows, variables and amounts, row by row."""
        if not self._parts:
            return _NONE, _NONE, _NONE
        rows, variables, amounts = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        order = np.argsort(rows, kind="stable")
        return rows[order], variables[order], amounts[order]

    def rows(self, count: int) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the variables and amounts of each of the first rows."""
        rows, variables, amounts = self.table()
        ends = np.searchsorted(rows, np.arange(count + 1)).tolist()
        all_variables, all_amounts = variables.tolist(), amounts.tolist()
        for start, end in pairwise(ends):
            yield all_variables[start:end], all_amounts[start:end]


class Master:
    """The master problem over some columns.

    Args:
        dual: The bounds of the problem.
        columns: The columns to combine.
        work: Which work segments are decided.
    """

    def __init__(self, dual: Dual, columns: Columns, work: Work) -> None:
        self._dual = dual
        self._compiled: Compiled = dual.compiled
        self._work = work
        self._columns, self._bare = self._with_bare(columns)
        self._agents = self._compiled.agent_of[self._columns.mode]
        self._variables = _Variables()
        self._limits, self._rules, self._ones = _Terms(), _Terms(), _Terms()
        self._rule_count = 0
        self._model: CpModelProto | None = None
        self._add_columns()
        self._add_deferrals()
        self._segments = self._add_segments()
        self._links = self._add_links()
        self._most, self._value, self._cost = self._variables.tables()

    # The model.

    def _with_bare(self, columns: Columns) -> tuple[Columns, NDArray[np.bool_]]:
        """Offer the columns that must be there a second time, without folded work: the most frugal plans need that."""
        folds = self._work.folded.sum(axis=1)[columns.mode] > 0
        extra = np.flatnonzero(columns.needed & folds)
        bare = np.arange(len(columns.mode) + len(extra)) >= len(columns.mode)
        return columns.take(np.concatenate((np.arange(len(columns.mode)), extra))), bare

    def _add_columns(self) -> None:
        compiled, columns = self._compiled, self._columns
        folded = np.where(self._bare[:, None], 0, self._work.folded[columns.mode])
        self._column_quanta = work = folded.sum(axis=1)
        tokens = columns.tokens + work * QUANTUM_TOKENS
        cost = columns.cost + work * compiled.quantum_cost[columns.mode]
        variables = self._variables.add(
            np.ones_like(work),
            value=columns.value + (folded * compiled.slopes[columns.mode]).sum(axis=1),
            cost=cost + columns.given_cost,
        )
        stage = compiled.stage_of[self._agents]
        limits = self._limits
        limits.add(compiled.tokens_limit, variables, tokens + columns.given_tokens)
        limits.add(compiled.cost_limit, variables, cost + columns.given_cost)
        limits.add(compiled.stage_tokens_limit[stage], variables, tokens)
        limits.add(compiled.stage_cost_limit[stage], variables, cost)
        limits.add(compiled.window_limit[self._agents], variables, columns.window + work * QUANTUM_TOKENS)
        memory = np.where(columns.preload, compiled.preload_bytes[self._agents], 0)
        limits.add(compiled.memory_limit, variables, memory)
        self._add_given(variables)
        self._ones.add(self._agents, variables, 1)

    def _add_given(self, variables: Ints) -> None:
        """Charge results to the agents that get them."""
        compiled, columns = self._compiled, self._columns
        receiver = compiled.receiver[self._agents]
        giving = receiver >= 0
        to, variables = receiver[giving], variables[giving]
        stage = compiled.stage_of[to]
        self._limits.add(compiled.stage_tokens_limit[stage], variables, columns.given_tokens[giving])
        self._limits.add(compiled.stage_cost_limit[stage], variables, columns.given_cost[giving])
        self._limits.add(compiled.window_limit[to], variables, columns.given_window[giving])

    def _add_deferrals(self) -> None:
        compiled = self._compiled
        agents = np.flatnonzero(compiled.deferrable)
        variables = self._variables.add(np.ones_like(agents))
        self._limits.add(compiled.window_limit[agents], variables, -compiled.deferred_window[agents])
        self._ones.add(agents, variables, 1)

    def _add_segments(self) -> tuple[Ints, Ints, Ints]:
        """Add the free segments; returns their variables, modes and numbers."""
        compiled = self._compiled
        used = np.zeros(len(compiled.modes), dtype=np.bool_)
        used[self._columns.mode] = True
        mode, number = np.nonzero(self._work.open & used[:, None])
        length = compiled.quanta[mode, number]
        variables = self._variables.add(length, value=compiled.slopes[mode, number], cost=compiled.quantum_cost[mode])
        for limits, amounts in compiled.work_rows(mode):
            self._limits.add(limits, variables, amounts)
        rules = self._add_rules(len(variables))
        column, segment = matches(self._columns.mode, mode)
        self._rules.add(rules, variables, 1)
        self._rules.add(rules[segment], column, -length[segment])
        return variables, mode, number

    def _add_links(self) -> tuple[Ints, Ints]:
        """Let columns need what others give, and shared forms; returns the links that are needed, and their rules."""
        held = self._dual.links.held_by(self._columns.mode, self._columns.options)
        forms = self._add_forms()
        needed = np.unique(held.link[held.sign > 0])
        rules = np.full(self._dual.link_count, -1)
        rules[needed] = self._add_rules(len(needed))
        self._rules.add(rules[held.link], held.column, held.sign)
        form_of = self._dual.links.form_of[needed]
        of_forms = form_of >= 0
        self._rules.add(rules[needed[of_forms]], forms[form_of[of_forms]], -1)
        return needed, rules[needed]

    def _add_forms(self) -> Ints:
        prepare = np.array([form.prepare_nusd for form in self._compiled.shared], dtype=np.int64)
        variables = self._variables.add(np.ones_like(prepare), cost=prepare)
        self._limits.add(self._compiled.cost_limit, variables, prepare)
        return variables

    def _add_rules(self, count: int) -> Ints:
        """Return the rows of so many new rules, each a sum that must be at most 0."""
        self._rule_count += count
        return np.arange(self._rule_count - count, self._rule_count)

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
        costly = np.flatnonzero(self._cost)
        model.objective.vars.extend(costly.tolist())
        model.objective.coeffs.extend(self._cost[costly].tolist())
        return self._solve(model, _optimisation(limit, gap), hint)

    def best(self, least_value: int, *, limit: Limits, gap: float, hint: Choice | None) -> Answer:
        """Ask for the plan that is worth most, if any is worth at least `least_value`."""
        model = self._asked(least_value)
        worth = np.flatnonzero(self._value)
        model.objective.vars.extend(worth.tolist())
        model.objective.coeffs.extend((-self._value[worth]).tolist())
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
        for amount in self._most.tolist():
            model.variables.add().domain.extend([0, amount])
        for variables, _ in self._ones.rows(len(self._compiled.problem.agents)):
            model.constraints.add().exactly_one.literals.extend(variables)
        self._add_rows(model, self._rules, [0] * self._rule_count)
        self._first_limit = len(model.constraints)
        self._add_rows(model, self._limits, [limit.amount for limit in self._compiled.limits])
        worth = model.constraints.add().linear
        valued = np.flatnonzero(self._value)
        worth.vars.extend(valued.tolist())
        worth.coeffs.extend(self._value[valued].tolist())
        worth.domain.extend([-SAFE_SUM, SAFE_SUM])
        return model

    def _add_rows(self, model: CpModelProto, terms: _Terms, amounts: list[int]) -> None:
        """Let each sum be at most an amount."""
        row, variable, amount = terms.table()
        least = np.zeros(len(amounts), dtype=np.int64)
        np.add.at(least, row, np.minimum(amount, 0) * self._most[variable])
        for (variables, factors), low, high in zip(terms.rows(len(amounts)), least.tolist(), amounts, strict=True):
            linear = model.constraints.add().linear
            linear.vars.extend(variables)
            linear.coeffs.extend(factors)
            linear.domain.extend([min(low, high), high])

    def relax(self, least_value: int | None = None) -> Relaxation | None:
        """Solve the linear relaxation with GLOP, a simplex solver; `None` where it has no solution.

        Its prices only tell where to look for better columns and bounds.

        Args:
            least_value: `None` asks for the most value, a number for the least cost of at least that value.
        """
        from ortools.linear_solver.python.model_builder_helper import ModelBuilderHelper, ModelSolverHelper, SolveStatus
        from scipy.sparse import csr_matrix

        most, value, cost = self._most, self._value, self._cost
        limits, agents, by_cost = (
            len(self._compiled.limits),
            len(self._compiled.problem.agents),
            least_value is not None,
        )
        worth = _Terms()
        if by_cost:
            worth.add(0, np.arange(len(value)), -value)
        blocks = [(self._limits, limits), (self._rules, self._rule_count), (worth, int(by_cost)), (self._ones, agents)]
        first = np.cumsum([0, *[count for _, count in blocks]])
        tables = [terms.table() for terms, _ in blocks]
        rows = np.concatenate([table[0] + start for table, start in zip(tables, first[:-1], strict=True)])
        variables, amounts = (np.concatenate([table[part] for table in tables]) for part in (1, 2))
        matrix = csr_matrix((amounts.astype(np.float64), (rows, variables)), shape=(int(first[-1]), len(most)))
        upper = np.zeros(int(first[-1]))
        upper[:limits] = [float(limit.amount) for limit in self._compiled.limits]
        upper[first[2] : first[3]] = -float(least_value or 0)
        upper[first[3] :] = 1.0
        lower = np.full(len(upper), -np.inf)
        lower[first[3] :] = 1.0
        aims = (-cost if by_cost else value).astype(np.float64)
        model = ModelBuilderHelper()
        zeros = np.zeros(len(most))
        model.fill_model_from_sparse_data(zeros, most.astype(np.float64), aims, lower, upper, matrix)  # type: ignore[arg-type]
        model.set_maximize(True)
        solver = ModelSolverHelper("glop")
        solver.set_solver_specific_parameters("use_dual_simplex:true")
        solver.solve(model)
        if solver.status() != SolveStatus.OPTIMAL:
            return None
        duals = np.maximum(0.0, np.asarray(solver.dual_values()))
        needed, rules = self._links
        links = np.zeros(self._dual.link_count)
        links[needed] = duals[limits + rules]
        weights = Weights(float(duals[first[2]]), 1.0) if by_cost else VALUE
        solution = np.asarray(solver.variable_values())
        quanta = self._work.folded.astype(np.float64)
        variable, mode, segment = self._segments
        quanta[mode, segment] = solution[variable]
        used = solution[: int((~self._bare).sum())]
        return Relaxation(float(solver.objective_value()), Prices(duals[:limits], links), weights, used, quanta)

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
        for variable, mode, _ in zip(*[part.tolist() for part in self._segments], strict=True):
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
