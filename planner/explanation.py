"""Why a joint plan is as it is: the limits that bind, each agent, each piece, and what was given up for what.

What else could have been done is compared at the plan's dual prices. The *reduced value* of a form is

    value - sum over binding limits of price * consumption

and the loss of the runner-up is the difference to what was chosen: one look-up per form, no solver. It is exact for one
small change. Where it is negative, the runner-up would be better by itself, but whole pieces did not add up so.
"""

from __future__ import annotations

from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Literal, NamedTuple

from apportion.planner.budgets.problem import QUANTUM_TOKENS
from apportion.planner.compiled import KEEP, NO_LIMIT, Compiled, compile_problem
from apportion.planner.problem import MILLION, UNITS_PER_POINT
from apportion.records import Record, Share, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.errors import InfeasiblePlanError
    from apportion.planner.plan import AgentPlan, LimitPrice, Plan
    from apportion.planner.problem import Agent, Problem

Decision = Literal["full", "simplified", "deferred"]
"""How an agent runs: in its first variant, in another one, or not now."""


class LimitReason(Record):
    """A limit that binds.

    Attributes:
        limit: Its name, as in `LimitPrice`.
        points_per_1k_tokens: Points that 1,000 more tokens would gain, where the limit is in tokens.
        points_per_cent: Points that one more US cent would gain, where it is in money.
        text: The same in words.
    """

    limit: str
    points_per_1k_tokens: float | None
    points_per_cent: float | None
    text: str


class PieceReason(Record):
    """Why a piece is sent as it is.

    Attributes:
        item_id: The piece.
        form: What was chosen.
        runner_up: The best other form that breaks no rule, or `None` where there is none.
        loss_points: What choosing it instead would lose at the plan's prices.
        more_tokens: Tokens that it would take beyond the chosen form, over all calls.
        more_nusd: The same for cost.
        text: The comparison in words.
    """

    item_id: str
    form: str
    runner_up: str | None = None
    loss_points: float | None = None
    more_tokens: int = 0
    more_nusd: int = 0
    text: str


class AgentReason(Record):
    """Why an agent runs as it does.

    Attributes:
        agent_id: The agent run.
        decision: Whether it runs in full, simplified, or not now.
        variant_id: The variant that runs.
        work_tokens: Work tokens that it may use.
        confidence: Probability that these suffice, by its forecast.
        sample_size: Observations behind the forecast; 0 means a prior.
        pieces: The same for each piece of its prompt.
        text: A justification in one sentence.
    """

    agent_id: str
    decision: Decision
    variant_id: str | None
    work_tokens: Tokens
    confidence: Share | None
    sample_size: int
    pieces: tuple[PieceReason, ...]
    text: str


class PolicyDecision(Record):
    """Something that a policy allowed and the plan did.

    Savings and losses are counted against the best run of the agent, in its first variant, at the plan's prices.

    Attributes:
        policy: `"defer"` or `"simplify"`.
        agent_id: The agent run.
        reason: Why.
        saved_tokens: Tokens that this leaves for others.
        saved_nusd: The same for cost; negative where it costs more.
        lost_points: Points that it gives up.
        text: All of it in words.
    """

    policy: Literal["defer", "simplify"]
    agent_id: str
    reason: str
    saved_tokens: int
    saved_nusd: int
    lost_points: float
    text: str


class Explanation(Record):
    """A plan in words: as a whole, per binding limit, per policy decision, per agent and piece."""

    summary: str
    limits: tuple[LimitReason, ...]
    policies: tuple[PolicyDecision, ...]
    agents: tuple[AgentReason, ...]
    degraded: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.summary, *[f"Degraded: {reason}." for reason in self.degraded]]
        lines += [*[limit.text for limit in self.limits], *[decision.text for decision in self.policies]]
        for agent in self.agents:
            lines += [agent.text, *[f"  {piece.text}" for piece in agent.pieces]]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the explanation for a notebook."""
        lines = [self.summary, *[f"Degraded: {reason}." for reason in self.degraded]]
        lines += [*[limit.text for limit in self.limits], *[decision.text for decision in self.policies]]
        rows = [_row(agent) for agent in self.agents]
        head = _cells("th", ("agent", "decision", "work tokens", "confidence", "why"))
        return "".join([*[f"<p>{escape(line)}</p>" for line in lines], f"<table>{head}{''.join(rows)}</table>"])


def _row(agent: AgentReason) -> str:
    confidence = "" if agent.confidence is None else f"{agent.confidence:.0%}"
    row = _cells("td", (agent.agent_id, agent.decision, f"{agent.work_tokens:,}", confidence, agent.text))
    pieces = "".join(f"<li>{escape(piece.text)}</li>" for piece in agent.pieces)
    return f'{row}<tr><td></td><td colspan="4"><ul>{pieces}</ul></td></tr>' if pieces else row


def _cells(tag: str, texts: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(text)}</{tag}>' for text in texts)}</tr>"


class Shortfall(Record):
    """What no plan can do without: why none exists.

    Attributes:
        conflict: Limits and agents that cannot be satisfied together; leaving out any one of them would do.
        missing: How much is missing at least, per limit.
        text: The same in words, with what can be done.
    """

    conflict: tuple[str, ...]
    missing: dict[str, int]
    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        """Return the explanation for a notebook."""
        return "".join(f"<p>{escape(line)}</p>" for line in self.text.splitlines())


def explain(problem: Problem, plan: Plan) -> Explanation:
    """Return why a plan is as it is.

    Args:
        problem: What was to be planned.
        plan: A valid plan for it.
    """
    view = _View(problem, plan)
    pairs = list(zip(problem.agents, plan.agents, strict=True))
    return Explanation(
        summary=_summary(problem, plan),
        limits=tuple(_limit_reason(price) for price in plan.prices),
        policies=tuple(_policy_decisions(view)),
        agents=tuple(_agent_reason(view, number, *pair) for number, pair in enumerate(pairs)),
        degraded=plan.degraded,
    )


def explain_infeasible(error: InfeasiblePlanError) -> Shortfall:
    """Return why no plan exists, from the error that says so."""
    conflict: tuple[str, ...] = tuple(getattr(error, "conflict", ()))
    missing: dict[str, int] = dict(getattr(error, "missing", {}))
    if error.missing_tokens is not None:
        missing.setdefault("tokens", error.missing_tokens)
    lines = [f"No plan: {error.message}."]
    if conflict:
        lines.append(f"These cannot all be kept, while any one fewer could: {', '.join(conflict)}.")
    lines += [f"Missing at least: {_amount(limit, amount)} ({limit})." for limit, amount in missing.items()]
    if error.hint:
        lines.append(f"{error.hint}.")
    return Shortfall(conflict=conflict, missing=missing, text="\n".join(lines))


def _amount(limit: str, amount: int) -> str:
    if limit.startswith("cost"):
        return _usd(amount)
    unit = "bytes" if limit == "memory" else "ms" if limit.startswith("latency") else "tokens"
    return f"{amount:,} {unit}"


class _Run(NamedTuple):
    """What running an agent in some way is worth and takes."""

    value: int
    tokens: int
    cost: int
    reduced: float


class _View:
    """A plan seen through the arrays of its problem, at the plan's prices."""

    def __init__(self, problem: Problem, plan: Plan) -> None:
        self.problem = problem
        self.plan = plan
        self.compiled: Compiled = compile_problem(problem)
        self.price = {price.limit: price.units for price in plan.prices}
        self.number = {agent.id: number for number, agent in enumerate(problem.agents)}

    @cached_property
    def made_for(self) -> dict[tuple[str, str], int]:
        """How many agents get a form of a piece."""
        made: dict[tuple[str, str], int] = {}
        for agent in self.plan.agents:
            for piece in agent.pieces:
                made[piece.item_id, piece.form] = made.get((piece.item_id, piece.form), 0) + 1
        return made

    @cached_property
    def preparing(self) -> dict[tuple[str, str], int]:
        """What each form that several agents can get costs to make."""
        return {(form.item, form.form): form.prepare_nusd for form in self.compiled.shared}

    @cached_property
    def held_whole(self) -> set[tuple[str, str]]:
        """Agents and pieces that must be sent whole, because a diff or a reference elsewhere needs that."""
        needed = set()
        for agent, planned in zip(self.problem.agents, self.plan.agents, strict=True):
            for use, piece in zip(agent.uses, planned.pieces, strict=False):
                if use.held_if_kept_by is None or piece.form == "keep":
                    continue
                form = next(form for form in self.problem.item_of[use.item_id].forms if form.id == piece.form)
                if self.problem.needs_link(use, form):
                    needed.add((use.held_if_kept_by, use.item_id))
        return needed

    def token_price(self, agent: Agent) -> float:
        """Return what a token of an agent takes from others."""
        return self.price.get("tokens", 0.0) + self.price.get(f"tokens of stage {agent.stage_id}", 0.0)

    def cost_price(self, agent: Agent) -> float:
        """Return what a nano-dollar of an agent takes from others."""
        return self.price.get("cost", 0.0) + self.price.get(f"cost of stage {agent.stage_id}", 0.0)

    def window_price(self, agent: Agent) -> float:
        """Return what a token in an agent's prompt takes from the rest of its window."""
        return self.price.get(f"window of agent {agent.id}", 0.0)

    def mode(self, number: int, planned: AgentPlan) -> int:
        """Return the mode in which an agent runs."""
        variants = [variant.id for variant in self.problem.agents[number].variants]
        for mode in self.compiled.modes_of(number):
            found = self.compiled.modes[mode]
            if variants[found.variant] == planned.variant_id and found.tier == planned.price_tier:
                return mode
        raise KeyError(planned.variant_id)  # pragma: no cover  (a valid plan names a mode)

    def allowed(self, number: int, slot: int, option: int) -> bool:
        """Say whether a form is possible with what the other agents get."""
        agent = self.problem.agents[number]
        form, use = self.compiled.options[number][slot][option], agent.uses[slot]
        if form is None:
            return True
        if (agent.id, use.item_id) in self.held_whole:
            return False
        if use.held_if_kept_by is None or not self.problem.needs_link(use, form):  # type: ignore[arg-type]
            return True
        holder = self.plan.agents[self.number[use.held_if_kept_by]]
        return any(piece.item_id == use.item_id and piece.form == "keep" for piece in holder.pieces)

    def reduced(self, number: int, mode: int, slot: int, option: int) -> float:
        """Return the value of a form less what it takes, at the plan's prices, cached prefix apart."""
        agent, arrays = self.problem.agents[number], self.compiled
        taken = self.token_price(agent) * float(arrays.tokens[mode, slot, option])
        taken += self.cost_price(agent) * float(arrays.cost[mode, slot, option])
        taken += self.window_price(agent) * float(arrays.window[mode, slot, option])
        if slot == arrays.hand_back_slot and agent.reports_to is not None:
            receiver = self.problem.agents[self.number[agent.reports_to]]
            taken += self.token_price(receiver) * float(arrays.given_tokens[mode, option])
            taken += self.cost_price(receiver) * float(arrays.given_cost[mode, option])
            taken += self.window_price(receiver) * float(arrays.given_window[mode, option])
        return float(arrays.value[mode, slot, option]) - taken

    def best_run(self, number: int) -> _Run:
        """Return the best run of an agent in its first variant, at the plan's prices and the base price tier."""
        arrays, agent = self.compiled, self.problem.agents[number]
        mode = arrays.modes_of(number)[0]
        value, tokens, cost = (
            int(column[mode]) for column in (arrays.base_value, arrays.base_tokens, arrays.base_cost)
        )
        slots = [*range(len(agent.uses)), arrays.hand_back_slot]
        for slot in slots:
            options = [
                option
                for option in range(len(arrays.options[number][min(slot, len(agent.uses))]))
                if slot == arrays.hand_back_slot or self.allowed(number, slot, option)
            ]
            best = max(options, key=lambda option: self.reduced(number, mode, slot, option))
            value += int(arrays.value[mode, slot, best])
            tokens += int(arrays.tokens[mode, slot, best])
            cost += int(arrays.cost[mode, slot, best])
            if slot == arrays.hand_back_slot:
                tokens += int(arrays.given_tokens[mode, best])
                cost += int(arrays.given_cost[mode, best])
        for slope, quanta in zip(arrays.slopes[mode].tolist(), arrays.quanta[mode].tolist(), strict=True):
            if quanta and slope > self.quantum_price(agent, mode):
                value += slope * quanta
                tokens += QUANTUM_TOKENS * quanta
                cost += int(arrays.quantum_cost[mode]) * quanta
        taken = self.token_price(agent) * tokens + self.cost_price(agent) * cost
        return _Run(value, tokens, cost, value - taken)

    def quantum_price(self, agent: Agent, mode: int) -> float:
        """Return what a quantum of work tokens takes from others."""
        price = QUANTUM_TOKENS * (self.token_price(agent) + self.window_price(agent))
        return price + self.cost_price(agent) * float(self.compiled.quantum_cost[mode])

    def own_value(self, number: int) -> int:
        """Return what an agent is worth as planned."""
        planned, arrays = self.plan.agents[number], self.compiled
        if planned.variant_id is None:
            return 0
        mode, agent = self.mode(number, planned), self.problem.agents[number]
        value = int(arrays.base_value[mode])
        for slot in range(len(agent.uses)):
            value += int(arrays.value[mode, slot, self.chosen(number, slot)])
        for option, way in enumerate(agent.hand_backs):
            if way.id == planned.hand_back:
                value += int(arrays.value[mode, arrays.hand_back_slot, option])
        return value + sum(gained for gained, _ in self._segments(number, mode))

    def _segments(self, number: int, mode: int) -> Iterator[tuple[int, int]]:
        """Yield the value of the work quanta that are given in each segment, and how many are left to give."""
        variant = self.problem.agents[number].variants[self.compiled.modes[mode].variant]
        left = (self.plan.agents[number].work_tokens - variant.floor_tokens) // QUANTUM_TOKENS
        for slope, quanta in zip(self.compiled.slopes[mode].tolist(), self.compiled.quanta[mode].tolist(), strict=True):
            given = min(left, quanta)
            left -= given
            yield slope * given, quanta - given

    def next_slope(self, number: int, mode: int) -> int:
        """Return the value of one more quantum of work; 0 where the forecast asks for no more, or the cap forbids."""
        for slope, (_, free) in zip(self.compiled.slopes[mode].tolist(), self._segments(number, mode), strict=True):
            if free:
                return int(slope)
        return 0

    def chosen(self, number: int, slot: int) -> int:
        """Return the option that the plan chose."""
        name = self.plan.agents[number].pieces[slot].form
        for option, form in enumerate(self.compiled.options[number][slot]):
            if (form is None and name == "keep") or (form is not None and form.id == name):
                return option
        raise KeyError(name)  # pragma: no cover  (a valid plan names an option)


def _summary(problem: Problem, plan: Plan) -> str:
    spendable = problem.spendable_tokens
    tokens = f"{plan.tokens:,} tokens" + ("" if spendable is None else f" of {spendable:,}")
    cost = _usd(plan.cost_nusd) + ("" if problem.max_cost_nusd is None else f" of {_usd(problem.max_cost_nusd)}")
    running = len(plan.agents) - len(plan.deferred)
    quality = "no plan is better" if plan.objective == plan.bound else f"at most {plan.gap:.2%} below the best plan"
    return (
        f"{running} of {len(plan.agents)} agents run, with {tokens} and {cost}, worth {plan.points:,.0f} points; "
        f"{quality} (bound: {plan.bound_source})."
    )


def _limit_reason(price: LimitPrice) -> LimitReason:
    per_1k, per_cent = price.points_per_1k_tokens, price.points_per_cent
    if per_1k is not None:
        gain = f"1,000 more tokens would gain {_points(per_1k)}"
    elif per_cent is not None:
        gain = f"one more cent would gain {_points(per_cent)}"
    else:
        gain = f"one more megabyte would gain {_points(price.units * MILLION / UNITS_PER_POINT)}"
    return LimitReason(
        limit=price.limit,
        points_per_1k_tokens=per_1k,
        points_per_cent=per_cent,
        text=f"The limit on {price.limit} binds: {gain}.",
    )


def _agent_reason(view: _View, number: int, agent: Agent, planned: AgentPlan) -> AgentReason:
    if planned.variant_id is None:
        reason = _why_deferred(view, agent)
        return AgentReason(
            agent_id=agent.id,
            decision="deferred",
            variant_id=None,
            work_tokens=0,
            confidence=None,
            sample_size=0,
            pieces=(),
            text=f"{agent.id} is deferred: {reason}.",
        )
    mode = view.mode(number, planned)
    confidence = None if planned.cut_off_probability is None else 1.0 - planned.cut_off_probability
    return AgentReason(
        agent_id=agent.id,
        decision=_decision(agent, planned),
        variant_id=planned.variant_id,
        work_tokens=planned.work_tokens,
        confidence=confidence,
        sample_size=planned.sample_size,
        pieces=tuple(_piece_reason(view, number, mode, slot) for slot in range(len(agent.uses))),
        text=f"{agent.id} runs as {planned.variant_id} with {planned.work_tokens:,} work tokens, enough with "
        f"{confidence or 0:.0%} probability by {_evidence(planned.sample_size)}: "
        f"{_why_not_more(view, number, mode)}.",
    )


def _decision(agent: Agent, planned: AgentPlan) -> Decision:
    if planned.variant_id is None:
        return "deferred"
    return "full" if planned.variant_id == agent.variants[0].id else "simplified"


def _evidence(sample_size: int) -> str:
    return f"{sample_size:,} observations" if sample_size else "a prior"


def _why_not_more(view: _View, number: int, mode: int) -> str:
    """Return the comparison that decided how many work tokens an agent gets."""
    agent, planned = view.problem.agents[number], view.plan.agents[number]
    variant = agent.variants[view.compiled.modes[mode].variant]
    slope = view.next_slope(number, mode)
    if not slope:
        capped = variant.max_tokens is not None and variant.max_tokens < variant.demand.tokens[-1]
        return f"its own cap of {variant.max_tokens:,} allows no more" if capped else "its forecast asks for no more"
    gain = slope * 1000 / QUANTUM_TOKENS / UNITS_PER_POINT
    price = view.quantum_price(agent, mode) * 1000 / QUANTUM_TOKENS / UNITS_PER_POINT
    if price >= gain:
        return f"1,000 more would gain {_points(gain)} here, and take {_points(price)} from elsewhere"
    if view.plan.least_value is not None and view.compiled.quantum_cost[mode]:
        return f"1,000 more would gain {_points(gain)} here, but is left out for a lower bill, or did not fit"
    if planned.work_tokens == variant.floor_tokens and price:
        return f"1,000 more would gain {_points(gain)} here, but the other limits leave it no more than its floor"
    return f"1,000 more would gain {_points(gain)} here, but what is left of the limits is too little"


def _piece_reason(view: _View, number: int, mode: int, slot: int) -> PieceReason:
    agent, arrays = view.problem.agents[number], view.compiled
    chosen, item = view.chosen(number, slot), agent.uses[slot].item_id
    name = _option_name(view, number, slot, chosen)
    others = [
        option
        for option in range(len(arrays.options[number][slot]))
        if option != chosen and view.allowed(number, slot, option) and _in_time(view, number, mode, slot, option)
    ]
    if not others:
        return PieceReason(item_id=item, form=name, text=f"{item}: {_done(name)}, {_only_choice(view, number, slot)}.")
    gains = {option: _change(view, number, mode, slot, option) for option in others}
    best = max(others, key=lambda option: (gains[option][0], -option))
    reduced, value, tokens, cost = gains[best]
    runner_up = _option_name(view, number, slot, best)
    loss = -reduced / UNITS_PER_POINT
    quality, priced = value / UNITS_PER_POINT, (value - reduced) / UNITS_PER_POINT
    effects = " and ".join([*_amounts(tokens, cost), _compared(quality)])
    price = f" ({_points(abs(priced))} {'for' if priced > 0 else 'saved by'} what it takes)" if priced else ""
    verdict = f"worse by {_points(loss)}" if loss > 0 else "equal" if not loss else f"better by {_points(-loss)}"
    if loss < 0:
        lower_bill = view.plan.least_value is not None and cost > 0
        verdict += ", but dearer: left out for a lower bill" if lower_bill else ", but was not found to fit"
    return PieceReason(
        item_id=item,
        form=name,
        runner_up=runner_up,
        loss_points=loss,
        more_tokens=tokens,
        more_nusd=cost,
        text=f"{item}: {_done(name)}, because {runner_up} would {effects}{price}: {verdict}.",
    )


def _amounts(tokens: int, cost: int) -> list[str]:
    """Return what is taken in words, what is nothing left out."""
    return [
        *([f"take {abs(tokens):,} {'more' if tokens > 0 else 'fewer'} tokens"] if tokens else []),
        *([f"cost {_usd(abs(cost))} {'more' if cost > 0 else 'less'}"] if cost else []),
    ]


def _compared(quality: float) -> str:
    return f"be {_points(abs(quality))} {'better' if quality > 0 else 'worse'}" if quality else "lose nothing"


def _in_time(view: _View, number: int, mode: int, slot: int, option: int) -> bool:
    """Say whether the agent stays within its latency with another form."""
    arrays, planned = view.compiled, view.plan.agents[number]
    limit = int(arrays.max_ticks[mode])
    if limit == NO_LIMIT:
        return True
    now = planned.latency_ms // int(arrays.tick_ms[number])
    more = int(arrays.ticks[mode, slot, option]) - int(arrays.ticks[mode, slot, view.chosen(number, slot)])
    return more <= 0 or now + more <= limit


def _only_choice(view: _View, number: int, slot: int) -> str:
    agent = view.problem.agents[number]
    use = agent.uses[slot]
    if (agent.id, use.item_id) in view.held_whole:
        return "because another agent's diff or reference needs it whole"
    if view.problem.item_of[use.item_id].pinned:
        return "because it is pinned"
    return "because no other form is possible"


def _change(view: _View, number: int, mode: int, slot: int, option: int) -> tuple[float, int, int, int]:
    """Return what another form changes: reduced value, value, tokens, and cost."""
    arrays, agent, before = view.compiled, view.problem.agents[number], view.chosen(number, slot)
    value, tokens, cost = (
        int(array[mode, slot, option]) - int(array[mode, slot, before])
        for array in (arrays.value, arrays.tokens, arrays.cost)
    )
    reduced = view.reduced(number, mode, slot, option) - view.reduced(number, mode, slot, before)
    credit = _credit_change(view, number, mode, slot, option)
    made = _preparation(view, number, slot, option, users=0) - _preparation(view, number, slot, before, users=1)
    reduced += view.cost_price(agent) * credit - view.price.get("cost", 0.0) * made
    return reduced, value, tokens, cost - credit + made


def _credit_change(view: _View, number: int, mode: int, slot: int, option: int) -> int:
    """Return how much more credit the cached prefix earns with another form."""
    arrays, intact = view.compiled, view.plan.agents[number].intact_pieces
    chain = int(arrays.chain[mode])
    if slot < intact:
        return -int(arrays.credit[mode, slot:intact].sum())
    if option != KEEP or slot != intact or slot >= chain:
        return 0
    end = slot + 1
    while end < chain and view.chosen(number, end) == KEEP:
        end += 1
    return int(arrays.credit[mode, slot:end].sum())


def _preparation(view: _View, number: int, slot: int, option: int, *, users: int) -> int:
    """Return what a shared form costs to make if no more than `users` agents get it."""
    form = view.compiled.options[number][slot][option]
    if form is None:
        return 0
    key = (view.problem.agents[number].uses[slot].item_id, form.id)
    return 0 if view.made_for.get(key, 0) > users else view.preparing.get(key, 0)


def _option_name(view: _View, number: int, slot: int, option: int) -> str:
    form = view.compiled.options[number][slot][option]
    return "keep" if form is None else form.id


def _done(form: str) -> str:
    return "kept whole" if form == "keep" else f"sent as {form}"


def _policy_decisions(view: _View) -> Iterator[PolicyDecision]:
    """Yield what was deferred or simplified, each with what it saves and what it costs."""
    for number, (agent, planned) in enumerate(zip(view.problem.agents, view.plan.agents, strict=True)):
        decision = _decision(agent, planned)
        if decision == "full":
            continue
        full = view.best_run(number)
        tokens = full.tokens - planned.tokens - planned.given_tokens
        cost = full.cost - planned.cost_nusd - planned.given_cost_nusd
        lost = (full.value - view.own_value(number)) / UNITS_PER_POINT
        reason = _why_deferred(view, agent) if decision == "deferred" else _why_simplified(view, agent, planned)
        effects = _amounts(-tokens, -cost)
        effects.append(_compared(-lost))
        done = "deferred" if decision == "deferred" else f"simplified to {planned.variant_id}"
        instead = f"compared with {agent.variants[0].id} at its best, this will {' and '.join(effects)}"
        yield PolicyDecision(
            policy="defer" if decision == "deferred" else "simplify",
            agent_id=agent.id,
            reason=reason,
            saved_tokens=tokens,
            saved_nusd=cost,
            lost_points=lost,
            text=f"{agent.id} is {done}; {instead}: {reason}.",
        )


def _why_deferred(view: _View, agent: Agent) -> str:
    """Return why an agent does not run: what it needs is missing, or others use its tokens better."""
    waiting = [name for name in agent.after if view.plan.agents[view.number[name]].deferred]
    if waiting:
        return f"it needs the result of {waiting[0]}, which is deferred"
    run = view.best_run(view.number[agent.id])
    value, taken = run.value / UNITS_PER_POINT, (run.value - run.reduced) / UNITS_PER_POINT
    if run.reduced <= 0:
        return f"running it would be worth {_points(value)}, and take {_points(taken)} from elsewhere"
    return f"running it would be worth {_points(value)}, but as a whole it does not fit beside the others"


def _why_simplified(view: _View, agent: Agent, planned: AgentPlan) -> str:
    full, own = view.best_run(view.number[agent.id]), view.own_value(view.number[agent.id])
    used = planned.tokens + planned.given_tokens, planned.cost_nusd + planned.given_cost_nusd
    taken = view.token_price(agent) * used[0] + view.cost_price(agent) * used[1]
    gain = (own - taken - full.reduced) / UNITS_PER_POINT
    if gain > 0:
        return f"at the plan's prices this is better than running as {agent.variants[0].id} by {_points(gain)}"
    return f"as {agent.variants[0].id} it does not fit beside the others"


def _points(points: float) -> str:
    shown = f"{points:,.0f}" if abs(points) >= 10 or points == 0 else f"{points:,.2g}"
    return f"{shown} {'point' if shown == '1' else 'points'}"


def _usd(nusd: int) -> str:
    return f"${nusd / 1e9:,.{4 if abs(nusd) >= MILLION else 7}f}"
