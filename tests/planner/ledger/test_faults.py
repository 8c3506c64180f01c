"""What happens when a store breaks: a clear error or a flagged answer, and never half a booking."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InputError, LedgerError, MissingExtraError, StoreError
from apportion.planner.ledger import Ledger
from apportion.planner.ledger import ledger as ledger_module
from apportion.planner.ledger.schema import POSTGRES_STEPS, SQLITE_STEPS
from apportion.planner.ledger.stores import open_store
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be another process that has been writing for a while."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def test_closed_lets_no_call_pass_while_the_store_is_locked(path: Path, reserved: Any) -> None:
    with Ledger(path, wait_s=0.05) as ledger:
        ledger.open_account("run", tokens=100)
        held = reserved(ledger, "run", 10)
        with locked(path):
            for ask in (
                lambda: ledger.reserve("run", tokens=1),
                lambda: ledger.settle(held, tokens=5),
                lambda: ledger.release(held),
                lambda: ledger.renew(held),
                lambda: ledger.spend("run", tokens=1),
                lambda: ledger.top_up("run", tokens=1),
                lambda: ledger.open_account("new"),
            ):
                with pytest.raises(StoreError, match=r"database is locked\. Another process"):
                    ask()
        assert (ledger.account("run").tokens.held, ledger.unbooked) == (10, 0)
        assert ledger.settle(held, tokens=5).degraded is None


def test_open_lets_calls_pass_says_so_and_books_them_when_the_store_is_back(
    path: Path, reserved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PAUSE_S", 0.0)
    with Ledger(path, wait_s=0.05, on_store_failure="open") as ledger:
        ledger.open_account("run", tokens=100)
        held = reserved(ledger, "run", 10)
        with locked(path):
            unknown = reserved(ledger, "run", 40)
            assert "database is locked" in (unknown.degraded or "")
            assert "database is locked" in (ledger.settle(held, tokens=5).degraded or "")
            used = ledger.settle(unknown)
            assert (used.used_tokens, used.state) == (40, "settled")
            assert "database is locked" in (used.degraded or "")
            assert ledger.release(unknown) == ledger.renew(unknown) == unknown
            assert ledger.unbooked == 2
            with pytest.raises(StoreError):
                ledger.flush()
        assert reserved(ledger, "run", 1).degraded is None
        assert ledger.unbooked == 0
        stands = ledger.account("run").tokens
        assert (stands.spent, stands.held) == (45, 1)
        assert (ledger.audit(), ledger.unbookable) == ([], 0)


def test_after_a_failure_an_open_ledger_does_not_wait_for_the_store_again_at_once(
    path: Path, reserved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PAUSE_S", 1e6)
    with Ledger(path, wait_s=0.05, on_store_failure="open") as ledger:
        ledger.open_account("run", tokens=100)
        with locked(path):
            first = reserved(ledger, "run", 1)
        second = reserved(ledger, "run", 1)  # the store is back, and is not asked
        assert first.degraded == second.degraded is not None
        ledger.settle(second, tokens=1)
        assert ledger.unbooked == 1
        assert ledger.flush() == 1
        assert reserved(ledger, "run", 1).degraded is None


def test_a_use_that_waits_is_booked_when_the_ledger_is_closed_or_is_complained_about(path: Path, reserved: Any) -> None:
    ledger = Ledger(path, wait_s=0.05, on_store_failure="open")
    ledger.open_account("run", tokens=100)
    with locked(path):
        ledger.settle(reserved(ledger, "run", 30), tokens=20)
    ledger.close()
    with Ledger(path) as again:
        assert again.account("run").tokens.spent == 20

    lost = Ledger(path, wait_s=0.05, on_store_failure="open")
    with locked(path):
        lost.settle(reserved(lost, "run", 30), tokens=20)
        with pytest.raises(StoreError, match="1 uses could not be booked"):
            lost.close()


def test_a_reservation_that_was_stored_although_the_store_broke_is_settled_and_not_booked_twice(
    address: str, reserved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PAUSE_S", 0.0)
    with Ledger(address, on_store_failure="open") as ledger:
        ledger.open_account("run", tokens=100)
        write = type(ledger._store).write

        def write_and_break(self: Any, body: Any) -> None:
            write(self, body)
            raise StoreError("broke after it was stored")

        with monkeypatch.context() as patch:
            patch.setattr(type(ledger._store), "write", write_and_break)
            unsure = reserved(ledger, "run", 40)
            assert unsure.degraded == "broke after it was stored"
            assert ledger.settle(unsure, tokens=30).degraded
        assert ledger.flush() == 1
        stands = ledger.account("run").tokens
        assert (stands.spent, stands.held, ledger.unbookable) == (30, 0, 0)


def test_a_use_that_can_never_be_booked_is_counted(path: Path, reserved: Any) -> None:
    ledger = Ledger(path, wait_s=0.05, on_store_failure="open")
    with locked(path):
        ledger.settle(reserved(ledger, "nobody", 30), tokens=20)
    ledger.close()
    assert (ledger.unbooked, ledger.unbookable) == (0, 1)


def test_uses_that_wait_do_not_grow_without_end(path: Path, reserved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MOST_UNBOOKED", 3)
    ledger = Ledger(path, wait_s=0.05, on_store_failure="open")
    ledger.open_account("run", tokens=100)
    with locked(path):
        for _ in range(3):
            ledger.settle(reserved(ledger, "run", 1))
        with pytest.raises(StoreError, match="3 uses wait"):
            ledger.settle(reserved(ledger, "run", 1))
    ledger.close()


def test_a_policy_that_does_not_exist_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match="on_store_failure cannot be 'maybe'"):
        Ledger(path, on_store_failure="maybe")  # type: ignore[arg-type]
    assert not path.exists()


def full(ledger: Ledger) -> sqlite3.Connection:
    """Let the file grow no more, as on a full disk."""
    connection: sqlite3.Connection = ledger._store._database._connection  # type: ignore[attr-defined]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    return connection


def test_on_a_full_disk_no_booking_is_made_by_half_and_all_goes_on_when_there_is_room(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.open_account("run", tokens=10**9)
        connection = full(ledger)
        made = 0

        def reserve() -> None:
            nonlocal made
            for _ in range(10_000):
                ledger.reserve("run", tokens=10)
                made += 1

        with pytest.raises(StoreError, match=r"full.*The disk is full"):
            reserve()
        stands = ledger.account("run")
        assert (stands.tokens.held, stands.reservations) == (10 * made, made)
        assert made > 10
        assert ledger.audit() == []
        connection.execute("PRAGMA max_page_count = 1000000")
        assert ledger.reserve("run", tokens=10).granted


def test_a_disk_that_refuses_to_write_costs_no_acknowledged_booking(path: Path) -> None:
    code = """
        import resource, signal, sys
        from apportion.errors import StoreError
        from apportion.planner.ledger import Ledger
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Ledger(sys.argv[1]) as ledger:
            ledger.open_account("run", tokens=10**9)
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
            booked = failures = 0
            while failures < 5:
                try:
                    ledger.settle(ledger.reserve("run", tokens=10), tokens=3)
                    booked += 1
                except StoreError:
                    failures += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            print(booked)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    with Ledger(path) as ledger:
        assert [finding for finding in ledger.audit() if finding.kind == "wrong"] == []
        assert ledger.account("run").tokens.spent == 3 * int(done.stdout)


class Failing:
    """A transaction that fails at its n-th statement."""

    def __init__(self, tx: Any, at: int) -> None:
        self._tx, self._left = tx, at
        self.lock, self.now = tx.lock, tx.now

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        if self._left == 0:
            raise StoreError("this statement failed")
        self._left -= 1
        return self._tx.execute(statement, parameters)


BOOKINGS: dict[str, Callable[[Ledger], Any]] = {
    "open an account": lambda ledger: ledger.open_account("child", parent="run", tokens=5),
    "reserve": lambda ledger: ledger.reserve("run", tokens=300, key="new"),
    "settle": lambda ledger: ledger.settle("held", tokens=7),
    "settle late": lambda ledger: ledger.settle("gone", tokens=7),
    "release": lambda ledger: ledger.release("held"),
    "renew": lambda ledger: ledger.renew("held"),
    "spend": lambda ledger: ledger.spend("run", tokens=7, key="new"),
    "top up": lambda ledger: ledger.top_up("run", tokens=7, key="new"),
    "close an account": lambda ledger: ledger.close_account("run"),
}


@pytest.mark.parametrize("booking", BOOKINGS.values(), ids=BOOKINGS)
def test_a_booking_that_fails_at_any_statement_changes_nothing(
    booking: Callable[[Ledger], Any], ledger: Ledger, reserved: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.open_account("team", tokens=1000, window_s=60)
    ledger.open_account("run", parent="team", tokens=900)
    ledger.settle(reserved(ledger, "run", 200))
    ledger.release(reserved(ledger, "run", 100, key="gone"))
    reserved(ledger, "run", 100, key="lost", lease_s=10)
    clock.now += 120
    reserved(ledger, "run", 50, key="held", lease_s=3600)
    reserved(ledger, "run", 100, key="lost too", lease_s=10)
    clock.now += 11
    write = type(ledger._store).write

    def everything() -> Any:
        tables = ("accounts", "reservations", "spends", "top_ups")
        return ledger._store.read(
            lambda tx: [
                sorted(map(repr, map(tuple, tx.execute(f"SELECT * FROM {table}").fetchall())))  # noqa: S608
                for table in tables
            ]
        )

    before = everything()
    for at in range(50):
        with monkeypatch.context() as patch:
            patch.setattr(
                type(ledger._store), "write", lambda self, body, at=at: write(self, lambda tx: body(Failing(tx, at)))
            )
            ledger._paths.clear()
            try:
                booking(ledger)
            except StoreError:
                pass
            else:
                assert at > 1
                assert everything() != before
                break
        assert everything() == before, at
    else:
        pytest.fail("it never succeeded")
    assert [finding for finding in ledger.audit() if finding.kind == "wrong"] == []


def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    with TelemetryStore(tmp_path / "telemetry.db"):
        pass
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE accounts (id TEXT)")
        other.commit()
    (tmp_path / "text.db").write_text("not a database at all, and longer than the header of one" * 9)
    for name, said in (
        ("telemetry", "of another application"),
        ("other", "of another application"),
        ("text", "not a ledger"),
    ):
        file = tmp_path / f"{name}.db"
        before = file.read_bytes()
        with pytest.raises(StoreError, match=said):
            Ledger(file)
        assert file.read_bytes() == before
    with pytest.raises(StoreError, match="is a directory"):
        Ledger(tmp_path)
    Ledger(tmp_path / "new.db").close()
    with pytest.raises(StoreError, match="of another application"):
        TelemetryStore(tmp_path / "new.db")


def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_was(path: Path) -> None:
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(SQLITE_STEPS) + 1}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=rf"schema version {len(SQLITE_STEPS) + 1}.*Upgrade apportion"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_damaged_file_gives_an_error_or_a_finding_and_never_a_traceback(tmp_path: Path) -> None:
    good = tmp_path / "good.db"
    with Ledger(good) as ledger:
        ledger.open_account("team", tokens=10**6, window_s=3600)
        ledger.open_account("run", parent="team", cost_nusd=10**6)
        for number in range(100):
            held = ledger.reserve("run", tokens=10, cost_nusd=10, key=f"call-{number}")
            assert held.granted
            if number % 3:
                ledger.settle(held, tokens=number % 10)
    content = good.read_bytes()
    draw = random.Random(3)  # noqa: S311
    noticed = 0
    for number in range(120):
        file = tmp_path / f"damaged-{number}.db"
        damaged = bytearray(content)
        if number % 3 == 0:
            del damaged[draw.randrange(100, len(content)) :]
        else:
            for _ in range(1 + number % 40):
                damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        try:
            with Ledger(file) as ledger:
                findings = ledger.audit()
                with suppress(LedgerError):
                    ledger.reserve("run", tokens=10, cost_nusd=10)
                ledger.accounts()
                noticed += any(finding.kind == "wrong" for finding in findings)
        except StoreError:
            noticed += 1
        file.unlink()
    assert noticed > 60


def test_books_that_were_changed_by_hand_are_found(path: Path) -> None:
    changes = {
        "tokens_held = tokens_held + 1": "1 tokens are booked as held",
        "cost_spent = cost_spent + 1": "2 nano-dollars are booked as spent",
        "tokens_total = 7": "its limit of 7 tokens",
    }
    with Ledger(path) as ledger:
        ledger.open_account("run", tokens=100, window_s=60)
        ledger.spend("run", tokens=3, cost_nusd=1)
    for change, said in changes.items():
        with closing(sqlite3.connect(path)) as connection:
            before = connection.execute("SELECT tokens_held, cost_spent, tokens_total FROM accounts").fetchone()
            connection.execute(f"UPDATE accounts SET {change}")  # noqa: S608
            connection.commit()
        with Ledger(path) as ledger:
            findings = ledger.audit()
        assert {finding.kind for finding in findings} == {"wrong"}
        assert any(said in finding.text for finding in findings), findings
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE accounts SET tokens_held = ?, cost_spent = ?, tokens_total = ?", before)
            connection.commit()
    with Ledger(path) as ledger:
        assert ledger.audit() == []


def test_a_ledger_that_was_deleted_or_replaced_while_open_takes_no_bookings(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.open_account("run", tokens=100)
        path.rename(path.with_name("moved.db"))
        with pytest.raises(StoreError, match="deleted or replaced while it was open"):
            ledger.reserve("run", tokens=1)
        with Ledger(path) as other:
            other.open_account("run", tokens=100)
        with pytest.raises(StoreError, match="deleted or replaced while it was open"):
            ledger.reserve("run", tokens=1)


def test_a_closed_ledger_says_so(address: str) -> None:
    ledger = Ledger(address)
    ledger.open_account("run", tokens=1)
    ledger.close()
    ledger.close()
    with pytest.raises(StoreError, match="is closed"):
        ledger.reserve("run", tokens=1)


def test_postgresql_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match="needs the extra 'postgres'"):
        open_store("postgresql://localhost/x")


@pytest.mark.parametrize(
    "address", ["postgresql://u:secret-word@127.0.0.1:1/x", "postgresql://u:secret-word@h:port/?x=1"]
)
def test_a_password_is_never_shown(address: str) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(StoreError) as caught:
        Ledger(address, wait_s=0.1)
    error: BaseException | None = caught.value
    while error is not None:
        assert "secret-word" not in str(error)
        error = error.__cause__
    assert caught.value.hint


@pytest.mark.needs_postgres
def test_a_schema_of_somebody_else_or_of_a_newer_version_is_refused(new_database: Callable[[], str]) -> None:
    import psycopg

    address = new_database()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA apportion_ledger")
        with pytest.raises(StoreError, match="is not a ledger of apportion"):
            Ledger(address)
        connection.execute("DROP SCHEMA apportion_ledger")
        Ledger(address).close()
        connection.execute("UPDATE apportion_ledger.version SET steps = steps + 1")
        with pytest.raises(StoreError, match=rf"schema version {len(POSTGRES_STEPS) + 1}.*Upgrade apportion"):
            Ledger(address)


@pytest.mark.needs_postgres
def test_connections_that_the_server_ended_are_opened_anew(new_database: Callable[[], str], reserved: Any) -> None:
    import psycopg

    address = new_database()
    with Ledger(address) as ledger, psycopg.connect(address, autocommit=True) as connection:
        ledger.open_account("run", tokens=100)
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'apportion'"
        )
        reserved(ledger, "run", 1)
        assert ledger.account("run").tokens.held == 1


@pytest.mark.needs_postgres
def test_a_server_that_is_down_is_a_store_failure_like_any_other(
    new_database: Callable[[], str], postgres: Any, reserved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "PAUSE_S", 0.0)
    address = new_database()
    closed, opened = Ledger(address, wait_s=5), Ledger(address, wait_s=5, on_store_failure="open")
    closed.open_account("run", tokens=100)
    held = reserved(opened, "run", 10)
    postgres.stop()
    try:
        with pytest.raises(StoreError, match=r"cannot be used.*Check that the server runs"):
            closed.reserve("run", tokens=1)
        unknown = reserved(opened, "run", 20)
        assert "cannot be used" in (unknown.degraded or "")
        assert opened.settle(held, tokens=5).degraded
        assert opened.settle(unknown, tokens=15).degraded
        with pytest.raises(StoreError):
            Ledger(address, wait_s=1, on_store_failure="open")
    finally:
        postgres.start()
    assert opened.flush() == 2
    stands = closed.account("run").tokens
    assert (stands.spent, stands.held) == (20, 0)
    assert closed.audit() == []
    for one in (closed, opened):
        one.close()


@pytest.mark.needs_postgres
def test_a_lock_that_is_held_too_long_in_postgresql_is_an_error(new_database: Callable[[], str]) -> None:
    import psycopg

    address = new_database()
    with Ledger(address, wait_s=0.1) as ledger, psycopg.connect(address) as connection:
        ledger.open_account("run", tokens=100)
        connection.execute("SELECT 1 FROM apportion_ledger.accounts FOR UPDATE")
        with pytest.raises(StoreError, match="lock timeout"):
            ledger.reserve("run", tokens=1)
        connection.rollback()
        assert ledger.reserve("run", tokens=1).granted
