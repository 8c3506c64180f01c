"""How long a session waits for telemetry, what is lost where it comes too fast, and which bit flips the doctor finds.

    python benchmarks/telemetry.py [--quick] [--count NUMBER] [--json FILE]

An event of a call is recorded again and again, written to a real telemetry store by the writer's thread: with pauses of
a millisecond, in a burst that fits the queue, and as fast as 1 and 4 threads can. Times are wall clock of the caller in
microseconds, pauses not counted; "nothing" calls an empty function in place of `record`. Every event is accounted for:
written, or counted as lost.

Then single bits are flipped at random positions of a store, a store of originals, a cache and models, without a new
time of change, as disks do it; each flip is taken back before the next one. "sealed" is what the seals of the doctor
find; "read" is what the files' own checks find without seals, tried on the first flips.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, percentile, report
from apportion.compression.cache.memory import CacheCounts
from apportion.compression.cache.sqlite_level import SqliteLevel
from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.models.next_agent import NextAgentModel
from apportion.models.persistence import save_models
from apportion.models.trails import Step
from apportion.models.training import TrainingData
from apportion.planner.doctor import Doctor, State
from apportion.records import Kind
from apportion.seals import Verdict
from apportion.settings import Settings, TelemetrySettings
from apportion.telemetry.events import Event, WorkflowLog
from apportion.telemetry.queue import Telemetry
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS, QUICK_EVENTS = 20_000, 1_000
FLIPS, QUICK_FLIPS = 10_000, 300
READ, QUICK_READ = 500, 2
CALL: dict[str, object] = {
    "kind": "usage",
    "workflow": "release notes",
    "agent": "writer",
    "run_id": "writer-1",
    "stage": 3,
    "number": 17,
    "model": "claude-sonnet-4-5",
    "allocated_tokens": 40_000,
    "input_tokens": 31_000,
    "cache_read_tokens": 28_000,
    "output_tokens": 900,
    "saved_tokens": 4_000,
    "cost_usd": 0.04,
}


def waits(take: Callable[[dict[str, object]], object], events: int, pause_s: float) -> list[float]:
    """Record events, and return how long the caller waited for each, in microseconds."""
    times = []
    for _ in range(events):
        began = time.perf_counter_ns()
        take(CALL)
        times.append((time.perf_counter_ns() - began) / 1e3)
        if pause_s:
            time.sleep(pause_s)
    return times


def queue_row(name: str, folder: Path, events: int, *, threads: int = 1, pause_s: float = 0.0) -> dict[str, Any]:
    """Record from some threads at once, and say how long they waited and what was lost."""
    times: list[float] = []
    with Telemetry.to_store(folder / f"{name}.db") as telemetry:
        telemetry.record(CALL)  # starts the writer
        telemetry.flush()
        workers = [
            threading.Thread(target=lambda: times.extend(waits(telemetry.record, events // threads, pause_s)))
            for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        telemetry.flush(60)
        counts = telemetry.counts
    return {
        "case": name,
        "events": len(times),
        "us p50": percentile(times, 0.5),
        "us p99": percentile(times, 0.99),
        "us max": max(times),
        "written": counts.written - 1,
        "dropped": counts.dropped,
        "unaccounted": len(times) + 1 - counts.written - counts.dropped,
    }


def idle_row(events: int) -> dict[str, Any]:
    """Do nothing with each event, with the same pauses: what the machine and the timer cost by themselves."""
    times = waits(lambda _event: None, events, 0.001)
    figures = {"us p50": percentile(times, 0.5), "us p99": percentile(times, 0.99), "us max": max(times)}
    return {"case": "nothing, paced", "events": events, **figures, "written": 0, "dropped": 0, "unaccounted": 0}


def fill(folder: Path) -> Settings:
    """Make a store, originals, a cache and models."""
    settings = Settings(telemetry=TelemetrySettings(store_path=folder / "a.db"))
    rng = random.Random(5)  # noqa: S311  (no secret)
    with TelemetryStore(settings.telemetry.database) as store:
        for number in range(20):
            events = tuple(
                Event(step=step, agent="main", agent_run="main", kind=Kind.USER, content=f"{rng.random()}")
                for step in range(20)
            )
            store.add(WorkflowLog(id=f"w{number}", source="tests", framework="none", events=events))
    with Telemetry.to_store(settings.telemetry.database) as telemetry:
        for _ in range(200):
            telemetry.record(CALL)
    with SqliteHandleStore(folder / "a.db.originals") as originals:
        for number in range(100):
            originals.put("\n".join(f"{number} {rng.random()}" for _ in range(50)).encode())
    level = SqliteLevel(folder / "a.db.cache")
    for number in range(200):
        level.put(b"key %d" % number, rng.randbytes(300), None)
    level.close(CacheCounts())
    steps = [Step(f"w{number}", "tests", None, (), "do it", "plan") for number in range(50)]
    data = TrainingData(fingerprint="ab" * 32, workflows=50, without_content=0, sources={"tests": 50})
    save_models(
        settings.telemetry.models_folder,
        {"next_agent": NextAgentModel().fit_steps(steps)},
        data,
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    return settings


def flip(path: Path, bit: int) -> None:
    """Flip a bit without a new time of change."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip_rows(folder: Path, flips: int, read: int) -> list[dict[str, Any]]:
    """Flip bits one after the other, and count by part which are found by seals, and which without them."""
    settings = fill(folder)
    doctor = Doctor(settings)
    if any(finding.state is State.BROKEN for finding in doctor.examine()):
        raise SystemExit("the files are broken before anything was flipped")
    files = [path for path in doctor.files() if path.name != "ledger.db"]
    sizes = [path.stat().st_size for path in files]
    rng = random.Random(6)  # noqa: S311  (no secret)
    rows: dict[str, dict[str, Any]] = {}
    for number in range(flips):
        (path,) = rng.choices(files, sizes)
        row = rows.setdefault(_part(path), {"part": _part(path), "flips": 0, "sealed": 0, "tried": 0, "read": 0})
        bit = rng.randrange(path.stat().st_size * 8)
        whole = path.read_bytes()
        times = path.stat()
        flip(path, bit)
        row["flips"] += 1
        row["sealed"] += doctor.seals.verdict(path) is Verdict.DAMAGED
        if number < read:
            row["tried"] += 1
            row["read"] += _found_by_reading(settings)
        for left in (f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(left).unlink(missing_ok=True)
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return list(rows.values())


def _part(path: Path) -> str:
    return {"a.db": "store", "a.db.key": "key", "a.db.originals": "originals", "a.db.cache": "cache"}.get(
        path.name, "models"
    )


def _found_by_reading(settings: Settings) -> bool:
    """Whether the files' own checks find something, as if there were no seals."""
    seals = Doctor(settings).seals.path
    kept = seals.read_bytes()
    seals.unlink()
    try:
        return any(finding.state is State.BROKEN for finding in Doctor(settings).examine(("store", *_PARTS)))
    finally:
        seals.write_bytes(kept)


_PARTS = ("originals", "cache", "models")


def main() -> None:
    """Measure and report."""
    asked = arguments(
        __doc__ or "",
        quick=f"{QUICK_EVENTS:,} events, {QUICK_FLIPS} flips",
        options={"--count": {"type": int, "metavar": "NUMBER", "help": f"bits to flip, instead of {FLIPS:,}"}},
    )
    events = QUICK_EVENTS if asked.quick else EVENTS
    flips = asked.count or (QUICK_FLIPS if asked.quick else FLIPS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        rows = [
            idle_row(events // 10),
            queue_row("paced", folder, events // 10, pause_s=0.001),
            queue_row("burst", folder, min(events, 2_000)),
            queue_row("flood", folder, events),
            queue_row("flood, 4 threads", folder, events, threads=4),
        ]
        (folder / "kept").mkdir()
        found = flip_rows(folder / "kept", flips, min(flips, QUICK_READ if asked.quick else READ))
    worst = max(row["us p99"] for row in rows)
    lost = sum(abs(row["unaccounted"]) for row in rows)
    sealed = sum(row["sealed"] for row in found) / sum(row["flips"] for row in found)
    marks = [
        Mark("enqueue p99, worst case", worst, "us", "at most 20", worst <= 20),
        Mark("events neither written nor counted", lost, "events", "0", lost == 0),
        Mark("flipped bits that the doctor finds", sealed * 100, "%", "100", sealed == 1),
    ]
    notes = [
        "flips: "
        + "; ".join(
            f"{row['part']} {row['sealed']}/{row['flips']} sealed, {row['read']}/{row['tried']} read" for row in found
        ),
        asked.cut,
    ]
    report("telemetry", rows, marks, file=asked.json, notes=notes)


if __name__ == "__main__":
    main()
