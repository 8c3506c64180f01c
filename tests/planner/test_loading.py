from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.loading import EntryKind, Loader, Preloader, Registry, parts_of, restore
from apportion.compression.store import HandleStore
from apportion.errors import InfeasiblePlanError, InputError
from apportion.models.next_agent import NextForecast
from apportion.models.tool_needs import Need
from apportion.planner.loading import (
    LoadForm,
    Option,
    RunShape,
    cautious,
    choose,
    load_as_planned,
    option_of,
    outline_within,
    preload,
)
from apportion.planner.masking import TokenPrices
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from pathlib import Path

PRICES = TokenPrices(read=0.1, write=1.25, output=5.0)
LOADER = 50


@st.composite
def options(draw: st.DrawFn) -> list[Option]:
    sizes = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 900), st.booleans()), max_size=5))
    return [
        Option(f"t{nth}", need, whole, min(whole, 12), whole * 2 // 5 if brief else None)
        for nth, (need, whole, brief) in enumerate(sizes)
    ]


runs = st.builds(RunShape, st.floats(1, 200), st.floats(0, 1e5), st.just(PRICES), st.booleans())


def cheapest_by_trying(found: list[Option], run: RunShape, budget: int) -> float:
    """The least cost of all combinations that fit."""
    best = float("inf")
    for forms in product(LoadForm, repeat=len(found)):
        costs = [run.cost(option, form) for option, form in zip(found, forms, strict=True)]
        if any(cost is None for cost in costs):
            continue
        offered = LOADER * any(form is not LoadForm.WHOLE for form in forms)
        tokens = sum(option.tokens(form) or 0 for option, form in zip(found, forms, strict=True)) + offered
        if tokens <= budget:
            best = min(best, sum(cost or 0.0 for cost in costs) + offered * run.held)
    return best


@settings(max_examples=60)
@given(options(), runs, st.integers(LOADER, 3_000))
def test_the_choice_is_the_cheapest_of_all_that_fit(found: list[Option], run: RunShape, budget: int) -> None:
    plan = choose(found, run, budget_tokens=budget, loader=LOADER)
    assert plan.tokens <= budget
    assert plan.expected_cost == pytest.approx(cheapest_by_trying(found, run, budget), rel=1e-9)
    assert plan.expected_cost <= plan.whole_cost * (1 + 1e-9) or plan.whole_tokens > budget


@settings(max_examples=60)
@given(options(), runs, st.lists(st.integers(LOADER, 3_000), min_size=2, max_size=2))
def test_more_budget_never_makes_the_expected_cost_worse(
    found: list[Option], run: RunShape, budgets: list[int]
) -> None:
    tight, loose = (choose(found, run, budget_tokens=each, loader=LOADER) for each in sorted(budgets))
    assert loose.expected_cost <= tight.expected_cost * (1 + 1e-9)
    assert choose(found, run, loader=LOADER).expected_cost <= loose.expected_cost * (1 + 1e-9)


@settings(max_examples=60)
@given(options(), runs, st.floats(0.0001, 0.2))
def test_a_limit_of_misses_is_kept_where_there_is_no_budget(found: list[Option], run: RunShape, limit: float) -> None:
    plan = choose(found, run, max_miss_rate=limit, loader=LOADER)
    assert plan.expected_misses <= limit * run.calls or plan.degraded


def test_what_is_needed_often_stays_whole_and_what_is_needed_rarely_does_not() -> None:
    run = RunShape(calls=60, prompt_tokens=80_000, prices=PRICES)
    often, rarely = Option("often", 0.95, 700, 12), Option("rarely", 0.02, 700, 12)
    plan = choose([often, rarely], run, max_miss_rate=0.01, loader=LOADER)
    assert plan.forms == {"often": LoadForm.WHOLE, "rarely": LoadForm.LINE}
    assert (plan.loader, plan.status, plan.tokens) == (True, "separable", 700 + 12 + LOADER)
    assert choose([often], run, loader=LOADER).loader is False


def test_a_run_of_few_calls_leaves_nothing_out_that_an_extra_call_costs_more_than() -> None:
    option = Option("maybe", 0.3, 300, 12)
    short, long = (RunShape(calls, 50_000, PRICES) for calls in (2, 400))
    assert choose([option], short, loader=LOADER).forms == {"maybe": LoadForm.WHOLE}
    assert choose([option], long, loader=LOADER).forms == {"maybe": LoadForm.LINE}


def test_what_cannot_fit_is_told_with_what_is_missing() -> None:
    run = RunShape(calls=5, prompt_tokens=1_000, prices=PRICES)
    with pytest.raises(InfeasiblePlanError) as found:
        choose([Option("fixed", 0.5, 400, 5, pinned=True)], run, budget_tokens=300, loader=LOADER)
    assert found.value.missing_tokens == 150
    with pytest.raises(InputError, match="same name"):
        choose([Option("a", 0, 1, 1)] * 2, run)
    with pytest.raises(InputError):
        Option("a", 1.5, 1, 1)
    with pytest.raises(InputError):
        RunShape(calls=0.5, prompt_tokens=1, prices=PRICES)


def test_few_runs_are_not_trusted_to_show_that_a_tool_is_not_needed() -> None:
    assert cautious(Need(probability=0.01, sample_size=3)) == 0.5
    assert cautious(Need(probability=0.01, sample_size=30)) == 0.01
    assert cautious(Need(probability=0.9, sample_size=3)) == 0.9


@settings(max_examples=30)
@given(st.integers(90, 900), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_everything_that_is_not_sent_is_reachable_and_exact(
    tmp_path_factory: pytest.TempPathFactory, budget: int, needs: list[float]
) -> None:
    path = tmp_path_factory.mktemp("x") / "tools.json"
    text = "Does a thing. It must not fail. " + "It is told at length. " * 20
    path.write_text(
        json.dumps({"tools": [{"name": f"t{n}", "description": text, "input_schema": {}} for n in range(3)]})
    )
    registry = Registry()
    registry.add(path)
    contents = [(entry, registry.load(entry)) for entry in registry.entries()]
    found = [option_of(entry, content, need) for (entry, content), need in zip(contents, needs, strict=True)]
    plan = choose(found, RunShape(20, 9_000, PRICES), budget_tokens=budget)
    loader = Loader(HandleStore())
    sent, schema = load_as_planned(plan, contents, loader)
    for entry, content in contents:
        whole = sent.get(entry.name) == content
        assert whole or loader.answer(entry.name) == content
        assert whole == (plan.forms[entry.name] is LoadForm.WHOLE)
    assert (schema is not None) == plan.loader


@settings(max_examples=40)
@given(st.integers(60, 400))
def test_an_agent_file_fits_its_budget_and_comes_back_whole(budget: int) -> None:
    sections = [f"# Part {n}\n{'A story about cats. ' * 12}\n" for n in range(4)]
    agent = ("---\nname: a\n---\nYou write.\n" + "".join(sections) + "# Rules\nNever lie.\n").encode()
    loader, run = Loader(HandleStore()), RunShape(5, 1_000, PRICES)
    parts = parts_of("a", agent)
    least = sum(count_tokens((part.content if part.pinned else part.stub).decode()) for part in parts)
    if budget < least:
        with pytest.raises(InfeasiblePlanError) as found:
            outline_within("a", agent, loader, budget_tokens=budget, run=run)
        assert found.value.missing_tokens == least - budget
        return
    short = outline_within("a", agent, loader, budget_tokens=budget, task="part 2 cats", run=run)
    assert count_tokens(short.decode()) <= budget
    left_out = {part.name: loader.answer(part.name) for part in parts if part.content not in short}
    assert restore(parts, left_out) == agent
    assert b"Never lie." in short


def test_only_a_sure_forecast_of_an_agent_is_loaded_ahead(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "tester.md").write_text("---\nname: tester\n---\nYou test.\n")
    registry = Registry()
    registry.add(tmp_path)
    assert registry.find("tester", EntryKind.AGENT) is not None
    sure = NextForecast(likeliest="tester", confidence=0.9, probabilities={"tester": 0.9}, sample_size=20)
    unsure = sure.model_copy(update={"abstention": "a confidence of 0.60 does not exceed 0.7"})
    with Preloader(registry) as preloader:
        assert not preload(preloader, unsure)
        assert preload(preloader, sure)
        assert preloader.settle(60)
        assert preloader.take("tester").ahead
