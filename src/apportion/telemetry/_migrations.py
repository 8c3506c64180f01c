"""The schema of the telemetry store, as an ordered list of steps.

`PRAGMA user_version` counts the steps a file has taken; a new file takes all of them, an older one the rest. A step
is never edited once released: a change of the schema is a further step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

APPLICATION_ID = int.from_bytes(b"appt", "big")
"""Marks a SQLite file as ours (`PRAGMA application_id`)."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE properties (name TEXT NOT NULL PRIMARY KEY, value) WITHOUT ROWID",
        """
        CREATE TABLE imports (
            key INTEGER PRIMARY KEY,
            path TEXT NOT NULL UNIQUE,       -- first file of the group that was read together
            size INTEGER NOT NULL,           -- bytes, all files of the group
            modified_ns INTEGER NOT NULL,    -- newest file of the group
            fingerprint BLOB NOT NULL,       -- files with size and time, importer and its version
            imported_us INTEGER NOT NULL,    -- microseconds since 1970, UTC
            workflows INTEGER NOT NULL,
            calls INTEGER NOT NULL,
            skipped INTEGER NOT NULL         -- files and lines that could not be read
        )
        """,
        """
        CREATE TABLE imported_workflows (    -- which workflows a group of files held
            id TEXT NOT NULL,
            import INTEGER NOT NULL REFERENCES imports (key) ON DELETE CASCADE,
            PRIMARY KEY (id, import)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX imported_workflows_by_import ON imported_workflows (import)",
        """
        CREATE TABLE workflows (
            key INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            source TEXT NOT NULL,
            framework TEXT NOT NULL,
            origin TEXT,
            fingerprint BLOB NOT NULL,       -- keyed hash of everything but the origin
            checksum BLOB,                   -- SHA-256 of all rows of the workflow
            captured INTEGER NOT NULL,       -- whether the contents are kept
            redactions INTEGER NOT NULL,     -- secrets taken out of the contents that are kept
            imported_us INTEGER NOT NULL,
            started_us INTEGER,              -- first and last time of an event
            ended_us INTEGER,
            events INTEGER NOT NULL,
            calls INTEGER NOT NULL,
            agents INTEGER NOT NULL,
            content_tokens INTEGER NOT NULL,
            outcome TEXT,                    -- JSON
            meta TEXT NOT NULL               -- JSON
        )
        """,
        """
        CREATE TABLE events (
            workflow INTEGER NOT NULL REFERENCES workflows (key) ON DELETE CASCADE,
            step INTEGER NOT NULL,
            stage INTEGER NOT NULL,
            agent TEXT NOT NULL,
            agent_run TEXT NOT NULL,
            parent_agent TEXT,
            kind TEXT NOT NULL,
            name TEXT,
            content_hash BLOB NOT NULL,      -- keyed: comparable within this store only
            content_bytes INTEGER NOT NULL,
            content_tokens INTEGER NOT NULL,
            model TEXT,
            call INTEGER,
            opens_call INTEGER NOT NULL,     -- first of its completion that the model wrote
            prompt_steps TEXT,               -- JSON: [[first, length], ...]
            started_at TEXT,                 -- ISO 8601 with the offset of the log
            duration_ms REAL,
            cost_usd REAL,
            link TEXT,
            is_error INTEGER NOT NULL,
            compaction INTEGER NOT NULL,
            PRIMARY KEY (workflow, step)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE usages (
            workflow INTEGER NOT NULL,
            step INTEGER NOT NULL,
            input_uncached INTEGER,          -- NULL: the log does not say
            cache_read INTEGER,
            cache_write_5m INTEGER,
            cache_write_1h INTEGER,
            output INTEGER,
            reasoning INTEGER,
            estimated INTEGER NOT NULL,      -- bit i: column i is an estimate
            PRIMARY KEY (workflow, step),
            FOREIGN KEY (workflow, step) REFERENCES events (workflow, step) ON DELETE CASCADE
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE contents (
            workflow INTEGER NOT NULL REFERENCES workflows (key) ON DELETE CASCADE,
            hash BLOB NOT NULL,
            content BLOB NOT NULL,           -- UTF-8; lone surrogates are kept
            PRIMARY KEY (workflow, hash)
        )
        """,
    ),
    (
        """
        CREATE TABLE outcomes (              -- what was forecast, beside what was used; no text of any log
            workflow INTEGER NOT NULL REFERENCES workflows (key) ON DELETE CASCADE,
            position INTEGER NOT NULL,       -- in the order in which the runs began
            level TEXT NOT NULL,             -- what was forecast: 'run', an agent run in a stage
            agent_run TEXT NOT NULL,
            agent TEXT NOT NULL,
            stage INTEGER NOT NULL,
            low_tokens INTEGER NOT NULL,     -- 10 %, 50 % and 90 % quantile
            median_tokens INTEGER NOT NULL,
            likely_tokens INTEGER NOT NULL,
            used_tokens INTEGER NOT NULL,
            version TEXT NOT NULL,           -- of the models
            recorded_us INTEGER NOT NULL,
            PRIMARY KEY (workflow, level, position)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX outcomes_by_version ON outcomes (version, recorded_us)",
    ),
    (
        """
        CREATE TABLE live_events (           -- what sessions told of themselves while they ran
            key INTEGER PRIMARY KEY,
            recorded_us INTEGER NOT NULL,
            kind TEXT NOT NULL,
            workflow TEXT,
            agent TEXT,
            agent_run TEXT,
            data TEXT NOT NULL,              -- JSON: numbers, names, reasons
            checksum BLOB NOT NULL           -- of all of that
        )
        """,
        "CREATE INDEX live_events_by_workflow ON live_events (workflow, key)",
    ),
)
"""The steps; each is one transaction."""

SCHEMA_VERSION = len(MIGRATIONS)
"""The newest schema that this version of apportion knows."""


class Schema(NamedTuple):
    """What a SQLite file of ours holds.

    Attributes:
        kind: What the file is called in messages.
        application_id: Marks it as that (`PRAGMA application_id`); the first migration sets it.
        migrations: All steps, the oldest first.
        remedy: What is to be done after a damaged file was moved away, beginning with a blank; may be empty.
        synchronous: NORMAL loses, with a write-ahead log, the last transactions in a power cut and nothing else; FULL
            loses nothing.
    """

    kind: str
    application_id: int
    migrations: Sequence[Sequence[str]]
    remedy: str
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"

    @property
    def version(self) -> int:
        """The newest schema that this version of apportion knows."""
        return len(self.migrations)


TELEMETRY = Schema("telemetry store", APPLICATION_ID, MIGRATIONS, " and import the logs again")
"""The telemetry store."""


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the number of steps the file has taken."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Take the steps that are missing, each in one transaction.

    Safe when several processes open the same file: each step looks again under the write lock.

    Args:
        connection: In autocommit mode (`isolation_level=None`).
        migrations: All steps, the oldest first.
    """
    for version, statements in enumerate(migrations, start=1):
        if schema_version(connection) >= version:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            if schema_version(connection) < version:
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
