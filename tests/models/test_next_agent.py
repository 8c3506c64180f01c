from __future__ import annotations

import doctest
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.models import next_agent
from apportion.models.next_agent import (
    EVERYWHERE,
    LEAST_OF_SOURCE,
    NextAgentModel,
    NextForecast,
    NextToolModel,
    _folds,
    judge,
)
from apportion.models.trails import END, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.telemetry.events import WorkflowLog

NAMES = ["plan", "code", "review", "test"]


def random_steps(seed: int, *, workflows: int = 30, source: str = "s", sure: float = 0.75) -> list[Step]:
    """Trails in which the next agent in the list follows with a given probability, else any."""
    random = np.random.default_rng(seed)
    steps = []
    for workflow in range(workflows):
        trail = [str(random.choice(NAMES))]
        while len(trail) < 8:
            follows = NAMES[(NAMES.index(trail[-1]) + 1) % 4]
            trail.append(follows if random.random() < sure else str(random.choice(NAMES)))
        trail.append(END)
        steps += [
            Step(f"{source}{seed}-{workflow}", source, None, tuple(trail[:n]), None, trail[n]) for n in range(1, 9)
        ]
    return steps


LEARNED = NextAgentModel().fit_steps(random_steps(1) + random_steps(2, source="t", sure=0.4))
histories = st.lists(st.sampled_from([*NAMES, "unknown", END]), max_size=20)
sources = st.sampled_from(["s", "t", "new", None])


def test_the_examples_run() -> None:
    results = doctest.testmod(next_agent)
    assert results.attempted > 0
    assert results.failed == 0


@given(history=histories, source=sources, text=st.none() | st.text(max_size=30))
def test_probabilities_sum_to_one_the_likeliest_first(history: list[str], source: str | None, text: str | None) -> None:
    forecast = LEARNED.predict(history, task_text=text, source=source)
    assert NextForecast.model_validate(forecast.model_dump()) == forecast
    shares = list(forecast.probabilities.values())
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert (forecast.likeliest, forecast.confidence) == next(iter(forecast.probabilities.items()))
    assert forecast.expected == (None if forecast.abstention else forecast.likeliest)


@settings(max_examples=20)
@given(history=histories, source=sources)
def test_a_forecast_changes_nothing_and_is_the_same_again(history: list[str], source: str | None) -> None:
    before = str(LEARNED.to_state())
    assert LEARNED.predict(history, source=source) == LEARNED.predict(history, source=source)
    assert str(LEARNED.to_state()) == before


@settings(max_examples=3)
@given(seed=st.integers(0, 99), history=histories, source=sources)
def test_more_workflows_never_lower_the_sample_size(seed: int, history: list[str], source: str | None) -> None:
    few, more = random_steps(seed, workflows=3), random_steps(seed + 1, workflows=3)
    small, large = NextAgentModel().fit_steps(few), NextAgentModel().fit_steps(few + more)
    assert small.predict(history, source=source).sample_size <= large.predict(history, source=source).sample_size


@settings(max_examples=20)
@given(history=histories, source=sources)
def test_a_model_comes_back_from_its_state_exactly(history: list[str], source: str | None) -> None:
    again = NextAgentModel.from_state(LEARNED.to_state())
    assert again.predict(history, task_text="go", source=source) == LEARNED.predict(
        history, task_text="go", source=source
    )
    assert (again.metrics(), again.steps_) == (LEARNED.metrics(), LEARNED.steps_)


@pytest.mark.parametrize("least", [0.3, 0.7, 0.95])
def test_it_abstains_exactly_where_confidence_samples_or_source_do_not_suffice(least: float) -> None:
    model = NextAgentModel.from_state(LEARNED.to_state())
    model.min_confidence, model.min_samples = least, 20
    for history in (["plan"], ["code", "review"], ["unknown"], []):
        forecast = model.predict(history, source="s")
        unsure = forecast.confidence <= least or forecast.sample_size < 20
        assert (forecast.expected is None) == unsure
    assert model.predict(["unknown"], source="s").abstention == "0 earlier cases; 20 are needed"
    assert model.predict(["plan"], source="new").abstention == "'new' is a new source"
    assert model.predict(["plan"]).abstention != "'new' is a new source"


def test_how_good_forecasts_are_in_new_sources_is_learned_on_whole_sources() -> None:
    alike = [step for seed in range(4) for step in random_steps(seed, source=f"s{seed}", sure=0.95)]
    model = NextAgentModel().fit_steps(alike)
    new = random_steps(9, source="new", sure=0.95, workflows=60)
    found = judge([(step, model.forecast(step._replace(source=""), None)) for step in new])[0]
    assert found.hit_rate is not None
    assert found.hit_rate > 0.7
    assert found.calibration_error < 0.1
    only = NextAgentModel().fit_steps(random_steps(1)).predict(["plan", "code"])
    assert only.abstention == "one source is too few to tell how good a forecast is in others"


def test_before_anything_is_learned_it_abstains() -> None:
    forecast = NextAgentModel().predict(["main"])
    assert (forecast.expected, forecast.sample_size) == (None, 0)
    assert forecast.abstention == "nothing was learned yet"


def test_one_workflow_is_too_few_to_be_sure(relay: Callable[..., WorkflowLog]) -> None:
    forecast = NextAgentModel(min_samples=1).fit([relay(1)]).predict(["plan"], source="tests")
    assert forecast.sample_size == 1
    assert forecast.abstention == "too few workflows to tell how good a forecast is"


def test_a_source_from_which_little_was_learned_gets_no_forecast(relay: Callable[..., WorkflowLog]) -> None:
    few = [relay(nth, source="few") for nth in range(LEAST_OF_SOURCE // 3 - 1)]  # three steps each
    model = NextAgentModel(min_samples=1).fit([*(relay(100 + nth) for nth in range(40)), *few])
    forecast = model.predict(["plan"], source="few")
    assert forecast.abstention == f"{model.steps_['few']} steps of this source were learned; 30 are needed"
    assert model.predict(["plan"], source="tests").expected == "code"
    more = NextAgentModel(min_samples=1).fit([*(relay(100 + nth) for nth in range(40)), *few, relay(99, source="few")])
    assert more.steps_["few"] == LEAST_OF_SOURCE
    assert more.predict(["plan"], source="few").expected == "code"


def test_workflows_without_any_step_are_refused(relay: Callable[..., WorkflowLog]) -> None:
    with pytest.raises(InputError, match="no workflow shows which agent comes next"):
        NextAgentModel().fit([])
    assert NextAgentModel().fit([relay(1)]).steps_ == {"tests": 3}


def test_tools_are_forecast_by_agent_and_turns_end(relay: Callable[..., WorkflowLog]) -> None:
    logs = [relay(nth, ["dev"], tools=["Read", "Edit", "Bash"]) for nth in range(40)]
    logs += [relay(100 + nth, ["scout"], tools=["Grep"]) for nth in range(40)]
    model = NextToolModel().fit(logs)
    asked: list[tuple[Sequence[str], str, str]] = [
        ([], "dev", "Read"),
        ([], "scout", "Grep"),
        (["Read", "Edit"], "dev", "Bash"),
        (["Read", "Edit", "Bash"], "dev", END),
    ]
    for history, agent, expected in asked:
        assert model.predict(history, agent=agent, source="tests").expected == expected


def test_workflows_added_later_count_as_those_of_the_beginning(relay: Callable[..., WorkflowLog]) -> None:
    old, new = [relay(nth) for nth in range(20)], [relay(nth, ["plan", "test"]) for nth in range(20, 40)]
    added = NextAgentModel().fit(old).partial_fit(new)
    whole = NextAgentModel().fit(old + new)
    history = ["plan"]
    assert added.predict(history, source="tests").sample_size == 40
    assert added.steps_ == whole.steps_
    for source in (None, "tests"):
        mine, theirs = (model.experts_.names_[source].to_state() for model in (added, whole))
        assert mine["names"] == theirs["names"]
        assert sorted(mine["table"].tolist()) == sorted(theirs["table"].tolist())
    assert NextAgentModel().partial_fit(old).predict(history, source="tests").expected == "code"


def test_folds_hold_out_every_workflow_once_and_never_split_one() -> None:
    steps = random_steps(3, workflows=13) + random_steps(4, workflows=6, source="t")
    parts = list(_folds(steps, 4))
    assert len(parts) == 4
    held = [step.workflow_id for _, part in parts for step in part]
    assert sorted(held) == sorted(step.workflow_id for step in steps)
    for learned, part in parts:
        assert not {step.workflow_id for step in learned} & {step.workflow_id for step in part}
        assert {step.source for step in part} == {"s", "t"}
    assert list(_folds(random_steps(5, workflows=1), 4)) == []


def test_confidence_on_new_workflows_is_what_it_claims() -> None:
    model = NextAgentModel().fit_steps(random_steps(10, workflows=120))
    new = random_steps(11, workflows=120)
    found = judge([(step, model.forecast(step, step.source)) for step in new])[0]
    assert found.calibration_error < 0.05
    assert found.coverage > 0.5
    assert found.hit_rate is not None
    assert found.hit_rate > 0.7


def test_quality_is_told_for_all_sources_and_for_each() -> None:
    rows = LEARNED.metrics()
    assert [row["source"] for row in rows] == [EVERYWHERE, "s", "t"]
    assert rows[0]["forecasts"] == rows[1]["forecasts"] + rows[2]["forecasts"] == 480
    assert rows[1]["top_1"] > rows[2]["top_1"]
    assert judge([]) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"experts": {}},
        {"parameters": {}},
        {"steps": {"s": "many"}},
        {"quality": [{"source": 1}]},
        {"mixture": {"sources": []}},
    ],
)
def test_a_state_that_is_none_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError)):
        NextAgentModel.from_state(LEARNED.to_state() | damage)
