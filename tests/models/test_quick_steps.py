"""Quick forecasts of steps are those of the experts and their mixture, up to rounding."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.models import quick_steps
from apportion.models.experts import OTHER, StepExperts
from apportion.models.mixture import Held, Mixture
from apportion.models.next_agent import NextAgentModel
from apportion.models.quick_steps import QuickSteps
from apportion.models.trails import END, WINDOW, Step

NAMES = ["plan", "code", "review", "test", END]
steps = st.builds(
    Step,
    st.just("w"),
    st.sampled_from(["s", "t", "new", ""]),
    st.sampled_from([None, "dev"]),
    st.lists(st.sampled_from([*NAMES, "never seen", "nor this", OTHER, ""]), max_size=WINDOW).map(tuple),
    st.sampled_from([None, "", "fix the login", "write the page " * 400]),
    st.just(""),
)


def learned(max_order: int) -> QuickSteps:
    """Prepare experts that know two sources and whose weights and calibration differ between them."""
    taught = [
        Step("w", source, "dev" if nth % 3 else None, tuple(NAMES[each % 5] for each in range(first, nth)), text, name)
        for source, turn, text in (("s", 1, "fix it"), ("t", 2, None))
        for nth in range(60)
        for first in (max(0, nth - 4),)
        for name in (NAMES[nth * turn % 5],)
    ]
    experts = StepExperts(max_order).count(taught).classify(taught)
    held = [Held(step.source, experts.opinions(step), step.name, 20) for step in taught[::2]]
    return QuickSteps(experts, Mixture().fit(held))


QUICK = {order: learned(order) for order in (0, 1, 3)}


@settings(max_examples=300)
@given(step=steps, source=st.sampled_from(["s", "t", "new", None]), order=st.sampled_from([*QUICK]))
def test_quick_forecasts_are_those_of_the_mixture(step: Step, source: str | None, order: int) -> None:
    quick = QUICK[order]
    slow = dict(zip(*quick.mixture.ranked(quick.experts.opinions(step), source), strict=True))
    for _ in range(2):  # worked out, and kept
        names, shares = quick.probabilities(step, source)
        assert len(names) == len(set(names))
        assert names[0] == next(iter(slow)) or math.isclose(slow[names[0]], max(slow.values()), rel_tol=1e-12)
        assert dict(zip(names, shares, strict=True)) == pytest.approx(slow, rel=1e-9)
        assert shares == sorted(shares, reverse=True)


def test_no_more_is_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_steps, "MOST_KEPT", 3)
    quick = learned(3)
    asked = [Step("w", "s", None, (*"abc", name), text, "") for name in NAMES for text in ("one", "two")]
    first = [quick.probabilities(step, "s") for step in asked]
    assert [quick.probabilities(step, "s") for step in asked] == first
    assert all(len(kept) <= 3 for kept in (quick._rows, quick._by_names, quick._shares))


def test_what_is_learned_later_counts_in_the_next_forecast() -> None:
    def chats(first: int, names: tuple[str, ...]) -> list[Step]:
        trail = (*names, END)
        return [
            Step(f"w{each}", "s", None, trail[:nth], None, trail[nth])
            for each in range(first, first + 40)
            for nth in range(1, len(trail))
        ]

    model = NextAgentModel().fit_steps(chats(0, ("plan", "code")))
    before = model.predict(["plan"], source="s")
    model.fit_steps(chats(40, ("plan", "test")))
    after = model.predict(["plan"], source="s")
    assert (before.likeliest, after.likeliest) == ("code", "test")
