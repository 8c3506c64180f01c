"""What a report says in words: the same sentences in the terminal and in the HTML file.

A line feed in a value starts a new line; strings from logs are cleaned before they get into a value.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from apportion.planner.replay.results import NO_OUTPUT_USAGE, NO_PROMPT_USAGE
from apportion.planner.report.definitions import LEDGER_DEFINITIONS, LEDGER_NAMES
from apportion.planner.report.figures import (
    NO_BREAK,
    SAME,
    UNKNOWN,
    count,
    milliseconds,
    number,
    percent,
    plain,
    points,
    times,
    tokens,
    usd,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.planner.report.schema import (
        BudgetUse,
        Compared,
        Facts,
        Ledger,
        LoadingRow,
        NextAgentRow,
        PlanSummary,
        ReplayReport,
        Simulator,
        SourceRow,
        Stability,
        Variance,
        WorkflowRow,
    )

NOT_RERUN = (
    "The agents were not run again: the replay takes the logged actions as given and counts what the planned prompts "
    "would have held and cost."
)
"""What a replay cannot know, said in every report."""

REASONS = 10
"""Reasons for degraded plans and figures that are shown; all of them are in the JSON file."""

PLANNED_ROWS = 15
"""Agent types in the table of planned against used; all of them are in the JSON file."""

MODELS = 5
"""Models without a known price that are named; all of them are in the JSON file."""

_PROMPT_COLUMNS = frozenset({"input_uncached", "cache_read"})
"""Columns whose estimate makes the length of a prompt one; of a cache write, only its lifetime is ever estimated."""


_SAID_AS_ESTIMATES = frozenset({NO_PROMPT_USAGE, NO_OUTPUT_USAGE})


class LedgerRow(NamedTuple):
    """One line of the table of ledgers, as text; `share` is the signed saving or change, for colouring."""

    name: str
    baseline: str
    planned: str
    saved: str
    share: float | None
    definition: str


def headline(report: ReplayReport) -> str:
    """Say the result in a sentence or two, good or bad."""
    if report.settings.get("enabled") is False:
        return f"Planning was switched off: the figures show {_these(report.workflows)} as logged."
    bill, visible = report.ledgers.bill_usd, report.ledgers.visible_tokens
    text = _less_or_more(visible.saved_share, "less visible text", "more visible text", "just as much visible text")
    if bill.baseline is None or bill.planned is None or bill.saved_share is None:
        if text is None:
            return "Nothing can be compared: these logs allow neither a token count nor a bill."
        why = "; ".join(_unpriced(report)) or "no price applies to these logs"
        return f"With planning, the prompts would have held {text}. The bill is unknown: {why}."
    change = _less_or_more(bill.saved_share, "less", "MORE", "no change")
    instead = "" if abs(bill.saved_share) < SAME else f" instead of {usd(bill.baseline)}"
    cost = f"{_priced(report)} would have cost {usd(bill.planned)}{instead}: {change}"
    if text is None:
        return f"With planning, {cost}."
    if report.priced_workflows == report.workflows:
        return f"With planning, {cost}, and the prompts would have held {text}."
    return f"With planning, {cost}. The prompts of all {report.workflows:,} would have held {text}."


def warnings(report: ReplayReport) -> list[str]:
    """Say what a reader must know before believing the figures; empty when there is nothing."""
    found = []
    if not report.complete:
        found.append(
            f"PARTIAL REPORT: the replay was stopped early; the figures cover {count(report.workflows, 'workflow')}."
        )
    if report.limited:
        limit = int(report.settings.get("limit") or report.workflows)
        first = "workflow" if limit == 1 else count(limit, "workflow")
        found.append(f"Limited to the first {first}: other logs were not looked at.")
    bill = report.ledgers.bill_usd.saved_share
    if bill is not None and bill <= -SAME:
        found.append(f"Planning would have made {_priced(report)} dearer.")
    return found


def estimates(report: ReplayReport) -> str | None:
    """Say what the figures marked with `~` rest on; `None` where none is estimated."""
    rows = report.per_workflow
    columns = sorted({column for row in rows for column in row.usage.estimated})
    counts = {
        "no prompt usage (its invisible part counts as 0)": _degraded_by(rows, NO_PROMPT_USAGE),
        "no output usage (counted from its text)": _degraded_by(rows, NO_OUTPUT_USAGE),
        f"placeholders or estimates ({', '.join(columns)})": sum(bool(row.usage.estimated) for row in rows),
    }
    said = [(f"in {amount:,}", what) for what, amount in counts.items() if amount]
    if not said:
        return None
    (first, what), *others = said
    more = "".join(f", {where} {lack}" for where, lack in others)
    return f"~ estimated in part: {first} of {count(report.workflows, 'workflow')} the log has {what}{more}."


def skipped(report: ReplayReport) -> str:
    """Say how much could not be read, and how much was read and holds nothing to replay."""
    files, lines, unused = report.skipped.files, report.skipped.lines, report.skipped.unused
    unread = [count(amount, noun) for amount, noun in ((files - unused, "file"), (lines, "line")) if amount]
    said = [f"Not read: {' and '.join(unread)}."] if unread else []
    if unused:
        what = "files or workflows" if unused > 1 else "file or workflow"
        said.append(f"Nothing to replay in {unused:,} {what}: no model calls, or counted in another file.")
    return " ".join(said) or "Everything was read."


def qualifications(report: ReplayReport) -> list[tuple[str, str]]:
    """Return what qualifies the result, as names and values: the worst case, what was missing, how it was planned."""
    return [
        *_target(report),
        *_changed(report),
        ("Dearer than doing nothing", _dearer(report)),
        ("Worst workflow", _worst(report)),
        ("Prices", f"list prices of {report.prices_as_of}"),
        *([("No price", _no_price(report))] if report.priced_workflows < report.workflows else []),
        ("Read from cache", _read(report.simulator)),
        *_bill_of_logged(report.simulator),
        *_facts(report.facts),
        *_plans(report.plan),
        *_done(report),
        *([("Budget", _budget(report.budget))] if report.budget is not None else []),
        *_demand(report.settings.get("models")),
    ]


def _demand(models: object) -> list[tuple[str, str]]:
    """Say that demand was forecast by trained models, where it was."""
    return [] if models is None else [("Demand", f"forecast by the models in {plain(str(models))}")]


def background(report: ReplayReport) -> list[tuple[str, str]]:
    """Return what the figures rest on, as names and values: logged usage, forecasts, settings."""
    usage = report.usage
    columns = {
        "uncached": usage.input_uncached,
        "cache read": usage.cache_read,
        "cache write 5 min": usage.cache_write_5m,
        "cache write 1 h": usage.cache_write_1h,
        "output": usage.output,
        "of it reasoning": usage.reasoning,
    }
    settings = (f"{plain(name)}={_setting(value)}" for name, value in report.settings.items())
    return [
        ("Logged usage", ", ".join(f"{name} {tokens(value)}" for name, value in columns.items())),
        *([("Estimated columns", ", ".join(usage.estimated))] if usage.estimated else []),
        ("Forecasts", _forecasts(report.variance, report.settings.get("models"))),
        *([("Next agent", _next_agent(report.next_agent))] if report.next_agent else []),
        *([("Loading", _loading(report.loading))] if report.loading else []),
        ("Memory", f"{number(report.peak_memory_mb, 0)}{NO_BREAK}MB at its peak"),
        ("Settings", ", ".join(settings) or UNKNOWN),
    ]


def took(report: ReplayReport) -> str:
    """Say how long the replay took, and how much memory at its peak, all of its processes together."""
    seconds = f"{report.seconds:,.1f}{NO_BREAK}s"
    if report.peak_memory_mb is None:
        return seconds
    return f"{seconds}, at most {number(report.peak_memory_mb, 0)}{NO_BREAK}MB of memory"


def ledger_rows(report: ReplayReport) -> list[LedgerRow]:
    """Return the five ledgers in their fixed order, ready to be shown; `~` marks what is estimated in part."""
    ledgers = report.ledgers
    prompts = any(_prompts_estimated(row) for row in report.per_workflow)
    bill = any(
        row.priced_workflows and (_prompts_estimated(row) or NO_OUTPUT_USAGE in row.degraded or row.usage.estimated)
        for row in report.per_workflow
    )
    return [
        _ledger_row("visible_tokens", ledgers.visible_tokens),
        _ledger_row("real_prompt_tokens", ledgers.real_prompt_tokens, estimated=prompts),
        _ledger_row("transmitted_tokens", ledgers.transmitted_tokens),
        _ledger_row("bill_usd", ledgers.bill_usd, estimated=bool(bill)),
        _stability_row(ledgers.prefix_stability),
    ]


def _ledger_row(field: str, ledger: Ledger, *, estimated: bool = False) -> LedgerRow:
    write = usd if field == "bill_usd" else tokens
    mark = "~" if estimated and ledger.baseline is not None else ""
    return LedgerRow(
        LEDGER_NAMES[field],
        mark + write(ledger.baseline),
        mark + write(ledger.planned),
        percent(ledger.saved_share),
        ledger.saved_share,
        LEDGER_DEFINITIONS[field],
    )


def _stability_row(stability: Stability) -> LedgerRow:
    known = stability.baseline is not None and stability.planned is not None
    change = stability.planned - stability.baseline if known else None  # type: ignore[operator]  # both are known
    return LedgerRow(
        LEDGER_NAMES["prefix_stability"],
        percent(stability.baseline),
        percent(stability.planned),
        points(change),
        change,
        LEDGER_DEFINITIONS["prefix_stability"],
    )


def _less_or_more(saved_share: float | None, less: str, more: str, same: str) -> str | None:
    if saved_share is None:
        return None
    if abs(saved_share) < SAME:
        return same
    return f"{percent(abs(saved_share))} {less if saved_share > 0 else more}"


def _these(workflows: int) -> str:
    return "this workflow" if workflows == 1 else f"these {workflows:,} workflows"


def _priced(report: ReplayReport) -> str:
    """Name the workflows that have a bill."""
    if report.priced_workflows == report.workflows:
        return _these(report.workflows)
    return f"the {report.priced_workflows:,} of {report.workflows:,} workflows with a known price"


def _prompts_estimated(row: WorkflowRow) -> bool:
    return NO_PROMPT_USAGE in row.degraded or not _PROMPT_COLUMNS.isdisjoint(row.usage.estimated)


def _degraded_by(rows: Iterable[WorkflowRow], reason: str) -> int:
    return sum(reason in row.degraded for row in rows)


def _read(simulator: Simulator) -> str:
    simulated, logged = simulator.read_share_simulated, simulator.read_share_logged
    return UNKNOWN if simulated is None else f"{percent(simulated)} simulated, {percent(logged)} as logged"


def _bill_of_logged(simulator: Simulator) -> list[tuple[str, str]]:
    simulated, logged = simulator.bill_usd_simulated, simulator.bill_usd_logged
    if simulated is None or logged is None:
        return []
    return [
        ("Bill as logged", f"{usd(logged)} by the usage in the logs; simulated for the same calls {usd(simulated)}")
    ]


def _target(report: ReplayReport) -> list[tuple[str, str]]:
    target, reached = report.settings.get("target_reduction"), report.ledgers.visible_tokens.saved_share
    if target is None:
        return []
    wanted = f"{percent(float(target))} fewer visible tokens"
    if reached is None:
        return [("Target", f"{wanted}: unknown whether it was reached")]
    shares = [row.ledgers.visible_tokens.saved_share for row in report.per_workflow]
    met = sum(share is not None and share >= float(target) for share in shares)
    single = f"; {met:,} of {count(report.workflows, 'workflow')} met it" if report.workflows > 1 else ""
    if reached >= float(target):
        return [("Target", f"{wanted}: met, {percent(reached)} reached{single}")]
    why = "A target makes tokens weigh more; it never justifies a plan that is dearer than doing nothing."
    return [("Target", f"{wanted}: NOT met, {percent(reached)} reached{single}\n{why}")]


def is_changed(row: WorkflowRow) -> bool:
    """Whether planning changed anything of a workflow."""
    ledgers = row.ledgers
    four = (ledgers.visible_tokens, ledgers.real_prompt_tokens, ledgers.transmitted_tokens, ledgers.bill_usd)
    return any(ledger.planned != ledger.baseline for ledger in four)


def _changed(report: ReplayReport) -> list[tuple[str, str]]:
    if not report.per_workflow or report.settings.get("enabled") is False:
        return []
    changed, of = sum(map(is_changed, report.per_workflow)), len(report.per_workflow)
    rest = "" if changed == of else "; the others stayed the same" if changed else "; all stayed the same"
    return [("Workflows changed", f"{changed:,} of {of:,}{rest}")]


def _dearer(report: ReplayReport) -> str:
    dearer = report.dearer
    if dearer.share is None:
        return UNKNOWN
    return f"{dearer.workflows:,} of {count(dearer.of, 'workflow')} with a known price, {percent(dearer.share)}"


def _worst(report: ReplayReport) -> str:
    worst = report.worst_workflow
    if worst is None:
        return UNKNOWN
    if worst.bill_saved_share == 0:
        return "no dearer than doing nothing"
    change = "cheaper" if worst.bill_saved_share > 0 else "dearer"
    return f"{percent(abs(worst.bill_saved_share))} {change} than doing nothing: {plain(worst.id)}"


def _unpriced(report: ReplayReport) -> list[str]:
    """Say which models have no known price, and where none is named; empty when there is nothing to say."""
    said = []
    if report.unpriced_models:
        names = ", ".join(plain(name) for name in report.unpriced_models[:MODELS])
        more = len(report.unpriced_models) - MODELS
        said.append(f"no known price for {names}{f' and {more:,} more' if more > 0 else ''}")
    if report.unnamed_model_workflows:
        alone = report.unnamed_model_workflows == report.workflows - report.priced_workflows
        where = "" if alone else f" in {report.unnamed_model_workflows:,} of them"
        said.append(f"no model is named{where}")
    return said


def _no_price(report: ReplayReport) -> str:
    missing = report.workflows - report.priced_workflows
    lines = [f"{missing:,} of {count(report.workflows, 'workflow')}: {'; '.join(_unpriced(report)) or UNKNOWN}"]
    if report.unpriced_models:
        lines.append(f"The prices are those of {report.prices_as_of}: a later version may know these models.")
    if report.unnamed_model_workflows:
        lines.append("A bill needs logs that name the model of each call.")
    return "\n".join(lines)


def _facts(facts: Facts) -> list[tuple[str, str]]:
    held = f"{percent(facts.visible_share)} visible, {percent(facts.recoverable_share)} visible or recoverable"
    support = (
        f"{percent(facts.next_action_visible)} visible, {percent(facts.next_action_after_expansion)} after expansion, "
        f"{percent(facts.next_action_recoverable)} recoverable"
    )
    expansions = f"{facts.expansions:,} ({number(facts.expansions_per_100_calls)} per 100 calls)"
    return [("Facts in the prompts", held), ("Next action supported", support), ("Expansions charged", expansions)]


def _plans(plan: PlanSummary) -> list[tuple[str, str]]:
    if not plan.count:
        return [("Plans", "none made")]
    degraded = {reason: amount for reason, amount in plan.degraded.items() if reason not in _SAID_AS_ESTIMATES}
    took = f"{plan.count:,}; each took {milliseconds(plan.ms.p50)} (median), {milliseconds(plan.ms.p95)} (p95)"
    gap = f"{percent(plan.gap.p50)} (median), {percent(plan.gap.p95)} (p95)"
    return [
        ("Plans", took),
        ("Plan status", _tally(plan.status)),
        *([("Gap to the bound", gap)] if plan.gap.p50 is not None else []),
        *([("Degraded", _reasons(degraded))] if degraded else []),
    ]


def _budget(use: BudgetUse) -> str:
    in_tokens = None if use.max_tokens is None else f"{tokens(use.max_tokens)} tokens"
    in_usd = None if use.max_usd is None else usd(use.max_usd)
    limit = " and ".join(limit for limit in (in_tokens, in_usd) if limit is not None)
    over = (
        f"{limit or 'no limit'} per workflow: {count(use.workflows_over_baseline, 'workflow')} over it "
        f"without planning, {use.workflows_over_planned:,} with; "
        f"{count(use.calls_beyond_baseline, 'call')} beyond it without planning, {use.calls_beyond_planned:,} with"
    )
    early = " Expansions come early and savings late, so planning can reach a limit sooner."
    more = early if use.calls_beyond_planned > use.calls_beyond_baseline else ""
    return f"{over}\nA replay counts and does not enforce: the logged calls are made anyway.{more}"


PLANNED = ("Agent", "Stages", "Within", "Forecast", "Allocated")
"""Headers of the table of planned against used; the first is text."""

PLANNED_EXPLAINED = (
    f"Within: stages that used no more than their forecast, the 90{NO_BREAK}% quantile of the demand. Forecast and "
    "allocated: relative to what was used, in the median stage."
)
"""What its columns mean."""


def planned_against_used(report: ReplayReport) -> list[list[str]]:
    """Return the rows under `PLANNED`, those of the agent types with most stages, the most frequent first."""
    return [
        [
            agent,
            f"{row.count:,}",
            percent(row.coverage),
            times(row.width),
            times(None if row.bias is None else 1 + row.bias),
        ]
        for agent, row in list(report.variance.by_agent.items())[:PLANNED_ROWS]
    ]


def planned_title(report: ReplayReport) -> str:
    """Return the title of the table: how many agent types it shows."""
    agents = len(report.variance.by_agent)
    return f"Planned against used ({min(agents, PLANNED_ROWS)} of {count(agents, 'agent type')})"


def _forecasts(variance: Variance, models: object) -> str:
    if not variance.count:
        return UNKNOWN
    within = f"{percent(variance.coverage)} of {variance.count:,} stages used no more than their forecast"
    width, median = times(variance.weighted_width), times(variance.width)
    lines = [
        f"{within}, the 90{NO_BREAK}% quantile of the demand.",
        f"The forecast was {width} what was used by all together, and {median} in the median stage.",
    ]
    if variance.bias is not None:
        total = None if variance.weighted_bias is None else 1 + variance.weighted_bias
        lines.append(f"Allocated was {times(total)} what was used, and {times(1 + variance.bias)} in the median stage.")
    if models is not None:
        lines.append(
            f"The forecasts are those of the models in {plain(str(models))}, or documented priors where a reason under "
            "Degraded says so. If the models have learned from these very logs, the figures flatter."
        )
        return "\n".join(lines)
    if (variance.width or 0) > 2 * (variance.weighted_width or math.inf):
        lines.append("Most stages here are short, and the forecasts are meant for long coding sessions.")
    lines.append(
        "The forecasts are documented priors of coding agents: they have learned nothing from these logs but the "
        "earlier stages of the same workflow."
    )
    return "\n".join(lines)


def next_agent(report: ReplayReport) -> str:
    """Say how well the next agent was foreseen; nothing without trained models."""
    return _next_agent(report.next_agent) if report.next_agent else ""


def left_out(report: ReplayReport) -> str:
    """Say in a sentence or two how much was left out behind handles; nothing where nothing was."""
    rows = [row for row in report.actions if row.action in _LEAVING_OUT]
    pieces = sum(row.pieces for row in rows)
    if not pieces:
        return ""
    fetched, saved = sum(row.fetched for row in rows), sum(row.saved_tokens for row in rows)
    back = f"later outputs needed {fetched:,} of them" if fetched else "no later output needed any of them"
    return (
        f"{count(pieces, 'piece')} of context: {tokens(sum(row.tokens for row in rows))} tokens, "
        f"{tokens(saved)} over all calls in which they were missing; {back}."
    )


_LEAVING_OUT = frozenset({"mask", "select"})

DONE = {
    "structure": "rewritten without loss",
    "reference": "named an earlier copy",
    "select": "left parts out behind a handle",
    "mask": "left out behind a handle",
}
"""What was done to a piece of context, in words."""


def _done(report: ReplayReport) -> list[tuple[str, str]]:
    """Say what the plans did to pieces of context, by action, what saved most first."""
    sums: dict[str, tuple[int, int]] = {}
    for row in report.actions:
        pieces, saved = sums.get(row.action, (0, 0))
        sums[row.action] = (pieces + row.pieces, saved + row.saved_tokens)
    lines = [
        f"{DONE.get(action, plain(action))}: {count(pieces, 'piece')}, {tokens(saved)} tokens saved over calls"
        for action, (pieces, saved) in sorted(sums.items(), key=lambda item: -item[1][1])
    ]
    return [("What plans did", "\n".join(lines))] if lines else []


def _next_agent(rows: Sequence[NextAgentRow]) -> str:
    """Say how well the next agent was foreseen: in all sources, then in each where there are several."""
    shown = rows if len(rows) > 2 else rows[:1]
    lines = []
    for nth, row in enumerate(shown):
        sure = "none of them was sure" if row.hit_rate is None else f"{percent(row.coverage)} were sure"
        came = "" if row.hit_rate is None else f", and {percent(row.hit_rate)} of these came true"
        told = f"{count(row.forecasts, 'forecast')}: {sure}{came}; calibration error {row.calibration_error:.3f}"
        chance = f" ({row.calibration_noise:.3f} by chance alone)"
        lines.append(f"{plain(row.source)}: {told}." if nth else f"{told}{chance}.")
    lines.append("Sure is a confidence above 0.7 on enough earlier cases.")
    return "\n".join(lines)


def _loading(rows: Sequence[LoadingRow]) -> str:
    """Say what loading only the tools that are needed would save of the overhead, in each source."""
    lines = [
        f"{plain(row.source)}: {percent(row.saved_share_of_tools)} of tool schemas, "
        f"{percent(row.saved_share_of_overhead)} of the overhead ({row.basis} sizes); "
        f"{percent(row.missed_calls_share)} of calls would miss a tool."
        for row in rows
        if row.brief
    ]
    return "\n".join(
        [*lines, "An estimate of what brief and lazily loaded tools would save; it is in no figure above."]
    )


def _tally(counts: dict[str, int]) -> str:
    return ", ".join(f"{plain(name)}{NO_BREAK}{amount:,}" for name, amount in _by_frequency(counts)) or UNKNOWN


def _reasons(counts: dict[str, int]) -> str:
    ordered = _by_frequency(counts)
    lines = [f"{count(amount, 'workflow')}: {plain(reason)}" for reason, amount in ordered[:REASONS]]
    return "\n".join(lines + ([f"... {len(ordered) - REASONS:,} more"] if len(ordered) > REASONS else []))


def _by_frequency(counts: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _setting(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else plain(str(value))


OUR_PLAN = "apportion"
"""Name of the plan itself among the baselines."""


class ComparisonRow(NamedTuple):
    """The plan or a baseline, with shares for people: see `COMPARED`."""

    name: str
    cells: tuple[str, ...]
    bill_saved: float | None


COMPARED = {
    "Tokens saved": "Tokens and bill saved: against sending every prompt as it is; negative is more.",
    "Bill saved": "",
    "Prefix": "Prefix: how much of the previous prompt the next one keeps.",
    "Next action": "Next action: of the facts it used, the share still visible.",
    "In reach": "In reach: the same, visible or behind a handle.",
    "Dearer": "Dearer: workflows above doing nothing.",
    "Worst": "Worst: bill saved by the worst workflow.",
}
"""The columns of a comparison, and what they mean."""


def comparison(report: ReplayReport, source: str | None = None) -> list[ComparisonRow]:
    """Return the plan and the baselines that were asked for, of everything or of one source; empty if none was."""
    if not report.against:
        return []
    ours = report if source is None else next(row for row in report.per_source if row.source == source)
    rows = [_comparison_row(OUR_PLAN, ours)]
    for other in report.against:
        parts = [other] if source is None else [part for part in other.per_source if part.source == source]
        rows += [_comparison_row(other.name, part) for part in parts]
    return rows


def comparison_notes(report: ReplayReport) -> list[tuple[str, str]]:
    """Return the names of the baselines, and what each does."""
    return [
        (row.name, row.summary + (f" ({row.note})" if row.note else "") + _beyond(row.budget)) for row in report.against
    ]


def _beyond(budget: BudgetUse | None) -> str:
    return "" if budget is None else f"; {count(budget.calls_beyond_planned, 'call')} beyond the budget"


def _comparison_row(name: str, row: Compared | ReplayReport | SourceRow) -> ComparisonRow:
    bill = row.ledgers.bill_usd.saved_share
    shares = (
        row.ledgers.visible_tokens.saved_share,
        bill,
        row.ledgers.prefix_stability.planned,
        row.facts.next_action_visible,
        row.facts.next_action_recoverable,
        row.dearer.share,
        None if row.worst_workflow is None else row.worst_workflow.bill_saved_share,
    )
    return ComparisonRow(name, tuple(map(percent, shares)), bill)
