from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError
from apportion.models.boosting import CORNERS, Boosting
from apportion.models.demand import (
    LEAST_WORKFLOWS,
    LEVELS,
    Ask,
    Caller,
    DemandForecaster,
    DemandModel,
    PriorDemand,
    StageUse,
)
from apportion.models.examples import Examples, examples_of
from apportion.models.features import FEATURES
from apportion.models.quantiles import QuantileModel
from apportion.models.rows import run_rows
from apportion.models.states import part_from, state_of
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from apportion.telemetry.events import WorkflowLog

MAIN = Caller("tool-0", "project-0", "main", "main", "gpt-4o")
HELPER = Caller("tool-0", "project-0", "helper-1", "sub", "gpt-4o")

tokens = st.none() | st.integers(0, 10**5)
uses = st.lists(st.builds(StageUse, calls=st.integers(1, 300), growth_tokens=tokens, output_tokens=tokens), max_size=12)
callers = st.none() | st.builds(
    Caller, st.sampled_from(["tool-0", "new"]), st.just("project-1"), st.sampled_from(["main", "new"]), st.just("main")
)


@pytest.fixture(scope="module")
def examples(draw_log: Callable[..., WorkflowLog]) -> Examples:
    return examples_of(draw_log(seed) for seed in range(60))


@pytest.fixture(scope="module")
def model(examples: Examples) -> DemandModel:
    model = DemandModel(boost=False).fit_examples(examples)
    model.run_ = QuantileModel("run").fit(run_rows(examples.runs))  # one boosted part is enough, and quicker
    return model


@pytest.mark.parametrize("name", ["prior", "learned"])
def test_priors_and_model_answer_the_same_questions(name: str, model: DemandModel) -> None:
    forecaster: DemandForecaster = PriorDemand() if name == "prior" else model
    demand = forecaster.forecast("main", prompt_tokens=1000, history=[StageUse(calls=2)], caller=MAIN)
    assert 0.9 in demand.probabilities
    growth, output = forecaster.per_call("main", history=[StageUse(calls=2)], caller=MAIN)
    assert growth >= 0
    assert output >= 0
    with pytest.raises(InputError, match="boss"):
        forecaster.forecast("boss", prompt_tokens=1)


@settings(max_examples=60)
@given(prompt=st.integers(0, 10**6), history=uses, caller=callers)
def test_quantiles_never_cross_and_a_longer_prompt_never_needs_less(
    model: DemandModel, prompt: int, history: list[StageUse], caller: Caller | None
) -> None:
    found = model.forecast("main", prompt_tokens=prompt, history=history, caller=caller)
    longer = model.forecast("main", prompt_tokens=prompt + 1000, history=history, caller=caller)
    assert found.probabilities == LEVELS
    assert list(found.tokens) == sorted(found.tokens)
    assert all(more >= less for more, less in zip(longer.tokens, found.tokens, strict=True))
    assert found.sample_size >= len(history)


@settings(max_examples=40)
@given(calls=st.integers(1, 60), times=st.integers(0, 20))
def test_more_of_the_same_history_never_widens_what_holds_it(model: DemandModel, calls: int, times: int) -> None:
    use = StageUse(calls=calls, growth_tokens=100, output_tokens=50)
    total = calls * (1000 + 50) + 100 * calls * (calls - 1) // 2
    before, after = (
        model.forecast("main", prompt_tokens=1000, history=[use] * count, caller=MAIN).tokens
        for count in (times, times + 1)
    )
    if before[0] <= total <= before[-1]:
        assert np.log1p(after[-1]) - np.log1p(after[0]) <= np.log1p(before[-1]) - np.log1p(before[0]) + 1e-3


def test_only_observations_of_the_own_framework_count_as_a_sample(model: DemandModel) -> None:
    history = [StageUse(calls=2)] * 3
    elsewhere = MAIN._replace(framework="never seen")

    def sizes(caller: Caller) -> list[int]:
        asked: dict[str, Any] = {"prompt_tokens": 1000, "caller": caller}
        run = model.forecast("main", history=history, **asked)
        return [
            run.sample_size - len(history),
            model.calls(caller).sample_size,
            model.output(caller).sample_size,
            model.stage(caller, prompt_tokens=1000).sample_size,
            model.workflow(caller, prompt_tokens=1000).sample_size,
            model.pooled([run, run], caller).sample_size - 2 * len(history),
        ]

    assert all(size > 0 for size in sizes(MAIN._replace(agent="new agent of a known framework")))
    assert set(sizes(elsewhere)) == {0}
    assert model.forecast("main", prompt_tokens=1000).sample_size == 0


def test_a_new_framework_is_not_forecast_by_features(model: DemandModel, examples: Examples) -> None:
    elsewhere = MAIN._replace(framework="never seen")
    plain, told = (
        model.forecast("main", prompt_tokens=1000, caller=elsewhere, features=features)
        for features in (None, examples.runs[0].features)
    )
    assert told == plain


def test_a_history_draws_the_forecast_to_itself(model: DemandModel) -> None:
    medians = [
        model.forecast(
            "main",
            prompt_tokens=1000,
            history=[StageUse(calls=calls, growth_tokens=10, output_tokens=10)] * 300,
            caller=MAIN,
        ).tokens[LEVELS.index(0.5)]
        for calls in (1, 5, 50)
    ]
    assert medians == sorted(medians)
    assert medians[0] < medians[2] / 10


def test_many_are_forecast_as_one_by_one(model: DemandModel, examples: Examples) -> None:
    asks = [
        Ask(run.caller.role, run.prompt_tokens, run.history, run.caller, run.features) for run in examples.runs[:20]
    ]
    alone = [
        model.forecast(
            ask.role, prompt_tokens=ask.prompt_tokens, history=ask.history, caller=ask.caller, features=ask.features
        )
        for ask in asks
    ]
    assert model.forecast_all(asks) == alone


def test_forecasts_change_nothing(model: DemandModel, examples: Examples) -> None:
    before = copy.deepcopy(_state(model))
    demand = model.forecast("main", prompt_tokens=1000, caller=MAIN, features=examples.runs[0].features)
    model.per_call("sub", caller=HELPER)
    model.calls(MAIN, history=[3])
    model.output(MAIN, history=[100])
    model.growth(MAIN)
    model.stage(MAIN, prompt_tokens=1000, history=[(1000, 5000)])
    model.workflow(MAIN, prompt_tokens=1000)
    model.pooled([demand, demand], MAIN)
    model.overhead_tokens(MAIN)
    assert _state(model) == before


def _state(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: _state(each) for key, each in value.items()}
    return _state(vars(value)) if hasattr(value, "__dict__") else value


def test_its_state_is_arrays_dictionaries_strings_and_numbers(model: DemandModel) -> None:
    plain = (np.ndarray, dict, str, int, float, bool, type(None), list)
    waiting, classes = [vars(model)], set()
    while waiting:
        for value in waiting.pop().values():
            if hasattr(value, "__dict__"):
                classes.add(type(value).__name__)
                waiting.append(vars(value))
            elif isinstance(value, dict):
                waiting.append(value)
            else:
                assert isinstance(value, plain), value
    assert classes == {"QuantileModel", "Shrinkage", "Conformal", "Pooling", *_boosting(model)}


def _boosting(model: DemandModel) -> set[str]:
    return {"Boosting"} if any(report.get("boosted") for report in model.report_.values()) else set()


def test_a_model_comes_back_from_its_state(model: DemandModel) -> None:
    again = DemandModel.from_state(copy.deepcopy(model.to_state()))
    assert _state(again) == _state(model)
    asked: dict[str, Any] = {"prompt_tokens": 5000, "caller": MAIN}
    assert again.forecast("main", **asked) == model.forecast("main", **asked)


def _without(state: dict[str, Any], *path: str) -> None:
    for name in path[:-1]:
        state = state[name]
    del state[path[-1]]


@pytest.mark.parametrize(
    "path", [("workflows",), ("parts", "run_"), ("parts", "run_", "shrinkage_", "atoms_"), ("parts", "run_", "part")]
)
def test_a_state_that_lacks_something_is_refused(model: DemandModel, path: tuple[str, ...]) -> None:
    state = copy.deepcopy(model.to_state())
    _without(state, *path)
    with pytest.raises((ValueError, KeyError)):
        DemandModel.from_state(state)


WRONG: dict[str, tuple[str, str, Callable[[Any], Any]]] = {
    "no root": ("run_", "shrinkage_", lambda part: part["atoms_"].pop("all")),
    "a size that is no number": ("run_", "shrinkage_", lambda part: part["examples_"].update(all="many")),
    "an atom that is no number": ("run_", "shrinkage_", lambda part: part["atoms_"]["all"].fill(np.nan)),
    "too narrow": ("run_", "shrinkage_", lambda part: _cut(part["atoms_"])),
    "no common offset": ("run_", "conformal_", lambda part: part["offsets_"].pop("all")),
    "offsets that are no array": ("run_", "conformal_", lambda part: part["offsets_"].update(all=[0.0] * 7)),
    "another measure": ("run_", "", lambda part: part.update(measure="count")),
    "no weight": ("run_", "", lambda part: part.update(own_weight_=0.0)),
    "a wrong offset elsewhere": ("run_", "", lambda part: part.update(elsewhere_=np.zeros(3))),
    "too few draws": ("stage_pool_", "", lambda part: part.update(draws_=part["draws_"][:, :1])),
}


def _cut(atoms: dict[str, Any]) -> None:
    for group in atoms:
        atoms[group] = atoms[group][:, :1]


@pytest.mark.parametrize("case", WRONG)
def test_a_state_on_which_a_forecast_would_fail_is_refused(model: DemandModel, case: str) -> None:
    part, within, change = WRONG[case]
    state = copy.deepcopy(model.to_state())
    change(state["parts"][part][within] if within else state["parts"][part])
    with pytest.raises((ValueError, KeyError)):
        DemandModel.from_state(state)


TREES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "as they were": lambda trees: None,  # noqa: ARG005
    "learned on other features": lambda trees: trees.update(known_=trees["known_"][:-1]),
    "leave their arrays": lambda trees: trees["left_"].fill(10**6),
    "one too few": lambda trees: trees.update({key: trees[key][:-1] for key in trees if trees[key].ndim == 2}),
    "nodes that are no numbers": lambda trees: trees.update(right_=trees["right_"].astype(float)),
}


@pytest.mark.parametrize("case", TREES)
def test_trees_have_to_fit_the_features(case: str) -> None:
    width = len(FEATURES) + len(CORNERS)
    drawn = np.random.default_rng(0).normal(size=(300, width))
    trees = state_of(Boosting().fit(drawn, drawn[:, : len(CORNERS)]))
    arrays = {key: each for key, each in trees.items() if isinstance(each, np.ndarray)}
    TREES[case](arrays)
    if case == "as they were":
        assert isinstance(part_from(trees | arrays), Boosting)
        return
    with pytest.raises(ValueError, match="Boosting do not fit"):
        part_from(trees | arrays)


def test_a_state_with_parts_of_another_kind_is_refused(model: DemandModel) -> None:
    state = model.to_state()
    state["parts"]["run_"] = state["parts"]["stage_pool_"]
    with pytest.raises(ValueError, match="run_ is no QuantileModel"):
        DemandModel.from_state(state)


def test_a_saved_model_is_loaded_again(model: DemandModel, tmp_path: Path) -> None:
    from apportion.models.persistence import _dump, _unpacked

    path = tmp_path / "demand.skops"
    again = DemandModel.from_state(_unpacked(path, _dump("demand", model)))
    assert _state(again) == _state(model)


def test_it_says_how_good_it_is_on_workflows_it_had_not_seen_and_on_others(
    model: DemandModel, draw_log: Callable[..., WorkflowLog]
) -> None:
    rows = model.metrics()
    assert [row["forecast"] for row in rows] == ["run", "calls", "output", "growth", "stage", "workflow"]
    assert all(row["loss"] > 0 for row in rows)
    others = {row["forecast"]: row for row in model.evaluate(draw_log(seed) for seed in range(100, 110))}
    assert others["workflow"]["examples"] == 10
    assert 0.7 <= others["output"]["coverage_90"] <= 1.0
    assert model.evaluate([]) == []


def test_a_store_that_keeps_no_texts_teaches_as_well(draw_log: Callable[..., WorkflowLog], tmp_path: Path) -> None:
    logs = [draw_log(seed) for seed in range(12)]
    with TelemetryStore(tmp_path / "t.db") as store:
        for log in logs:
            store.add(log)
        stored = [each for log in logs if (each := store.load(log.id)) is not None]
    assert not any(each.captured for each in stored)
    asked: dict[str, Any] = {"prompt_tokens": 5000, "caller": MAIN}
    first, second = DemandModel().fit(logs), DemandModel().fit(stored)
    assert second.forecast("main", **asked) == first.forecast("main", **asked)


def test_pooled_demand_is_narrower_than_the_sum_of_bounds(model: DemandModel) -> None:
    demand = model.forecast("main", prompt_tokens=1000, caller=MAIN)
    pooled = model.pooled([demand] * 8, MAIN, level="workflow").tokens
    assert list(pooled) == sorted(pooled)
    assert pooled[-1] - pooled[0] < 8 * (demand.tokens[-1] - demand.tokens[0])
    assert pooled[0] > demand.tokens[0]


@pytest.mark.parametrize("wrong", [[], [PriorDemand().forecast("main", prompt_tokens=1)]])
def test_only_forecasts_of_a_model_can_be_pooled(model: DemandModel, wrong: list[Any]) -> None:
    with pytest.raises(InputError, match="pooled"):
        model.pooled(wrong, MAIN)


@pytest.mark.parametrize("question", ["calls", "output", "growth"])
def test_counts_follow_their_history(model: DemandModel, question: str) -> None:
    ask: Callable[..., Any] = getattr(model, question)

    def median(history: Sequence[int]) -> int:
        found: int = ask(MAIN, history=history).tokens[LEVELS.index(0.5)]
        return found

    assert median([1] * 300) < median([10_000] * 300)


def test_a_stage_follows_its_prompt_and_the_stages_before(model: DemandModel) -> None:
    small, large = (model.stage(MAIN, prompt_tokens=tokens).tokens for tokens in (1000, 10_000))
    assert all(more > less for more, less in zip(large, small, strict=True))
    frugal, lavish = (
        model.stage(MAIN, prompt_tokens=1000, history=[(1000, total)] * 300).tokens[3] for total in (1000, 10**6)
    )
    assert frugal < lavish


def test_the_overhead_is_learned_per_agent_type(examples: Examples) -> None:
    hidden = {"main": 35_000, "helper-1": 24_000}
    told = [each._replace(tokens=hidden.get(each.caller.agent, 500)) for each in examples.overheads]
    model = DemandModel(boost=False).fit_examples(
        Examples(examples.calls, examples.runs, examples.stages, examples.workflows, told)
    )
    assert model.overhead_tokens(MAIN) == 35_000
    assert model.overhead_tokens(HELPER) == 24_000
    silent = Examples(examples.calls, examples.runs, examples.stages, examples.workflows, [])
    assert DemandModel(boost=False).fit_examples(silent).overhead_tokens(MAIN) is None


def test_logs_teach_what_their_examples_teach(draw_log: Callable[..., WorkflowLog]) -> None:
    logs = [draw_log(seed) for seed in range(12)]
    first, second = DemandModel().fit(logs), DemandModel().fit_examples(examples_of(logs))
    assert _state(first) == _state(second)
    assert first.workflows_ == 12


def test_too_few_workflows_are_refused(draw_log: Callable[..., WorkflowLog]) -> None:
    with pytest.raises(InputError, match=f"too few .*at least {LEAST_WORKFLOWS}"):
        DemandModel().fit([draw_log(seed) for seed in range(LEAST_WORKFLOWS - 1)])


def test_where_no_run_has_a_second_call_nothing_is_said_about_growth(examples: Examples) -> None:
    calls = [call._replace(growth_tokens=None) for call in examples.calls]
    told = Examples(calls, examples.runs, examples.stages, examples.workflows, examples.overheads)
    model = DemandModel(boost=False).fit_examples(told)
    assert model.growth_ is None
    assert model.growth(MAIN) is None
    assert "growth" not in model.report_


def test_the_report_says_what_was_decided_and_on_what(model: DemandModel) -> None:
    report = model.report_
    assert {"run", "calls", "output", "growth", "stage", "workflow", "stage_pool", "workflow_pool"} == report.keys()
    assert report["run"]["workflows"] == 60
    assert report["run"]["loss_shrunk"] > 0
    assert report["workflow_pool"]["common"] in {float(share) for share in report["workflow_pool"]["losses"]}
