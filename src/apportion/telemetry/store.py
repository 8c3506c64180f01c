"""The telemetry store: imported workflows in one SQLite file.

    with TelemetryStore(path) as store:
        for log in read_logs(["~/.claude/projects"], SkipLog()):
            store.add(log)
        print(store.summary().workflows)

One workflow is one transaction, so whatever ends a process, the store holds whole workflows only.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from apportion.errors import InputError, StoreError
from apportion.telemetry._database import Database
from apportion.telemetry._privacy import load_hasher
from apportion.telemetry._rows import Fingerprint, bind, decode_summary, encode_time, fingerprint
from apportion.telemetry._tables import (
    StoredVersion,
    checksum,
    content_hashes,
    damaged_workflows,
    find_version,
    insert_workflow,
    read_outcomes,
    read_workflow,
    workflow_rows,
    write_import,
    write_outcomes,
)
from apportion.telemetry._totals import summarise
from apportion.telemetry.sessions import damaged_events
from apportion.telemetry.stored import (
    Added,
    FileGroup,
    GroupRecord,
    ModelSummary,
    Outcome,
    SourceSummary,
    StoredEvent,
    StoredOutcome,
    StoredWorkflow,
    StoreSummary,
    UsageTotals,
    WorkflowSummary,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from apportion.telemetry._privacy import Hasher
    from apportion.telemetry.events import WorkflowLog

__all__ = [
    "Added",
    "FileGroup",
    "GroupRecord",
    "ModelSummary",
    "Outcome",
    "SourceSummary",
    "StoreSummary",
    "StoredEvent",
    "StoredOutcome",
    "StoredWorkflow",
    "TelemetryStore",
    "UsageTotals",
    "WorkflowSummary",
]

_PAGE = 500


class TelemetryStore:
    """Workflows that were imported, kept for training and replay.

    Safe from several threads and several processes. By default no content is kept, only sizes, token counts and
    keyed hashes; the key lies in `<path>.key`, with mode 0600. `_privacy` says what else is kept.

    Args:
        path: The file; it is created with mode 0600, its folder with mode 0700, where they do not exist.
        capture_content: Keep contents, and all of `outcome` and `meta`, of the workflows that are added, with the
            secrets taken out (see `redaction`).
        count_tokens: Counts the tokens of a content; default `apportion.tokens.count_tokens`.
        clock: Gives the time of an import.
        forecast: Forecasts the runs of each workflow that is written, and says what they used; that is stored along
            with it. It is given the workflow, and when an earlier version of it was stored, or `None`. It must not
            raise.

    Raises:
        StoreError: The file is not a telemetry store, too new, damaged, or cannot be opened. It is never overwritten.
    """

    def __init__(
        self,
        path: Path,
        *,
        capture_content: bool = False,
        count_tokens: Callable[[str], int] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        forecast: Callable[[WorkflowLog, datetime | None], Sequence[Outcome]] | None = None,
    ) -> None:
        self._database = Database(path)
        self.path = self._database.path
        self.capture_content = capture_content
        self._count_tokens = count_tokens
        self._clock = clock
        self._forecast = forecast
        self._known_hasher: Hasher | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._database.close()

    def add(self, log: WorkflowLog) -> Added:
        """Store a workflow, unless it is stored already, in one transaction.

        Raises:
            InputError: The workflow holds what cannot be stored: a number beyond 64 bits, or values that are not JSON.
            StoreError: The store cannot be written. In both cases it is as it was before.
        """
        try:
            return self._add(log)
        except OverflowError as error:
            raise InputError(f"workflow {log.id} holds a number beyond 64 bits", path=log.origin) from error

    def compare(self, log: WorkflowLog) -> Added:
        """Return what `add` would do, without doing it."""
        with self._database.reading() as connection:
            if find_version(connection, log.id) is None:
                return Added.NEW
        mine = fingerprint(log, self._hasher())
        with self._database.reading() as connection:
            return self._verdict(connection, find_version(connection, log.id), mine)

    def load(self, workflow_id: str) -> StoredWorkflow | None:
        """Return a workflow, or `None` where there is none of that id.

        Whether its contents are there is what `StoredWorkflow.captured` says.

        Raises:
            StoreError: It cannot be read.
        """
        with self._database.reading() as connection:
            row = connection.execute("SELECT * FROM workflows WHERE id = ?", (bind(workflow_id),)).fetchone()
            if row is None:
                return None
            intact = checksum(connection, row["key"]) == row["checksum"]
            try:
                workflow = read_workflow(connection, row) if intact else None
            except (ValueError, TypeError, KeyError):  # written by something else than this module
                workflow = None
        if workflow is None:
            raise StoreError(
                f"workflow {workflow_id} is damaged in the store {self.path}",
                hint="Delete it and import its log again",
            )
        return workflow

    def delete(self, workflow_id: str) -> bool:
        """Delete a workflow with everything about it, and return whether it was there.

        What is deleted is overwritten in the file. An import of its log stores it again.
        """
        with self._database.writing() as connection:
            name = bind(workflow_id)
            connection.execute(
                "DELETE FROM imports WHERE key IN (SELECT import FROM imported_workflows WHERE id = ?)", (name,)
            )
            found = connection.execute("DELETE FROM workflows WHERE id = ?", (name,)).rowcount > 0
            found |= connection.execute("DELETE FROM live_events WHERE workflow = ?", (name,)).rowcount > 0
        self._database.checkpoint()
        return found

    def record_outcomes(self, workflow_id: str, outcomes: Sequence[Outcome]) -> None:
        """Note what was forecast of a workflow and what it used, in place of what was noted before.

        Raises:
            InputError: There is no such workflow.
        """
        hide = self._hider()
        with self._database.writing() as connection:
            stored = find_version(connection, workflow_id)
            if stored is None:
                raise InputError(f"there is no workflow {workflow_id} in the store {self.path}")
            write_outcomes(connection, stored.key, outcomes, recorded_at=self._clock(), hide=hide)

    def outcomes(self, *, version: str | None = None, latest: int | None = None) -> list[StoredOutcome]:
        """Return what was forecast and what was used, in the order in which it was noted.

        Args:
            version: Only forecasts of this version of the models.
            latest: Only so many, the latest ones.

        Raises:
            StoreError: They cannot be read.
        """
        try:
            with self._database.reading() as connection:
                return read_outcomes(connection, version=version, latest=latest)
        except (ValueError, TypeError) as error:  # written by something else than this module
            raise StoreError(
                f"outcomes are damaged in the store {self.path}", hint="Move it away and import the logs again"
            ) from error

    def workflows(
        self, *, source: str | None = None, framework: str | None = None, since: datetime | None = None
    ) -> Iterator[WorkflowSummary]:
        """Yield the stored workflows in the order in which they were stored.

        Args:
            source: Only those of this source.
            framework: Only those of this framework.
            since: Only those with an event at this time or later; those without any time are left out then.

        Raises:
            InputError: `since` has no time zone.
        """
        if since is not None and since.tzinfo is None:
            raise InputError(f"the time {since} has no time zone", hint="Give one, for example 2026-01-31T00:00:00Z")
        return self._pages({"source": bind(source), "framework": bind(framework), "since_us": encode_time(since)})

    def summary(self) -> StoreSummary:
        """Return what is in the store; a usage that no log mentions is `None`, never 0."""
        with self._database.reading() as connection:
            return summarise(
                connection,
                path=self.path,
                size_bytes=self._database.size_bytes(),
                capture_content=self.capture_content,
            )

    def check(self) -> list[str]:
        """Return what is wrong with the file, in words; nothing where all is well.

        Checks SQLite's structures, the references between tables, and the rows of each workflow and event against its
        checksum.

        Raises:
            StoreError: The file is damaged so much that SQLite cannot check it.
        """
        with self._database.reading() as connection:
            lines = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            problems = [] if lines == ["ok"] else lines
            broken = connection.execute("PRAGMA foreign_key_check").fetchall()
            problems += [f"a row of {row['table']} refers to a missing row of {row['parent']}" for row in broken]
            problems += [f"workflow {name} differs from its checksum" for name in damaged_workflows(connection)]
            if events := damaged_events(connection):
                what = "1 event of sessions differs" if events == 1 else f"{events:,} events of sessions differ"
                problems.append(f"{what} from {'its' if events == 1 else 'their'} checksum")
        return problems

    def known_group(self, group: FileGroup) -> GroupRecord | None:
        """Return what an import of exactly these files found, or `None` where there was none.

        Files of which something was skipped are to be read again all the same, so that the reasons are shown again.
        """
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT workflows, calls, skipped FROM imports WHERE path = ? AND fingerprint = ?",
                (bind(group.path), group.fingerprint),
            ).fetchone()
        return None if row is None else GroupRecord(**row)

    def workflows_of(self, group: FileGroup) -> list[tuple[str, int]]:
        """Return the stored workflows that came from these files, each with its number of calls."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT workflows.id, workflows.calls FROM imports"
                " JOIN imported_workflows AS held ON held.import = imports.key JOIN workflows ON workflows.id = held.id"
                " WHERE path = ? AND imports.fingerprint = ?",
                (bind(group.path), group.fingerprint),
            ).fetchall()
        return [(row["id"], row["calls"]) for row in rows]

    def finish_group(self, group: FileGroup, record: GroupRecord, workflow_ids: Sequence[str]) -> None:
        """Note that a group of files was read to its end.

        Args:
            group: The files as they were before they were read.
            record: What they held.
            workflow_ids: The workflows that came from them.
        """
        with self._database.writing() as connection:
            write_import(connection, group, record, workflow_ids=workflow_ids, imported_at=self._clock())

    def _add(self, log: WorkflowLog) -> Added:
        mine = fingerprint(log, self._hasher())
        with self._database.reading() as connection:
            before = find_version(connection, log.id)
            verdict = self._verdict(connection, before, mine)
        if verdict is Added.UNCHANGED:
            return verdict
        tokens = self._tokens(log, mine)  # slow, hence outside the write transaction; so are forecasts
        outcomes = self._forecast(log, None if before is None else before.imported_at) if self._forecast else ()
        hide = self._hider()
        with self._database.writing() as connection:
            stored = find_version(connection, log.id)
            verdict = self._verdict(connection, stored, mine)
            if verdict is Added.UNCHANGED:  # another process was faster
                return verdict
            if stored is not None:
                connection.execute("DELETE FROM workflows WHERE key = ?", (stored.key,))
            now = self._clock()
            key = insert_workflow(
                connection,
                log,
                fingerprint=mine.whole,
                contents=mine.contents,
                tokens=tokens,
                imported_at=now,
                hide=hide,
                capture=self.capture_content,
            )
            write_outcomes(connection, key, outcomes, recorded_at=now, hide=hide)
        return verdict

    def _pages(self, filters: dict[str, str | bytes | int | None]) -> Iterator[WorkflowSummary]:
        after = 0
        while True:
            with self._database.reading() as connection:
                rows = workflow_rows(connection, {**filters, "after": after, "limit": _PAGE})
            if not rows:
                return
            yield from map(decode_summary, rows)
            after = rows[-1]["key"]

    def _hasher(self) -> Hasher:
        if self._known_hasher is None:
            self._known_hasher = load_hasher(self._database)
        return self._known_hasher

    def _hider(self) -> Callable[[str], str]:
        """Return what hides names: all that do not look like names, or, with contents, those that hold secrets."""
        hasher = self._hasher()
        return hasher.unless_secret if self.capture_content else hasher.name

    def _verdict(self, connection: sqlite3.Connection, stored: StoredVersion | None, mine: Fingerprint) -> Added:
        if stored is None:
            return Added.NEW
        if stored.fingerprint == mine.whole:
            return Added.REPLACED if self.capture_content and not stored.captured else Added.UNCHANGED
        contents = [digest for digest, _ in content_hashes(connection, stored.key)]
        return Added.UNCHANGED if mine.is_older_copy_of(contents) else Added.REPLACED

    def _tokens(self, log: WorkflowLog, mine: Fingerprint) -> dict[bytes, int]:
        """Count tokens, each distinct content once; what an older version held is counted already."""
        with self._database.reading() as connection:
            stored = find_version(connection, log.id)
            tokens = {} if stored is None else dict(content_hashes(connection, stored.key))
        count = self._counter()
        for event, digest in zip(log.events, mine.contents, strict=True):
            if digest not in tokens:
                tokens[digest] = count(event.content)
        return tokens

    def _counter(self) -> Callable[[str], int]:
        if self._count_tokens is None:
            from apportion.tokens import count_tokens

            self._count_tokens = count_tokens
        return self._count_tokens
