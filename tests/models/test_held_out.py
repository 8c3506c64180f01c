from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from apportion.models.calibration import LEVELS
from apportion.models.demand import DemandModel
from apportion.models.examples import Examples, examples_of
from apportion.models.features import Caller
from apportion.models.held_out import Judged, by_source, by_workflow, judge, last_values, plain_quantiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.telemetry.events import WorkflowLog


@pytest.fixture(scope="module")
def examples(draw_log: Callable[..., WorkflowLog]) -> Examples:
    return examples_of(draw_log(seed) for seed in range(40))


def test_no_workflow_is_learned_from_and_judged(examples: Examples) -> None:
    seen: list[str] = []
    for train, test in by_workflow(examples):
        known, new = ({span.workflow for span in each.workflows} for each in (train, test))
        assert not known & new
        assert known | new == {span.workflow for span in examples.workflows}
        seen.extend(new)
    assert sorted(seen) == sorted(span.workflow for span in examples.workflows)


def test_no_source_is_learned_from_and_judged(examples: Examples) -> None:
    seen = []
    for source, train, test in by_source(examples):
        assert {span.caller.source for span in test.workflows} == {source}
        assert source not in {span.caller.source for span in train.workflows}
        seen.append(source)
    assert seen == ["project-0", "project-1", "project-2"]


def test_every_level_is_judged_on_every_example(examples: Examples) -> None:
    train, test = next(by_workflow(examples))
    found = judge(DemandModel(boost=False).fit_examples(train), test)
    assert len(found["output"]) == len(test.calls)
    assert len(found["run"]) == len(found["calls"]) == len(test.runs)
    assert len(found["workflow"]) == len(test.workflows)
    assert len(found["growth"]) == sum(call.growth_tokens is not None for call in test.calls)
    assert len(found["stage_pool"]) == len(found["stage_sum"]) == sum(len(span.runs) > 1 for span in test.stages)
    assert np.allclose(np.expm1(found["run"].values), [run.total_tokens for run in test.runs])
    assert np.allclose(np.expm1(found["workflow"].values), [span.total_tokens for span in test.workflows])


def judged(values: list[float], agents: list[str], last: list[float] | None = None) -> Judged:
    callers = [Caller("f", "s", agent, "main") for agent in agents]
    exact = np.tile(np.array(values)[:, None], (1, len(LEVELS)))
    return Judged(callers, agents, np.array(values), exact, np.array(last or [np.nan] * len(values)))


def test_baselines_take_all_values_those_of_the_type_or_the_last_one() -> None:
    train = judged([1.0, 1.0, 5.0, 5.0], ["a", "a", "b", "b"])
    test = judged([0.0, 0.0, 0.0], ["a", "new", "b"], [np.nan, np.nan, 7.0])
    assert plain_quantiles(train, test, by_type=False)[:, 3].tolist() == [3.0, 3.0, 3.0]
    assert plain_quantiles(train, test, by_type=True)[:, 3].tolist() == [1.0, 3.0, 5.0]
    assert last_values(train, test).tolist() == [[1.0] * 7, [3.0] * 7, [7.0] * 7]


def test_exact_forecasts_cover_everything_without_loss() -> None:
    exact = judged([1.0, 2.0], ["a", "b"])
    assert (exact.coverage, exact.loss, exact.spread) == (1.0, 0.0, 1.0)
    part = exact.where(np.array([False, True]))
    assert (part.values.tolist(), part.workflows) == ([2.0], ["b"])
    assert len(Judged.joined([exact, part])) == 3
