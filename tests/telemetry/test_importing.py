"""Importing logs into the store, as a library call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import StoreError
from apportion.records import Kind
from apportion.telemetry import importing
from apportion.telemetry.events import Event, WorkflowLog
from apportion.telemetry.importers import LogGroup
from apportion.telemetry.importing import ImportTally, import_logs, installed_importers
from apportion.telemetry.reading import LogSource
from apportion.telemetry.store import Added, TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from apportion.telemetry.reading import SkipLog


class HandmadeImporter:
    """Reads files of which each line is the step, the content and the identifier of a one-event workflow."""

    name = "handmade"
    title = "Handmade"

    def __init__(self) -> None:
        self.reads = 0

    def sniff(self, source: LogSource) -> float:
        return 1.0 if source else 0.0

    def group(self, sources: Sequence[LogSource]) -> list[Sequence[LogSource]]:
        return [sources]

    def read(self, sources: Sequence[LogSource], skipped: SkipLog) -> Iterator[WorkflowLog]:
        self.reads += 1
        for source in sources:
            for _, (step, content, name) in source.json_lines(skipped):
                event = Event(step=step, agent="a", agent_run="a", kind=Kind.ASSISTANT, content=content, call=0)
                yield WorkflowLog(id=name, source="s", framework="f", origin=str(source.path), events=(event,))


@pytest.fixture
def importer(monkeypatch: pytest.MonkeyPatch) -> HandmadeImporter:
    """The only importer, reading all given files as one group."""
    handmade = HandmadeImporter()

    def find_groups(paths: Sequence[Path], _: SkipLog) -> list[LogGroup]:
        return [LogGroup(handmade, [LogSource(path) for path in paths])] if paths else []

    monkeypatch.setattr(importing, "find_groups", find_groups)
    return handmade


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TelemetryStore]:
    with TelemetryStore(tmp_path / "store" / "t.db", count_tokens=len) as opened:
        yield opened


def write(path: Path, *lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(store: TelemetryStore | None, *paths: Path, **options: Any) -> ImportTally:
    tally = ImportTally()
    import_logs(paths, store, tally, **options)
    return tally


def test_a_workflow_that_cannot_be_stored_is_skipped_and_the_others_are_not(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path
) -> None:
    log = write(tmp_path / "log", [2**64, "x", "big"], [0, "y", "small"])
    tally = run(store, log)
    assert tally.workflows == {Added.NEW: 1}
    assert [str(message) for message in tally.skipped.messages] == [
        f"{log}: workflow big holds a number beyond 64 bits"
    ]
    run(store, log)
    assert importer.reads == 2  # what was skipped is shown again


def test_a_group_is_read_again_when_any_of_its_files_changes(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path
) -> None:
    files = [write(tmp_path / "one", [0, "x", "a"]), write(tmp_path / "two", [0, "y", "b"])]
    assert run(store, *files).workflows == {Added.NEW: 2}
    again = run(store, *files)
    assert (again.workflows, again.calls, again.unchanged_files) == ({Added.UNCHANGED: 2}, {Added.UNCHANGED: 2}, 2)
    assert importer.reads == 1
    write(files[1], [0, "y", "b"], [0, "z", "c"])
    assert run(store, *files).workflows == {Added.UNCHANGED: 2, Added.NEW: 1}


def test_another_version_of_the_importer_reads_again(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write(tmp_path / "log", [0, "x", "a"])
    for version, reads in (("1", 1), ("1", 1), ("2", 2), ("2", 2)):
        info = importing.ImporterInfo("handmade", "Handmade", "third-party", version, None)
        monkeypatch.setattr(importing, "installed_importers", lambda info=info: [info])
        run(store, log)
        assert importer.reads == reads


def test_a_deleted_workflow_comes_back_with_the_next_import(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path
) -> None:
    log = write(tmp_path / "log", [0, "x", "a"], [0, "y", "b"])
    run(store, log)
    store.delete("a")
    assert run(store, log).workflows == {Added.NEW: 1, Added.UNCHANGED: 1}
    assert importer.reads == 2


def test_an_interrupt_keeps_what_was_stored_and_the_tally_is_right(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path
) -> None:
    log = write(tmp_path / "log", *([0, "x", f"w{nth}"] for nth in range(10)))
    tally = ImportTally()

    def interrupt_at_four() -> None:
        if tally.workflows.total() == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_logs([log], store, tally, progress=interrupt_at_four)
    assert not tally.complete
    assert (tally.workflows, tally.files, tally.total_files) == ({Added.NEW: 4}, 0, 1)
    assert [summary.id for summary in store.workflows()] == ["w0", "w1", "w2", "w3"]
    done = run(store, log)
    assert done.complete
    assert done.workflows == {Added.UNCHANGED: 4, Added.NEW: 6}


def test_a_dry_run_predicts_what_the_import_does(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path
) -> None:
    log = write(tmp_path / "log", [0, "x", "a"], [0, "x", "a"], [0, "other", "a"], [0, "y", "b"])
    without_store = run(None, log)
    predicted = run(store, log, dry_run=True)
    assert store.summary().workflows == 0
    assert not (store.path.parent / "t.db.key").exists()
    assert without_store.workflows == predicted.workflows == run(store, log).workflows
    assert predicted.workflows == {Added.NEW: 2}
    assert predicted.repeated == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_workflow_in_two_files_counts_once_with_its_fuller_copy(
    importer: HandmadeImporter,
    store: TelemetryStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    order: tuple[int, ...],
) -> None:
    events = [Event(step=n, agent="a", agent_run="a", kind=Kind.ASSISTANT, content=str(n), call=n) for n in range(3)]
    logs = [WorkflowLog(id="w", source="s", framework="f", events=tuple(events[:size])) for size in (2, 3)]
    files = [write(tmp_path / name) for name in ("one", "two")]
    held = dict(zip(files, (logs[number] for number in order), strict=True))
    monkeypatch.setattr(importer, "read", lambda sources, _: iter([held[source.path] for source in sources]))
    monkeypatch.setattr(
        importing, "find_groups", lambda paths, _: [LogGroup(importer, [LogSource(path)]) for path in paths]
    )
    first = run(store, *files)
    assert (first.workflows[Added.NEW], first.workflows.total(), first.repeated) == (1, 1, 1)
    assert (first.calls[Added.NEW], first.calls.total()) == (3, 3)
    second = run(store, *files)
    assert (second.workflows[Added.UNCHANGED], second.workflows.total(), second.repeated) == (1, 1, 1)
    assert (second.calls[Added.UNCHANGED], second.calls.total(), second.unchanged_files) == (3, 3, 2)


def test_files_that_are_known_and_read_again_for_what_is_skipped_are_counted(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path
) -> None:
    log = write(tmp_path / "log", [2**64, "x", "big"], [0, "y", "small"])
    assert [(tally.unchanged_files, tally.read_again_files) for tally in (run(store, log), run(store, log))] == [
        (0, 0),
        (0, 1),
    ]


def test_a_store_that_fails_ends_the_import(importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path) -> None:
    log = write(tmp_path / "log", [0, "x", "a"], [0, "y", "b"])

    def close() -> None:
        store.close()

    tally = ImportTally()
    with pytest.raises(StoreError, match="closed"):
        import_logs([log], store, tally, progress=close)
    assert tally.workflows == {Added.NEW: 1}
    assert not tally.complete


def test_what_is_no_regular_file_is_always_read(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "log", [0, "x", "a"]).read_bytes()
    for path in (None, tmp_path, tmp_path / "gone"):
        source = LogSource(path, data=data)
        monkeypatch.setattr(importing, "find_groups", lambda *_, source=source: [LogGroup(importer, [source])])
        for _ in range(2):
            assert run(store).workflows.total() == 1
            assert run(store).unchanged_files == 0
    assert importer.reads == 12


def test_progress_is_reported_after_each_workflow_and_each_file(
    importer: HandmadeImporter, store: TelemetryStore, tmp_path: Path
) -> None:
    log = write(tmp_path / "log", [0, "x", "a"], [0, "y", "b"])
    tally = ImportTally()
    seen: list[tuple[int, int]] = []
    import_logs([log], store, tally, progress=lambda: seen.append((tally.workflows.total(), tally.files)))
    assert seen == [(1, 0), (2, 0), (2, 1)]


def test_nothing_found_is_complete_and_empty(importer: HandmadeImporter, store: TelemetryStore) -> None:
    tally = run(store)
    assert (tally.complete, tally.workflows.total(), tally.total_files) == (True, 0, 0)


def test_installed_importers_name_their_package_and_version(
    load_failure: Callable[[], None],
) -> None:
    infos = {info.name: info for info in installed_importers()}
    assert (infos["normalised"].title, infos["normalised"].distribution) == ("Normalised events", "apportion")
    assert infos["normalised"].version
    load_failure()
    broken = {info.name: info for info in installed_importers()}["broken"]
    assert broken.title is None
    assert broken.error is not None
    assert "ModuleNotFoundError" in broken.error


@pytest.fixture
def load_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Installs a distribution whose importer does not load."""

    def install() -> None:
        folder = tmp_path / "broken-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.2\n")
        (folder / "entry_points.txt").write_text("[apportion.importers]\nbroken = no_such_module_anywhere:Importer\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install
