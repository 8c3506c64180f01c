"""The importer of Claude Code transcripts, on real transcripts and on small changes of them."""

from __future__ import annotations

import base64
import json
import shutil
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.records import Kind, Usage
from apportion.telemetry.importers.claude_code import ClaudeCodeImporter
from apportion.telemetry.reading import LogSource, SkipLog, find_sources

if TYPE_CHECKING:
    from apportion.telemetry.events import WorkflowLog

LOGS = Path(__file__).parents[3] / "fixtures" / "logs"
CLAUDE = LOGS / "claude_code"
LAYOUT = CLAUDE / "subagents_layout"
POEMS = LAYOUT / "0ccf1a04-1b4c-43b6-8aa5-79e41db43a68.jsonl"
HELPER = LAYOUT / "4b2030ed-5563-49ea-b703-6a002f2d3cc8.jsonl"
PACKMIND = CLAUDE / "packmind-0.jsonl"
OUTPUT_KINDS = {Kind.ASSISTANT, Kind.THINKING, Kind.TOOL_CALL, Kind.HANDOFF}


def parsed(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(paths: list[Path], skipped: SkipLog | None = None) -> list[WorkflowLog]:
    skipped = SkipLog() if skipped is None else skipped
    importer = ClaudeCodeImporter()
    groups = importer.group(find_sources(paths, skipped))
    return [log for group in groups for log in importer.read(group, skipped)]


def read_lines(lines: list[Any], skipped: SkipLog | None = None) -> list[WorkflowLog]:
    data = "\n".join(json.dumps(line) for line in lines).encode()
    return list(ClaudeCodeImporter().read([LogSource(None, data=data)], SkipLog() if skipped is None else skipped))


def line(kind: str, content: Any, uuid: str, parent: str | None = None, **fields: Any) -> dict[str, Any]:
    message = {"role": kind, "content": content, **fields.pop("message", {})}
    base = {
        "type": kind,
        "uuid": uuid,
        "parentUuid": parent,
        "sessionId": "s",
        "isSidechain": False,
        "message": message,
    }
    return base | fields


def answer(content: list[dict[str, Any]], uuid: str, parent: str, identifier: str, **fields: Any) -> dict[str, Any]:
    usage = fields.pop("usage", {"input_tokens": 5, "output_tokens": 7})
    message = {
        "id": identifier,
        "model": "claude-x",
        "stop_reason": "end_turn",
        "usage": usage,
        **fields.pop("message", {}),
    }
    return line("assistant", content, uuid, parent, message=message, **fields)


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def prompt_of(log: WorkflowLog, content: str) -> list[str]:
    """Return the contents of the prompt of the completion that begins with this content."""
    position = next(i for i, event in enumerate(log.events) if event.content == content and event.call is not None)
    steps = log.events[position].prompt_steps
    assert steps is not None
    return [event.content for event in log.events if event.step in steps]


# Independent counts on real transcripts


def independent_count(files: list[Path]) -> tuple[int, Counter[str]]:
    """Count completions and usage with plain JSON: once per message id, placeholders for output left out."""
    usage: dict[str, dict[str, Any]] = {}
    for file in files:
        for entry in parsed(file):
            if isinstance(entry, dict) and entry.get("type") == "assistant":
                usage[entry["message"]["id"]] = entry["message"]["usage"]
    total: Counter[str] = Counter()
    for counted in usage.values():
        total.update({key: counted.get(key, 0) for key in ("input_tokens", "cache_read_input_tokens")})
        total["written"] += counted.get("cache_creation_input_tokens", 0)
    return len(usage), total


@pytest.mark.parametrize(
    "main",
    [PACKMIND, CLAUDE / "daaain-edge_cases.jsonl", CLAUDE / "daaain-representative_messages.jsonl", POEMS, HELPER],
)
def test_calls_and_usage_equal_an_independent_count(main: Path) -> None:
    agents = sorted((main.with_suffix("") / "subagents").glob("*.jsonl"))
    (log,) = read([main, *agents])
    calls, total = independent_count([main, *agents])
    assert log.calls == calls
    usage = log.usage
    assert usage.input_uncached == total["input_tokens"]
    assert (usage.cache_read or 0) == total["cache_read_input_tokens"]
    assert (usage.cache_write_5m or 0) + (usage.cache_write_1h or 0) == total["written"]


def test_the_lines_of_one_completion_are_counted_once() -> None:
    assistants = [entry for entry in parsed(PACKMIND) if entry["type"] == "assistant"]
    (log,) = read([PACKMIND])
    assert len(assistants) == 13
    assert log.calls == len({entry["requestId"] for entry in assistants}) == 10
    assert sum(event.usage is not None for event in log.events) == 10


@pytest.mark.parametrize("path", [PACKMIND, POEMS, HELPER])
def test_all_outputs_of_a_completion_share_its_call_and_the_first_one_has_the_usage(path: Path) -> None:
    (log,) = read([path, path.with_suffix("")] if path.with_suffix("").is_dir() else [path])
    assert all((event.call is not None) == (event.kind in OUTPUT_KINDS) for event in log.events)
    first = {event.call: event.step for event in reversed(log.events)}
    assert all(
        (event.usage is not None) == (first[event.call] == event.step) for event in log.events if event.call is not None
    )


# Usage


def test_output_placeholders_are_estimated_from_the_text_and_marked() -> None:
    (log,) = read([PACKMIND])
    for event in log.events:
        if event.usage is not None:
            written = sum(len(other.content) for other in log.events if other.call == event.call)
            assert event.usage.estimated == {"output"}
            assert event.usage.output is not None
            assert event.usage.output >= written / 5  # near four characters per token


def test_a_finished_completion_keeps_its_output_count() -> None:
    (log,) = read([CLAUDE / "daaain-representative_messages.jsonl"])
    logged = [
        entry["message"]["usage"]["output_tokens"]
        for entry in parsed(CLAUDE / "daaain-representative_messages.jsonl")
        if entry["type"] == "assistant"
    ]
    assert [event.usage.output for event in log.events if event.usage is not None] == logged
    assert log.usage.estimated == frozenset()


def test_the_final_line_of_a_completion_has_the_right_output_count() -> None:
    lines = [
        answer(
            [text("a")],
            "1",
            "0",
            "m",
            message={"stop_reason": None, "usage": {"input_tokens": 5, "output_tokens": 900}},
        ),
        answer([text("b")], "2", "1", "m", usage={"input_tokens": 5, "output_tokens": 12}),
        answer(
            [text("c")], "3", "2", "m", message={"stop_reason": None, "usage": {"input_tokens": 5, "output_tokens": 1}}
        ),
    ]
    (log,) = read_lines(lines)
    assert log.usage == Usage(input_uncached=5, output=12)


def test_cache_writes_are_split_by_lifetime() -> None:
    (log,) = read([PACKMIND])
    split = {
        entry["message"]["id"]: entry["message"]["usage"]["cache_creation"]
        for entry in parsed(PACKMIND)
        if entry["type"] == "assistant"
    }
    assert log.usage.cache_write_1h == sum(write["ephemeral_1h_input_tokens"] for write in split.values()) > 0
    assert log.usage.cache_write_5m == sum(write["ephemeral_5m_input_tokens"] for write in split.values())


def test_cache_writes_without_a_lifetime_last_five_minutes() -> None:
    (log,) = read_lines(
        [answer([text("a")], "1", "0", "m", usage={"input_tokens": 1, "cache_creation_input_tokens": 9})]
    )
    assert (log.usage.cache_write_5m, log.usage.cache_write_1h) == (9, None)


# Sub-agents


def test_a_session_is_grouped_with_its_sub_agents() -> None:
    groups = ClaudeCodeImporter().group(find_sources([LAYOUT], SkipLog()))
    assert sorted(len(group) for group in groups) == [2, 6]


def test_sub_agents_know_their_type_and_who_started_them() -> None:
    logs = read([LAYOUT])
    assert {log.id for log in logs} == {f"claude_code:{POEMS.stem}", f"claude_code:{HELPER.stem}"}
    for log in logs:
        runs = {event.agent_run: (event.agent, event.parent_agent) for event in log.events}
        assert runs.pop("main") == ("main", None)
        assert set(runs.values()) == {("general-purpose", "main")}


def test_events_of_sub_agents_stand_between_hand_off_and_result() -> None:
    (log,) = read([HELPER, HELPER.with_suffix("")])
    kinds = [event.kind for event in log.events]
    inside = [event.step for event in log.events if event.agent_run != "main"]
    assert kinds.index(Kind.HANDOFF) < min(inside) < max(inside) < kinds.index(Kind.HANDOFF_RESULT)
    handoff, result = (
        next(event for event in log.events if event.kind is kind) for kind in (Kind.HANDOFF, Kind.HANDOFF_RESULT)
    )
    assert handoff.name == result.name == "general-purpose"
    assert handoff.link == result.link
    assert json.loads(handoff.content)["prompt"]
    assert log.meta["sub_agents"][0]["totalTokens"] > 0


def test_sub_agents_without_their_session_stand_alone() -> None:
    logs = read([POEMS.with_suffix("")])
    assert len(logs) == 5
    assert {log.id for log in logs} == {
        f"claude_code:{POEMS.stem}:{path.stem}" for path in POEMS.with_suffix("").rglob("*.jsonl")
    }
    assert all(log.agents == 1 and log.calls == 2 for log in logs)


def test_sub_agents_in_progress_lines_are_used_where_they_have_no_file_of_their_own() -> None:
    (with_file,) = read([HELPER, HELPER.with_suffix("")])
    (without_file,) = read([HELPER])
    inside = [event for event in without_file.events if event.agent_run != "main"]
    assert {(event.agent_run, event.agent, event.parent_agent) for event in inside} == {
        ("sub:a2018e5", "general-purpose", "main")
    }
    logged = [
        entry["data"]["message"] for entry in parsed(HELPER) if entry.get("data", {}).get("type") == "agent_progress"
    ]
    assert len(inside) == sum(len(message["message"]["content"]) for message in logged)
    assert [event.content for event in inside] == [
        event.content for event in with_file.events if event.agent_run != "main"
    ][: len(inside)]


def test_a_whole_session_with_progress_lines_equals_an_independent_count() -> None:
    path = LOGS / "sessions" / "claude-code-cipherbox.jsonl.zst"
    usage: dict[tuple[str, str], dict[str, Any]] = {}
    for _, entry in LogSource(path).json_lines(SkipLog()):
        progress = entry.get("data", {})
        inner = progress["message"] if progress.get("type") == "agent_progress" else entry
        if inner["type"] == "assistant":
            usage[progress.get("agentId", "main"), inner["message"]["id"]] = inner["message"]["usage"]
    (log,) = ClaudeCodeImporter().read([LogSource(path)], SkipLog())
    assert log.calls == len(usage) == 48
    assert log.usage.input_uncached == sum(one["input_tokens"] for one in usage.values())
    assert log.usage.cache_read == sum(one["cache_read_input_tokens"] for one in usage.values())
    assert {(event.agent, event.parent_agent) for event in log.events} == {
        ("main", None),
        ("Explore", "main"),
        ("Plan", "main"),
    }


def test_side_chain_lines_in_files_of_their_own_are_one_run_per_file() -> None:
    """Real: every line of these sub-agents' files is marked `isSidechain`."""
    agents = sorted((LAYOUT / POEMS.stem / "subagents").glob("agent-*.jsonl"))
    entries = [entry for agent in agents for _, entry in LogSource(agent).json_lines(SkipLog())]
    assert {entry["isSidechain"] for entry in entries} == {True}
    (log,) = (log for log in read([LAYOUT]) if log.id == f"claude_code:{POEMS.stem}")
    runs = {event.agent_run for event in log.events}
    assert runs == {"main", *(f"sub:{agent.stem.removeprefix('agent-')}" for agent in agents)}


def test_old_side_chains_are_agent_runs_of_their_own(tmp_path: Path) -> None:
    """Constructed: no sample at hand has side chains within the file of the session, as old versions wrote them."""
    task = {
        "type": "tool_use",
        "id": "t1",
        "name": "Task",
        "input": {"subagent_type": "Explore", "prompt": "look around"},
    }
    chained = {"isSidechain": True}
    lines = [
        line("user", "hello", "1"),
        answer([task], "2", "1", "m1"),
        line("user", "look around", "3", None, **chained),
        answer([text("looking")], "4", "3", "m2", **chained),
        answer([text("found")], "5", "4", "m3", **chained),
        line("user", [{"type": "tool_result", "tool_use_id": "t1", "content": "found"}], "6", "2"),
    ]
    (log,) = read_lines(lines)
    assert [event.agent_run for event in log.events] == ["main", "main", "sub:3", "sub:3", "sub:3", "main"]
    assert {(event.agent, event.parent_agent) for event in log.events if event.agent_run == "sub:3"} == {
        ("Explore", "main")
    }


@pytest.mark.parametrize("tool", ["Task", "Agent"])
def test_the_tool_that_starts_agents_is_a_hand_off_under_both_names(tool: str) -> None:
    call = {"type": "tool_use", "id": "t", "name": tool, "input": {"subagent_type": "Plan", "prompt": "p"}}
    (log,) = read_lines(
        [
            answer([call], "1", "0", "m"),
            line("user", [{"type": "tool_result", "tool_use_id": "t", "content": [text("done")]}], "2", "1"),
        ]
    )
    assert [(event.kind, event.name) for event in log.events] == [(Kind.HANDOFF, "Plan"), (Kind.HANDOFF_RESULT, "Plan")]


def test_files_of_nested_and_of_neighbouring_sub_agents_are_found_and_described(tmp_path: Path) -> None:
    """Real transcripts, put where nested sub-agents are: no sample at hand has nested ones."""
    shutil.copytree(LAYOUT, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / HELPER.stem / "subagents"
    nested = folder / "workflows" / "wf1"
    nested.mkdir(parents=True)
    (folder / "agent-a2018e5.jsonl").rename(nested / "agent-a2018e5.jsonl")
    described = {"agentType": "poet", "toolUseId": "unknown"}
    (nested / "agent-a2018e5.meta.json").write_text(json.dumps(described))
    agents = list((tmp_path / POEMS.stem / "subagents").iterdir())
    for agent in agents:  # versions before 2.1 wrote them beside the session
        agent.rename(tmp_path / agent.name)
    skipped = SkipLog()
    logs = {log.id: log for log in read([tmp_path], skipped)}
    assert set(logs) == {f"claude_code:{POEMS.stem}", f"claude_code:{HELPER.stem}"}
    assert {event.agent for event in logs[f"claude_code:{HELPER.stem}"].events} == {"main", "poet"}
    assert logs[f"claude_code:{POEMS.stem}"].agents == 6
    assert (skipped.files, skipped.lines) == (0, 0)


def test_a_description_beside_a_single_transcript_is_found(tmp_path: Path) -> None:
    agent = tmp_path / "agent-a2018e5.jsonl"
    shutil.copy(HELPER.with_suffix("") / "subagents" / agent.name, agent)
    agent.with_suffix(".meta.json").write_text(json.dumps({"agentType": "poet"}))
    (log,) = read([agent])
    assert {event.agent for event in log.events} == {"poet"}


def test_a_description_without_its_transcript_is_counted(tmp_path: Path) -> None:
    (tmp_path / "agent-1.meta.json").write_text(json.dumps({"agentType": "poet"}))
    skipped = SkipLog()
    assert read([tmp_path], skipped) == []
    assert skipped.files == 1


# Contexts that do not simply grow


def test_an_answer_that_returns_to_an_older_branch_does_not_see_the_other_one() -> None:
    (log,) = read([POEMS])
    asked_elsewhere = "are they still being written?"
    assert any(event.content == asked_elsewhere for event in log.events)
    last = [event for event in log.events if event.usage is not None][-1]
    assert last.prompt_steps is not None
    seen = [event.content for event in log.events if event.step in last.prompt_steps]
    assert asked_elsewhere not in seen
    assert "why won't you run it?" in seen
    assert log.meta["rewinds"] == 1


def test_a_rewind_drops_what_came_after_the_message_it_returns_to() -> None:
    lines = [
        line("user", "one", "1"),
        answer([text("first")], "2", "1", "m1"),
        line("user", "two", "3", "2"),
        answer([text("second")], "4", "3", "m2"),
        line("user", "other", "5", "2"),
        answer([text("third")], "6", "5", "m3"),
        line("user", "more", "7", "6"),
        answer([text("fourth")], "8", "7", "m4"),
    ]
    (log,) = read_lines(lines)
    assert prompt_of(log, "third") == ["one", "first", "other"]
    assert prompt_of(log, "fourth") == ["one", "first", "other", "third", "more"]
    assert [event.prompt_steps for event in log.events[:4]] == [None] * 4


def test_a_compaction_starts_the_context_anew() -> None:
    boundary = {
        "type": "system",
        "subtype": "compact_boundary",
        "uuid": "b",
        "parentUuid": None,
        "sessionId": "s",
        "content": "Conversation compacted",
        "compactMetadata": {"trigger": "auto", "preTokens": 9},
    }
    summary = line(
        "user", "This session is being continued", "c", "b", isCompactSummary=True, isVisibleInTranscriptOnly=True
    )
    lines = [
        line("user", "hello", "1"),
        answer([text("hi")], "2", "1", "m1"),
        boundary,
        summary,
        answer([text("on")], "3", "c", "m2"),
    ]
    (log,) = read_lines(lines)
    assert [(event.content, event.compaction) for event in log.events] == [
        ("hello", False),
        ("hi", False),
        ("This session is being continued", True),
        ("on", False),
    ]
    assert log.events[2].name == "compact_summary"
    assert {event.stage for event in log.events} == {1}


def test_a_summary_alone_marks_a_compaction_too() -> None:
    lines = [line("user", "hello", "1"), line("user", "Summary", "2", None, isCompactSummary=True)]
    (log,) = read_lines(lines)
    assert [event.compaction for event in log.events] == [False, True]


def test_cleared_tool_results_are_replaced_in_later_prompts() -> None:
    entries = parsed(PACKMIND)
    used = next(
        (
            entry["message"]["content"][0]
            for entry in entries
            if entry["type"] == "user"
            and isinstance(entry["message"]["content"], list)
            and entry["message"]["content"][0]["type"] == "tool_result"
        ),
    )
    cleared = {
        "type": "system",
        "subtype": "microcompact_boundary",
        "uuid": "x",
        "sessionId": "s",
        "parentUuid": entries[-1].get("uuid"),
        "microcompactMetadata": {"compactedToolIds": [used["tool_use_id"], "unknown", 3]},
    }
    (log,) = read_lines([*entries, cleared, line("user", "go on", "y", "x"), answer([text("last")], "z", "y", "m9")])
    contents = prompt_of(log, "last")
    assert contents.count("[Old tool result content cleared]") == 1
    assert used["content"] not in contents
    assert log.meta["cleared_results"] == 1


def test_a_real_session_whose_results_were_cleared_lists_the_prompts_behind_it() -> None:
    path = LOGS / "sessions" / "claude-code-entire-cli.jsonl.zst"
    entries = [entry for _, entry in LogSource(path).json_lines(SkipLog())]
    (boundary,) = (entry for entry in entries if entry.get("subtype") == "microcompact_boundary")
    cleared = set(boundary["microcompactMetadata"]["compactedToolIds"])
    (log,) = ClaudeCodeImporter().read([LogSource(path)], SkipLog())
    assert log.meta["cleared_results"] == len(cleared)
    last = [event for event in log.events if event.usage is not None][-1]
    assert last.prompt_steps is not None
    results = {
        event.link: event.content
        for event in log.events
        if event.step in last.prompt_steps and event.link in cleared and event.kind is Kind.TOOL_RESULT
    }
    assert results == dict.fromkeys(cleared, "[Old tool result content cleared]")


# Lines that are not what they seem


def test_errors_that_claude_code_writes_are_not_calls() -> None:
    """Constructed: no native sample at hand has such a line; test_normalised.py has a real one of the corpus."""
    error = answer([text("API Error: 529")], "2", "1", "m1", message={"model": "<synthetic>"})
    (log,) = read_lines([line("user", "hello", "1"), error])
    assert (log.calls, len(log.events), log.meta["api_errors"]) == (0, 1, 1)


def test_lines_repeated_after_a_resume_are_dropped_and_counted() -> None:
    entries = parsed(PACKMIND)
    (once,) = read_lines(entries)
    (twice,) = read_lines(entries + entries)
    assert twice.events == once.events
    messages = [entry for entry in entries if entry["type"] in {"user", "assistant", "system", "progress"}]
    assert twice.meta["duplicate_lines"] == len(messages)


def test_images_are_replaced_by_a_marker() -> None:
    """Constructed: in the native samples every base64 payload was redacted, and no image block is left."""
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(b"x" * 9000).decode()},
    }
    content = [{"type": "tool_result", "tool_use_id": "t", "content": [text("see"), image]}]
    (log,) = read_lines([line("user", [image], "1"), line("user", content, "2", "1")])
    assert [event.content.split(":")[0] for event in log.events] == ["[image omitted", "see\n[image omitted"]
    assert all(len(event.content) < 100 for event in log.events)


def test_what_a_reminder_showed_to_the_model_is_kept() -> None:
    attachment = {"type": "attachment", "uuid": "2", "parentUuid": "1", "sessionId": "s", "renderedRole": "user"}
    shown = attachment | {
        "attachment": {"type": "date"},
        "rendered": [{"content": "<system-reminder>today</system-reminder>"}],
    }
    older = attachment | {"uuid": "3", "attachment": {"type": "queued_command", "prompt": "faster"}}
    silent = attachment | {"uuid": "4", "attachment": {"type": "session_context", "context": {}}}
    (log,) = read_lines([line("user", "hello", "1"), shown, older, silent])
    assert [(event.name, event.content) for event in log.events[1:]] == [
        ("attachment:date", "<system-reminder>today</system-reminder>"),
        ("attachment:queued_command", "faster"),
    ]
    assert log.meta["attachments_without_text"] == 1


def test_a_prompt_snapshot_gives_system_prompt_and_tools_also_after_a_compaction() -> None:
    tool = {"name": "Read", "description": "reads", "schema": {"name": "Read", "input_schema": {}}}
    snapshot = {
        "type": "attachment",
        "uuid": "2",
        "parentUuid": "1",
        "sessionId": "s",
        "attachment": {"type": "prompt_snapshot", "systemPrompt": ["You are", "an agent"], "tools": [tool]},
    }
    summary = line("user", "Summary", "4", None, isCompactSummary=True)
    (log,) = read_lines(
        [
            line("user", "hello", "1"),
            snapshot,
            answer([text("hi")], "3", "2", "m1"),
            summary,
            answer([text("on")], "5", "4", "m2"),
        ]
    )
    assert [event.kind for event in log.events[:3]] == [Kind.TOOL_DEFINITIONS, Kind.SYSTEM, Kind.SYSTEM]
    assert log.events[0].name == "Read"
    assert prompt_of(log, "on") == ['{"name":"Read","input_schema":{}}', "You are", "an agent", "Summary"]


def test_a_completion_without_content_still_counts() -> None:
    (log,) = read_lines([answer([], "1", "0", "m")])
    assert (log.calls, log.usage.input_uncached) == (1, 5)


def test_damaged_and_unknown_lines_of_a_real_file_are_counted_with_their_number() -> None:
    skipped = SkipLog()
    path = CLAUDE / "daaain-edge_cases.jsonl"
    (log,) = read([path], skipped)
    assert sorted((skip.line, skip.reason) for skip in skipped.messages) == [
        (10, "message without content"),
        (11, "message without content"),
        *((number, "not a transcript line") for number in (13, 14, 15, 16)),
    ]
    assert {skip.path for skip in skipped.messages} == {str(path)}
    assert any("café" in event.content for event in log.events)  # the valid line that repeats a damaged one's uuid
    assert any(event.content == "wow error" for event in log.events)


def test_unknown_line_types_are_counted_and_bookkeeping_is_not() -> None:
    skipped = SkipLog()
    (log,) = read_lines([{"type": "cost-state"}, line("user", "hello", "1"), {"type": "from-the-future"}], skipped)
    assert len(log.events) == 1
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [(3, "unknown line type 'from-the-future'")]


def test_a_truncated_last_line_costs_only_itself() -> None:
    skipped = SkipLog()
    entries = PACKMIND.read_bytes().splitlines()
    data = b"\n".join([*entries, entries[3][:200]])
    (log,) = ClaudeCodeImporter().read([LogSource(None, data=data)], skipped)
    assert log.events == read_lines(parsed(PACKMIND))[0].events
    assert [skip.line for skip in skipped.messages] == [len(entries) + 1]


def test_odd_time_stamps_are_read() -> None:
    """Constructed: `+00:00Z` was met in logs of which no sample is at hand."""
    (log,) = read_lines(
        [
            line("user", "hello", "1", timestamp="2026-01-02T03:04:05.000+00:00Z"),
            line("user", "x", "2", timestamp="soon"),
        ]
    )
    assert log.events[0].started_at is not None
    assert log.events[0].started_at.isoformat() == "2026-01-02T03:04:05+00:00"
    assert log.events[1].started_at is None


def test_a_file_without_messages_is_counted() -> None:
    skipped = SkipLog()
    assert read_lines([{"type": "summary", "summary": "s", "leafUuid": "u"}], skipped) == []
    assert (skipped.files, skipped.lines) == (1, 0)


def test_the_identifier_is_the_session_or_else_follows_from_the_content() -> None:
    assert read([PACKMIND])[0].id == "claude_code:04f9c6b0-e650-4aec-91c6-74cd2376fecc"
    nameless = [{key: value for key, value in line("user", "hello", "1").items() if key != "sessionId"}]
    first, second = (read_lines(nameless)[0].id for _ in range(2))
    assert first == second != read_lines([nameless[0] | {"uuid": "2"}])[0].id


def test_user_turns_number_the_stages() -> None:
    (log,) = read([PACKMIND])
    turns = [event.content[:20] for event in log.events if event.kind is Kind.USER]
    assert len(turns) == 2
    assert [event.stage for event in log.events if event.kind is Kind.USER] == [1, 2]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "content", "id", "x"]), values, max_size=2)
    ),
    max_leaves=4,
)
ENTRIES = parsed(PACKMIND) + parsed(HELPER)
OUTER = sorted({key for entry in ENTRIES for key in entry} - {"type"})
INNER = sorted({key for entry in ENTRIES for key in entry.get("message", {})} | {"isSidechain"})


@settings(max_examples=settings().max_examples // 2)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(ENTRIES),
            st.dictionaries(st.sampled_from(OUTER), JUNK, max_size=3),
            st.dictionaries(st.sampled_from(INNER), JUNK, max_size=2),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_no_value_of_any_field_raises(changed: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]) -> None:
    lines = []
    for entry, outer, inner in changed:
        message = entry.get("message")
        lines.append(entry | ({"message": message | inner} if isinstance(message, dict) else {}) | outer)
    for log in read_lines(lines):
        assert log.events


@given(st.text(max_size=50).map(str.encode) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_sniffing_never_raises(data: bytes) -> None:
    assert 0 <= ClaudeCodeImporter().sniff(LogSource(None, data=data)) <= 1


def test_it_claims_only_claude_code_logs() -> None:
    importer = ClaudeCodeImporter()
    folders = {point.name: LOGS / point.name for point in entry_points(group="apportion.importers")}
    claimed = {
        name: {importer.sniff(LogSource(path)) > 0 for path in folder.rglob("*") if path.is_file()}
        for name, folder in folders.items()
    }
    assert claimed.pop(importer.name) == {True}
    assert set().union(*claimed.values()) == {False}
