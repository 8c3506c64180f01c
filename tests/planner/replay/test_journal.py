from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.errors import InputError
from apportion.planner.planner import CUT_TO_WINDOW, PlanOptions
from apportion.planner.replay import journal as journals
from apportion.planner.replay.engine import replay
from apportion.planner.replay.journal import Entry, Journal, figures_of, why_masked
from apportion.planner.replay.workflow import LEFT_OUT_KEPT, replay_workflow
from apportion.records import Action
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from apportion.telemetry.events import WorkflowLog

LOGS = Path(__file__).parents[3] / "fixtures" / "logs"

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), st.integers(0, 5)),
        st.tuples(st.just("fetch"), st.integers(0, 5)),
        st.tuples(st.just("cut"), st.integers(0, 5)),
        st.tuples(st.just("call"), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_what_is_saved_is_what_stood_in_each_call(steps: list[tuple[str, int]]) -> None:
    """Set the journal beside a table of what stands, which is added up at every call."""
    journal, standing, saved, call = Journal(), {}, 0, 0
    waiting: list[int] = []
    for step, row in steps:
        if step == "note":
            journal.note(row, Entry(row, Action.MASK, "why", call, 100 + row, 7))
            standing[row] = 93 + row
        elif step == "fetch":
            waiting.append(row)
        elif step == "cut":
            journal.truncate(row, call)
            standing = {other: tokens for other, tokens in standing.items() if other < row}
        else:
            saved += sum(standing.values())
            for needed in waiting:
                journal.fetched(needed, call)
                standing.pop(needed, None)
            waiting, call = [], call + 1
    journal.close(call)
    assert sum(entry.saved_tokens for entry in journal.entries) == saved
    assert sum(each.saved_tokens for each in figures_of(journal.entries).values()) == saved


@pytest.mark.parametrize(
    ("rows", "cached", "forced", "short", "reason"),
    [
        ([3], 9, CUT_TO_WINDOW, True, CUT_TO_WINDOW),
        ([3], 9, None, True, journals.TOKENS_SHORT),
        ([3], 0, None, False, journals.NOTHING_CACHED),
        ([9, 10], 9, None, False, journals.NOTHING_BEHIND),
        ([3, 10], 9, None, False, journals.LATER_CALLS),
    ],
)
def test_masks_say_what_decided(rows: list[int], cached: int, forced: str | None, reason: str, *, short: bool) -> None:
    assert why_masked(rows, cached, forced=forced, short=short) == reason


@pytest.fixture(scope="module")
def logs() -> list[WorkflowLog]:
    return list(read_logs([LOGS / "swe_agent", LOGS / "pi", LOGS / "openai_messages"], SkipLog()))


def test_actions_account_for_every_visible_token_saved_where_nothing_is_fetched(logs: list[WorkflowLog]) -> None:
    seen: set[str] = set()
    for log in logs:
        result = replay_workflow(log, PlanOptions())
        saved = sum(figures.saved_tokens for figures in result.actions.values())
        difference = result.totals.visible[0] - result.totals.visible[1]
        if result.totals.expansions:
            assert saved > difference
            assert sum(figures.fetched for figures in result.actions.values()) == result.totals.expansions
        else:
            assert saved == difference
        seen.update(action for _, action, _ in result.actions)
    assert seen == {"mask", "structure"}


def test_content_stays_out_unless_it_is_asked_for_and_originals_come_back(tmp_path: Path) -> None:
    private = replay(LOGS / "pi")
    assert private.left_out
    assert all(row.head is None and row.handle is None for row in private.left_out)
    store = tmp_path / "originals"
    report = replay(LOGS / "pi", head_chars=40, originals=store)
    assert report.left_out_pieces >= len(report.left_out) > 0
    with SqliteHandleStore(store) as originals:
        for row in report.left_out:
            assert row.handle is not None
            assert row.head is not None
            assert len(row.head) <= 40
            assert originals.expand(row.handle).decode().startswith(row.head)
    assert str(tmp_path) not in report.to_json()


def test_a_store_that_cannot_be_opened_is_told_and_the_report_comes_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "originals").write_text("not a store of originals at all, and long enough to be sure of that" * 99)
    report = replay(LOGS / "pi", originals=tmp_path / "originals")
    assert any("originals were not kept" in reason for reason in report.plan.degraded)
    assert all(row.handle is None for row in report.left_out)


def test_those_that_saved_most_are_kept(logs: list[WorkflowLog]) -> None:
    for log in logs:
        result = replay_workflow(log, PlanOptions())
        saved = [each.saved_tokens for each in result.left_out]
        assert saved == sorted(saved, reverse=True)
        assert len(saved) == min(LEFT_OUT_KEPT, result.left_out_pieces)


def test_a_limit_of_characters_is_within_reason() -> None:
    with pytest.raises(InputError, match="head_chars"):
        replay(LOGS / "pi", head_chars=10**9)
