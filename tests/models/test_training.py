from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InputError
from apportion.models.training import TRAINABLE, Trainable, TrainingData, evaluate, train
from apportion.records import Usage
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apportion.telemetry.events import WorkflowLog


def test_all_models_are_trained_and_say_how_good_they_are(relay: Callable[..., WorkflowLog]) -> None:
    logs = [relay(nth, tools=["Read", "Edit"]) for nth in range(24)]
    told: list[str] = []
    trained = train(logs, progress=told.append)
    assert told == list(TRAINABLE) == list(trained.models) == list(trained.metrics)
    assert trained.untrained == {}
    assert trained.models["next_agent"].predict(["plan"], source="tests").expected == "code"
    rows = evaluate(trained.models, logs)
    assert [row["top_1"] for row in rows["next_tool"]] == [1.0, 1.0]


def test_a_model_that_finds_nothing_is_left_out_with_the_reason(
    relay: Callable[..., WorkflowLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Never:
        def fit(self, _workflows: Any) -> Never:
            raise InputError("no demand in them")

    monkeypatch.setitem(TRAINABLE, "never", Trainable(Never, Never, "nothing"))
    trained = train([relay(nth) for nth in range(3)])
    assert trained.untrained["never"] == "no demand in them"
    assert "never" not in trained.models
    with pytest.raises(InputError, match=r"nothing can be learned .*no demand in them"):
        train([])


def test_the_fingerprint_knows_workflows_and_contents_but_no_order(relay: Callable[..., WorkflowLog]) -> None:
    one, two = relay(1), relay(2, source="others")
    whole = TrainingData.of([one, two])
    assert TrainingData.of([two, one]) == whole
    assert (whole.workflows, whole.sources, whole.without_content) == (2, {"others": 1, "tests": 1}, 0)
    changed = one.model_copy(update={"events": (one.events[0].model_copy(update={"content": "else"}), *one.events[1:])})
    others = [[one], [one, two, relay(3)], [changed, two], [relay(9), two], []]
    fingerprints = {TrainingData.of(each).fingerprint for each in others}
    assert len(fingerprints) == len(others)
    assert whole.fingerprint not in fingerprints


def test_the_fingerprint_knows_what_calls_used(relay: Callable[..., WorkflowLog], tmp_path: Path) -> None:
    def with_usage(usage: Usage | None) -> WorkflowLog:
        log = relay(1)
        *rest, last = log.events
        return log.model_copy(update={"events": (*rest, last.model_copy(update={"usage": usage}))})

    used = [None, Usage(), Usage(output=5), Usage(output=6), Usage(output=6, estimated=frozenset({"output"}))]
    logs = [*map(with_usage, used)]
    assert len({TrainingData.of([log]).fingerprint for log in logs}) == len(used)
    stored: list[str] = []
    with TelemetryStore(tmp_path / "t.db", count_tokens=len) as store:
        for number in (2, 3, 2):
            store.add(logs[number])
            found = store.load("w1")
            assert found is not None
            stored.append(TrainingData.of([found]).fingerprint)
    assert stored[0] == stored[2] != stored[1]


def test_stored_workflows_without_contents_are_counted_and_learned_from(
    relay: Callable[..., WorkflowLog], tmp_path: Path
) -> None:
    with TelemetryStore(tmp_path / "t.db", count_tokens=len) as store:
        for nth in range(24):
            store.add(relay(nth))
        stored = [each for summary in store.workflows() if (each := store.load(summary.id)) is not None]
    data = TrainingData.of(stored)
    assert (data.workflows, data.without_content) == (24, 24)
    assert TrainingData.of(stored[:-1]).fingerprint != data.fingerprint
    assert train(stored).models["next_agent"].predict(["plan", "code"], source="tests").expected == "review"
