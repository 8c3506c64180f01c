"""Imports the normalised corpus: JSON lines, one event each, several workflows per file.

The lines of one workflow stand together, ordered by `step`; they are read as a stream, one workflow at a time.
Counts of `usage.input` exclude cached tokens; how long what is written to a cache lives is not said. Lines that Claude
Code itself wrote in the place of an answer (model `<synthetic>`) are no calls, as in its own logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder
from apportion.telemetry.importers._base import SingleFileImporter, as_int, as_text, unstated_lifetime
from apportion.telemetry.importers._claude_index import SYNTHETIC
from apportion.telemetry.importers._fields import amount, head_records, mapping, moment, string

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.reading import LogSource, SkipLog

_KINDS = {kind.value: kind for kind in Kind}
_OUTPUT_KINDS = frozenset({Kind.ASSISTANT, Kind.THINKING, Kind.TOOL_CALL, Kind.HANDOFF})
_MARKERS = {"workflow_id", "kind", "agent_run"}
_COLUMNS = {"input": "input_uncached", "cache_read": "cache_read", "cache_write": "cache_write_5m"} | {
    "output": "output",
    "reasoning": "reasoning",
}
_KEPT_BESIDE_EVENTS = {"sub_totals": "sub_totals", "compact": "compactions"}
"""Fields of single events for which `Event` has no place, and their names in the workflow's `meta`."""


class NormalisedImporter(SingleFileImporter):
    """Reads normalised events, one workflow after the other."""

    name = "normalised"
    title = "Normalised events"

    def sniff(self, source: LogSource) -> float:
        """Recognise lines that carry workflow, agent run and kind."""
        values = head_records(source)
        return 1.0 if values and all(mapping(value).keys() >= _MARKERS for value in values[:3]) else 0.0

    def read(self, sources: Sequence[LogSource], skipped: SkipLog) -> Iterator[WorkflowLog]:
        """Yield each workflow as soon as its last line has been read."""
        for source in sources:
            yield from _read(source, skipped)


def _read(source: LogSource, skipped: SkipLog) -> Iterator[WorkflowLog]:
    seen: set[str] = set()
    workflow: _Workflow | None = None
    for number, line in source.json_lines(skipped):
        identifier = string(line.get("workflow_id")) if isinstance(line, dict) else None
        if identifier is None:
            skipped.line(source.label, number, "no workflow_id")
            continue
        if workflow is None or identifier != workflow.builder.workflow_id:
            if identifier in seen:
                skipped.line(source.label, number, f"workflow {identifier} goes on after another one")
                continue
            if workflow is not None and (log := workflow.builder.build()) is not None:
                yield log
            seen.add(identifier)
            workflow = _Workflow(identifier, line, source)
        try:
            reason = workflow.add(line)
        except RecursionError:
            reason = "nested too deeply"
        if reason is not None:
            skipped.line(source.label, number, reason)
    if workflow is not None and (log := workflow.builder.build()) is not None:
        yield log


class _Workflow:
    """One workflow while its lines are read."""

    def __init__(self, identifier: str, line: dict[str, Any], source: LogSource) -> None:
        self.builder = LogBuilder(
            identifier,
            source=string(line.get("source")) or NormalisedImporter.name,
            framework=string(line.get("framework")) or "unknown",
            origin=None if source.path is None else str(source.path),
        )

    def add(self, line: dict[str, Any]) -> str | None:
        """Take over one line; return why it cannot be used, or `None`."""
        kind = _KINDS.get(line["kind"]) if isinstance(line.get("kind"), str) else None
        if kind is None:
            return f"unknown kind {str(line.get('kind'))[:40]!r}"
        agent_run = string(line.get("agent_run"))
        if agent_run is None:
            return "no agent_run"
        if kind in _OUTPUT_KINDS and line.get("model") == SYNTHETIC:
            self._note_beside_events(line)
            self.builder.meta["api_errors"] = self.builder.meta.get("api_errors", 0) + 1
            return None
        name = string(line.get("name"))
        compaction = name == "compact_boundary"
        if kind is Kind.ASSISTANT and name == "thinking":
            kind, name = Kind.THINKING, None
        # A result or message with a call number (as of a code executor) was not written by a model.
        call = as_int(line.get("call")) if kind in _OUTPUT_KINDS else None
        self.builder.add(
            kind,
            as_text(line.get("content")),
            agent=string(line.get("agent")) or agent_run,
            agent_run=agent_run,
            parent_agent=string(line.get("parent_agent")),
            name=name,
            stage=as_int(line.get("stage")) or 0,
            model=string(line.get("model")),
            call=call,
            usage=_usage(line) if call is not None else None,
            started_at=moment(line.get("started_at")),
            duration_ms=amount(line.get("duration_ms")),
            cost_usd=amount(line.get("cost")),
            link=string(line.get("link")),
            is_error=line.get("is_error") is True,
            compaction=compaction,
        )
        self._note_beside_events(line)
        return None

    def _note_beside_events(self, line: dict[str, Any]) -> None:
        """Keep what a line says beside its event: about the whole workflow, or without a place in `Event`."""
        builder, link = self.builder, string(line.get("link"))
        if "outcome" in line:
            builder.outcome = {**(builder.outcome or {}), **mapping(line["outcome"])} or None
        if "meta" in line:
            builder.meta.update(mapping(line["meta"]))
        for field, kept in _KEPT_BESIDE_EVENTS.items():
            if mapping(line.get(field)):
                builder.meta.setdefault(kept, []).append({"step": len(builder) - 1, "link": link, **line[field]})


def _usage(line: dict[str, Any]) -> Usage | None:
    given = mapping(line.get("usage"))
    columns = {column: as_int(given.get(field)) for field, column in _COLUMNS.items()}
    if all(tokens is None for tokens in columns.values()):
        return None
    placeholder = line.get("usage_final") is False and columns["output"] is not None
    return unstated_lifetime(Usage(**columns, estimated=frozenset({"output"} if placeholder else ())))
