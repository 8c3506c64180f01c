"""ATIF: the Agent Trajectory Interchange Format of Harbor and Terminal-Bench, versions 1.0 to 1.7.

One trajectory is one agent run; those it refers to, in the same file or beside it, belong to the same workflow, as do
its continuations. Steps copied from another trajectory are context, not calls. `prompt_tokens` includes cached tokens;
`final_metrics` may include those of sub-agents and is never added to the metrics of the steps.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.errors import InputError
from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder
from apportion.telemetry.importers._base import as_int, as_text, unstated_lifetime
from apportion.telemetry.importers._completions import Piece, add_completion, known_usage, tool_definitions
from apportion.telemetry.importers._fields import (
    amount,
    compact,
    fingerprint,
    head_records,
    mapping,
    moment,
    sequence,
    string,
)
from apportion.telemetry.importers._runs import UserTurns, group_by_root
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.reading import LogSource

Record = dict[str, Any]


class AtifImporter:
    """Reads ATIF trajectories."""

    name = "atif"
    title = "ATIF (Harbor, Terminal-Bench)"

    def sniff(self, source: LogSource) -> float:
        """Return 1 for trajectories, 0 for anything else."""
        return float(any(_is_trajectory(record) for record in head_records(source)[:1]))

    def group(self, sources: Sequence[LogSource]) -> Iterable[Sequence[LogSource]]:
        """Put a trajectory and those it refers to, in the same folder, into one group."""
        folders: dict[str, list[LogSource]] = defaultdict(list)
        for source in sources:
            folders[str(source.path.parent) if source.path else ""].append(source)
        return [group for folder in folders.values() for group in _related(folder)]

    def read(self, sources: Sequence[LogSource], skipped: SkipLog) -> Iterator[WorkflowLog]:
        """Yield one workflow per trajectory to which no other refers."""
        found = list(_trajectories(sources, skipped))
        family = _Family(found)
        for root in family.roots():
            try:
                log = _Workflow(root, family, skipped).build()
            except (ValueError, RecursionError) as error:
                log, reason = None, f"trajectory cannot be used: {error}"
            else:
                reason = "trajectory without a usable step"
            if log is None:
                skipped.line(root.source.label, root.line, reason)
            else:
                yield log


class _Trajectory(NamedTuple):
    """One trajectory, and where it is logged."""

    record: Record
    source: LogSource
    line: int

    @property
    def identifier(self) -> str:
        return (
            string(self.record.get("trajectory_id"))
            or string(self.record.get("session_id"))
            or fingerprint(self.record)
        )

    @property
    def agent(self) -> Record:
        return mapping(self.record.get("agent"))

    @property
    def agent_name(self) -> str:
        return string(self.agent.get("name")) or "agent"

    @property
    def embedded(self) -> list[_Trajectory]:
        records = sequence(self.record.get("subagent_trajectories"))
        return [_Trajectory(record, self.source, self.line) for record in records if _has_steps(record)]


def _is_trajectory(record: Any) -> bool:
    return isinstance(record, dict) and str(record.get("schema_version", "")).startswith("ATIF-")


def _has_steps(record: Any) -> bool:
    return isinstance(record, dict) and isinstance(record.get("steps"), list)


def _trajectories(sources: Sequence[LogSource], skipped: SkipLog) -> Iterator[_Trajectory]:
    for source in sources:
        try:
            for line, record in source.documents(skipped):
                if _is_trajectory(record) and _has_steps(record):
                    yield _Trajectory(record, source, line)
                else:
                    skipped.line(source.label, line, "not an ATIF trajectory with steps")
        except InputError as error:  # its relatives can be read all the same
            skipped.file(error.path or source.label, error.message, line=error.line)


def _related(sources: Sequence[LogSource]) -> list[list[LogSource]]:
    if len(sources) == 1:
        return [list(sources)]
    by_label = {source.label: source for source in sources}
    found = _trajectories(sources, SkipLog(keep=0))  # what is skipped is counted by `read`
    family = _Family([trajectory._replace(record=_outline(trajectory.record)) for trajectory in found])
    parents = {
        child.source.label: parent.source.label
        for parent, child in family.references()
        if child.source.label != parent.source.label
    }
    return group_by_root(by_label, parents)


def _outline(record: Record) -> Record:
    """Return identifiers and references alone: thousands of trajectories may lie in a folder."""
    references = [{"subagent_trajectory_ref": result.get("subagent_trajectory_ref")} for result in _all_results(record)]
    return {
        **{name: record.get(name) for name in ("trajectory_id", "session_id", "continued_trajectory_ref")},
        "steps": [{"observation": {"results": [one for one in references if one["subagent_trajectory_ref"]]}}],
        "subagent_trajectories": [
            _outline(child) for child in sequence(record.get("subagent_trajectories")) if _has_steps(child)
        ],
    }


class _Family:
    """Trajectories that may refer to each other: by identifier, by session, or by the name of their file."""

    def __init__(self, trajectories: Sequence[_Trajectory]) -> None:
        self._trajectories = trajectories
        self._by_key: dict[str, _Trajectory] = {}
        for field in ("trajectory_id", "session_id"):
            for trajectory in trajectories:
                key = string(trajectory.record.get(field))
                if key:
                    self._by_key.setdefault(key, trajectory)
        for trajectory in trajectories:
            self._by_key.setdefault(f"/{trajectory.source.name}", trajectory)

    def roots(self) -> list[_Trajectory]:
        """Return the trajectories to which no other refers; all, if they refer to each other in a circle."""
        referred = {id(child.record) for _, child in self.references()}
        return [one for one in self._trajectories if id(one.record) not in referred] or list(self._trajectories[:1])

    def references(self) -> Iterator[tuple[_Trajectory, _Trajectory]]:
        """Yield each pair of a trajectory and another one to which it refers."""
        for trajectory in self._trajectories:
            for reference in _references(trajectory.record):
                child = self.resolve(trajectory, reference)
                if child is not None and child.record is not trajectory.record:
                    yield trajectory, child

    def resolve(self, parent: _Trajectory, reference: Record) -> _Trajectory | None:
        """Return the trajectory that a reference names, looking into the file of `parent` first; or `None`."""
        wanted = string(reference.get("trajectory_id")) or string(reference.get("session_id"))
        for child in parent.embedded:
            if wanted and wanted in (child.record.get("trajectory_id"), child.record.get("session_id")):
                return child
        path = string(reference.get("trajectory_path"))
        by_path = self._by_key.get(f"/{PurePosixPath(path).name}") if path else None
        return by_path or (self._by_key.get(wanted) if wanted else None)


def _references(record: Record) -> Iterator[Record]:
    for result in _all_results(record):
        yield from map(mapping, sequence(result.get("subagent_trajectory_ref")))
    continued = string(record.get("continued_trajectory_ref"))
    if continued:
        yield {"trajectory_path": continued}


def _all_results(record: Record) -> Iterator[Record]:
    for step in map(mapping, sequence(record.get("steps"))):
        yield from _results(step)


def _results(step: Record) -> list[Record]:
    return [mapping(result) for result in sequence(mapping(step.get("observation")).get("results"))]


class _Workflow:
    """Writes a trajectory, its sub-agents and its continuations as one workflow."""

    def __init__(self, root: _Trajectory, family: _Family, skipped: SkipLog) -> None:
        self._root = root
        self._family = family
        self._skipped = skipped
        self._builder = LogBuilder(
            f"atif:{root.identifier}",
            source="atif",
            framework=root.agent_name,
            origin=root.source.label if root.source.path else None,
        )
        self._turns = UserTurns()
        self._labels: Counter[str] = Counter()
        self._written: set[int] = set()
        self._unseen_calls = 0

    def build(self) -> WorkflowLog | None:
        """Return the workflow, or `None` where no step is usable."""
        self._trajectory(self._root, "main", None)
        known = {
            "session_id": string(self._root.record.get("session_id")),
            "agent_version": string(self._root.agent.get("version")),
            "schema_version": string(self._root.record.get("schema_version")),
            "final_metrics": mapping(self._root.record.get("final_metrics")),
            "calls_within_steps": self._unseen_calls,
        }
        self._builder.meta = {name: value for name, value in known.items() if value}
        return self._builder.build()

    def _trajectory(self, trajectory: _Trajectory, run: str, parent: str | None, *, continued: bool = False) -> None:
        self._written.add(id(trajectory.record))
        where: Record = {"agent": trajectory.agent_name, "agent_run": run, "parent_agent": parent}
        anew: Record = {"compaction": True} if continued else {}
        for piece in tool_definitions(trajectory.agent.get("tool_definitions")):
            self._builder.add(piece.kind, piece.content, **where, stage=self._turns.stage, **anew)
            anew = {}
        for number, step in enumerate(sequence(trajectory.record.get("steps")), start=1):
            before = len(self._builder)
            self._step(trajectory, number, mapping(step), where, anew)
            if len(self._builder) > before:
                anew = {}
        for child in trajectory.embedded:
            if id(child.record) not in self._written:
                self._child(child, run)
        self._continuation(trajectory, run, parent)

    def _continuation(self, trajectory: _Trajectory, run: str, parent: str | None) -> None:
        name = string(trajectory.record.get("continued_trajectory_ref"))
        following = self._family.resolve(trajectory, {"trajectory_path": name}) if name else None
        if following is not None and id(following.record) not in self._written:
            self._trajectory(following, run, parent, continued=True)

    def _child(self, child: _Trajectory, parent: str) -> None:
        label = f"sub:{child.identifier}"
        self._labels[label] += 1
        count = self._labels[label]
        self._trajectory(child, label if count == 1 else f"{label}#{count}", parent)

    def _step(self, trajectory: _Trajectory, number: int, step: Record, where: Record, anew: Record) -> None:
        fields = {**where, "started_at": moment(step.get("timestamp")), **anew}
        copied = step.get("is_copied_context") is True
        match step.get("source"):
            case "user":
                if where["agent_run"] == "main" and not copied:
                    self._turns.user()
                self._builder.add(Kind.USER, as_text(step.get("message")), **fields, stage=self._turns.stage)
            case "system":
                fields["compaction"] = bool(anew) or self._starts_anew(trajectory, step)
                self._builder.add(Kind.SYSTEM, as_text(step.get("message")), **fields, stage=self._turns.stage)
            case "agent":
                self._agent_step(trajectory, step, fields, copied=copied)
            case _:
                reason = f"step {number} comes neither from a user, nor an agent, nor the system"
                self._skipped.line(trajectory.source.label, trajectory.line, reason)
                return
        self._observation(trajectory, step, where)

    def _agent_step(self, trajectory: _Trajectory, step: Record, fields: Record, *, copied: bool) -> None:
        targets = self._targets(trajectory, step)
        pieces = [
            Piece(kind, text)
            for kind, text in (
                (Kind.THINKING, as_text(step.get("reasoning_content"))),
                (Kind.ASSISTANT, as_text(step.get("message"))),
            )
            if text
        ]
        for call in map(mapping, sequence(step.get("tool_calls"))):
            link, name = string(call.get("tool_call_id")), string(call.get("function_name"))
            target = targets.get(link)
            kind = Kind.HANDOFF if target else Kind.TOOL_CALL
            pieces.append(Piece(kind, compact(call.get("arguments", {})), target or name, link))
        fields["stage"] = self._turns.stage
        made = as_int(step.get("llm_call_count"))
        if copied or made == 0:  # context from elsewhere, or dispatched without a model
            for piece in pieces:
                self._builder.add(piece.kind, piece.content, name=piece.name, link=piece.link, **fields)
                fields.pop("compaction", None)
            return
        self._unseen_calls += max(0, (made or 1) - 1)
        if fields["agent_run"] == "main":
            self._turns.completion()
        metrics = mapping(step.get("metrics"))
        model = string(step.get("model_name")) or string(trajectory.agent.get("model_name"))
        add_completion(
            self._builder,
            pieces,
            usage=_usage(metrics),
            cost_usd=amount(metrics.get("cost_usd")),
            model=model,
            **{name: value for name, value in fields.items() if name != "compaction"},
        )

    def _observation(self, trajectory: _Trajectory, step: Record, where: Record) -> None:
        names = {
            string(call.get("tool_call_id")): string(call.get("function_name"))
            for call in map(mapping, sequence(step.get("tool_calls")))
        }
        results = _results(step)
        links = [string(result.get("source_call_id")) for result in results]
        if not any(links) and len(links) == len(names):
            links = list(names)  # one result for each call, in order
        for result, link in zip(results, links, strict=True):
            children = self._children(trajectory, result)
            for child in children:
                if id(child.record) not in self._written:
                    self._child(child, where["agent_run"])
            content = as_text(result.get("content"))
            if content or link:
                of_result = Kind.HANDOFF_RESULT if children else Kind.TOOL_RESULT
                self._builder.add(
                    Kind.SYSTEM if step.get("source") == "system" and not children else of_result,
                    content,
                    name=children[0].agent_name if children else names.get(link),
                    link=link,
                    stage=self._turns.stage,
                    started_at=moment(step.get("timestamp")),
                    **where,
                )

    def _starts_anew(self, trajectory: _Trajectory, step: Record) -> bool:
        """Whether a system step replaces the context: it says so, or its sub-agents summarise, as in Terminus 2."""
        if mapping(mapping(step.get("extra")).get("context_management")):
            return True
        children = (child for result in _results(step) for child in self._children(trajectory, result))
        return any("summarization" in child.agent_name for child in children)

    def _targets(self, trajectory: _Trajectory, step: Record) -> dict[str | None, str]:
        """Map calls of a step to the agent that they start."""
        return {
            string(result.get("source_call_id")): child.agent_name
            for result in _results(step)
            for child in self._children(trajectory, result)[:1]
            if string(result.get("source_call_id"))
        }

    def _children(self, trajectory: _Trajectory, result: Record) -> list[_Trajectory]:
        references = map(mapping, sequence(result.get("subagent_trajectory_ref")))
        found = (self._family.resolve(trajectory, reference) for reference in references)
        return [child for child in found if child is not None and child.record is not trajectory.record]


def _usage(metrics: Record) -> Usage | None:
    """Return the usage of a step in the canonical columns, or `None` where there is none.

    What was written to the cache stands in `extra`; some agents count it within the prompt, others beside it.
    """
    extra = mapping(metrics.get("extra"))
    prompt, read = as_int(metrics.get("prompt_tokens")), as_int(metrics.get("cached_tokens"))
    written = as_int(extra.get("cache_creation_input_tokens"))
    rest = None if prompt is None else max(0, prompt - (read or 0))
    if rest is not None and written is not None and written <= rest:
        rest -= written
    counted = known_usage(
        input_uncached=rest,
        cache_read=read,
        cache_write_5m=written,
        output=as_int(metrics.get("completion_tokens")),
        reasoning=as_int(extra.get("reasoning_tokens")),
    )
    return unstated_lifetime(counted)
