from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InputError, LedgerError
from apportion.planner.ledger import Ledger
from apportion.planner.live import ContextItem
from apportion.planner.session import Planner, Session
from apportion.planner.steps import Decision
from apportion.records import Budget, Kind, Usage

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "claude-sonnet-4-5"
BIG = [ContextItem("word " * 9_000), ContextItem("\ud800 \0 \r\n", Kind.TOOL_RESULT, "Read", "1", pinned=True)]


def worked(planner: Planner) -> Session:
    """A session with everything: used, held, deferred, finished."""
    session = planner.session("w", budget=Budget(max_tokens=30_000))
    session.after(session.before("first", [ContextItem("go")], model=MODEL), Usage(input_uncached=20_000, output=500))
    session.finished("first")
    session.next_stage()
    session.before("under way", [ContextItem("go")], model=MODEL)
    assert session.before("later", BIG, model=MODEL, mandatory=False, priority=3).decision is Decision.DEFER
    return session


def test_a_session_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        planner = Planner(ledger=ledger, ahead=False)
        saved = json.loads(json.dumps(worked(planner).checkpoint()))
        old = worked(Planner(ahead=False))
        session = Planner(ledger=ledger, ahead=False).resume(saved)
        assert session.hand_back == old.hand_back
        assert session.balance == old.balance
        (step,) = session.pending
        assert (step.run_id, step.model) == ("under way", MODEL)
        session.after(step, Usage(input_uncached=100, output=50))
        assert ledger.account("w").tokens.held == 0
        assert ledger.account("w").tokens.spent == session.balance[0].spent == 20_650
        session.top_up(tokens=60_000)
        (offered,) = session.ready()
        assert offered.run_id == "later"
        assert offered.contents == tuple(item.content for item in BIG)
        assert offered.number == 4
        assert session.checkpoint()["deferred"] == ()


def test_a_checkpoint_holds_no_content_of_what_does_not_wait() -> None:
    with Planner().session("w") as session:
        session.before("main", [ContextItem("a secret of somebody")], model=MODEL)
        assert "secret" not in json.dumps(session.checkpoint())


@pytest.mark.parametrize(
    "change",
    [{"schema_name": "apportion.checkpoint/9"}, {"used_tokens": -1}, {"deferred": [{"agent": "a"}]}, {"more": 1}],
)
def test_what_is_no_checkpoint_is_refused(change: dict[str, Any]) -> None:
    saved = worked(Planner()).checkpoint() | change
    with pytest.raises(InputError, match="checkpoint"):
        Planner().resume(saved)
    with pytest.raises(InputError, match="no checkpoint"):
        Planner().resume({})


def test_what_is_said_again_after_resuming_is_booked_once() -> None:
    session = Planner(ahead=False).session("w", budget=Budget(max_tokens=100_000))
    session.spend(Usage(input_uncached=1_000, output=0), agent="a", key="spent")
    session.top_up(tokens=500, key="more")
    step, failed = (session.before(agent, [ContextItem("hi")], model=MODEL, key=agent) for agent in "bc")
    session.after(step, Usage(input_uncached=10, output=1))
    session.after(failed, None)
    again = Planner(ahead=False).resume(json.loads(json.dumps(session.checkpoint())))
    again.spend(Usage(input_uncached=1_000, output=0), agent="a", key="spent")
    again.top_up(tokens=500, key="more")
    again.after(step, Usage(input_uncached=10, output=1))
    again.after(failed, None)
    assert again.balance == session.balance
    assert (again.balance[0].spent, again.balance[0].total) == (1_011, 100_500)
    with pytest.raises(LedgerError, match="settled already"):
        again.after(step, Usage(input_uncached=10, output=2))
    assert "hi" not in again.checkpoint()["keys"]
    assert again.before("b", [ContextItem("hi")], model=MODEL, key="b").contents == ("hi",)  # its answer was not kept


def test_a_run_has_its_last_call_once_also_across_a_checkpoint() -> None:
    session = Planner(ahead=False).session("w", budget=Budget(max_tokens=8_000))
    task = [ContextItem("x " * 20)]
    session.after(session.before("a", task, model=MODEL), Usage(input_uncached=6_550, output=900))
    session = Planner(ahead=False).resume(json.loads(json.dumps(session.checkpoint())))
    last = session.before("a", task, model=MODEL)
    assert last.final
    session.after(last, Usage(input_uncached=60, output=0))
    session = Planner(ahead=False).resume(json.loads(json.dumps(session.checkpoint())))
    assert session.before("a", task, model=MODEL).decision is Decision.ABORT
