"""Joint problems for the benchmarks: drawn at random as workflows are met in practice, and taken from real logs.

All randomness is seeded, and every distribution is stated where it is drawn. Sizes and probabilities are chosen to be
plausible, not measured, unless a line says so; `corpus_problems` is the counterweight, where sizes, caches and calls
are those of logs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from apportion.models.demand import PRIORS, PROBABILITIES
from apportion.planner.masking import MaskPlan
from apportion.planner.planner import REMAINING_CALLS, InvocationPlan, PlanOptions, WorkflowPlanner, tokens_with
from apportion.planner.problem import (
    FETCH_OUTPUT_TOKENS,
    MILLION,
    Agent,
    Form,
    HandBack,
    Item,
    ItemUse,
    Model,
    Preload,
    Problem,
    Stage,
    TokenPrices,
    Variant,
)
from apportion.planner.prompt import STUB_TOKENS
from apportion.planner.replay.workflow import replay_workflow
from apportion.records import Action, Demand
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from apportion.planner.planner import Birth, Invocation
    from apportion.telemetry.events import WorkflowLog

TIGHTNESS = (0.35, 0.5, 0.65)
"""Shares of what running everybody in full on whole pieces would take; problems take them in turn."""

LEAST_ROOM = 1.1
"""Limits are at least this multiple of the least that must be spent, else the tightest problems have no plan."""

DRAWN_PROBABILITIES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
QUANTILES = (0.35, 0.6, 1.0, 1.7, 2.8, 3.6)
"""Demand at `DRAWN_PROBABILITIES`, as multiples of the median: skewed to the right as token counts are."""

MODELS = (
    Model(id="large", input=3_000_000, output=15_000_000, cache_read=300_000, cache_write_5m=3_750_000,
          cache_write_1h=6_000_000, context_window=200_000),
    Model(id="small", input=800_000, output=4_000_000, cache_read=80_000, cache_write_5m=1_000_000,
          cache_write_1h=1_600_000, context_window=200_000),
    Model(id="tiny", input=150_000, output=600_000, cache_read=75_000, cache_write_5m=150_000,
          cache_write_1h=150_000, context_window=128_000),
)  # fmt: skip
"""Three price classes of today's providers, in nano-dollars per 1,000 tokens."""


# Drawn at random.


def joint_problem(
    seed: int, *, agents: int = 10, items: int = 10, shared: float = 0.3, separable: bool = False,
    tightness: float | None = None,
) -> Problem:  # fmt: skip
    """Draw a workflow.

    - Stages: one per three agents, 2 to 20, in a chain; agents fall on them evenly at random. Each limits the latency
      of its agents to 360 ... 780 ms.
    - Limits of the workflow, in tokens and in money: `tightness` of what running everybody in full takes, and at least
      10 % above what must be spent; a fiftieth of the tokens is held back.

    Args:
        seed: Equal seeds, equal problems. It also picks the tightness, in turn.
        agents: How many agents.
        items: Pieces in the prompt of each.
        shared: Part of them that comes from a pool, of which several agents draw.
        separable: Budgets only: no pieces, one variant, everybody mandatory, no money limit. Greedy is optimal there.
        tightness: Overrides the one that the seed picks.
    """
    rng = Random(f"{seed} {agents} {items}")  # noqa: S311  (instances, not secrets)
    drawn = _Draw(rng, agents=agents, items=0 if separable else items, shared=shared, separable=separable)
    return limited(drawn.problem(), TIGHTNESS[seed % 3] if tightness is None else tightness, money=not separable)


class _Draw:
    """One problem while it is drawn."""

    def __init__(self, rng: Random, *, agents: int, items: int, shared: float, separable: bool) -> None:
        self.rng = rng
        self.separable = separable
        self.per_agent = items
        self.from_pool = max(1, int(items * shared)) if items else 0
        self.stages = max(2, min(20, agents // 3))
        self.names = [f"agent-{number}" for number in range(agents)]
        self.stage_of = sorted(rng.randrange(self.stages) for _ in range(agents))
        self.items = [self._item(f"shared-{number}") for number in range(max(3, agents * self.from_pool // 4))]
        self.pool = len(self.items) if items else 0
        self.first_user: dict[int, int] = {}

    def problem(self) -> Problem:
        """Return the whole, without limits of the workflow."""
        agents = [self._agent(position) for position in range(len(self.names))]
        stages = tuple(
            Stage(
                id=f"stage-{number}",
                after=(f"stage-{number - 1}",) if number else (),
                max_latency_ms=None if self.separable else self.rng.randrange(18, 40) * 20,
            )
            for number in range(self.stages)
        )
        return Problem(models=MODELS, stages=stages, agents=tuple(agents), items=tuple(self.items))

    def _item(self, name: str) -> Item:
        """Draw a piece.

        Its size is log-normal, median 900 tokens, deviation 0.9, cut to 80 ... 20,000. 15 % are pinned. Each has five
        forms beside being kept: restructured without loss to 55 ... 85 %; an extract of 25 ... 50 % that loses 3 ...
        20 % and is needed in full with 2 ... 20 %, prepared at 80 nano-dollars a token; a stub of 24 tokens that
        loses 5 ... 40 % (need 5 ... 60 %); a name of 12 tokens that loads lazily (loss 5 ... 50 %, need 10 ... 70 %,
        60 ms); a diff of 5 ... 30 %. Extracting and restructuring take 20 ... 80 ms.
        """
        rng = self.rng
        tokens = int(min(max(rng.lognormvariate(6.8, 0.9), 80), 20_000))

        def part(low: float, high: float) -> int:
            return max(1, int(tokens * rng.uniform(low, high)))

        def ppm(low: float, high: float) -> int:
            return int(rng.uniform(low, high) * MILLION)

        def ticks(most: int) -> int:
            return rng.randrange(1, most) * 20

        return Item(
            id=name,
            tokens=tokens,
            pinned=rng.random() < 0.15,
            forms=(
                Form(action=Action.STRUCTURE, tokens=part(0.55, 0.85), latency_ms=ticks(4)),
                Form(action=Action.SELECT, tokens=part(0.25, 0.5), loss_points=part(0.03, 0.2), latency_ms=ticks(5),
                     need_ppm=ppm(0.02, 0.2), prepare_nusd=tokens * 80),
                Form(action=Action.MASK, tokens=24, loss_points=part(0.05, 0.4), need_ppm=ppm(0.05, 0.6)),
                Form(action=Action.LAZY, tokens=12, loss_points=part(0.05, 0.5), latency_ms=60,
                     need_ppm=ppm(0.1, 0.7)),
                Form(action=Action.DIFF, tokens=part(0.05, 0.3), latency_ms=20),
            ),
        )  # fmt: skip

    def _agent(self, position: int) -> Agent:
        """Draw an agent.

        Half are mandatory, 40 % need the result of an earlier stage's agent, 70 % report to one of a later stage, 80 %
        can expand handles, half have a cached prefix of any length. Results: in full half the median of the work, a
        short form of 15 % that loses a tenth, a pointer that loses a quarter. Loading in advance: 1 ... 30 MB of 100,
        saves 40 ... 160 ms with a probability of 40 ... 100 %.
        """
        rng, stage = self.rng, self.stage_of[position]
        median = rng.lognormvariate(7.2, 0.6)
        variants = self._variants(median)
        if self.separable:
            return Agent(id=self.names[position], stage_id=f"stage-{stage}", variants=variants[:1])
        later = bisect_right(self.stage_of, stage)
        earlier = bisect_left(self.stage_of, stage)
        reports = later < len(self.names) and rng.random() < 0.7
        waits = earlier > 0 and rng.random() < 0.4
        return Agent(
            id=self.names[position],
            stage_id=f"stage-{stage}",
            variants=variants,
            mandatory=rng.random() < 0.5,
            uses=self._uses(position),
            cached_uses=rng.randrange(self.per_agent) if self.per_agent and rng.random() < 0.5 else 0,
            can_expand=rng.random() < 0.8,
            hand_backs=(
                HandBack(id="full", tokens=int(median * 0.5)),
                HandBack(id="short", tokens=int(median * 0.15), loss_points=int(median * 0.1)),
                HandBack(id="pointer", tokens=30, loss_points=int(median * 0.25)),
            ),
            reports_to=self.names[rng.randrange(later, len(self.names))] if reports else None,
            after=(self.names[rng.randrange(earlier)],) if waits else (),
            preload=Preload(
                memory_bytes=rng.randrange(1, 30) * 1_000_000,
                probability_ppm=int(rng.uniform(0.4, 1) * MILLION),
                latency_ms=rng.randrange(1, 5) * 40,
            ),
        )

    def _variants(self, median: float) -> tuple[Variant, ...]:
        """Draw the ways of running an agent.

        The median of the work is log-normal around 1,340 tokens, its weight 1 ... 5, calls 1 ... 11. 60 % run on the
        large model, the others on the small one. 60 % can be simplified: the tiny model, 60 % of the work, a weight
        less, half the value of running at all.
        """
        rng = self.rng
        tokens = tuple(int(median * multiple) for multiple in QUANTILES)
        size, weight, calls = rng.randrange(60), rng.randint(1, 5), rng.randint(1, 11)
        full = Variant(
            id="full", model_id="large" if rng.random() < 0.6 else "small", weight=weight, calls=calls,
            demand=Demand(probabilities=DRAWN_PROBABILITIES, tokens=tokens, sample_size=size),
            value_points=int(median * weight * 0.2), floor_tokens=tokens[0] // 2, contingency_tokens=int(median * 0.2),
        )  # fmt: skip
        if rng.random() >= 0.6:
            return (full,)
        less = tuple(int(amount * 0.6) for amount in tokens)
        simplified = Variant(
            id="simplified", model_id="tiny", weight=max(1, weight - 1), calls=calls,
            demand=Demand(probabilities=DRAWN_PROBABILITIES, tokens=less, sample_size=size),
            value_points=int(median * weight * 0.1), floor_tokens=tokens[0] * 3 // 10,
        )  # fmt: skip
        return full, simplified

    def _uses(self, position: int) -> tuple[ItemUse, ...]:
        """Draw a prompt: first pieces of the pool, then the agent's own, a fifth of which it holds a base of.

        Relevance is even over 20 ... 100 %, of own pieces 30 ... 100 %. Where an earlier stage's agent got a shared
        piece first, in half of the cases this agent holds it if that one gets it whole, and may get a diff.
        """
        rng, uses = self.rng, []
        for number in rng.sample(range(self.pool), min(self.from_pool, self.pool)):
            first = self.first_user.setdefault(number, position)
            holds = self.stage_of[first] < self.stage_of[position] and rng.random() < 0.5
            uses.append(
                ItemUse(
                    item_id=self.items[number].id,
                    relevance_ppm=int(rng.uniform(0.2, 1) * MILLION),
                    held_if_kept_by=self.names[first] if holds else None,
                )
            )
        while len(uses) < self.per_agent:
            self.items.append(self._item(f"item-{len(self.items)}"))
            relevance = int(rng.uniform(0.3, 1) * MILLION)
            held = "base" if rng.random() < 0.2 else "nothing"
            uses.append(ItemUse(item_id=self.items[-1].id, relevance_ppm=relevance, held=held))
        return tuple(uses)


class _Spent(NamedTuple):
    """What an agent takes: tokens, and nano-dollars."""

    tokens: int
    cost_nusd: int


def limited(problem: Problem, tightness: float, *, money: bool = True) -> Problem:
    """Return a problem with limits of the workflow; a 50th of the tokens is held back.

    The most is everybody in the first variant, all pieces whole, all work, the first way of handing back. The least is
    what must run, in whatever form and variant is least; that of tokens and that of money may be different ones.
    """
    needed = _must_run(problem)
    agents = {agent.id: agent for agent in problem.agents}
    most = [_most(problem, agent) for agent in problem.agents]
    least = [_least(problem, agents[name], agents.get(agents[name].reports_to or "")) for name in sorted(needed)]
    tokens, cost = (
        int(max(LEAST_ROOM * sum(part[kind] for part in least), tightness * sum(part[kind] for part in most)))
        for kind in (0, 1)
    )
    return problem.model_copy(
        update={
            "max_tokens": tokens + tokens // 50,
            "reserve_tokens": tokens // 50,
            "max_cost_nusd": cost if money else None,
        }
    )


def _must_run(problem: Problem) -> set[str]:
    """Return the mandatory agents and those whose results they need."""
    after = {agent.id: agent.after for agent in problem.agents}
    waiting = [agent.id for agent in problem.agents if agent.mandatory]
    needed: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(after[name])
    return needed


def _most(problem: Problem, agent: Agent) -> _Spent:
    variant = agent.variants[0]
    work = max(variant.floor_tokens, variant.demand.tokens[-1])
    handed = agent.hand_backs[0].tokens if agent.hand_backs else 0
    prompt = problem.context_tokens(agent)
    return _spent(problem, agent, variant, sent=prompt, written=work, handed=handed)


def _least(problem: Problem, agent: Agent, receiver: Agent | None) -> _Spent:
    """Return the least tokens and the least cost of an agent, each at the variant where it is least."""
    handed = min((way.tokens for way in agent.hand_backs), default=0)
    context = problem.context_tokens(agent)
    pieces = [
        (
            problem.item_of[use.item_id].tokens,
            [
                (form.tokens, form.need_ppm * use.relevance_ppm / MILLION**2)
                for form in problem.options(agent, use)
                if not problem.needs_link(use, form)
            ],
        )
        for use in agent.uses
    ]
    ways = []
    for variant in agent.variants:
        sent = 0.0
        for whole, forms in pieces:
            fetched = (context + FETCH_OUTPUT_TOKENS) / variant.calls + whole
            sent += min([float(whole), *(size + need * fetched for size, need in forms)])
        written = variant.floor_tokens + variant.contingency_tokens
        ways.append(_spent(problem, agent, variant, sent=int(sent), written=written, handed=handed))
    received = _Spent(0, 0) if receiver is None else _received(problem, receiver, handed)
    return _Spent(
        min(way.tokens for way in ways) + received.tokens, min(way.cost_nusd for way in ways) + received.cost_nusd
    )


def _spent(problem: Problem, agent: Agent, variant: Variant, *, sent: int, written: int, handed: int) -> _Spent:
    prices: TokenPrices = problem.model_of[variant.model_id]
    once, again = prices.written(agent.cache_lifetime), prices.read(agent.cache_lifetime)
    cost = sent * (once + again * (variant.calls - 1)) + (written + handed) * prices.output
    return _Spent(sent * variant.calls + written + handed, cost // 1000)


def _received(problem: Problem, agent: Agent, tokens: int) -> _Spent:
    """Return what a result takes at the agent that gets it: at the most calls and the dearest of its variants."""
    prices = [
        model.written(agent.cache_lifetime) + model.read(agent.cache_lifetime) * (variant.calls - 1)
        for variant in agent.variants
        for model in [problem.model_of[variant.model_id]]
    ]
    return _Spent(tokens * max(variant.calls for variant in agent.variants), tokens * max(prices) // 1000)


# Taken from logs.

MOST_PIECES = 24
"""Pieces of a logged prompt are joined until about so many are left; those that may be masked stay apart."""


class _Snapshot(NamedTuple):
    """The prompt of an agent run before one of its calls, as the replay has it."""

    role: str
    stage: int
    window: int | None
    prices: tuple[float, float, float]
    cached: int
    tokens: list[float]
    whole: list[float]
    may_mask: list[bool]
    need: list[float]


def corpus_problems(path: Path, count: int, *, least_agents: int = 3, most_agents: int = 40) -> list[Problem]:
    """Return joint problems made from the first logged workflows of at least `least_agents` agent runs.

    An agent is a run as it stood before its latest call whose number is a power of two: between half-way and the end.
    Its items are the pieces of its prompt at their logged sizes, in order; small neighbours are one item. Forms are
    those that the project can carry out today: keep; mask, where the replay may mask, with the need that it expects;
    a reference, where it sends one. The cached prefix is that of the replay at this moment. Prices are the model's.
    Demand is that of `PriorDemand`: the calls of its prior, each with the output and the growth of its prior. Calls to
    come are those that the planner expects in a replay. All agents are mandatory: they did run.

    One figure is assumed: a masked piece loses its need times a tenth of its tokens, as the fetch itself is already
    paid for.
    """
    problems: list[Problem] = []
    for log in read_logs([path], SkipLog()):
        runs = {event.agent_run for event in log.events if event.call is not None}
        if not least_agents <= len(runs) <= most_agents:
            continue
        problem = _problem_of(log)
        if problem is not None:
            problems.append(limited(problem, TIGHTNESS[len(problems) % 3]))
        if len(problems) == count:
            break
    return problems


def _problem_of(log: WorkflowLog) -> Problem | None:
    snapshots = _snapshots(log)
    models: dict[tuple[float, float, float], Model] = {}
    agents: list[Agent] = []
    items: list[Item] = []
    for name, taken in snapshots.items():
        model = models.setdefault(taken.prices, _model(f"model-{len(models)}", taken))
        own, cached = _items(name, taken)
        items += own
        agents.append(
            Agent(
                id=name,
                stage_id=f"stage-{taken.stage}",
                variants=(
                    Variant(model_id=model.id, demand=_work(taken.role), calls=round(1 + REMAINING_CALLS[taken.role])),
                ),
                uses=tuple(ItemUse(item_id=item.id, held="whole") for item in own),
                cached_uses=cached,
                can_expand=True,
            )
        )
    stages = sorted({taken.stage for taken in snapshots.values()})
    if not agents:
        return None
    return Problem(
        models=tuple(models.values()),
        stages=tuple(Stage(id=f"stage-{number}") for number in stages),
        agents=tuple(agents),
        items=tuple(items),
    )


def _work(role: str) -> Demand:
    """Return what a run writes, and what its tools add: not the sum of its prompts, which `PriorDemand` forecasts."""
    prior = PRIORS[role]
    median = PROBABILITIES.index(0.5)
    per_call = prior.growth_tokens.quantiles[median] + prior.output_tokens.quantiles[median]
    return Demand(probabilities=PROBABILITIES, tokens=tuple(calls * per_call for calls in prior.calls.quantiles))


def _snapshots(log: WorkflowLog) -> dict[str, _Snapshot]:
    """Replay a workflow as it was, and return what its runs held."""
    found: dict[str, _Snapshot] = {}

    class Recorder(WorkflowPlanner):
        """Masks nothing, and remembers."""

        def before(self, ask: Invocation) -> InvocationPlan:
            """Take a picture before calls 0, 1, 2, 4, 8, ..."""
            births = self.plan_births(ask)
            if ask.call & (ask.call - 1) == 0 and ask.priced:
                found[ask.run_id] = _snapshot(ask, births)
            return InvocationPlan(MaskPlan.nothing(), births, None, "OFF", None, ())

    replay_workflow(log, PlanOptions(), planner=Recorder)
    return found


def _snapshot(ask: Invocation, births: tuple[Birth, ...]) -> _Snapshot:
    prompt = ask.prompt
    may_mask = prompt.column("maskable") & (prompt.column("born") < ask.call)
    may_mask[[birth.copy for birth in births if birth.copy >= 0]] = False
    return _Snapshot(
        role=ask.role,
        stage=ask.stage,
        window=ask.context_window,
        prices=(ask.prices.read, ask.prices.write, ask.prices.output),
        cached=ask.cached_items,
        tokens=tokens_with(prompt, births).tolist(),
        whole=prompt.column("full_tokens").tolist(),
        may_mask=may_mask.tolist(),
        need=prompt.need_at(ask.call).tolist(),
    )


def _model(name: str, taken: _Snapshot) -> Model:
    """Return a model with the replay's prices, which are per token in any currency, scaled to those of a large one."""
    read, write, output = (round(price * 1e12) for price in taken.prices)
    return Model(
        id=name, input=write, output=output, cache_read=read, cache_write_5m=write, cache_write_1h=write,
        context_window=taken.window,
    )  # fmt: skip


def _items(run: str, taken: _Snapshot) -> tuple[list[Item], int]:
    """Return the pieces of a prompt as items, and how many leading ones are cached."""
    items: list[Item] = []
    cached = 0
    for number, (first, end) in enumerate(_buckets(taken)):
        whole = max(1, round(sum(taken.whole[first:end])))
        sent = round(sum(taken.tokens[first:end]))
        forms = []
        if sent < whole:
            forms.append(Form(action=Action.REFERENCE, tokens=sent))
        if taken.may_mask[first] and whole > STUB_TOKENS:
            need = taken.need[first]
            loss = round(need * whole / 10)
            forms.append(Form(action=Action.MASK, tokens=STUB_TOKENS, loss_points=loss, need_ppm=round(need * MILLION)))
        items.append(Item(id=f"{run}/{number}", tokens=whole, forms=tuple(forms)))
        cached += end <= taken.cached
    return items, cached


def _buckets(taken: _Snapshot) -> Iterator[tuple[int, int]]:
    """Yield the pieces as ranges; those that can only be kept are joined with their neighbours of the same kind."""
    enough = sum(taken.whole) / MOST_PIECES
    first = 0
    while first < len(taken.whole):
        end = first + 1
        size = taken.whole[first]
        while end < len(taken.whole) and size < enough and _alike(taken, first, end):
            size += taken.whole[end]
            end += 1
        yield first, end
        first = end


def _alike(taken: _Snapshot, left: int, right: int) -> bool:
    """Say whether two pieces may be one item: neither has another form, and both are cached, or neither."""
    plain = all(not taken.may_mask[row] and taken.tokens[row] == taken.whole[row] for row in (left, right))
    return plain and (left < taken.cached) == (right < taken.cached)


def problems_of(
    agents: int, count: int, *, items: int = 10, separable: bool = False, first_seed: int = 0
) -> Sequence[Problem]:
    """Return several random problems of one size, the same ones in every run."""
    return [
        joint_problem(seed, agents=agents, items=items, separable=separable)
        for seed in range(first_seed, first_seed + count)
    ]
