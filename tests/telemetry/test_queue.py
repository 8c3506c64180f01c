"""Telemetry of sessions: nothing waits, nothing raises, every loss is counted, and no secret stays."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import StoreError
from apportion.telemetry.live_events import Cleaner, LiveEvent
from apportion.telemetry.queue import Telemetry
from apportion.telemetry.sessions import StoreSink, read_summary
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USAGE = {
    "kind": "usage",
    "workflow": "notes",
    "agent": "writer",
    "run_id": "w1",
    "stage": 0,
    "allocated_tokens": 1_000,
    "input_tokens": 700,
    "output_tokens": 100,
    "saved_tokens": 300,
    "cost_usd": 0.25,
    "saved_usd": 0.05,
}


class Kept:
    """A sink that keeps what it is given, once it may."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.events: list[LiveEvent] = []
        self.closed = 0
        self._gate = gate

    def write(self, events: Sequence[LiveEvent]) -> None:
        if self._gate is not None:
            assert self._gate.wait(60)
        self.events += events

    def close(self) -> None:
        self.closed += 1


class Failing(Kept):
    """A sink that fails."""

    def write(self, events: Sequence[LiveEvent]) -> None:  # noqa: ARG002  (whatever they are)
        raise StoreError("the disk is full")


def cleaned(**fields: Any) -> LiveEvent:
    return Cleaner().clean(0, {"kind": "test", **fields})


# ------------------------------------------------------------------ the queue


def test_events_are_written_in_their_order_by_another_thread() -> None:
    sink = Kept()
    with Telemetry([sink]) as telemetry:
        assert all(telemetry.record({"kind": "step", "number": number}) for number in range(1_500))
        assert telemetry.flush()
        assert [event.data["number"] for event in sink.events] == list(range(1_500))
        assert telemetry.counts == (1_500, 0, 0, 1_500, 0, 0, None)
    assert sink.closed == 1


def test_a_full_queue_drops_events_counts_them_and_says_so_later() -> None:
    gate = threading.Event()
    sink = Kept(gate)
    telemetry = Telemetry([sink], capacity=8, batch=8, delay_s=0.001)
    taken = sum(telemetry.record({"kind": "step", "number": number}) for number in range(1_000))
    assert 8 <= taken <= 16  # what waits, and perhaps what is being written
    gate.set()
    assert telemetry.close()
    counts = telemetry.counts
    assert (counts.accepted, counts.dropped, counts.written) == (taken, 1_000 - taken, taken)
    told = [event for event in sink.events if event.kind == "losses"]
    assert sum(event.data["dropped"] for event in told) == 1_000 - taken


def test_many_threads_lose_no_count_and_never_exceed_the_capacity() -> None:
    gate = threading.Event()
    sink = Kept(gate)
    telemetry = Telemetry([sink], capacity=100, batch=10, delay_s=0.001)
    taken: list[int] = []

    def ask() -> None:
        taken.append(sum(telemetry.record({"kind": "step"}) for _ in range(2_000)))
        assert telemetry.counts.waiting <= 100

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.set()
    assert telemetry.close()
    counts = telemetry.counts
    assert counts.accepted == counts.written == sum(taken) <= 110 + 10
    assert counts.accepted + counts.dropped == 16_000


def test_what_is_no_event_is_counted_and_raises_nothing() -> None:
    class Hostile(dict[str, object]):
        def keys(self) -> Any:
            raise RuntimeError("no")

        def __iter__(self) -> Any:
            raise RuntimeError("no")

    sink = Kept()
    with Telemetry([sink]) as telemetry:
        strange: list[Any] = [None, 5, "kind", object(), Hostile(kind="step"), {}, {"kind": 3}, {"kind": "No Word"}]
        for event in strange:
            telemetry.record(event)
        telemetry.record({"kind": "step"})
        telemetry.flush()
        assert telemetry.counts.malformed == len(strange)
    assert [event.kind for event in sink.events if event.kind != "losses"] == ["step"]


def test_a_sink_that_fails_loses_its_events_alone_and_is_named() -> None:
    sink = Kept()
    with Telemetry([Failing(), sink]) as telemetry:
        telemetry.record(USAGE)
        telemetry.flush()
        assert (telemetry.counts.failed, telemetry.counts.written) == (1, 0)
        assert telemetry.counts.problem == "StoreError: the disk is full"
    assert next(event.kind for event in sink.events) == "usage"


def test_after_its_end_everything_is_dropped_and_counted() -> None:
    sink = Kept()
    telemetry = Telemetry([sink])
    assert telemetry.close()
    assert telemetry.close()
    assert not telemetry.record(USAGE)
    assert telemetry.flush()
    assert (telemetry.counts.dropped, sink.events, sink.closed) == (1, [], 1)


def test_a_signal_handler_may_record_while_its_thread_does() -> None:
    sink = Kept()
    with Telemetry([sink], capacity=100_000, batch=16) as telemetry:
        before = signal.signal(signal.SIGALRM, lambda *_: telemetry.record({"kind": "signal"}) and None)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        try:
            for _ in range(20_000):
                telemetry.record({"kind": "step"})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert telemetry.flush()
        kinds = [event.kind for event in sink.events]
    assert kinds.count("step") == 20_000
    assert kinds.count("signal") > 0


def test_a_child_of_a_fork_writes_only_its_own_events_and_the_end_of_a_process_writes_the_last(tmp_path: Path) -> None:
    script = f"""
        import os, sys
        from pathlib import Path
        from apportion.telemetry.queue import Telemetry
        telemetry = Telemetry.to_store(Path({str(tmp_path / "t.db")!r}))
        telemetry.record({{"kind": "parent"}})
        child = os.fork()
        telemetry.record({{"kind": "child" if child == 0 else "parent"}})
        if child:
            assert os.waitpid(child, 0)[1] == 0
        sys.exit(0)
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    subprocess.run(command, check=True, timeout=120)
    with sqlite3.connect(tmp_path / "t.db") as connection:
        kinds = [kind for (kind,) in connection.execute("SELECT kind FROM live_events ORDER BY kind")]
    connection.close()
    assert kinds == ["child", "parent", "parent"]


def test_the_example_of_the_page_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text(encoding="utf-8")
    block = page.partition("## What sessions tell")[2].partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, "telemetry.md", "exec"), names)  # noqa: S102  (our own page)
    assert f"return telemetry.counts.written  # {names['one_call'](tmp_path / 't.db')}" in block


# ------------------------------------------------------------------ the store


def test_a_store_that_cannot_be_opened_says_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_text("something else")
    with pytest.raises(StoreError, match="not a telemetry store"):
        Telemetry.to_store(tmp_path / "t.db")


def test_a_store_that_fails_later_loses_events_counts_them_and_tells_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with Telemetry.to_store(path) as telemetry:
        telemetry.record(USAGE)
        telemetry.flush()
        damaged = sqlite3.connect(path)
        damaged.execute("ALTER TABLE live_events RENAME TO away")
        damaged.commit()
        telemetry.record(USAGE)
        telemetry.flush()
        assert telemetry.counts.failed == 1
        assert "live_events" in str(telemetry.counts.problem)
        damaged.execute("ALTER TABLE away RENAME TO live_events")
        damaged.commit()
        damaged.close()
    summary = read_summary(path)
    assert summary.losses == (0, 0, 1, 0)
    assert summary.degraded == {"telemetry: StoreError": 1}
    assert summary.agents[0].calls == 1


def test_old_events_make_room(tmp_path: Path) -> None:
    sink = StoreSink(tmp_path / "t.db", max_events=50)
    for batch in range(41):
        sink.write([LiveEvent(1_000 * batch, "step", None, None, None, {"number": batch})] * 10)
    sink.close()
    assert read_summary(tmp_path / "t.db").events == 50


def test_figures_are_what_the_events_say(tmp_path: Path) -> None:
    with Telemetry.to_store(tmp_path / "t.db") as telemetry:
        for event in (
            {**USAGE, "kind": "step", "decision": "run", "reasons": []},
            USAGE,
            {**USAGE, "input_tokens": 900},
            {**USAGE, "run_id": "w2", "allocated_tokens": 2_000},
            {**USAGE, "agent": "free", "allocated_tokens": None, "cost_usd": None},
            {"kind": "step", "workflow": "notes", "decision": "defer", "reasons": ["the budget is used up"]},
            {"kind": "cache", "workflow": "notes", "cache": "compression", "hits": 3, "misses": 1},
            {"kind": "action", "workflow": "notes", "action": "compress"},
            {"kind": "diff", "workflow": "notes", "mode": "delta", "whole_tokens": 500, "sent_tokens": 80},
            {"kind": "preload", "workflow": "notes", "used": True},
            {"kind": "expansion", "workflow": "notes", "tokens": 40},
            {"kind": "degraded", "workflow": "notes", "component": "embedder", "reason": "missing"},
        ):
            telemetry.record(event)
    summary = read_summary(tmp_path / "t.db")
    writer, free = summary.agents
    assert (writer.agent, writer.calls, writer.tokens) == ("writer", 3, 2_600)
    assert (writer.compared, writer.allocated_tokens, writer.used_tokens, writer.within) == (2, 3_000, 2_600, 0.5)
    assert writer.median_variance == pytest.approx((1_800 / 1_000 - 1 + 800 / 2_000 - 1) / 2)
    assert (free.allocated_tokens, free.within, free.cost_usd) == (None, None, None)
    assert (summary.decisions, summary.reasons) == ({"run": 1, "defer": 1}, {"the budget is used up": 1})
    assert (summary.degraded, summary.caches["compression"].ratio) == ({"embedder: missing": 1}, 0.75)
    (notes,) = summary.workflows
    assert (notes.steps, notes.saved_tokens, notes.cost_usd) == (4, 1_200, None)
    assert notes.saved_usd == pytest.approx(0.2)
    assert notes.saved_share == pytest.approx(1_200 / (3_000 + 1_200))
    assert (notes.actions, notes.diff_saved_tokens, notes.preloads, notes.expanded_tokens) == (
        {"compress": 1},
        420,
        (1, 0),
        40,
    )


def test_a_damaged_event_is_counted_and_left_out(tmp_path: Path) -> None:
    with Telemetry.to_store(tmp_path / "t.db") as telemetry:
        telemetry.record(USAGE)
        telemetry.record({**USAGE, "input_tokens": 1})
    with sqlite3.connect(tmp_path / "t.db") as connection:
        connection.execute("UPDATE live_events SET agent = 'other' WHERE key = 1")
    connection.close()
    summary = read_summary(tmp_path / "t.db")
    assert (summary.losses.damaged, [agent.tokens for agent in summary.agents]) == (1, [101])
    with TelemetryStore(tmp_path / "t.db") as store:
        assert store.check() == ["1 event of sessions differs from its checksum"]


def test_deleting_a_workflow_deletes_what_its_session_told(tmp_path: Path) -> None:
    with Telemetry.to_store(tmp_path / "t.db") as telemetry:
        telemetry.record(USAGE)
        telemetry.record({**USAGE, "workflow": "other"})
    with TelemetryStore(tmp_path / "t.db") as store:
        assert store.delete("notes")
    assert [each.workflow for each in read_summary(tmp_path / "t.db").workflows] == ["other"]


# ------------------------------------------------------------------ what is kept


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["reason", "reasons", "model", "workflow", "agent"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
    )
)
def test_whatever_is_recorded_is_cleaned_to_what_json_holds(fields: Mapping[str, object]) -> None:
    event = Cleaner(capture_content=True).clean(0, {**fields, "kind": "test"})
    assert json.loads(json.dumps(event.data, allow_nan=False)) == event.data


def test_texts_are_left_out_and_numbers_kept() -> None:
    event = cleaned(prompt="what nobody may read", tokens=5, ok=True, big=2**80, nan=float("nan"), deep={"a": 1})
    assert event.data == {"tokens": 5, "ok": True}


def test_the_message_of_a_foreign_error_is_left_out_because_it_may_quote_a_content() -> None:
    reason = "the planner failed, so every piece is sent whole: ValueError: cannot read 'my diary'"
    assert cleaned(reason=reason).data["reason"] == "the planner failed, so every piece is sent whole: ValueError"
    captured = Cleaner(capture_content=True).clean(0, {"kind": "test", "reason": reason, "prompt": "hello"})
    assert captured.data == {"reason": reason, "prompt": "hello"}


@pytest.mark.parametrize(
    "quoted",
    ["a policy failed: ReadTimeout", "PolicyFailed", "log: _Refused", "it failed: error", "gone (Refused"],
)
def test_whatever_the_name_of_a_foreign_error_its_message_is_left_out(quoted: str) -> None:
    assert cleaned(reasons=[f"{quoted}: my diary", "now: kept"]).data["reasons"] == [quoted, "now: kept"]


def found_in(folder: Path, planted: Mapping[str, str]) -> list[str]:
    """Return the secrets whose secret part lies anywhere in the files of a folder."""
    held = b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())
    return [secret for secret, part in planted.items() if part.encode() in held]


@pytest.mark.parametrize("capture", [False, True])
def test_no_planted_secret_reaches_a_file_by_any_field(
    tmp_path: Path, planted_secrets: dict[str, str], *, capture: bool
) -> None:
    planted = [*planted_secrets]
    assert len(planted) == 300
    with Telemetry.to_store(tmp_path / "t.db", sinks=[Failing()], capture_content=capture) as telemetry:
        names = ("workflow", "agent", "run_id", "model", "strategy")
        for start in range(0, len(planted), len(names)):
            some = planted[start : start + len(names)]
            sentence = f"could not use {' or '.join(some)} today"
            reasons = [f"it failed: KeyError: {some[0]}", *(f"no {secret}" for secret in some)]
            fields = {"reason": sentence, "reasons": reasons, "prompt": sentence, "number": 1}
            telemetry.record({"kind": "step", **dict(zip(names, some, strict=True)), **fields})
        telemetry.flush()
        assert found_in(tmp_path, planted_secrets) == []
        assert telemetry.counts.written + telemetry.counts.failed == 60
        shown = repr(read_summary(tmp_path / "t.db"))
        assert not any(part in shown for part in planted_secrets.values())
    (tmp_path / "leak").write_text(f"a log that holds {planted[17]}")
    assert found_in(tmp_path, planted_secrets) == [planted[17]]  # the search itself works


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a shell")
def test_a_process_that_is_killed_leaves_a_store_that_reads(tmp_path: Path) -> None:
    script = f"""
        import os
        from pathlib import Path
        from apportion.telemetry.queue import Telemetry
        telemetry = Telemetry.to_store(Path({str(tmp_path / "t.db")!r}))
        for number in range(100):
            telemetry.record({{"kind": "step", "number": number}})
        telemetry.flush()
        telemetry.record({{"kind": "late"}})
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_summary(tmp_path / "t.db").events >= 100
