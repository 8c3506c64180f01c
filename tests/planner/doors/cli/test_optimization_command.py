"""`apportion optimization validate`, on what a real session recorded and on an imported workflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.planner.live import ContextItem
from apportion.planner.planner import PlanOptions
from apportion.planner.session import Planner
from apportion.records import Kind, Usage
from apportion.telemetry.importers import SkipLog, read_logs
from apportion.telemetry.queue import Telemetry
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planner.doors.cli.conftest import Answer

LOGS = Path(__file__).parents[4] / "fixtures" / "logs" / "normalised"


@pytest.fixture
def validate(run: Callable[..., Answer]) -> Callable[..., Answer]:
    return lambda *arguments: run("optimization", "validate", "--session-id", *arguments)


@pytest.fixture
def database(place: Path) -> Path:
    return place / "data" / "apportion" / "apportion.db"


def turn(number: int) -> str:
    return "".join(
        f"12:{number:02}:{n % 60:02} INFO worker-{n % 7} finished job {n} in {n * 3} ms\n" for n in range(400)
    )


def run_session(database: Path, *, kept: bool = True) -> None:
    """Run a session with long results that tells of itself."""
    originals = SqliteHandleStore(database.with_name(f"{database.name}.originals"))
    with Telemetry.to_store(database) as telemetry, originals:
        options = PlanOptions(select="recoverable_85")
        planner = Planner(options, store=originals if kept else None, telemetry=telemetry)
        with planner.session("release notes") as session:
            history = [ContextItem("Write the release notes: what did worker-3 do?")]
            table = json.dumps([{"name": f"worker-{n}", "jobs": n * 7} for n in range(60)], indent=1)
            for number, text in enumerate([turn(0), turn(1), table, table]):
                history.append(ContextItem(text, Kind.TOOL_RESULT, "Bash", f"t{number}"))
                step = session.before("writer", history, model="claude-sonnet-4-5", expands=True)
                session.after(step, Usage(input_uncached=9_000, output=40), output="done")


def test_what_a_session_has_sent_is_compared_with_its_originals(
    validate: Callable[..., Answer], database: Path
) -> None:
    run_session(database)
    code, out, err = validate("release notes", "--json", "--no-similarity")
    data = json.loads(out)
    assert (code, data["sound"], data["recorded"]) == (0, True, "live"), err
    assert {piece["action"] for piece in data["pieces"]} >= {"select", "structure", "reference"}
    assert data["states"] == {"accepted": 4}
    assert all(piece["facts"] == piece["recoverable_facts"] > 0 for piece in data["pieces"])
    assert data["bill"]["calls"] == 4
    assert data["bill"]["saved_tokens"] > 0
    code, out, _ = validate("rel", "--no-similarity")
    assert code == 0
    assert "session: release notes" in out
    assert max(map(len, out.splitlines())) <= 80


def test_originals_that_are_gone_end_with_1(validate: Callable[..., Answer], database: Path) -> None:
    run_session(database)
    database.with_name(f"{database.name}.originals").unlink()
    code, out, _ = validate("release notes")
    assert code == 1
    assert "there is no store of originals" in out


def test_without_a_store_of_originals_nothing_is_kept(validate: Callable[..., Answer], database: Path) -> None:
    run_session(database, kept=False)
    with SqliteHandleStore(database.with_name(f"{database.name}.originals")) as originals:
        assert len(originals) == 0
    code, out, _ = validate("release notes", "--json")
    states = json.loads(out)["states"]
    assert set(states) <= {"gone", "unchecked"}
    assert code == 1  # what is behind a handle went with the memory of the session


def test_an_imported_workflow_is_planned_again_where_its_contents_were_kept(
    validate: Callable[..., Answer], database: Path
) -> None:
    log = next(iter(read_logs([str(LOGS)], SkipLog())))
    with TelemetryStore(database) as store:
        store.add(log)
    code, _, err = validate(log.id)
    assert code == 2
    assert "--capture-content" in err
    with TelemetryStore(database, capture_content=True) as store:
        store.add(log)
    code, out, _ = validate(log.id, "--json")
    data = json.loads(out)
    assert (code, data["recorded"], data["id"]) == (0, "import", log.id)
    assert data["ledgers"]["visible_tokens"]["baseline"] > 0
    code, out, _ = validate(log.id)
    assert code == 0
    assert "Visible tokens" in out


def test_an_unknown_session_ends_with_2(validate: Callable[..., Answer], database: Path) -> None:
    assert validate("nobody")[0] == 2
    with Telemetry.to_store(database) as telemetry:
        telemetry.record({"kind": "session", "workflow": "one a"})
        telemetry.record({"kind": "session", "workflow": "one b"})
    code, _, err = validate("nobody")
    assert (code, "no session or workflow 'nobody'" in err) == (2, True)
    code, _, err = validate("one")
    assert (code, "2 names begin with 'one'" in err) == (2, True)
