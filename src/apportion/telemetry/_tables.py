"""Reading and writing whole workflows and import records, within a transaction of the caller."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.records import USAGE_COLUMNS
from apportion.telemetry._privacy import as_bytes, safe_part
from apportion.telemetry._rows import (
    EVENT_COLUMNS,
    SUMMARY_COLUMNS,
    bind,
    decode_event,
    decode_summary,
    decode_time,
    decode_usage,
    encode_time,
    event_rows,
    to_json,
    unbind,
    usage_rows,
)
from apportion.telemetry.redaction import redact, redact_json
from apportion.telemetry.stored import Outcome, StoredEvent, StoredOutcome, StoredWorkflow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.stored import FileGroup, GroupRecord

_WORKFLOW_COLUMNS = (*SUMMARY_COLUMNS, "fingerprint", "outcome", "meta")
_EVENT_INSERT_COLUMNS = ("workflow", *EVENT_COLUMNS)
_USAGE_INSERT_COLUMNS = ("workflow", "step", *USAGE_COLUMNS, "estimated")
_ROWS_OF_A_WORKFLOW = (
    f"SELECT {', '.join(_WORKFLOW_COLUMNS)} FROM workflows WHERE key = ?",  # noqa: S608  (our own column names)
    f"SELECT {', '.join(EVENT_COLUMNS)} FROM events WHERE workflow = ? ORDER BY step",  # noqa: S608
    f"SELECT step, {', '.join(USAGE_COLUMNS)}, estimated FROM usages WHERE workflow = ? ORDER BY step",  # noqa: S608
    "SELECT hash, content FROM contents WHERE workflow = ? ORDER BY hash",
)
_OUTCOME_COLUMNS = tuple(Outcome.model_fields)
_IMPORT_COLUMNS = ("path", "size", "modified_ns", "fingerprint", "imported_us", "workflows", "calls", "skipped")


class StoredVersion(NamedTuple):
    """The version of a workflow that is stored.

    Attributes:
        key: Its internal key.
        fingerprint: Keyed hash of everything but the origin.
        captured: Whether its contents are kept.
        imported_at: When it was stored.
    """

    key: int
    fingerprint: bytes
    captured: bool
    imported_at: datetime | None


def find_version(connection: sqlite3.Connection, workflow_id: str) -> StoredVersion | None:
    """Return the stored version of a workflow, or `None`."""
    row = connection.execute(
        "SELECT key, fingerprint, captured, imported_us FROM workflows WHERE id = ?", (bind(workflow_id),)
    ).fetchone()
    if row is None:
        return None
    return StoredVersion(row["key"], row["fingerprint"], bool(row["captured"]), decode_time(row["imported_us"]))


def content_hashes(connection: sqlite3.Connection, key: int) -> list[tuple[bytes, int]]:
    """Return hash and tokens of the content of each event of a workflow, in order."""
    rows = connection.execute(
        "SELECT content_hash, content_tokens FROM events WHERE workflow = ? ORDER BY step", (key,)
    )
    return [(row["content_hash"], row["content_tokens"]) for row in rows]


def insert_workflow(
    connection: sqlite3.Connection,
    log: WorkflowLog,
    *,
    fingerprint: bytes,
    contents: Sequence[bytes],
    tokens: Mapping[bytes, int],
    imported_at: datetime,
    hide: Callable[[str], str],
    capture: bool,
) -> int:
    """Write a workflow that is not in the store, and return its key.

    Args:
        connection: In a write transaction.
        log: The workflow.
        fingerprint: Keyed hash of everything but the origin.
        contents: Keyed hash of each event's content.
        tokens: Tokens of each content, by hash.
        imported_at: The time to note.
        hide: Returns a name as it may be stored.
        capture: Whether contents are kept, without the secrets in them.
    """
    times = [event.started_at for event in log.events if event.started_at is not None]
    texts = {digest: event.content for event, digest in zip(log.events, contents, strict=True)} if capture else {}
    redacted = {digest: redact(as_bytes(text)) for digest, text in texts.items()}
    values = {
        "id": bind(log.id),
        "source": bind(log.source),
        "framework": bind(log.framework),
        "origin": bind(log.origin),
        "captured": capture,
        "imported_us": encode_time(imported_at),
        "started_us": encode_time(min(times, default=None)),
        "ended_us": encode_time(max(times, default=None)),
        "events": len(log.events),
        "calls": log.calls,
        "agents": log.agents,
        "content_tokens": sum(tokens[digest] for digest in contents),
        "redactions": sum(count for _, count in redacted.values()),
        "fingerprint": fingerprint,
        "outcome": to_json(redact_json(log.outcome if capture or log.outcome is None else safe_part(log.outcome))),
        "meta": to_json(redact_json(log.meta if capture else safe_part(log.meta))),
    }
    key = _insert_one(connection, "workflows", _WORKFLOW_COLUMNS, [values[column] for column in _WORKFLOW_COLUMNS])
    events = event_rows(log, contents, tokens, hide)
    connection.executemany(_insert("events", _EVENT_INSERT_COLUMNS), [(key, *row) for row in events])
    connection.executemany(_insert("usages", _USAGE_INSERT_COLUMNS), [(key, *row) for row in usage_rows(log)])
    connection.executemany(
        _insert("contents", ("workflow", "hash", "content")),
        [(key, digest, content) for digest, (content, _) in redacted.items()],
    )
    connection.execute("UPDATE workflows SET checksum = ? WHERE key = ?", (checksum(connection, key), key))
    return key


def read_workflow(connection: sqlite3.Connection, row: sqlite3.Row) -> StoredWorkflow:
    """Return the workflow whose row of `workflows` is given."""
    return StoredWorkflow(
        summary=decode_summary(row),
        events=_read_events(connection, row["key"]),
        outcome=None if row["outcome"] is None else json.loads(row["outcome"]),
        meta=json.loads(row["meta"]),
    )


def _read_events(connection: sqlite3.Connection, key: int) -> tuple[StoredEvent, ...]:
    rows = connection.execute("SELECT * FROM usages WHERE workflow = ?", (key,))
    usages = {row["step"]: decode_usage(row) for row in rows}
    rows = connection.execute("SELECT hash, content FROM contents WHERE workflow = ?", (key,))
    contents = {row["hash"]: row["content"] for row in rows}
    rows = connection.execute("SELECT * FROM events WHERE workflow = ? ORDER BY step", (key,))
    return tuple(decode_event(row, usages.get(row["step"]), contents.get(row["content_hash"])) for row in rows)


def damaged_workflows(connection: sqlite3.Connection) -> list[str]:
    """Return the identifiers of workflows whose rows are not as they were written."""
    rows = connection.execute("SELECT key, id, checksum FROM workflows ORDER BY key").fetchall()
    return [str(unbind(row["id"])) for row in rows if checksum(connection, row["key"]) != row["checksum"]]


def checksum(connection: sqlite3.Connection, key: int) -> bytes:
    """Return the SHA-256 of all rows of a workflow.

    The rows hold keyed hashes of contents, or the contents themselves, so this one needs no key.
    """
    digest = hashlib.sha256()
    for query in _ROWS_OF_A_WORKFLOW:
        for row in connection.execute(query, (key,)):
            digest.update(repr(tuple(row)).encode())
    return digest.digest()


def write_outcomes(
    connection: sqlite3.Connection,
    key: int,
    outcomes: Sequence[Outcome],
    *,
    recorded_at: datetime,
    hide: Callable[[str], str],
) -> None:
    """Write what was forecast of a workflow and what it used, in place of what was noted before.

    They are about the workflow and no part of it, so its checksum does not cover them.
    """
    connection.execute("DELETE FROM outcomes WHERE workflow = ?", (key,))
    rows = []
    for position, outcome in enumerate(outcomes):
        values = outcome.model_dump() | {"agent_run": bind(hide(outcome.agent_run)), "agent": bind(hide(outcome.agent))}
        rows.append((key, position, encode_time(recorded_at), *(values[column] for column in _OUTCOME_COLUMNS)))
    connection.executemany(_insert("outcomes", ("workflow", "position", "recorded_us", *_OUTCOME_COLUMNS)), rows)


def read_outcomes(connection: sqlite3.Connection, *, version: str | None, latest: int | None) -> list[StoredOutcome]:
    """Return the outcomes that `TelemetryStore.outcomes` asks for."""
    columns = ", ".join(_OUTCOME_COLUMNS)
    rows = connection.execute(
        f"SELECT id, framework, recorded_us, {columns} FROM outcomes"  # noqa: S608  (our own column names)
        " JOIN workflows ON workflows.key = outcomes.workflow WHERE :version IS NULL OR version = :version"
        " ORDER BY recorded_us DESC, workflow DESC, position DESC LIMIT :latest",
        {"version": version, "latest": -1 if latest is None else latest},
    ).fetchall()
    return [_decode_outcome(row) for row in reversed(rows)]


def _decode_outcome(row: sqlite3.Row) -> StoredOutcome:
    about = {"workflow": unbind(row["id"]), "framework": unbind(row["framework"])}
    return StoredOutcome(
        **about, recorded_at=decode_time(row["recorded_us"]), **{name: unbind(row[name]) for name in _OUTCOME_COLUMNS}
    )


def write_import(
    connection: sqlite3.Connection,
    group: FileGroup,
    record: GroupRecord,
    *,
    workflow_ids: Sequence[str],
    imported_at: datetime,
) -> None:
    """Note what was found in a group of files, in place of what an earlier import found there."""
    connection.execute("DELETE FROM imports WHERE path = ?", (bind(group.path),))
    values = (
        bind(group.path),
        group.size,
        group.modified_ns,
        group.fingerprint,
        encode_time(imported_at),
        record.workflows,
        record.calls,
        record.skipped,
    )
    key = _insert_one(connection, "imports", _IMPORT_COLUMNS, values)
    connection.executemany(
        "INSERT OR IGNORE INTO imported_workflows (id, import) VALUES (?, ?)",
        [(bind(name), key) for name in workflow_ids],
    )


def _insert_one(connection: sqlite3.Connection, table: str, columns: Sequence[str], values: Sequence[Any]) -> int:
    """Insert one row and return its key."""
    key = connection.execute(_insert(table, columns), values).lastrowid
    assert key is not None
    return key


def _insert(table: str, columns: Sequence[str]) -> str:
    """Return an INSERT statement; table and columns are names of our own, values are always parameters."""
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608


def workflow_rows(connection: sqlite3.Connection, filters: Mapping[str, Any]) -> list[sqlite3.Row]:
    """Return the next rows of `workflows` that pass the filters of `TelemetryStore.workflows`."""
    return connection.execute(
        f"SELECT key, {', '.join(SUMMARY_COLUMNS)} FROM workflows WHERE key > :after"  # noqa: S608  (our own names)
        " AND (:source IS NULL OR source = :source) AND (:framework IS NULL OR framework = :framework)"
        " AND (:since_us IS NULL OR ended_us >= :since_us) ORDER BY key LIMIT :limit",
        filters,
    ).fetchall()
