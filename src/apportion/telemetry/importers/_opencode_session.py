"""Turns one OpenCode session into events."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.records import Kind, Usage
from apportion.telemetry.importers._base import as_int, as_text, omitted_media, unstated_lifetime
from apportion.telemetry.importers._completions import Links
from apportion.telemetry.importers._fields import amount, compact, mapping, moment, sequence, string
from apportion.telemetry.importers._runs import CLEARED_RESULT, RunContext, UserTurns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from apportion.telemetry.events import LogBuilder
    from apportion.telemetry.reading import SkipLog

MAIN = "main"

_HANDOFF_TOOL = "task"
_SILENT_PARTS = frozenset({"agent", "compaction", "patch", "retry", "snapshot", "step-finish", "step-start", "subtask"})
_AFTER_COMPACTION = "What did we do so far?"
"""What OpenCode sends, with the summary as its answer, in place of a compacted history."""


class _Result(NamedTuple):
    """A tool result that waits until all outputs of its completion are written."""

    part: dict[str, Any]
    link: str
    time: datetime | None


class OpenCodeSession:
    """Writes the events of one session.

    Args:
        document: The exported session.
        builder: Takes the events.
        turns: Counts the user turns of the main run.
        run: The agent run.
        parent: The agent run of the session that started this one, or `None`.
        label: The file, for messages.
        skipped: Takes note of messages and parts that cannot be used; their position stands for the line.
    """

    def __init__(
        self,
        document: dict[str, Any],
        builder: LogBuilder,
        turns: UserTurns,
        *,
        run: str,
        parent: str | None,
        label: str,
        skipped: SkipLog,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._messages = sequence(document.get("messages"))
        self._builder = builder
        self._turns = turns
        self._run = run
        self._parent = parent
        self._label = label
        self._skipped = skipped
        self._links = Links(f"{run}:")
        self._context = RunContext()
        self._starts: dict[str, int] = {}
        """Per message, the length of the context before it."""
        self._to_clear: list[tuple[datetime, int, dict[str, Any]]] = []
        """Tool results that were cleared later: when, their step, and fields of the event that replaces them."""
        self._compacting: tuple[int, str | None] | None = None
        """Where in the context a compaction was asked for, and the first message that it keeps."""
        self._position = 0

    def play(self) -> Iterator[datetime | None]:
        """Write the session's events bit by bit, each time after yielding the time of the next ones."""
        for position, message in enumerate(self._messages, start=1):
            self._position = position
            info, parts = mapping(mapping(message).get("info")), sequence(mapping(message).get("parts"))
            yield _created(info)
            self._starts[string(info.get("id")) or ""] = len(self._context.steps)
            if info.get("role") == "user":
                self._user(info, parts)
            elif info.get("role") == "assistant":
                yield from self._assistant(info, parts)
            else:
                self._skip("message without a role")

    def _assistant(self, info: dict[str, Any], parts: list[Any]) -> Iterator[datetime | None]:
        self.counts["errors"] += bool(info.get("error"))
        steps = _steps([part for part in parts if self._is_usable(part)])
        for step in steps:
            yield _start(step[0]) if step else None
            for result in self._completion(info, step, only=len(steps) == 1):
                yield result.time
                self._result(info, result)
        if info.get("summary") is True and not info.get("error"):
            self._compact(info, parts)

    def _is_usable(self, part: Any) -> bool:
        usable = isinstance(part, dict) and isinstance(part.get("type"), str)
        if not usable:
            self._skip("part without a type")
        return usable

    def _skip(self, reason: str) -> None:
        self._skipped.line(self._label, self._position, reason)

    def _event(self, kind: Kind, content: str, info: dict[str, Any], **fields: Any) -> int:
        agent = string(info.get("agent")) or string(info.get("mode")) or (MAIN if self._run == MAIN else "subagent")
        event = self._builder.add(
            kind,
            content,
            agent=agent,
            agent_run=self._run,
            parent_agent=self._parent,
            stage=self._turns.stage,
            **{"started_at": _created(info), **fields},
        )
        self._context.add(event.step)
        return event.step

    def _user(self, info: dict[str, Any], parts: list[Any]) -> None:
        usable = [part for part in parts if self._is_usable(part)]
        if self._run == MAIN and any(part["type"] == "text" and part.get("synthetic") is not True for part in usable):
            self._turns.user()
        for part in usable:
            if part["type"] == "compaction":
                self._compacting = (len(self._context.steps), string(part.get("tail_start_id")))
            elif part["type"] == "text":
                if part.get("ignored") is not True:
                    name = "synthetic" if part.get("synthetic") is True else None
                    self._event(Kind.USER, as_text(part.get("text")), info, name=name)
            elif part["type"] == "file":
                if not (string(part.get("mime")) or "").startswith("text/"):  # text is repeated in a synthetic part
                    self._event(Kind.USER, omitted_media(part), info)
            elif part["type"] not in _SILENT_PARTS:
                self._skip(f"unknown part type {part['type'][:40]!r}")

    def _completion(self, info: dict[str, Any], step: list[dict[str, Any]], *, only: bool) -> list[_Result]:
        """Write the outputs of one completion; return its tool results."""
        finish = next((part for part in reversed(step) if part["type"] == "step-finish"), info if only else {})
        usage = _usage(mapping(finish.get("tokens")))
        outputs = [part for part in step if part["type"] in {"text", "reasoning", "tool", "file"}]
        if not outputs and (usage is None or not (usage.prompt_tokens or usage.output)):
            return []
        self._clear_results(info, _start(step[0]) if step else None)
        first: dict[str, Any] = {
            "usage": usage,
            "cost_usd": amount(finish.get("cost")),
            "prompt_steps": self._context.prompt(),
        }
        shared = {"call": self._builder.next_call(), "model": string(info.get("modelID"))}
        if self._run == MAIN:
            self._turns.completion()
        results = []
        for part in outputs or [{"type": "text", "text": ""}]:
            fields = {**shared, **first, **_times(part)}
            if part["type"] == "tool":
                results.append(self._call(info, part, fields))
            else:
                kind = Kind.THINKING if part["type"] == "reasoning" else Kind.ASSISTANT
                content = omitted_media(part) if part["type"] == "file" else as_text(part.get("text"))
                self._event(kind, content, info, **fields)
            first = {}
        for part in step:
            if part not in outputs and part["type"] not in _SILENT_PARTS:
                self._skip(f"unknown part type {part['type'][:40]!r}")
        return [result for result in results if result is not None]

    def _call(self, info: dict[str, Any], part: dict[str, Any], fields: dict[str, Any]) -> _Result | None:
        state, tool = mapping(part.get("state")), string(part.get("tool"))
        link = self._links.call(part.get("callID"), tool)
        fields["started_at"] = _start(part) or _created(info)
        self._event(
            _kind(part, Kind.TOOL_CALL), compact(state.get("input", {})), info, name=_name(part), link=link, **fields
        )
        ended = moment(mapping(state.get("time")).get("end"))
        return _Result(part, link, ended) if state.get("status") in ("completed", "error") else None

    def _result(self, info: dict[str, Any], result: _Result) -> None:
        state = mapping(result.part.get("state"))
        failed = state.get("status") == "error"
        attached = [omitted_media(mapping(file)) for file in sequence(state.get("attachments"))]
        text = "\n".join([as_text(state.get("error" if failed else "output")), *attached])
        fields = {"name": _name(result.part), "link": result.link, "is_error": failed}
        kind = _kind(result.part, Kind.TOOL_RESULT)
        times = {"started_at": result.time or _created(info), "duration_ms": _times(state).get("duration_ms")}
        step = self._event(kind, text, info, **fields, **times)
        cleared = moment(mapping(state.get("time")).get("compacted"))
        if cleared is not None:
            self._to_clear.append((cleared, step, {"kind": kind, **fields}))

    def _clear_results(self, info: dict[str, Any], now: datetime | None) -> None:
        """Put the placeholder in the place of tool results that were cleared before this moment."""
        now = now or _created(info)
        due = [item for item in self._to_clear if now is not None and item[0] <= now]
        self._to_clear = [item for item in self._to_clear if item not in due]
        for time, step, fields in due:
            if step in self._context.steps:
                new = self._event(
                    fields["kind"], CLEARED_RESULT, info, name=fields["name"], link=fields["link"], started_at=time
                )
                self._context.steps.pop()
                self._context.replace(step, new)
                self.counts["cleared_results"] += 1

    def _compact(self, info: dict[str, Any], parts: list[Any]) -> None:
        """Begin the context that follows a summary: question and summary, and the messages that were kept."""
        before, tail = self._compacting or (len(self._context.steps), None)
        kept = self._context.steps[self._starts[tail] : before] if tail in self._starts else []
        texts = [as_text(part.get("text")) for part in parts if isinstance(part, dict) and part.get("type") == "text"]
        self._context.restart()
        if self._compacting is not None:
            self._event(Kind.USER, _AFTER_COMPACTION, info, name="compact_summary", compaction=True)
        self._event(Kind.ASSISTANT, "\n".join(texts), info, name="compact_summary", compaction=self._compacting is None)
        self._context.recall(kept)
        self._compacting = None


def _steps(parts: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split a message's parts into completions; a message without `step-start` is one."""
    steps: list[list[dict[str, Any]]] = [[]]
    for part in parts:
        if part["type"] == "step-start" and any(other["type"] == "step-start" for other in steps[-1]):
            steps.append([])
        steps[-1].append(part)
    return steps


def _usage(tokens: dict[str, Any]) -> Usage | None:
    """Return the canonical columns; newer versions count reasoning beside the output, older ones within it."""
    cache = mapping(tokens.get("cache"))
    counts = {key: as_int(tokens.get(key)) for key in ("input", "output", "reasoning", "total")}
    read, write = as_int(cache.get("read")), as_int(cache.get("write"))
    output, reasoning = counts["output"], counts["reasoning"] or 0
    if output is not None and reasoning:
        separate = sum(count or 0 for count in (counts["input"], output, reasoning, read, write))
        if counts["total"] == separate or reasoning > output:
            output += reasoning
    usage = Usage(
        input_uncached=counts["input"],
        cache_read=read,
        cache_write_5m=write,
        output=output,
        reasoning=counts["reasoning"],
    )
    return None if usage == Usage() else unstated_lifetime(usage)


def _kind(part: dict[str, Any], kind: Kind) -> Kind:
    if part.get("tool") != _HANDOFF_TOOL:
        return kind
    return Kind.HANDOFF if kind is Kind.TOOL_CALL else Kind.HANDOFF_RESULT


def _name(part: dict[str, Any]) -> str | None:
    if part.get("tool") != _HANDOFF_TOOL:
        return string(part.get("tool"))
    given = mapping(mapping(part.get("state")).get("input"))
    return string(given.get("subagent_type")) or "general"


def _created(info: dict[str, Any]) -> datetime | None:
    return moment(mapping(info.get("time")).get("created"))


def _start(part: dict[str, Any]) -> datetime | None:
    timed = mapping(part.get("state")) if part.get("type") == "tool" else part
    return moment(mapping(timed.get("time")).get("start"))


def _times(timed: dict[str, Any]) -> dict[str, Any]:
    """Return start and duration of a part, as far as it has them."""
    time = mapping(timed.get("time"))
    start, end = amount(time.get("start")), amount(time.get("end"))
    times: dict[str, Any] = {} if start is None else {"started_at": moment(time["start"])}
    return times | ({"duration_ms": max(0.0, end - start)} if start is not None and end is not None else {})
