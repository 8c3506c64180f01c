from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


class FakeClock:
    """Tells the time that a test sets, in seconds since 1970."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server of our own; tests that need it are skipped where it cannot run."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    module = postgres_module()
    server = module.private_server("fsync=off", "max_connections=60")
    try:
        running = server.__enter__()
    except module.NoServerError as error:
        pytest.skip(str(error))
    try:
        yield running
    finally:
        server.__exit__(None, None, None)


def postgres_module() -> Any:
    if "_postgres" not in sys.modules:
        spec = importlib.util.spec_from_file_location("_postgres", BENCHMARKS / "_postgres.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["_postgres"] = module
        spec.loader.exec_module(module)
    return sys.modules["_postgres"]


@pytest.fixture
def new_database(postgres: Any) -> Callable[[], str]:
    """Remove the ledger of the server, and return its address."""

    def renew() -> str:
        import psycopg

        with psycopg.connect(postgres.address, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("DROP SCHEMA IF EXISTS apportion_ledger CASCADE")
        return str(postgres.address)

    return renew


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs_postgres)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty ledger, in each kind of store."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    renew: Callable[[], str] = request.getfixturevalue("new_database")
    return renew()


@pytest.fixture
def ledger(address: str, clock: FakeClock) -> Iterator[Ledger]:
    with Ledger(address, clock=clock) as opened:
        yield opened


@pytest.fixture
def reserved() -> Callable[..., Any]:
    """Reserve, and insist that it is granted."""

    def reserve(ledger: Ledger, account: str, tokens: int | None = None, **more: Any) -> Any:
        made = ledger.reserve(account, tokens=tokens, **more)
        assert made.granted, made
        return made

    return reserve
