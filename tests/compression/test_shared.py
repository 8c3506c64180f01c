from __future__ import annotations

import threading

import pytest

from apportion.compression.diff import Context, Form, Reason, Section, open_envelope
from apportion.compression.shared import SharedContexts
from apportion.errors import InputError

SYSTEM = Section("system", content=b"You are careful.\n" * 30)
FIRST = Context((SYSTEM, Section("user", content=b"Begin.\n")))
SECOND = Context((*FIRST.sections, Section("assistant", content=b"Done.\n")))


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_is_offered_what_it_was_sent_last() -> None:
    shared = SharedContexts()
    assert shared.offer("a", FIRST).reason is Reason.NO_BASE
    shared.note_sent("a", FIRST)
    offer = shared.offer("a", SECOND)
    assert (offer.base, offer.reason, offer.references) == (FIRST, None, {0: 0, 1: 1})
    assert shared.offer("b", SECOND).base is None


def test_what_an_edited_history_lacks_is_no_longer_held() -> None:
    shared = SharedContexts()
    shared.note_sent("a", SECOND)
    edited = Context((SYSTEM, Section("user", content=b"[left out]")))
    shared.note_sent("a", edited)
    assert shared.offer("a", SECOND).references == {0: 0}
    assert shared.holders(SECOND.sections[2]) == ()


def test_what_a_run_wrote_is_held_too() -> None:
    shared = SharedContexts()
    shared.note_written("a", SECOND.sections[2:])
    shared.note_sent("a", FIRST)
    shared.note_written("a", SECOND.sections[2:])
    assert shared.offer("a", SECOND).base == SECOND


@pytest.mark.parametrize("end", ["note_ended", "note_compacted"])
def test_a_run_that_ended_or_was_compacted_is_offered_nothing(end: str) -> None:
    shared = SharedContexts()
    shared.note_sent("a", FIRST)
    getattr(shared, end)("a")
    offer = shared.offer("a", SECOND)
    assert (offer.base, offer.reason, offer.references) == (None, Reason.BASE_EXPIRED, {})
    assert (shared.size, len(shared)) == (0, 0)


def test_a_compaction_leaves_what_it_is_known_to_leave() -> None:
    shared = SharedContexts()
    shared.note_sent("a", SECOND)
    shared.note_compacted("a", Context((SYSTEM,)))
    assert shared.offer("a", SECOND).references == {0: 0}


def test_a_holding_expires_and_is_renewed_by_what_is_sent() -> None:
    clock = Clock()
    shared = SharedContexts(ttl_s=300, timer=clock)
    shared.note_sent("a", FIRST)
    clock.now = 300
    assert shared.offer("a", SECOND).base == FIRST
    shared.note_sent("a", FIRST)
    clock.now = 600
    assert shared.offer("a", SECOND).base == FIRST
    clock.now = 600.1
    assert shared.offer("a", SECOND).reason is Reason.BASE_EXPIRED
    assert shared.holders(SYSTEM) == ()
    assert shared.holding("a") is None


def test_sections_that_several_runs_hold_are_kept_once() -> None:
    shared = SharedContexts()
    for run in "abc":
        shared.note_sent(
            run, Context((Section("system", content=bytes(bytearray(SYSTEM.content))), *FIRST.sections[1:]))
        )
    assert shared.size == FIRST.size
    held = [shared.holding(run) for run in "abc"]
    assert all(each is not None and each.context.sections[0] is held[0].context.sections[0] for each in held if held[0])
    assert shared.holders(SYSTEM) == ("a", "b", "c")
    shared.note_ended("b")
    assert shared.size == FIRST.size


def test_a_base_that_was_evicted_means_the_whole_and_the_reason_is_told() -> None:
    shared = SharedContexts(max_bytes=1_000)
    contexts = {run: Context.of_text(run.encode() * 400) for run in "abc"}
    for run, context in contexts.items():
        shared.note_sent(run, context)
    assert [run for run in "abc" if shared.holding(run)] == ["b", "c"]
    assert shared.offer("a", contexts["a"]).reason is Reason.BASE_EVICTED
    envelope = shared.enclose("a", contexts["a"])
    assert (envelope.form, envelope.reason) == (Form.FULL, Reason.BASE_EVICTED)
    shared.note_sent("d", Context.of_text(b"x" * 1_001))
    assert shared.offer("d", FIRST).reason is Reason.BASE_EVICTED
    assert shared.size <= 1_000


def test_an_envelope_is_built_on_what_the_run_holds_and_becomes_what_it_holds() -> None:
    shared = SharedContexts()
    first, second = shared.enclose("a", FIRST), shared.enclose("a", SECOND)
    assert (first.form, first.reason, second.form) == (Form.FULL, Reason.NO_BASE, Form.DELTA)
    assert open_envelope(second, {FIRST.digest: FIRST}) == SECOND
    assert shared.enclose("a", FIRST, note=False).base == SECOND.digest
    assert shared.holding("a") is not None
    assert shared.offer("a", FIRST).base == SECOND
    assert shared.enclose("a", FIRST, form=Form.FULL).reason is Reason.NOT_UNDERSTOOD


def test_limits_that_make_no_sense_are_refused() -> None:
    for limits in ({"max_bytes": -1}, {"max_runs": 0}, {"ttl_s": -1.0}, {"ttl_s": float("nan")}):
        with pytest.raises(InputError):
            SharedContexts(**limits)


def test_threads_share_one_store() -> None:
    shared = SharedContexts(max_bytes=5_000, max_runs=7)
    contexts = [Context((SYSTEM, Section("user", content=b"%d" % number * 100))) for number in range(12)]
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for turn in range(300):
                number = (seed * 7 + turn) % 12
                shared.enclose(f"run {number % 9}", contexts[number])
                if turn % 5 == 0:
                    shared.note_ended(f"run {turn % 9}")
        except BaseException as error:  # noqa: BLE001  (looked at below)
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for number in range(9):
        shared.note_ended(f"run {number}")
    assert (shared.size, len(shared)) == (0, 0)
