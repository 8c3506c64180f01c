"""The six experts and what they are made of, the two classifiers."""

from __future__ import annotations

import doctest
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models import experts
from apportion.models.experts import EXPERTS, NEW, OTHER, StepExperts, pattern
from apportion.models.step_classifier import MIN_OUTCOMES, StepClassifier
from apportion.models.trails import END, Step

NAMES = ["plan", "code", "review", END]
names = st.sampled_from([*NAMES, "never seen", OTHER, ""])
histories = st.lists(names, max_size=6).map(tuple)


def step(history: tuple[str, ...], name: str, *, source: str = "s", text: str | None = None) -> Step:
    return Step("w", source, None, history, text, name)


def rounds(number: int, *, source: str = "s", text: str | None = None) -> list[Step]:
    """Plan, code and review in turn, again and again."""
    trail = [NAMES[nth % 4] for nth in range(number)]
    return [step(tuple(trail[max(0, n - 6) : n]), trail[n], source=source, text=text) for n in range(1, number)]


@cache
def learned() -> StepExperts:
    steps = rounds(80, text="build it") + rounds(40, source="other", text="fix the bug")
    return StepExperts(3).count(steps).classify(steps)


def test_the_examples_run() -> None:
    results = doctest.testmod(experts)
    assert results.attempted > 0
    assert results.failed == 0


@given(history=st.lists(st.sampled_from([*"abc", END]), max_size=10))
def test_a_pattern_gives_the_names_back(history: list[str]) -> None:
    ranks, recent = pattern(history)
    fresh = iter(dict.fromkeys(name for name in history if name != END))
    found: list[str] = []
    back: list[str] = []
    for rank in ranks:
        name = END if rank == END else next(fresh) if rank == NEW else back.pop(int(rank))
        found.append(name)
        if name != END:
            back.insert(0, name)
    assert found == history
    assert recent == back


@given(history=histories, source=st.sampled_from(["s", "other", "new"]), text=st.none() | st.text(max_size=40))
def test_every_opinion_sums_to_one_over_names_that_are_all_different(
    history: tuple[str, ...], source: str, text: str | None
) -> None:
    before = str(learned().to_state())
    known = learned().opinions(step(history, "", source=source, text=text))
    assert len(known.names) == len(set(known.names)) == known.probabilities.shape[1]
    assert known.probabilities.shape[0] == len(known.heard) == len(EXPERTS)
    assert known.probabilities.sum(axis=1) == pytest.approx(np.ones(len(EXPERTS)))
    assert (known.probabilities >= 0).all()
    assert {END, OTHER, *history} <= set(known.names)
    assert list(known.heard) == [True, source != "new"] * 2 + [source != "new", source != "new" and bool(text)]
    assert str(learned().to_state()) == before


def test_what_was_always_so_is_forecast_by_all_of_them() -> None:
    known = learned().opinions(step(("plan", "code"), "", text="build it"))
    assert known.heard.all()
    assert [known.names[each] for each in known.probabilities.argmax(axis=1)] == ["review"] * len(EXPERTS)


def test_patterns_carry_over_to_names_that_were_never_seen() -> None:
    steps = [step(("a", "b", "a")[:n], "bab"[n - 1]) for n in (1, 2, 3) for _ in range(30)]
    known = StepExperts(3).count(steps).opinions(step(("x", "y"), ""))
    patterns = known.probabilities[EXPERTS.index("patterns")]
    assert known.names[int(patterns.argmax())] == "x"
    assert patterns.max() > 0.8


def test_nothing_learned_leaves_the_end_and_the_unknown() -> None:
    known = StepExperts(3).opinions(step(("a",), ""))
    assert known.names == [END, OTHER, "a"]
    assert list(known.heard) == [True, False] * 2 + [False] * 2


@given(history=histories, source=st.sampled_from(["s", "new"]))
def test_experts_come_back_from_their_state_exactly(history: tuple[str, ...], source: str) -> None:
    again = StepExperts.from_state(learned().to_state())
    asked = step(history, "", source=source, text="fix it")
    mine, theirs = learned().opinions(asked), again.opinions(asked)
    assert mine.names == theirs.names
    assert (mine.probabilities == theirs.probabilities).all()
    assert again.seen_after(asked, source) == learned().seen_after(asked, source)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"outcomes": [OTHER, END]}, "steps that are no outcomes"),
        ({"outcomes": [END, OTHER]}, "steps that are no outcomes"),
        ({"sources": []}, "zip"),
        ({"classifiers": []}, "lack a classifier"),
    ],
)
def test_a_state_whose_parts_do_not_fit_is_refused(damage: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StepExperts.from_state(learned().to_state() | damage)


def test_patterns_that_there_are_not_are_refused() -> None:
    state = learned().to_state()
    state["patterns"] = state["names"]
    with pytest.raises(ValueError, match="patterns that there are not"):
        StepExperts.from_state(state)


# ------------------------------------------------------------------ classifiers


def test_only_the_one_that_reads_tells_tasks_apart() -> None:
    steps = [step(("main",), name, text=text) for name, text in (("dev", "fix bug"), ("doc", "write page")) * 20]
    for reads in (False, True):
        model = StepClassifier(reads_text=reads).fit(steps)
        found = model.probabilities(step(("main",), "", text="fix bug"))
        assert found is not None
        assert (found[model.outcomes_.index("dev")] > 0.8) == reads


@settings(max_examples=25)
@given(counts=st.lists(st.integers(0, 2 * MIN_OUTCOMES), min_size=1, max_size=4))
def test_steps_that_were_seen_too_seldom_are_not_told_apart(counts: list[int]) -> None:
    steps = [step(("x",), NAMES[nth]) for nth, count in enumerate(counts) for _ in range(count)]
    model = StepClassifier(reads_text=False).fit(steps)
    often = [count for count in counts if count >= MIN_OUTCOMES]
    assert len(model.outcomes_) == len(often)
    assert model.covered_ == pytest.approx(sum(often) / max(1, sum(counts)))
    found = model.probabilities(step(("x",), ""))
    assert (found is None) == (len(often) < 2)
    if found is not None:
        assert found.sum() == pytest.approx(1)
        assert found == pytest.approx([counts[NAMES.index(name)] / sum(often) for name in model.outcomes_], abs=0.02)


def test_numpy_gives_what_scikit_learn_gives() -> None:
    from sklearn.linear_model import LogisticRegression

    steps = rounds(60)
    model = StepClassifier(reads_text=False).fit(steps)
    rows = np.zeros((len(steps), len(model.columns_)))
    for nth, each in enumerate(steps):
        for column, value in model._features(each):
            rows[nth, column - min(model.columns_.values())] = value
    other = LogisticRegression(C=3.0, max_iter=2000, tol=1e-8).fit(rows, [each.name for each in steps])
    for row, each in zip(rows[:12], steps[:12], strict=True):
        assert model.probabilities(each) == pytest.approx(other.predict_proba(row[None])[0], abs=0.05)


@pytest.mark.parametrize("damage", [{"outcomes": ["a"]}, {"columns": []}, {"weights": np.full((1, 1), np.nan)}])
def test_a_classifier_whose_parts_do_not_fit_is_refused(damage: dict[str, Any]) -> None:
    state = StepClassifier(reads_text=True).fit(rounds(60)).to_state()
    with pytest.raises(ValueError, match="the weights of a classifier"):
        StepClassifier.from_state(state | damage)
