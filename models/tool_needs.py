"""Which tools an agent run will need at all: a probability for each, before its first call.

    model = ToolNeeds().fit(read_logs(["~/.claude/projects"], SkipLog()))
    needs = model.predict("Explore", ["Read", "Grep", "WebFetch"], source="claude_code")
    needs["WebFetch"].probability            # 0.02: its schema need not stand in every prompt

`next_agent.NextToolModel` says which tool is called next; this model says which ones are called ever, because a list of
tools stands at the very beginning of a prompt and has to be settled before the first call.

What happens in `fit`: the share of runs that use a tool is counted for the agent type in its source, drawn towards that
of the source, and that towards all sources. A logistic curve, learned on workflows that were held out, corrects these
shares and weighs two more signs: that an earlier run of the same workflow used the tool, and that the task names it.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

import numpy as np
from pydantic import Field

from apportion.errors import InputError
from apportion.models.evaluation import calibration_error, calibration_noise
from apportion.records import Kind, Record, Share
from apportion.telemetry.stored import StoredWorkflow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from apportion.telemetry.events import WorkflowLog

HANDOFF_TOOL = "(handoff)"
"""Stands for the tool by which work is handed to another agent, whatever its name is."""

HANDING_TOOLS = frozenset({"task", "agent"})
"""What tools are called, in small letters, by which coding agents hand work on."""

PSEUDO_RUNS = 2.0
"""By how many runs a share is drawn towards that of the wider group: two, so that ten runs count five times as much."""

UNSEEN = 0.1
"""Share of the runs that use a tool of which nothing is known; it counts as one run."""

FOLDS = 5
"""Parts into which workflows are divided to hold out each in turn."""

LEAST_WORKFLOWS = 10
"""Workflows that are needed to correct shares by held-out ones."""

TOGETHER = 0.5
"""A tool comes along with another one if this share of the runs that used that one used it too."""

LEAST_TOGETHER = 3
"""Runs that must have used a tool before others come along with it."""

MAX_TEXT = 4_000
"""Characters of a task that are looked at."""

LEAST_NAME = 4
"""Characters of a name, or of a part of one, that count as named in a task; shorter ones are words like any other."""

_MCP = "mcp__"


class RunTools(NamedTuple):
    """One agent run, and what it used.

    Attributes:
        workflow_id: The workflow to which it belongs.
        source: Where the log of the workflow comes from.
        agent: The agent's type.
        calls: Calls of its model.
        used: By name, the number of the call, from 1, that used a tool first.
        earlier: Tools that earlier runs of the workflow used; `None` for the first run.
        text: The first message of the run, or `None` where it is not known.
    """

    workflow_id: str
    source: str
    agent: str
    calls: int
    used: Mapping[str, int]
    earlier: frozenset[str] | None = None
    text: str | None = None


class Need(Record):
    """How likely a run is to use a tool.

    Attributes:
        probability: That it uses it at least once, calibrated on held-out workflows where there were enough.
        sample_size: Learned runs of the same agent type and source.
    """

    probability: Share
    sample_size: Annotated[int, Field(ge=0)]


def runs_of(workflow: WorkflowLog | StoredWorkflow) -> Iterator[RunTools]:
    """Yield the agent runs of a workflow in which a model was called, in the order in which they began.

    >>> from apportion.telemetry.events import Event, WorkflowLog
    >>> read = Event(step=0, agent="main", agent_run="main", kind=Kind.TOOL_CALL, name="Read", content="{}", call=0)
    >>> [(run.agent, dict(run.used)) for run in runs_of(WorkflowLog(id="1", source="s", framework="f", events=[read]))]
    [('main', {'Read': 1})]
    """
    about = workflow.summary if isinstance(workflow, StoredWorkflow) else workflow
    runs: dict[str, _Run] = {}
    used: set[str] = set()
    for event in workflow.events:
        run = runs.get(event.agent_run)
        if run is None:
            begun = any(each.calls for each in runs.values())
            run = runs[event.agent_run] = _Run(event.agent, frozenset(used) if begun else None)
        if event.kind is Kind.USER and run.text is None:
            run.text = (event.content or "")[:MAX_TEXT] or None
        if event.call is None or not event.kind.written_by_model:
            continue
        run.calls.add(event.call)
        name = HANDOFF_TOOL if event.kind is Kind.HANDOFF else event.name if event.kind is Kind.TOOL_CALL else None
        if name:
            run.used.setdefault(name, len(run.calls))
            used.add(name)
    for run in runs.values():
        if run.calls:
            yield RunTools(about.id, about.source, run.agent, len(run.calls), run.used, run.earlier, run.text)


class _Run:
    __slots__ = ("agent", "calls", "earlier", "text", "used")

    def __init__(self, agent: str, earlier: frozenset[str] | None) -> None:
        self.agent = agent
        self.earlier = earlier
        self.calls: set[int] = set()
        self.used: dict[str, int] = {}
        self.text: str | None = None


class _Counts:
    """Runs, calls, and runs that used each tool, of one group."""

    __slots__ = ("calls", "runs", "used")

    def __init__(self) -> None:
        self.runs = 0
        self.calls = 0
        self.used: Counter[str] = Counter()

    def add(self, run: RunTools) -> None:
        self.runs += 1
        self.calls += run.calls
        self.used.update(run.used.keys())

    def share(self, tool: str, wider: float) -> float:
        return (self.used[tool] + PSEUDO_RUNS * wider) / (self.runs + PSEUDO_RUNS)


Group = tuple[str, ...]


class ToolNeeds:
    """Forecasts which tools an agent run will use.

    Attributes:
        groups_: Counts of all runs under `()`, of each source, and of each agent type in a source.
        together_: By source and tool, how many of the runs that used it used each other tool.
        curve_: Intercept and weights of the correction: of the share, of its use before, of its name in the task.
        calibrated_: Whether the correction was learned; else shares are taken as they are.
        quality_: Figures on held-out workflows, a row for each source and one for all.
    """

    def __init__(self) -> None:
        self.groups_: dict[Group, _Counts] = {(): _Counts()}
        self.together_: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.curve_: NDArray[np.float64] = np.array([0.0, 1.0, 0.0, 0.0])
        self.calibrated_ = False
        self.quality_: list[dict[str, Any]] = []

    def fit(self, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> Self:
        """Learn from workflows; what was learned before is forgotten. One pass.

        Raises:
            InputError: No run in them uses a tool.
        """
        return self.fit_runs([run for workflow in workflows for run in runs_of(workflow)])

    def fit_runs(self, runs: Sequence[RunTools]) -> Self:
        """Learn from runs, as `runs_of` gives them.

        Raises:
            InputError: None of them uses a tool.
        """
        if not any(run.used for run in runs):
            raise InputError("no workflow shows which tools are used", hint="Train on more workflows")
        self.count_runs(runs)
        held = [each for learned, out in folds_of(runs) for each in _held(ToolNeeds().count_runs(learned), out)]
        self._correct(held)
        return self

    def count_runs(self, runs: Iterable[RunTools]) -> Self:
        """Count runs anew, without a correction."""
        self.groups_ = {(): _Counts()}
        self.together_ = defaultdict(Counter)
        for run in runs:
            for group in _groups(run.source, run.agent):
                self.groups_.setdefault(group, _Counts()).add(run)
            for tool in run.used:
                self.together_[run.source, tool].update(run.used.keys())
        return self

    def predict(
        self,
        agent: str,
        tools: Iterable[str],
        *,
        source: str = "",
        text: str | None = None,
        earlier: Collection[str] | None = None,
    ) -> dict[str, Need]:
        """Return how likely a run is to use each of some tools.

        Args:
            agent: The agent's type.
            tools: Names of the tools that there are.
            source: Where the workflow runs, as in its log; of an unknown one, all sources tell.
            text: What the run is asked, or `None`.
            earlier: Tools that earlier runs of the workflow used; `None` where it is the first run.
        """
        names = list(dict.fromkeys(tools))
        if not names:
            return {}
        rows = np.array([self.signs(agent, name, source, text, earlier) for name in names])
        own = self.groups_.get((source, agent))
        size = own.runs if own is not None else 0
        chances = _curve(rows, self.curve_).tolist()
        return {
            name: Need.model_construct(probability=chance, sample_size=size)
            for name, chance in zip(names, chances, strict=True)
        }

    def calls(self, agent: str, *, source: str = "") -> float:
        """Return how many calls a run has on average, drawn towards that of wider groups; at least 1."""
        mean = 0.0
        for group in reversed(_groups(source, agent)):
            counts = self.groups_.get(group)
            if counts is not None and counts.runs:
                pseudo = PSEUDO_RUNS if mean else 0.0
                mean = (counts.calls + pseudo * mean) / (counts.runs + pseudo)
        return max(1.0, mean)

    def known_tools(self, source: str) -> list[str]:
        """Return the tools that runs of a source were seen to use, the commonest first."""
        counts = self.groups_.get((source,))
        return [] if counts is None else [name for name, _ in counts.used.most_common()]

    def companions(self, tool: str, tools: Iterable[str], *, source: str = "") -> tuple[str, ...]:
        """Return which tools are worth loading along with one that had to be loaded.

        These are the other tools of its MCP server, and those that most of the runs that used it used too.
        """
        used = self.together_.get((source, tool), Counter())
        server = _server(tool)
        often = {name for name, count in used.items() if count >= TOGETHER * used[tool] >= TOGETHER * LEAST_TOGETHER}
        return tuple(name for name in tools if name != tool and (name in often or (server and _server(name) == server)))

    def signs(
        self, agent: str, tool: str, source: str, text: str | None, earlier: Collection[str] | None
    ) -> tuple[float, float, float, float]:
        """Return what the correction weighs: 1, the logit of the share, whether used before, whether named."""
        share = UNSEEN
        for group in reversed(_groups(source, agent)):
            counts = self.groups_.get(group)
            if counts is None:
                continue
            share = counts.share(tool, share) if group else (counts.used[tool] + UNSEEN) / (counts.runs + 1.0)
        before = 0.0 if earlier is None else 1.0 if tool in earlier else -1.0
        return 1.0, float(np.log(share) - np.log1p(-share)), before, float(names_tool(text, tool))

    def metrics(self) -> list[dict[str, Any]]:
        """Return how good forecasts of held-out workflows were, as found by `fit`."""
        return self.quality_

    def evaluate(self, workflows: Iterable[WorkflowLog | StoredWorkflow]) -> list[dict[str, Any]]:
        """Return how good forecasts for the runs of workflows are, a row for all and one for each source."""
        runs = [run for workflow in workflows for run in runs_of(workflow)]
        return _quality([(run, _curve(rows, self.curve_), needed) for run, rows, needed in _held(self, runs)])

    def _correct(self, held: Sequence[tuple[RunTools, NDArray[np.float64], NDArray[np.bool_]]]) -> None:
        """Learn the correction on held-out runs, and judge it on workflows that it was not learned on."""
        self.curve_ = _fitted_curve(held)
        self.calibrated_ = len({run.workflow_id for run, _, _ in held}) >= LEAST_WORKFLOWS
        judged = []
        for learned, out in folds_of([run for run, _, _ in held]):
            inside, outside = set(map(id, learned)), set(map(id, out))
            curve = _fitted_curve([each for each in held if id(each[0]) in inside])
            judged += [(run, _curve(rows, curve), needed) for run, rows, needed in held if id(run) in outside]
        self.quality_ = _quality(judged)

    def to_state(self) -> dict[str, Any]:
        """Return everything the model is as names, numbers and arrays."""
        return {
            "groups": [
                {"names": list(group), "runs": each.runs, "calls": each.calls, "used": dict(each.used)}
                for group, each in self.groups_.items()
            ],
            "together": [[source, tool, dict(used)] for (source, tool), used in self.together_.items()],
            "curve": self.curve_,
            "calibrated": self.calibrated_,
            "quality": self.quality_,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the model from what `to_state` returned.

        Raises:
            ValueError: The parts do not fit together.
            KeyError: A part is missing.
        """
        made = cls()
        made.groups_ = {}
        for each in state["groups"]:
            counts = made.groups_[tuple(map(str, each["names"]))] = _Counts()
            counts.runs, counts.calls = int(each["runs"]), int(each["calls"])
            counts.used = Counter({str(name): int(count) for name, count in each["used"].items()})
            if counts.runs < max(counts.used.values(), default=0) or min(counts.used.values(), default=0) < 0:
                raise ValueError("a tool was used by more runs than there were")
        if () not in made.groups_ or any(len(group) > 2 for group in made.groups_):
            raise ValueError("the counts of all runs are missing")
        for source, tool, used in state["together"]:
            made.together_[str(source), str(tool)] = Counter({str(name): int(count) for name, count in used.items()})
        made.curve_ = np.asarray(state["curve"], dtype=np.float64)
        if made.curve_.shape != (4,) or not np.isfinite(made.curve_).all():
            raise ValueError("the correction is none")
        made.calibrated_ = bool(state["calibrated"])
        made.quality_ = [dict(row) for row in state["quality"]]
        return made


def folds_of(runs: Sequence[RunTools], folds: int = FOLDS) -> Iterator[tuple[list[RunTools], list[RunTools]]]:
    """Yield which runs are learned from and which are held out; workflows stay whole, sources are spread evenly."""
    keys = {(run.source, run.workflow_id) for run in runs}
    order = sorted(keys, key=lambda key: (key[0], zlib.crc32(key[1].encode("utf-8", "surrogatepass")), key[1]))
    fold_of = {key: nth % folds for nth, key in enumerate(order)}
    for fold in range(min(folds, len(order)) if len(order) > 1 else 0):
        learned = [run for run in runs if fold_of[run.source, run.workflow_id] != fold]
        yield learned, [run for run in runs if fold_of[run.source, run.workflow_id] == fold]


def _held(
    model: ToolNeeds, runs: Iterable[RunTools]
) -> Iterator[tuple[RunTools, NDArray[np.float64], NDArray[np.bool_]]]:
    """Yield each run with the signs of all tools known in its source, and which of them it used."""
    for run in runs:
        names = model.known_tools(run.source)
        if names:
            rows = np.array([model.signs(run.agent, name, run.source, run.text, run.earlier) for name in names])
            yield run, rows, np.array([name in run.used for name in names])


def _fitted_curve(held: Sequence[tuple[RunTools, NDArray[np.float64], NDArray[np.bool_]]]) -> NDArray[np.float64]:
    """Return intercept and weights; those that change nothing where there is too little to learn from."""
    unchanged = np.array([0.0, 1.0, 0.0, 0.0])
    if len({run.workflow_id for run, _, _ in held}) < LEAST_WORKFLOWS:
        return unchanged
    rows, needed = np.concatenate([each[1] for each in held]), np.concatenate([each[2] for each in held])
    if needed.all() or not needed.any():
        return unchanged
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=1.0, max_iter=200).fit(rows[:, 1:], needed)
    return np.array([found.intercept_[0], *found.coef_[0]], dtype=np.float64)


def _curve(rows: NDArray[np.float64], curve: NDArray[np.float64]) -> NDArray[np.float64]:
    chances: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(rows @ curve, -30.0, 30.0)))
    return chances


def _quality(judged: Sequence[tuple[RunTools, NDArray[np.float64], NDArray[np.bool_]]]) -> list[dict[str, Any]]:
    sources = sorted({run.source for run, _, _ in judged})
    parts = [("all sources", list(judged)), *((s, [each for each in judged if each[0].source == s]) for s in sources)]
    rows = []
    for source, part in parts:
        if not part:
            continue
        chances, needed = np.concatenate([each[1] for each in part]), np.concatenate([each[2] for each in part])
        rows.append(
            {
                "source": source,
                "runs": len(part),
                "forecasts": len(chances),
                "needed": float(needed.mean()),
                "brier": float(((chances - needed) ** 2).mean()),
                "calibration_error": calibration_error(chances, needed),
                "calibration_noise": calibration_noise(chances, draws=50),
            }
        )
    return rows


def _groups(source: str, agent: str) -> tuple[Group, Group, Group]:
    """Return the groups of a run, the narrowest first."""
    return (source, agent), (source,), ()


def _server(tool: str) -> str:
    """Return the MCP server of a tool as Claude Code names it, or an empty text."""
    return tool.rpartition("__")[0] if tool.startswith(_MCP) and tool.count("__") >= 2 else ""


def hands_over(tool: str) -> bool:
    """Say whether a tool hands work to another agent, by its name: logs show such a call as `HANDOFF_TOOL`."""
    return tool.lower() in HANDING_TOOLS or tool.startswith("transfer_to_")


def names_tool(text: str | None, tool: str) -> bool:
    """Say whether a text names a tool, or the server that it belongs to."""
    if not text:
        return False
    words = [tool.lower()] if not tool.startswith(_MCP) else [part.lower() for part in tool.split("__")[1:2]]
    low = text.lower()
    return any(len(word) >= LEAST_NAME and word in low for word in words)
