"""The importer of normalised events."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.planner.planner import PlanOptions
from apportion.planner.replay.workflow import replay_workflow
from apportion.records import Kind, Usage
from apportion.telemetry.importers.normalised import NormalisedImporter
from apportion.telemetry.reading import LogSource, SkipLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.telemetry.events import WorkflowLog

API_ERROR = Path(__file__).parents[3] / "fixtures" / "logs" / "normalised" / "api-error-excerpt.jsonl"
EXCERPT = Path(__file__).parents[3] / "fixtures" / "logs" / "normalised" / "corpus-excerpt.jsonl"
LINES = [json.loads(line) for line in EXCERPT.read_text(encoding="utf-8").splitlines()]
WRITTEN_BY_MODELS = {"assistant", "tool_call", "handoff"}
LINE: dict[str, Any] = {
    "workflow_id": "w:1", "source": "w", "framework": "f", "step": 0, "stage": 1, "agent": "main", "agent_run": "main",
    "parent_agent": None, "role": "user", "kind": "user", "content": "hello",
}  # fmt: skip


def read(lines: list[Any], skipped: SkipLog | None = None) -> list[WorkflowLog]:
    data = "\n".join(json.dumps(line) for line in lines).encode()
    return list(NormalisedImporter().read([LogSource(None, data=data)], skipped or SkipLog()))


def test_the_excerpt_is_read_whole_and_nothing_is_skipped() -> None:
    skipped = SkipLog()
    logs = list(NormalisedImporter().read([LogSource(EXCERPT)], skipped))
    assert [log.id for log in logs] == list(dict.fromkeys(line["workflow_id"] for line in LINES))
    assert sum(len(log.events) for log in logs) == len(LINES)
    assert (skipped.files, skipped.lines) == (0, 0)
    assert all(log.origin == str(EXCERPT) for log in logs)


def test_calls_and_usage_equal_an_independent_count() -> None:
    logs = list(NormalisedImporter().read([LogSource(EXCERPT)], SkipLog()))
    calls = {
        (line["workflow_id"], line["agent_run"], line["call"])
        for line in LINES
        if "call" in line and line["kind"] in WRITTEN_BY_MODELS and line.get("model") != "<synthetic>"
    }
    assert sum(log.calls for log in logs) == len(calls)
    total = sum((log.usage for log in logs), Usage())
    counted = {
        column: sum(line["usage"][field] for line in LINES if "usage" in line)
        for column, field in {
            "input_uncached": "input", "cache_read": "cache_read", "cache_write_5m": "cache_write", "output": "output",
        }.items()
    }  # fmt: skip
    assert total.model_dump(exclude={"estimated"}) == {**counted, "cache_write_1h": None, "reasoning": None}


def test_contents_agents_and_links_are_taken_over_verbatim() -> None:
    logs = list(NormalisedImporter().read([LogSource(EXCERPT)], SkipLog()))
    events = [event for log in logs for event in log.events]
    assert [event.content for event in events] == [line["content"] for line in LINES]
    assert [event.agent_run for event in events] == [line["agent_run"] for line in LINES]
    assert [event.agent for event in events] == [line["agent"] for line in LINES]
    assert [event.link for event in events] == [line.get("link") for line in LINES]
    assert [event.stage for event in events] == [line["stage"] for line in LINES]
    assert {log.source for log in logs} == {line["source"] for line in LINES}
    assert {log.framework for log in logs} == {line["framework"] for line in LINES}


def test_thinking_becomes_a_kind_and_the_other_kinds_stay() -> None:
    logs = list(NormalisedImporter().read([LogSource(EXCERPT)], SkipLog()))
    kinds = [event.kind.value for log in logs for event in log.events]
    assert kinds == ["thinking" if line.get("name") == "thinking" else line["kind"] for line in LINES]
    assert Kind.THINKING in kinds
    assert Kind.HANDOFF in kinds


def test_placeholder_outputs_are_marked() -> None:
    logs = list(NormalisedImporter().read([LogSource(EXCERPT)], SkipLog()))
    estimated = [event.usage.estimated for log in logs for event in log.events if event.usage is not None]
    assert [columns & {"output"} for columns in estimated] == [
        frozenset({"output"}) if line["usage_final"] is False else frozenset() for line in LINES if "usage" in line
    ]


def test_cache_writes_are_marked_because_nothing_says_how_long_they_live() -> None:
    logs = list(NormalisedImporter().read([LogSource(EXCERPT)], SkipLog()))
    usages = [event.usage for log in logs for event in log.events if event.usage is not None]
    written = [bool(line["usage"]["cache_write"]) for line in LINES if "usage" in line]
    assert ["cache_write_5m" in usage.estimated for usage in usages] == written
    assert any(written)
    assert not all(written)


def test_lines_that_claude_code_wrote_itself_are_no_calls() -> None:
    """A real excerpt: two answers, and between them an API error that the log keeps in the place of an answer."""
    lines = [json.loads(line) for line in API_ERROR.read_text(encoding="utf-8").splitlines()]
    real = {line["call"] for line in lines if "call" in line and line.get("model") != "<synthetic>"}
    assert len(real) < len({line["call"] for line in lines if "call" in line})
    (log,) = NormalisedImporter().read([LogSource(API_ERROR)], SkipLog())
    assert log.calls == len(real)
    assert {event.model for event in log.events} == {None, "claude-opus-4-5-20251101"}
    assert "API Error" not in " ".join(event.content for event in log.events)
    assert log.meta["api_errors"] == 1
    assert replay_workflow(log, PlanOptions()).totals.priced_workflows == 1


def test_what_such_a_line_says_about_the_workflow_is_kept() -> None:
    (log,) = read([LINE, {**LINE, "kind": "assistant", "model": "<synthetic>", "outcome": {"reward": 1}}])
    assert (len(log.events), log.outcome) == (1, {"reward": 1})


def test_outcome_and_meta_belong_to_the_workflow() -> None:
    (log,) = (log for log in NormalisedImporter().read([LogSource(EXCERPT)], SkipLog()) if log.source.startswith("tau"))
    assert log.outcome == next(line["outcome"] for line in LINES if line["workflow_id"] == log.id and "outcome" in line)
    assert log.meta["task_id"] == next(line["meta"]["task_id"] for line in LINES if line["workflow_id"] == log.id)


def test_a_result_with_a_call_number_was_not_written_by_a_model() -> None:
    call, result = {**LINE, "kind": "tool_call", "call": 0}, {**LINE, "step": 1, "kind": "tool_result", "call": 1}
    (log,) = read([call, result])
    assert log.calls == 1
    assert log.events[1].call is None


def test_a_compact_boundary_starts_the_context_anew() -> None:
    boundary = {**LINE, "step": 1, "kind": "system", "name": "compact_boundary", "compact": {"trigger": "auto"}}
    (log,) = read([LINE, boundary, {**LINE, "step": 2}])
    assert [event.compaction for event in log.events] == [False, True, False]
    assert log.meta["compactions"] == [{"step": 1, "link": None, "trigger": "auto"}]


def test_workflows_are_yielded_before_the_next_one_is_read() -> None:
    class Counting(LogSource):
        read_lines = 0

        def json_lines(self, skipped: SkipLog) -> Iterator[tuple[int, Any]]:
            for item in super().json_lines(skipped):
                self.read_lines += 1
                yield item

    lines = [{**LINE, "workflow_id": f"w:{number // 10}", "step": number % 10} for number in range(100)]
    source = Counting(None, data="\n".join(map(json.dumps, lines)).encode())
    consumed = [source.read_lines for _ in NormalisedImporter().read([source], SkipLog())]
    assert consumed == [11, 21, 31, 41, 51, 61, 71, 81, 91, 100]


def test_lines_that_return_to_an_earlier_workflow_are_counted() -> None:
    skipped = SkipLog()
    logs = read([LINE, {**LINE, "workflow_id": "w:2"}, LINE], skipped)
    assert [log.id for log in logs] == ["w:1", "w:2"]
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [(3, "workflow w:1 goes on after another one")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({**LINE, "kind": "poem"}, "unknown kind 'poem'"),
        ({**LINE, "kind": ["user"]}, "unknown kind \"['user']\""),
        ({**LINE, "agent_run": None}, "no agent_run"),
        ({**LINE, "workflow_id": 7}, "no workflow_id"),
        (42, "no workflow_id"),
    ],
)
def test_unusable_lines_are_counted_with_their_number(line: Any, reason: str) -> None:
    skipped = SkipLog()
    (log,) = read([LINE, line, LINE], skipped)
    assert len(log.events) == 2
    assert [(skip.line, skip.reason) for skip in skipped.messages] == [(2, reason)]


def test_a_truncated_last_line_costs_only_itself() -> None:
    skipped = SkipLog()
    data = EXCERPT.read_bytes()[:-20]
    logs = list(NormalisedImporter().read([LogSource(None, data=data)], skipped))
    assert sum(len(log.events) for log in logs) == len(LINES) - 1
    assert [skip.line for skip in skipped.messages] == [len(LINES)]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values, max_size=2),
    max_leaves=3,
)


@settings(max_examples=settings().max_examples // 2)
@given(
    st.lists(st.tuples(st.sampled_from(LINES), st.dictionaries(st.sampled_from(sorted(LINES[9])), JUNK)), max_size=4)
)
def test_no_value_of_any_field_raises(changed: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    skipped = SkipLog()
    lines = [line | changes for line, changes in changed]
    logs = read(lines, skipped)
    assert sum(len(log.events) for log in logs) + skipped.lines == len(lines)


def test_it_claims_only_normalised_events() -> None:
    importer = NormalisedImporter()
    folders = {point.name: EXCERPT.parents[1] / point.name for point in entry_points(group="apportion.importers")}
    claimed = {
        name: {importer.sniff(LogSource(path)) > 0 for path in folder.rglob("*") if path.is_file()}
        for name, folder in folders.items()
    }
    assert claimed.pop(importer.name) == {True}
    assert set().union(*claimed.values()) == {False}


def test_it_recognises_a_first_line_that_is_longer_than_the_head() -> None:
    long = json.dumps({**LINE, "content": "x" * 600_000}).encode()
    assert NormalisedImporter().sniff(LogSource(None, data=long)) > 0
