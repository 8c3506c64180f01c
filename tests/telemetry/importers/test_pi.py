"""The importer of pi coding agent sessions."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from apportion.records import Kind
from apportion.telemetry.events import WorkflowLog  # noqa: TC001  (a helper returns it)
from apportion.telemetry.importers.pi import PiImporter
from apportion.telemetry.reading import LogSource, SkipLog

FIXTURES = Path(__file__).parents[3] / "fixtures" / "logs" / "pi"
REAL = FIXTURES / "large-session.jsonl"
TREE = FIXTURES / "tree.jsonl"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def messages_of(path: Path) -> list[dict[str, Any]]:
    return [line["message"] for line in lines_of(path) if line["type"] == "message"]


def read(data: Path | bytes, skipped: SkipLog | None = None) -> WorkflowLog:
    source = LogSource(data) if isinstance(data, Path) else LogSource(None, data=data)
    (log,) = PiImporter().read([source], SkipLog() if skipped is None else skipped)
    return log


def as_lines(records: list[Any]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def test_every_message_of_the_real_session_becomes_events_of_the_right_kind() -> None:
    skipped = SkipLog()
    log = read(REAL, skipped)
    messages = messages_of(REAL)
    blocks = [block["type"] for message in messages if message["role"] == "assistant" for block in message["content"]]
    roles = Counter(message["role"] for message in messages)
    kinds = Counter(event.kind for event in log.events)
    assert kinds[Kind.USER] == roles["user"]
    assert kinds[Kind.TOOL_RESULT] == roles["toolResult"]
    assert kinds[Kind.TOOL_CALL] == blocks.count("toolCall")
    assert kinds[Kind.ASSISTANT] == blocks.count("text") + 1  # the aborted answer said nothing
    assert log.calls == roles["assistant"]
    assert (skipped.files, skipped.lines) == (0, 0)


def test_usage_adds_up_to_the_session_and_excludes_cached_tokens() -> None:
    usage = read(REAL).usage
    logged = [message["usage"] for message in messages_of(REAL) if message["role"] == "assistant"]
    assert usage.input_uncached == sum(entry["input"] for entry in logged)
    assert usage.cache_read == sum(entry["cacheRead"] for entry in logged)
    assert usage.cache_write_5m == sum(entry["cacheWrite"] for entry in logged)
    assert usage.output == sum(entry["output"] for entry in logged)
    assert usage.cache_write_1h is None
    assert usage.reasoning is None


def test_costs_are_those_of_the_log() -> None:
    costs = [event.cost_usd for event in read(REAL).events if event.cost_usd is not None]
    logged = [message["usage"]["cost"]["total"] for message in messages_of(REAL) if message["role"] == "assistant"]
    assert costs == [cost for cost in logged if cost]


def test_an_aborted_call_is_a_call_of_unknown_usage() -> None:
    aborted = next(message for message in messages_of(REAL) if message.get("stopReason") == "aborted")
    event = next(event for event in read(REAL).events if event.model == aborted["model"])
    assert (event.kind, event.content, event.call, event.usage) == (Kind.ASSISTANT, "", 0, None)


def test_the_output_count_of_a_call_that_broke_off_is_marked_as_placeholder() -> None:
    broken = next(message for message in messages_of(REAL) if message.get("stopReason") == "error")
    flagged = [
        event.usage for event in read(REAL).events if event.usage is not None and "output" in event.usage.estimated
    ]
    assert len(flagged) == 1
    assert all(usage.estimated <= {"output", "cache_write_5m"} for usage in flagged)
    assert flagged[0].output == broken["usage"]["output"] == 1


def test_results_share_the_link_of_their_call_and_say_whether_it_failed() -> None:
    log = read(REAL)
    calls = {event.link: event.name for event in log.events if event.kind is Kind.TOOL_CALL}
    results = [event for event in log.events if event.kind is Kind.TOOL_RESULT]
    assert all(event.name == calls[event.link] for event in results)
    failed = {message["toolCallId"] for message in messages_of(REAL) if message.get("isError")}
    assert {event.link for event in results if event.is_error} == failed
    assert failed


def test_stages_count_the_turns_of_the_user() -> None:
    log = read(REAL)
    turns = [event.stage for event in log.events if event.kind is Kind.USER]
    assert turns == list(range(1, len(turns) + 1))


def test_the_workflow_is_named_after_the_session() -> None:
    header = lines_of(REAL)[0]
    log = read(REAL)
    assert log.id == f"pi:{header['id']}"
    assert log.source == "pi"
    assert log.meta["cwd"] == header["cwd"]
    assert log.events[0].started_at is not None


def test_a_branch_sees_only_its_own_path() -> None:
    log = read(TREE)
    contents = {event.step: event.content for event in log.events}
    after_branch = next(event for event in log.events if event.content == "Done with a fixed amount.")
    assert after_branch.prompt_steps is not None
    prompt = [contents[step] for step in after_branch.prompt_steps]
    assert "Take the percentage then." not in prompt
    assert prompt[-2:] == ["The percentage was tried and given up.", "Use a fixed amount instead."]
    assert [event.prompt_steps for event in log.events if event.call == 2 and event.usage] == [None]


def test_a_compaction_keeps_what_the_entry_says() -> None:
    log = read(TREE)
    last = next(event for event in log.events if event.content == "Written.")
    contents = {event.step: event.content for event in log.events}
    assert last.prompt_steps is not None
    assert [contents[step] for step in last.prompt_steps] == [
        "A fixed discount was added to the basket.",
        "Use a fixed amount instead.",
        "Done with a fixed amount.",
        "make test\n3 passed",
        "Keep the changelog up to date.",
        "Write the changelog.",
    ]
    assert [event.name for event in log.events if event.compaction] == ["compaction"]


def test_what_extensions_and_the_shell_add_starts_no_turn() -> None:
    log = read(TREE)
    added = {event.name: event.stage for event in log.events if event.kind is Kind.USER and event.name}
    assert added == {"branch_summary": 2, "bashExecution": 3, "compaction": 3, "reminder": 3}
    assert [event.kind for event in log.events if event.call == 0] == [Kind.THINKING, Kind.ASSISTANT, Kind.TOOL_CALL]


def test_version_1_counts_kept_entries_by_position() -> None:
    def message(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "message": {"role": role, "content": [{"type": "text", "text": text}]}}

    log = read(
        as_lines(
            [
                {"type": "session", "id": "s", "cwd": "/", "timestamp": "2025-11-20T23:33:50.805Z"},
                message("user", "one"),
                message("assistant", "two"),
                message("user", "three"),
                {"type": "compaction", "summary": "short", "firstKeptEntryIndex": 3, "tokensBefore": 9},
                message("assistant", "four"),
            ]
        )
    )
    assert log.events[-1].content == "four"
    assert log.events[-1].prompt_steps == (3, 2)


def test_an_entry_that_appears_twice_is_counted_and_left_out() -> None:
    lines = lines_of(TREE)
    skipped = SkipLog()
    log = read(as_lines([*lines, lines[2]]), skipped)
    assert len(log.events) == len(read(TREE).events)
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [(19, "entry 00000002 appears twice")]


def test_pretty_printed_entries_and_an_array_of_entries_read_the_same(tmp_path: Path) -> None:
    lines = lines_of(TREE)
    pretty = tmp_path / "pretty.jsonl"
    pretty.write_text("\n".join(json.dumps(line, indent=2) for line in lines))
    array = tmp_path / "array.json"
    array.write_text(json.dumps(lines, indent=2))
    expected = read(TREE).events
    for path in (pretty, array):
        assert PiImporter().sniff(LogSource(path)) > 0.9
        assert read(path).events == expected


def test_a_half_written_last_line_costs_only_itself() -> None:
    skipped = SkipLog()
    log = read(REAL.read_bytes()[:-100], skipped)
    assert skipped.lines == 1
    assert len(log.events) == len(read(REAL).events) - 1


def test_a_session_without_header_is_named_by_its_content() -> None:
    data = as_lines(lines_of(TREE)[1:])
    assert PiImporter().sniff(LogSource(None, data=data)) == 0.8
    assert read(data).id == read(data).id
    assert len(read(data).id) == len("pi:") + 16


def test_unknown_roles_and_odd_records_are_counted_with_their_line() -> None:
    skipped = SkipLog()
    odd = [7, {"type": "message"}, {"type": "message", "message": {"role": "ghost"}}]
    read(as_lines([*lines_of(TREE), *odd]), skipped)
    assert [skip.line for skip in skipped.messages] == [19, 20, 21]


def test_a_session_without_messages_is_noted() -> None:
    skipped = SkipLog()
    assert list(PiImporter().read([LogSource(None, data=as_lines(lines_of(TREE)[:1]))], skipped)) == []
    assert skipped.files == 1
