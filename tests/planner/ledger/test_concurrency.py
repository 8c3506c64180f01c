"""Many planners at once, in threads and in processes, and processes that are killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.ledger import Ledger, bookings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def at_once(threads: int, work: Callable[[int], Any]) -> list[Any]:
    """Let threads begin together, and return what each of them returned."""
    barrier = threading.Barrier(threads)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


def script(code: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """Run code in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, text=True, **more
    )


@pytest.mark.parametrize("planners", [50, 200, 1000])
def test_of_many_planners_in_threads_exactly_as_many_are_admitted_as_fit(planners: int, address: str) -> None:
    with Ledger(address, wait_s=60) as ledger:
        ledger.open_account("shared", tokens=100_000)
        made = at_once(planners, lambda _: ledger.reserve("shared", tokens=4_000))
        assert sum(one.granted for one in made) == 25
        assert ledger.account("shared").tokens.free == 0
        at_once(25, iter_settle(ledger, [one for one in made if one.granted]))
        stands = ledger.account("shared")
        assert (stands.tokens.spent, stands.tokens.held, stands.reservations) == (75_000, 0, 0)
        assert ledger.audit() == []


def iter_settle(ledger: Ledger, made: list[Any]) -> Callable[[int], Any]:
    return lambda number: ledger.settle(made[number], tokens=3_000)


def test_without_the_guard_many_planners_are_admitted_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookings, "ENOUGH_FREE", "? + ? < 0")
    bookings._hold_statement.cache_clear()
    try:
        with Ledger(tmp_path / "ledger.db") as ledger:
            ledger.open_account("shared", tokens=100_000)
            made = at_once(50, lambda _: ledger.reserve("shared", tokens=4_000))
            assert sum(one.granted for one in made) == 50
    finally:
        bookings._hold_statement.cache_clear()


def test_whoever_looks_while_others_book_sees_books_that_add_up(address: str) -> None:
    with Ledger(address, wait_s=60) as ledger:
        ledger.open_account("team", tokens=20_000)
        for name in "abcd":
            ledger.open_account(name, parent="team", tokens=8_000)
        done = threading.Event()

        def work(number: int) -> None:
            draw = random.Random(number)  # noqa: S311  (nothing secret)
            for _ in range(25):
                made = ledger.reserve("abcd"[number % 4], tokens=draw.randrange(1, 900))
                if made.granted:
                    how = draw.random()
                    _ = ledger.release(made) if how < 0.3 else ledger.settle(made, tokens=int(made.tokens * how))

        def look() -> int:
            looks = 0
            while not done.is_set():
                accounts = ledger.accounts()
                assert all(each.tokens.free is not None and each.tokens.free >= 0 for each in accounts)
                assert accounts[0].tokens.held == sum(each.tokens.held for each in accounts[1:])
                assert accounts[0].tokens.spent == sum(each.tokens.spent for each in accounts[1:])
                looks += 1
            return looks

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            try:
                at_once(16, work)
            finally:
                done.set()
            assert looking.result() > 0
        assert ledger.account("team").tokens.held == 0
        assert ledger.audit() == []


def test_retries_of_one_call_by_many_at_once_hold_and_book_once(address: str) -> None:
    with Ledger(address, wait_s=60) as ledger:
        ledger.open_account("run", tokens=1000)
        made = at_once(20, lambda _: ledger.reserve("run", tokens=600, key="same"))
        assert len(set(made)) == 1
        assert ledger.account("run").tokens.held == 600
        at_once(20, lambda _: ledger.settle("same", tokens=500))
        assert ledger.account("run").tokens.spent == 500


def test_planners_in_processes_are_admitted_as_if_they_were_one(address: str) -> None:
    code = """
        import sys, threading
        from concurrent.futures import ThreadPoolExecutor
        from apportion.planner.ledger import Ledger
        with Ledger(sys.argv[1], wait_s=60) as ledger, ThreadPoolExecutor(25) as pool:
            made = list(pool.map(lambda _: ledger.reserve("shared", tokens=4_000), range(25)))
            for one in made:
                if one.granted:
                    ledger.settle(one, tokens=4_000)
            print(sum(one.granted for one in made))
    """
    with Ledger(address, wait_s=60) as ledger:
        ledger.open_account("shared", tokens=100_000)
        runs = [script(code, address) for _ in range(4)]
        admitted = [int(run.communicate(timeout=600)[0]) for run in runs]
        assert [run.returncode for run in runs] == [0] * 4
        assert sum(admitted) == 25
        assert ledger.account("shared").tokens.spent == 100_000
        assert ledger.audit() == []


def test_processes_that_open_a_ledger_at_once_make_one(tmp_path: Path) -> None:
    code = """
        import sys
        from apportion.planner.ledger import Ledger
        with Ledger(sys.argv[1], wait_s=60) as ledger:
            ledger.open_account("shared", tokens=1000)
            ledger.settle(ledger.reserve("shared", tokens=10))
    """
    path = tmp_path / "ledger.db"
    runs = [script(code, str(path)) for _ in range(6)]
    assert [(run.communicate(timeout=600), run.returncode)[1] for run in runs] == [0] * 6
    with Ledger(path) as ledger:
        assert ledger.account("shared").tokens.spent == 60


WORKER = """
    import os, sys
    from apportion.planner.ledger import Ledger
    address, name = sys.argv[1:]
    with Ledger(address, wait_s=60) as ledger:
        for number in range(100_000):
            made = ledger.reserve("shared", tokens=7, key=f"{name}-{number}", lease_s=3600)
            os.write(1, f"reserved {made.id}\\n".encode())
            ledger.settle(made, tokens=number % 8)
            os.write(1, f"settled {made.id} {number % 8}\\n".encode())
"""


def test_whoever_is_killed_loses_nothing_that_was_acknowledged_and_keeps_nothing(address: str) -> None:
    draw = random.Random(7)  # noqa: S311
    settled: dict[str, int] = {}
    with Ledger(address, wait_s=60) as ledger:
        ledger.open_account("shared", tokens=10**9)
        for number in range(6):
            run = script(WORKER, address, str(number))
            assert run.stdout is not None
            lines = [run.stdout.readline() for _ in range(draw.randrange(4, 20))]
            run.kill()
            lines += run.communicate(timeout=600)[0].splitlines()
            said = [line.split() for line in lines if line.count(" ") == (2 if line.startswith("settled") else 1)]
            settled |= {words[1]: int(words[2]) for words in said if words[0] == "settled"}
        for key, tokens in settled.items():
            assert ledger.reservation(key).used_tokens == tokens
        assert [finding.kind for finding in ledger.audit()] == []
        assert settled
    with Ledger(address, clock=lambda: time.time() + 3600) as later:
        assert later.account("shared").tokens.held == 0
        assert later.reserve("shared", tokens=1).granted  # takes back what the killed ones held
        assert [finding.kind for finding in later.audit()] == []
        assert later.account("shared").tokens.held == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_ledger_can_be_used_on_both_sides_of_a_fork(address: str) -> None:
    with Ledger(address, wait_s=60) as ledger:
        ledger.open_account("shared", tokens=1000)
        ledger.settle(ledger.reserve("shared", tokens=100))  # type: ignore[arg-type]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(50):
                    ledger.settle(ledger.reserve("shared", tokens=1))  # type: ignore[arg-type]
                code = 0
            finally:
                os._exit(code)
        for _ in range(50):
            ledger.settle(ledger.reserve("shared", tokens=1))  # type: ignore[arg-type]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert ledger.account("shared").tokens.spent == 200
        assert ledger.audit() == []


@pytest.mark.needs_postgres
def test_a_planner_that_stalls_in_postgresql_keeps_nobody_waiting_for_ever(
    new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from apportion.planner.ledger import postgres

    monkeypatch.setattr(postgres, "STALLED_MS", 300)
    address = new_database()
    with Ledger(address) as stalled, Ledger(address, wait_s=30) as other:
        stalled.open_account("shared", tokens=100)

        def stall(tx: Any) -> None:
            tx.lock("shared")
            assert other.reserve("shared", tokens=1).granted

        with pytest.raises(Exception, match="cannot be used"):
            stalled._store.write(stall)
