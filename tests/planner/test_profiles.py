from __future__ import annotations

import json
from importlib.resources import files

import pytest

from apportion.content import ContentClass, classify
from apportion.planner.forms import Forms, ways
from apportion.planner.profiles import StrategyProfile, profile_of
from apportion.records import Action
from apportion.tokens import count_tokens

MEASURED = (ContentClass.CODE, ContentClass.PROSE, ContentClass.JSON_MINIFIED)
"""Kinds of which the logs of the repository hold enough results to expect something."""


@pytest.mark.parametrize("content", MEASURED)
@pytest.mark.parametrize("action", ways())
def test_the_table_that_is_installed_knows_what_agents_mostly_read(content: ContentClass, action: Action) -> None:
    profile = profile_of(content, action)
    assert (profile.content, profile.action) == (content, action)
    assert profile.results >= 30
    assert 0 < profile.saved < 1
    assert profile.saved_p25 <= profile.saved_p50 <= profile.saved_p75


@pytest.mark.parametrize("content", ContentClass)
def test_what_loses_nothing_leaves_nothing_out(content: ContentClass) -> None:
    assert profile_of(content, Action.STRUCTURE).left_out == 0


def test_of_what_was_not_measured_nothing_is_expected() -> None:
    expected = StrategyProfile(content=ContentClass.PROSE, action=Action.DIFF)
    assert profile_of(ContentClass.PROSE, Action.DIFF) == expected
    assert (expected.results, expected.saved) == (0, 0.0)


def test_the_table_has_each_kind_and_way_once() -> None:
    text = (files("apportion") / "data" / "strategy_profiles.json").read_text(encoding="utf-8")
    known = [(content, action) for content in ContentClass for action in Action if profile_of(content, action).results]
    assert text.count('"content"') == len(known)


def test_a_table_of_json_saves_about_what_its_kind_is_expected_to() -> None:
    rows = [{"id": number, "state": "open", "owner": f"person {number % 7}"} for number in range(40)]
    text = json.dumps(rows, separators=(",", ":"))
    profile = profile_of(ContentClass(classify(text)), Action.STRUCTURE)
    structured = Forms().of(text.encode()).structured
    assert structured is not None
    assert 1 - structured.tokens / count_tokens(text) >= profile.saved_p25
