"""A plan that fits, or the proof that there is none: what is missing, and which limits contradict each other.

The ladder, cheapest first:

1. Simple floors: everything optional deferred, everything else in its least form, by several measures of "least".
   A floor is believed only after all rules were checked in whole numbers.
2. The elastic model: every limit may be exceeded, the relative excess of all together is minimised. It always has a
   solution. If that exceeds nothing, it is a plan that fits, whatever else was claimed.
3. Where it exceeds something: `farkas` proves without a solver that nothing fits, wherever a linear relaxation can.
4. QuickXplain (Junker, "QuickXplain: Preferred Explanations and Relaxations for Over-Constrained Problems", AAAI
   2004) reduces the limits to a minimal conflict: without any one of them there would be a plan.

The end of a price tier is no limit that could be raised: a prompt beyond it has other prices, hence another mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from apportion.errors import InfeasiblePlanError, PlanError
from apportion.planner.amounts import Amounts
from apportion.planner.choice import DEFERRED, Choice, consumption, usage, value, violations
from apportion.planner.compiled import KEEP, NO_LIMIT
from apportion.planner.constraints import LOWEST, Constraints, Relief, latency_limit
from apportion.planner.exact import parameters, run_cp_sat
from apportion.planner.farkas import prove_infeasible, required_agents
from apportion.planner.objective import Objective
from apportion.planner.problem import MILLION, tick_ms
from apportion.planner.variables import Variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from ortools.sat.python.cp_model_helper import CpModelProto

    from apportion.planner.compiled import Compiled

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

Proof = Literal["lagrangian", "cp-sat", "none"]
"""Who proved that nothing fits: prices on the limits, checked in whole numbers; CP-SAT alone; nobody in time."""

DETERMINISTIC_TIME = 1.0
"""Limit on the work of each call of CP-SAT."""


class Infeasible(NamedTuple):
    """Why no plan fits.

    Attributes:
        conflict: Limits that cannot all hold; without any one of them there would be a plan.
        missing: What they lack, in tokens, nano-dollars, bytes or milliseconds. With all of it there is a plan; with
            a smaller relative sum there is none. It may name other limits than the conflict.
        proof: Who proved it.
        nearest: The choice that would fit with what is missing.
        degraded: What could not be established in time.
    """

    conflict: tuple[str, ...]
    missing: dict[str, int]
    proof: Proof
    nearest: Choice
    degraded: tuple[str, ...] = ()

    def error(self) -> InfeasiblePlanError:
        """Return the error that says so."""
        lacks = ", ".join(f"{name} lacks {amount:,} {unit_of(name)}" for name, amount in self.missing.items())
        missing_tokens = sum(amount for name, amount in self.missing.items() if unit_of(name) == "tokens")
        return InfeasiblePlanError(
            f"what must run does not fit: {lacks}",
            missing_tokens=missing_tokens or None,
            conflict=self.conflict,
            missing=self.missing,
            hint=f"Raise one of the limits that contradict each other: {', '.join(self.conflict)}",
        )


def unit_of(limit: str) -> str:
    """Return the unit of a limit, by its name.

    >>> unit_of("cost of stage review")
    'nano-dollars'
    """
    kind = limit.partition(" ")[0]
    return {"cost": "nano-dollars", "memory": "bytes", "latency": "ms"}.get(kind, "tokens")


def find_floor(compiled: Compiled, *, deterministic_time: float = DETERMINISTIC_TIME) -> Choice:
    """Return a choice that breaks no rule.

    Args:
        compiled: The problem as arrays.
        deterministic_time: Limit on the work of each call of CP-SAT.

    Raises:
        InfeasiblePlanError: No plan fits; the error says what is missing and which limits conflict.
        PlanError: Neither a plan nor a proof that there is none was found within the limit.
    """
    found = floor_or_conflict(compiled, deterministic_time=deterministic_time)
    if isinstance(found, Choice):
        return found
    if found.proof == "none":
        raise PlanError(
            f"neither a plan nor a proof that there is none was found within {deterministic_time:g} units of work",
            hint="Allow more work, or raise a limit",
        )
    raise found.error()


def floor_or_conflict(compiled: Compiled, *, deterministic_time: float = DETERMINISTIC_TIME) -> Choice | Infeasible:
    """Return a choice that breaks no rule, or why there is none.

    This is also the judge of a claim that a problem is infeasible: a choice refutes it.

    Args:
        compiled: The problem as arrays.
        deterministic_time: Limit on the work of each call of CP-SAT.
    """
    floors = list(simple_floors(compiled))
    fitting = [floor for floor in floors if not violations(compiled, floor)]
    if fitting:
        return max(fitting, key=lambda floor: value(compiled, floor))
    return least_shortfall(compiled, floors, deterministic_time=deterministic_time)


def simple_floors(compiled: Compiled) -> Iterator[Choice]:
    """Yield choices with everything optional deferred and everything else in its least form.

    Least in tokens, in cost, in window, in latency, or in a mix of all; each with and without leaving the cached
    prefix as it is. Forms that depend on other agents are left alone.
    """
    usable = compiled.exists.copy()
    for link in compiled.links:
        for mode, slot, option in link.needs:
            if slot >= 0:
                usable[mode, slot, option] = False
    prefix = np.arange(compiled.value.shape[1])[None, :] < compiled.chain[:, None]
    for base, per_option in _measures(compiled):
        least_options = np.where(usable, per_option, np.inf).argmin(axis=2)
        for options in (least_options, np.where(prefix, KEEP, least_options)):
            least = base + _of_options(per_option, options).sum(axis=1)
            yield _floor(compiled, options, np.lexsort((least, _own_excess(compiled, options))).argsort())


def _measures(compiled: Compiled) -> Iterator[tuple[Floats, Floats]]:
    parts = [
        (base / scale, options / scale)
        for base, options in (
            (compiled.base_tokens, compiled.tokens),
            (compiled.base_cost, compiled.cost),
            (compiled.base_window, compiled.window),
            (compiled.base_ticks, compiled.ticks),
        )
        for scale in [max(1, int(options.max()))]
    ]
    yield from parts
    yield np.sum([base for base, _ in parts], axis=0), np.sum([options for _, options in parts], axis=0)


def _own_excess(compiled: Compiled, options: Ints) -> Ints:
    """Return by how much modes with given options break their own window and latency, tokens and ticks added up."""
    window = compiled.base_window + _of_options(compiled.window, options).sum(axis=1)
    ticks = compiled.base_ticks + _of_options(compiled.ticks, options).sum(axis=1)
    ticks -= compiled.preload_ticks[compiled.agent_of]
    late = np.where(compiled.max_ticks == NO_LIMIT, 0, ticks - compiled.max_ticks)
    excess: Ints = np.maximum(0, window) + np.maximum(0, late)
    return excess


def _of_options(amounts: NDArray[Any], options: Ints) -> NDArray[Any]:
    return np.take_along_axis(amounts, options[:, :, None], axis=2)[:, :, 0]


def _floor(compiled: Compiled, options: Ints, rank: Ints) -> Choice:
    """Return the choice of the modes of least rank, for the agents that run in every plan."""
    slots = compiled.value.shape[1]
    modes, chosen = [], []
    for agent, required in enumerate(required_agents(compiled)):
        own = compiled.modes_of(agent)
        mode = own.start + int(rank[own.start : own.stop].argmin()) if required else DEFERRED
        modes.append(mode)
        chosen.append(tuple(options[mode].tolist()) if required else (0,) * slots)
    without = Choice(tuple(modes), tuple(chosen), (0,) * len(modes), (False,) * len(modes))
    return without._replace(preloads=_needed_preloads(compiled, without))


def _needed_preloads(compiled: Compiled, choice: Choice) -> tuple[bool, ...]:
    """Preload the agents that would be late without."""
    ticks = consumption(compiled, choice).ticks
    return tuple(
        bool(mode != DEFERRED and compiled.max_ticks[mode] != NO_LIMIT and spent > compiled.max_ticks[mode] and saved)
        for mode, spent, saved in zip(choice.modes, ticks, compiled.preload_ticks, strict=True)
    )


def least_shortfall(compiled: Compiled, starts: list[Choice], *, deterministic_time: float) -> Choice | Infeasible:
    """Ask the elastic model for the least relative excess of all limits, and explain it.

    Args:
        compiled: The problem as arrays.
        starts: Choices to begin with; they need not fit.
        deterministic_time: Limit on the work of each call of CP-SAT.

    Raises:
        PlanError: CP-SAT gives no answer to a model that always has one.
    """
    model = ElasticModel(compiled)
    possible = sorted((start for start in starts if model.possible(start)), key=model.shortfall)
    answer = model.least_shortfall(possible[0] if possible else None, deterministic_time)
    if answer is None and not possible:
        raise PlanError(
            "CP-SAT found no solution of a model that always has one",
            hint="This is a defect of apportion: please report it with the problem",
        )
    nearest, proven = answer if answer is not None else (possible[0], False)
    if not violations(compiled, nearest):
        return nearest
    weights = prove_infeasible(compiled)
    proof: Proof = "lagrangian" if weights is not None else "cp-sat" if proven else "none"
    names = weights.names(compiled) if weights is not None else model.names
    conflict, sure = minimal_conflict(model, names, [nearest, *possible], deterministic_time)
    missing = missing_amounts(compiled, nearest)
    degraded = []
    if not proven:
        degraded.append("the missing amounts may not be the least: the search was stopped")
    if not sure:
        degraded.append("the conflict may not be minimal: the search was stopped")
    if proof == "none":
        degraded.append("neither a plan nor a proof was found that there is none")
    return Infeasible(conflict, missing, proof, nearest, tuple(degraded))


class ElasticModel:
    """The full model with limits that may be exceeded.

    Args:
        compiled: The problem as arrays.

    Attributes:
        names: The limits: those of the world that can bind, and the latencies of stages.
    """

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._references = _references(compiled)
        self.names = tuple(self._references)

    def least_shortfall(self, start: Choice | None, deterministic_time: float) -> tuple[Choice, bool] | None:
        """Return the choice that exceeds the limits least, and whether that is proven; `None` without a solution."""
        from ortools.sat.python.cp_model_helper import CpModelProto

        proto = CpModelProto()
        variables, relief = self._build(proto)
        weights = {softened.variable: self._weight(name, softened.amount) for name, softened in relief.items()}
        amounts = Amounts(self._compiled, variables)
        Objective(proto, self._compiled, variables, amounts).minimise_shortfall(weights)
        if start is not None:
            excess = _excess(self._compiled, start)
            units = {part.variable: -(-max(0, excess.get(name, 0)) // part.amount) for name, part in relief.items()}
            variables.hint(start, units)
        response = run_cp_sat(proto, parameters(deterministic_time))
        if response.status.name not in {"OPTIMAL", "FEASIBLE"}:
            return None
        return variables.read(list(response.solution)), response.status.name == "OPTIMAL"

    def choice_within(self, kept: tuple[str, ...], deterministic_time: float) -> Choice | Literal["none", "unknown"]:
        """Return a choice that exceeds none of the kept limits, or whether it is certain that there is none."""
        from ortools.sat.python.cp_model_helper import CpModelProto

        proto = CpModelProto()
        variables, relief = self._build(proto)
        for name in kept:
            proto.variables[relief[name].variable].domain[1] = 0
        response = run_cp_sat(proto, parameters(deterministic_time))
        if response.status.name in {"OPTIMAL", "FEASIBLE"}:
            return variables.read(list(response.solution))
        return "none" if response.status.name == "INFEASIBLE" else "unknown"

    def shortfall(self, choice: Choice) -> int:
        """Return the relative excess of all limits together, in millionths."""
        return sum(self._weight(name, 1) * max(0, amount) for name, amount in _excess(self._compiled, choice).items())

    def possible(self, choice: Choice) -> bool:
        """Say whether a choice breaks nothing but limits: each prompt stays within its price tier."""
        for agent, mode in enumerate(choice.modes):
            limit = int(self._compiled.window_limit[agent])
            if mode != DEFERRED and limit != NO_LIMIT:
                most = self._references[self._compiled.limits[limit].name][1]
                if int(usage(self._compiled, choice)[limit]) > room_in_tier(self._compiled, mode, most):
                    return False
        return True

    def exceeded(self, choice: Choice) -> set[str]:
        """Return the limits that a choice exceeds."""
        return {name for name, amount in _excess(self._compiled, choice).items() if amount > 0}

    def _weight(self, name: str, amount: int) -> int:
        return max(1, MILLION * amount // self._references[name][0])

    def _build(self, proto: CpModelProto) -> tuple[Variables, dict[str, Relief]]:
        compiled = self._compiled
        variables = Variables(proto, compiled)
        relief = {
            name: Relief(variables.add_integer(-(-most // unit)), unit)
            for name, (reference, most) in self._references.items()
            for unit in [1 if name.startswith("window") else max(1, reference // MILLION)]
        }
        Constraints(proto, compiled, variables, Amounts(compiled, variables), relief).add_constraints()
        self._end_tiers(proto, variables, relief)
        return variables, relief

    def _end_tiers(self, proto: CpModelProto, variables: Variables, relief: dict[str, Relief]) -> None:
        """A window may be exceeded up to the end of the price tier that holds in the running mode.

        for each a:  excess of the window of a <= sum over m of (end of tier of m - window of m) * run[m]
        """
        compiled = self._compiled
        for agent, limit in enumerate(compiled.window_limit):
            if limit == NO_LIMIT:
                continue
            name = compiled.limits[limit].name
            most = self._references[name][1]
            row = proto.constraints.add().linear
            modes = compiled.modes_of(agent)
            row.vars.extend([relief[name].variable, *variables.run[modes.start : modes.stop].tolist()])
            row.coeffs.extend([1, *[-min(most, room_in_tier(compiled, mode, most)) for mode in modes]])
            row.domain.extend((LOWEST, 0))


def room_in_tier(compiled: Compiled, number: int, most: int) -> int:
    """Return how far a mode's prompt may exceed its window before other prices hold; `most` where they never do."""
    mode = compiled.modes[number]
    variant = compiled.problem.agents[mode.agent].variants[mode.variant]
    tiers = compiled.problem.model_of[variant.model_id].tiers
    if mode.tier == len(tiers) or mode.window is None:
        return most
    return tiers[mode.tier].above_tokens - mode.window


def minimal_conflict(
    model: ElasticModel, names: tuple[str, ...], known: list[Choice], deterministic_time: float
) -> tuple[tuple[str, ...], bool]:
    """Return a minimal part of some limits that already conflict, and whether that is certain.

    Args:
        model: The elastic model.
        names: Limits that cannot all hold.
        known: Choices that are possible but for limits; those found on the way are added.
        deterministic_time: Limit on the work of each call of CP-SAT.
    """
    exceeded = [model.exceeded(choice) for choice in known]
    sure = True

    def conflicts(kept: tuple[str, ...]) -> bool:
        nonlocal sure
        if any(broken.isdisjoint(kept) for broken in exceeded):
            return False
        answer = model.choice_within(kept, deterministic_time)
        if isinstance(answer, Choice):
            exceeded.append(model.exceeded(answer))
            return False
        sure = sure and answer == "none"
        return True

    def explain(background: tuple[str, ...], added: bool, parts: tuple[str, ...]) -> tuple[str, ...]:  # noqa: FBT001
        """QuickXplain: a minimal part of `parts` that conflicts with the background."""
        if added and conflicts(background):
            return ()
        if len(parts) == 1:
            return parts
        half = len(parts) // 2
        second = explain((*background, *parts[:half]), True, parts[half:])
        first = explain((*background, *second), bool(second), parts[:half])
        return (*first, *second)

    return (explain((), False, names) if names else ()), sure


def missing_amounts(compiled: Compiled, choice: Choice) -> dict[str, int]:
    """Return what the limits lack for a choice, in their units."""
    missing = {name: amount for name, amount in _excess(compiled, choice).items() if amount > 0}
    return {
        name: _missing_ms(compiled, choice, name) if name.startswith("latency") else amount
        for name, amount in missing.items()
    }


def _missing_ms(compiled: Compiled, choice: Choice, name: str) -> int:
    """Return by how many milliseconds a stage's latency limit must rise for a choice to fit.

    A longer limit has longer ticks, to which all latencies are rounded up again. That costs at most a fifth of it, so
    there is a limit that is long enough.
    """
    stage = next(stage for stage in compiled.problem.stages if name == f"latency of stage {stage.id}")
    before = stage.max_latency_ms or 0
    members = [
        agent
        for agent, mode in enumerate(choice.modes)
        if mode != DEFERRED and compiled.problem.agents[agent].stage_id == stage.id
    ]
    limit = before
    while True:
        needed = 0
        for agent in members:
            tick = tick_ms(limit, len(compiled.problem.agents[agent].uses))
            ticks = _ticks(compiled, choice, agent, tick)
            if ticks > limit // tick:
                needed = max(needed, ticks * tick)
        if not needed:
            return limit - before
        limit = max(limit + 1, needed)


def _ticks(compiled: Compiled, choice: Choice, agent: int, tick: int) -> int:
    """Return the latency of an agent in ticks of another length."""
    record, mode = compiled.problem.agents[agent], compiled.modes[choice.modes[agent]]
    ticks = -(-record.variants[mode.variant].latency_ms // tick)
    for forms, option in zip(compiled.options[agent][:-1], choice.options[agent], strict=False):
        form = forms[option]
        ticks += 0 if form is None else -(-form.latency_ms // tick)  # type: ignore[union-attr]
    if choice.preloads[agent] and record.preload is not None:
        ticks -= record.preload.latency_ms * record.preload.probability_ppm // MILLION // tick
    return ticks


def _excess(compiled: Compiled, choice: Choice) -> dict[str, int]:
    """Return by how much a choice exceeds each limit; latencies in ticks, per stage."""
    excess = {
        limit.name: int(used) - limit.amount
        for limit, used in zip(compiled.limits, usage(compiled, choice), strict=True)
    }
    saved = np.where(np.array(choice.preloads, dtype=np.bool_), compiled.preload_ticks, 0)
    ticks = consumption(compiled, choice).ticks - saved
    for agent, mode in enumerate(choice.modes):
        if mode != DEFERRED and compiled.max_ticks[mode] != NO_LIMIT:
            name = latency_limit(compiled, agent)
            excess[name] = max(excess.get(name, 0), int(ticks[agent] - compiled.max_ticks[mode]))
    return excess


def _references(compiled: Compiled) -> dict[str, tuple[int, int]]:
    """Return, for each limit, the amount that its excess is relative to, and the most that it could be exceeded by.

    An amount far below what is consumed, for example 0, counts as a thousandth of that: shares stay comparable.
    """
    spent = np.where(compiled.exists, 1, 0)
    references = {}
    all_tokens = int((compiled.tokens * spent).sum() + compiled.base_tokens.sum() + compiled.given_tokens.sum())
    all_cost = int((compiled.cost * spent).sum() + compiled.base_cost.sum() + compiled.given_cost.sum())
    all_cost += sum(form.prepare_nusd for form in compiled.shared)
    all_tokens += int(compiled.quanta.sum()) * 64
    all_cost += int((compiled.quanta.sum(axis=1) * compiled.quantum_cost).sum())
    most = {"tokens": all_tokens, "cost": all_cost, "memory": int(compiled.preload_bytes.sum())}
    for limit in compiled.limits:
        kind = limit.name.partition(" ")[0]
        if kind != "window":
            references[limit.name] = (max(1, limit.amount, most[kind] // 1000), most[kind])
    for agent, number in enumerate(compiled.window_limit):
        if number != NO_LIMIT:
            modes = compiled.modes_of(agent)
            widest = max(compiled.modes[mode].window or 0 for mode in modes)
            most_window = all_tokens + int(compiled.given_window.sum())
            references[compiled.limits[number].name] = (max(1, widest, most_window // 1000), most_window)
    all_ticks = int((compiled.ticks * spent).sum() + compiled.base_ticks.sum())
    for mode, ticks in enumerate(compiled.max_ticks.tolist()):
        if ticks != NO_LIMIT:
            name = latency_limit(compiled, int(compiled.agent_of[mode]))
            references[name] = (max(1, ticks, all_ticks // 1000), all_ticks)
    return references
