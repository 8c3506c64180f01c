"""Random joint problems, and valid plans for them that no solver made."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from apportion.errors import InputError
from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.budgets.segments import cut_off_probability
from apportion.planner.compiled import KEEP, Compiled, compile_problem
from apportion.planner.plan import OPTIMAL_GAP, AgentPlan, LimitPrice, PieceChoice, Plan
from apportion.planner.problem import MILLION, Problem

if TYPE_CHECKING:
    from collections.abc import Callable


def _model(rng: random.Random, name: str) -> dict[str, Any]:
    price = rng.choice([100_000, 1_000_000, 3_333_333])

    def prices(factor: int) -> dict[str, int]:
        return {
            "input": price * factor,
            "output": price * factor * 5,
            "cache_read": price * factor // 10,
            "cache_write_5m": price * factor * 5 // 4,
            "cache_write_1h": price * factor * 2,
        }

    tiers = [{"above_tokens": rng.randint(2000, 12_000), **prices(2)}] if rng.random() < 0.5 else []
    return {"id": name, **prices(1), "tiers": tiers, "context_window": rng.choice([None, 200_000])}


def _form(rng: random.Random, tokens: int, action: str, number: int) -> dict[str, Any]:
    form = {
        "action": action,
        "name": rng.choice(["", f"level {number}"]),
        "tokens": rng.randint(0, tokens + tokens // 20),
        "loss_points": rng.choice([0, rng.randint(0, 900)]),
        "latency_ms": rng.choice([0, rng.randint(1, 300)]),
        "prepare_nusd": rng.choice([0, rng.randint(1, 10**7)]),
    }
    if action in {"mask", "lazy", "select"}:
        form["need_ppm"] = rng.randint(0, MILLION // 2)
    return form


def _item(rng: random.Random, name: str) -> dict[str, Any]:
    tokens = rng.randint(0, 6000)
    actions = rng.sample(["mask", "lazy", "select", "structure", "diff", "reference"], rng.randint(0, 5))
    forms = [_form(rng, tokens, action, number) for number, action in enumerate(actions)]
    return {"id": name, "tokens": tokens, "pinned": rng.random() < 0.2, "forms": forms}


def _variant(rng: random.Random, name: str, models: int) -> dict[str, Any]:
    quantiles = sorted(rng.randint(0, 5000) for _ in range(4))
    floor = rng.choice([0, 0, rng.randint(1, 900)])
    return {
        "id": name,
        "model_id": f"m{rng.randrange(models)}",
        "demand": {
            "probabilities": [0.1, 0.5, 0.9, 0.97],
            "tokens": quantiles,
            "sample_size": rng.choice([0, rng.randint(1, 500)]),
        },
        "weight": rng.randint(1, 9),
        "value_points": rng.randint(0, 3000),
        "floor_tokens": floor,
        "max_tokens": rng.choice([None, floor + rng.randint(0, 3000)]),
        "contingency_tokens": rng.choice([0, rng.randint(1, 400)]),
        "calls": rng.randint(1, 12),
        "latency_ms": rng.randint(0, 1500),
    }


def make_problem(seed: int, *, agents: int | None = None, uses: int = 4) -> Problem:
    """Return a problem without caps, in which everything else occurs."""
    rng = random.Random(seed)  # noqa: S311  (for examples, not for secrets)
    models, stages, count = 2, rng.randint(1, 3), agents or rng.randint(1, 5)
    items = [_item(rng, f"i{number}") for number in range(uses + 2)]
    made: list[dict[str, Any]] = []
    for number in range(count):
        chosen = [item["id"] for item in rng.sample(items, rng.randint(min(2, uses), uses))]
        earlier = [agent["id"] for agent in made]
        agent: dict[str, Any] = {
            "id": f"a{number}",
            "stage_id": f"s{min(stages - 1, number * stages // count)}",
            "mandatory": rng.random() < 0.4,
            "can_expand": rng.random() < 0.7,
            "cached_uses": rng.randint(0, len(chosen)),
            "cache_lifetime": rng.choice(["5m", "1h"]),
            "variants": [_variant(rng, f"v{each}", models) for each in range(rng.randint(1, 3))],
            "hand_backs": [
                {"id": f"h{each}", "tokens": rng.randint(0, 800), "loss_points": rng.randint(0, 90)}
                for each in range(rng.randint(0, 2))
            ],
            "after": [name for name in earlier if rng.random() < 0.2],
            "uses": [
                {"item_id": name, "relevance_ppm": rng.randint(0, MILLION), **_held(rng, name, made)} for name in chosen
            ],
        }
        if not agent["cached_uses"] and rng.random() < 0.5:
            agent["cache_lifetime"] = "none"
        if earlier and rng.random() < 0.5:
            agent["reports_to"] = rng.choice(earlier)
        if rng.random() < 0.5:
            agent["preload"] = {
                "memory_bytes": rng.randint(0, 10**6),
                "probability_ppm": rng.randint(0, MILLION),
                "latency_ms": rng.randint(0, 400),
            }
        made.append(agent)
    data = {
        "models": [_model(rng, f"m{number}") for number in range(models)],
        "stages": [{"id": f"s{number}", "max_latency_ms": rng.choice([None, 6000, 9000])} for number in range(stages)],
        "agents": made,
        "items": items,
    }
    return Problem.parse(data)


def _held(rng: random.Random, item: str, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    holders = [agent["id"] for agent in earlier if item in {use["item_id"] for use in agent["uses"]}]
    held: dict[str, Any] = {"held": rng.choice(["nothing", "nothing", "base", "whole"])}
    if holders and rng.random() < 0.6:
        held["held_if_kept_by"] = rng.choice(holders)
    return held


class Choice(NamedTuple):
    """What one agent does: its mode, the option of each slot, work quanta, and whether it is loaded in advance."""

    mode: int
    options: list[int]
    quanta: int
    preload: bool


def make_plan(problem: Problem, seed: int) -> tuple[Problem, Plan]:
    """Choose at random, then put caps on the problem that the choices just keep; figures come from the arrays."""
    rng = random.Random(seed)  # noqa: S311  (for examples, not for secrets)
    compiled = compile_problem(problem)
    choices = _choose(compiled, rng)
    agents = tuple(_agent_plan(compiled, number, choice) for number, choice in enumerate(choices))
    made = {
        f"{form.item}:{form.form}": form.prepare_nusd
        for form in compiled.shared
        for mode, slot, option in form.cells
        if any(choice is not None and choice.mode == mode and choice.options[slot] == option for choice in choices)
    }
    cost = sum(agent.cost_nusd + agent.given_cost_nusd for agent in agents) + sum(made.values())
    problem = _with_caps(problem, agents, cost, rng)
    objective = sum(_value(compiled, choice) for choice in choices if choice is not None)
    bound = objective + rng.choice([0, 1, abs(objective) // 2000, abs(objective) // 10])
    gap = (bound - objective) / max(1, abs(bound))
    limits = ["memory", *(["tokens"] if problem.max_tokens is not None else [])]
    plan = Plan(
        agents=agents,
        prepared=tuple(made),
        tokens=sum(agent.tokens + agent.given_tokens for agent in agents),
        cost_nusd=cost,
        objective=objective,
        bound=bound,
        bound_source="columns",
        gap=gap,
        cost_bound_nusd=cost,
        least_value=objective,
        status="OPTIMAL" if gap <= OPTIMAL_GAP else "FEASIBLE",
        source="columns",
        stopped_by="target",
        prices=tuple(LimitPrice(limit=limit, units=1.5) for limit in limits),
        fingerprint=problem.fingerprint,
    )
    return problem, plan


def _choose(compiled: Compiled, rng: random.Random) -> list[Choice | None]:
    problem = compiled.problem
    running: dict[str, bool] = {}
    must = {agent.id for agent in problem.agents if agent.mandatory}
    for agent in reversed(problem.agents):
        must |= set(agent.after) if agent.id in must else set()
    choices: list[Choice | None] = []
    for number, agent in enumerate(problem.agents):
        running[agent.id] = agent.id in must or (all(running[name] for name in agent.after) and rng.random() < 0.7)
        if not running[agent.id]:
            choices.append(None)
            continue
        modes = compiled.modes_of(number)
        last = {compiled.modes[mode].variant: mode for mode in modes}  # the last tier holds any prompt
        mode = rng.choice(sorted(last.values()))
        options = [rng.choice(np.flatnonzero(row).tolist()) for row in compiled.exists[mode]]
        quanta = rng.randint(0, int(compiled.quanta[mode].sum()))
        choices.append(Choice(mode, options, quanta, agent.preload is not None and rng.random() < 0.5))
    _keep_links(compiled, choices)
    return [_in_its_tier(compiled, choices, number) for number in range(len(choices))]


def _keep_links(compiled: Compiled, choices: list[Choice | None]) -> None:
    for link in compiled.links:
        mode, slot, _ = link.needs[0]
        needing = choices[compiled.modes[mode].agent]
        if slot < 0 or needing is None or needing.options[slot] not in {option for _, _, option in link.needs}:
            continue
        giving_mode, there, _ = link.gives[0]
        giving = choices[compiled.modes[giving_mode].agent]
        if giving is None or giving.options[there] != KEEP:
            needing.options[slot] = KEEP


def _in_its_tier(compiled: Compiled, choices: list[Choice | None], number: int) -> Choice | None:
    """Return the choice at the first price tier that holds its prompt."""
    choice = choices[number]
    if choice is None:
        return None
    last = compiled.hand_back_slot
    incoming = sum(
        int(compiled.given_window[other.mode, other.options[last]])
        for sender, other in enumerate(choices)
        if other is not None and compiled.receiver[sender] == number
    )
    for mode in compiled.modes_of(number):
        if compiled.modes[mode].variant == compiled.modes[choice.mode].variant:
            used = int(compiled.base_window[mode]) + _sum(compiled.window, mode, choice.options) + incoming
            if used + QUANTUM_TOKENS * choice.quanta <= 0 or mode == choice.mode:
                return choice._replace(mode=mode)
    raise AssertionError


def _sum(array: Any, mode: int, options: list[int]) -> int:
    return sum(int(array[mode, slot, option]) for slot, option in enumerate(options))


def _agent_plan(compiled: Compiled, number: int, choice: Choice | None) -> AgentPlan:
    agent = compiled.problem.agents[number]
    if choice is None:
        return AgentPlan(agent_id=agent.id, stage_id=agent.stage_id, variant_id=None)
    mode, last = choice.mode, compiled.hand_back_slot
    variant = agent.variants[compiled.modes[mode].variant]
    forms = [compiled.options[number][slot][choice.options[slot]] for slot in range(len(agent.uses))]
    pieces = tuple(
        PieceChoice(
            item_id=use.item_id,
            form="keep" if form is None else form.id,
            tokens=compiled.problem.item_of[use.item_id].tokens if form is None else form.tokens,
        )
        for use, form in zip(agent.uses, forms, strict=True)
    )
    chain = forms[: agent.cached_uses]
    intact = next((position for position, form in enumerate(chain) if form is not None), len(chain))
    credit = sum(int(compiled.credit[mode, slot]) for slot in range(intact))
    ticks = int(compiled.base_ticks[mode]) + _sum(compiled.ticks, mode, choice.options)
    ticks = max(0, ticks - int(compiled.preload_ticks[number]) * choice.preload)
    work = variant.floor_tokens + QUANTUM_TOKENS * choice.quanta
    way = choice.options[last]
    return AgentPlan(
        agent_id=agent.id,
        stage_id=agent.stage_id,
        variant_id=variant.id,
        price_tier=compiled.modes[mode].tier,
        work_tokens=work,
        cut_off_probability=cut_off_probability(variant.demand, work),
        sample_size=variant.demand.sample_size,
        pieces=pieces,
        intact_pieces=intact,
        hand_back=agent.hand_backs[way].id if agent.hand_backs else None,
        preload=choice.preload,
        prompt_tokens=sum(piece.tokens for piece in pieces),
        tokens=int(compiled.base_tokens[mode])
        + QUANTUM_TOKENS * choice.quanta
        + _sum(compiled.tokens, mode, choice.options),
        given_tokens=int(compiled.given_tokens[mode, way]),
        cost_nusd=int(compiled.base_cost[mode])
        + int(compiled.quantum_cost[mode]) * choice.quanta
        + _sum(compiled.cost, mode, choice.options)
        - credit,
        given_cost_nusd=int(compiled.given_cost[mode, way]),
        latency_ms=ticks * int(compiled.tick_ms[number]),
    )


def _value(compiled: Compiled, choice: Choice) -> int:
    value = int(compiled.base_value[choice.mode]) + _sum(compiled.value, choice.mode, choice.options)
    left = choice.quanta
    for slope, quanta in zip(compiled.slopes[choice.mode], compiled.quanta[choice.mode], strict=True):
        value += int(slope) * min(left, int(quanta))
        left -= min(left, int(quanta))
    return value


def _with_caps(problem: Problem, agents: tuple[AgentPlan, ...], cost: int, rng: random.Random) -> Problem:
    """Return the problem with limits that the agents keep, tight or loose or none."""

    def cap(used: int) -> int | None:
        return rng.choice([None, used, used + rng.randint(0, 1000)])

    stage_of = {agent.id: agent.stage_id for agent in problem.agents}
    tokens, costs = Counter[str](), Counter[str]()
    for agent, planned in zip(problem.agents, agents, strict=True):
        tokens[agent.stage_id] += planned.tokens
        costs[agent.stage_id] += planned.cost_nusd
        if agent.reports_to is not None:
            tokens[stage_of[agent.reports_to]] += planned.given_tokens
            costs[stage_of[agent.reports_to]] += planned.given_cost_nusd
    stages = tuple(
        stage.model_copy(
            update={
                "max_tokens": cap(tokens[stage.id]),
                "max_cost_nusd": cap(costs[stage.id]),
            }
        )
        for stage in problem.stages
    )
    most, reserve = cap(tokens.total()), rng.randint(0, 500)
    memory = sum(
        agent.preload.memory_bytes
        for agent, planned in zip(problem.agents, agents, strict=True)
        if planned.preload and agent.preload is not None
    )
    return Problem(
        models=problem.models,
        stages=stages,
        agents=problem.agents,
        items=problem.items,
        max_tokens=None if most is None else most + reserve,
        max_cost_nusd=cap(cost),
        reserve_tokens=0 if most is None else reserve,
        max_preload_bytes=memory,
    )


@pytest.fixture(scope="session")
def planned() -> Callable[[int], tuple[Problem, Plan]]:
    """Return a function from a seed to a problem and a valid plan for it."""

    @cache
    def make(seed: int) -> tuple[Problem, Plan]:
        return make_plan(make_problem(seed), seed)

    return make


@pytest.fixture(scope="session")
def overflowing() -> Callable[[int, int], tuple[Problem, Plan] | None]:
    """Return a function that makes some of a problem's numbers longer, and a plan where the problem is accepted."""

    def make(seed: int, digits: int) -> tuple[Problem, Plan] | None:
        rng = random.Random(seed)  # noqa: S311  (for examples, not for secrets)
        longer = set(rng.sample(LONGER, rng.randint(1, 2)))
        data = _scaled(make_problem(seed).model_dump(), longer, 10**digits)
        data["models"] = [model | {"context_window": None} for model in data["models"]]
        try:
            problem = Problem.parse(data)
        except InputError:
            return None
        return make_plan(problem, seed)

    return make


LONGER = ["tokens", "calls", "input", "output", "cache_read", "weight", "loss_points", "prepare_nusd", "value_points"]


def _scaled(value: Any, names: set[str], factor: int) -> Any:
    if isinstance(value, dict):
        return {
            key: inner * factor if key in names and isinstance(inner, int) else _scaled(inner, names, factor)
            for key, inner in value.items()
        }
    return [_scaled(inner, names, factor) for inner in value] if isinstance(value, list | tuple) else value
