"""The schema of `report.json`, `apportion.replay/1`.

Later versions add fields and never change the meaning of one; a reader must ignore fields that it does not know.
Shares are in [0, 1] (a `saved_share` may be negative: dearer than before); tokens are whole numbers; money is in US
dollars. A figure is `None` where the logs do not allow one, never 0 in its place.
"""

from __future__ import annotations

import json
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_ID: Final = "apportion.replay/1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Skipped(_Part):
    """What could not be read, or not be used.

    Attributes:
        files: Whole files, or workflows of a file.
        lines: Lines or records of files that were read otherwise.
        unused: Of `files`, those that could be read and hold nothing to replay: no model calls, or a workflow that
            another file holds as well.
        messages: The first messages, each with file, line where there is one, and reason.
    """

    files: int
    lines: int
    unused: int = 0
    messages: list[str] = Field(default_factory=list)


class Ledger(_Part):
    """One quantity without planning and with it.

    Attributes:
        baseline: Without planning, as logged.
        planned: With planning.
        saved_share: 1 - planned / baseline; negative where planning needs more.
    """

    baseline: float | None
    planned: float | None
    saved_share: float | None


class Stability(_Part):
    """Share of the previous prompt's tokens that the next prompt of the same run keeps as its prefix.

    Attributes:
        baseline: Without planning, as logged.
        planned: With planning.
    """

    baseline: float | None
    planned: float | None


class Ledgers(_Part):
    """The five ledgers, always side by side.

    Attributes:
        visible_tokens: Text of the log that formed the prompts, added up over calls; counted with `o200k_base`.
        real_prompt_tokens: The same with the invisible overhead (system prompt, tool schemas), in provider tokens:
            as logged for the baseline, or estimated where the log has no usage.
        transmitted_tokens: Text that travels to the agents: what is new to a run since its previous call, without its
            own output; expansions and rewritten items count again.
        bill_usd: Cache reads, cache writes, uncached input and output at the model's prices, from the same cache
            simulation for both columns. Expansions and their extra calls are in `planned`.
        prefix_stability: How much of the cached prefix survives from call to call.
    """

    visible_tokens: Ledger
    real_prompt_tokens: Ledger
    transmitted_tokens: Ledger
    bill_usd: Ledger
    prefix_stability: Stability


class Facts(_Part):
    """Whether what mattered was still there.

    Attributes:
        visible_share: Of the distinct facts in the logged prompts, the share verbatim in the planned ones
            (mean over calls, weighted by their number of facts).
        recoverable_share: The same, visible or fetched byte for byte from the handle store, at every call.
        next_action_visible: Of the facts used by the next real action and visible to it in the log, the share still
            visible in the planned prompt.
        next_action_after_expansion: The same after the expansions that are charged.
        next_action_recoverable: The same, visible or fetched byte for byte from the handle store.
        expansions: Number of elided items that later output quoted, each charged with an extra call.
        expansions_per_100_calls: The same per 100 calls.
    """

    visible_share: float | None
    recoverable_share: float | None
    next_action_visible: float | None
    next_action_after_expansion: float | None
    next_action_recoverable: float | None
    expansions: int
    expansions_per_100_calls: float | None


class Percentiles(_Part):
    """Median and 95th percentile.

    Attributes:
        p50: Median.
        p95: 95th percentile.
    """

    p50: float | None
    p95: float | None


class PlanSummary(_Part):
    """The plans made: one before each invocation.

    Attributes:
        count: Plans made.
        ms: Wall time per plan in milliseconds.
        gap: Relative gap between a budget plan and its independent bound, of those solved anew.
        status: How often each [status](#plan-statuses) occurred.
        degraded: In how many workflows each reason for a degraded plan or an estimated figure occurred.
    """

    count: int
    ms: Percentiles
    gap: Percentiles
    status: dict[str, int]
    degraded: dict[str, int] = Field(default_factory=dict)


class VarianceFigures(_Part):
    """Planned against used, of some agent runs in their stages.

    Attributes:
        count: Number of (agent run, stage) pairs.
        coverage: Share of pairs whose use stayed within the 90 % demand quantile.
        width: Median of that quantile relative to the use.
        bias: Median of (allocated - used) / used.
        weighted_width: The same quantiles, added up, relative to all use: each stage weighs as much as it used.
        weighted_bias: (all allocated - all used) / all used, of the pairs that had an allocation.
    """

    count: int
    coverage: float | None
    width: float | None
    bias: float | None
    weighted_width: float | None = None
    weighted_bias: float | None = None


class Variance(VarianceFigures):
    """Planned against used, per agent run and stage.

    Attributes:
        by_agent: The same of each agent type, the most frequent first.
    """

    by_agent: dict[str, VarianceFigures] = Field(default_factory=dict)


class WorstWorkflow(_Part):
    """The workflow with the smallest (most negative) saving of the bill.

    Attributes:
        id: Its identifier.
        bill_saved_share: Share of its bill that planning saves; negative where it became dearer.
    """

    id: str
    bill_saved_share: float


class Dearer(_Part):
    """Workflows whose realised bill is above doing nothing, of those that could be priced.

    Attributes:
        workflows: Their number.
        of: Number of workflows that could be priced.
        share: Their share of the workflows that could be priced.
    """

    workflows: int
    of: int
    share: float | None


class BudgetUse(_Part):
    """What a given budget allowed.

    A replay counts and does not enforce: the logged calls are made anyway, also beyond the limit. Planning may have
    more calls beyond it than doing nothing: expansions and rewritten prefixes come early, and what they save comes
    later, so the limit can be reached a few calls sooner.

    Attributes:
        max_tokens: The limit per workflow in total tokens, or `None`.
        max_usd: The limit per workflow in US dollars, or `None`.
        workflows_over_baseline: Workflows that exceed the limit without planning.
        workflows_over_planned: Workflows that exceed it with planning.
        calls_beyond_baseline: Calls made after the limit was reached, without planning.
        calls_beyond_planned: The same with planning; a live orchestrator would defer or refuse these.
    """

    max_tokens: int | None
    max_usd: float | None
    workflows_over_baseline: int
    workflows_over_planned: int
    calls_beyond_baseline: int
    calls_beyond_planned: int


class Simulator(_Part):
    """Check of the cache simulation.

    Attributes:
        read_share_simulated: Share of the prompt tokens that the simulated cache reads, without planning.
        read_share_logged: The same as the logs state it.
        bill_usd_simulated: Baseline of the bill, of those calls whose logged usage has a price.
        bill_usd_logged: What the usage of the same calls costs as logged: cache reads and writes as the provider
            counted them, with an output that is only a placeholder counted from its text.
    """

    read_share_simulated: float | None
    read_share_logged: float | None
    bill_usd_simulated: float | None = None
    bill_usd_logged: float | None = None


class LoggedUsage(_Part):
    """Usage as the logs state it, added up; columns that no log states are `None`.

    Attributes:
        input_uncached: Prompt tokens neither read from nor written to a cache.
        cache_read: Prompt tokens read from a cache.
        cache_write_5m: Prompt tokens written to a cache that lives five minutes.
        cache_write_1h: Prompt tokens written to a cache that lives an hour.
        output: Generated tokens, with reasoning.
        reasoning: Generated tokens that were reasoning.
        estimated: Columns of which at least one log holds a placeholder or an estimate.
    """

    input_uncached: int | None
    cache_read: int | None
    cache_write_5m: int | None
    cache_write_1h: int | None
    output: int | None
    reasoning: int | None
    estimated: list[str] = Field(default_factory=list)


class Row(_Part):
    """Figures of one source, workflow, or of everything.

    Attributes:
        workflows: Number of workflows.
        priced_workflows: Number of workflows of which every call has a known price: only these have a bill.
        calls: Number of model calls.
        agents: Number of agent runs: context windows, of main and sub-agents.
        usage: Usage as logged.
        ledgers: The five ledgers.
        facts: Whether what mattered was still there.
    """

    workflows: int
    priced_workflows: int
    calls: int
    agents: int
    usage: LoggedUsage
    ledgers: Ledgers
    facts: Facts


class SourceRow(Row):
    """Figures of one source.

    Attributes:
        source: Its name.
        framework: Tool that wrote the logs.
        unpriced_models: Models without a known price, as logged.
        unnamed_model_workflows: Number of workflows with calls whose log names no model; these have no price either.
        dearer: Workflows made dearer.
        worst_workflow: The one with the smallest saving of the bill, or `None` where none could be priced.
        simulator: Check of the cache simulation.
        plan: The plans made.
        variance: Planned against used.
    """

    source: str
    framework: str
    unpriced_models: list[str] = Field(default_factory=list)
    unnamed_model_workflows: int
    dearer: Dearer
    worst_workflow: WorstWorkflow | None
    simulator: Simulator
    plan: PlanSummary
    variance: Variance


class WorkflowRow(Row):
    """Figures of one workflow.

    Attributes:
        id: Its identifier.
        source: Where its log comes from.
        framework: Tool that wrote its log.
        degraded: Reasons why figures or plans of this workflow are less than they could be.
    """

    id: str
    source: str
    framework: str
    degraded: list[str] = Field(default_factory=list)


class AgentRow(_Part):
    """Figures of one agent type within a source.

    Attributes:
        source: Where the logs come from.
        agent: Role or type name of the agent.
        runs: Number of agent runs in which it made calls; a run that two agent types share counts for both.
        calls: Number of model calls.
        visible_tokens: Text of the log that formed the prompts.
        bill_usd: The bill.
        allocated_tokens: Total tokens that the plans allocated, or `None` where no budget was planned.
        used_tokens: Total tokens used.
        likely_tokens: What was forecast for its stages, added up: 90 % quantiles of the demand; `None` in reports of
            earlier versions.
    """

    source: str
    agent: str
    runs: int
    calls: int
    visible_tokens: Ledger
    bill_usd: Ledger
    allocated_tokens: int | None
    used_tokens: int | None
    likely_tokens: int | None = None


class CallPoint(_Part):
    """Mean figures of the n-th calls (a range of them) of all agent runs.

    Attributes:
        first_call: First call of the range, counted from 1 within the run.
        last_call: Last call of the range.
        calls: Number of calls in it.
        visible_tokens_baseline: Mean visible tokens of a prompt without planning.
        visible_tokens_planned: The same with planning.
        bill_usd_baseline: Mean bill of a call without planning.
        bill_usd_planned: The same with planning.
    """

    first_call: int
    last_call: int
    calls: int
    visible_tokens_baseline: float
    visible_tokens_planned: float
    bill_usd_baseline: float | None
    bill_usd_planned: float | None


class KindRow(_Part):
    """Where visible prompt tokens went: one kind of content, or the invisible overhead.

    Attributes:
        kind: The kind of content.
        tokens_baseline: Tokens in all prompts without planning.
        tokens_planned: The same with planning.
    """

    kind: str
    tokens_baseline: int
    tokens_planned: int


class Compared(_Part):
    """In what a baseline is compared with the plan, for all workflows or one source.

    Attributes:
        ledgers: The five ledgers; their `planned` is what the baseline comes to.
        facts: Whether what mattered was still there.
        dearer: Workflows that the baseline makes dearer.
        worst_workflow: The one with the smallest saving of the bill, or `None` where none could be priced.
    """

    ledgers: Ledgers
    facts: Facts
    dearer: Dearer
    worst_workflow: WorstWorkflow | None


class AgainstSource(Compared):
    """A baseline on one source.

    Attributes:
        source: Its name.
    """

    source: str


class AgainstRow(Compared):
    """A named rule, replayed on the same workflows and billed in the same way.

    Attributes:
        name: By which it was asked for.
        summary: What it does.
        note: What a reader must know of its figures, or `None`.
        budget: What a given budget allowed it, or `None` where none was given.
        per_source: One entry per source.
    """

    name: str
    summary: str
    note: str | None
    budget: BudgetUse | None
    per_source: list[AgainstSource]


class NextAgentRow(_Part):
    """How well trained models foresaw which agent takes the floor next, "none" included.

    Attributes:
        source: Where the logs come from, or `all sources`.
        forecasts: Number of forecasts.
        coverage: Share of them that were sure: a confidence above 0.7, on enough earlier cases.
        hit_rate: Share of the sure ones that came true, or `None` where none was sure.
        calibration_error: Expected calibration error of all forecasts: mean distance of confidence and hit rate, in ten
            bins of equal width.
        calibration_noise: What that would be on average if calibration were perfect.
    """

    source: str
    forecasts: int
    coverage: float
    hit_rate: float | None
    calibration_error: float
    calibration_noise: float


class PreloadRow(_Part):
    """What loading ahead would have come to, by the forecasts of trained models: only what was sure is loaded.

    Attributes:
        source: Where the logs come from, or `all sources`.
        agents: Agents that took the floor after the first one.
        loaded: Agents that would have been loaded ahead.
        hits: Those of them that came next.
        wasted: Those that did not.
        missed: Agents that took the floor and had not been loaded ahead; they are loaded on demand.
        hit_rate: `hits` of `loaded`, or `None` where nothing was.
        coverage: `hits` of `agents`, or `None` where there were none.
    """

    source: str
    agents: int
    loaded: int
    hits: int
    wasted: int
    missed: int
    hit_rate: float | None
    coverage: float | None


class LoadingRow(_Part):
    """What loading only the tools that a run needs would save of its fixed overhead: an estimate, no model was run.

    Attributes:
        source: Where the logs come from.
        basis: Where the sizes of tools come from: `logged` (true schemas), `measured` (those of Claude Code 2.1.42), or
            `assumed` (a share of the overhead, evenly).
        brief: Whether tools may stand with brief descriptions; else only whole, or as one line.
        estimate: Whether sizes are not those of the log.
        runs: Agent runs whose prompts are logged.
        calls: Their calls.
        overhead_tokens: Mean tokens of system prompt, tools and whatever else no text of the log accounts for.
        tool_tokens: Mean tokens of tool schemas in them.
        sent_tokens: Mean tokens that would stand in their place, the tool that loads others included.
        saved_share_of_tools: Share of the tokens of tool schemas that is saved.
        saved_share_of_head: Share of system prompt and tool schemas that is saved; `None` where the former is unknown.
        saved_share_of_overhead: Share of the overhead's tokens that is saved.
        missed_calls_share: Share of calls that needed a tool that was not loaded.
        overhead_cost_saved_share: Share of the overhead's cost that is saved, extra calls deducted; negative: dearer.
        bill_saved_share: The same of the whole bill; `None` where a price is unknown.
    """

    source: str
    basis: str
    brief: bool
    estimate: bool
    runs: int
    calls: int
    overhead_tokens: float
    tool_tokens: float
    sent_tokens: float
    saved_share_of_tools: float | None
    saved_share_of_head: float | None
    saved_share_of_overhead: float | None
    missed_calls_share: float | None
    overhead_cost_saved_share: float | None
    bill_saved_share: float | None


class StageRow(_Part):
    """Figures of one agent type in some stages: turns of the user, counted from 1; 0 is what came before the first.

    Attributes:
        source: Where the logs come from.
        agent: Role or type name of the agent.
        first_stage: First stage of the range.
        last_stage: Last stage of the range.
        calls: Number of model calls.
        visible_tokens: Text of the log that formed the prompts.
        bill_usd: The bill.
        likely_tokens: What was forecast: the 90 % quantiles of the demand, added up.
        allocated_tokens: Total tokens that the plans allocated, or `None` where no budget was planned.
        used_tokens: Total tokens used.
    """

    source: str
    agent: str
    first_stage: int
    last_stage: int
    calls: int
    visible_tokens: Ledger
    bill_usd: Ledger
    likely_tokens: int | None
    allocated_tokens: int | None
    used_tokens: int | None


class ActionRow(_Part):
    """What the plans did to the context of one agent type, for one reason; what was sent whole is not in it.

    Attributes:
        source: Where the logs come from.
        agent: Role or type name of the agent.
        action: `structure` (the same in fewer tokens), `reference` (an earlier copy is named), `select` (parts are left
            out behind a handle) or `mask` (a stub with a handle).
        reason: Why.
        pieces: Pieces of context.
        tokens: Their visible tokens.
        sent_tokens: Visible tokens of what was sent in their place.
        saved_tokens: Visible tokens that this saved, added up over calls, before expansions are charged.
        fetched: Pieces that a later output needed; each was charged as fetched back.
    """

    source: str
    agent: str
    action: str
    reason: str
    pieces: int
    tokens: int
    sent_tokens: int
    saved_tokens: int
    fetched: int


class LeftOutRow(_Part):
    """A piece of context that was left out behind a handle.

    Attributes:
        workflow: Identifier of the workflow.
        agent: Role or type name of the agent.
        call: Call of the agent run before which it was left out, counted from 1.
        kind: Kind of content.
        tool: Tool or agent whose result it is, or `None`.
        action: `mask` or `select`.
        reason: Why.
        tokens: Its visible tokens.
        sent_tokens: Visible tokens of what was sent in its place.
        saved_tokens: Visible tokens that this saved, added up over calls, before expansions are charged.
        fetched: Whether a later output needed it, so that it was charged as fetched back.
        handle: Under which `apportion expand` gives it back; `None` unless `--keep-originals` was given.
        head: Its first characters; `None` unless `--show-content` was given.
    """

    workflow: str
    agent: str
    call: int
    kind: str
    tool: str | None
    action: str
    reason: str
    tokens: int
    sent_tokens: int
    saved_tokens: int
    fetched: bool
    handle: str | None = None
    head: str | None = None


class NextAgentPair(_Part):
    """Forecasts of one next agent, made after one agent.

    Attributes:
        after: Agent that had the floor before; empty where the workflow began.
        predicted: Agent that was forecast; `(end)` for none, `(other)` for one that was never seen.
        forecasts: Number of such forecasts.
        sure: How many of these were sure.
        confidence: Mean confidence, in [0, 1].
        hits: How many came true.
    """

    after: str
    predicted: str
    forecasts: int
    sure: int
    confidence: float
    hits: int


class ConfidenceBin(_Part):
    """Forecasts of the next agent that were about as sure: do they come true as often as they say?

    Attributes:
        low: Lowest confidence of the bin.
        high: Highest confidence of the bin.
        forecasts: Number of forecasts.
        confidence: Their mean confidence, in [0, 1].
        hit_rate: Share of them that came true.
    """

    low: float
    high: float
    forecasts: int
    confidence: float
    hit_rate: float


class ReplayReport(Row):
    """The whole report.

    Attributes:
        schema: Version of this schema.
        version: Version of apportion that wrote the report.
        complete: Whether the replay came to its end; `false` where it was stopped early. A limit is no stop.
        limited: Whether the limit of `settings` was reached: only the first workflows were replayed, and logs behind
            them were not looked at.
        seconds: Wall time of the replay.
        peak_memory_mb: Largest resident memory of the replay in megabytes.
        settings: The settings that applied.
        prices_as_of: Day of the list prices behind the bill, as `YYYY-MM-DD`; an old log is priced at that day's
            prices.
        unpriced_models: Models without a known price, as logged.
        unnamed_model_workflows: Number of workflows with calls whose log names no model; these have no price either.
        skipped: What could not be read, or not be used.
        plan: The plans made.
        variance: Planned against used.
        budget: What a given budget allowed, or `None` where none was given.
        dearer: Workflows made dearer.
        worst_workflow: The one with the smallest saving of the bill, or `None` where none could be priced.
        simulator: Check of the cache simulation.
        per_source: One entry per source.
        per_workflow: One entry per workflow.
        per_agent: One entry per agent type and source.
        per_call: Means by the number of the call within its run.
        per_kind: Tokens by kind of content.
        against: The named baselines that were asked for, one entry each.
        next_agent: How well the next agent was foreseen, in all sources first, then in each; empty without trained
            models. On logs from which the models have learned the figures flatter.
        preload: What loading the next agent ahead would have come to; empty without trained models.
        loading: What loading only the tools that a run needs would save: an estimate for each source, with and without
            brief definitions.
        per_stage: One entry per agent type, source and range of stages.
        actions: What the plans did and why, one entry per agent type, source, action and reason.
        left_out: The pieces that were left out, those that saved most first: at most 20 of a workflow and 200 in all.
        left_out_pieces: How many pieces were left out.
        next_agent_pairs: Forecasts by the agents before and after, the most frequent first; empty without trained
            models.
        next_agent_bins: Forecasts by how sure they were; empty without trained models.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    schema_id: Literal["apportion.replay/1"] = Field(default=SCHEMA_ID, alias="schema")
    version: str
    complete: bool
    limited: bool = False
    seconds: float
    peak_memory_mb: float | None
    settings: dict[str, str | int | float | bool | None]
    prices_as_of: str
    unpriced_models: list[str] = Field(default_factory=list)
    unnamed_model_workflows: int
    skipped: Skipped
    plan: PlanSummary
    variance: Variance
    budget: BudgetUse | None
    dearer: Dearer
    worst_workflow: WorstWorkflow | None
    simulator: Simulator
    per_source: list[SourceRow]
    per_workflow: list[WorkflowRow]
    per_agent: list[AgentRow]
    per_call: list[CallPoint]
    per_kind: list[KindRow]
    against: list[AgainstRow] = Field(default_factory=list)
    next_agent: list[NextAgentRow] = Field(default_factory=list)
    preload: list[PreloadRow] = Field(default_factory=list)
    loading: list[LoadingRow] = Field(default_factory=list)
    per_stage: list[StageRow] = Field(default_factory=list)
    actions: list[ActionRow] = Field(default_factory=list)
    left_out: list[LeftOutRow] = Field(default_factory=list)
    left_out_pieces: int = 0
    next_agent_pairs: list[NextAgentPair] = Field(default_factory=list)
    next_agent_bins: list[ConfidenceBin] = Field(default_factory=list)

    def to_json(self) -> str:
        """Return the report as JSON text, valid UTF-8 even where names in a log are not valid Unicode."""
        text = json.dumps(self.model_dump(by_alias=True), indent=2, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "replace").decode("utf-8")
