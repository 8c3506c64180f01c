"""Importer for sessions of the pi coding agent (`~/.pi/agent/sessions/**/*.jsonl`).

Facts of the format, versions 1 to 3:

- One JSON object per line: a `session` header, then entries. From version 2 on, entries form a tree by `id` and
  `parentId`: going back to an earlier entry starts a branch in the same file. What a completion saw is its path to
  the root, so its prompt is recorded wherever it differs from "everything so far".
- `usage.input` excludes cached tokens. A call that was aborted before the first token has zeros in all columns, which
  say nothing; one that broke off later (`stopReason` `error` or `aborted`) has a streaming placeholder as output count.
- A `compaction` entry replaces what came before `firstKeptEntryId` by its summary; the kept messages stay verbatim.
- `custom_message`, `branch_summary` and `bashExecution` reach the model, but no user's turn starts with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder
from apportion.telemetry.importers._base import SingleFileImporter, as_int, as_text, unstated_lifetime
from apportion.telemetry.importers._completions import Links, Piece, add_completion
from apportion.telemetry.importers._fields import (
    amount,
    compact,
    fingerprint,
    head_records,
    identifier,
    mapping,
    moment,
    string,
)
from apportion.telemetry.importers._runs import UserTurns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.reading import LogSource, SkipLog

_BROKEN_OFF = {"error", "aborted"}


class PiImporter(SingleFileImporter):
    """Reads sessions of the pi coding agent."""

    name = "pi"
    title = "pi coding agent"

    def sniff(self, source: LogSource) -> float:
        """Recognise the session header, or messages with pi's role names in a log whose head is lost."""
        first = [mapping(value) for value in _records(head_records(source))]
        if any(_is_header(value) for value in first[:1]):
            return 0.95
        roles = {string(mapping(value.get("message")).get("role")) for value in first if value.get("type") == "message"}
        return 0.8 if roles & {"toolResult", "bashExecution"} else 0.0

    def read(self, sources: Sequence[LogSource], skipped: SkipLog) -> Iterator[WorkflowLog]:
        """Yield one workflow per session file."""
        for source in sources:
            records = [(line, record) for line, value in source.documents(skipped) for record in _records([value])]
            log = _Session(source.label, skipped).build(records)
            if log is None:
                skipped.file(source.label, "no message in the session", unused=True)
            else:
                yield log


def _is_header(value: dict[str, Any]) -> bool:
    if value.get("type") != "session" or not isinstance(value.get("cwd"), str) or not isinstance(value.get("id"), str):
        return False
    return "timestamp" in value and "message" not in value


def _index_name(index: Any) -> str:
    """Name an entry of version 1, which has no ids, by its position in the file."""
    return f"#{index}"


def _records(values: Sequence[Any]) -> Iterator[Any]:
    """Flatten JSON arrays: a session may also be exported as one array of entries."""
    for value in values:
        if isinstance(value, list):
            yield from value
        elif value is not None:
            yield value


class _Session:
    """One session on its way to a workflow."""

    def __init__(self, label: str, skipped: SkipLog) -> None:
        self._label = label
        self._skipped = skipped
        self._header: dict[str, Any] = {}
        self._builder = LogBuilder("pi:", source="pi", framework="pi")
        self._links = Links()
        self._turns = UserTurns()
        self._path = _Path()

    def build(self, records: Sequence[tuple[int, Any]]) -> WorkflowLog | None:
        """Turn the records of the file into a workflow, or `None` where nothing was said."""
        for index, (line, record) in enumerate(records):
            if not isinstance(record, dict) or not isinstance(record.get("type"), str):
                self._skipped.line(self._label, line, "not a session entry")
                continue
            try:
                self._entry(record, line, index)
            except RecursionError:
                self._skipped.line(self._label, line, "nested too deeply")
        if len(self._builder) == 0:
            return None
        session = identifier(self._header.get("id"))
        self._builder.workflow_id = f"pi:{session or fingerprint([record for _, record in records])}"
        self._builder.origin = self._label
        self._builder.meta.update(_header_meta(self._header))
        return self._builder.build()

    def _entry(self, record: dict[str, Any], line: int, index: int) -> None:
        if record["type"] == "session":
            self._header = self._header or record
            return
        entry = string(record.get("id")) or _index_name(index)
        if not self._path.enter(entry, record.get("parentId"), linked="parentId" in record):
            self._skipped.line(self._label, line, f"entry {entry} appears twice")
            return
        match record["type"]:
            case "message":
                self._message(record, line)
            case "compaction":
                self._compaction(record)
            case "branch_summary":
                self._context(as_text(record.get("summary")), "branch_summary", record)
            case "custom_message":
                self._context(as_text(record.get("content")), string(record.get("customType")), record)
            case "session_info":
                self._builder.meta["name"] = as_text(record.get("name"))
            case _:
                pass  # changes of model or thinking level, labels, extension state: not part of any prompt

    def _message(self, record: dict[str, Any], line: int) -> None:
        message = record.get("message")
        if not isinstance(message, dict):
            self._skipped.line(self._label, line, "message without content")
            return
        match message.get("role"):
            case "user":
                self._turns.user()
                self._add(Kind.USER, as_text(message.get("content")), record)
            case "assistant":
                self._completion(message, record)
            case "toolResult":
                link, name = self._links.result(message.get("toolCallId"), string(message.get("toolName")))
                content = as_text(message.get("content"))
                failed = message.get("isError") is True
                self._add(Kind.TOOL_RESULT, content, record, name=name, link=link, is_error=failed)
            case "bashExecution":
                if message.get("excludeFromContext") is not True:
                    text = f"{as_text(message.get('command'))}\n{as_text(message.get('output'))}"
                    self._context(text, "bashExecution", record)
            case "custom" | "hookMessage":
                self._context(as_text(message.get("content")), string(message.get("customType")), record)
            case "branchSummary" | "compactionSummary" as role:
                self._context(as_text(message.get("summary")), role, record)
            case role:
                self._skipped.line(self._label, line, f"unknown role {role!r}")

    def _completion(self, message: dict[str, Any], record: dict[str, Any]) -> None:
        usage = _usage(message)
        cost = amount(mapping(mapping(message.get("usage")).get("cost")).get("total"))
        before = len(self._builder)
        self._turns.completion()
        add_completion(
            self._builder,
            _pieces(message, self._links),
            agent="main",
            agent_run="main",
            usage=usage,
            prompt_steps=self._path.prompt,
            cost_usd=cost if usage is not None else None,
            model=string(message.get("model")),
            stage=self._turns.stage,
            started_at=moment(message.get("timestamp")) or moment(record.get("timestamp")),
        )
        self._path.extend(range(before, len(self._builder)))

    def _compaction(self, record: dict[str, Any]) -> None:
        before = len(self._builder)
        self._builder.add(
            Kind.USER,
            as_text(record.get("summary")),
            agent="main",
            agent_run="main",
            name="compaction",
            stage=self._turns.stage,
            started_at=moment(record.get("timestamp")),
            compaction=True,
        )
        first_kept = record.get("firstKeptEntryId", _index_name(record.get("firstKeptEntryIndex")))
        self._path.compact(before, string(first_kept))

    def _context(self, content: str, name: str | None, record: dict[str, Any]) -> None:
        self._add(Kind.USER, content, record, name=name)

    def _add(self, kind: Kind, content: str, record: dict[str, Any], **fields: Any) -> None:
        message = mapping(record.get("message"))
        event = self._builder.add(
            kind,
            content,
            agent="main",
            agent_run="main",
            stage=self._turns.stage,
            started_at=moment(record.get("timestamp")) or moment(message.get("timestamp")),
            **fields,
        )
        self._path.extend([event.step])


class _Path:
    """The context of the current entry: the steps on its path to the root, as far as no compaction replaced them."""

    def __init__(self) -> None:
        self._entry: str | None = None
        self._parents: dict[str, str | None] = {}
        self._steps: dict[str, list[int]] = {}
        self._compactions: dict[str, tuple[int, str | None]] = {}
        self._context: list[int] = []
        self._everything: list[int] = []  # what `Event` means by an absent prompt
        self._differs = False

    @property
    def prompt(self) -> tuple[int, ...] | None:
        """The prompt of a coming completion, or `None` while it is simply everything so far."""
        return tuple(self._context) if self._differs else None

    def enter(self, entry: str, parent: Any, *, linked: bool) -> bool:
        """Go to a new entry; `False` if the file has it already.

        A parent that is not in the file, or an entry without one (version 1), continues the current entry.
        """
        if entry in self._parents:
            return False
        origin = parent if isinstance(parent, str) and parent in self._parents else self._entry
        if linked and parent is None:
            origin = None
        branches = origin != self._entry
        self._parents[entry] = origin
        self._steps[entry] = []
        self._entry = entry
        if branches:
            self._rebuild()
        return True

    def extend(self, steps: Iterable[int]) -> None:
        """Add steps to the current entry."""
        added = list(steps)
        if self._entry is not None:
            self._steps[self._entry] += added
        self._context += added
        self._everything += added

    def compact(self, step: int, first_kept: str | None) -> None:
        """Replace the context by a summary and the entries from `first_kept` on."""
        if self._entry is not None:
            self._compactions[self._entry] = (step, first_kept)
        self._everything = [step]
        self._rebuild()

    def _rebuild(self) -> None:
        context: list[list[int]] = []
        kept: list[list[int]] = []
        summary: int | None = None
        first_kept: str | None = None
        entry = self._entry
        while entry is not None:
            if summary is None and entry in self._compactions:
                summary, first_kept = self._compactions[entry]
            elif summary is None:
                context.append(self._steps[entry])
            elif first_kept is not None:
                kept.append(self._steps[entry])
                if entry == first_kept:
                    break
            entry = self._parents[entry]
        if summary is not None:
            complete = entry is not None and entry == first_kept
            context += [*(kept if complete else []), [summary]]
        self._context = [step for steps in reversed(context) for step in steps]
        self._differs = self._context != self._everything


def _pieces(message: dict[str, Any], links: Links) -> list[Piece]:
    content = message.get("content")
    if not isinstance(content, list):
        return [Piece(Kind.ASSISTANT, as_text(content))]
    return [_piece(block, links) for block in content if isinstance(block, dict | str)]


def _piece(block: dict[str, Any] | str, links: Links) -> Piece:
    if isinstance(block, dict) and block.get("type") == "toolCall":
        name = string(block.get("name"))
        return Piece(Kind.TOOL_CALL, compact(block.get("arguments", {})), name, links.call(block.get("id"), name))
    if isinstance(block, dict) and block.get("type") == "thinking":
        return Piece(Kind.THINKING, as_text(block.get("thinking")))
    return Piece(Kind.ASSISTANT, as_text([block]))


def _usage(message: dict[str, Any]) -> Usage | None:
    given = mapping(message.get("usage"))
    columns = {
        "input_uncached": as_int(given.get("input")),
        "cache_read": as_int(given.get("cacheRead")),
        "cache_write_5m": as_int(given.get("cacheWrite")),
        "output": as_int(given.get("output")),
    }
    broken_off = string(message.get("stopReason")) in _BROKEN_OFF
    if not any(columns.values()) and (broken_off or all(tokens is None for tokens in columns.values())):
        return None
    return unstated_lifetime(Usage(**columns, estimated=frozenset({"output"}) if broken_off else frozenset()))


def _header_meta(header: dict[str, Any]) -> dict[str, Any]:
    names = {"version": "version", "cwd": "cwd", "parentSession": "parent_session", "branchedFrom": "parent_session"}
    return {name: header[key] for key, name in names.items() if isinstance(header.get(key), str | int)}
