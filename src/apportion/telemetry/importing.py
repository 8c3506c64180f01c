"""Imports log files into the telemetry store: resumable, and complete at every moment.

tally = ImportTally()
with TelemetryStore(path) as store:
    import_logs(["~/.claude/projects"], store, tally)
print(tally.workflows[Added.NEW])
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import InputError
from apportion.plugins import load_plugins
from apportion.telemetry._privacy import Hasher
from apportion.telemetry._rows import Fingerprint, fingerprint
from apportion.telemetry.importers import GROUP, SkipLog, find_groups
from apportion.telemetry.stored import Added, FileGroup, GroupRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.importers import LogGroup
    from apportion.telemetry.store import TelemetryStore

__all__ = ["ImportTally", "ImporterInfo", "import_logs", "installed_importers"]


class ImporterInfo(NamedTuple):
    """An importer that is installed.

    Attributes:
        name: Its short name.
        title: The tool whose logs it reads, or `None` where it does not load.
        distribution: The package that brings it.
        version: Version of the package, or `None` where unknown.
        error: Why it does not load, or `None`.
    """

    name: str
    title: str | None
    distribution: str
    version: str | None
    error: str | None


def installed_importers() -> list[ImporterInfo]:
    """Return all importers, also those that do not load, ordered by name."""
    return [
        ImporterInfo(
            name=plugin.name if plugin.error else plugin.value.name,
            title=None if plugin.error else plugin.value.title,
            distribution=plugin.distribution,
            version=plugin.version,
            error=plugin.error,
        )
        for plugin in load_plugins(GROUP)
    ]


class ImportTally:
    """Counts what an import did; right at every moment, also after an interrupt.

    Attributes:
        workflows: Workflows by what became of them; one that several files hold counts once.
        calls: Their model completions, likewise.
        files: Log files done with.
        total_files: Log files found.
        unchanged_files: Files that were not read again, because an earlier import read them as they are.
        read_again_files: Files that an earlier import read as they are, and that were read again, because something of
            them was skipped.
        repeated: Workflows that were found more than once, usually because two files hold them.
        skipped: What could not be read.
        complete: Whether everything was done.
    """

    def __init__(self) -> None:
        self.workflows: Counter[Added] = Counter()
        self.calls: Counter[Added] = Counter()
        self.files = 0
        self.total_files = 0
        self.unchanged_files = 0
        self.read_again_files = 0
        self.repeated = 0
        self.skipped = SkipLog()
        self.complete = False
        self._found: dict[str, _Found] = {}

    def found(self, workflow: str, calls: int, added: Added) -> None:
        """Count what became of a workflow that a file holds."""
        before = self._found.get(workflow)
        if before is None:
            now = _Found(added, calls, files=1)
        else:
            self.workflows[before.added] -= 1
            self.calls[before.added] -= before.calls
            self.repeated += before.files == 1
            now = before.and_again(added, calls)
        self._found[workflow] = now
        self.workflows[now.added] += 1
        self.calls[now.added] += now.calls


class _Found(NamedTuple):
    """What became of a workflow in this import, over all files that hold it."""

    added: Added
    calls: int
    files: int

    def and_again(self, added: Added, calls: int) -> _Found:
        """Return the same after another file that holds the workflow."""
        if added is Added.UNCHANGED:
            kept = max(self.calls, calls) if self.added is Added.UNCHANGED else self.calls
            return _Found(self.added, kept, self.files + 1)
        return _Found(added if self.added is Added.UNCHANGED else self.added, calls, self.files + 1)


def import_logs(
    paths: Iterable[str | Path] | str | Path,
    store: TelemetryStore | None,
    tally: ImportTally,
    *,
    dry_run: bool = False,
    progress: Callable[[], None] | None = None,
) -> None:
    """Import all logs under `paths`.

    Files that an earlier import read completely are not read again while they, their importer and the capture of
    contents are the same. An interrupt loses at most the workflow that is being written.

    Args:
        paths: Files, directories, glob patterns, or `-` for standard input; or a single one of these.
        store: Where the workflows go; `None` in a dry run means a store that does not exist yet.
        tally: Is kept up to date.
        dry_run: Only say what an import would do.
        progress: Called after each workflow and each file.

    Raises:
        StoreError: The store cannot be written; what was imported before stays.
    """
    groups = find_groups(paths, tally.skipped)
    tally.total_files = sum(len(group.sources) for group in groups)
    target = _Rehearsal(store) if dry_run or store is None else store
    readers = {info.name: f"{info.distribution} {info.version}" for info in installed_importers()}
    report = progress or _nothing
    for group in groups:
        reader = f"{group.importer.name} of {readers.get(group.importer.name)}"
        files = _file_group(group, reader, captured=store is not None and store.capture_content)
        known = store.known_group(files) if store is not None and files is not None else None
        if store is not None and files is not None and known is not None and not known.skipped:
            for workflow, calls in store.workflows_of(files):
                tally.found(workflow, calls, Added.UNCHANGED)
            tally.unchanged_files += len(group.sources)
        else:
            tally.read_again_files += len(group.sources) if known is not None else 0
            ids, record = _import_group(group, target, tally, report)
            if files is not None and store is not None and not dry_run:
                store.finish_group(files, record, ids)
        tally.files += len(group.sources)
        report()
    tally.complete = True


def _nothing() -> None:
    """Report to nobody."""


def _import_group(
    group: LogGroup, target: TelemetryStore | _Rehearsal, tally: ImportTally, report: Callable[[], None]
) -> tuple[list[str], GroupRecord]:
    skipped = SkipLog()
    ids: list[str] = []
    calls = 0
    try:
        for log in group.read(skipped):
            try:
                added = target.add(log)
            except InputError as error:
                skipped.file(error.path or group.sources[0].label, error.message)
                continue
            ids.append(log.id)
            calls += log.calls
            tally.found(log.id, log.calls, added)
            report()
    finally:
        tally.skipped.extend(skipped)
    return ids, GroupRecord(workflows=len(ids), calls=calls, skipped=skipped.files + skipped.lines)


def _file_group(group: LogGroup, reader: str, *, captured: bool) -> FileGroup | None:
    """Describe files as they are now; `None` where one is not a regular file and so cannot be known again."""
    described = []
    for source in group.sources:
        try:
            facts = None if source.path is None else source.path.stat()
        except OSError:
            facts = None
        if source.path is None or facts is None or not stat.S_ISREG(facts.st_mode):
            return None
        described.append((str(source.path.absolute()), facts.st_size, facts.st_mtime_ns))
    return FileGroup(
        path=described[0][0],
        size=sum(size for _, size, _ in described),
        modified_ns=min(max(modified for _, _, modified in described), 2**63 - 1),
        fingerprint=hashlib.sha256(json.dumps([reader, captured, described]).encode()).digest(),
    )


class _Rehearsal:
    """Says what a store would say to each workflow in turn, and stores nothing."""

    def __init__(self, store: TelemetryStore | None) -> None:
        self._store = store
        self._seen: dict[str, Fingerprint] = {}
        self._hasher = Hasher(b"rehearsal")

    def add(self, log: WorkflowLog) -> Added:
        mine = fingerprint(log, self._hasher)
        seen = self._seen.get(log.id)
        if seen is None:
            added = Added.NEW if self._store is None else self._store.compare(log)
        elif seen.whole == mine.whole or mine.is_older_copy_of(seen.contents):
            return Added.UNCHANGED
        else:
            added = Added.REPLACED
        self._seen[log.id] = mine
        return added
