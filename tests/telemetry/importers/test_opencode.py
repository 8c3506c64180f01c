"""The importer of OpenCode sessions, on real exports and on small changes of them."""

from __future__ import annotations

import copy
import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.records import Kind, Usage
from apportion.telemetry.importers.opencode import OpenCodeImporter
from apportion.telemetry.reading import LogSource, SkipLog, find_sources

if TYPE_CHECKING:
    from apportion.telemetry.events import WorkflowLog

LOGS = Path(__file__).parents[3] / "fixtures" / "logs"
SESSIONS = sorted((LOGS / "opencode").glob("*.json"))
FIRST = json.loads(SESSIONS[0].read_text(encoding="utf-8"))
ROOT = "ses_33c1ef6dcffejADgxp8843cqwQ"
"""The session that started the two exported ones; its own export is not at hand."""
OUTPUT_KINDS = {Kind.ASSISTANT, Kind.THINKING, Kind.TOOL_CALL, Kind.HANDOFF}


def read_document(document: Any, skipped: SkipLog | None = None) -> WorkflowLog:
    source = LogSource(None, data=json.dumps(document).encode())
    (log,) = OpenCodeImporter().read([source], SkipLog() if skipped is None else skipped)
    return log


def session(*messages: Any, **info: Any) -> dict[str, Any]:
    return {
        "info": {"id": "ses_1", "projectID": "p", "directory": "/d", "title": "t", "version": "1.2.0"} | info,
        "messages": list(messages),
    }


def user(*parts: Any, **info: Any) -> dict[str, Any]:
    return {
        "info": {"role": "user", "agent": "build"} | info,
        "parts": [text(part) if isinstance(part, str) else part for part in parts],
    }


def answer(*parts: Any, tokens: dict[str, Any] | None = None, **info: Any) -> dict[str, Any]:
    given = [text(part) if isinstance(part, str) else part for part in parts]
    counted = {"input": 5, "output": 3, "reasoning": 0, "cache": {"read": 2, "write": 1}} if tokens is None else tokens
    finish = {"type": "step-finish", "cost": 0.5, "tokens": counted}
    base = {"role": "assistant", "agent": "build", "modelID": "gpt-x", "time": {"created": 1_700_000_000_000}}
    return {"info": base | info, "parts": [{"type": "step-start"}, *given, finish]}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def tool(name: str, output: str, *, status: str = "completed", **time: int) -> dict[str, Any]:
    state = {
        "status": status,
        "input": {"a": 1},
        "output": output,
        "time": {"start": 1_700_000_000_000, "end": 1_700_000_000_250} | time,
    }
    return {"type": "tool", "tool": name, "callID": "c", "state": state}


def prompt_of(log: WorkflowLog, content: str) -> list[str]:
    steps = next(event.prompt_steps for event in log.events if event.content == content and event.call is not None)
    assert steps is not None
    in_order = {event.step: event.content for event in log.events}
    return [in_order[step] for step in steps]


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_calls_usage_and_cost_equal_an_independent_count(path: Path) -> None:
    parts = [part for message in json.loads(path.read_text(encoding="utf-8"))["messages"] for part in message["parts"]]
    finished = [part for part in parts if part["type"] == "step-finish"]
    (log,) = OpenCodeImporter().read([LogSource(path)], SkipLog())
    assert log.calls == len(finished)
    assert log.usage == Usage(
        input_uncached=sum(part["tokens"]["input"] for part in finished),
        cache_read=sum(part["tokens"]["cache"]["read"] for part in finished),
        cache_write_5m=sum(part["tokens"]["cache"]["write"] for part in finished),
        output=sum(part["tokens"]["output"] for part in finished),
        reasoning=sum(part["tokens"]["reasoning"] for part in finished),
    )
    assert sum(event.cost_usd or 0 for event in log.events) == pytest.approx(sum(part["cost"] for part in finished))
    tools = [part for part in parts if part["type"] == "tool"]
    assert [event.content for event in log.events if event.kind is Kind.TOOL_RESULT] == [
        part["state"]["output"] for part in tools
    ]
    assert [event.name for event in log.events if event.kind is Kind.TOOL_CALL] == [part["tool"] for part in tools]


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_outputs_of_a_completion_share_its_call_and_precede_its_results(path: Path) -> None:
    (log,) = OpenCodeImporter().read([LogSource(path)], SkipLog())
    assert all((event.call is not None) == (event.kind in OUTPUT_KINDS) for event in log.events)
    first = {event.call: event.step for event in reversed(log.events)}
    assert all(
        (event.usage is not None) == (first[event.call] == event.step) for event in log.events if event.call is not None
    )
    calls = [event.call for event in log.events if event.call is not None]
    assert calls == sorted(calls)


@pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)
def test_links_are_unique_although_the_identifiers_are_redacted(path: Path) -> None:
    (log,) = OpenCodeImporter().read([LogSource(path)], SkipLog())
    calls = [event.link for event in log.events if event.kind is Kind.TOOL_CALL]
    assert len(set(calls)) == len(calls)
    assert sorted(map(str, calls)) == sorted(str(event.link) for event in log.events if event.kind is Kind.TOOL_RESULT)


def test_times_and_durations_are_those_of_the_parts() -> None:
    log = read_document(FIRST)
    part = next(part for message in FIRST["messages"] for part in message["parts"] if part["type"] == "tool")
    result = next(event for event in log.events if event.kind is Kind.TOOL_RESULT)
    assert result.started_at is not None
    assert result.started_at.timestamp() * 1000 == pytest.approx(part["state"]["time"]["end"])
    assert result.duration_ms == part["state"]["time"]["end"] - part["state"]["time"]["start"]
    assert {event.agent for event in log.events} == {"general"}
    assert {event.model for event in log.events if event.call is not None} == {"gpt-5.3-codex"}


def test_child_sessions_join_their_root_wherever_their_files_are(tmp_path: Path) -> None:
    """The root is synthetic; its children are the real exports, with the parent's identifier put back."""
    children = [json.loads(path.read_text(encoding="utf-8")) for path in SESSIONS]
    tasks = []
    for child in children:
        child["info"]["parentID"] = ROOT
        created = child["info"]["time"]["created"]
        task = tool("task", "<task_result>", start=created - 10, end=created + 60_000)
        task["state"] |= {
            "input": {"subagent_type": "general", "prompt": "Review"},
            "metadata": {"sessionId": child["info"]["id"]},
        }
        tasks.append(task)
        (tmp_path / f"{child['info']['id']}.json").write_text(json.dumps(child, indent=2))
    start = min(child["info"]["time"]["created"] for child in children) - 1000
    root = session(user("go", time={"created": start}), answer(*tasks, time={"created": start}), id=ROOT)
    (tmp_path / "zz-root.json").write_text(json.dumps(root))
    importer = OpenCodeImporter()
    (group,) = importer.group(find_sources([tmp_path], SkipLog()))
    (log,) = importer.read(group, SkipLog())
    assert log.id == f"opencode:{ROOT}"
    assert {(event.agent_run, event.parent_agent) for event in log.events} == {
        ("main", None),
        *((f"sub:{child['info']['id']}", "main") for child in children),
    }
    handoffs = [
        (event.kind, event.name) for event in log.events if event.agent_run == "main" and event.link is not None
    ]
    assert handoffs == [(Kind.HANDOFF, "general")] * 2 + [(Kind.HANDOFF_RESULT, "general")] * 2
    kinds = [event.kind for event in log.events]
    assert kinds[-1] is Kind.HANDOFF_RESULT
    assert log.calls == 1 + sum(read_document(child).calls for child in children)


def test_sessions_whose_parent_is_redacted_or_missing_stand_alone() -> None:
    groups = list(OpenCodeImporter().group([LogSource(path) for path in SESSIONS]))
    assert [len(group) for group in groups] == [1, 1]


def test_several_steps_of_one_message_are_several_completions() -> None:
    first, second = answer("a"), answer("b")
    log = read_document(session(user("go"), {"info": first["info"], "parts": first["parts"] + second["parts"]}))
    assert log.calls == 2
    assert log.usage == Usage(
        input_uncached=10,
        cache_read=4,
        cache_write_5m=2,
        output=6,
        reasoning=0,
        estimated=frozenset({"cache_write_5m"}),
    )


def test_a_message_without_steps_has_the_usage_of_the_message() -> None:
    bare = answer("a", tokens={"input": 9, "output": 4}, cost=0.25)
    log = read_document(session({"info": bare["info"] | {"tokens": {"input": 9, "output": 4}}, "parts": [text("a")]}))
    assert log.usage == Usage(input_uncached=9, output=4)
    assert log.events[0].cost_usd == 0.25


@pytest.mark.parametrize(
    ("tokens", "output"),
    [
        ({"total": 100, "input": 60, "output": 40, "reasoning": 30}, 40),
        ({"total": 130, "input": 60, "output": 40, "reasoning": 30}, 70),
        ({"input": 60, "output": 40, "reasoning": 30}, 40),
        ({"input": 60, "output": 20, "reasoning": 30}, 50),
    ],
)
def test_output_includes_reasoning_whatever_the_version_counts(tokens: dict[str, int], output: int) -> None:
    usage = read_document(session(answer("a", tokens=tokens))).usage
    assert (usage.output, usage.reasoning) == (output, 30)


def test_a_failed_message_without_output_is_no_completion() -> None:
    failed = {"info": {"role": "assistant", "error": {"name": "x"}, "tokens": {"input": 0, "output": 0}}, "parts": []}
    log = read_document(session(user("go"), failed))
    assert (log.calls, log.meta["errors"]) == (0, 1)


def test_failed_tools_are_errors_and_unfinished_ones_have_no_result() -> None:
    broken = tool("bash", "", status="error")
    broken["state"]["error"] = "boom"
    log = read_document(session(answer(broken, tool("bash", "", status="running"))))
    results = [(event.content, event.is_error) for event in log.events if event.kind is Kind.TOOL_RESULT]
    assert results == [("boom", True)]


def test_media_are_replaced_by_a_marker_and_ignored_text_is_left_out() -> None:
    picture = {"type": "file", "mime": "image/png", "url": "data:image/png;base64," + "A" * 9000}
    note = {"type": "file", "mime": "text/plain", "url": "data:text/plain;base64,QQ=="}
    log = read_document(
        session(
            user("see", picture, note, text("hidden") | {"ignored": True}, text("file content") | {"synthetic": True})
        )
    )
    assert [(event.content[:14], event.name) for event in log.events] == [
        ("see", None),
        ("[file omitted:", None),
        ("file content", "synthetic"),
    ]
    assert all(len(event.content) < 100 for event in log.events)


def test_a_compaction_leaves_question_summary_and_what_it_kept() -> None:
    compaction = user({"type": "compaction", "auto": True, "tail_start_id": "m3"}, id="m5")
    summary = answer("Summary", summary=True, id="m6")
    log = read_document(
        session(
            user("one", id="m1"),
            answer("a", id="m2"),
            user("two", id="m3"),
            answer("b", id="m4"),
            compaction,
            summary,
            user("three"),
            answer("c"),
        )
    )
    assert prompt_of(log, "c") == ["What did we do so far?", "Summary", "two", "b", "three"]
    assert [event.content for event in log.events if event.compaction] == ["What did we do so far?"]
    assert log.calls == 4
    assert max(event.stage for event in log.events) == 3


def test_a_summary_of_an_older_version_starts_the_context_anew() -> None:
    log = read_document(session(user("one"), answer("a"), answer("Summary", summary=True), user("two"), answer("b")))
    (start,) = (event for event in log.events if event.compaction)
    assert (start.kind, start.content, start.call) == (Kind.ASSISTANT, "Summary", None)


def test_tool_results_that_were_cleared_later_are_replaced_in_later_prompts() -> None:
    cleared = tool("bash", "long output", compacted=1_700_000_005_000)
    log = read_document(
        session(
            user("go"),
            answer(cleared),
            answer("before", time={"created": 1_700_000_004_000}),
            answer("after", time={"created": 1_700_000_006_000}),
        )
    )
    before = next(event for event in log.events if event.content == "before")
    assert before.prompt_steps is None
    assert prompt_of(log, "after") == ["go", '{"a":1}', "[Old tool result content cleared]", "before"]


def test_a_pretty_printed_export_under_the_name_of_json_lines_is_read(tmp_path: Path) -> None:
    path = tmp_path / "full.jsonl"
    path.write_bytes(SESSIONS[0].read_bytes())
    importer = OpenCodeImporter()
    assert importer.sniff(LogSource(path)) == 1.0
    (log,) = importer.read([LogSource(path)], SkipLog())
    assert log.events == read_document(FIRST).events


def test_a_truncated_export_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_bytes(SESSIONS[0].read_bytes()[:-500])
    skipped = SkipLog()
    logs = list(OpenCodeImporter().read([LogSource(broken), LogSource(SESSIONS[1])], skipped))
    assert [log.id for log in logs] == [f"opencode:{SESSIONS[1].stem}"]
    assert (skipped.files, [skip.path for skip in skipped.messages]) == (1, [str(broken)])


def test_unusable_messages_and_parts_are_counted_by_position() -> None:
    skipped = SkipLog()
    log = read_document(
        session(user("go"), {"info": {}}, "x", user({"type": "poem"}), answer("a", 7, {"type": "ode"})), skipped
    )
    assert [event.content for event in log.events] == ["go", "a"]
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [
        (2, "message without a role"),
        (3, "message without a role"),
        (4, "unknown part type 'poem'"),
        (5, "part without a type"),
        (5, "unknown part type 'ode'"),
    ]


def test_the_identifier_is_the_session_or_else_follows_from_the_content() -> None:
    assert read_document(FIRST).id == f"opencode:{SESSIONS[0].stem}"
    nameless = session(user("go"), id=None)
    assert read_document(nameless).id == read_document(copy.deepcopy(nameless)).id
    assert read_document(nameless).id != read_document(session(user("stop"), id=None)).id


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "time", "start", "x"]), values, max_size=2)
    ),
    max_leaves=4,
)
INFO_FIELDS = sorted({key for message in FIRST["messages"] for key in message["info"]} | {"parts", "error"})
STATE_FIELDS = ["attachments", "error", "input", "metadata", "output", "status", "time", "title"]
PART_FIELDS = sorted(
    {key for message in FIRST["messages"] for part in message["parts"] for key in part} | {"tail_start_id"}
)


@settings(max_examples=settings().max_examples // 2)
@given(st.data())
def test_no_value_of_any_field_raises(data: st.DataObject) -> None:
    document = copy.deepcopy(FIRST)
    for message in data.draw(st.lists(st.sampled_from(document["messages"]), max_size=3)):
        message["info"] |= data.draw(st.dictionaries(st.sampled_from(INFO_FIELDS), JUNK, max_size=2))
        part = data.draw(st.sampled_from(message["parts"]))
        part |= data.draw(st.dictionaries(st.sampled_from(PART_FIELDS), JUNK, max_size=2))
        if isinstance(part.get("state"), dict):
            part["state"] |= data.draw(st.dictionaries(st.sampled_from(STATE_FIELDS), JUNK, max_size=2))
    document["info"] |= data.draw(st.dictionaries(st.sampled_from(sorted(document["info"])), JUNK, max_size=2))
    for log in OpenCodeImporter().read([LogSource(None, data=json.dumps(document).encode())], SkipLog()):
        assert log.events


@given(st.text(max_size=50).map(str.encode) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_sniffing_never_raises(data: bytes) -> None:
    assert OpenCodeImporter().sniff(LogSource(None, data=data)) == 0


def test_it_claims_only_opencode_sessions() -> None:
    importer = OpenCodeImporter()
    folders = {point.name: LOGS / point.name for point in entry_points(group="apportion.importers")}
    claimed = {
        name: {importer.sniff(LogSource(path)) > 0 for path in folder.rglob("*") if path.is_file()}
        for name, folder in folders.items()
    }
    assert claimed.pop(importer.name) == {True}
    assert set().union(*claimed.values()) == {False}
