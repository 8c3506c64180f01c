"""Small joint problems for the tests of the planner, and an oracle that tries out all their plans.

The oracle reads a `Problem` and nothing else: it follows the docstrings of `problem` with arithmetic of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from apportion.planner.problem import (
    Agent,
    Form,
    HandBack,
    Item,
    ItemUse,
    Model,
    Preload,
    PriceTier,
    Problem,
    Stage,
    Variant,
)
from apportion.records import Action, Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from apportion.planner.problem import Lifetime, TokenPrices

MOST_PLANS = 20_000
"""The oracle tries out at most so many."""


@pytest.fixture(scope="session")
def joint_problem() -> Callable[[int], Problem]:
    """Make the small problem of a seed: at most 3 agents and 20,000 plans; about a third has no plan that fits."""
    return _joint_problem


@pytest.fixture(scope="session")
def try_all_plans() -> Callable[[Problem], AllPlans]:
    """Try out all plans of a small problem."""
    return all_plans


# Small problems.

ACTIONS = (Action.STRUCTURE, Action.SELECT, Action.MASK, Action.DIFF, Action.REFERENCE, Action.LAZY)


def _joint_problem(seed: int) -> Problem:
    rng = Random(seed)  # noqa: S311  (not for secrets)
    while True:
        problem = _draw(rng)
        sizes = [sum(1 for _ in _lives(problem, agent)) + (not agent.mandatory) for agent in problem.agents]
        if np.prod(sizes) <= MOST_PLANS:
            return problem


def _draw(rng: Random) -> Problem:
    models = tuple(_model(rng, number) for number in range(rng.randint(1, 2)))
    items = tuple(_item(rng, number) for number in range(rng.randint(1, 3)))
    stage_ids = [f"s{number}" for number in range(rng.randint(1, 2))]
    agents: list[Agent] = []
    for number in range(rng.choice((1, 2, 3, 3, 3))):
        agents.append(_agent(rng, number, rng.choice(stage_ids), models, items, agents))
    most = sum(_much(agent, items) for agent in agents)
    dearest = max(model.output for model in models)
    tokens = _limit(rng, most)
    return Problem(
        models=models,
        items=items,
        agents=tuple(agents),
        stages=tuple(
            Stage(
                id=stage_id,
                max_tokens=_limit(rng, most // len(stage_ids), 0.2),
                max_cost_nusd=_limit(rng, most * dearest // 2000 // len(stage_ids), 0.2),
                max_latency_ms=rng.choice((None, None, 0, 40, 80, 120, 3000)),
            )
            for stage_id in stage_ids
        ),
        max_tokens=tokens,
        max_cost_nusd=_limit(rng, most * dearest // 2000),
        reserve_tokens=min(rng.choice((0, 0, 30)), tokens or 0),
        max_preload_bytes=rng.choice((0, 50, 100)),
    )


def _limit(rng: Random, most: int, probability: float = 0.5) -> int | None:
    return int(most * rng.choice((0, 0.2, 0.35, 0.5, 0.7, 0.9))) if rng.random() < probability else None


def _much(agent: Agent, items: tuple[Item, ...]) -> int:
    context = sum(item.tokens for item in items for use in agent.uses if use.item_id == item.id)
    return max(context * variant.calls + variant.floor_tokens + 128 for variant in agent.variants)


def _model(rng: Random, number: int) -> Model:
    prices = [rng.randint(1, 3_000_000) for _ in range(5)]
    if rng.random() < 0.7:  # as providers have it: reading the cache is cheap, writing it dear
        prices[2:] = (prices[0] // 10, prices[0] * 5 // 4, prices[0] * 2)
    names = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    tiers = []
    if rng.random() < 0.3:
        factor = rng.choice((1, 2))
        dearer = {name: price * factor + rng.randint(0, 1000) for name, price in zip(names, prices, strict=True)}
        tiers = [PriceTier(above_tokens=rng.randint(50, 500), **dearer)]
    return Model(
        id=f"m{number}",
        context_window=rng.choice((None, None, 300, 450, 700)),
        tiers=tuple(tiers),
        **dict(zip(names, prices, strict=True)),
    )


def _item(rng: Random, number: int) -> Item:
    tokens = rng.choice((0, 7, 100, 200, rng.randint(1, 400)))
    actions = rng.sample(ACTIONS, rng.choice((0, 1, 1, 2)), counts=(1, 1, 1, 3, 2, 1))
    return Item(
        id=f"i{number}",
        tokens=tokens,
        pinned=rng.random() < 0.2,
        forms=tuple(
            Form(
                action=action,
                name=rng.choice(("", "short")),
                tokens=rng.randint(0, tokens) // rng.choice((1, 4)),
                loss_points=rng.choice((0, 0, 3, rng.randint(0, 200))),
                latency_ms=rng.choice((0, 0, 20, 33, 55)),
                prepare_nusd=rng.choice((0, rng.randint(0, 100_000), rng.randint(0, 900_000))),
                need_ppm=rng.choice((0, 100_000, 333_333, 1_000_000))
                if action in {Action.MASK, Action.LAZY, Action.SELECT}
                else 0,
            )
            for action in dict.fromkeys(actions)
        ),
    )


def _agent(
    rng: Random, number: int, stage_id: str, models: tuple[Model, ...], items: tuple[Item, ...], earlier: list[Agent]
) -> Agent:
    used = rng.sample(items, min(rng.choice((0, 1, 2, 2, 3, 3)), len(items)))
    lifetime: Lifetime = rng.choice(("none", "5m", "5m", "1h"))
    variants = tuple(_variant(rng, position, models) for position in range(rng.choice((1, 1, 2))))
    return Agent(
        id=f"a{number}",
        stage_id=stage_id,
        variants=variants,
        mandatory=rng.random() < 0.4,
        uses=tuple(
            ItemUse(
                item_id=item.id,
                relevance_ppm=rng.choice((1_000_000, 500_000, 123_457, 0)),
                held=rng.choice(("nothing", "nothing", "nothing", "base", "whole")),
                held_if_kept_by=_holder(rng, item, earlier),
            )
            for item in used
        ),
        cached_uses=0 if lifetime == "none" else rng.choice((len(used), rng.randint(0, len(used)))),
        cache_lifetime=lifetime,
        can_expand=rng.random() < 0.7,
        hand_backs=tuple(
            HandBack(id=f"h{way}", tokens=rng.randint(0, 80), loss_points=rng.choice((0, 40)))
            for way in range(rng.choice((0, 0, 1, 2)))
        ),
        reports_to=rng.choice(earlier).id if earlier and rng.random() < 0.4 else None,
        after=tuple(other.id for other in earlier if rng.random() < 0.3),
        preload=Preload(
            memory_bytes=rng.choice((0, 50, 70)), probability_ppm=rng.choice((700_000, 1_000_000)),
            latency_ms=rng.choice((20, 45, 100)),
        )
        if rng.random() < 0.5
        else None,
    )  # fmt: skip


def _holder(rng: Random, item: Item, earlier: list[Agent]) -> str | None:
    holders = [agent.id for agent in earlier if item.id in {use.item_id for use in agent.uses}]
    return rng.choice(holders) if holders and rng.random() < 0.8 else None


def _variant(rng: Random, number: int, models: tuple[Model, ...]) -> Variant:
    floor = rng.choice((0, 0, 10, 64, 100))
    return Variant(
        id=f"v{number}",
        model_id=rng.choice(models).id,
        demand=Demand(probabilities=(0.3, 0.9), tokens=tuple(sorted(rng.randint(0, 150) for _ in range(2)))),
        weight=rng.randint(1, 3),
        value_points=rng.choice((0, 50, 200)),
        floor_tokens=floor,
        max_tokens=None if rng.random() < 0.7 else floor + rng.randint(0, 128),
        contingency_tokens=rng.choice((0, 0, 25)),
        calls=rng.choice((1, 1, 2, 5)),
        latency_ms=rng.choice((0, 0, 15, 60)),
    )


# The oracle.


@dataclass
class AllPlans:
    """All plans of a problem; arrays have one entry per plan.

    Attributes:
        limits: Names of the limits.
        possible: Whether the plan breaks no rule that cannot be relaxed.
        excess: By how much it exceeds each limit; shape (limits, plans).
        value, cost, latency_ms: What it is worth and takes.
    """

    limits: list[str]
    possible: NDArray[np.bool_]
    excess: NDArray[np.int64]
    value: NDArray[np.int64]
    cost: NDArray[np.int64]
    latency_ms: NDArray[np.int64]

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Whether a plan breaks no rule and no limit."""
        return self.fits_without(())

    def fits_without(self, relaxed: tuple[str, ...]) -> NDArray[np.bool_]:
        """Whether a plan breaks no rule, and no limit but the named ones."""
        kept = [name not in relaxed for name in self.limits]
        fits: NDArray[np.bool_] = self.possible & np.all(self.excess[kept] <= 0, axis=0)
        return fits


class Life(NamedTuple):
    """One way in which one agent can run, and what follows."""

    agent: Agent
    runs: bool = False
    value: int = 0
    tokens: int = 0
    cost: int = 0
    made_alone: int = 0
    ticks: int = 0
    memory: int = 0
    prompt: int = 0
    above: int = -1
    upto: int = 2**62
    window: int = 2**62
    handed: int = 0
    kept: frozenset[str] = frozenset()
    linked: frozenset[tuple[str, str]] = frozenset()
    made: frozenset[tuple[str, str, int]] = frozenset()


def all_plans(problem: Problem) -> AllPlans:
    lives = [[*_lives(problem, agent), *([] if agent.mandatory else [Life(agent)])] for agent in problem.agents]
    grids = np.indices([len(ways) for ways in lives]).reshape(len(lives), -1)
    index = {agent.id: position for position, agent in enumerate(problem.agents)}

    def each(position: int, of: Callable[[Life], int]) -> NDArray[np.int64]:
        amounts = np.array([of(life) for life in lives[position]], dtype=np.int64)
        spread: NDArray[np.int64] = amounts[grids[position]]
        return spread

    size = grids.shape[1]
    zero = np.zeros(size, dtype=np.int64)
    runs = [each(position, lambda life: life.runs) for position in range(len(lives))]
    tokens = [each(position, lambda life: life.tokens) for position in range(len(lives))]
    cost = [each(position, lambda life: life.cost) for position in range(len(lives))]
    prompt = [each(position, lambda life: life.prompt) for position in range(len(lives))]
    possible = np.ones(size, dtype=np.bool_)
    for position, agent in enumerate(problem.agents):
        for before in agent.after:
            possible &= (runs[position] == 0) | (runs[index[before]] == 1)
        for use in agent.uses:
            if use.held_if_kept_by is not None:
                needs = each(position, lambda life, use=use: (use.item_id, use.held_if_kept_by) in life.linked)  # type: ignore[misc]
                gives = each(index[use.held_if_kept_by], lambda life, use=use: use.item_id in life.kept)  # type: ignore[misc]
                possible &= (needs == 0) | (gives == 1)
        if agent.reports_to is not None:
            to = index[agent.reports_to]
            handed = each(position, lambda life: life.handed)
            receiver = problem.agents[to]
            prompt[to] = prompt[to] + handed
            tokens[to] = tokens[to] + handed * max(variant.calls for variant in receiver.variants)
            cost[to] = cost[to] + -(-handed * _dearest_held(problem, receiver) // 1000)
    making = zero.copy()
    for form in {form for ways in lives for life in ways for form in life.made}:
        used = sum(each(position, lambda life, form=form: form in life.made) for position in range(len(lives)))  # type: ignore[misc]
        making += np.where(used > 0, form[2], 0)
    names, excess = [], []

    def limit(name: str, used: NDArray[np.int64], amount: int | None) -> None:
        if amount is not None:
            names.append(name)
            excess.append(used - amount)

    spendable = None if problem.max_tokens is None else problem.max_tokens - problem.reserve_tokens
    limit("tokens", sum(tokens, zero), spendable)
    limit("cost", sum(cost, zero) + making, problem.max_cost_nusd)
    memory = sum([each(position, lambda life: life.memory) for position in range(len(lives))], zero)
    limit("memory", memory, problem.max_preload_bytes)
    latency = zero.copy()
    for stage in problem.stages:
        members = [position for position, agent in enumerate(problem.agents) if agent.stage_id == stage.id]
        alone = sum([each(position, lambda life: life.made_alone) for position in members], zero)
        limit(f"tokens of stage {stage.id}", sum([tokens[position] for position in members], zero), stage.max_tokens)
        stage_cost = sum([cost[position] for position in members], zero) + alone
        limit(f"cost of stage {stage.id}", stage_cost, stage.max_cost_nusd)
        tick = _tick(stage)
        ticks = [each(position, lambda life: life.ticks) for position in members]
        latency += sum([amounts * tick for amounts in ticks], zero)
        if stage.max_latency_ms is not None and members:
            worst = np.max([np.where(runs[member], spent, 0) for member, spent in zip(members, ticks, strict=True)], 0)
            limit(f"latency of stage {stage.id}", worst, stage.max_latency_ms // tick)
    for position, agent in enumerate(problem.agents):
        above, upto = each(position, lambda life: life.above), each(position, lambda life: life.upto)
        possible &= (runs[position] == 0) | ((above < prompt[position]) & (prompt[position] <= upto))
        window = each(position, lambda life: life.window)
        limit(f"window of agent {agent.id}", np.where(runs[position], prompt[position] - window, 0), 0)
    return AllPlans(
        limits=names,
        possible=possible,
        excess=np.array(excess, dtype=np.int64).reshape(len(names), size),
        value=sum([each(position, lambda life: life.value) for position in range(len(lives))], zero),
        cost=sum(cost, zero) + making,
        latency_ms=latency,
    )


def _lives(problem: Problem, agent: Agent) -> Iterator[Life]:
    """Yield all ways of running an agent: variant, price tier, forms, way of handing back, work, preload."""
    forms = [list(_forms(problem, agent, use)) for use in agent.uses]
    stage = next(stage for stage in problem.stages if stage.id == agent.stage_id)
    for variant in agent.variants:
        model = next(model for model in problem.models if model.id == variant.model_id)
        curve = _curve(variant)
        for tier, chosen, way, quanta in product(
            range(len(model.tiers) + 1), product(*forms), agent.hand_backs or (None,), range(len(curve))
        ):
            life = _life(problem, agent, variant, model, tier, chosen, way)
            work = 64 * quanta
            prices: TokenPrices = model if tier == 0 else model.tiers[tier - 1]
            life = life._replace(
                value=life.value + curve[quanta],
                tokens=life.tokens + work,
                cost=life.cost + quanta * -(-64 * prices.output // 1000),
                prompt=life.prompt + work,
            )
            yield life
            if agent.preload is not None:
                saved = agent.preload.latency_ms * agent.preload.probability_ppm // 1_000_000 // _tick(stage)
                if saved:
                    yield life._replace(ticks=life.ticks - saved, memory=agent.preload.memory_bytes)


def _life(
    problem: Problem,
    agent: Agent,
    variant: Variant,
    model: Model,
    tier: int,
    chosen: tuple[Form | None, ...],
    way: HandBack | None,
) -> Life:
    prices: TokenPrices = model if tier == 0 else model.tiers[tier - 1]
    once, again = _written_and_read(prices, agent)
    tick = _tick(next(stage for stage in problem.stages if stage.id == agent.stage_id))
    items = {item.id: item for item in problem.items}
    context = sum(items[use.item_id].tokens for use in agent.uses)
    calls, handed = variant.calls, 0 if way is None else way.tokens
    tokens = variant.floor_tokens + variant.contingency_tokens + handed
    cost = -(-variant.floor_tokens * prices.output // 1000) + -(-handed * prices.output // 1000)
    prompt = variant.floor_tokens + handed
    worth = 20_000 * (variant.value_points - (0 if way is None else way.loss_points))
    ticks = -(-variant.latency_ms // tick)
    alone, intact = 0, True
    kept, linked, made = set(), set(), set()
    for position, (use, form) in enumerate(zip(agent.uses, chosen, strict=True)):
        item = items[use.item_id]
        intact = intact and form is None and position < agent.cached_uses
        if form is None:
            kept.add(item.id)
            tokens += item.tokens * calls
            prompt += item.tokens
            written = -(-item.tokens * (once + again * (calls - 1)) // 1000)
            cost += min(written, -(-item.tokens * again * calls // 1000)) if intact else written
            continue
        need = -(-form.need_ppm * use.relevance_ppm // 1_000_000)
        fetch_tokens = context + 60 + item.tokens * calls
        fetch_cost = context * again + 60 * prices.output + item.tokens * (once + again * (calls - 1))
        tokens += form.tokens * calls + -(-need * fetch_tokens // 1_000_000)
        cost += -(-form.tokens * (once + again * (calls - 1)) // 1000) + -(-need * -(-fetch_cost // 1000) // 1_000_000)
        prompt += form.tokens
        worth -= -(-form.loss_points * use.relevance_ppm * 20_000 // 1_000_000)
        ticks += -(-form.latency_ms // tick)
        if _linked(use, form):
            linked.add((use.item_id, str(use.held_if_kept_by)))
        if form.prepare_nusd:
            made.add((use.item_id, form.id, form.prepare_nusd))
            others = [
                other.id
                for other in problem.agents
                for there in other.uses
                if there.item_id == use.item_id and form in list(_forms(problem, other, there))
            ]
            alone += form.prepare_nusd if others == [agent.id] else 0
    ends = [-1, *(price.above_tokens for price in model.tiers), 2**62]
    return Life(
        agent,
        runs=True,
        value=worth,
        tokens=tokens,
        cost=cost,
        made_alone=alone,
        ticks=ticks,
        prompt=prompt,
        above=ends[tier],
        upto=ends[tier + 1],
        window=2**62 if model.context_window is None else model.context_window,
        handed=handed if agent.reports_to is not None else 0,
        kept=frozenset(kept),
        linked=frozenset(linked),
        made=frozenset(made),
    )


def _forms(problem: Problem, agent: Agent, use: ItemUse) -> Iterator[Form | None]:
    """Yield whole (`None`) and the forms that break no rule."""
    item = next(item for item in problem.items if item.id == use.item_id)
    yield None
    for form in item.forms:
        lossless = form.action in {Action.STRUCTURE, Action.DIFF, Action.REFERENCE} and form.loss_points == 0
        held = {"nothing": set(), "base": {Action.DIFF}, "whole": {Action.DIFF, Action.REFERENCE}}[use.held]
        if form.tokens >= item.tokens or (item.pinned and not lossless):
            continue
        if form.action in {Action.MASK, Action.LAZY, Action.SELECT} and not agent.can_expand:
            continue
        if form.action in {Action.DIFF, Action.REFERENCE} - held and use.held_if_kept_by is None:
            continue
        yield form


def _linked(use: ItemUse, form: Form) -> bool:
    return (form.action is Action.DIFF and use.held == "nothing") or (
        form.action is Action.REFERENCE and use.held != "whole"
    )


def _curve(variant: Variant) -> list[int]:
    """Return the value of 0, 1, 2, ... work quanta above the floor, that of the floor included."""
    floor = variant.floor_tokens
    whole = -(-floor // 64) * 64
    base = _worth(variant, 0, whole // 64) * floor // whole if floor else 0
    most = max(0, -(-(variant.demand.tokens[-1] - floor) // 64))
    if variant.max_tokens is not None:
        most = min(most, (variant.max_tokens - floor) // 64)
    return [base + _worth(variant, floor, quanta) for quanta in range(most + 1)]


def _worth(variant: Variant, floor: int, quanta: int) -> int:
    """Return the worth of quanta above a floor; one that straddles a quantile counts to the segment before it."""
    worth, start, before = 0, 0, 0.0
    for probability, tokens in zip(variant.demand.probabilities, variant.demand.tokens, strict=True):
        end = min(quanta, max(0, -(-(tokens - floor) // 64)))
        slope = round(20_000 * (1 - (before + probability) / 2))
        worth += variant.weight * slope * 64 * max(0, end - start)
        start, before = max(start, end), probability
    return worth


def _written_and_read(prices: TokenPrices, agent: Agent) -> tuple[int, int]:
    if agent.cache_lifetime == "none":
        return prices.input, prices.input
    return (prices.cache_write_5m if agent.cache_lifetime == "5m" else prices.cache_write_1h), prices.cache_read


def _dearest_held(problem: Problem, agent: Agent) -> int:
    """Return the price of a token that an agent receives, at its dearest variant and tier."""
    dearest = 0
    for variant in agent.variants:
        model = next(model for model in problem.models if model.id == variant.model_id)
        for prices in (model, *model.tiers):
            once, again = _written_and_read(prices, agent)
            dearest = max(dearest, once + again * (variant.calls - 1))
    return dearest


def _tick(stage: Stage) -> int:
    """Return the length of a tick: these agents get few pieces."""
    return max(1, -(-(stage.max_latency_ms or 0) // 75))
