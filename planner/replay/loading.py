"""What loading only what a run needs would save of its fixed overhead, estimated on logged workflows.

Most logs hold neither system prompt nor tool schemas: they are the difference between the first real prompt and its
visible text. Where a log holds the schemas, their true sizes count (`basis="logged"`). For Claude Code the sizes of its
own tools count, as version 2.1.42 sends them (`"measured"`); whatever else the overhead holds (system prompt, project
instructions, MCP tools, skills) stays as it is, and a tool of another origin is never a miss. Elsewhere
`ASSUMED_TOOL_SHARE` of the overhead is taken to be schemas, of equal size, of the tools that other workflows of the
source used (`"assumed"`): then a tool that none of them used is a miss.

Needs are forecast by the other workflows: they are held out in five folds. The bill counts what is written and read at
the model's prices, and for each tool that was not loaded an extra call and its schema at the end of the prompt, from
the call that used it on. The model was not run again: it is taken to do the same with brief definitions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.compression.loading import brief_form, line_form, loader_tokens, read_tools
from apportion.errors import InputError
from apportion.models.tool_needs import HANDOFF_TOOL, RunTools, ToolNeeds, folds_of, runs_of
from apportion.planner.loading import LOOK_UPS, MAX_MISS_RATE, LoadForm, LoadPlan, Option, RunShape, cautious, choose
from apportion.planner.replay.billing import tariff
from apportion.planner.replay.context import logged_calls
from apportion.prices import lookup
from apportion.records import Kind
from apportion.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from apportion.planner.masking import TokenPrices
    from apportion.planner.replay.context import LoggedCall
    from apportion.telemetry.events import WorkflowLog

CLAUDE_CODE_TOOLS: dict[str, tuple[int, int, int]] = {
    "AskUserQuestion": (680, 486, 19),
    "Bash": (2837, 943, 12),
    "Edit": (371, 220, 10),
    "EnterPlanMode": (955, 262, 21),
    "ExitPlanMode": (624, 367, 31),
    "Glob": (239, 176, 16),
    "Grep": (798, 513, 12),
    "NotebookEdit": (335, 226, 27),
    "Read": (591, 271, 11),
    "Skill": (397, 121, 10),
    "Task": (1632, 493, 17),
    "TaskCreate": (667, 274, 19),
    "TaskGet": (243, 94, 19),
    "TaskList": (280, 82, 16),
    "TaskOutput": (210, 135, 23),
    "TaskStop": (122, 97, 13),
    "TaskUpdate": (858, 365, 16),
    "TodoWrite": (2242, 431, 21),
    "WebFetch": (424, 185, 16),
    "WebSearch": (409, 197, 18),
    "Write": (221, 188, 11),
}
"""Tokens of the tools of Claude Code 2.1.42: whole, brief, and as a line; counted in its own requests."""

CLAUDE_PER_COUNTED = 1.18
"""Tokens of Claude per token of these counts, as `TokenCounter` estimates them for the same texts."""

CLAUDE_CODE_SYSTEM = 2_760
"""Tokens of its system prompt, counted likewise; all of it stays."""

ONLY_MAIN = frozenset({"Task", "EnterPlanMode", "ExitPlanMode", "AskUserQuestion"})
"""Tools of Claude Code that sub-agents are taken not to have."""

OLD_LIST, NEW_LIST = frozenset({"TodoWrite"}), frozenset({"TaskCreate", "TaskGet", "TaskList", "TaskUpdate"})
"""A session keeps its list of tasks by one or the other."""

ASSUMED_TOOL_SHARE = 0.4
"""Share of the overhead that is schemas where nothing is known of them: about that of Claude Code's own tools in it."""

BRIEF_SHARE, LINE_TOKENS = 0.4, 17
"""Of Claude Code's tools: brief definitions take 0.4 of the tokens of whole ones, a line 17 tokens."""

Sizes = tuple[int, int, int]
"""Tokens of a tool: whole, brief, and as a line."""


class RunLoading(NamedTuple):
    """What is known of one logged agent run, and of its overhead.

    Attributes:
        run: The run and what it used.
        framework: Tool that wrote the log.
        main: Whether it is nobody's sub-agent.
        overhead: Tokens of system prompt and tools: those that no text of the log accounts for, and logged schemas.
        prompt_tokens: Its mean prompt.
        prices: Of its model.
        tools: Logged schemas by name; empty where there are none.
    """

    run: RunTools
    framework: str
    main: bool
    overhead: int
    prompt_tokens: float
    prices: TokenPrices
    tools: Mapping[str, Sizes]


@dataclass(frozen=True, slots=True)
class LoadingEstimate:
    """What loading as planned would have come to, in one source.

    Attributes:
        source: Where the logs come from.
        basis: Where the sizes of tools come from: `logged`, `measured` or `assumed`.
        brief: Whether brief definitions were allowed.
        runs: Agent runs whose prompts are logged.
        calls: Their calls.
        overhead_tokens: Mean overhead of a call.
        head_tokens: What of it is system prompt and tool schemas, as far as their sizes are known; `None` if not.
        tool_tokens: Mean tokens of tool schemas of a call.
        sent_tokens: Mean tokens that stand in their place, the loader included.
        missed_calls: Calls that needed a tool that was not loaded.
        saved_usd: What less overhead costs, the extra calls for missed tools deducted.
        overhead_usd: What the overhead costs.
    """

    source: str
    basis: str
    brief: bool
    runs: int
    calls: int
    overhead_tokens: float
    head_tokens: float | None
    tool_tokens: float
    sent_tokens: float
    missed_calls: int
    saved_usd: float
    overhead_usd: float


def run_loadings(log: WorkflowLog) -> list[RunLoading]:
    """Return what is known of the overhead of each run of a workflow whose first real prompt is logged."""
    calls: defaultdict[str, list[LoggedCall]] = defaultdict(list)
    for call in logged_calls(log):
        calls[call.first.agent_run].append(call)
    schemas = _logged_tools(log)
    found = []
    for run, (name, of_run) in zip(runs_of(log), _in_order(log, calls), strict=True):
        first = of_run[0].first
        prompts = [
            call.first.usage.prompt_tokens for call in of_run if call.first.usage and call.first.usage.prompt_tokens
        ]
        if not prompts or first.usage is None or not first.usage.prompt_tokens or first.agent != run.agent:
            continue
        counter = TokenCounter(first.model)
        visible = sum(counter.estimate(log.events[position].content).tokens for position in of_run[0].added)
        tools = schemas.get(name, {})
        hidden = max(0, first.usage.prompt_tokens - visible)
        found.append(
            RunLoading(
                run=run._replace(text=None),
                framework=log.framework,
                main=first.parent_agent is None,
                overhead=hidden + sum(size[0] for size in tools.values()),
                prompt_tokens=sum(prompts) / len(prompts),
                prices=tariff(lookup(first.model) if first.model else None).rates.prices,
                tools=tools,
            )
        )
    return found


def estimate_loading(
    runs: Sequence[RunLoading], *, max_miss_rate: float = MAX_MISS_RATE, text: Mapping[int, str | None] | None = None
) -> list[LoadingEstimate]:
    """Return an estimate for each source, basis, and use of brief definitions; workflows are held out in turn.

    Args:
        runs: What is known of the runs.
        max_miss_rate: Share of calls that may need a tool that was not loaded.
        text: The task of runs, by position; with it, forecasts are corrected by held-out workflows as well.
    """
    known = [each.run if text is None else each.run._replace(text=text.get(nth)) for nth, each in enumerate(runs)]
    about = {id(run): each for run, each in zip(known, runs, strict=True)}
    sums: dict[tuple[str, str, bool], _Sums] = {}
    for learned, held_out in folds_of(known):
        corrected = text is not None and any(run.used for run in learned)
        model = ToolNeeds().fit_runs(learned) if corrected else ToolNeeds().count_runs(learned)
        for run in held_out:
            each = about[id(run)]
            basis, tools = catalogue(each, model)
            for brief in (True, False) if tools else ():
                total = sums.setdefault((run.source, basis, brief), _Sums())
                total.add(each, basis, tools, _planned(run, each, tools, model, max_miss_rate, brief=brief), model)
    return [total.estimate(*key) for key, total in sorted(sums.items())]


class _Sums:
    """Adds runs up, weighed by their calls where means are of calls."""

    def __init__(self) -> None:
        self.runs = self.calls = self.missed = 0
        self.overhead = self.head = self.tools = self.sent = self.saved = self.cost = 0.0

    def add(self, each: RunLoading, basis: str, tools: Mapping[str, Sizes], plan: LoadPlan, model: ToolNeeds) -> None:
        run, shape = each.run, _shape(each.run.calls, each)
        missed, extra = _missed(each, tools, plan, model, basis)
        schemas = sum(size[0] for size in tools.values())
        self.runs += 1
        self.calls += run.calls
        self.missed += missed
        self.overhead += each.overhead * run.calls
        self.head += (schemas + CLAUDE_CODE_SYSTEM * CLAUDE_PER_COUNTED) * run.calls
        self.tools += schemas * run.calls
        self.sent += plan.tokens * run.calls
        self.saved += (schemas - plan.tokens) * shape.held - extra
        self.cost += each.overhead * shape.held

    def estimate(self, source: str, basis: str, brief: bool) -> LoadingEstimate:  # noqa: FBT001
        return LoadingEstimate(
            source=source,
            basis=basis,
            brief=brief,
            runs=self.runs,
            calls=self.calls,
            overhead_tokens=self.overhead / self.calls,
            head_tokens=self.head / self.calls if basis == "measured" else None,
            tool_tokens=self.tools / self.calls,
            sent_tokens=self.sent / self.calls,
            missed_calls=self.missed,
            saved_usd=self.saved,
            overhead_usd=self.cost,
        )


def _missed(
    each: RunLoading, tools: Mapping[str, Sizes], plan: LoadPlan, model: ToolNeeds, basis: str
) -> tuple[int, float]:
    """Return how many calls needed what was not loaded, and what that and looking up brief definitions costs."""
    run = each.run
    shape = _shape(run.calls, each)
    there = {name for name, form in plan.forms.items() if form in {LoadForm.WHOLE, LoadForm.BRIEF}}
    missed: set[int] = set()
    cost = 0.0
    for used, number in sorted(run.used.items(), key=lambda pair: pair[1]):
        name = listed_as(used, tools)
        if name is None:
            if basis != "assumed":
                continue
            missed.add(number)  # a tool that no other workflow used: its size is not known, only that it was missing
            cost += shape.extra_call
            continue
        fetched = [name] if name not in there else []
        if fetched:
            missed.add(number)
            fetched += [other for other in model.companions(used, tools, source=run.source) if other not in there]
            cost += shape.extra_call * (2.0 if plan.forms[name] is LoadForm.UNLISTED else 1.0)
            there.update(fetched)
        elif plan.forms[name] is LoadForm.BRIEF:
            cost += LOOK_UPS * shape.extra_call
            fetched = []
        share = 1.0 if fetched else LOOK_UPS if plan.forms[name] is LoadForm.BRIEF else 0.0
        tokens = sum(tools[other][0] for other in fetched or [name])
        cost += share * tokens * (each.prices.write + each.prices.read * max(0, run.calls - number))
    return len(missed), cost


def _planned(
    run: RunTools, each: RunLoading, tools: Mapping[str, Sizes], model: ToolNeeds, limit: float, *, brief: bool
) -> LoadPlan:
    asked = {name: HANDOFF_TOOL if name == "Task" and HANDOFF_TOOL not in tools else name for name in tools}
    needs = model.predict(run.agent, asked.values(), source=run.source, text=run.text, earlier=run.earlier)
    options = [
        Option(name, cautious(needs[asked[name]]), whole, line, short if short < whole else None)
        for name, (whole, short, line) in tools.items()
    ]
    shape = _shape(model.calls(run.agent, source=run.source), each)
    return choose(options, shape, max_miss_rate=limit, brief=brief, loader=loader_tokens())


def catalogue(each: RunLoading, model: ToolNeeds) -> tuple[str, Mapping[str, Sizes]]:
    """Return which tools a run is offered, as far as anybody can tell, with their sizes."""
    if each.tools:
        return "logged", each.tools
    if each.framework == "claude-code":
        return "measured", _claude_code(each)
    names = model.known_tools(each.run.source)
    if not names:
        return "assumed", {}
    size = max(1, round(ASSUMED_TOOL_SHARE * each.overhead / len(names)))
    return "assumed", {name: (size, max(1, round(BRIEF_SHARE * size)), min(size, LINE_TOKENS)) for name in names}


def _claude_code(each: RunLoading) -> dict[str, Sizes]:
    hidden = OLD_LIST if not OLD_LIST & each.run.used.keys() else NEW_LIST
    left_out = hidden if each.main else hidden | ONLY_MAIN
    return {
        name: tuple(round(CLAUDE_PER_COUNTED * tokens) for tokens in sizes)  # type: ignore[misc]
        for name, sizes in CLAUDE_CODE_TOOLS.items()
        if name not in left_out
    }


def listed_as(used: str, tools: Mapping[str, Any]) -> str | None:
    """Return the name under which a used tool is offered; work is handed on by a tool that logs do not name."""
    if used in tools:
        return used
    return next((name for name in ("Task", "Agent") if used == HANDOFF_TOOL and name in tools), None)


def _shape(calls: float, each: RunLoading) -> RunShape:
    return RunShape(calls=max(1.0, calls), prompt_tokens=each.prompt_tokens, prices=each.prices)


def _in_order(log: WorkflowLog, calls: Mapping[str, list[LoggedCall]]) -> Iterator[tuple[str, list[LoggedCall]]]:
    """Yield the calls of each run in the order of `runs_of`: in which the runs' first events stand."""
    for name in dict.fromkeys(event.agent_run for event in log.events):
        if name in calls:
            yield name, calls[name]


def _logged_tools(log: WorkflowLog) -> dict[str, dict[str, Sizes]]:
    """Return the schemas that the log holds, by agent run and name."""
    found: defaultdict[str, dict[str, Sizes]] = defaultdict(dict)
    for event in log.events:
        if event.kind is Kind.TOOL_DEFINITIONS:
            counter = TokenCounter(event.model)
            for name, description, text in _tools_in(event.content):
                try:
                    brief = brief_form(text.encode("utf-8", "surrogatepass"))
                except InputError:
                    brief = None
                line = line_form(name, description)
                texts = (text, text if brief is None else brief.decode("utf-8", "replace"), line)
                found[event.agent_run][name] = tuple(counter.estimate(each).tokens for each in texts)  # type: ignore[assignment]
    return dict(found)


def _tools_in(content: str) -> Iterable[tuple[str, str, str]]:
    """Yield name, description and text of each tool of a logged definition: one tool, or a list of them."""
    listed = content if content.lstrip().startswith("[") else f"[{content}]"
    try:
        tools = read_tools(listed) or []
    except InputError:
        return
    for tool in tools:
        if tool.name:
            yield tool.name, tool.description, listed[tool.start : tool.end]
