from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models.examples import examples_of
from apportion.records import Kind, Usage
from apportion.telemetry.events import LogBuilder, WorkflowLog
from apportion.telemetry.importers import SkipLog, read_logs
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6))
def test_the_levels_add_up(draw_log: Callable[..., WorkflowLog], seed: int) -> None:
    log = draw_log(seed)
    found = examples_of([log])
    (whole,) = found.workflows
    assert len(found.calls) == log.calls == sum(run.use.calls for run in found.runs)
    assert whole.total_tokens == sum(run.total_tokens for run in found.runs)
    assert whole.total_tokens == sum(stage.total_tokens for stage in found.stages)
    assert whole.total_tokens == sum(call.prompt_tokens + call.output_tokens for call in found.calls)
    assert sorted(run for stage in found.stages for run in stage.runs) == list(range(len(found.runs)))


def test_totals_of_a_log_with_final_counts_are_those_of_its_usage() -> None:
    for log in read_logs(LOGS / "opencode", SkipLog()):
        usage = log.usage
        assert usage.prompt_tokens is not None
        assert usage.output is not None
        assert not usage.estimated
        assert examples_of([log]).workflows[0].total_tokens == usage.prompt_tokens + usage.output


def _call(builder: LogBuilder, usage: Usage | None, **fields: Any) -> None:
    builder.add(
        Kind.ASSISTANT, "an answer", agent="main", agent_run="main", call=builder.next_call(), usage=usage, **fields
    )


def _built(*calls: tuple[int, int | None], compaction_before: int | None = None, stages: bool = False) -> WorkflowLog:
    builder = LogBuilder("w", source="s", framework="f")
    builder.add(Kind.USER, "do it", agent="main", agent_run="main")
    for number, (prompt, output) in enumerate(calls):
        if number == compaction_before:
            builder.add(Kind.USER, "so far", agent="main", agent_run="main", compaction=True)
        _call(builder, Usage(input_uncached=prompt, output=output), stage=number if stages else 0)
    log = builder.build()
    assert log is not None
    return log


def test_growth_is_that_to_the_next_call_of_the_same_stage() -> None:
    assert [call.growth_tokens for call in examples_of([_built((100, 5), (150, 5), (120, 5))]).calls] == [50, 0, None]
    assert [call.growth_tokens for call in examples_of([_built((100, 5), (150, 5), stages=True)]).calls] == [None, None]


def test_growth_across_a_compaction_is_unknown() -> None:
    found = examples_of([_built((100, 5), (150, 5), (20, 5), compaction_before=2)]).calls
    assert [call.growth_tokens for call in found] == [50, None, None]
    assert found[2].growths == (50,)


def test_an_output_that_the_log_does_not_count_is_counted_from_its_text() -> None:
    counted, final = examples_of([_built((100, None), (150, 7))]).calls
    assert (counted.output_tokens, counted.final) == (count_tokens("an answer"), False)
    assert (final.output_tokens, final.final, final.outputs) == (7, True, (count_tokens("an answer"),))


def test_the_overhead_is_what_the_first_prompt_exceeds_its_text_by() -> None:
    found = examples_of([_built((100, 5), (150, 5))])
    assert [each.tokens for each in found.overheads] == [100 - count_tokens("do it")]
    assert examples_of([_built((1, 5))]).overheads[0].tokens == 0


def test_a_workflow_without_calls_gives_no_example() -> None:
    builder = LogBuilder("w", source="s", framework="f")
    builder.add(Kind.USER, "hello", agent="main", agent_run="main")
    log = builder.build()
    assert log is not None
    found = examples_of([log])
    assert found == examples_of([])


def test_some_workflows_can_be_taken_out(draw_log: Callable[..., WorkflowLog]) -> None:
    logs = [draw_log(seed) for seed in range(4)]
    found = examples_of(logs)
    for log in logs:
        assert found.of({log.id}) == examples_of([log])
    assert found.of({log.id for log in logs}) == found
    assert found.of(()) == examples_of([])


@pytest.mark.parametrize(
    "name", ["normalised", "langfuse", "otlp", "mycelium", "atif", "pi", "swe_agent", "copilot_cli"]
)
def test_every_kind_of_log_gives_examples_or_none_but_no_error(name: str) -> None:
    for log in read_logs(LOGS / name, SkipLog()):
        found = examples_of([log])
        assert len(found.calls) == log.calls
        assert len(found.workflows) == min(1, log.calls)
