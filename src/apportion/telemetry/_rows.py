"""Between the records of a workflow and the rows of the store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.errors import InputError
from apportion.records import USAGE_COLUMNS, Kind, Usage
from apportion.telemetry._privacy import as_bytes
from apportion.telemetry.stored import StoredEvent, WorkflowSummary

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from apportion.telemetry._privacy import Hasher
    from apportion.telemetry.events import Event, WorkflowLog

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_US = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

EVENT_COLUMNS = (
    "step",
    "stage",
    "agent",
    "agent_run",
    "parent_agent",
    "kind",
    "name",
    "content_hash",
    "content_bytes",
    "content_tokens",
    "model",
    "call",
    "opens_call",
    "prompt_steps",
    "started_at",
    "duration_ms",
    "cost_usd",
    "link",
    "is_error",
    "compaction",
)
"""Columns of an event, without the workflow it belongs to."""

SUMMARY_COLUMNS = (
    "id",
    "source",
    "framework",
    "origin",
    "captured",
    "imported_us",
    "started_us",
    "ended_us",
    "events",
    "calls",
    "agents",
    "content_tokens",
    "redactions",
)
"""Columns of a workflow that make up its summary."""


class Fingerprint(NamedTuple):
    """Tells versions of one workflow apart.

    Attributes:
        whole: Keyed hash of everything but the origin.
        contents: Keyed hash of each event's content, in order.
    """

    whole: bytes
    contents: tuple[bytes, ...]

    def is_older_copy_of(self, contents: Sequence[bytes]) -> bool:
        """Tell whether these are the first of the given contents, but not all: the log has grown since."""
        count = len(self.contents)
        return count < len(contents) and tuple(contents[:count]) == self.contents


def fingerprint(log: WorkflowLog, hasher: Hasher) -> Fingerprint:
    """Return the fingerprint of a workflow.

    Raises:
        InputError: `outcome` or `meta` hold what is not JSON.
    """
    contents = tuple(hasher.digest(event.content) for event in log.events)
    try:
        parts = [_dump([log.id, log.source, log.framework, log.outcome, log.meta])]
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"outcome or meta of workflow {log.id} is not JSON: {error}", path=log.origin) from error
    parts += [_dump(_facts(event, digest)) for event, digest in zip(log.events, contents, strict=True)]
    return Fingerprint(hasher.digest("\n".join(parts)), contents)


def _facts(event: Event, digest: bytes) -> dict[str, Any]:
    facts = {name: getattr(event, name) for name in type(event).model_fields if name not in {"content", "usage"}}
    facts["content"] = digest.hex()
    facts["started_at"] = None if event.started_at is None else event.started_at.isoformat()
    if event.usage is not None:
        facts["usage"] = [getattr(event.usage, name) for name in USAGE_COLUMNS]
        facts["estimated"] = sorted(event.usage.estimated)
    return facts


def to_json(value: dict[str, Any] | None) -> str | None:
    """Return a value from a log as compact JSON."""
    return None if value is None else json.dumps(value, separators=(",", ":"))


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def bind(text: str | None) -> str | bytes | None:
    """Return a text as SQLite takes it: lone surrogates do not fit into its texts, so those become bytes."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return as_bytes(text)
    return text


def unbind(value: Any) -> str | None:
    """Undo `bind`."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def encode_time(moment: datetime | None) -> int | None:
    """Return microseconds since 1970, UTC, within the years 1 to 9999."""
    return None if moment is None else min(max((moment - _EPOCH) // _MICROSECOND, _FIRST_US), _LAST_US)


def decode_time(microseconds: int | None) -> datetime | None:
    """Undo `encode_time`."""
    return None if microseconds is None else _EPOCH + timedelta(microseconds=microseconds)


def event_rows(
    log: WorkflowLog, contents: Sequence[bytes], tokens: Mapping[bytes, int], hide: Callable[[str], str]
) -> list[tuple[Any, ...]]:
    """Return the rows of a workflow's events, in the order of `EVENT_COLUMNS`.

    Args:
        log: The workflow.
        contents: Keyed hash of each event's content.
        tokens: Tokens of each content, by hash.
        hide: Returns a name as it may be stored.
    """
    opened: set[tuple[str, int]] = set()

    def name(text: str | None) -> str | bytes | None:
        return None if text is None else bind(hide(text))

    def opens(event: Event) -> bool:
        if event.call is None or not event.kind.written_by_model or (event.agent_run, event.call) in opened:
            return False
        opened.add((event.agent_run, event.call))
        return True

    return [
        (
            event.step,
            event.stage,
            name(event.agent),
            name(event.agent_run),
            name(event.parent_agent),
            event.kind.value,
            name(event.name),
            digest,
            len(as_bytes(event.content)),
            tokens[digest],
            name(event.model),
            event.call,
            opens(event),
            None if event.prompt_steps is None else json.dumps(_runs(event.prompt_steps), separators=(",", ":")),
            None if event.started_at is None else event.started_at.isoformat(),
            event.duration_ms,
            event.cost_usd,
            name(event.link),
            event.is_error,
            event.compaction,
        )
        for event, digest in zip(log.events, contents, strict=True)
    ]


def usage_rows(log: WorkflowLog) -> list[tuple[int | None, ...]]:
    """Return step, usage columns and the bits of the estimated ones, for each event with usage."""
    return [
        (
            event.step,
            *(getattr(event.usage, column) for column in USAGE_COLUMNS),
            sum(1 << bit for bit, column in enumerate(USAGE_COLUMNS) if column in event.usage.estimated),
        )
        for event in log.events
        if event.usage is not None
    ]


def estimated_columns(bits: int) -> tuple[str, ...]:
    """Return the names of the columns that are estimated."""
    return tuple(column for bit, column in enumerate(USAGE_COLUMNS) if bits >> bit & 1)


def decode_summary(row: sqlite3.Row) -> WorkflowSummary:
    """Return the summary in a row with `SUMMARY_COLUMNS`."""
    values = dict(row)
    return WorkflowSummary(
        id=unbind(values["id"]),
        source=unbind(values["source"]),
        framework=unbind(values["framework"]),
        origin=unbind(values["origin"]),
        imported_at=decode_time(values["imported_us"]),
        started_at=decode_time(values["started_us"]),
        ended_at=decode_time(values["ended_us"]),
        captured=bool(values["captured"]),
        **{name: values[name] for name in ("events", "calls", "agents", "content_tokens", "redactions")},
    )


def decode_event(row: sqlite3.Row, usage: Usage | None, content: bytes | None) -> StoredEvent:
    """Return the event in a row with `EVENT_COLUMNS`."""
    values = {name: unbind(row[name]) for name in ("agent", "agent_run", "parent_agent", "name", "model", "link")}
    values |= {name: row[name] for name in ("step", "stage", "content_bytes", "content_tokens", "call")}
    return StoredEvent(
        **values,
        kind=Kind(row["kind"]),
        content=unbind(content),
        content_hash=row["content_hash"].hex(),
        usage=usage,
        prompt_steps=None if row["prompt_steps"] is None else _steps(json.loads(row["prompt_steps"])),
        started_at=None if row["started_at"] is None else datetime.fromisoformat(row["started_at"]),
        duration_ms=row["duration_ms"],
        cost_usd=row["cost_usd"],
        is_error=bool(row["is_error"]),
        compaction=bool(row["compaction"]),
    )


def decode_usage(row: sqlite3.Row) -> Usage:
    """Return the usage in a row of `usages`."""
    return Usage(
        **{column: row[column] for column in USAGE_COLUMNS}, estimated=frozenset(estimated_columns(row["estimated"]))
    )


def _runs(steps: Iterable[int]) -> list[list[int]]:
    """Return steps as runs `[first, length]`: a prompt mostly holds consecutive steps."""
    runs: list[list[int]] = []
    for step in steps:
        if runs and step == sum(runs[-1]):
            runs[-1][1] += 1
        else:
            runs.append([step, 1])
    return runs


def _steps(runs: Iterable[Sequence[int]]) -> tuple[int, ...]:
    return tuple(step for first, length in runs for step in range(first, first + length))
