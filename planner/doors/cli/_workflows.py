"""Workflows from the telemetry store or from logs, as often as they are gone through."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.importers import SkipLog
    from apportion.telemetry.stored import StoredWorkflow

_SQLITE = b"SQLite format 3\0"


class Workflows:
    """Workflows that can be gone through several times; only one at a time is in memory.

    Args:
        store: The telemetry store, read where no logs are given.
        paths: Logs, directories or patterns, or one store.
        each: Called for every workflow.

    Attributes:
        skipped: What was skipped of the logs when they were last gone through.

    Raises:
        InputError: The store does not exist, or the paths are none that can be read several times.
    """

    def __init__(self, store: Path, paths: Sequence[str], *, each: Callable[[], None] | None = None) -> None:
        from apportion.telemetry.importers import SkipLog

        stores = [path for path in paths if _is_store(Path(path))]
        if "-" in paths:
            hint = "Save it to a file, or import it first: apportion import -"
            raise InputError("standard input can be read only once, and training reads several times", hint=hint)
        if stores and len(paths) > 1:
            raise InputError("a store cannot be mixed with other inputs", path=stores[0], hint="Give it alone")
        self.store = Path(stores[0]) if stores else None if paths else store
        self.paths = () if stores else tuple(paths)
        self.skipped = SkipLog()
        self._each = each
        if self.store is not None and not self.store.exists():
            hint = "Import logs: apportion import PATH; or name logs: --from PATH"
            raise InputError("the telemetry store does not exist yet", path=self.store, hint=hint)

    def nothing_to(self, do: str) -> InputError:
        """Return the error to raise where no workflow was found: it names what was skipped."""
        from apportion.planner.report.figures import plain

        reasons = "; ".join(plain(str(message)) for message in self.skipped.messages[:3])
        what = f"there is no workflow to {do}" + (f" ({reasons})" if reasons else "")
        return InputError(what, hint="Import logs: apportion import PATH")

    @property
    def place(self) -> str:
        """Where the workflows are, for people."""
        return str(self.store) if self.store is not None else ", ".join(self.paths)

    def __iter__(self) -> Iterator[WorkflowLog | StoredWorkflow]:
        from apportion.telemetry.importers import SkipLog

        self.skipped = SkipLog()
        for workflow in self._from_store() if self.store is not None else self._from_logs(self.skipped):
            if self._each is not None:
                self._each()
            yield workflow

    def _from_store(self) -> Iterator[WorkflowLog | StoredWorkflow]:
        """Yield whole workflows where contents were captured, else their counts and names."""
        from apportion.telemetry.store import TelemetryStore

        assert self.store is not None
        with TelemetryStore(self.store) as opened:
            for summary in opened.workflows():
                stored = opened.load(summary.id)
                if stored is not None:  # not deleted meanwhile
                    yield stored.to_log() if stored.captured else stored

    def _from_logs(self, skipped: SkipLog) -> Iterator[WorkflowLog]:
        """Yield each workflow once, though its log may lie in several files: the copy with most calls."""
        from apportion.telemetry.importers import read_logs

        for number, log in enumerate(read_logs(self.paths, skipped)):
            if number in self._fullest:
                yield log

    @cached_property
    def _fullest(self) -> frozenset[int]:
        """Positions of the logs to read, one for each workflow."""
        from apportion.telemetry.importers import SkipLog, read_logs

        best: dict[str, tuple[int, int]] = {}
        for number, log in enumerate(read_logs(self.paths, SkipLog())):
            best[log.id] = max(best.get(log.id, (-1, 0)), (log.calls, -number))
        return frozenset(-number for _, number in best.values())


def _is_store(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(len(_SQLITE)) == _SQLITE
    except (OSError, ValueError):
        return False
