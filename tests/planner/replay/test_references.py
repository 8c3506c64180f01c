"""References in a replayed prompt: exact, one hop, never to what is not there, and never at the cache's expense."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import apportion.errors
import apportion.files
from apportion.compression.store import HandleStore
from apportion.planner.forms import Forms
from apportion.planner.held import restores
from apportion.planner.planner import Birth
from apportion.planner.replay.billing import CacheClock
from apportion.planner.replay.context import logged_calls
from apportion.planner.replay.handoffs import hand_off
from apportion.planner.replay.regime import cache_regime
from apportion.planner.replay.results import LOST_ORIGINAL
from apportion.planner.replay.run import FETCH, RunReplay
from apportion.records import Action, Kind
from apportion.telemetry.events import LogBuilder, WorkflowLog
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apportion.planner.replay.context import LoggedCall

MODEL = "gpt-4o"
LINES = Path(apportion.files.__file__).read_text(encoding="utf-8").split("\n")[:60]


def shown(lines: Iterable[str], first: int = 1) -> str:
    """Return lines as a tool shows them."""
    return "\n".join(f"{first + n:6d}→{line}" for n, line in enumerate(lines))


EDITED = [*LINES[:20], "    inserted = True", *LINES[20:]]
OTHER = Path(apportion.errors.__file__).read_text(encoding="utf-8")[:3000]
EDIT = json.dumps({"file_path": "a.py", "old_string": "\n".join(LINES[5:30]), "new_string": "    nothing = None"})
WRITE = json.dumps({"file_path": "b.py", "content": "\n".join(LINES[30:])})
RESULTS = (shown(LINES), shown(EDITED), shown(LINES), shown(LINES[30:], 31), OTHER, "\n".join(LINES), "ok")
CALLS = ('{"file_path": "a.py"}', EDIT, WRITE)


def session(steps: Iterable[tuple[str, str, str]], *, anew: int = -1) -> WorkflowLog:
    """Return a log: in each step a tool is called with an input, its result comes back, and something is said."""
    builder = LogBuilder("w", source="test", framework="test")
    common: dict[str, Any] = {"agent": "main", "agent_run": "main"}
    builder.add(Kind.USER, "please look", **common)
    for number, (given_input, result, said) in enumerate(steps):
        link = str(number)
        if number == anew:
            builder.add(Kind.USER, "start anew", compaction=True, **common)
        builder.add(Kind.ASSISTANT, said, call=number, model=MODEL, **common)
        builder.add(Kind.TOOL_CALL, given_input, call=number, model=MODEL, name="Read", link=link, **common)
        builder.add(Kind.TOOL_RESULT, result, link=link, **common)
    builder.add(Kind.ASSISTANT, "done", call=1000, model=MODEL, **common)
    log = builder.build()
    assert log is not None
    return log


def run_of(log: WorkflowLog) -> tuple[RunReplay, list[LoggedCall]]:
    calls = list(logged_calls(log))
    store, regime = HandleStore(), cache_regime(calls)
    return RunReplay(log, calls, store=store, clock=CacheClock(), regime=regime, forms=Forms()), calls


def births(run: RunReplay) -> list[Birth]:
    """Return the births that refer wherever that is shorter, else the lossless ones."""
    prompt, found = run.prompt, []
    for row in range(len(prompt)):
        if prompt.column("born")[row] != run.calls or prompt.action(row) is not Action.KEEP:
            continue
        copy, whole = int(prompt.column("copy")[row]), prompt.column("tokens")[row]
        structured, referring = prompt.column("structured")[row], prompt.column("referred")[row]
        if copy >= 0:
            found.append(Birth(row, Action.REFERENCE, 14.0, copy))
        elif referring < min(structured, whole):
            found.append(Birth(row, Action.REFERENCE, float(referring)))
        elif structured < whole:
            found.append(Birth(row, Action.STRUCTURE, float(structured)))
    return found


def audit(run: RunReplay) -> None:
    """Check all references against what is really sent, without the replay's own index of it."""
    texts, prompt = run.texts, run.prompt
    pieces, actions = prompt.column("piece").tolist(), [prompt.action(row) for row in range(len(prompt))]
    assert {row for row in range(len(prompt)) if actions[row] is Action.REFERENCE} == {*run.references, *run.copies}
    for row, copy in run.copies.items():
        assert actions[copy] in {Action.KEEP, Action.STRUCTURE}
        assert run.original(row) == run.original(copy)
    for row, found in run.references.items():
        assert texts[row].encode() == found.form.content
        assert found.form.original.decode() == run.original(row)
        assert restores(found.form, found.held)
        for held in found.held:
            source = int(held.label[1:])
            assert source < row
            assert actions[source] not in {Action.MASK, Action.SELECT}
            sent = texts[source]
            lines = sent.split("\n") if sent[:1] != "{" else max(strings(sent), key=len).split("\n")
            stands = held.content.decode().split("\n")
            assert len(stands) == len(lines)
            assert all(here in {there, "\0"} for here, there in zip(stands, lines, strict=True))
    for row, piece in enumerate(pieces):
        assert piece == FETCH or prompt.column("visible")[row] == count_tokens(texts[row])


def strings(tool_input: str) -> list[str]:
    return [value for value in json.loads(tool_input).values() if isinstance(value, str)]


def replay(log: WorkflowLog, masks: dict[int, list[int]]) -> tuple[RunReplay, list[tuple[str, ...]]]:
    """Replay a log with references wherever possible; return what was sent before each call, checked each time."""
    run, calls = run_of(log)
    sent: list[tuple[str, ...]] = []
    ledger = 0
    for number, call in enumerate(calls):
        run.enter(call)
        run.bear(births(run))
        may = run.prompt.column("maskable")
        chosen = [row for row in masks.get(number, []) if row < len(run.prompt) and may[row]]
        before = run.texts
        run.mask(sorted(chosen))
        audit(run)
        texts = run.texts
        first = min(chosen, default=len(texts))
        assert texts[:first] == before[:first]
        sent.append(texts)
        planned, asked = int(run.prompt.column("visible").sum()), run.totals.extra_calls
        costs = run.send(call)
        extra = int(run.prompt.column("visible").sum()) * (run.totals.extra_calls - asked)
        assert costs.visible[1] == planned + extra
        ledger += planned
        audit(run)
    assert sum(pair[1] for pair in run.kinds.values()) == ledger
    return run, sent


STEPS = st.lists(
    st.tuples(
        st.sampled_from(CALLS),
        st.sampled_from(RESULTS),
        st.sampled_from(["on", "\n".join(LINES[40:43]), OTHER[200:300]]),
    ),
    min_size=2,
    max_size=7,
)


@settings(max_examples=40, deadline=None)
@given(
    STEPS, st.dictionaries(st.integers(1, 7), st.lists(st.integers(0, 24), max_size=6, unique=True)), st.integers(0, 9)
)
def test_references_are_exact_and_never_dangle_whatever_is_masked(
    steps: list[tuple[str, str, str]], masks: dict[int, list[int]], anew: int
) -> None:
    run, _ = replay(session(steps, anew=anew), masks)
    facts, _, recoverable = run.totals.facts
    assert recoverable == facts
    assert LOST_ORIGINAL not in run.degraded
    diffs = run.totals.diffs
    assert diffs.used + sum(diffs.fallbacks.values()) == diffs.attempts
    assert diffs.used == diffs.checks
    assert diffs.unfolded <= diffs.used + diffs.copies


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_without_masks_what_was_sent_is_never_changed(steps: list[tuple[str, str, str]]) -> None:
    run, sent = replay(session(steps), {})
    for before, after in pairwise(sent):
        assert after[: len(before)] == before
    assert run.totals.kept_prefix[1] == run.totals.previous_prompt[1]
    assert run.totals.expansions == 0


READ_AGAIN = (("{}", shown(LINES), "one"), ("{}", shown(EDITED), "two"), ("{}", "ok", "three"), ("{}", "ok", "four"))
FIRST, AGAIN = 3, 6  # rows: please look; one, {}, the file; two, {}, the file after an edit


def test_a_file_that_is_read_again_is_sent_as_what_changed() -> None:
    run, sent = replay(session(READ_AGAIN), {})
    assert "inserted = True" in sent[2][AGAIN]
    assert count_tokens(sent[2][AGAIN]) < 60
    assert run.totals.diffs.used == 1
    assert run.totals.diffs.saved_tokens > 300


def test_every_fact_stays_in_view_where_lines_are_sent_as_references() -> None:
    steps = (("{}", "\n".join(LINES), "one"), ("{}", "\n".join(EDITED), "two"), ("{}", "ok", "three"))
    run, _ = replay(session(steps), {})
    facts, visible, _ = run.totals.facts
    assert run.totals.diffs.used == 1
    assert visible == facts > 0


def test_a_file_that_is_shown_again_under_its_name_counts_as_one() -> None:
    named = [(CALLS[0], text, link) for _, text, link in READ_AGAIN]
    run, _ = replay(session(named), {})
    assert (run.totals.diffs.used, run.totals.diffs.rereads) == (1, 1)


def test_what_is_referred_to_may_go_and_the_reference_is_written_out() -> None:
    run, sent = replay(session(READ_AGAIN), {3: [FIRST]})
    assert run.prompt.action(FIRST) is Action.MASK
    assert run.prompt.action(AGAIN) in {Action.KEEP, Action.STRUCTURE}
    assert all(line in sent[3][AGAIN] for line in EDITED)
    assert run.totals.diffs.unfolded == 1
    assert run.prompt.column("owed").tolist() == [0.0] * len(run.prompt)


def test_both_may_go_at_once() -> None:
    run, _ = replay(session(READ_AGAIN), {3: [FIRST, AGAIN]})
    assert [run.prompt.action(row) for row in (FIRST, AGAIN)] == [Action.MASK, Action.MASK]
    assert run.totals.diffs.unfolded == 0


def test_of_a_copy_of_what_goes_a_stub_is_left() -> None:
    steps = (("{}", OTHER, "one"), ("{}", OTHER, "two"), ("{}", "ok", "three"), ("{}", "ok", "four"))
    run, sent = replay(session(steps), {3: [FIRST]})
    assert "same" in sent[2][AGAIN]
    assert [run.prompt.action(row) for row in (FIRST, AGAIN)] == [Action.MASK, Action.MASK]
    assert run.totals.facts[0] == run.totals.facts[2]


def test_a_row_owes_what_would_be_written_out_again() -> None:
    run, calls = run_of(session(READ_AGAIN))
    for call in calls[:3]:
        run.enter(call)
        run.bear(births(run))
        run.send(call)
    owed = float(run.prompt.column("owed")[FIRST])
    before = float(run.prompt.column("tokens")[AGAIN])
    run.enter(calls[3])
    run.mask([FIRST])
    assert float(run.prompt.column("tokens")[AGAIN]) - before == pytest.approx(owed, rel=0.05)


def test_the_texts_of_an_old_input_are_left_out_and_come_back_when_quoted() -> None:
    quote = next(line for line in LINES[40:] if len(line) > 60)
    steps = ((WRITE, "ok", "one"), ("{}", "ok", "two"), ("{}", "ok", "three"), ("{}", "ok", quote))
    run, sent = replay(session(steps), {2: [2]})
    assert run.prompt.action(2) is Action.SELECT
    folded = json.loads(sent[2][2])
    assert folded["file_path"] == "b.py"
    assert len(folded["content"]) < 250
    assert "left out" in folded["content"]
    assert run.totals.expansions == 1
    assert run.totals.support[2] == run.totals.support[0]


def test_a_new_run_holds_nothing_so_a_delta_to_it_saves_only_on_the_way() -> None:
    builder = LogBuilder("w", source="test", framework="test")
    for run, text in (("main", OTHER), ("sub", OTHER + "\nand look"), ("sub", "quite another task")):
        builder.add(Kind.USER, text, agent=run, agent_run=run)
    log = builder.build()
    assert log is not None
    same, new, first = (hand_off(log.events, [at], held) for at, held in ((1, [0]), (2, [0]), (1, [])))
    assert (same.handoffs, same.handoff_deltas, same.checks) == (1, 1, 1)
    assert 0.9 < same.transport_only_tokens / same.handoff_tokens < 1
    assert (new.handoff_deltas, new.transport_only_tokens) == (0, 0)
    assert (dict(new.handoff_fallbacks), dict(first.handoff_fallbacks)) == ({"not_worth_it": 1}, {"no_base": 1})
    total = same + new + first
    assert (total.handoffs, sum(total.handoff_fallbacks.values())) == (3, 2)
