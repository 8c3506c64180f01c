from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zstandard

from apportion.errors import InputError, NothingToReplayError
from apportion.planner.replay.engine import MEMORY_MB, PARENT_MB, WORKER_MB, Progress, _most_workers, replay
from apportion.planner.report.schema import ReplayReport
from apportion.planner.report.wording import qualifications
from apportion.records import Budget
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from apportion.planner.report.schema import LoggedUsage
    from apportion.records import Usage

LOGS = Path(__file__).parents[3] / "fixtures" / "logs"
SESSIONS = LOGS / "sessions"
SMALL = LOGS / "opencode"
"""Two short workflows."""

CODEX = SESSIONS / "codex-agentv.jsonl.zst"


@pytest.fixture(scope="module")
def codex() -> ReplayReport:
    return replay([CODEX])


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read a log with nothing of ours."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    for line in data.splitlines():
        if line.strip():
            yield json.loads(line)


def without_timing(report: ReplayReport) -> dict[str, Any]:
    """Return what must not depend on how a replay ran."""
    kept = report.model_dump(exclude={"seconds", "peak_memory_mb", "settings"})
    for row in (kept, *kept["per_source"]):
        del row["plan"]["ms"]
    return kept


def test_claude_code_calls_and_usage_equal_an_independent_count() -> None:
    for path in sorted(SESSIONS.glob("claude-code-*.zst")):
        usage: dict[str, dict[str, int]] = {}
        for line in lines(path):
            inline = (line.get("data") or {}).get("message") or {}  # a sub-agent's turn inside a progress line
            for one in (line, inline):
                message = one.get("message") or {}
                if message.get("role") == "assistant" and message.get("model") != "<synthetic>":
                    usage[message["id"]] = message["usage"]
        report = replay([path])
        assert report.calls == len(usage) > 0
        assert report.usage.cache_read == sum(one["cache_read_input_tokens"] for one in usage.values())
        assert report.usage.input_uncached == sum(one["input_tokens"] for one in usage.values())
        written = (report.usage.cache_write_5m or 0) + (report.usage.cache_write_1h or 0)
        assert written == sum(one["cache_creation_input_tokens"] for one in usage.values())


def test_codex_usage_equals_the_last_total_of_the_log(codex: ReplayReport) -> None:
    totals = [
        line["payload"]["info"]["total_token_usage"]
        for line in lines(CODEX)
        if line["type"] == "event_msg" and line["payload"]["type"] == "token_count" and line["payload"].get("info")
    ]
    report = codex
    last = totals[-1]
    assert report.usage.output == last["output_tokens"]
    assert report.usage.cache_read == last["cached_input_tokens"]
    assert report.usage.input_uncached == last["input_tokens"] - last["cached_input_tokens"]
    distinct = [one for number, one in enumerate(totals) if number == 0 or one != totals[number - 1]]
    assert report.calls == len(distinct)


COLUMNS = {
    "input_uncached": "input", "cache_read": "cache_read", "cache_write": "cache_write", "output": "output",
    "reasoning": "reasoning",
}  # fmt: skip


def counted(events: Iterable[dict[str, Any]]) -> dict[str, dict[str, int | None]]:
    """Count calls and usage per source from the lines of the normalised format, without code of the project."""
    calls: dict[str, set[tuple[str, str, int]]] = {}
    usage: dict[str, dict[str, int | None]] = {}
    for event in events:
        columns = usage.setdefault(event["source"], dict.fromkeys(COLUMNS))
        of_source = calls.setdefault(event["source"], set())
        if event.get("model") == "<synthetic>":
            continue  # an error that Claude Code wrote in the place of an answer
        if event.get("call") is not None and event["kind"] in {"assistant", "tool_call", "handoff"}:
            of_source.add((event["workflow_id"], event["agent_run"], event["call"]))
        for column, field in COLUMNS.items():
            tokens = (event.get("usage") or {}).get(field)
            if tokens is not None:
                columns[column] = (columns[column] or 0) + tokens
    return {source: {"calls": len(calls[source]), **usage[source]} for source in usage}


def as_counted(calls: int, usage: Usage | LoggedUsage) -> dict[str, int | None]:
    """Return calls and usage in the columns of the count; a cache write is one, however long it lives."""
    written = [tokens for tokens in (usage.cache_write_5m, usage.cache_write_1h) if tokens is not None]
    columns = {column: getattr(usage, column) for column in COLUMNS if column != "cache_write"}
    return {"calls": calls, **columns, "cache_write": sum(written) if written else None}


def test_normalised_calls_and_usage_per_source_equal_an_independent_count() -> None:
    folder = LOGS / "normalised"
    files = [folder / "corpus-excerpt.jsonl", folder / "api-error-excerpt.jsonl"]
    report = replay([folder])
    assert {row.source: as_counted(row.calls, row.usage) for row in report.per_source} == counted(
        event for file in files for event in lines(file)
    )


CORPUS = Path(os.environ.get("APPORTION_CORPUS", "/no corpus"))
"""Logs whose calls were counted independently; they are too large to be part of the project."""


@pytest.mark.skipif(not CORPUS.is_dir(), reason="APPORTION_CORPUS names no folder")
@pytest.mark.parametrize("file", sorted(CORPUS.glob("*.jsonl.zst")), ids=lambda file: file.name.split(".")[0])
def test_the_corpus_holds_the_calls_and_usage_of_an_independent_count(file: Path) -> None:
    imported: dict[str, dict[str, int | None]] = {}
    skipped = SkipLog()
    for log in read_logs([file], skipped):
        before = imported.get(log.source)
        of_log = as_counted(log.calls, log.usage)
        imported[log.source] = of_log if before is None else {name: _sum(before[name], of_log[name]) for name in of_log}
    assert (skipped.files, skipped.lines) == (0, 0)
    with file.open("rb") as packed:
        stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(packed)
        assert imported == counted(map(json.loads, io.TextIOWrapper(stream, encoding="utf-8")))


def _sum(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else left + right


def test_the_number_of_processes_stays_within_the_memory() -> None:
    for processors in (1, 2, 4, 64):
        workers = _most_workers(processors)
        assert 1 <= workers <= processors
        assert PARENT_MB + workers * WORKER_MB <= MEMORY_MB


def test_parallel_processes_find_the_same_as_one() -> None:
    logs = [SMALL, LOGS / "pi", CODEX]
    assert without_timing(replay(logs, jobs=2)) == without_timing(replay(logs, jobs=1))


def test_the_total_is_the_sum_of_the_sources_and_of_the_workflows() -> None:
    report = replay([LOGS])
    for rows in (report.per_source, report.per_workflow):
        assert sum(row.calls for row in rows) == report.calls
        visible = [row.ledgers.visible_tokens.planned or 0 for row in rows]
        assert sum(visible) == report.ledgers.visible_tokens.planned
    assert sum(kind.tokens_baseline for kind in report.per_kind) == report.ledgers.visible_tokens.baseline


def test_the_report_survives_json() -> None:
    report = replay([SESSIONS], limit=1)
    assert json.loads(report.to_json())["schema"] == "apportion.replay/1"
    assert ReplayReport.model_validate_json(report.to_json()) == report


def test_progress_is_told_after_each_workflow() -> None:
    told: list[Progress] = []
    report = replay([SMALL], progress=told.append)
    assert [one.workflows for one in told] == [1, 2]
    assert told[-1].calls == report.calls


def test_a_limit_ends_the_replay_early() -> None:
    report = replay([LOGS], limit=2)
    assert report.workflows == 2
    assert report.complete
    assert report.limited
    assert not replay([SMALL], limit=3).limited
    assert not replay([SMALL]).limited


def test_switched_off_there_is_no_target_to_meet() -> None:
    report = replay([SMALL], limit=1, enabled=False, target_reduction=0.5)
    assert report.settings["target_reduction"] is None
    assert "Target" not in dict(qualifications(report))


def test_a_budget_shows_what_it_would_have_allowed() -> None:
    report = replay([CODEX], budget=Budget(max_tokens=1_500_000))
    assert report.budget is not None
    assert report.budget.workflows_over_baseline == 1
    assert 0 < report.budget.calls_beyond_planned < report.budget.calls_beyond_baseline
    assert replay([SMALL]).budget is None


def test_a_budget_in_dollars_shows_what_it_would_have_allowed() -> None:
    report = replay([CODEX], budget=Budget(max_usd=0.5))
    assert report.budget is not None
    assert 0 < report.budget.calls_beyond_planned <= report.budget.calls_beyond_baseline


@pytest.mark.parametrize(
    "arguments", [{"target_reduction": 1.5}, {"target_reduction": -0.1}, {"jobs": 0}, {"limit": 0}]
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        replay([SESSIONS], **arguments)


def test_nothing_to_replay_names_the_reasons_and_the_formats(tmp_path: Path) -> None:
    (tmp_path / "binary.jsonl").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(NothingToReplayError, match=r"binary\.jsonl.*Claude Code"):
        replay([tmp_path])
    with pytest.raises(NothingToReplayError, match="no such file"):
        replay([tmp_path / "missing"])


def test_what_cannot_be_read_never_stops_the_rest(tmp_path: Path) -> None:
    session = CODEX
    (tmp_path / "good.jsonl.zst").write_bytes(session.read_bytes())
    (tmp_path / "cut.jsonl.zst").write_bytes(session.read_bytes()[:60_000])
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "other.txt").write_text("just words")
    report = replay([tmp_path])
    assert report.workflows >= 1
    assert report.skipped.files >= 2
    assert report.skipped.unused == 2  # the empty file, and the cut log of the same workflow
    told = "\n".join(report.skipped.messages)
    for name in ("cut.jsonl.zst", "empty.jsonl", "other.txt"):
        assert name in told


def test_two_logs_of_one_workflow_count_once_with_the_longer_one(tmp_path: Path, codex: ReplayReport) -> None:
    whole = list(lines(CODEX))
    for name, records in (("a.jsonl", whole), ("b.jsonl", whole[: len(whole) // 2]), ("c.jsonl", whole)):
        (tmp_path / name).write_text("\n".join(map(json.dumps, records)))
    report = replay([tmp_path])
    assert report.workflows == 1
    assert report.calls == codex.calls
    assert sum("counted once" in message for message in report.skipped.messages) == 2
    assert report.skipped.unused == report.skipped.files == 2


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a POSIX signal")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_leaves_a_valid_partial_report(tmp_path: Path, jobs: str) -> None:
    records = list(lines(CODEX))[:300]
    text = "\n".join(map(json.dumps, records))
    session = records[0]["payload"]["id"]
    for number in range(40):
        (tmp_path / f"{number}.jsonl").write_text(text.replace(session, f"session-{number}"))
    file = tmp_path / "report.json"
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path), str(file), jobs]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "one done\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 0, process.stderr.read()
    report = ReplayReport.model_validate_json(file.read_text())
    assert not report.complete
    assert 1 <= report.workflows < 40


_INTERRUPTED = """
import signal
import sys
from pathlib import Path
from apportion.planner.replay.engine import replay

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts the tests behind it ignores it

def tell(progress):
    if progress.workflows == 1:
        print("one done", file=sys.stderr, flush=True)

if __name__ == "__main__":
    paths, file, jobs = sys.argv[1:]
    report = replay([paths], jobs=int(jobs), progress=tell)
    Path(file).write_text(report.to_json())
"""


def test_a_replay_leaves_no_process_behind() -> None:
    replay([SMALL], jobs=2)
    assert multiprocessing.active_children() == []
