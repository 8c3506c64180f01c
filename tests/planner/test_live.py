"""References in live prompts: exact, to what stands there, and written out when that goes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import apportion.files
from apportion.compression.store import HandleStore
from apportion.compression.strategies.types import Held
from apportion.planner.forms import Forms
from apportion.planner.held import Referred, restores
from apportion.planner.live import ContextItem, Decided, LiveRun
from apportion.planner.masking import MaskPlan
from apportion.planner.planner import Birth, InvocationPlan
from apportion.planner.replay.billing import CacheClock
from apportion.planner.session import Planner
from apportion.records import Action, Kind, Usage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LINES = Path(apportion.files.__file__).read_text(encoding="utf-8").split("\n")[:50]
RESULTS = ("\n".join(LINES), "\n".join([*LINES[:9], "inserted = True", *LINES[9:]]), "\n".join(LINES[20:]), "ok")


def step(run: LiveRun, items: list[ContextItem], masks: list[int], *, folds: bool = False) -> None:
    """Make one call: refer wherever that is shorter, mask some rows, and send."""
    run.enter(items, model=None, task="", now=NOON + timedelta(seconds=run.calls), expands=True, folds=folds)
    prompt, births = run.prompt, []
    for row in np.flatnonzero(prompt.column("born") == run.calls).tolist():
        copy = int(prompt.column("copy")[row])
        if copy >= 0:
            births.append(Birth(row, Action.REFERENCE, 14.0, copy))
        elif prompt.column("referred")[row] < prompt.column("tokens")[row]:
            births.append(Birth(row, Action.REFERENCE, 0.0))
    may = [row for row in sorted(masks) if row < len(prompt) and prompt.column("maskable")[row]]
    chosen = MaskPlan.nothing()._replace(items=np.array(may, dtype=np.intp))
    before = [item.content for item in run.sent]
    run.carry_out(InvocationPlan(chosen, tuple(births), None, "OFF", None, ()))
    first = min([*may, *(birth.row for birth in births)], default=len(before))
    assert [item.content for item in run.sent][:first] == before[:first]
    run.settle(None, NOON)


def audit(run: LiveRun, items: list[ContextItem]) -> int:
    """Check what every reference refers to; return how many there are."""
    references = [row for row, sent in enumerate(run.sent) if sent.action is Action.REFERENCE]
    for row in references:
        copy = run.references.whole.get(row)
        if copy is not None:
            assert run.sent[copy].action in {Action.KEEP, Action.STRUCTURE}
            assert items[copy].content == items[row].content
            continue
        found = run.references.forms[row]
        assert found.form.content.decode() == run.sent[row].content
        assert found.form.original.decode() == items[row].content
        assert restores(found.form, found.held)
        for held in found.held:
            here, stands = run.sent[int(held.label[1:])].content.split("\n"), held.content.decode().split("\n")
            assert all(line in {there, "\0"} for line, there in zip(stands, here, strict=True))
    return len(references)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(RESULTS), st.lists(st.integers(0, 9), max_size=4)), min_size=1, max_size=8),
    st.integers(0, 9),
)
def test_references_are_exact_and_never_dangle(steps: list[tuple[str, list[int]]], forgotten: int) -> None:
    run = LiveRun("main", "main", store=HandleStore(), forms=Forms(), clock=CacheClock())
    items = [ContextItem("look")]
    for number, (result, masks) in enumerate(steps):
        if number == 5:
            del items[forgotten:]
        items.append(ContextItem(result, Kind.TOOL_RESULT, name="Read", link=str(number)))
        step(run, items, masks)
        audit(run, items)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(RESULTS), st.integers(0, 9)), min_size=2, max_size=6), st.integers(1, 9))
def test_what_is_worked_out_when_a_result_arrives_changes_nothing_of_what_is_sent(
    results: list[tuple[str, int]], forgotten: int
) -> None:
    sent: list[list[tuple[str, ...]]] = []
    for run_id in (None, "main", "another"):
        planner = Planner(ahead=False, clock=lambda: NOON, timer=lambda: 0.0)
        with planner.session("w") as session:
            items, steps = [ContextItem("look")], []
            for number, (result, early) in enumerate(results):
                if number == 4:
                    del items[forgotten:]
                new = ContextItem(result, Kind.TOOL_RESULT, name="Read", link=str(number))
                for item in (new, ContextItem(results[early % len(results)][0], Kind.TOOL_RESULT, name="Read")):
                    if run_id is not None:
                        session.ingest(item, run_id=run_id)
                items.append(new)
                steps.append(session.before("main", items, expands=True).contents)
                session.after(session.pending[0], Usage(input_uncached=9000, output=9))
        sent.append(steps)
    assert sent[0] == sent[1] == sent[2]


def test_what_was_decided_of_other_texts_is_decided_anew() -> None:
    item, held = ContextItem(RESULTS[1], Kind.TOOL_RESULT, name="Read"), Held("#1", RESULTS[0].encode())
    decided = Decided.of(item, None, (held,))
    assert isinstance(decided.found, Referred)
    assert decided.fits(replace(item), None, (Held("#1", RESULTS[0].encode()),))
    assert not decided.fits(item, None, ())
    assert not decided.fits(item, None, (Held("#2", RESULTS[0].encode()),))
    assert not decided.fits(item, decided.found.form, (held,))
    assert not decided.fits(replace(item, name="Bash"), None, (held,))


def test_a_file_that_is_read_again_refers_to_what_was_read_and_is_whole_once_that_goes() -> None:
    run = LiveRun("main", "main", store=HandleStore(), forms=Forms(), clock=CacheClock())
    items = [ContextItem("look")]
    for result in RESULTS[:2]:
        items.append(ContextItem(result, Kind.TOOL_RESULT, name="Read"))
        step(run, items, [])
    assert audit(run, items) == 1
    assert run.tokens < 0.7 * run.full_tokens
    assert "inserted = True" in run.sent[2].content
    step(run, items, [1])
    assert audit(run, items) == 0
    assert run.sent[1].action is Action.MASK
    assert run.sent[2].content == RESULTS[1]


def test_a_file_that_was_written_and_read_is_whole_once_the_input_that_wrote_it_is_folded() -> None:
    store = HandleStore()
    run = LiveRun("main", "main", store=store, forms=Forms(), clock=CacheClock())
    call = json.dumps({"file_path": "a.py", "content": RESULTS[0]})
    items = [
        ContextItem("write"),
        ContextItem(call, Kind.TOOL_CALL, name="Write", link="1"),
        ContextItem("ok", Kind.TOOL_RESULT, name="Write", link="1"),
    ]
    step(run, items[:2], [1], folds=True)
    assert run.sent[1].content == call  # its result is not there yet
    step(run, items, [], folds=True)
    items.append(ContextItem(RESULTS[1], Kind.TOOL_RESULT, name="Read", link="2"))
    step(run, items, [], folds=True)
    assert run.sent[3].action is Action.REFERENCE
    step(run, items, [1], folds=True)
    folded = run.sent[1]
    assert folded.action is Action.SELECT
    assert folded.handle is not None
    assert store.expand(folded.handle) == call.encode()
    assert run.sent[3].content == RESULTS[1]
