"""Measure the cache: many threads at once, and how often a replayed workflow finds what it needs.

    python benchmarks/cache.py [PATHS...] [--quick] [--json FILE]

`threads` rows let 8 threads do 100,000 operations each on one cache: reads, writes, computations, removals. Every value
is checked against the one that belongs to its key, and the limits are read all the while. `replay` rows send the logged
tool results (of PATHS, or of generated logs) through a cached lossless strategy as prompts hold them: each call sends
its history again, so most of it is known even in the first replay, which begins with nothing. The repeated replay
begins with an empty memory and the cache file of the first.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Mark, report
from apportion.compression.cache import Cache, CacheCounts, CachedStrategy
from apportion.compression.cache.memory import ENTRY_BYTES
from apportion.compression.cache.sqlite_level import SqliteLevel
from apportion.compression.pipeline import Lossless
from apportion.compression.strategies.types import Item, Query
from apportion.records import Kind
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

THREADS = 8
KEYS = 2_000
MAX_ENTRIES = 500
MAX_CONTENT = 20_000
"""Bytes of the longest tool result that is sent: the cache is measured, not the strategy."""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="log files or folders of them")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the operations, three workflows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    options = parser.parse_args()
    operations = 5_000 if options.quick else 100_000
    rows: list[dict[str, Any]] = [hammer(operations, with_file=False)]
    rows.append(hammer(operations // 50, with_file=True))
    workflows = list(logged(options.paths, 3 if options.quick else 40)) or [generated(seed) for seed in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "cache")
        replays = [replay("first replay", workflows, file), replay("repeated replay", workflows, file)]
    errors = sum(row["exceptions"] for row in rows)
    wrong = sum(row["wrong"] for row in rows)
    above = sum(row["above"] for row in rows)
    ratio = replays[1]["hits %"]
    marks = [
        Mark("exceptions, 8 threads", errors, "", "0", errors == 0),
        Mark("wrong values", wrong, "", "0", wrong == 0),
        Mark("times above a limit", above, "", "0", above == 0),
        Mark("hit rate, repeated replay", ratio, "%", "> 75", ratio > 75),
    ]
    report("cache", [*rows, *replays], marks, file=options.json)


def value_of(number: int) -> bytes:
    """Return the one value that belongs to a key."""
    return b"%d|" % number * (1 + number % 40)


def hammer(operations: int, *, with_file: bool) -> dict[str, Any]:
    """Let threads use one cache at once, and count what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        second = SqliteLevel(Path(folder, "cache"), max_bytes=100_000) if with_file else None
        max_bytes = MAX_ENTRIES * (ENTRY_BYTES + 40)
        cache = Cache(max_bytes=max_bytes, max_entries=MAX_ENTRIES, ttl_s=0.5, second=second)
        wrong: list[int] = []
        raised: list[Exception] = []
        above: list[int] = []
        done = threading.Event()

        def work(seed: int) -> None:
            number = seed
            for turn in range(operations):
                number = (number * 1_103_515_245 + 12_345) % 2**31
                chosen = (number >> 8) % KEYS
                key = b"%d" % chosen
                found: bytes | None = None
                try:
                    if turn % 4 == 0:
                        found = cache.get(key)
                    elif turn % 17 == 0:
                        cache.put(key, value_of(chosen))
                    elif turn % 101 == 0:
                        cache.discard(key)
                    else:
                        found = cache.get_or_compute(key, lambda chosen=chosen: value_of(chosen))  # type: ignore[misc]
                    if found is not None and found != value_of(chosen):
                        wrong.append(chosen)
                except Exception as error:  # noqa: BLE001  (that is what is counted)
                    raised.append(error)

        def watch() -> None:
            while not done.wait(0.001):
                if (size := cache.size) > max_bytes or len(cache) > MAX_ENTRIES:
                    above.append(size)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
        watching = threading.Thread(target=watch)
        start = time.perf_counter()
        watching.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        done.set()
        watching.join()
        counts = cache.counts()
        cache.close()
    what = "threads, second level in a file" if with_file else "threads"
    return _row(what, counts, seconds) | {
        "operations": THREADS * operations,
        "exceptions": len(raised) + counts.failures,
        "wrong": len(wrong) + counts.damaged,
        "above": len(above),
    }


def replay(what: str, workflows: Iterable[list[bytes]], file: Path) -> dict[str, Any]:
    """Send the histories of workflows through a cached strategy, with a cache of its own over a file."""
    cache = Cache(second=SqliteLevel(file))
    strategy = CachedStrategy(Lossless(), cache, tenant_salt=b"benchmark")
    wrong = operations = 0
    start = time.perf_counter()
    for results in workflows:
        for calls in range(1, len(results) + 1):
            for content in results[:calls]:
                operations += 1
                wrong += strategy.execute(Item(content), None, Query()).original != content
    seconds = time.perf_counter() - start
    counts = cache.counts()
    cache.close()
    return _row(what, counts, seconds) | {
        "operations": operations,
        "exceptions": counts.failures,
        "wrong": wrong,
        "above": 0,
    }


def logged(paths: Iterable[Path], limit: int) -> Iterator[list[bytes]]:
    """Yield the tool results of workflows, in their order; the first 60 of each."""
    given = list(paths)
    for log in islice(read_logs(given, SkipLog()), limit) if given else ():
        results = [
            event.content.encode("utf-8", "surrogatepass")[:MAX_CONTENT]
            for event in log.events
            if event.kind is Kind.TOOL_RESULT and event.content
        ]
        if results:
            yield results[:60]


def generated(seed: int) -> list[bytes]:
    """Return tool results that a workflow might have: rows of JSON, a third of them read twice."""
    kinds = [
        json.dumps([{"id": seed * 1000 + n, "name": f"row {n}", "size": n * turn} for n in range(20)]).encode()
        for turn in range(12)
    ]
    return [kinds[turn * 2 // 3] for turn in range(18)]


def _row(what: str, counts: CacheCounts, seconds: float) -> dict[str, Any]:
    return {
        "what": what,
        "operations": 0,
        "seconds": seconds,
        "hits %": 100 * (counts.hit_ratio or 0.0),
        "memory hits": counts.hits,
        "file hits": counts.second_hits,
        "waited": counts.waited,
        "misses": counts.misses,
        "evictions": counts.evictions,
        "expired": counts.expired,
        "exceptions": 0,
        "wrong": 0,
        "above": 0,
    }


if __name__ == "__main__":
    sys.setswitchinterval(1e-5)  # threads take turns often: what can go wrong between two steps does
    main()
