"""How long a booking takes, and whether budgets hold with many planners, in threads, in processes and under kill -9.

    python benchmarks/ledger.py [--quick] [--json FILE]

A booking is a reservation and its settlement, on an account two levels deep with limits in tokens and dollars. SQLite
runs with a write-ahead log: NORMAL (the default) outlives every end of a process, FULL outlives a power cut as well
and waits for the disk. PostgreSQL is a server of its own on a Unix socket, with the settings it comes with: it waits
for the disk too. Without its programs, or without psycopg, its rows are missing.

"race": planners ask at once for 4,000 of a shared 100,000 tokens; 25 fit. Half of those settle, the others vanish, and
their leases must come back. "kill -9": a process that books without a pause is killed; what it said was booked must be.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import Mark, arguments, percentile, report
from _postgres import NoServerError, private_server
from apportion.planner.ledger import Ledger
from apportion.planner.ledger.records import LEASE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOTAL, ASKED, FITS = 100_000, 4_000, 25
WORKERS = 4
WARM_UP = 20
WAIT_S = 120.0


class Place(NamedTuple):
    """A store to measure."""

    name: str
    new_address: Callable[[], str]
    power_safe: bool = False

    def open(self, address: str, **more: Any) -> Ledger:
        """Open a ledger in it."""
        return Ledger(address, wait_s=WAIT_S, power_safe=self.power_safe, **more)


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", quick="few bookings, few planners and five kills")
    quick = options.quick
    notes = [options.cut]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        numbers = count()
        sqlite = Place("SQLite NORMAL", lambda: str(folder / f"{next(numbers)}.db"))
        places = [sqlite, Place("SQLite FULL", sqlite.new_address, power_safe=True)]
        try:
            places.append(_open_postgres(stack))
        except NoServerError as error:
            notes.append(f"PostgreSQL was not measured: {error}")
        rows = [row for place in places for row in measure(place, quick=quick)]
    alone = rows[0]["p50 ms"]
    marks = [Mark("a booking, one thread, SQLite NORMAL", alone, "ms p50", "< 0.5", alone < 0.5)]
    for name in ("oversubscribed", "leaked", "lost"):
        bad = sum(row[name] for row in rows)
        unit = "bookings" if name == "lost" else "tokens"
        marks.append(Mark(f"{name}, all runs", bad, unit, "0", bad == 0))
    report("ledger", rows, marks, file=options.json, notes=notes)


def _open_postgres(stack: ExitStack) -> Place:
    if importlib.util.find_spec("psycopg") is None:
        raise NoServerError("psycopg is not installed")
    server = stack.enter_context(private_server("max_connections=60"))

    def renew() -> str:
        import psycopg

        with psycopg.connect(server.address, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            connection.execute("DROP SCHEMA IF EXISTS apportion_ledger CASCADE")
        return server.address

    return Place("PostgreSQL", renew)


def measure(place: Place, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of one store."""
    for threads in (1, 8) if quick else (1, 8, 50):
        bookings = 40 if quick else 2000 if place.name == "SQLite NORMAL" else 400  # the others wait for the disk
        yield latency(place, threads=threads, bookings=bookings // threads)
    if place.power_safe:
        return
    for planners in (50,) if quick else (50, 200, 1000):
        yield race(place, planners, processes=1)
        yield race(place, planners, processes=WORKERS)
    yield kills(place, 5 if quick else 200)


def _row(place: Place, run: str, planners: int, times: list[float], seconds: float, **found: int) -> dict[str, Any]:
    return {
        "store": place.name,
        "run": run,
        "planners": planners,
        "bookings": len(times),
        "p50 ms": percentile(times, 0.5),
        "p95 ms": percentile(times, 0.95),
        "per s": len(times) / seconds,
        "oversubscribed": 0,
        "leaked": 0,
        "lost": 0,
    } | found


def latency(place: Place, *, threads: int, bookings: int) -> dict[str, Any]:
    """Time bookings that threads of one process make at once."""
    with place.open(place.new_address()) as ledger:
        ledger.open_account("team", tokens=2**50, cost_nusd=2**50)
        ledger.open_account("run", parent="team", tokens=2**50)

        def book(number: int) -> list[float]:
            times = []
            for _ in range(WARM_UP if number < 0 else bookings):
                began = time.perf_counter_ns()
                made = ledger.reserve("run", tokens=1000, cost_nusd=1000)
                assert made.granted
                ledger.settle(made, tokens=900, cost_nusd=800)
                times.append((time.perf_counter_ns() - began) / 1e6)
            return times

        book(-1)  # warms up
        began = time.perf_counter()
        times = [one for each in at_once(threads, book) for one in each]
        seconds = time.perf_counter() - began
        stands = ledger.account("team")
        lost = (len(times) + WARM_UP) * 900 - stands.tokens.spent
        return _row(place, "latency", threads, times, seconds, leaked=stands.tokens.held, lost=lost)


def at_once(threads: int, work: Callable[[int], Any]) -> list[Any]:
    """Let threads begin together, and return what each of them returned."""
    barrier = threading.Barrier(threads)

    def begin(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


def race(place: Place, planners: int, *, processes: int) -> dict[str, Any]:
    """Let planners ask at once for more than there is."""
    address = place.new_address()
    with place.open(address) as ledger:
        ledger.open_account("team", tokens=TOTAL)
        ledger.open_account("run", parent="team")
    began = time.perf_counter()
    if processes == 1:
        found = [ask(address, planners)]
    else:
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes) as pool:
            began = time.perf_counter()  # the processes run by now, more or less
            shares = [(address, len(range(start, planners, processes))) for start in range(processes)]
            found = pool.starmap(ask, shares)
    seconds = time.perf_counter() - began
    admitted = sum(one for one, _ in found)
    times = [each for _, times in found for each in times]
    oversubscribed, lost = max(0, admitted - FITS) * ASKED, max(0, FITS - admitted)
    name = "race, threads" if processes == 1 else f"race, {processes} processes"
    return _row(
        place, name, planners, times, seconds, oversubscribed=oversubscribed, lost=lost, leaked=leaked(place, address)
    )


def ask(address: str, planners: int) -> tuple[int, list[float]]:
    """Let threads of one process ask; return how many were admitted, and the times of all."""

    def one(_: int) -> tuple[Any, float]:
        began = time.perf_counter_ns()
        made = ledger.reserve("run", tokens=ASKED)
        return made, (time.perf_counter_ns() - began) / 1e6

    with Ledger(address, wait_s=WAIT_S) as ledger:
        found = at_once(planners, one)
        for number, (made, _) in enumerate(found):
            if made.granted and number % 2:
                ledger.settle(made)
    return sum(made.granted for made, _ in found), [each for _, each in found]


def leaked(place: Place, address: str) -> int:
    """Return the tokens that are still held when all leases have ended, or that the books cannot account for."""
    with place.open(address, clock=lambda: time.time() + LEASE_S + 1) as later:
        made = later.reserve("run", tokens=0)  # takes back what has ended
        if made.granted:
            later.release(made)
        wrong = [finding for finding in later.audit() if finding.kind != "overdrawn"]
        return later.account("team").tokens.held + len(wrong)


def kills(place: Place, times: int) -> dict[str, Any]:
    """Kill processes that book, and count what they said was booked and is not."""
    address = place.new_address()
    draw = random.Random(11)  # noqa: S311  (nothing secret)
    with place.open(address) as ledger:
        ledger.open_account("team", tokens=2**50)
        ledger.open_account("run", parent="team")
    lost, waits, began = 0, [], time.perf_counter()
    for number in range(times):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            _book_until_killed(place, address, f"{number}", write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.readline()  # it books
            time.sleep(draw.random() * 0.01)
            os.kill(child, signal.SIGKILL)
            said += pipe.read()
        os.waitpid(child, 0)
        settled = [line.split() for line in said.decode().splitlines(keepends=True) if line.endswith("\n")]
        with place.open(address) as ledger:
            asked = time.perf_counter()
            lost += sum(ledger.reservation(key).used_tokens != int(tokens) for key, tokens in settled)
            waits += [(time.perf_counter() - asked) * 1000 / max(1, len(settled))] * len(settled)
    seconds = time.perf_counter() - began
    return _row(place, "kill -9 (times of reading)", times, waits, seconds, lost=lost, leaked=leaked(place, address))


def _book_until_killed(place: Place, address: str, name: str, pipe: int) -> None:
    try:
        ledger = place.open(address)
        for number in count():
            made = ledger.reserve("run", tokens=100, key=f"{name}-{number}")
            ledger.settle(made, tokens=number % 100)  # type: ignore[arg-type]
            os.write(pipe, f"{name}-{number} {number % 100}\n".encode())
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
