from __future__ import annotations

import doctest
import math
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models import features
from apportion.models.examples import CallExample, RunExample, SpanExample, examples_of
from apportion.models.features import FEATURES, Caller, Watch, task_shape
from apportion.records import Kind, Usage
from apportion.telemetry.events import Event, WorkflowLog, iter_calls
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGS = Path(__file__).parents[2] / "fixtures" / "logs"
REAL = [
    "normalised",
    "codex",
    "opencode",
    "claude_code/subagents_layout",
    "ag2/whowhen-80.json",
    "crewai/providers.yaml",
]


def test_the_examples_run() -> None:
    results = doctest.testmod(features)
    assert results.attempted > 0
    assert results.failed == 0


def test_each_feature_stands_once_in_the_table_with_unit_and_meaning() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(names) == len(set(names))
    assert all(feature.unit and feature.meaning and feature.name == feature.name.lower() for feature in FEATURES)


def test_the_shape_of_a_task_has_the_columns_of_the_table() -> None:
    assert len(task_shape("")) == sum(feature.name.startswith("task_") for feature in FEATURES)
    assert task_shape("") == (0.0,) * 8
    text = "# Fix\n- must read src/app.py\n- why?\n```py\nx\n```\n"
    assert task_shape(text)[2:] == (2.0, 1.0, 1.0, 1.0, 1.0, 2.0)


def known_before(log: WorkflowLog) -> list[tuple[object, ...]]:
    """What was known before each call, run, stage and workflow, keyed by the call with which it begins."""
    found = examples_of([log])
    examples: list[CallExample | RunExample | SpanExample] = [*found.calls, *found.runs, *found.stages]
    return [_known(each) for each in (*examples, *found.workflows)]


def _known(example: CallExample | RunExample | SpanExample) -> tuple[object, ...]:
    values = tuple("unknown" if math.isnan(value) else value for value in example.features)
    history = (example.outputs, example.growths) if isinstance(example, CallExample) else example.history
    return example.caller, values, example.prompt_tokens, history


def other_future(log: WorkflowLog, moment: int, seed: int) -> WorkflowLog:
    """The same workflow up to a call's first event; its answer and all after it are removed, shuffled and replaced."""
    rng = random.Random(seed)  # noqa: S311  (no secret)
    first = log.events[moment]
    usage = first.usage
    if usage is not None:
        usage = Usage(**usage.fields_with(output=rng.randrange(10**6), reasoning=None, estimated=frozenset()))
    events = [*log.events[:moment], Event(**first.fields_with(content="another answer", usage=usage, name="other"))]
    later = [event for event in log.events[moment + 1 :] if rng.random() < 0.7]
    rng.shuffle(later)
    for event in later:
        changes = {"content": event.content[::-1] + "!", "step": events[-1].step + 1, "prompt_steps": None}
        events.append(Event(**event.fields_with(**changes)))
    return WorkflowLog(id=log.id, source=log.source, framework=log.framework, events=tuple(events))


def moments(log: WorkflowLog) -> Iterator[int]:
    """Positions of the first events of calls."""
    firsts: dict[tuple[str, int], int] = {}
    for position, event in enumerate(log.events):
        if event.call is not None and event.kind.written_by_model:
            firsts.setdefault((event.agent_run, event.call), position)
    yield from (firsts[call] for call in iter_calls(log))


def leaks(log: WorkflowLog, seed: int, *, most: int = 12) -> list[int]:
    """Calls before which something else is known when their future is another one."""
    chosen = list(enumerate(moments(log)))
    random.Random(seed).shuffle(chosen)  # noqa: S311  (no secret)
    found = examples_of([log]).calls
    return [
        number
        for number, moment in chosen[:most]
        if _known(found[number]) != _known(examples_of([other_future(log, moment, seed)]).calls[number])
    ]


@pytest.mark.parametrize("name", REAL)
def test_nothing_after_the_moment_of_prediction_moves_a_feature_of_a_real_log(name: str) -> None:
    logs = list(read_logs(LOGS / name, SkipLog()))
    assert logs
    assert [leaks(log, seed=1) for log in logs] == [[] for _ in logs]


@settings(max_examples=40)
@given(workflow=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_nothing_after_the_moment_of_prediction_moves_a_feature(
    draw_log: Callable[..., WorkflowLog], workflow: int, seed: int
) -> None:
    assert leaks(draw_log(workflow), seed) == []


def _answer_length(watch: Watch, event: Event) -> tuple[float, ...]:
    return (*_honest(watch, event)[:-1], float(event.usage.output or 0 if event.usage is not None else 0))


def _answer_text(watch: Watch, event: Event) -> tuple[float, ...]:
    return (*_honest(watch, event)[:-1], float(len(event.content)))


_honest = Watch.features


@pytest.mark.parametrize("leaking", [_answer_length, _answer_text])
def test_a_feature_that_looks_at_the_answer_is_caught(
    draw_log: Callable[..., WorkflowLog],
    leaking: Callable[[Watch, Event], tuple[float, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Watch, "features", leaking)
    assert any(leaks(draw_log(seed), seed) for seed in range(3))


def test_a_history_that_knows_how_earlier_runs_will_end_is_caught(
    draw_log: Callable[..., WorkflowLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = draw_log(5)
    final = [len(list(moments(log)))]

    def prescient(watch: Watch, event: Event) -> list[tuple[int, int]]:
        return [(final[0], watch.prompt_tokens(event))]

    honest = known_before(log)
    monkeypatch.setattr(Watch, "earlier_stages", prescient)
    assert known_before(log) != honest


@given(workflow=st.integers(0, 10**6))
@settings(max_examples=25)
def test_features_can_be_read_while_a_workflow_runs(draw_log: Callable[..., WorkflowLog], workflow: int) -> None:
    log = draw_log(workflow)
    watch = Watch(framework=log.framework, source=log.source)
    live = []
    for event in log.events:
        if watch.begins_call(event):
            live.append(watch.features(event))
        watch.see(event)
    logged = [call.features for call in examples_of([log]).calls]
    assert repr(live) == repr(logged)
    assert {len(each) for each in live} == {len(FEATURES)}


def _event(step: int, kind: Kind, content: str = "x", run: str = "main", **fields: Any) -> Event:
    agent = "main" if run == "main" else "helper"
    return Event(step=step, kind=kind, content=content, agent=agent, agent_run=run, **fields)


def test_who_calls_is_told_by_agent_and_parent() -> None:
    watch = Watch(framework="f", source="s")
    main, sub = _event(0, Kind.ASSISTANT, call=0, model="m"), _event(1, Kind.ASSISTANT, run="sub", parent_agent="main")
    assert watch.caller(main) == Caller("f", "s", "main", "main", "m")
    assert watch.caller(sub).role == "sub"


def test_a_sub_agent_counts_for_the_next_one_only_once_its_parent_has_gone_on() -> None:
    watch = Watch(framework="f", source="s")
    helper: dict[str, Any] = {"parent_agent": "main"}
    watch.see(_event(0, Kind.ASSISTANT, call=0))
    watch.see(_event(1, Kind.ASSISTANT, call=1, run="sub:1", **helper))
    second = _event(2, Kind.ASSISTANT, call=2, run="sub:2", **helper)
    assert watch.earlier_units(second) == []
    watch.see(_event(3, Kind.ASSISTANT, call=3))
    third = _event(4, Kind.ASSISTANT, call=4, run="sub:2", **helper)
    assert [unit.agent_run for unit in watch.earlier_units(third)] == ["sub:1"]
