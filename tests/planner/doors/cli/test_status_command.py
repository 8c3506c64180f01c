"""`apportion status`: budgets, variance, caches, losses and savings, of real telemetry and a real ledger."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.ledger import Ledger
from apportion.telemetry.queue import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.planner.doors.cli.conftest import Answer


@pytest.fixture
def status(run: Callable[..., Answer]) -> Callable[..., str]:
    def command(*arguments: str) -> str:
        answer = run("status", *arguments)
        assert answer.code == 0, answer.err
        return answer.out

    return command


@pytest.fixture
def database(place: Path) -> Path:
    return place / "data" / "apportion" / "apportion.db"


USAGE = {
    "kind": "usage",
    "workflow": "review",
    "agent": "security-expert",
    "run_id": "s1",
    "stage": 1,
    "allocated_tokens": 10_000,
    "input_tokens": 8_000,
    "output_tokens": 1_500,
    "saved_tokens": 2_000,
    "cost_usd": 0.05,
    "saved_usd": 0.01,
}


def tell(database: Path) -> None:
    with Telemetry.to_store(database) as telemetry:
        telemetry.record(USAGE)
        telemetry.record({"kind": "step", "workflow": "review", "decision": "defer", "reasons": ["no budget is left"]})
        telemetry.record({"kind": "cache", "workflow": "review", "cache": "compression", "hits": 3, "misses": 1})
        telemetry.record({"kind": "degraded", "workflow": "review", "component": "embedder", "reason": "missing"})
        telemetry.record({"kind": "action", "workflow": "review", "action": "mask"})
        telemetry.record({"no": "kind"})


def test_it_shows_budgets_variance_decisions_caches_and_losses(status: Callable[..., str], database: Path) -> None:
    tell(database)
    with Ledger(database.with_name("ledger.db")) as ledger:
        ledger.open_account("review", tokens=50_000)
        ledger.reserve("review", tokens=9_000)
    out = status().replace("\N{NO-BREAK SPACE}", " ")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "review tokens 50,000 0 9,000 41,000" in lines
    assert "security-expert 1 10.0 k 9,500 100 % -5 % 0.0500" in lines
    assert "decisions: 1 defer" in lines
    assert "1 x no budget is left" in lines
    assert "1 x embedder: missing" in lines
    assert "cache compression: hit rate 75.0 % of 4" in lines
    assert "losses: 0 dropped, 1 malformed, 0 not written, 0 damaged" in lines
    assert "optimisation:" not in lines
    assert max(map(len, out.splitlines())) <= 80 or str(database) in out


def test_show_optimization_says_what_each_session_saved(status: Callable[..., str], database: Path) -> None:
    assert "no session has told anything yet" not in status("--show-optimization")  # nor is there a store
    tell(database)
    out = status("--show-optimization").replace("\N{NO-BREAK SPACE}", " ")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "review 1 8,000 2,000 20.0 % 0.0500 0.0100" in lines
    assert "actions: 1 mask" in lines


def test_json_has_it_all(status: Callable[..., str], database: Path) -> None:
    empty: dict[str, Any] = json.loads(status("--json"))
    assert (empty["sessions"], empty["ledger"]["accounts"]) == (None, None)
    tell(database)
    sessions: dict[str, Any] = json.loads(status("--json"))["sessions"]
    assert sessions["agents"][0]["allocated_tokens"] == 10_000
    assert sessions["caches"]["compression"] == {"hits": 3, "misses": 1, "hit_ratio": 0.75}
    assert sessions["losses"] == {"dropped": 0, "malformed": 1, "failed": 0, "damaged": 0}
    assert sessions["optimization"][0]["saved_share"] == 0.2


def test_what_was_loaded_loaded_ahead_and_handed_on_is_shown(status: Callable[..., str], database: Path) -> None:
    tell(database)
    assert not {"loading:", "preload:", "diff:"} & set(status().split())
    settled = {"kind": "loading", "workflow": "review", "run_id": "s1", "status": "settled"}
    with Telemetry.to_store(database) as telemetry:
        telemetry.record(settled | {"tokens": 900, "whole_tokens": 4_000})
        telemetry.record(USAGE)
        telemetry.record(USAGE)
        telemetry.record(settled | {"tokens": 1_000, "whole_tokens": 4_000})  # grown
        telemetry.record(USAGE)
        telemetry.record({"kind": "loading", "workflow": "review", "run_id": "s1", "status": "miss", "tokens": 70})
        for state, peak in (("hit", 500), ("miss", 900), ("wasted", None)):
            told = {"kind": "preload", "workflow": "review", "status": state}
            telemetry.record(told if peak is None else told | {"peak_bytes": peak})
        handed = {"kind": "diff", "workflow": "review", "whole_tokens": 500}
        telemetry.record(handed | {"mode": "delta", "sent_tokens": 80, "in_prompt": True})
        telemetry.record(handed | {"mode": "delta", "sent_tokens": 100, "in_prompt": False})
        telemetry.record(handed | {"mode": "whole", "sent_tokens": 500, "reason": "no_base"})
    sessions = json.loads(status("--json"))["sessions"]
    assert sessions["loading"] == {
        "runs": 1,
        "calls": 3,
        "saved_tokens": 9_200,
        "misses": 1,
        "loaded": 0,
        "loaded_tokens": 70,
    }
    assert sessions["preload"] == {"hits": 1, "misses": 1, "wasted": 1, "peak_bytes": 900, "hit_rate": 0.5}
    assert sessions["diff"] == {
        "handed": 3,
        "deltas": 2,
        "whole_tokens": 1_500,
        "sent_tokens": 680,
        "saved_tokens": 820,
        "model_tokens_saved": 420,
        "reasons": {"no_base": 1},
    }
    out = status().replace("\n", " ")
    assert "loading: 9,200 tokens" in out
    assert "preload: 50.0 % of 2 agents had been loaded ahead" in out
    assert "diff: 2 of 3 contexts handed on as deltas" in out


def test_a_ledger_that_cannot_be_read_is_named_and_the_rest_shown(status: Callable[..., str], database: Path) -> None:
    tell(database)
    database.with_name("ledger.db").write_text("not a ledger")
    out = status()
    assert "is not a ledger" in out.replace("\n", " ")
    assert "sessions: " in out


def test_names_from_events_cannot_paint_the_terminal(status: Callable[..., str], database: Path) -> None:
    tell(database)
    with sqlite3.connect(database) as connection:  # as another program might write it, with a right checksum
        row = connection.execute(
            "SELECT recorded_us, kind, workflow, agent, agent_run, data FROM live_events"
        ).fetchone()
        from apportion.telemetry.sessions import _checksum

        row = (*row[:3], "\x1b[31magent", *row[4:])
        connection.execute("UPDATE live_events SET agent = ?, checksum = ? WHERE key = 1", (row[3], _checksum(row)))
    connection.close()
    assert "\x1b" not in status("--show-optimization")
