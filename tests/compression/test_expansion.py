"""What markers promise: each names a range, and what `expand` returns for it is what was left out there."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.expand_tool import expand
from apportion.compression.pipeline import LEVELS, Lossless, apply, recoverable, restore
from apportion.compression.store import HandleStore
from apportion.compression.strategies.code_outline import CodeOutline
from apportion.compression.strategies.extractive import Extractive
from apportion.compression.strategies.ranges import Ranges
from apportion.compression.strategies.types import Item, Outcome, Query

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.compression.strategies.types import Strategy

ROOT = Path(__file__).parents[2]

STRATEGIES: dict[str, Callable[[HandleStore], Strategy]] = {
    "extractive": Extractive,
    "code_outline": CodeOutline,
    "ranges": Ranges,
    "ranges_half": lambda store: Ranges(store, visible=0.5),
}
NONCE = "7f3a9"


def _load() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("_scenarios")
    finally:
        sys.path.pop(0)


ALL = _load().load_scenarios()


MARKER = re.compile(
    rf"\[{NONCE}: (?:lines? (\d+(?:-\d+)?) left out|\d+ bytes left out|(b\d+-\d+)\])"
    r"(?:: [^;\]]*)?(?:; expand (h:[0-9a-f]+) (b?\d+(?:-\d+)?)\])?"
)


def marked(content: bytes) -> list[tuple[str, str]]:
    """Return the handle and the range of each marker, read as a reader does: the first one names the handle."""
    found = list(MARKER.finditer(content.decode("utf-8", "replace")))
    return [(found[0][3], each[4] or each[1] or each[2]) for each in found]


def left_out(outcome: Outcome) -> list[bytes]:
    return [outcome.original[gap.span.start : gap.span.end] for gap in outcome.gaps]


def before_lossless(outcome: Outcome) -> bytes:
    """Return what the cut made, before the lossless steps that followed it."""
    return restore(replace(outcome, steps=outcome.steps[1:], gaps=()), [Lossless()])


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_marker_of_a_scenario_expands_to_what_was_left_out_there(name: str) -> None:
    markers = 0
    for scenario in ALL:
        store = HandleStore()
        query = Query(scenario.task, can_expand=True, nonce=NONCE)
        outcome = apply(STRATEGIES[name](store), Item(scenario.content), query)
        said = marked(outcome.content)
        assert [expand(store, *each) for each in said] == left_out(outcome), scenario
        assert [str(handle) for handle in outcome.handles] == list(dict(said)), scenario
        markers += len(said)
    assert markers > 10


@pytest.mark.parametrize("level", LEVELS)
def test_markers_hold_where_the_rest_is_written_by_its_structure(level: str) -> None:
    """Markers are lines like others: `log_templates` writes many of them as rows, and their ranges stay readable."""
    markers = 0
    for scenario in ALL:
        store = HandleStore()
        query = Query(scenario.task, can_expand=True, nonce=NONCE)
        outcome = apply(recoverable(level, store), Item(scenario.content), query)
        if not outcome.gaps:
            continue
        said = marked(before_lossless(outcome))
        assert [expand(store, *each) for each in said] == left_out(outcome), scenario
        words = set(re.split(r"[^\w-]+", outcome.content.decode()))
        assert {text_range for _, text_range in said} <= words, scenario
        assert str(outcome.handles[0]).encode() in outcome.content, scenario
        markers += len(said)
    assert markers > 100


@given(
    st.lists(st.text("ab .!?\n\r\u00e9\u4e2d\u3002", max_size=60), min_size=5, max_size=40).map("\n".join),
    st.integers(0, 200),
)
def test_bytes_that_a_marker_names_are_what_was_left_out_in_any_script(text: str, target: int) -> None:
    store = HandleStore()
    outcome = apply(
        Extractive(store), Item(text.encode()), Query("a b", can_expand=True, nonce=NONCE), target_tokens=target
    )
    assert [expand(store, *each) for each in marked(outcome.content)] == left_out(outcome)
