"""The joint problem: agents, stages, pieces of context, models and their prices, and the limits above them all.

No solver is known here. Everything is a whole number and its unit stands in its name:

- tokens; prices in nano-US-dollars (`nusd`, 1 USD = 10^9) per 1,000 tokens, costs in nano-US-dollars, rounded up
- probabilities and shares in millionths (`ppm`)
- worth in points: one point is one token of an agent of weight 1 that is used for certain

What an agent costs
-------------------
An agent run makes `calls` calls with its context, the next one included. A piece of t tokens that is not (or no
longer) in the provider's cache is written with the first call and read by the others; one that is part of the intact
cached prefix is only read:

    written:  t * (w + r * (calls - 1))        read:  t * r * calls

with w the price of a cache write (of input, where nothing is cached) and r that of a cache read. The intact prefix are
the leading pieces among the first `cached_uses` that are kept whole; its *credit* is what reading it costs less than
writing it, and never negative. A piece of which only a stub is sent is fetched back with probability `need`: one extra
call over the agent's whole context C, and the original T from then on:

    need * (C * r + FETCH_OUTPUT_TOKENS * output + T * (w + r * (calls - 1)))

Tokens of workflow and stages count what is sent: t * calls, plus need * (C + FETCH_OUTPUT_TOKENS + T * calls).
Work tokens (output and what tools add) cost the output price, and so does the result that is handed back, once. Tokens
of an agent are those of its pieces, work tokens, contingency and result. A result of t tokens that is reported to an
agent counts there too, whether or not that agent is deferred: t * calls tokens, written once, at the most calls and the
dearest of its variants and their price tiers.

Rounding is against the plan, so that what fits in whole numbers fits. Each of these amounts is rounded up by itself:
`need` (the form's times the relevance) in millionths; the tokens of fetching; the cost of each written piece, of each
read piece, of fetching, of a need's share of it, of the floor's work tokens, of one quantum of `QUANTUM_TOKENS` work
tokens above the floor, of a result, and of a reported one.

A form that several agents can get is prepared once: what that costs counts for the workflow, and for no stage. Where
only one can get it, it is part of what that agent costs.

What must fit
-------------
Pieces, work tokens, its own result and all results reported to it must fit an agent's context window, and be no more
than its price tier allows: tier 0 holds up to where the first `PriceTier` begins. Work tokens are the floor and whole
quanta, as many as the last quantile of the demand needs at most. The latency of an agent is that of its variant and of
the forms it gets, each in whole ticks, rounded up; less, where its files are loaded in advance, the expected saving,
rounded down. How long a tick is depends on the limit and on the number of pieces: see `tick_ms`.

What is worth something
-----------------------
Running a variant is worth its `value_points`. Work tokens b are worth weight * E[min(D, b)] (see
`budgets.segments`), counted from the floor in whole quanta, after what the floor itself is worth: the whole quanta that
cover it, times the part of them that it is, rounded down. Each form of a piece loses `loss_points`, times how relevant
the piece is to the agent (rounded up), and handing back loses its `loss_points`. Values are counted in units, of which
there are `UNITS_PER_POINT` to the point.

    problem = Problem.load("problem.toml")
    problem.options(agent, use)    # the forms that break no rule
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from apportion.errors import InputError, ProblemError
from apportion.records import Action, Demand, Record, Tokens, content_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.prices import ModelProfile, Prices

MILLION = 1_000_000

FETCH_OUTPUT_TOKENS = 60
"""Output tokens of the call that fetches a left-out piece back."""

LATENCY_TICKS = 75
"""Latencies count in whole ticks, rounded up; a stage's latency limit has so many."""

TICKS_PER_PIECE = 5
"""A limit has at least so many ticks for each piece: rounding up costs at most a fifth of it."""

SAFE_SUM = 2**53
"""Largest sum that a double holds exactly: bounds are computed with doubles."""

Identifier = Annotated[str, Field(min_length=1, max_length=200)]
Ppm = Annotated[int, Field(ge=0, le=MILLION)]
Points = Annotated[int, Field(ge=0, le=10**9)]
Nusd = Annotated[int, Field(ge=0, le=2**53)]
PricePer1k = Annotated[int, Field(ge=0, le=10**12)]
Milliseconds = Annotated[int, Field(ge=0, le=10**9)]
Bytes = Annotated[int, Field(ge=0, le=2**53)]


class TokenPrices(Record):
    """Five prices in nano-US-dollars per 1,000 tokens (1 USD per million tokens is 1,000,000)."""

    input: PricePer1k
    output: PricePer1k
    cache_read: PricePer1k
    cache_write_5m: PricePer1k
    cache_write_1h: PricePer1k

    def written(self, lifetime: Lifetime) -> int:
        """Price of a prompt token that is sent for the first time."""
        return {"none": self.input, "5m": self.cache_write_5m, "1h": self.cache_write_1h}[lifetime]

    def read(self, lifetime: Lifetime) -> int:
        """Price of a prompt token that was sent before."""
        return self.input if lifetime == "none" else self.cache_read


Lifetime = Literal["none", "5m", "1h"]
"""How long the provider's cache is asked to keep an agent's prompt."""


class PriceTier(TokenPrices):
    """Prices of all tokens of a call whose prompt exceeds `above_tokens`."""

    above_tokens: Tokens


class Model(TokenPrices):
    """A language model: its prices, and the longest prompt plus output that it takes (`None`: unknown, no limit)."""

    id: Identifier
    context_window: Annotated[int, Field(gt=0, le=2**53)] | None = None
    tiers: tuple[PriceTier, ...] = ()

    @model_validator(mode="after")
    def _tiers_rise(self) -> Self:
        starts = [tier.above_tokens for tier in self.tiers]
        if starts != sorted(set(starts)):
            raise ProblemError(f"the price tiers of model {self.id!r} do not rise: {starts}")
        prices: list[TokenPrices] = [self, *self.tiers]
        for tier, (lower, higher) in zip(self.tiers, pairwise(prices), strict=True):
            for name in TokenPrices.model_fields:
                if getattr(higher, name) < getattr(lower, name):
                    raise ProblemError(
                        f"model {self.id!r}: {name} falls above {tier.above_tokens:,} tokens",
                        hint="Longer prompts never cost less; plan with the higher of the two prices",
                    )
        return self

    @classmethod
    def of(cls, profile: ModelProfile) -> Self:
        """Take prices and window from the price table.

        Raises:
            ProblemError: The table has no input or no output price for the model.
        """
        if profile.input is None or profile.output is None:
            raise ProblemError(
                f"model {profile.name!r} has no known price",
                hint="State its prices, or plan in tokens with prices of 0",
            )
        return cls(
            id=profile.name,
            context_window=profile.context_window,
            tiers=tuple(PriceTier(above_tokens=tier.above_tokens, **_per_1k(tier)) for tier in profile.tiers),
            **_per_1k(profile),
        )


def _per_1k(prices: Prices) -> dict[str, int]:
    """Return five prices in nano-dollars per 1,000 tokens; a cache price that is not listed is the input price."""
    names = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
    listed = {name: getattr(prices, name) for name in names}
    return {name: round((listed["input"] if usd is None else usd) * MILLION) for name, usd in listed.items()}


class Form(Record):
    """One way of sending a piece of context, other than whole.

    Attributes:
        action: What is done.
        name: Tells forms of the same action apart, for example two levels of detail.
        tokens: Size of what is sent.
        loss_points: Quality that is expected to be lost where the piece is fully relevant.
        latency_ms: Time that it takes on the way to the agent.
        prepare_nusd: Cost of making the form once, for all agents that get it.
        need_ppm: Probability that a fully relevant piece must be fetched back.
    """

    action: Action
    name: str = ""
    tokens: Tokens
    loss_points: Points = 0
    latency_ms: Milliseconds = 0
    prepare_nusd: Nusd = 0
    need_ppm: Ppm = 0

    @model_validator(mode="after")
    def _whole_is_not_a_form(self) -> Self:
        if self.action is Action.KEEP:
            raise ProblemError(
                "a form must not keep the piece whole", hint="Every piece can be kept; leave the form out"
            )
        if self.need_ppm and self.action not in FETCHABLE:
            raise ProblemError(
                f"a form with the action {self.action} cannot be fetched back, but has need_ppm {self.need_ppm}",
                hint=f"Only {', '.join(sorted(FETCHABLE))} leave a handle",
            )
        return self

    @property
    def id(self) -> str:
        """`action`, or `action:name`."""
        return f"{self.action}:{self.name}" if self.name else str(self.action)


FETCHABLE = frozenset({Action.MASK, Action.LAZY, Action.SELECT})
"""Actions that leave a handle behind; the receiver must be able to expand it."""

LOSSLESS = frozenset({Action.STRUCTURE, Action.DIFF, Action.REFERENCE})
"""Actions after which everything is still visible to the receiver: pinned pieces allow no others."""


class Item(Record):
    """A piece of context that one or more agents get.

    Attributes:
        id: Names the piece.
        tokens: Its size when it is kept whole.
        pinned: Critical: it must stay visible in full.
        forms: Other ways of sending it.
    """

    id: Identifier
    tokens: Tokens
    pinned: bool = False
    forms: tuple[Form, ...] = ()

    @model_validator(mode="after")
    def _forms_differ(self) -> Self:
        _require_unique(f"form of item {self.id!r}", (form.id for form in self.forms))
        return self


class ItemUse(Record):
    """What a piece is to one agent; the order of uses is the order in the prompt.

    Attributes:
        item_id: The piece.
        relevance_ppm: How relevant it is here: scales the loss and the need of its forms.
        held: What the agent run holds of it: `"whole"` allows a reference, `"base"` (an earlier version) a diff.
        held_if_kept_by: An agent of an earlier stage that shares this agent's context window: where it gets the piece
            whole, this agent holds it, and may get a diff or a reference.
    """

    item_id: Identifier
    relevance_ppm: Ppm = MILLION
    held: Literal["nothing", "base", "whole"] = "nothing"
    held_if_kept_by: Identifier | None = None


class Variant(Record):
    """One way of running an agent: a model, an effort, a set of tools.

    Attributes:
        id: `"full"`, `"simplified"` or any other name, unique within the agent.
        model_id: The model that runs it.
        demand: Work tokens that it will use: outputs, and what its tools add.
        weight: Points per work token.
        value_points: What it is worth that the agent runs at all, in this variant.
        floor_tokens: Work tokens that it must get at least.
        max_tokens: Work tokens that it may get at most, or `None`.
        contingency_tokens: Its share of the pooled reserve against demand above the plan (`pooled_contingency`).
        calls: Expected number of calls with this context, the next one included.
        latency_ms: Time that it takes without its context.
    """

    id: Identifier = "full"
    model_id: Identifier
    demand: Demand
    weight: Annotated[int, Field(gt=0, le=10**6)] = 1
    value_points: Points = 0
    floor_tokens: Tokens = 0
    max_tokens: Tokens | None = None
    contingency_tokens: Tokens = 0
    calls: Annotated[int, Field(gt=0, le=10**6)] = 1
    latency_ms: Milliseconds = 0

    @model_validator(mode="after")
    def _floor_is_below_the_cap(self) -> Self:
        if self.max_tokens is not None and self.floor_tokens > self.max_tokens:
            raise ProblemError(
                f"variant {self.id!r} must get {self.floor_tokens:,} tokens but may use only {self.max_tokens:,}",
                hint="Lower floor_tokens or raise max_tokens",
            )
        return self


class HandBack(Record):
    """One way of handing the result back: in full, in short, as a pointer.

    Attributes:
        id: Names the way.
        tokens: Size of the result; reserved for the agent that writes it, and sent to the one that gets it.
        loss_points: Quality that is expected to be lost.
    """

    id: Identifier
    tokens: Tokens
    loss_points: Points = 0


class Preload(Record):
    """What loading an agent's files in advance takes and gives; it never spends model tokens.

    Attributes:
        memory_bytes: Memory that it occupies.
        probability_ppm: Probability that the agent runs at all.
        latency_ms: Time that is saved if it runs.
    """

    memory_bytes: Bytes
    probability_ppm: Ppm
    latency_ms: Milliseconds


class Agent(Record):
    """One agent run that is planned.

    Attributes:
        id: Names the agent run.
        stage_id: The stage in which it runs.
        variants: Ways of running it, at least one.
        mandatory: Whether it must run; others may be deferred.
        uses: The pieces of its prompt, in order.
        cached_uses: How many leading pieces the provider's cache holds.
        cache_lifetime: How long the cache is asked to keep its prompt.
        can_expand: Whether it has the tool that fetches left-out pieces back.
        hand_backs: Ways of handing its result back; one is chosen.
        reports_to: Agent that gets the result into its prompt, or `None`.
        after: Agents whose results it needs: where one of them is deferred, so is it.
        preload: What loading its files in advance takes and gives, or `None`.
    """

    id: Identifier
    stage_id: Identifier
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    mandatory: bool = True
    uses: tuple[ItemUse, ...] = ()
    cached_uses: Annotated[int, Field(ge=0)] = 0
    cache_lifetime: Lifetime = "5m"
    can_expand: bool = False
    hand_backs: tuple[HandBack, ...] = ()
    reports_to: Identifier | None = None
    after: tuple[Identifier, ...] = ()
    preload: Preload | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        where = f"of agent {self.id!r}"
        _require_unique(f"variant {where}", (variant.id for variant in self.variants))
        _require_unique(f"hand-back {where}", (hand_back.id for hand_back in self.hand_backs))
        _require_unique(f"use {where}", (use.item_id for use in self.uses))
        if self.cached_uses > len(self.uses):
            raise ProblemError(f"agent {self.id!r} has {len(self.uses)} pieces, but {self.cached_uses} are cached")
        if self.cached_uses and self.cache_lifetime == "none":
            raise ProblemError(f"agent {self.id!r} has cached pieces, but its cache_lifetime is 'none'")
        return self


class Stage(Record):
    """One stage of the workflow, a node of its DAG.

    Attributes:
        id: Names the stage.
        after: Stages that must be done before.
        max_tokens: Limit for all its agents together, or `None`.
        max_cost_nusd: The same for their cost.
        max_latency_ms: Limit for each of its agents, which run in parallel, or `None`.
    """

    id: Identifier
    after: tuple[Identifier, ...] = ()
    max_tokens: Tokens | None = None
    max_cost_nusd: Nusd | None = None
    max_latency_ms: Milliseconds | None = None


class Problem(Record):
    """One workflow that is to be planned as a whole.

    Attributes:
        models: The models that the variants name.
        stages: The stages that the agents name; their `after` makes them a DAG.
        agents: Who runs; at least one.
        items: The pieces of context that the agents name.
        max_tokens: Limit of the workflow, or `None`.
        max_cost_nusd: The same for its cost.
        reserve_tokens: Part of `max_tokens` that nobody is given.
        max_preload_bytes: Memory for preloading.
    """

    models: tuple[Model, ...]
    stages: tuple[Stage, ...]
    agents: tuple[Agent, ...]
    items: tuple[Item, ...] = ()
    max_tokens: Tokens | None = None
    max_cost_nusd: Nusd | None = None
    reserve_tokens: Tokens = 0
    max_preload_bytes: Bytes = 100_000_000

    # Reading and writing.

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a problem from a TOML or JSON file.

        Raises:
            InputError: The file cannot be read, is neither TOML nor JSON, or holds no valid problem; the message
                names the field.
        """
        file = Path(path)
        try:
            text = file.read_text("utf-8")
        except OSError as error:
            raise InputError(f"cannot read the problem: {error.strerror or error}", path=file) from error
        except ValueError as error:  # not UTF-8, or a name that no file can have
            raise InputError(f"cannot read the problem: {error}", path=file) from error
        try:
            data = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            kind = "JSON" if file.suffix == ".json" else "TOML"
            hint = (
                "Name JSON files .json. `apportion plan --example` prints a problem; logs are for `apportion replay`."
            )
            raise InputError(f"not valid {kind}: {error}", path=file, hint=hint) from error
        return cls.parse(data, path=file)

    @classmethod
    def parse(cls, data: Any, *, path: Path | None = None) -> Self:
        """Make a problem from plain data.

        Raises:
            InputError: The data is no valid problem; the message names the field.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise InputError(_first_of(error), path=path) from error
        except ProblemError as error:
            raise InputError(f"{_place(data)}{error.message}", path=path, hint=error.hint) from error
        except RecursionError as error:  # an enumeration that is asked for such a value wants to show it
            raise InputError("problem: lists or tables are nested too deeply", path=path) from error

    def save(self, path: str | Path) -> None:
        """Write the problem to a file: JSON where the name ends in `.json`, else TOML.

        Raises:
            InputError: The file cannot be written.
        """
        from apportion.files import write_atomically

        file = Path(path)
        data = self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        if file.suffix == ".json":
            text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        else:
            import tomlkit

            text = tomlkit.dumps(data)
        write_atomically(file, text)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, with changes that are not checked; what was worked out for the original is not copied."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("fingerprint", "item_of", "model_of"):
            copied.__dict__.pop(name, None)
        return copied

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the whole problem: equal problems, and only they, have the same one."""
        return content_hash(self.model_dump_json())

    # What follows from the records.

    @property
    def spendable_tokens(self) -> int | None:
        """What the agents may use together: the limit less the reserve, or `None` for no limit."""
        return None if self.max_tokens is None else self.max_tokens - self.reserve_tokens

    @cached_property
    def item_of(self) -> dict[str, Item]:
        """The items by name."""
        return {item.id: item for item in self.items}

    @cached_property
    def model_of(self) -> dict[str, Model]:
        """The models by name."""
        return {model.id: model for model in self.models}

    def options(self, agent: Agent, use: ItemUse) -> Iterator[Form]:
        """Yield the forms in which an agent may get a piece, other than whole; what breaks a rule is left out.

        - A form that is not shorter than the piece is never used.
        - A pinned piece stays visible: only lossless forms without loss.
        - A handle is offered only to an agent that can expand it.
        - A diff needs a base that the agent holds, and a reference the same bytes.
        """
        item = self.item_of[use.item_id]
        linked = use.held_if_kept_by is not None
        for form in item.forms:
            if form.tokens >= item.tokens:
                continue
            if item.pinned and (form.action not in LOSSLESS or form.loss_points):
                continue
            if form.action in FETCHABLE and not agent.can_expand:
                continue
            if form.action is Action.DIFF and not (use.held != "nothing" or linked):
                continue
            if form.action is Action.REFERENCE and not (use.held == "whole" or linked):
                continue
            yield form

    def needs_link(self, use: ItemUse, form: Form) -> bool:
        """Say whether a form is possible only if the agent `held_if_kept_by` gets the piece whole."""
        held = {Action.DIFF: ("base", "whole"), Action.REFERENCE: ("whole",)}.get(form.action)
        return held is not None and use.held not in held

    def context_tokens(self, agent: Agent) -> int:
        """Tokens of an agent's context when every piece is whole: the basis of what fetching one back costs."""
        return sum(self.item_of[use.item_id].tokens for use in agent.uses)

    # Checks.

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.agents:
            raise ProblemError("a problem needs at least one agent", hint="Add an entry to agents")
        for noun, ids in (
            ("agent", [agent.id for agent in self.agents]),
            ("stage", [stage.id for stage in self.stages]),
            ("item", [item.id for item in self.items]),
            ("model", [model.id for model in self.models]),
        ):
            _require_unique(noun, ids)
        self._require_known_names()
        self._require_dag()
        self._require_reserve_within_limit()
        self._require_safe_sums()
        return self

    def _require_known_names(self) -> None:
        agents, stages = {agent.id: agent for agent in self.agents}, {stage.id for stage in self.stages}
        for stage in self.stages:
            for before in stage.after:
                _require_known(f"stage {stage.id!r}", "after", "stage", before, stages)
        for agent in self.agents:
            where = f"agent {agent.id!r}"
            _require_known(where, "stage_id", "stage", agent.stage_id, stages)
            for variant in agent.variants:
                _require_known(f"{where}, variant {variant.id!r}", "model_id", "model", variant.model_id, self.model_of)
            for use in agent.uses:
                _require_known(where, "uses", "item", use.item_id, self.item_of)
                if use.held_if_kept_by is not None:
                    _require_known(where, "held_if_kept_by", "agent", use.held_if_kept_by, agents)
                    if use.item_id not in {other.item_id for other in agents[use.held_if_kept_by].uses}:
                        raise ProblemError(f"{where} holds item {use.item_id!r} if {use.held_if_kept_by!r} keeps it, "
                                           "but that agent does not get it")  # fmt: skip
            for name, other in [("reports_to", agent.reports_to), *(("after", before) for before in agent.after)]:
                if other is not None:
                    _require_known(where, name, "agent", other, agents)

    def _require_dag(self) -> None:
        _require_acyclic("stage", {stage.id: stage.after for stage in self.stages})
        _require_acyclic("agent", {agent.id: agent.after for agent in self.agents})
        reporting = {agent.id: (agent.reports_to,) if agent.reports_to else () for agent in self.agents}
        _require_acyclic("agent (reports_to)", reporting)
        held = {
            agent.id: tuple(use.held_if_kept_by for use in agent.uses if use.held_if_kept_by) for agent in self.agents
        }
        _require_acyclic("agent (held_if_kept_by)", held)
        _require_acyclic("in the order of the stages,", self._order(held))

    def _order(self, held: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """Return what begins and ends after what: stages, and the agents in them."""
        members: dict[str, list[str]] = {stage.id: [] for stage in self.stages}
        order: dict[str, tuple[str, ...]] = {}
        for agent in self.agents:
            members[agent.stage_id].append(f"agent {agent.id}")
            others = (f"agent {other}" for other in (*agent.after, *held[agent.id]))
            order[f"agent {agent.id}"] = (f"begin of stage {agent.stage_id}", *others)
        for stage in self.stages:
            order[f"begin of stage {stage.id}"] = tuple(f"end of stage {before}" for before in stage.after)
            order[f"end of stage {stage.id}"] = (f"begin of stage {stage.id}", *members[stage.id])
        return order

    def _require_reserve_within_limit(self) -> None:
        if self.reserve_tokens > (self.max_tokens or 0):
            limit = "no limit" if self.max_tokens is None else f"max_tokens of {self.max_tokens:,}"
            raise ProblemError(
                f"reserve_tokens of {self.reserve_tokens:,} cannot be held back from {limit}",
                hint="Lower reserve_tokens or raise max_tokens",
            )

    def _require_safe_sums(self) -> None:
        """No sum of tokens, nano-dollars or value units leaves the whole numbers that a double holds."""
        tokens = cost = value = 0
        agents = {agent.id: agent for agent in self.agents}
        for agent in self.agents:
            context = self.context_tokens(agent)
            calls = max(variant.calls for variant in agent.variants)
            work = max(max(v.demand.tokens[-1], v.floor_tokens) + v.contingency_tokens for v in agent.variants)
            hand_back = max((way.tokens for way in agent.hand_backs), default=0)
            sent = (len(agent.uses) + calls + 2) * (context + hand_back + FETCH_OUTPUT_TOKENS) + work + 2 * hand_back
            tokens += sent
            models = {variant.model_id for variant in agent.variants}
            cost += sent * max(_dearest(self.model_of[model]) for model in models) // 1000
            if agent.reports_to is not None:
                receiver = agents[agent.reports_to]
                received = hand_back * max(variant.calls for variant in receiver.variants)
                tokens += received
                cost += received * max(_dearest(self.model_of[v.model_id]) for v in receiver.variants) // 1000
            losses = sum(max((f.loss_points for f in self.item_of[u.item_id].forms), default=0) for u in agent.uses)
            worth = max(
                v.value_points + v.weight * (max(v.demand.tokens[-1], v.floor_tokens) + 64) for v in agent.variants
            )
            value += worth + losses + max((way.loss_points for way in agent.hand_backs), default=0)
        cost += sum(form.prepare_nusd for item in self.items for form in item.forms)
        for what, total, most in (
            ("tokens", tokens, SAFE_SUM),
            ("nano-dollars", cost, SAFE_SUM),
            ("value units", value * UNITS_PER_POINT, SAFE_SUM),
        ):
            if total > most:
                raise ProblemError(
                    f"the agents add up to {total:,} {what}, more than 2^53: too many to add exactly",
                    hint="Lower tokens, calls, prices or weights, or plan fewer agents at once",
                )


UNITS_PER_POINT = 20_000
"""Value units per point: twice `budgets.problem.PROBABILITY_SCALE`, so that slopes are whole numbers."""


def pooled_contingency(demands: Iterable[Demand], *, z: float) -> tuple[int, ...]:
    """Share a pooled reserve among agents whose demands are independent.

    The reserve of all together is z * sqrt(sum of variances), much less than z * (sum of deviations). Each agent's
    share is its variance's part of that, so the shares add up to the reserve when all run. The deviation is read off
    the quantiles next to the median and to 90 %, as of a normal distribution (1.2816 deviations apart).

    >>> from apportion.records import Demand
    >>> pooled_contingency([Demand(probabilities=(0.5, 0.9), tokens=(1000, 2282))] * 4, z=1.0)
    (501, 501, 501, 501)
    """
    deviations = [_deviation(demand) for demand in demands]
    variance = sum(deviation**2 for deviation in deviations)
    if not variance:
        return (0,) * len(deviations)
    return tuple(-int(-(z * deviation**2) // variance**0.5) for deviation in deviations)


def _deviation(demand: Demand) -> float:
    pairs = list(zip(demand.probabilities, demand.tokens, strict=True))
    median = min(pairs, key=lambda pair: abs(pair[0] - 0.5))[1]
    high = min(pairs, key=lambda pair: abs(pair[0] - 0.9))[1]
    return (high - median) / 1.2816


def _first_of(error: ValidationError) -> str:
    """Return where the first of several things is wrong, and what."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(_shown(part) for part in first["loc"]) or "problem"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {_shown(first['msg'])}{more}"


def _shown(text: Any) -> str:
    """Return a text of others so that it can stand in a message: short, and on one line."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(text)[:200])
    return f"{shown}..." if len(str(text)) > 200 else shown


def _place(data: Any) -> str:
    """Return where a record contradicts itself; nothing where it is the problem as a whole."""
    if not isinstance(data, Mapping):
        return ""
    inside: dict[str, type[Record]] = {"models": Model, "stages": Stage, "agents": Agent, "items": Item}
    deeper: dict[str, tuple[str, type[Record]]] = {"agents": ("variants", Variant), "items": ("forms", Form)}
    for field, record in inside.items():
        for number, part in enumerate(_list(data.get(field))):
            if not _contradicts_itself(record, part):
                continue
            name, inner = deeper.get(field, ("", Record))
            parts = part.get(name) if isinstance(part, Mapping) else None
            for position, each in enumerate(_list(parts)):
                if _contradicts_itself(inner, each):
                    return f"{field}.{number}.{name}.{position}: "
            return f"{field}.{number}: "
    return ""


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _contradicts_itself(record: type[Record], data: Any) -> bool:
    try:
        record.model_validate(data)
    except ProblemError:
        return True
    except (ValidationError, RecursionError):
        return False
    return False


def _dearest(model: Model) -> int:
    prices = (model, *model.tiers)
    return max(
        max(price.input, price.output, price.cache_read, price.cache_write_5m, price.cache_write_1h) for price in prices
    )


def _require_unique(noun: str, ids: Iterable[str]) -> None:
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise ProblemError(f"{noun} {twice[0]!r} is there twice", hint="Give each an id of its own")


def tick_ms(limit_ms: int | None, pieces: int) -> int:
    """Return how long a tick is, in milliseconds: one where there is no limit.

    Args:
        limit_ms: Latency limit of the agent's stage.
        pieces: How many pieces of context the agent gets.

    >>> tick_ms(1_500, pieces=10), tick_ms(1_500, pieces=99), tick_ms(None, pieces=10)
    (20, 3, 1)
    """
    return max(1, -(-(limit_ms or 0) // max(LATENCY_TICKS, TICKS_PER_PIECE * (pieces + 1))))


def _require_known(where: str, field: str, noun: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        names = sorted(known)
        shown = ", ".join(map(_shown, names[:8])) + (", ..." if len(names) > 8 else "")
        raise ProblemError(
            f"{where}: {field} names the {noun} {name!r}, which does not exist", hint=f"Known: {shown or 'none'}"
        )


def _require_acyclic(noun: str, after: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a cycle, naming one node of it (Kahn's algorithm)."""
    waiting = {name: set(before) for name, before in after.items()}
    followers: dict[str, list[str]] = {name: [] for name in after}
    for name, before in waiting.items():
        for other in before:
            followers[other].append(name)
    ready = [name for name, before in waiting.items() if not before]
    while ready:
        done = ready.pop()
        del waiting[done]
        for name in followers[done]:
            waiting[name].discard(done)
            if not waiting[name]:
                ready.append(name)
    if waiting:
        raise ProblemError(f"{noun} {min(waiting)!r} waits for itself: its 'after' relations form a cycle")
