"""Planned against used: forecasts as they were, and what they say of the forecaster."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.models.demand import DemandModel
from apportion.models.drift import MAX_FACTOR
from apportion.models.examples import examples_of
from apportion.models.held_out import judge
from apportion.models.outcomes import RunForecasts, drift_of, outcomes_of, variance_by_agent, variance_of
from apportion.models.persistence import save_models
from apportion.models.training import TrainingData
from apportion.telemetry.store import TelemetryStore
from apportion.telemetry.stored import Outcome, StoredOutcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apportion.telemetry.events import WorkflowLog

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
VERSION = "0001-0123abcd"


@pytest.fixture(scope="module")
def model(draw_log: Callable[..., WorkflowLog]) -> DemandModel:
    return DemandModel(boost=False).fit([draw_log(seed) for seed in range(40)])


@pytest.fixture
def folder(model: DemandModel, tmp_path: Path) -> Path:
    data = TrainingData(fingerprint="0123abcd" * 8, workflows=40, without_content=0, sources={})
    save_models(tmp_path / "models", {"demand": model}, data, created_at=NOON)
    return tmp_path / "models"


def outcome(used: int, median: int = 100, likely: int = 200, **fields: Any) -> Outcome:
    about = {"agent_run": "r", "agent": "main", "stage": 0, "version": VERSION, "low_tokens": 0}
    return Outcome(**{**about, "median_tokens": median, "likely_tokens": likely, "used_tokens": used, **fields})


def test_each_run_is_forecast_as_it_was_before_it_began(
    model: DemandModel, draw_log: Callable[..., WorkflowLog]
) -> None:
    log = draw_log(77)
    found = outcomes_of(model, VERSION, log)
    runs = examples_of([log]).runs
    assert [one.used_tokens for one in found] == [run.total_tokens for run in runs]
    judged = judge(model, examples_of([log]))["run"]  # the second opinion
    wanted = np.rint(np.expm1(judged.quantiles))
    assert [[one.low_tokens, one.median_tokens, one.likely_tokens] for one in found] == wanted[:, [1, 3, 5]].tolist()
    units = {(event.agent_run, event.agent, event.stage) for event in log.events if event.call is not None}
    assert {(one.agent_run, one.agent, one.stage) for one in found} == units


def test_the_future_moves_no_forecast_of_a_run_that_had_begun(
    model: DemandModel, draw_log: Callable[..., WorkflowLog]
) -> None:
    log = draw_log(77, stages=3)
    cut = log.model_copy(update={"events": tuple(event for event in log.events if event.stage < 2)})
    whole, early = outcomes_of(model, VERSION, log), outcomes_of(model, VERSION, cut)
    assert early
    assert early == whole[: len(early)]
    assert len(early) < len(whole)


def test_a_workflow_is_stored_with_what_was_forecast_and_used(
    folder: Path, draw_log: Callable[..., WorkflowLog], tmp_path: Path
) -> None:
    forecast = RunForecasts(folder)
    log = draw_log(77)
    with TelemetryStore(tmp_path / "t.db", forecast=forecast, count_tokens=len) as store:
        store.add(log)
        stored = store.outcomes()
    assert forecast.problem is None
    assert forecast.outcomes == len(stored) == len(examples_of([log]).runs)
    assert {one.workflow for one in stored} == {log.id}
    assert {one.version for one in stored} == {VERSION}


def test_a_model_is_not_judged_on_what_it_may_have_learned_from(
    folder: Path, draw_log: Callable[..., WorkflowLog]
) -> None:
    forecast = RunForecasts(folder)
    assert forecast(draw_log(77), NOON - timedelta(days=1)) == []
    assert forecast(draw_log(77), NOON + timedelta(days=1)) == forecast(draw_log(77), None) != []
    assert forecast.problem is None


@pytest.mark.parametrize("damage", ["model", "manifest", "current", "nothing trained"])
def test_models_that_cannot_be_loaded_are_a_problem_and_no_error(
    damage: str, folder: Path, draw_log: Callable[..., WorkflowLog]
) -> None:
    version = next(path for path in folder.iterdir() if path.is_dir())
    if damage == "nothing trained":
        folder = folder / "empty"
    else:
        files = {
            "model": version / "demand.skops",
            "manifest": version / "manifest.json",
            "current": folder / "current",
        }
        files[damage].write_bytes(b"{")
    forecast = RunForecasts(folder)
    assert forecast(draw_log(77), None) == forecast(draw_log(78), None) == []
    assert forecast.problem
    assert forecast.outcomes == 0


def test_a_model_that_fails_while_it_forecasts_is_a_problem_and_no_error(
    folder: Path, draw_log: Callable[..., WorkflowLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no rows")

    monkeypatch.setattr(DemandModel, "forecast_all", broken)
    forecast = RunForecasts(folder)
    assert forecast(draw_log(77), None) == []
    assert forecast.problem == "workflow w77 cannot be forecast: ZeroDivisionError: no rows"


def test_the_figures_are_those_of_their_definitions() -> None:
    found = variance_of([outcome(50), outcome(100), outcome(400)])
    assert found.count == 3
    assert found.coverage == pytest.approx(2 / 3, abs=1e-4)
    assert found.width == 2.0  # the median of 4, 2 and 0.5
    assert found.bias == 0.0  # the median of 1, 0 and -0.75
    empty = variance_of([])
    assert (empty.count, empty.coverage, empty.width, empty.bias) == (0, None, None, None)


def test_the_figures_are_told_by_agent_type_the_most_frequent_first() -> None:
    more = {"workflow": "w", "recorded_at": NOON}
    kinds = [("a", "x"), ("b", "x"), ("b", "x"), ("a", "y")]
    stored = [
        StoredOutcome(**outcome(50, agent=agent).model_dump(), framework=framework, **more)
        for agent, framework in kinds
    ]
    assert {group: one.count for group, one in variance_by_agent(stored).items()} == {
        ("x", "b"): 2,
        ("x", "a"): 1,
        ("y", "a"): 1,
    }
    assert next(iter(variance_by_agent(stored))) == ("x", "b")


def test_forecasts_that_hold_show_no_drift_and_those_that_do_not_show_by_how_much() -> None:
    random = np.random.default_rng(0)
    fitting = [outcome(int(used)) for used in random.integers(1, 222, 300)]  # 90 % up to 200
    verdict = drift_of(fitting)
    assert (verdict.drifted, verdict.factor, verdict.reason) == (False, 1.0, None)
    drifted = [outcome(int(used)) for used in random.integers(1, 445, 300)]  # 90 % up to 400
    verdict = drift_of(drifted)
    assert verdict.drifted
    assert verdict.reason is not None
    restored = np.mean([one.used_tokens <= 100 + verdict.factor * 100 for one in drifted[-100:]])
    assert restored >= 0.9
    assert 2.5 < verdict.factor < 3.5


def test_runs_that_use_less_than_forecast_are_no_reason_to_widen() -> None:
    assert drift_of([outcome(1) for _ in range(500)]).factor == 1.0


@given(used=st.lists(st.integers(1, 1000), max_size=60))
def test_coverage_counts_the_upper_side_only(used: list[int]) -> None:
    verdict = drift_of([outcome(each) for each in used])
    held = sum(each <= 200 for each in used)
    assert verdict.coverage == (None if not used else pytest.approx(held / len(used)))
    assert 1 <= verdict.factor <= MAX_FACTOR
