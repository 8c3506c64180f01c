"""What sessions were given is looked at again: real compressions, real stores, and damages that must be found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from apportion.compression.pipeline import Lossless, apply, recoverable
from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.compression.strategies.types import Item, Query
from apportion.planner.revalidation import State, revalidate
from apportion.telemetry.live_events import Cleaner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from apportion.planner.revalidation import Piece
    from apportion.telemetry.live_events import LiveEvent

LOG = b"".join(
    b"2026-03-01 12:00:%02d INFO worker-%d finished job %d in %d ms\n" % (n, n % 7, n, 3 * n) for n in range(60)
)
TABLE = (
    b'[\n  {"name": "alpha", "size": 10},\n  {"name": "beta", "size": 20},\n  {"name": "gamma", "size": 30}\n]\n' * 4
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteHandleStore]:
    with SqliteHandleStore(tmp_path / "originals") as opened:
        yield opened


def event(action: str, **fields: Any) -> LiveEvent:
    given = {"kind": "action", "workflow": "w", "run_id": "r", "number": 3, "action": action, **fields}
    return Cleaner().clean(0, given)


def piece(store: SqliteHandleStore | None, action: str, **fields: Any) -> Piece:
    (found,) = revalidate([event(action, **fields)], store).pieces
    return found


def shown(store: SqliteHandleStore, action: str, original: bytes, content: bytes) -> Piece:
    return piece(store, action, original=str(store.put(original)), shown=str(store.put(content)))


def test_lines_left_out_behind_markers_are_accepted_and_the_facts_behind_them_counted(store: SqliteHandleStore) -> None:
    outcome = apply(recoverable("recoverable_85", store), Item(LOG), Query(task="worker-3", can_expand=True))
    assert outcome.gaps
    found = shown(store, "select", LOG, outcome.content)
    assert found.state in {State.ACCEPTED, State.RECOVERABLE}
    assert found.facts is not None
    assert found.visible_facts is not None
    assert found.visible_facts < found.facts == found.recoverable_facts


def test_a_cut_that_is_written_otherwise_is_undone_and_proved(store: SqliteHandleStore) -> None:
    long = b"".join(
        b"12:00:%02d INFO worker-%d finished job %d in %d ms\n" % (n % 60, n % 7, n, 3 * n) for n in range(300)
    )
    outcome = apply(recoverable("recoverable_85", store), Item(long), Query(task="worker-3", can_expand=True))
    assert len(outcome.steps) > 1
    fields = {"original": str(store.put(long)), "strategy": "+".join(outcome.steps)}
    found = piece(store, "select", shown=str(store.put(outcome.content)), **fields)
    assert found.state is State.ACCEPTED
    assert found.visible_facts is not None
    assert found.facts is not None
    assert found.visible_facts < found.facts == found.recoverable_facts
    for before, after in ((b"lines 6", b"lines 7"), (b"finished", b"failed")):
        forged = outcome.content.replace(before, after, 1)
        assert forged != outcome.content
        assert piece(store, "select", shown=str(store.put(forged)), **fields).state is not State.ACCEPTED


def test_a_lossless_form_is_proved_anew(store: SqliteHandleStore) -> None:
    outcome = apply(Lossless(), Item(TABLE), Query())
    assert outcome.changed
    assert shown(store, "structure", TABLE, outcome.content).state is State.ACCEPTED


def test_a_stub_is_accepted_because_its_original_is_there(store: SqliteHandleStore) -> None:
    found = shown(store, "mask", b"Never delete /srv/data.", b"[731: result left out; expand h:12345678]")
    assert (found.state, found.visible_facts, found.recoverable_facts) == (State.ACCEPTED, 0, found.facts)


def test_what_makes_a_fact_up_is_rejected(store: SqliteHandleStore) -> None:
    found = shown(store, "select", b"The timeout is 30 seconds.", b"The timeout is 80 seconds.")
    assert found.state is State.REJECTED
    assert any("new" in reason for reason in found.reasons)


def test_a_forged_marker_hides_no_invention(store: SqliteHandleStore) -> None:
    found = shown(store, "select", b"The timeout is 30 seconds.", b"[000: The timeout is 80 seconds.]")
    assert found.state is State.REJECTED


def test_an_original_alone_must_be_there_and_whole(store: SqliteHandleStore) -> None:
    handle = str(store.put(LOG))
    assert piece(store, "mask", original=handle).state is State.RECOVERABLE
    assert piece(store, "mask", original="h:00000000").state is State.GONE
    assert piece(None, "mask", original=handle).state is State.GONE
    with store._database.writing() as connection:
        connection.execute("UPDATE originals SET content = x'00'")
    found = piece(store, "mask", original=handle)
    assert (found.state, "damaged" in found.reasons[0]) == (State.GONE, True)


def test_what_was_sent_and_is_gone_leaves_the_way_back(store: SqliteHandleStore) -> None:
    handle = str(store.put(LOG))
    found = piece(store, "select", original=handle, shown="h:00000000")
    assert (found.state, found.reasons) == (State.RECOVERABLE, ("what was sent: unknown handle '00000000'",))


def test_a_form_that_shows_all_loses_nothing_when_its_original_is_not_kept(store: SqliteHandleStore) -> None:
    for action in ("structure", "reference"):
        assert piece(store, action, original="h:00000000").state is State.UNCHECKED
        assert piece(None, action, original="h:00000000").state is State.UNCHECKED


def test_a_form_of_which_nothing_was_kept_says_so(store: SqliteHandleStore) -> None:
    assert piece(store, "structure").state is State.UNCHECKED


def test_similarity_is_that_of_the_comparison_that_is_given(store: SqliteHandleStore) -> None:
    original, content = store.put(b"alpha beta gamma"), store.put(b"alpha beta gamma")
    told = event("select", original=str(original), shown=str(content))
    (found,) = revalidate([told], store, compare=lambda one, other: float(one == other)).pieces
    assert found.similarity == 1.0


def test_the_bill_is_that_of_the_events_and_damaged_ones_are_counted(store: SqliteHandleStore) -> None:
    usage = Cleaner().clean(
        0, {"kind": "usage", "workflow": "w", "input_tokens": 80, "saved_tokens": 20, "cost_usd": 1.5}
    )
    found = revalidate([usage, None, event("mask", original="h:00000000")], store)
    (totals,) = found.summary.workflows
    assert (totals.saved_share, totals.cost_usd, found.summary.losses.damaged, found.sound) == (0.2, 1.5, 1, False)
