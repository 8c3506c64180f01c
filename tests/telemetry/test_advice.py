from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from apportion.errors import NothingToReplayError
from apportion.planner.replay.engine import replay
from apportion.telemetry.advice import advice
from apportion.telemetry.importers import SkipLog, find_groups

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"


def advised(*paths: str | Path) -> str | None:
    """Look for logs where there are none, and return the advice."""
    skipped = SkipLog()
    assert find_groups(paths, skipped) == []
    return advice(skipped, ["Tool A", "Tool B"])


@pytest.mark.parametrize("content", [b"just words\n", bytes(range(256))])
def test_the_formats_are_listed_only_where_a_file_has_none_of_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes.txt").write_bytes(content)
    assert advised(tmp_path) == advised("/no/such/file", tmp_path / "notes.txt") == "Supported logs: Tool A, Tool B"


def test_where_there_was_nothing_to_read_the_next_step_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jsonl").touch()
    steps: dict[str | Path, str] = {
        tmp_path / "missing": "Check the path",
        tmp_path / "*.jsonl.gz": "Check the pattern",
        tmp_path / "folder": "Give a directory that holds logs",
        tmp_path / "empty.jsonl": "holds nothing yet",
        "": "variable of the shell",
    }
    for path, step in steps.items():
        told = advised(path)
        assert told is not None
        assert step in told
        assert "Tool A" not in told
    assert advised() == "Give at least one path"


def test_a_usual_place_that_is_missing_is_not_recommended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert advised("~/.claude/projects") == "Check the path. Logs are usually at ~/.codex/sessions (Codex), " + PI
    claude = "Check the path. Logs are usually at ~/.claude/projects (Claude Code), "
    assert advised(str(tmp_path / ".codex" / "sessions")) == claude + PI
    assert advised("/no/such/file") == claude + "~/.codex/sessions (Codex)"
    (tmp_path / ".claude" / "projects").mkdir(parents=True)
    empty = "Give a directory that holds logs, usually ~/.codex/sessions (Codex), "
    assert advised("~/.claude/projects") == empty + PI


PI = "~/.pi/agent/sessions (pi)"


def test_nothing_through_standard_input_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert "pipe a log into it" in str(advised("-"))


def test_hidden_files_are_told_to_be_read_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / ".log.jsonl").touch()
    assert "where they are named" in str(advised(tmp_path))


@pytest.mark.parametrize("logs", ["otlp/without-model-calls.jsonl", "mycelium"])
def test_logs_that_were_read_and_hold_no_model_call_are_told_apart_from_unknown_ones(logs: str) -> None:
    with pytest.raises(NothingToReplayError) as raised:
        replay([LOGS / logs])
    assert "no model was called in them" in str(raised.value.hint)


def test_a_reason_that_speaks_for_itself_needs_no_advice(tmp_path: Path) -> None:
    (tmp_path / "logs.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    assert advised(tmp_path / "logs.zip") is None
