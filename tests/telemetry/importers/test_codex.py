"""The importer of Codex rollouts, on a real rollout and on small changes of it."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.records import Kind, Usage
from apportion.telemetry.importers.codex import CodexImporter
from apportion.telemetry.reading import LogSource, SkipLog, find_sources

if TYPE_CHECKING:
    from apportion.telemetry.events import Event, WorkflowLog

LOGS = Path(__file__).parents[3] / "fixtures" / "logs"
ROLLOUT = LOGS / "codex" / "rollout-agentv.jsonl"
LINES: list[dict[str, Any]] = [json.loads(line) for line in ROLLOUT.read_text(encoding="utf-8").splitlines()]
OUTPUT_KINDS = {Kind.ASSISTANT, Kind.THINKING, Kind.TOOL_CALL, Kind.HANDOFF}
META = {
    "type": "session_meta",
    "timestamp": "2026-01-01T00:00:00Z",
    "payload": {"id": "s1", "base_instructions": {"text": "Base"}},
}


def read(lines: list[Any], skipped: SkipLog | None = None) -> WorkflowLog:
    data = "\n".join(json.dumps(line) for line in lines).encode()
    (log,) = CodexImporter().read([LogSource(None, data=data)], SkipLog() if skipped is None else skipped)
    return log


def item(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "response_item", "timestamp": "2026-01-01T00:00:01Z", "payload": {"type": kind, **fields}}


def message(role: str, text: str) -> dict[str, Any]:
    return item("message", role=role, content=[{"type": "input_text", "text": text}])


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "event_msg", "timestamp": "2026-01-01T00:00:02Z", "payload": {"type": kind, **fields}}


def tokens(total: int, **last: int) -> dict[str, Any]:
    return event(
        "token_count",
        info={"total_token_usage": {"input_tokens": total}, "last_token_usage": last or {"input_tokens": 1}},
    )


def calls(log: WorkflowLog) -> list[list[str]]:
    """Return the contents of each completion."""
    found: dict[int, list[str]] = {}
    for one in log.events:
        if one.call is not None:
            found.setdefault(one.call, []).append(one.content)
    return list(found.values())


def prompt_of(log: WorkflowLog, content: str) -> list[str]:
    steps = next(one.prompt_steps for one in log.events if one.content == content and one.call is not None)
    assert steps is not None
    return [one.content for one in log.events if one.step in steps]


def independent_counts() -> list[dict[str, int]]:
    counted, total = [], None
    for line in LINES:
        info = line["payload"].get("info")
        if line["payload"].get("type") == "token_count" and info and info["total_token_usage"] != total:
            total = info["total_token_usage"]
            counted.append(info["last_token_usage"])
    return counted


def test_calls_and_usage_equal_an_independent_count() -> None:
    counted = independent_counts()
    log = read(LINES)
    assert log.calls == len(counted) == 4
    assert log.usage == Usage(
        input_uncached=sum(one["input_tokens"] - one["cached_input_tokens"] for one in counted),
        cache_read=sum(one["cached_input_tokens"] for one in counted),
        output=sum(one["output_tokens"] for one in counted),
        reasoning=sum(one["reasoning_output_tokens"] for one in counted),
    )


def test_prompt_tokens_equal_the_input_that_codex_reports() -> None:
    usages = [one.usage for one in read(LINES).events if one.usage is not None]
    assert [usage.prompt_tokens for usage in usages] == [one["input_tokens"] for one in independent_counts()]


def test_usage_belongs_to_the_completion_before_the_token_count() -> None:
    log = read(LINES)
    assert all((one.call is not None) == (one.kind in OUTPUT_KINDS) for one in log.events)
    first: dict[int, Event] = {}
    for one in log.events:
        if one.call is not None:
            first.setdefault(one.call, one)
    assert all((one.usage is not None) == (one in first.values()) for one in log.events)
    assert all(one.kind is Kind.THINKING and one.model == "gpt-5.5" for one in first.values())


def test_repeated_token_counts_are_counted_once() -> None:
    repeated = [line for line in LINES for _ in range(3 if line["payload"].get("type") == "token_count" else 1)]
    once, thrice = read(LINES), read(repeated)
    assert thrice.usage == once.usage
    assert thrice.calls == once.calls


def test_a_count_whose_sum_alone_changed_is_no_completion() -> None:
    info = {"total_token_usage": {"input_tokens": 1, "total_tokens": 9}, "last_token_usage": {"total_tokens": 8}}
    log = read([META, item("reasoning", summary=[]), tokens(1), event("token_count", info=info)])
    assert log.calls == 1


def test_contents_are_verbatim() -> None:
    log = read(LINES)
    items = [line["payload"] for line in LINES if line["type"] == "response_item"]
    assert [one.content for one in log.events if one.kind is Kind.TOOL_CALL] == [
        one["arguments"] for one in items if one["type"] == "function_call"
    ]
    assert [one.content for one in log.events if one.kind is Kind.TOOL_RESULT] == [
        one["output"] for one in items if one["type"] == "function_call_output"
    ]
    assert log.events[0].kind is Kind.SYSTEM
    assert log.events[0].content == LINES[0]["payload"]["base_instructions"]["text"]
    given = [
        block["text"]
        for one in items
        if one["type"] == "message" and one["role"] != "assistant"
        for block in one["content"]
    ]
    assert [one.content for one in log.events[1:] if one.kind in {Kind.SYSTEM, Kind.USER}] == given


def test_results_are_linked_to_their_calls_and_named_after_them() -> None:
    log = read(LINES)
    named = {one.link: one.name for one in log.events if one.kind is Kind.TOOL_CALL}
    results = [one for one in log.events if one.kind is Kind.TOOL_RESULT]
    assert results
    assert all(one.name == named[one.link] == "exec_command" for one in results)


def test_user_turns_number_the_stages_and_injected_context_does_not() -> None:
    log = read(
        [
            META,
            message("user", "# AGENTS.md instructions"),
            message("user", "<environment_context>x"),
            message("user", "one"),
            message("assistant", "a"),
            tokens(1),
            message("user", "two"),
        ]
    )
    assert [(one.content, one.stage) for one in log.events if one.kind is Kind.USER] == [
        ("# AGENTS.md instructions", 0),
        ("<environment_context>x", 0),
        ("one", 1),
        ("two", 2),
    ]
    assert max(one.stage for one in read(LINES).events) == 1


@pytest.mark.parametrize(
    ("called", "answered", "name", "content"),
    [
        (
            item("custom_tool_call", call_id="c", name="apply_patch", input="*** Begin"),
            item("custom_tool_call_output", call_id="c", output="Exit code: 1\nfailed"),
            "apply_patch",
            "*** Begin",
        ),
        (
            item("local_shell_call", call_id="c", action={"command": ["ls"]}),
            item("function_call_output", call_id="c", output={"content": "no", "success": False}),
            "local_shell",
            '{"command":["ls"]}',
        ),
        (
            item("tool_search_call", call_id="c", arguments={"query": "q"}),
            item("function_call_output", call_id="c", output='{"output":"","metadata":{"exit_code":2}}'),
            "tool_search",
            '{"query":"q"}',
        ),
    ],
)
def test_every_kind_of_tool_call_is_read(
    called: dict[str, Any], answered: dict[str, Any], name: str, content: str
) -> None:
    log = read([META, called, answered, tokens(1)])
    call, result = log.events[1:]
    assert (call.kind, call.name, call.content, call.link) == (Kind.TOOL_CALL, name, content, "c")
    assert (result.kind, result.name, result.link, result.is_error) == (Kind.TOOL_RESULT, name, "c", True)


def test_results_between_the_calls_of_one_completion_do_not_split_it() -> None:
    log = read(
        [
            META,
            item("function_call", call_id="a", name="x", arguments="1"),
            item("function_call_output", call_id="a", output="r"),
            item("function_call", call_id="b", name="x", arguments="2"),
            tokens(1),
        ]
    )
    assert calls(log) == [["1", "2"]]


def test_without_token_counts_an_output_behind_an_input_is_a_new_completion() -> None:
    log = read(
        [
            META,
            item("function_call", call_id="a", name="x", arguments="1"),
            item("function_call_output", call_id="a", output="r"),
            message("assistant", "done"),
        ]
    )
    assert calls(log) == [["1"], ["done"]]
    assert log.usage == Usage()


def test_an_aborted_completion_does_not_take_the_usage_of_the_next_one() -> None:
    log = read(
        [
            META,
            message("user", "one"),
            item("reasoning", summary=[{"type": "summary_text", "text": "hm"}]),
            message("user", "two"),
            message("assistant", "answer"),
            tokens(1, input_tokens=7, output_tokens=3),
        ]
    )
    assert calls(log) == [["hm"], ["answer"]]
    assert [one.usage for one in log.events if one.call is not None] == [None, Usage(input_uncached=7, output=3)]


def test_usage_without_output_in_the_log_is_not_lost() -> None:
    log = read([META, message("user", "one"), message("assistant", "a"), tokens(1), tokens(9, input_tokens=8)])
    assert calls(log) == [["a"], [""]]
    assert log.usage.input_uncached == 9


def test_totals_stand_in_for_missing_counts_of_the_last_completion() -> None:
    first, second = (
        {"total_token_usage": {"input_tokens": 10 * n, "cached_input_tokens": 4 * n, "output_tokens": n}}
        for n in (1, 3)
    )
    log = read(
        [
            META,
            message("assistant", "a"),
            event("token_count", info=first),
            message("assistant", "b"),
            event("token_count", info=second),
        ]
    )
    assert [one.usage for one in log.events if one.usage is not None] == [
        Usage(input_uncached=6, cache_read=4, output=1),
        Usage(input_uncached=12, cache_read=8, output=2),
    ]


def test_a_compaction_replaces_the_history_but_not_the_base_instructions() -> None:
    history = [message("user", "kept")["payload"], {"type": "compaction", "encrypted_content": "x"}]
    compacted = {
        "type": "compacted",
        "timestamp": "2026-01-01T00:00:03Z",
        "payload": {"message": "", "replacement_history": history},
    }
    log = read(
        [
            META,
            message("user", "one"),
            message("assistant", "a"),
            tokens(1),
            compacted,
            message("user", "two"),
            message("assistant", "b"),
            tokens(2),
        ]
    )
    assert [one.content for one in log.events if one.compaction] == ["kept"]
    assert prompt_of(log, "b") == ["Base", "kept", "", "two"]
    assert [one.stage for one in log.events if one.content in {"one", "kept", "two"}] == [1, 1, 2]


def test_a_compaction_without_history_begins_with_its_message() -> None:
    compacted = {"type": "compacted", "timestamp": "t", "payload": {"message": "Summary"}}
    log = read([META, message("user", "one"), compacted, message("assistant", "b"), tokens(1)])
    assert prompt_of(log, "b") == ["Base", "Summary"]


def test_rolled_back_turns_leave_the_context() -> None:
    turns = [
        line for n in (1, 2, 3) for line in (message("user", f"ask {n}"), message("assistant", f"say {n}"), tokens(n))
    ]
    log = read(
        [
            META,
            *turns,
            event("thread_rolled_back", num_turns=2),
            message("user", "instead"),
            message("assistant", "last"),
            tokens(9),
        ]
    )
    assert prompt_of(log, "last") == ["Base", "ask 1", "say 1", "instead"]


def test_sub_agents_join_the_session_that_spawned_them(tmp_path: Path) -> None:
    spawn = item(
        "function_call", call_id="c", name="spawn_agent", arguments='{"agent_type":"explorer","message":"look"}'
    )
    spawned = item("function_call_output", call_id="c", output='{"agent_id":"s2"}')
    parent = [META, message("user", "go"), spawn, spawned, tokens(1)]
    source = {"subagent": {"thread_spawn": {"parent_thread_id": "s1", "depth": 1, "agent_role": "explorer"}}}
    child = [
        META | {"payload": {"id": "s2", "source": source}},
        message("user", "look"),
        message("assistant", "seen"),
        tokens(1),
    ]
    for name, lines in (("child", child), ("parent", parent)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    importer = CodexImporter()
    (group,) = importer.group(find_sources([tmp_path], SkipLog()))
    (log,) = importer.read(group, SkipLog())
    assert log.id == "codex:s1"
    assert {(one.agent_run, one.agent, one.parent_agent) for one in log.events} == {
        ("main", "main", None),
        ("sub:s2", "explorer", "main"),
    }
    assert [one.kind for one in log.events if one.name == "explorer"] == [Kind.HANDOFF, Kind.HANDOFF_RESULT]
    assert log.calls == 2


def test_copied_history_does_not_rename_a_forked_session() -> None:
    forked = META | {"payload": {"id": "s9", "forked_from_id": "s1"}}
    log = read([forked, META, message("user", "one")])
    assert log.id == "codex:s9"
    assert log.meta["forked_from"] == "s1"


def test_the_identifier_is_the_session_or_else_follows_from_the_content() -> None:
    assert read(LINES).id == f"codex:{LINES[0]['payload']['id']}"
    first, second = (read([message("user", "one")]).id for _ in range(2))
    assert first == second != read([message("user", "two")]).id


def test_unknown_and_damaged_lines_are_counted_with_their_number() -> None:
    skipped = SkipLog()
    log = read(
        [
            META,
            42,
            {"type": "poem", "payload": {"a": 1}},
            item("verse"),
            item("ghost_snapshot"),
            message("user", "one"),
        ],
        skipped,
    )
    assert len(log.events) == 2
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [
        (2, "not a rollout line"),
        (3, "unknown line type 'poem'"),
        (4, "unknown item type 'verse'"),
    ]


def test_a_truncated_last_line_costs_only_itself() -> None:
    skipped = SkipLog()
    (log,) = CodexImporter().read([LogSource(None, data=ROLLOUT.read_bytes()[:-30])], skipped)
    assert log.calls == 4
    assert sum(one.usage is not None for one in log.events) == 3
    assert [skip.line for skip in skipped.messages] == [len(LINES)]


def test_a_file_without_messages_is_counted() -> None:
    skipped = SkipLog()
    data = json.dumps({"type": "turn_context", "payload": {"model": "m"}}).encode()
    assert list(CodexImporter().read([LogSource(None, data=data)], skipped)) == []
    assert skipped.files == 1


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "content", "text", "x"]), values, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = sorted(
    {key for line in LINES for key in line["payload"]} | {"replacement_history", "num_turns", "action", "input"}
)
KINDS = [
    "message",
    "reasoning",
    "function_call",
    "local_shell_call",
    "function_call_output",
    "tool_search_output",
    "token_count",
    "thread_rolled_back",
]


@settings(max_examples=settings().max_examples // 2)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*LINES, META | {"type": "compacted"}]),
            st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=4),
            st.sampled_from(KINDS) | st.none(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_no_value_of_any_field_raises(changed: list[tuple[dict[str, Any], dict[str, Any], str | None]]) -> None:
    lines = [
        line | {"payload": line["payload"] | changes | ({"type": kind} if kind is not None else {})}
        for line, changes, kind in changed
    ]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    for log in CodexImporter().read([LogSource(None, data=data)], SkipLog()):
        assert log.events


@given(st.text(max_size=50).map(str.encode) | JUNK.map(lambda value: json.dumps(value).encode()))
def test_sniffing_never_raises(data: bytes) -> None:
    assert CodexImporter().sniff(LogSource(None, data=data)) == 0


def test_it_claims_only_rollouts() -> None:
    importer = CodexImporter()
    folders = {point.name: LOGS / point.name for point in entry_points(group="apportion.importers")}
    claimed = {
        name: {importer.sniff(LogSource(path)) > 0 for path in folder.rglob("*") if path.is_file()}
        for name, folder in folders.items()
    }
    assert claimed.pop(importer.name) == {True}
    assert set().union(*claimed.values()) == {False}
