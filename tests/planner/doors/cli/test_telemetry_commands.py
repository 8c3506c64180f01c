"""`apportion import` and `apportion status`, run as users run them."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.models.demand import DemandModel
from apportion.models.persistence import save_models
from apportion.models.training import TrainingData
from apportion.telemetry import importing
from apportion.telemetry.importers import SkipLog, read_logs
from apportion.telemetry.importing import ImporterInfo
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planner.doors.cli.conftest import Answer

MARKER = "zanzibar-quartz-7741"


def event(workflow: str, step: int, content: str = "text", **fields: Any) -> dict[str, Any]:
    """Return one normalised event; odd steps are model calls with usage, but without any word about reasoning."""
    line: dict[str, Any] = {
        "workflow_id": workflow,
        "source": "tests",
        "framework": "handmade",
        "agent": "main",
        "agent_run": "main",
    }
    line |= {"step": step, "kind": "assistant" if step % 2 else "user", "content": f"{content} {step}"}
    if step % 2:
        usage = {"input": 1000, "cache_read": 50, "output": 7}
        line |= {"call": step // 2, "model": "model-a", "usage": usage}
    return line | {"started_at": "2026-03-01T12:00:00Z"} | fields


def write_log(path: Path, *workflows: str, steps: int = 4, **fields: Any) -> Path:
    """Write a log file with some workflows."""
    lines = [json.dumps(event(name, step, **fields)) for name in workflows for step in range(steps)]
    path.write_text("\n".join(lines) + "\n")
    return path


def rows(out: str) -> dict[str, list[str]]:
    """Return the cells of each printed line that begins with a word, by that word."""
    return {cells[0]: cells[1:] for line in out.splitlines() if (cells := line.split())}


# ------------------------------------------------------------------ import


def test_an_import_stores_workflows_and_says_how_many(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a", "b", "c")
    answer = run("import", log)
    assert answer.code == 0, answer.err
    assert rows(answer.out)["new"] == ["3", "6"]
    assert "contents not captured" in answer.out
    database = place / "data" / "apportion" / "apportion.db"
    assert str(database) in answer.out.replace("\n", "")
    with TelemetryStore(database) as store:
        assert [summary.id for summary in store.workflows()] == ["a", "b", "c"]


def test_a_second_import_brings_nothing_new_and_reads_nothing_again(run: Callable[..., Answer], place: Path) -> None:
    write_log(place / "one.jsonl", "a", "b")
    write_log(place / "two.jsonl", "c")
    first = run("import", place / "one.jsonl", place / "two.jsonl", "--json").json()
    assert first["workflows"] == {"new": 3, "replaced": 0, "unchanged": 0}
    second = run("import", place / "one.jsonl", place / "two.jsonl", "--json").json()
    assert second["workflows"] == {"new": 0, "replaced": 0, "unchanged": 3}
    assert second["calls"] == {"new": 0, "replaced": 0, "unchanged": 6}
    assert second["files"] == {"found": 2, "done": 2, "unchanged": 2, "read_again": 0}
    text = run("import", place / "one.jsonl", place / "two.jsonl")
    assert "2 files done, 2 of them known and not read again" in text.out


def test_a_file_that_was_touched_is_read_again_and_its_workflows_are_unchanged(
    run: Callable[..., Answer], place: Path
) -> None:
    log = write_log(place / "log.jsonl", "a")
    run("import", log)
    os.utime(log, ns=(1, 1))
    answer = run("import", log, "--json").json()
    assert answer["workflows"] == {"new": 0, "replaced": 0, "unchanged": 1}
    assert answer["files"]["unchanged"] == 0


def test_a_log_that_has_grown_replaces_its_workflow(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a", "b")
    run("import", log)
    write_log(log, "a", "b", steps=6)
    assert run("import", log, "--json").json()["workflows"] == {"new": 0, "replaced": 2, "unchanged": 0}
    with TelemetryStore(place / "data" / "apportion" / "apportion.db") as store:
        assert [summary.events for summary in store.workflows()] == [6, 6]


def test_an_old_copy_beside_a_log_never_wins(run: Callable[..., Answer], place: Path) -> None:
    write_log(place / "a-newer.jsonl", "same", steps=6)
    write_log(place / "b-older.jsonl", "same", steps=4)
    assert run("import", ".", "--json").json()["workflows"] == {"new": 1, "replaced": 0, "unchanged": 0}
    assert run("import", ".", "--json").json()["workflows"] == {"new": 0, "replaced": 0, "unchanged": 1}
    status = run("status", "--json").json()["store"]
    assert (status["workflows"], status["events"]) == (1, 6)


def test_what_is_skipped_is_counted_and_shown_on_every_run(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a")
    log.write_text(log.read_text() + "broken\n" * 8 + '{"half a li')
    (place / "notes.txt").write_text("not a log at all\n")
    for _ in range(2):
        answer = run("import", log, place / "notes.txt")
        assert answer.code == 0
        assert "skipped: 1 file, 9 lines" in answer.out
        assert "and 5 more; --verbose shows them" in answer.out
    full = run("import", log, place / "notes.txt", "--verbose").out
    assert f"{log}:13: unfinished last line is not JSON" in full
    assert len(run("import", log, place / "notes.txt", "--json").json()["skipped"]["messages"]) == 10


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("not a log\n", "hint: Supported logs: AG2 (AutoGen), "),
        ("", "hint: The file holds nothing yet"),
        (None, "hint: Check the path. Logs are usually at ~/.claude/projects"),
    ],
)
def test_nothing_importable_is_the_users_mistake_with_a_hint_at_what_to_do(
    run: Callable[..., Answer], place: Path, content: str | None, hint: str
) -> None:
    if content is not None:
        (place / "notes.txt").write_text(content)
    for options in ((), ("--dry-run",)):
        answer = run("import", place / "notes.txt", *options)
        assert answer.code == 2
        assert "error: there is nothing to import (" in answer.err
        assert "notes.txt" in answer.err
        assert hint in answer.err
        assert "warning" not in answer.err
    assert run("import", place / "notes.txt", "--json").json()["workflows"]["new"] == 0


def test_a_mistyped_path_beside_a_good_one_is_told_at_once(run: Callable[..., Answer], place: Path) -> None:
    answer = run("import", write_log(place / "log.jsonl", "a"), "/nope", "--json")
    assert answer.code == 0
    assert answer.err == "warning: /nope: no such file or directory\n"
    assert answer.json()["workflows"]["new"] == 1


def test_a_dry_run_says_what_would_happen_and_writes_nothing(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a", "b")
    write_log(place / "copy.jsonl", "a")
    answer = run("import", log, place / "copy.jsonl", "--dry-run")
    assert (rows(answer.out)["new"], rows(answer.out)["unchanged"]) == (["2", "4"], ["0", "0"])
    assert "1 workflow found more than once: counted once, and no fuller copy replaced" in answer.out
    assert "nothing was written to" in answer.out
    assert not (place / "data").exists()
    run("import", log)
    before = (place / "data" / "apportion" / "apportion.db").read_bytes()
    write_log(log, "a", "b", "c", steps=6)
    assert run("import", log, "--dry-run", "--json").json()["workflows"] == {"new": 1, "replaced": 2, "unchanged": 0}
    assert (place / "data" / "apportion" / "apportion.db").read_bytes() == before
    assert run("import", log, "--json").json()["workflows"] == {"new": 1, "replaced": 2, "unchanged": 0}


@pytest.mark.parametrize(
    ("options", "setting", "captured"),
    [
        ((), "false", False),
        (("--capture-content",), "false", True),
        ((), "true", True),
        (("--no-capture-content",), "true", False),
    ],
)
def test_contents_are_stored_only_where_option_or_setting_say_so(
    run: Callable[..., Answer],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    setting: str,
    captured: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setenv("APPORTION_TELEMETRY__CAPTURE_CONTENT", setting)
    log = write_log(place / "log.jsonl", "a", content=MARKER, meta={"note": MARKER})
    answer = run("import", log, "--store", place / "store" / "t.db", *options)
    assert answer.code == 0
    stored = b"".join(file.read_bytes() for file in (place / "store").iterdir())
    assert (MARKER.encode() in stored) is captured
    assert ("contents captured" in answer.out) is captured
    assert MARKER not in answer.out + answer.err


def test_capturing_later_reads_the_files_again(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a")
    run("import", log)
    assert run("import", log, "--capture-content", "--json").json()["workflows"]["replaced"] == 1
    assert run("status", "--json").json()["store"]["captured_workflows"] == 1


def test_a_quiet_import_prints_nothing(run: Callable[..., Answer], place: Path) -> None:
    answer = run("import", write_log(place / "log.jsonl", "a"), "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_names_that_would_act_on_the_terminal_are_shown_harmless(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a", source="evil\x1b[2J\u202e", model="m\x1b]0;x\x07")
    odd = place / "odd\x1b[31m.txt"
    odd.write_text("no log\n")
    shown = run("import", log, odd).out + run("status").out
    assert "evil" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_a_file_name_that_is_not_unicode_is_reported(run: Callable[..., Answer], place: Path) -> None:
    bad = Path(os.fsdecode(os.fsencode(place) + b"/odd\xff.txt"))
    bad.write_text("no log\n")
    log = write_log(Path(os.fsdecode(os.fsencode(place) + b"/log\xff.jsonl")), "a")
    assert run("import", log, bad).code == 0
    assert "odd\udcff.txt" in run("import", log, bad, "--json").json()["skipped"]["messages"][0]


def test_standard_input_is_imported(place: Path) -> None:
    log = write_log(place / "log.jsonl", "a", "b")
    answer = spawn("import", "-", "--json", "--store", place / "t.db", stdin=log.read_text())
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["workflows"] == {"new": 2, "replaced": 0, "unchanged": 0}


def test_a_store_that_cannot_be_used_is_one_message_and_exit_code_2(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a")
    (place / "notes.txt").write_text("precious")
    for command in (("import", log), ("status",)):
        answer = run(*command, "--store", place / "notes.txt")
        assert answer.code == 2
        assert "is not a telemetry store" in answer.err
        assert "hint: It was left untouched" in answer.err
    assert (place / "notes.txt").read_text() == "precious"


# ------------------------------------------------------------------ planned against used


def write_sessions(path: Path, first: int, last: int, *, calls: int = 2) -> Path:
    """Write workflows of one run each, in which each call adds some hundred tokens, which vary; nothing counts them."""
    lines = []
    for number in range(first, last):
        for step in range(2 * calls):
            line = event(f"w{number}", step, "word " * (50 + 20 * (number * 7 % 31)))
            lines.append(json.dumps({key: value for key, value in line.items() if key != "usage"}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def models(place: Path) -> Path:
    """Models that were trained on 40 sessions, in the usual folder."""
    logs = list(read_logs([write_sessions(place / "past.jsonl", 0, 40)], SkipLog()))
    folder = place / "data" / "apportion" / "apportion.db.models"
    data = TrainingData.of(logs)
    save_models(folder, {"demand": DemandModel(boost=False).fit(logs)}, data, created_at=datetime.now(UTC))
    return folder


def test_without_models_nothing_is_forecast_and_nothing_said(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", "a")
    answer = run("import", log, "--json")
    assert (answer.json()["forecasts"], answer.err) == (None, "")
    assert run("status", "--json").json()["forecasts"]["count"] == 0
    assert "Planned against used" not in run("status").out


def test_an_import_forecasts_new_workflows_and_status_tells_how_well(
    run: Callable[..., Answer], place: Path, models: Path
) -> None:
    (version,) = (path.name for path in models.iterdir() if path.is_dir())
    log = write_sessions(place / "new.jsonl", 100, 160)
    assert run("import", log, "--json", "--dry-run").json()["forecasts"] is None
    assert run("import", log, "--json").json()["forecasts"] == {"runs": 60, "problem": None}
    assert run("import", log, "--json").json()["forecasts"] == {"runs": 0, "problem": None}
    found = run("status", "--json").json()["forecasts"]
    assert (found["version"], found["problem"], found["count"]) == (version, None, 60)
    assert found["coverage"] >= 0.8
    assert [(row["framework"], row["agent"], row["count"]) for row in found["by_agent"]] == [("handmade", "main", 60)]
    assert (found["drift"]["drifted"], found["drift"]["outcomes"]) == (False, 60)
    out = run("status").out
    assert f"Planned against used, models {version}:" in out
    assert rows(out)["main"][:2] == ["(handmade)", "60"]
    assert rows(out)["all"][0] == "60"
    assert "no drift" in out


def test_forecasts_that_fit_no_longer_are_told_by_status_and_widened_in_a_replay(
    run: Callable[..., Answer], place: Path, models: Path
) -> None:
    assert models.is_dir()
    log = write_sessions(place / "grown.jsonl", 200, 230, calls=6)
    run("import", write_log(place / "some.jsonl", "a"))
    fitting = run("replay", log, "--learned", "--json", "-").json()
    assert not any("widened" in reason for reason in fitting["plan"]["degraded"])
    assert run("import", log, "--json").json()["forecasts"]["runs"] == 30
    drift = run("status", "--json").json()["forecasts"]["drift"]
    assert drift["drifted"]
    assert drift["factor"] > 1
    assert f"drift: {drift['reason']}" in " ".join(run("status").out.split())
    widened = run("replay", log, "--learned", "--json", "-").json()
    assert drift["reason"] in widened["plan"]["degraded"]
    assert widened["variance"]["by_agent"]["main"]["width"] > 1.1 * fitting["variance"]["by_agent"]["main"]["width"]


@pytest.mark.parametrize("damaged", ["demand.skops", "manifest.json", "../current"])
def test_an_import_with_damaged_models_still_imports_and_says_so(
    damaged: str, run: Callable[..., Answer], place: Path, models: Path
) -> None:
    (version,) = (path for path in models.iterdir() if path.is_dir())
    (version / damaged).write_bytes(b"{")
    answer = run("import", write_sessions(place / "new.jsonl", 100, 103))
    assert answer.code == 0
    assert rows(answer.out)["new"] == ["3", "6"]
    assert answer.err.count("note: workflows were stored without forecasts: ") == 1
    status = run("status")
    assert status.code == 0
    assert "Planned against used" not in status.out


# ------------------------------------------------------------------ interrupts


def spawn(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), input=stdin, capture_output=True, text=True, check=False, timeout=300)


def _command(*arguments: str | Path) -> list[str]:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from apportion.planner.doors.cli import main; main()"
    )
    return [sys.executable, "-c", code, *map(str, arguments)]


def interrupt_import(logs: Path, database: Path, number: signal.Signals, *, at_least: int) -> tuple[int, str]:
    """Send a signal to an import once it has stored some workflows; return its exit code and complaint."""
    command = _command("import", logs, "--store", database)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while stored(database) < at_least and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def stored(database: Path) -> int:
    if not database.exists():
        return 0
    connection = sqlite3.connect(database, timeout=5)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM workflows").fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def many_logs(place: Path) -> Path:
    folder = place / "logs"
    folder.mkdir()
    for nth in range(30):
        write_log(folder / f"{nth:02}.jsonl", *(f"w{nth}-{part}" for part in range(8)), steps=20)
    return folder


def test_ctrl_c_says_how_far_it_got_and_the_next_run_goes_on(many_logs: Path, place: Path) -> None:
    database = place / "t.db"
    code, err = interrupt_import(many_logs, database, signal.SIGINT, at_least=25)
    assert code == 130
    assert "interrupted after" in err
    assert "of 30 files" in err
    assert "run the same command again" in err
    assert "Traceback" not in err
    before = stored(database)
    assert 25 <= before < 240
    answer = spawn("import", many_logs, "--store", database, "--json")
    workflows = json.loads(answer.stdout)["workflows"]
    assert workflows == {"new": 240 - before, "replaced": 0, "unchanged": before}


def test_a_killed_import_leaves_an_intact_store_and_the_next_run_completes_it(many_logs: Path, place: Path) -> None:
    database = place / "t.db"
    for goal in (1, 60):
        code, _ = interrupt_import(many_logs, database, signal.SIGKILL, at_least=goal)
        assert code == -signal.SIGKILL
        with TelemetryStore(database) as store:
            assert store.check() == []
            assert {summary.events for summary in store.workflows()} == {20}
    assert spawn("import", many_logs, "--store", database).returncode == 0
    with TelemetryStore(database) as store:
        ids = [summary.id for summary in store.workflows()]
    assert sorted(ids) == sorted(f"w{nth}-{part}" for nth in range(30) for part in range(8))


# ------------------------------------------------------------------ status


def test_status_before_any_import_says_so_and_creates_nothing(run: Callable[..., Answer], place: Path) -> None:
    answer = run("status")
    assert answer.code == 0
    assert "does not exist yet" in answer.out
    assert not (place / "data").exists()
    assert run("status", "--json").json()["store"]["exists"] is False
    other = run("status", "--store", place / "my store.db").out
    assert f"create it with: apportion import PATH --store '{place / 'my store.db'}'\n" in other


def test_status_shows_unknown_usage_as_a_dash_and_never_as_zero(run: Callable[..., Answer], place: Path) -> None:
    run("import", write_log(place / "log.jsonl", "a", "b"))
    out = run("status").out
    assert "2 workflows, 4 calls, 2 agent runs,\n  from 2026-03-01 to 2026-03-01\n" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["tests", "(handmade)", "2", "4", "2"] in [line[:5] for line in lines]
    assert ["tests", "(handmade)", "4,000", "200", "-", "-", "28", "-"] in lines
    assert ["model-a", "4,000", "200", "-", "-", "28", "-"] in lines


def test_status_marks_estimates(run: Callable[..., Answer], place: Path) -> None:
    run("import", write_log(place / "log.jsonl", "a", usage_final=False))
    assert ["model-a", "2,000", "100", "-", "-", "~14", "-"] in [
        line.split() for line in run("status").out.splitlines()
    ]


def test_status_is_json_for_programs(run: Callable[..., Answer], place: Path) -> None:
    run("import", write_log(place / "log.jsonl", "a"), "--store", place / "t.db")
    answer = run("status", "--store", place / "t.db", "--json").json()
    store = answer["store"]
    assert answer["schema"] == "apportion.status/1"
    assert (store["path"], store["exists"], store["schema_version"]) == (str(place / "t.db"), True, 3)
    assert (store["workflows"], store["calls"], store["agents"], store["events"]) == (1, 2, 1, 4)
    assert store["first_at"] == store["last_at"] == "2026-03-01T12:00:00+00:00"
    assert store["usage"]["reasoning"] is None
    assert store["size_bytes"] >= (place / "t.db").stat().st_size
    assert {"name": "claude_code", "title": "Claude Code", "distribution": "apportion", "error": None}.items() <= next(
        info for info in answer["importers"] if info["name"] == "claude_code"
    ).items()
    assert all(info["version"] for info in answer["importers"])


def test_status_shows_an_importer_that_does_not_load(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ImporterInfo("broken", None, "third-party", "1.2", "ImportError: no module named x")
    monkeypatch.setattr(importing, "installed_importers", lambda: [broken])
    out = run("status").out
    assert "does not load: ImportError: no module named x" in out
    assert "third-party 1.2" in out


def test_status_lists_the_importers_only_when_asked(run: Callable[..., Answer]) -> None:
    short, full = run("status").out, run("status", "--verbose").out
    assert "importers installed; --verbose lists them" in short
    assert "Claude Code" not in short
    assert "  claude_code       Claude Code  (apportion " in full


@pytest.mark.parametrize("options", [(), ("--verbose",)])
def test_the_output_fits_80_columns_and_breaks_no_name(
    run: Callable[..., Answer], place: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    model, source = "us.anthropic.claude-with-a-rather-long-name-20260101-v1:0", "a-source-with-a-long-name"
    monkeypatch.chdir(place)
    imported = run(
        "import", write_log(Path("log.jsonl"), "a", model=model, source=source, framework="f" * 30), *options
    )
    status = run("status", *options)
    lines = [line for line in (imported.out + status.out).splitlines() if str(place) not in line]
    assert max(map(len, lines)) <= 80
    assert f"  {model}" in lines
    assert f"{source} ({'f' * 30})" in lines
    after = lines[lines.index(f"  {model}") + 1]
    assert after.split() == ["2,000", "100", "-", "-", "14", "-"]
    assert after.startswith(" " * 20)
