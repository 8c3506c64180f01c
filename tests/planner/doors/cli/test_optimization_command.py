"""`apportion optimization validate`, on what a real session recorded and on an imported workflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def run_session(database: Path, *, tell_shown: bool = True) -> None:
    """Run a session with long results, and tell of each piece that is not sent whole."""
    telemetry = Telemetry.to_store(database)
    with telemetry, SqliteHandleStore(database.with_name(f"{database.name}.originals")) as originals:
        planner = Planner(PlanOptions(select="recoverable_85"), store=originals)
        with planner.session("release notes") as session:
            history = [ContextItem("Write the release notes: what did worker-3 do?")]
            for turn in range(3):
                text = "".join(
                    f"12:{turn:02}:{n % 60:02} INFO worker-{n % 7} finished job {n} in {n * 3} ms\n" for n in range(400)
                )
                history.append(ContextItem(text, Kind.TOOL_RESULT, "Bash", f"t{turn}"))
                step = session.before("writer", history, model="claude-sonnet-4-5", expands=True)
                for item, sent in zip(history, step.items, strict=True):
                    if sent.handle is not None:
                        fields: dict[str, Any] = {"original": str(originals.put(item.content.encode()))}
                        if tell_shown:
                            fields["shown"] = str(originals.put(sent.content.encode()))
                        telemetry.record(
                            {
                                "kind": "action",
                                "workflow": "release notes",
                                "run_id": step.run_id,
                                "number": step.number,
                                "action": sent.action.value,
                                **fields,
                            }
                        )
                session.after(step, Usage(input_uncached=9_000, output=40), output="done")
                telemetry.record(
                    {
                        "kind": "usage",
                        "workflow": "release notes",
                        "agent": "writer",
                        "input_tokens": 9_000,
                        "output_tokens": 40,
                        "saved_tokens": step.saved_tokens,
                    }
                )


def test_a_session_is_validated_from_its_originals(validate: Callable[..., Answer], database: Path) -> None:
    run_session(database)
    code, out, err = validate("release notes", "--json")
    data = json.loads(out)
    assert (code, data["sound"], data["recorded"]) == (0, True, "live"), err
    assert data["pieces"]
    assert set(data["states"]) <= {"accepted", "recoverable"}
    assert all(piece["facts"] == piece["recoverable_facts"] > piece["visible_facts"] for piece in data["pieces"])
    assert data["bill"]["calls"] == 3
    assert data["bill"]["saved_tokens"] > 0
    code, out, _ = validate("rel")
    assert code == 0
    assert "session: release notes" in out
    assert max(map(len, out.splitlines())) <= 80


def test_originals_that_are_gone_end_with_1(validate: Callable[..., Answer], database: Path) -> None:
    run_session(database, tell_shown=False)
    code, out, _ = validate("release notes")
    assert code == 0
    assert "recoverable" in out
    database.with_name(f"{database.name}.originals").unlink()
    code, out, _ = validate("release notes")
    assert code == 1
    assert "there is no store of originals" in out


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
