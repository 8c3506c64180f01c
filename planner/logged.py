"""A logged workflow as a joint problem: what could have been planned, had its course been known.

    (log,) = read_logs("session.jsonl", SkipLog())
    problem = problem_from_log(log)

A *leg* is what is planned as one agent run: some calls in a row of one context window, within one user turn, that end
where the run hands off to a sub-agent, and at `LEG_CALLS` calls at the latest. Its prompt is what its first call was
sent; what comes later in the leg is work. So long runs get a decision about their context every few calls.

What comes from the log: legs, calls, models, the pieces of each prompt and their sizes, the cached prefix, results of
sub-agents, and the invisible rest of the prompt (system prompt, tool schemas): the first logged prompt size less what
is visible of it. What does not:

- Work tokens are forecast, not known: the growth per call of the documented priors (`models.demand`), mixed with the
  legs of the same kind before.
- Results may be written by their structure, which loses nothing; what is saved is what their kind saves on average
  (`planner.profiles`). Or they may be masked; how likely they are needed again says `prompt.prior_need`. A needed one
  that is masked loses `LOSS_PER_NEEDED_TOKEN` points per token for each unit of weight, beside the price of fetching.
- A sub-agent may be deferred, and run by another model, if `simplified` names one; a token of its work then counts
  `SIMPLIFIED_WEIGHT` instead of `FULL_WEIGHT`.
- A result of a sub-agent can be handed back in full or as a pointer of `POINTER_TOKENS`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from apportion.content import classify
from apportion.errors import InputError
from apportion.models.demand import PRIORS, PROBABILITIES, Mixture, StageUse
from apportion.planner.problem import (
    MILLION,
    Agent,
    Form,
    HandBack,
    Item,
    ItemUse,
    Model,
    Problem,
    Stage,
    Variant,
)
from apportion.planner.profiles import profile_of
from apportion.planner.prompt import MIN_REPLACED_TOKENS, REPLACEABLE_KINDS, STUB_TOKENS, need_after, prior_need
from apportion.planner.replay.context import logged_calls
from apportion.prices import lookup
from apportion.records import Action, Demand, Kind
from apportion.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from apportion.planner.replay.context import LoggedCall
    from apportion.telemetry.events import WorkflowLog

LEG_CALLS = 8
"""Calls of a leg at most."""

CACHE_TTL_S = 300.0
"""A prefix that was sent longer ago is no longer in the provider's cache."""

FULL_WEIGHT = 10
"""Points per work token of an agent as it was logged."""

SIMPLIFIED_WEIGHT = 7
"""Points per work token where a cheaper model runs it: an assumption."""

LOSS_PER_NEEDED_TOKEN = 0.1
"""Work that a needed token is worth which is masked: an assumption, for it can be fetched back."""

POINTER_TOKENS = 60
"""Size of a result that is handed back as a pointer."""


def problem_from_log(
    log: WorkflowLog,
    *,
    max_tokens: int | None = None,
    max_cost_nusd: int | None = None,
    simplified: Mapping[str, str] | None = None,
) -> Problem:
    """Return a logged workflow as a problem.

    Args:
        log: The workflow.
        max_tokens: Limit of the workflow in tokens.
        max_cost_nusd: The same for cost.
        simplified: Per model, the model that may run sub-agents in its stead.

    Raises:
        InputError: The log holds no call whose model has a known price.
    """
    return _Builder(log, simplified or {}).problem(max_tokens, max_cost_nusd)


@dataclass(slots=True)
class _Leg:
    """Some calls in a row of one agent run."""

    name: str
    model: str
    prompt: tuple[int, ...]
    """Events in the prompt of its first call."""
    cached: int
    """How many of them the provider's cache holds."""
    restarts: bool
    """Whether its prompt does not go on from that of the leg before."""
    calls: list[LoggedCall] = field(default_factory=list)

    @property
    def run(self) -> str:
        """The agent run of which it is a part."""
        return self.calls[0].first.agent_run

    @property
    def stage(self) -> int:
        """The user turn in which it runs."""
        return self.calls[0].first.stage


@dataclass(slots=True)
class _RunContext:
    """The pieces of an agent run's prompt while its legs are walked."""

    uses: list[str] = field(default_factory=list)
    events: set[int] = field(default_factory=set)
    born: dict[str, int] = field(default_factory=dict)
    calls: int = 0


class _Builder:
    """Makes the problem of a log.

    Args:
        log: The workflow.
        simplified: Per model, the model that may run sub-agents in its stead.
    """

    def __init__(self, log: WorkflowLog, simplified: Mapping[str, str]) -> None:
        self._events = log.events
        self._simplified = simplified
        self._tokens = [TokenCounter(event.model).estimate(event.content).tokens for event in log.events]
        self._parent = {event.agent_run: event.parent_agent for event in log.events}
        self._tools = {event.link: event.name for event in log.events if event.kind is Kind.TOOL_CALL and event.link}
        self._models: dict[str, Model | None] = {}
        self._items: dict[str, Item] = {}
        self._contexts: defaultdict[str, _RunContext] = defaultdict(_RunContext)
        self._history: defaultdict[str, list[StageUse]] = defaultdict(list)
        self._legs = self._split(log)
        self._results = dict(self._handed_back())

    def problem(self, max_tokens: int | None, max_cost_nusd: int | None) -> Problem:
        """Return the problem with some limits."""
        if not self._legs:
            raise InputError("the log holds no call of a model whose prices are known")
        agents = tuple(self._agent(position, leg) for position, leg in enumerate(self._legs))
        turns = sorted({leg.stage for leg in self._legs})
        after = {later: (_stage(earlier),) for earlier, later in pairwise(turns)}
        return Problem(
            models=tuple(model for model in self._models.values() if model is not None),
            stages=tuple(Stage(id=_stage(turn), after=after.get(turn, ())) for turn in turns),
            agents=agents,
            items=tuple(self._items.values()),
            max_tokens=max_tokens,
            max_cost_nusd=max_cost_nusd,
        )

    # Legs.

    def _split(self, log: WorkflowLog) -> list[_Leg]:
        legs: list[_Leg] = []
        last: dict[str, _Leg] = {}
        prompts: dict[str, tuple[int, ...]] = {}
        numbers: Counter[str] = Counter()
        names = _run_names(log)
        for call in logged_calls(log):
            run, model = call.first.agent_run, call.first.model
            prompts[run] = (*prompts.get(run, ())[: call.kept], *call.added)
            if model is None or self._model(model) is None:
                continue
            leg = last.get(run)
            if leg is None or self._ends(leg, call):
                numbers[run] += 1
                cached = call.kept if leg is not None and _warm(leg, call) else 0
                restarts = leg is None or not set(leg.prompt) <= set(prompts[run])
                last[run] = _Leg(f"{names[run]} {numbers[run]}", model, prompts[run], cached, restarts)
                legs.append(last[run])
            last[run].calls.append(call)
        return legs

    def _ends(self, leg: _Leg, call: LoggedCall) -> bool:
        """Say whether a leg ends before a call of its run."""
        handed_off = any(self._events[output].kind is Kind.HANDOFF for output in leg.calls[-1].outputs)
        other = leg.stage != call.first.stage or leg.model != call.first.model or call.fresh
        return handed_off or other or len(leg.calls) == LEG_CALLS

    def _model(self, name: str) -> Model | None:
        """Return a model under the name of the log, or `None` without known prices."""
        if name not in self._models:
            profile = lookup(name)
            known = profile is not None and profile.input is not None and profile.output is not None
            self._models[name] = Model.of(profile).model_copy(update={"id": name}) if profile and known else None
        return self._models[name]

    def _handed_back(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield which leg (as a position) hands back which event to which leg."""
        taken: set[int] = set()
        for position, leg in enumerate(self._legs):
            later = range(position + 1, len(self._legs))
            if any(self._legs[other].run == leg.run for other in later):
                continue
            receiver = next((other for other in later if self._legs[other].run == self._parent[leg.run]), None)
            if receiver is None:
                continue
            results = [
                event
                for event in self._legs[receiver].prompt
                if self._events[event].kind is Kind.HANDOFF_RESULT
                and event not in taken
                and event > leg.calls[-1].outputs[-1]
            ]
            if results:
                taken.add(results[0])
                yield position, (results[0], receiver)

    # Agents.

    def _agent(self, position: int, leg: _Leg) -> Agent:
        sub = self._parent[leg.run] is not None
        uses, cached = self._uses(position, leg)
        earlier = [other.name for other in self._legs[:position] if other.run == leg.run]
        started_by = [other.name for other in self._legs[:position] if other.run == self._parent[leg.run]]
        result, receiver = self._results.get(position, (None, None))
        return Agent(
            id=leg.name,
            stage_id=_stage(leg.stage),
            variants=self._variants(leg, sub=sub),
            mandatory=not sub,
            uses=uses,
            cached_uses=cached,
            can_expand=True,
            hand_backs=() if result is None else _hand_backs(self._tokens[result]),
            reports_to=None if receiver is None else self._legs[receiver].name,
            after=tuple((earlier or started_by)[-1:]),
        )

    def _uses(self, position: int, leg: _Leg) -> tuple[tuple[ItemUse, ...], int]:
        """Return the pieces of a leg's prompt, and how many of them the cache holds."""
        context = self._contexts[leg.run]
        if leg.restarts:
            context.uses, context.events = [self._invisible(leg)], set()
        reported = {event for event, receiver in self._results.values() if receiver == position}
        new = [event for event in leg.prompt if event not in context.events and event not in reported]
        place = {event: number for number, event in enumerate(leg.prompt)}
        for name in self._pieces(leg.name, "earlier text", [event for event in new if place[event] < leg.cached]):
            context.uses.append(name)
            context.born.setdefault(name, context.calls)
        cached = len(context.uses) if leg.cached else 0
        for name in self._pieces(leg.name, "new text", [event for event in new if place[event] >= leg.cached]):
            context.uses.append(name)
            context.born.setdefault(name, context.calls)
        context.events.update(new)
        uses = tuple(
            ItemUse(
                item_id=name, relevance_ppm=_relevance(self._items[name], context.calls - context.born.get(name, 0))
            )
            for name in context.uses
        )
        context.calls += len(leg.calls)
        return uses, cached

    def _pieces(self, leg: str, what: str, events: Sequence[int]) -> list[str]:
        """Make what cannot be masked one piece, and each result that can be one of its own."""
        alone = [event for event in events if self._maskable(event)]
        text = sum(self._tokens[event] for event in events if event not in alone)
        names = []
        if text:
            names.append(f"{what} of {leg}")
            self._items[names[-1]] = Item(id=names[-1], tokens=text, pinned=True)
        for event in alone:
            found = self._events[event]
            tool = self._tools.get(found.link or "", found.name) or found.kind.value
            names.append(f"{tool} at step {found.step}")
            need = prior_need(
                self._tokens[event],
                tool=tool,
                handed_back=found.kind is Kind.HANDOFF_RESULT,
                sub_agent=found.parent_agent is not None,
            )
            stub = Form(
                action=Action.MASK,
                tokens=STUB_TOKENS,
                loss_points=math.ceil(LOSS_PER_NEEDED_TOKEN * FULL_WEIGHT * need * self._tokens[event]),
                need_ppm=round(need * MILLION),
            )
            forms = (stub, *self._structured(event))
            self._items[names[-1]] = Item(id=names[-1], tokens=self._tokens[event], forms=forms)
        return names

    def _structured(self, event: int) -> Iterator[Form]:
        """Yield the form of a result that is written shorter without loss, where its kind gains by that."""
        profile = profile_of(classify(self._events[event].content), Action.STRUCTURE)
        if profile.saved > 0:
            yield Form(action=Action.STRUCTURE, tokens=math.ceil(self._tokens[event] * (1 - profile.saved)))

    def _maskable(self, event: int) -> bool:
        result = self._events[event].kind in REPLACEABLE_KINDS
        return result and self._tokens[event] >= MIN_REPLACED_TOKENS

    def _invisible(self, leg: _Leg) -> str:
        """Return the piece for what a log does not show of a prompt: system prompt and tool schemas."""
        usage = leg.calls[0].first.usage
        logged = None if usage is None else usage.prompt_tokens
        visible = sum(self._tokens[event] for event in leg.prompt)
        name = f"system prompt and tools of {leg.name}"
        self._items[name] = Item(id=name, tokens=max(0, (logged or 0) - visible), pinned=True)
        return name

    def _variants(self, leg: _Leg, *, sub: bool) -> tuple[Variant, ...]:
        demand = self._demand(leg, "sub" if sub else "main")
        calls = len(leg.calls)
        floor = demand.tokens[0]
        variants = [Variant(model_id=leg.model, demand=demand, weight=FULL_WEIGHT, floor_tokens=floor, calls=calls)]
        other = self._simplified.get(leg.model)
        if sub and other is not None and other != leg.model:
            if self._model(other) is None:
                raise InputError(f"no prices are known for the model {other!r}", hint="Name another one in simplified")
            variants.append(
                Variant(
                    id="simplified",
                    model_id=other,
                    demand=demand,
                    weight=SIMPLIFIED_WEIGHT,
                    floor_tokens=floor,
                    calls=calls,
                )
            )
        return tuple(variants)

    def _demand(self, leg: _Leg, role: str) -> Demand:
        """Forecast the work tokens of a leg: what its prompt grows by between calls, and the last output."""
        history = self._history[leg.calls[0].first.agent]
        prior = PRIORS[role]
        growth = Mixture(prior.growth_tokens, tuple(u.growth_tokens for u in history if u.growth_tokens is not None))
        output = Mixture(prior.output_tokens, tuple(u.output_tokens for u in history if u.output_tokens is not None))
        tokens = tuple(
            (len(leg.calls) - 1) * growth.quantile(probability) + output.quantile(probability)
            for probability in PROBABILITIES
        )
        forecast = Demand(probabilities=PROBABILITIES, tokens=tokens, sample_size=len(history))
        usages = [call.first.usage for call in leg.calls if call.first.usage is not None]
        prompts = [usage.prompt_tokens for usage in usages if usage.prompt_tokens is not None]
        if len(prompts) == len(leg.calls):
            outputs = [u.output for u in usages if u.output is not None and "output" not in u.estimated]
            history.append(StageUse.of_calls(prompts, outputs))
        return forecast


def _run_names(log: WorkflowLog) -> dict[str, str]:
    """Name each agent run by its agent, and number those of the same name."""
    agents = {event.agent_run: event.agent for event in log.events}
    total, seen = Counter(agents.values()), Counter[str]()
    names = {}
    for run, agent in agents.items():
        seen[agent] += 1
        names[run] = agent if total[agent] == 1 else f"{agent}#{seen[agent]}"
    return names


def _warm(leg: _Leg, call: LoggedCall) -> bool:
    """Say whether the cache still holds what the leg before sent."""
    before, now = leg.calls[-1].first.started_at, call.first.started_at
    return before is None or now is None or (now - before).total_seconds() <= CACHE_TTL_S


def _relevance(item: Item, age_calls: int) -> int:
    """Return how likely a piece of some age is needed again, compared with a new one."""
    if not item.forms:
        return MILLION
    need = item.forms[0].need_ppm / MILLION
    return round(MILLION * float(need_after(need, uses=0, calls=age_calls, age=age_calls)) / need)


def _hand_backs(tokens: int) -> tuple[HandBack, ...]:
    full = HandBack(id="full", tokens=tokens)
    if tokens <= POINTER_TOKENS:
        return (full,)
    loss = math.ceil(LOSS_PER_NEEDED_TOKEN * FULL_WEIGHT * prior_need(tokens, tool=None, handed_back=True) * tokens)
    return full, HandBack(id="pointer", tokens=POINTER_TOKENS, loss_points=loss)


def _stage(turn: int) -> str:
    return f"turn {turn}"
