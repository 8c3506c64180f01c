"""Checking a joint plan without a solver.

Everything is computed again from the problem, in whole numbers, by the definitions at the head of `planner.problem`
and by code that neither the model nor its arrays use. What cannot be checked without solving is the proof of the bound
and the dual prices; that no plan exceeds its bound can be.

    violations = validate_plan(problem, plan)    # () where the plan is valid
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from math import isclose
from typing import TYPE_CHECKING, NamedTuple

from apportion.planner.budgets.problem import PROBABILITY_SCALE, QUANTUM_TOKENS
from apportion.planner.plan import OPTIMAL_GAP
from apportion.planner.problem import FETCH_OUTPUT_TOKENS, MILLION, UNITS_PER_POINT, tick_ms
from apportion.records import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.planner.plan import AgentPlan, PieceChoice, Plan
    from apportion.planner.problem import (
        Agent,
        Form,
        HandBack,
        Item,
        ItemUse,
        Model,
        Problem,
        Stage,
        TokenPrices,
        Variant,
    )
    from apportion.records import Demand

_HANDLES = frozenset({Action.MASK, Action.LAZY, Action.SELECT})
_VISIBLE = frozenset({Action.STRUCTURE, Action.DIFF, Action.REFERENCE})
_HELD_FOR = {Action.DIFF: ("base", "whole"), Action.REFERENCE: ("whole",)}


def validate_plan(problem: Problem, plan: Plan) -> tuple[str, ...]:
    """Return what is wrong with a plan, in words; nothing means that it is valid.

    Args:
        problem: What was to be planned.
        plan: Any plan, whoever made it.
    """
    wrong = [*_wrong_fingerprint(problem, plan), *_wrong_agents(problem, plan)]
    if wrong:
        return tuple(wrong)
    pairs = list(zip(problem.agents, plan.agents, strict=True))
    decided = [_run(problem, agent, planned, wrong) for agent, planned in pairs]
    if wrong:
        return tuple(wrong)
    runs = [run for run in decided if run is not None]
    index = _Index(problem, plan, runs)
    for run in runs:
        wrong += _broken_rules(index, run)
        wrong += _wrong_figures(index, run)
    return (
        *_broken_precedence(index, pairs),
        *wrong,
        *_broken_caps(index, pairs),
        *_broken_memory(problem, pairs),
        *_wrong_totals(index, plan, runs),
        *_wrong_certificate(plan),
        *_wrong_prices(problem, plan),
    )


class _Piece(NamedTuple):
    """A piece of a prompt: what it is to the agent, its form (`None` is whole), and what the plan says of it."""

    use: ItemUse
    item: Item
    form: Form | None
    planned: PieceChoice


class _Run(NamedTuple):
    """An agent that runs, its plan, and the records that the plan chose."""

    agent: Agent
    planned: AgentPlan
    variant: Variant
    model: Model
    prices: TokenPrices
    pieces: list[_Piece]
    way: HandBack | None


class _Index:
    """What is looked up again and again, by name.

    Attributes:
        problem: The problem.
        stages, agents: Its records.
        planned: The plan of each agent.
        results: Tokens of the results that an agent gets from others.
        prepared: The chosen forms that several agents can get, and what preparing them once costs.
    """

    def __init__(self, problem: Problem, plan: Plan, runs: list[_Run]) -> None:
        self.problem = problem
        self.stages: dict[str, Stage] = {stage.id: stage for stage in problem.stages}
        self.agents: dict[str, Agent] = {agent.id: agent for agent in problem.agents}
        self.planned: dict[str, AgentPlan] = {planned.agent_id: planned for planned in plan.agents}
        self.results: dict[str, int] = {}
        for run in runs:
            to = run.agent.reports_to
            if run.way is not None and to is not None:
                self.results[to] = self.results.get(to, 0) + run.way.tokens
        self.prepared = _prepared(problem, runs)


def _prepared(problem: Problem, runs: list[_Run]) -> dict[tuple[str, str], int]:
    """Return the chosen forms, with their items, that several agents can get, and what preparing each costs."""
    chosen = {
        (piece.item.id, piece.planned.form): piece
        for run in runs
        for piece in run.pieces
        if piece.form is not None and piece.form.prepare_nusd
    }
    if not chosen:
        return {}
    takers: dict[str, list[tuple[Agent, ItemUse]]] = {}
    for agent in problem.agents:
        for use in agent.uses:
            takers.setdefault(use.item_id, []).append((agent, use))
    prepared = {}
    for key, (_, item, form, _) in chosen.items():
        able = 0
        for agent, use in takers[item.id]:
            able += form is not None and _broken_by_form(item, agent, use, form) is None
            if able > 1 and form is not None:
                prepared[key] = form.prepare_nusd
                break
    return prepared


# Is it a plan for this problem, and does it decide everything once?


def _wrong_fingerprint(problem: Problem, plan: Plan) -> Iterator[str]:
    """The plan was made for this problem."""
    if plan.fingerprint != problem.fingerprint:
        yield "the plan was made for another problem: the fingerprints differ"


def _wrong_agents(problem: Problem, plan: Plan) -> Iterator[str]:
    """Every agent is planned exactly once, in the order of the problem, in its own stage."""
    wanted = [agent.id for agent in problem.agents]
    found = [planned.agent_id for planned in plan.agents]
    if wanted != found:
        counts = Counter(found)
        yield from (f"agent {name!r} is not planned" for name in wanted if name not in counts)
        yield from (f"agent {name!r} is not in the problem" for name in counts if name not in set(wanted))
        yield from (f"agent {name!r} is planned {count} times" for name, count in counts.items() if count > 1)
        if sorted(wanted) == sorted(found):
            yield "the agents are not in the order of the problem"
        return
    for agent, planned in zip(problem.agents, plan.agents, strict=True):
        if agent.stage_id != planned.stage_id:
            yield f"agent {agent.id!r} runs in stage {agent.stage_id!r}, not in {planned.stage_id!r}"


def _run(problem: Problem, agent: Agent, planned: AgentPlan, wrong: list[str]) -> _Run | None:
    """Return the records behind the plan of an agent, or `None` where it is deferred.

    An agent is deferred and uses nothing, or everything about it is decided by a name that exists; else it is `wrong`.
    """
    who = f"agent {agent.id!r}"
    if planned.variant_id is None:
        wrong += [f"{who} is mandatory, but deferred"] if agent.mandatory else []
        wrong += [f"{who} is deferred, but uses something"] if _uses_something(planned) else []
        return None
    variant = next((each for each in agent.variants if each.id == planned.variant_id), None)
    if variant is None:
        wrong.append(f"{who} has no variant {planned.variant_id!r}")
        return None
    model = problem.model_of[variant.model_id]
    if not 0 <= planned.price_tier <= len(model.tiers):
        wrong.append(f"{who} is at price tier {planned.price_tier}, which model {model.id!r} does not have")
        return None
    way = next((each for each in agent.hand_backs if each.id == planned.hand_back), None)
    if way is None and (planned.hand_back is not None or agent.hand_backs):
        wrong.append(f"{who} cannot hand its result back as {planned.hand_back!r}")
    if planned.preload and agent.preload is None:
        wrong.append(f"{who} has nothing to load in advance")
    prices = model.tiers[planned.price_tier - 1] if planned.price_tier else model
    return _Run(agent, planned, variant, model, prices, _pieces(problem, agent, planned, wrong), way)


def _pieces(problem: Problem, agent: Agent, planned: AgentPlan, wrong: list[str]) -> list[_Piece]:
    """Every piece of the prompt is decided once, in its order, by a form that exists."""
    wanted, found = [use.item_id for use in agent.uses], [piece.item_id for piece in planned.pieces]
    if wanted != found:
        wrong.append(f"agent {agent.id!r} gets the pieces {wanted} in this order, not {found}")
        return []
    pieces = []
    for use, piece in zip(agent.uses, planned.pieces, strict=True):
        item = problem.item_of[use.item_id]
        form: Form | None = None
        if piece.form != "keep":
            action, _, name = piece.form.partition(":")
            for form in item.forms:
                if form.action == action and form.name == name and form.id == piece.form:
                    break
            else:
                wrong.append(f"agent {agent.id!r}: item {item.id!r} has no form {piece.form!r}")
        pieces.append(_Piece(use, item, form, piece))
    return pieces


def _uses_something(planned: AgentPlan) -> bool:
    numbers = (
        planned.price_tier,
        planned.work_tokens,
        planned.sample_size,
        planned.intact_pieces,
        planned.prompt_tokens,
        planned.tokens,
        planned.given_tokens,
        planned.cost_nusd,
        planned.given_cost_nusd,
        planned.latency_ms,
    )
    decided = planned.cut_off_probability is not None or planned.hand_back is not None
    return any(numbers) or decided or planned.preload or bool(planned.pieces)


# Are the rules of the problem kept?


def _broken_precedence(index: _Index, pairs: list[tuple[Agent, AgentPlan]]) -> Iterator[str]:
    """An agent runs only if every agent whose result it needs runs."""
    for agent, planned in pairs:
        if planned.variant_id is None:
            continue
        for before in agent.after:
            if index.planned[before].variant_id is None:
                yield f"agent {agent.id!r} runs, but needs the result of {before!r}, which is deferred"


def _broken_rules(index: _Index, run: _Run) -> Iterator[str]:
    """The rules that concern one running agent."""
    for use, item, form, _ in run.pieces:
        if form is not None:
            reason = _broken_by_form(item, run.agent, use, form) or _broken_by_link(index, use, form)
            if reason is not None:
                yield f"agent {run.agent.id!r} must not get item {item.id!r} as {form.id}: {reason}"
    yield from _wrong_work_tokens(run)
    yield from _broken_window(index, run)
    limit = index.stages[run.agent.stage_id].max_latency_ms
    if limit is not None and run.planned.latency_ms > limit:
        yield f"agent {run.agent.id!r} takes {run.planned.latency_ms:,} ms, more than the {limit:,} ms of its stage"


def _broken_by_form(item: Item, agent: Agent, use: ItemUse, form: Form) -> str | None:
    """Say why an agent can never get a piece in a form, or return `None`."""
    if form.tokens >= item.tokens:
        return "it is not shorter"
    if item.pinned and (form.action not in _VISIBLE or form.loss_points > 0):
        return "the item is pinned"
    if form.action in _HANDLES and not agent.can_expand:
        return "it cannot expand handles"
    held = _HELD_FOR.get(form.action)
    if held is not None and use.held not in held and use.held_if_kept_by is None:
        return "it holds no base" if form.action is Action.DIFF else "it holds no copy"
    return None


def _broken_by_link(index: _Index, use: ItemUse, form: Form) -> str | None:
    """A diff or reference to what another run holds needs that run to get the piece whole."""
    held = _HELD_FOR.get(form.action)
    if held is None or use.held in held or use.held_if_kept_by is None:
        return None
    for piece in index.planned[use.held_if_kept_by].pieces:  # none where it is deferred
        if piece.item_id == use.item_id and piece.form == "keep":
            return None
    return f"agent {use.held_if_kept_by!r} does not get it whole"


def _wrong_work_tokens(run: _Run) -> Iterator[str]:
    """Work tokens are the floor and whole quanta, within the cap, and no more than the last quantile needs."""
    variant, tokens = run.variant, run.planned.work_tokens
    gets = f"agent {run.agent.id!r} gets {tokens:,} work tokens"
    if tokens < variant.floor_tokens:
        yield f"{gets}, less than its floor of {variant.floor_tokens:,}"
    elif (tokens - variant.floor_tokens) % QUANTUM_TOKENS:
        yield f"{gets}, not whole quanta above its floor"
    elif variant.max_tokens is not None and tokens > variant.max_tokens:
        yield f"{gets}, more than its cap of {variant.max_tokens:,}"
    elif tokens > variant.floor_tokens and tokens >= variant.demand.tokens[-1] + QUANTUM_TOKENS:
        yield f"{gets}, more than it can need"


def _broken_window(index: _Index, run: _Run) -> Iterator[str]:
    """Prompt, work, own result and results of others fit the window, and the price tier."""
    used = _prompt_tokens(run) + run.planned.work_tokens + index.results.get(run.agent.id, 0)
    used += 0 if run.way is None else run.way.tokens
    model = run.model
    if model.context_window is not None and used > model.context_window:
        yield (
            f"agent {run.agent.id!r} needs a context of {used:,} tokens, more than the window of {model.id!r}, "
            f"{model.context_window:,}"
        )
    tier = run.planned.price_tier
    if tier < len(model.tiers) and used > model.tiers[tier].above_tokens:
        yield f"agent {run.agent.id!r} needs a context of {used:,} tokens, too many for price tier {tier}"


def _broken_caps(index: _Index, pairs: list[tuple[Agent, AgentPlan]]) -> Iterator[str]:
    """The agents of a stage, and all together, stay within their limits of tokens and money.

    What the plan says of each agent is added up; that it says the truth is another rule.
    """
    tokens, cost = dict.fromkeys(index.stages, 0), dict.fromkeys(index.stages, 0)
    for agent, planned in pairs:
        tokens[agent.stage_id] += planned.tokens
        cost[agent.stage_id] += planned.cost_nusd
        if agent.reports_to is not None:
            there = index.agents[agent.reports_to].stage_id
            tokens[there] += planned.given_tokens
            cost[there] += planned.given_cost_nusd
    for stage in index.problem.stages:
        if stage.max_tokens is not None and tokens[stage.id] > stage.max_tokens:
            yield f"stage {stage.id!r} uses {tokens[stage.id]:,} tokens, more than its cap of {stage.max_tokens:,}"
        if stage.max_cost_nusd is not None and cost[stage.id] > stage.max_cost_nusd:
            yield f"stage {stage.id!r} costs {_usd(cost[stage.id])}, more than its cap of {_usd(stage.max_cost_nusd)}"
    problem, used = index.problem, sum(tokens.values())
    if problem.max_tokens is not None and used + problem.reserve_tokens > problem.max_tokens:
        yield (
            f"the workflow uses {used:,} tokens and keeps {problem.reserve_tokens:,} in reserve, more than its limit "
            f"of {problem.max_tokens:,}"
        )


def _broken_memory(problem: Problem, pairs: list[tuple[Agent, AgentPlan]]) -> Iterator[str]:
    """What is loaded in advance fits the memory for it."""
    used = sum(agent.preload.memory_bytes for agent, planned in pairs if planned.preload and agent.preload is not None)
    if used > problem.max_preload_bytes:
        yield f"{used:,} bytes are loaded in advance, more than the limit of {problem.max_preload_bytes:,}"


# Are the figures true?


def _wrong_figures(index: _Index, run: _Run) -> Iterator[str]:
    """What the plan says of an agent is what its choices amount to."""
    planned = run.planned
    who = f"agent {run.agent.id!r}"
    for _, item, form, piece in run.pieces:
        size = item.tokens if form is None else form.tokens
        if piece.tokens != size:
            yield f"{who}: item {item.id!r} as {piece.form} has {size:,} tokens, not {piece.tokens:,}"
    expected = _cut_off(run.variant.demand, max(0, planned.work_tokens))
    if planned.cut_off_probability is None or not abs(planned.cut_off_probability - expected) <= 2e-9:
        yield f"{who} is cut off with probability {expected:.9f}, not {planned.cut_off_probability}"
    given_tokens, given_cost = _given(index, run)
    intact = _intact_pieces(run)
    tokens, cost = _tokens_and_cost(index, run, intact)
    for name, stated, true in (
        ("observations behind its demand", planned.sample_size, run.variant.demand.sample_size),
        ("intact pieces", planned.intact_pieces, intact),
        ("prompt tokens", planned.prompt_tokens, _prompt_tokens(run)),
        ("tokens", planned.tokens, tokens),
        ("tokens of its result elsewhere", planned.given_tokens, given_tokens),
        ("nano-dollars of cost", planned.cost_nusd, cost),
        ("nano-dollars of cost of its result elsewhere", planned.given_cost_nusd, given_cost),
        ("ms of latency", planned.latency_ms, _latency(index, run)),
    ):
        if stated != true:
            yield f"{who} has {true:,} {name}, not {stated:,}"


def _prompt_tokens(run: _Run) -> int:
    """Return the size of the prompt, as the plan states it piece by piece."""
    return sum([piece.tokens for piece in run.planned.pieces])


def _intact_pieces(run: _Run) -> int:
    """Return how many of the cached leading pieces are kept whole."""
    intact = 0
    for piece in run.pieces[: run.agent.cached_uses]:
        if piece.form is not None:
            break
        intact += 1
    return intact


def _tokens_and_cost(index: _Index, run: _Run, intact: int) -> tuple[int, int]:
    """Return what an agent is expected to send and write, and what that costs."""
    variant, agent, output = run.variant, run.agent, run.prices.output
    written, read = _call_prices(run.prices, agent)
    calls = variant.calls
    held = written + read * (calls - 1)
    context = sum([piece.item.tokens for piece in run.pieces])
    quanta = (run.planned.work_tokens - variant.floor_tokens) // QUANTUM_TOKENS
    tokens = run.planned.work_tokens + variant.contingency_tokens
    cost = _up(variant.floor_tokens * output, 1000) + quanta * _up(QUANTUM_TOKENS * output, 1000)
    if run.way is not None:
        tokens += run.way.tokens
        cost += _up(run.way.tokens * output, 1000)
    for position, (use, item, form, piece) in enumerate(run.pieces):
        whole = item.tokens
        if form is None:
            tokens += whole * calls
            paid = _up(whole * held, 1000)
            cost += min(paid, _up(whole * read * calls, 1000)) if position < intact else paid
            continue
        tokens += form.tokens * calls
        cost += _up(form.tokens * held, 1000)
        if form.need_ppm:
            need = _up(form.need_ppm * use.relevance_ppm, MILLION)
            tokens += _up((context + FETCH_OUTPUT_TOKENS + whole * calls) * need, MILLION)
            cost += _up(_up(context * read + FETCH_OUTPUT_TOKENS * output + whole * held, 1000) * need, MILLION)
        if form.prepare_nusd and (item.id, piece.form) not in index.prepared:
            cost += form.prepare_nusd
    return tokens, cost


def _given(index: _Index, run: _Run) -> tuple[int, int]:
    """Return the tokens and the cost of a result at the agent that gets it, at its dearest."""
    if run.way is None or run.agent.reports_to is None:
        return 0, 0
    receiver = index.agents[run.agent.reports_to]
    calls = max(variant.calls for variant in receiver.variants)
    dearest = 0
    for variant in receiver.variants:
        model = index.problem.model_of[variant.model_id]
        for prices in (model, *model.tiers):
            written, read = _call_prices(prices, receiver)
            dearest = max(dearest, written + read * (variant.calls - 1))
    return run.way.tokens * calls, _up(run.way.tokens * dearest, 1000)


def _call_prices(prices: TokenPrices, agent: Agent) -> tuple[int, int]:
    """Return what a prompt token costs in the first call, and in each that follows."""
    if agent.cache_lifetime == "none":
        return prices.input, prices.input
    return (prices.cache_write_5m if agent.cache_lifetime == "5m" else prices.cache_write_1h), prices.cache_read


def _latency(index: _Index, run: _Run) -> int:
    """Return the time on the way to the first answer, in whole ticks that are counted in ms."""
    tick = tick_ms(index.stages[run.agent.stage_id].max_latency_ms, len(run.agent.uses))
    ticks = _up(run.variant.latency_ms, tick)
    for piece in run.pieces:
        if piece.form is not None and piece.form.latency_ms:
            ticks += _up(piece.form.latency_ms, tick)
    if run.planned.preload and run.agent.preload is not None:
        ticks -= run.agent.preload.latency_ms * run.agent.preload.probability_ppm // MILLION // tick
    return max(0, ticks) * tick


def _cut_off(demand: Demand, tokens: int) -> float:
    """Return the probability of needing more than `tokens`, with F linear between its quantiles."""
    corners = [(0, 0.0), *zip(demand.tokens, demand.probabilities, strict=True)]
    below = [corner for corner in corners if corner[0] <= tokens]
    left, reached = below[-1]
    if len(below) == len(corners):
        return 1.0 - reached
    right, following = corners[len(below)]
    return 1.0 - reached - (following - reached) * (tokens - left) / (right - left)


def _wrong_totals(index: _Index, plan: Plan, runs: list[_Run]) -> Iterator[str]:
    """Prepared forms, tokens, cost and objective of the workflow are those of its agents."""
    prepared = sorted(f"{item}:{form}" for item, form in index.prepared)
    if sorted(plan.prepared) != prepared:
        yield f"the forms to be prepared once are {prepared}, not {sorted(plan.prepared)}"
    tokens = sum([planned.tokens + planned.given_tokens for planned in plan.agents])
    cost = sum([planned.cost_nusd + planned.given_cost_nusd for planned in plan.agents]) + sum(index.prepared.values())
    value = sum([_value(run) for run in runs])
    if tokens != plan.tokens:
        yield f"the workflow uses {tokens:,} tokens, not {plan.tokens:,}"
    if cost != plan.cost_nusd:
        yield f"the workflow costs {_usd(cost)}, not {_usd(plan.cost_nusd)}"
    limit = index.problem.max_cost_nusd
    if limit is not None and cost > limit:
        yield f"the workflow costs {_usd(cost)}, more than its limit of {_usd(limit)}"
    if value != plan.objective:
        yield f"the plan is worth {value:,}, not {plan.objective:,}"


def _value(run: _Run) -> int:
    """Return what running an agent so is worth, in value units."""
    variant = run.variant
    value = variant.value_points * UNITS_PER_POINT
    quanta = (run.planned.work_tokens - variant.floor_tokens) // QUANTUM_TOKENS
    value += _worth_of_quanta(variant, variant.floor_tokens, quanta)
    if variant.floor_tokens:
        whole = _up(variant.floor_tokens, QUANTUM_TOKENS)
        value += _worth_of_quanta(variant, 0, whole) * variant.floor_tokens // (whole * QUANTUM_TOKENS)
    for use, _, form, _ in run.pieces:
        if form is not None and form.loss_points:
            value -= _up(form.loss_points * use.relevance_ppm * UNITS_PER_POINT, MILLION)
    return value - (0 if run.way is None else run.way.loss_points * UNITS_PER_POINT)


def _worth_of_quanta(variant: Variant, start: int, quanta: int) -> int:
    """Return the value of whole quanta from `start` on; each counts to the quantile that it reaches first."""
    demand = variant.demand
    levels = (0, *[round(probability * PROBABILITY_SCALE) for probability in demand.probabilities])
    ends = (0, *[min(quanta, max(0, _up(tokens - start, QUANTUM_TOKENS))) for tokens in demand.tokens])
    worth = 0
    for (low, high), (left, right) in zip(pairwise(levels), pairwise(ends), strict=True):
        worth += (2 * PROBABILITY_SCALE - low - high) * (right - left)
    return worth * variant.weight * QUANTUM_TOKENS


# Is the certificate consistent?


def _wrong_certificate(plan: Plan) -> Iterator[str]:
    """The objective stays below the bound, gap and status say how far, and the bill above its own bound."""
    if plan.objective > plan.bound:
        yield f"the objective {plan.objective:,} exceeds the bound {plan.bound:,}"
    else:
        gap = (plan.bound - plan.objective) / max(1, abs(plan.bound))
        if not isclose(gap, plan.gap, rel_tol=1e-12):
            yield f"the gap is {gap:.9%}, not {plan.gap:.9%}"
        if (plan.status == "OPTIMAL") != (gap <= OPTIMAL_GAP):
            yield f"a plan with a gap of {gap:.6%} is not {plan.status}"
    if plan.cost_bound_nusd is not None and plan.least_value is None:
        yield "a bound on the bill needs the value that it holds for"
    elif plan.cost_bound_nusd is not None and plan.cost_bound_nusd > plan.cost_nusd:
        yield f"the plan costs {_usd(plan.cost_nusd)}, less than the proven {_usd(plan.cost_bound_nusd)}"
    if plan.least_value is not None and plan.objective < plan.least_value:
        yield f"the objective {plan.objective:,} is below the value that had to be kept, {plan.least_value:,}"


def _wrong_prices(problem: Problem, plan: Plan) -> Iterator[str]:
    """Prices belong to limits that exist, each to one."""
    if not plan.prices:
        return
    known = {"memory"}
    scopes = [("", problem.max_tokens, problem.max_cost_nusd)]
    scopes += [(f" of stage {stage.id}", stage.max_tokens, stage.max_cost_nusd) for stage in problem.stages]
    for scope, tokens, cost in scopes:
        known |= set() if tokens is None else {f"tokens{scope}"}
        known |= set() if cost is None else {f"cost{scope}"}
    known |= {f"window of agent {agent.id}" for agent in problem.agents if _has_window(problem, agent)}
    seen: set[str] = set()
    for price in plan.prices:
        if price.limit not in known:
            yield f"the price of {price.limit!r} belongs to no limit"
        elif price.limit in seen:
            yield f"{price.limit!r} has two prices"
        seen.add(price.limit)


def _has_window(problem: Problem, agent: Agent) -> bool:
    models = [problem.model_of[variant.model_id] for variant in agent.variants]
    return any(model.context_window is not None or model.tiers for model in models)


def _up(amount: int, divisor: int) -> int:
    return -(-amount // divisor)


def _usd(nusd: int) -> str:
    return f"${nusd / 1e9:,.6f}"
