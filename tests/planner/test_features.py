"""The off switch, and the switches of each kind of action."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.inputs import is_folded
from apportion.planner.live import ContextItem
from apportion.planner.planner import PlanOptions
from apportion.planner.session import Planner
from apportion.records import Action, Budget, Feature, Kind, Usage
from apportion.settings import Settings

MODEL = "claude-sonnet-4-5"
TABLE = json.dumps([{"id": number, "state": "open", "value": number * 7919} for number in range(200)])
LOG = "\n".join(f"record {number}: the measured value is {number * 7919}" for number in range(300))

NASTY = ["\ud800", "\udfff\ud800", "\0", "a\r\nb\r", "\ufeff", "", "\u202e", "e\u0301", TABLE, LOG, LOG]
ITEMS = st.lists(
    st.builds(
        ContextItem,
        st.sampled_from(NASTY) | st.text(st.characters(), max_size=40),
        st.sampled_from(Kind),
        st.none() | st.just("Read"),
        st.none() | st.just("1"),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=200)
@given(items=ITEMS, expands=st.booleans(), limit=st.sampled_from([None, 1, 10**6]))
def test_switched_off_every_byte_is_as_it_was(*, items: list[ContextItem], expands: bool, limit: int | None) -> None:
    optimization = Settings.model_validate({"token_optimization": {"enabled": False}}).token_optimization
    options = PlanOptions(enabled=optimization.enabled, off=optimization.off, select="recoverable_85")
    with Planner(options).session("w", budget=Budget(max_tokens=limit)) as session:
        for history in (items, items * 2):
            step = session.before("main", history, model=MODEL, expands=expands)
            assert step.runs
            assert step.contents == tuple(item.content for item in history)
            assert not step.offers_expand
            assert step.saved_tokens == 0
            session.after(step, Usage(input_uncached=5, output=5), output="done")


@settings(max_examples=50)
@given(items=ITEMS)
def test_with_every_action_switched_off_everything_is_sent_whole_and_budgets_still_hold(
    items: list[ContextItem],
) -> None:
    options = PlanOptions(off=frozenset(Feature), select="recoverable_85")
    with Planner(options).session("w", budget=Budget(max_tokens=10**7)) as session:
        step = session.before("main", items, model=MODEL, expands=True)
        assert step.contents == tuple(item.content for item in items)
        assert step.allocated_tokens is not None


def noise(number: int) -> str:
    """A long text that has no shorter form, so that masking it saves more than an expansion would cost."""
    return " ".join(hashlib.sha256(b"%d %d" % (number, word)).hexdigest()[:12] for word in range(1200))


@cache
def actions(off: frozenset[Feature], *, select: str | None = None) -> set[Action]:
    """All actions that a session takes with a table, a copy, a long log, and a cache that has run out."""
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    planner = Planner(PlanOptions(off=off, select=select), clock=lambda: now[0])
    history = [ContextItem("look")]
    seen: set[Action] = set()
    with planner.session("w") as session:
        for number, text in enumerate([TABLE, LOG, LOG, *map(noise, range(6))]):
            history += [
                ContextItem("{}", Kind.TOOL_CALL, "lookup", str(number)),
                ContextItem(text, Kind.TOOL_RESULT, "lookup", str(number)),
            ]
            step = session.before("main", history, model=MODEL, expands=True)
            seen |= {item.action for item in step.items}
            session.after(step, Usage(input_uncached=9_000, output=40), output="go on")
            history.append(ContextItem("go on", Kind.ASSISTANT))
        now[0] += timedelta(hours=2)
        step = session.before("main", history, model=MODEL, expands=True)
        return seen | {item.action for item in step.items}


ALL = {Action.KEEP, Action.STRUCTURE, Action.REFERENCE, Action.MASK}


@pytest.mark.parametrize(
    ("feature", "action"),
    [(Feature.STRUCTURE, Action.STRUCTURE), (Feature.REFERENCE, Action.REFERENCE), (Feature.ELIDE, Action.MASK)],
)
def test_one_action_that_is_switched_off_is_not_taken_and_the_others_are(feature: Feature, action: Action) -> None:
    assert actions(frozenset()) == ALL
    assert actions(frozenset({feature})) == ALL - {action}


def test_selecting_can_be_switched_off() -> None:
    assert PlanOptions(select="recoverable_85").level == "recoverable_85"
    off = PlanOptions(select="recoverable_85", off=frozenset({Feature.SELECT}))
    assert off.level is None
    assert replace(off, off=frozenset(), enabled=False).level is None


def test_settings_name_what_is_off() -> None:
    assert Settings().token_optimization.off == frozenset()
    given_ = Settings.model_validate({"token_optimization": {"diff": False, "preload": False}})
    assert given_.token_optimization.off == {Feature.DIFF, Feature.PRELOAD}


def written(texts: list[str], *, links: bool = True) -> list[ContextItem]:
    """Calls of a tool that writes long texts, each with its result."""
    items = [ContextItem("go")]
    for number, text in enumerate(texts):
        link = str(number) if links else None
        content = json.dumps({"path": f"{number}.md", "flags": [1.5, None, True], "content": text})
        items += [
            ContextItem(content, Kind.TOOL_CALL, "write", link),
            ContextItem("written", Kind.TOOL_RESULT, "write", link),
        ]
    return items


@pytest.mark.parametrize("case", ["folds", "not asked for", "no expand", "elide off", "no links", "no JSON"])
def test_old_inputs_are_folded_only_where_that_was_asked_for_and_can_be_undone(case: str) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    options = PlanOptions(off=frozenset({Feature.ELIDE} if case == "elide off" else ()))
    more: Any = {"expands": case != "no expand", "folds": case != "not asked for"}
    history = written([noise(number) for number in range(6)], links=case != "no links")
    if case == "no JSON":
        history = [replace(item, content=item.content[:-1]) for item in history]
    with Planner(options, clock=lambda: now[0], ahead=False).session("w") as session:
        for length in (5, 7, 9, 11, 13):
            step = session.before("main", history[:length], model="claude-sonnet-4-5", **more)
            session.after(step, Usage(input_uncached=9_000, output=40), output="go on")
        now[0] += timedelta(hours=3)
        waiting = [*history, ContextItem(history[1].content, Kind.TOOL_CALL, "write", "no result yet")]
        step = session.before("main", waiting, model="claude-sonnet-4-5", **more)
        pairs = list(zip(waiting, step.items, strict=True))
        changed = [(item, sent) for item, sent in pairs if sent.content != item.content]
        assert bool(changed) == (case == "folds")
        for item, sent in changed:
            assert (item.kind, sent.action) == (Kind.TOOL_CALL, Action.SELECT)
            assert is_folded(item.content.encode(), sent.content.encode())
            assert session.expand(str(sent.handle)) == item.content
        assert pairs[-1][1].content == waiting[-1].content
