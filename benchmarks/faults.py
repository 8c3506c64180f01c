"""What comes of each fault, in a session and in the resident planner, and how long the answer takes.

    python benchmarks/faults.py [--quick] [--json FILE]

Each fault is injected into a real session, ledger or server, and the call that meets it is timed: `ms p50` and `ms p95`
are of wall clock, and the mark is 50 ms. `answer` is what comes: `valid` without any word, `degraded` with a reason,
`refused` by a decision, or the type of the error. `none` is the same call without a fault. Locked stores are locked by
another connection. A ledger that is locked is waited for (`wait_s`, 5 s by default): whoever reserves under a lock must
not go on without it. A store of originals is waited for 20 ms as in `apportion serve`, and contents are sent whole
then; results are ingested before they are asked for. `first call after kill -9` is asked in a session that was opened
anew, after its predecessor was killed with a call under way; what that one had said was booked is checked to be.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from _harness import Mark, arguments, percentile, report
from apportion.compression.cache.sqlite_level import SqliteLevel
from apportion.compression.pipeline import apply
from apportion.compression.similarity.gate import Gate
from apportion.compression.similarity.vectors import Vectors
from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.compression.strategies.extractive import Extractive
from apportion.compression.strategies.types import Item, Query
from apportion.embeddings import SentenceModel
from apportion.errors import ApportionError, StoreError
from apportion.planner.budgets import solver
from apportion.planner.ledger import Ledger
from apportion.planner.live import ContextItem
from apportion.planner.planner import PlanOptions, WorkflowPlanner
from apportion.planner.session import Planner
from apportion.planner.solver import plan_workflow
from apportion.planner.steps import Decision, Step
from apportion.records import Budget, Kind, Usage
from apportion.telemetry.queue import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from apportion.planner.session import Session

TIMES, QUICK_TIMES = 40, 5
SLOW_TIMES = 2
"""Repetitions of what waits for seconds; with `--quick` one."""

LIMIT_MS = 50.0
MODEL = "claude-sonnet-4-5"
USED = Usage(input_uncached=900, output=50)
QUICK_S = 0.02
ROOMY = Budget(max_tokens=50_000_000)
SMALL = Budget(max_tokens=4_000)


def text_of(seed: int) -> str:
    """A text that no lossless form makes shorter."""
    rng = random.Random(seed)  # noqa: S311  (no secret)
    return "\n".join(rng.randbytes(40).hex() for _ in range(60))


TASK = [ContextItem("Find the largest value."), ContextItem(text_of(0), Kind.TOOL_RESULT, "Read", "1")]
TABLE = [ContextItem("look"), ContextItem("line of a file\n" * 200, Kind.TOOL_RESULT, "Read", "1")]
PROSE = "\n\n".join(f"Paragraph {n} tells of the year {1800 + n} in the old town of Ulm." for n in range(80)).encode()


class Found(NamedTuple):
    """What came of a fault."""

    where: str
    fault: str
    answer: str
    reason: str
    ms: list[float]

    def row(self) -> dict[str, Any]:
        """One row of the table."""
        p50, p95 = percentile(self.ms, 0.5), percentile(self.ms, 0.95)
        return {
            "where": self.where,
            "fault": self.fault,
            "answer": self.answer,
            "ms p50": p50,
            "ms p95": p95,
            "within 50 ms": "yes" if p95 <= LIMIT_MS else "no",
            "times": len(self.ms),
            "reason": self.reason[:90],
        }


def answer_of(result: object) -> tuple[str, str]:
    """Say what kind of answer a result is, and its reason."""
    if isinstance(result, ApportionError):
        return type(result).__name__, result.message
    if isinstance(result, Exception):
        return f"UNTYPED {type(result).__name__}", str(result)
    if isinstance(result, Step):
        kind = "valid" if not result.reasons else "degraded" if result.runs else "refused"
        return kind, "; ".join(result.reasons)
    if isinstance(result, tuple) and (not result or isinstance(result[0], str)):
        result = "; ".join(result)
    if isinstance(result, tuple):  # an answer over HTTP: status and what was said
        status, told = result
        if not isinstance(told, dict):
            return f"HTTP {status}", str(told)[:100]
        reasons = told.get("reasons") or told.get("degraded") or []
        refused = told.get("decision") not in {None, Decision.RUN.value}
        kind = "refused" if refused else "degraded" if reasons else "valid"
        return (kind, "; ".join(reasons)) if status < 400 else (f"{status} {told['title']}", str(told["detail"]))
    return ("degraded", result) if isinstance(result, str) and result else ("valid", "")


def measured(where: str, fault: str, call: Callable[[int], object], times: int) -> Found:
    """Time a call that meets a fault; of its answers, the last one is shown, and any untyped error."""
    ms, kinds = [], []
    for turn in range(times):
        begun = time.perf_counter()
        try:
            result = call(turn)
        except Exception as error:  # noqa: BLE001  (this is what is measured)
            result = error
        ms.append((time.perf_counter() - begun) * 1e3)
        kinds.append(answer_of(result))
    kind, reason = next((one for one in kinds if one[0].startswith("UNTYPED")), kinds[-1])
    return Found(where, fault, kind, reason, ms)


def slow_of(times: int) -> int:
    """Return how often something is repeated that waits for seconds."""
    return 1 if times == QUICK_TIMES else SLOW_TIMES


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be another process that has been writing for a while."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Let something be otherwise for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def broken(*_: object, **__: object) -> Any:
    """Fail."""
    raise RuntimeError("injected")


class Embedder:
    """An embedder that makes what it is told to."""

    name = digest = "injected"
    ready = True

    def __init__(self, made: float | None) -> None:
        self.made = made

    def warm(self) -> None:
        """Be ready as it is."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return it, or fail."""
        if self.made is None:
            raise RuntimeError("injected")
        return np.full((len(texts), 4), self.made, np.float32)


def asks(session: Session, items: Sequence[ContextItem] = TASK, agent: str = "main") -> Callable[[int], Step]:
    """Return a call that asks, each time for another run."""
    return lambda turn: session.before(agent, items, model=MODEL, run_id=f"run {turn}")


# In this process.


def plain_faults(times: int) -> Iterator[Found]:
    """Faults of questions and of what is told; no store."""
    planner = Planner()
    planner.warm()
    with planner.session("w", budget=ROOMY) as session:
        for turn in range(3):
            asks(session)(-1 - turn)
        yield measured("session", "none", asks(session), times)
        yield measured("session", "unknown agent", lambda n: asks(session, agent=f"new {n}")(1_000 + n), times)
        stray = Step("nobody", "nobody", 10**6, Decision.RUN)
        yield measured("session", "usage without reservation", lambda _: session.after(stray, USED), times)
        step = asks(session)(5_000)
        session.after(step, USED)
        more = Usage(input_uncached=901, output=50)
        yield measured("session", "double settle, same amounts", lambda _: session.after(step, USED), times)
        yield measured("session", "double settle, other amounts", lambda _: session.after(step, more), times)
        bad = Usage.model_construct(input_uncached=-5, output=5)
        yield measured("session", "negative usage", lambda _: session.spend(bad, agent="main"), times)
        with patched(WorkflowPlanner, "before", broken):
            yield measured("session", "planner raises", lambda n: asks(session)(6_000 + n), times)
        yield measured("session", "checkpoint damaged", lambda _: planner.resume({"schema_name": "x"}), times)
    with Planner().session("small", budget=SMALL) as session, patched(WorkflowPlanner, "before", broken):
        session.spend(Usage(input_uncached=3_900), agent="main")
        yield measured("session", "planner raises, budget used up", asks(session), times)
    planner.close()


def clock_faults(times: int) -> Iterator[Found]:
    """Clocks that jump by a day, forth and back."""
    from datetime import UTC, datetime, timedelta

    now = [datetime(2026, 6, 1, tzinfo=UTC)]
    with Planner(clock=lambda: now[0]).session("w", budget=ROOMY) as session:
        asks(session)(-1)

        def jump(turn: int) -> Step:
            now[0] += timedelta(days=1 if turn % 3 else -2)
            return asks(session)(0)

        yield measured("session", "clock jumps", jump, times)


def solver_faults(times: int) -> Iterator[Found]:
    """Solvers without time or answer."""
    from apportion.planner.doors.mcp.service import SMALLEST_PROBLEM
    from apportion.planner.problem import Problem

    problem = Problem.parse(json.loads(SMALLEST_PROBLEM.removeprefix("The smallest: ").partition("; ")[0]))
    plan_workflow(problem, deadline_ms=0)
    yield measured(
        "planner", "solver deadline of 0 ms", lambda _: plan_workflow(problem, deadline_ms=0).degraded, times
    )
    nothing = solver.Answer("UNKNOWN", 0, None, "deterministic_time")
    with patched(solver, "solve_with_cp_sat", lambda *_: nothing):

        def fresh(turn: int) -> Step:
            with Planner(ahead=False).session(f"w{turn}", budget=ROOMY) as session:
                return asks(session)(0)

        yield measured("session", "solver gives nothing", fresh, times)


def connection_of(ledger: Ledger) -> sqlite3.Connection:
    """Return the connection of a ledger, to make its file read-only or full."""
    database: Any = ledger._store._database  # type: ignore[attr-defined]  # noqa: SLF001
    connection: sqlite3.Connection = database._connection  # noqa: SLF001
    return connection


def ledger_faults(place: Path, times: int) -> Iterator[Found]:
    """Ledgers that cannot be written."""
    for policy, wait_s, name in (
        ("closed", 0.02, "ledger locked, wait_s=0.02"),
        ("open", 0.02, "ledger locked, wait_s=0.02, open"),
        ("closed", 5.0, "ledger locked, default wait"),
    ):
        path = place / f"{policy}{wait_s}.db"
        ledger = Ledger(path, wait_s=wait_s, on_store_failure=policy)  # type: ignore[arg-type]
        with ledger, Planner(ledger=ledger).session("w", budget=ROOMY) as session:
            asks(session)(-1)
            with locked(path):
                yield measured("session", name, asks(session), times if wait_s < 1 else slow_of(times))
    for fault in ("read-only", "disk full"):
        path = place / f"{fault}.db"
        with Ledger(path) as ledger, Planner(ledger=ledger).session("w", budget=ROOMY) as session:
            asks(session)(-1)
            connection = connection_of(ledger)
            if fault == "read-only":
                connection.execute("PRAGMA query_only = ON")
            else:
                pages = connection.execute("PRAGMA page_count").fetchone()[0]
                connection.execute(f"PRAGMA max_page_count = {pages}")
                with suppress(StoreError):
                    for _ in range(10_000):
                        ledger.reserve("w", tokens=1)
            yield measured("session", f"ledger on a {fault} store", asks(session), times)
            connection.execute("PRAGMA query_only = OFF")
            connection.execute("PRAGMA max_page_count = 1000000")


def store_faults(place: Path, times: int) -> Iterator[Found]:
    """Stores of originals, of telemetry and of cached results that cannot be used."""
    path = place / "originals"
    with SqliteHandleStore(path, wait_s=QUICK_S) as store:
        planner = Planner(PlanOptions(select="recoverable_85"), store=store)
        with planner.session("w", budget=ROOMY) as session:

            def items_of(turn: int) -> list[ContextItem]:
                text = "".join(f"{turn}:00 INFO worker-{n % 7} finished job {n} in {n * 3} ms\n" for n in range(90))
                return [ContextItem("What of worker-3?"), ContextItem(text, Kind.TOOL_RESULT, "Bash", "1")]

            def cut(turn: int) -> Step:
                return session.before("main", items_of(turn), model=MODEL, run_id=f"run {turn}", expands=True)

            for turn in range(-1, times):
                session.ingest(items_of(turn)[1], model=MODEL)
            cut(-1)
            yield measured("session", "none, leaving parts out", cut, times)
            with locked(path):
                for turn in range(times):
                    session.ingest(items_of(1_000 + turn)[1], model=MODEL)
                yield measured("session", "originals locked", lambda n: cut(1_000 + n), times)
        planner.close()
    database = place / "telemetry.db"
    with (
        Telemetry.to_store(database) as telemetry,
        locked(database),
        Planner(telemetry=telemetry).session("w", budget=ROOMY) as session,
    ):
        yield measured("session", "telemetry locked", asks(session, TABLE), times)
    folder = place / "models"
    (folder / "v1").mkdir(parents=True)
    (folder / "current").write_text("v1")
    (folder / "v1" / "demand.skops").write_bytes(b"PK\3\4 nonsense")
    (folder / "v1" / "manifest.json").write_text("{")
    with Planner(PlanOptions(models=folder)).session("w", budget=ROOMY) as session:
        yield measured("session", "models damaged", asks(session), times)
    cache = place / "cache.db"
    cache.write_bytes(b"SQLite format 3\0" + bytes(5_000))
    level = SqliteLevel(cache)
    yield measured("cache", "file damaged", lambda _: level.get(b"key"), times)


def embedder_faults(times: int) -> Iterator[Found]:
    """Embedders that are missing, fail or give no numbers: cuts for good go back to the original."""
    empty = SentenceModel(folder=Path("/nowhere"))
    for name, gate in (
        ("embedder returns NaN", Gate(Vectors(Embedder(float("nan"))))),
        ("embedder raises", Gate(Vectors(Embedder(None)))),
        ("embedder missing", Gate(Vectors(empty), seconds=1.0)),
    ):
        strategy = Extractive(gate=gate)

        def cut(_turn: int, strategy: Extractive = strategy) -> str:
            outcome = apply(strategy, Item(PROSE), Query(task="What of 1807?"), target_tokens=100)
            assert outcome.content == PROSE
            return "; ".join(outcome.reasons)

        cut(0)
        yield measured("strategy", name, cut, times)


KILLED = """
import os, signal, sys
from pathlib import Path
from apportion.planner.ledger import Ledger
from apportion.planner.live import ContextItem
from apportion.planner.session import Planner
from apportion.records import Budget, Usage
session = Planner(ledger=Ledger(Path(sys.argv[1]))).session("w", budget=Budget(max_tokens=50_000_000))
for number in range(3):
    step = session.before("main", [ContextItem("look")], model="claude-sonnet-4-5", run_id=str(number))
    session.after(step, Usage(input_uncached=900, output=50))
    print(number, flush=True)
session.before("main", [ContextItem("look")], model="claude-sonnet-4-5")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_session(place: Path, times: int) -> Iterator[Found]:
    """Sessions whose predecessor was killed with a call under way: what it said was booked must be."""
    paths = [place / f"killed {turn}.db" for turn in range(2 if times == QUICK_TIMES else QUICK_TIMES)]
    for path in paths:
        done = subprocess.run(  # noqa: S603  (our own command)
            [sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert done.stdout.split() == ["0", "1", "2"]

    with ExitStack() as opened:
        sessions = []
        for path in paths:
            ledger = opened.enter_context(Ledger(path))
            assert ledger.account("w").tokens.spent == 3 * 950
            sessions.append(opened.enter_context(Planner(ledger=ledger).session("w", budget=ROOMY)))
        yield measured("session", "first call after kill -9", lambda turn: asks(sessions[turn])(0), len(paths))


# Over HTTP.


class Server:
    """A server of its own process."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "apportion", "serve", "--port", "0", "--no-embeddings"]
        command += ["--token-file", str(folder / "token"), "--ledger", str(folder / "ledger.db")]
        command += ["--store", str(folder / "originals")]
        self.process = opened.enter_context(
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=folder)  # noqa: S603  (our own command)
        )
        opened.callback(self.process.terminate)
        assert self.process.stderr is not None
        url = next(line.split()[-1] for line in self.process.stderr if "serving at" in line)
        self.place = url.removeprefix("http://")
        self.token = (folder / "token").read_text().strip()
        while self.ask("GET", "/health")[1]["status"] != "ok":
            time.sleep(0.1)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and answer; bytes go as they are."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        with closing(http.client.HTTPConnection(self.place, timeout=60)) as connection:
            connection.request(method, path, data, {"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            told = answer.read().decode()
            return answer.status, json.loads(told) if told.startswith("{") else told

    def raw(self, data: bytes) -> tuple[int, Any]:
        """Send bytes that are no HTTP, and return the status of what comes back; 0 where the server hangs up."""
        import socket

        host, _, port = self.place.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(data)
            line = connection.recv(4_096).split(b"\r\n")[0].split()
            return int(line[1]) if len(line) > 1 else 0, "refused by the server's parser"

    def session(self, workflow: str, **more: Any) -> str:
        """Open a session and return its path."""
        status, told = self.ask("POST", "/v1/sessions", {"workflow": workflow, "max_tokens": 50_000_000, **more})
        assert status == 201, told
        return f"/v1/sessions/{told['session_id']}"


def served_faults(place: Path, times: int) -> Iterator[Found]:
    """The same over HTTP, by a new connection for each question."""
    item = {"content": TASK[1].content, "kind": "tool_result", "name": "Read", "link": "1"}
    asked = {"agent": "main", "items": [{"content": "look"}, item], "model": MODEL}
    with ExitStack() as opened:
        server = Server(place, opened)
        path = server.session("w")

        def before(turn: int, **more: Any) -> tuple[int, Any]:
            return server.ask("POST", f"{path}/before", {**asked, "run_id": f"run {turn}", **more})

        for turn in range(5):
            before(-1 - turn)
        use = {"usage": {"input_uncached": 900, "output": 50}}
        yield measured("serve", "none", before, times)
        yield measured("serve", "unknown agent", lambda n: before(1_000 + n, agent=f"new {n}"), times)
        yield measured("serve", "unknown session", lambda _: server.ask("POST", "/v1/sessions/0/before", asked), times)
        post = server.ask
        stray = {"number": 10**6, **use}
        yield measured("serve", "usage without reservation", lambda _: post("POST", f"{path}/after", stray), times)
        number = before(5_000)[1]["number"]
        post("POST", f"{path}/after", {"number": number, **use})
        other = {"number": number, "usage": {"output": 1}}
        yield measured("serve", "double settle, other amounts", lambda _: post("POST", f"{path}/after", other), times)
        bad = {"number": number, "usage": {"output": -1}}
        yield measured("serve", "negative usage", lambda _: post("POST", f"{path}/after", bad), times)
        for name, body in (("body is no JSON", b"{"), ("body is NaN", b'{"a":NaN}'), ("deep body", b"[" * 100_000)):
            yield measured("serve", name, lambda _, body=body: post("POST", f"{path}/before", body), times)  # type: ignore[misc]
        yield measured("serve", "malformed HTTP", lambda _: server.raw(b"GE T /\x00 HTTP/9\r\n\r\n"), times)
        from apportion.planner.doors.mcp.service import SMALLEST_PROBLEM

        problem = json.loads(SMALLEST_PROBLEM.removeprefix("The smallest: ").partition("; ")[0])
        timeless = {"problem": problem, "deadline_ms": 0}
        post("POST", "/v1/plan", timeless)
        yield measured("serve", "solver deadline of 0 ms", lambda _: post("POST", "/v1/plan", timeless), times)
        saved = {"workflow": "w", "checkpoint": {"schema_name": "x"}}
        yield measured("serve", "checkpoint damaged", lambda _: post("POST", "/v1/sessions", saved), times)
        with locked(place / "originals"):
            yield measured("serve", "originals locked", lambda n: before(7_000 + n, expands=True), times)
        with locked(place / "ledger.db"):
            yield measured("serve", "ledger locked, default wait", lambda n: before(8_000 + n), slow_of(times))
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        again = Server(place, opened)

        paths = [again.session(f"w{turn}" if turn else "w") for turn in range(times)]
        first = measured(
            "serve", "first calls after kill -9", lambda n: again.ask("POST", f"{paths[n]}/before", asked), times
        )
        yield first


def main() -> None:
    """Inject, time, and report."""
    asked = arguments(__doc__ or "", quick=f"{QUICK_TIMES} times each")
    times = QUICK_TIMES if asked.quick else TIMES
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["XDG_DATA_HOME"] = str(place / "data")
        (place / "served").mkdir()
        for faults in (
            plain_faults(times), clock_faults(times), solver_faults(times), ledger_faults(place, times),
            store_faults(place, times), embedder_faults(times), killed_session(place, times),
            served_faults(place / "served", times),
        ):  # fmt: skip
            found.extend(faults)
    rows = [one.row() for one in found]
    untyped = sum(one.answer.startswith(("UNTYPED", "500")) for one in found)
    slow = [row for row in rows if row["within 50 ms"] == "no" and not row["fault"].startswith("none")]
    marks = [
        Mark("answers that are neither valid, degraded nor typed", untyped, "faults", "0", untyped == 0),
        Mark("answers that take longer than 50 ms at p95", len(slow), "faults", "0", not slow),
    ]
    late = "; ".join(f"{row['where']}: {row['fault']}" for row in slow)
    report(
        "faults", rows, marks, packages=("numpy", "ortools"), file=asked.json,
        notes=(asked.cut, f"longer than 50 ms: {late}" if late else None),
    )  # fmt: skip


if __name__ == "__main__":
    main()
