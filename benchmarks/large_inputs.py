"""How long large and hostile inputs take, one at a time: the time limits that tests leave to benchmarks.

    python benchmarks/large_inputs.py [--quick] [--json FILE]

Tests prove that work grows in proportion to the input; this shows how fast that is. Texts are made up from a fixed
seed. Times are processor time of this process, the best of several runs; starting the command line is wall time.
"""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from apportion import prices
from apportion.content import classify
from apportion.encodings import exact_count, load_encoding
from apportion.telemetry.importers import SkipLog, read_logs
from apportion.telemetry.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable

MEGABYTE = 1_000_000

HOSTILE = ("a@", "eyJ", "sk-", "://a:", "token='", "-----BEGIN PRIVATE KEY-----", "A" * 50 + "=")
"""Texts that would take a backtracking matcher of secrets quadratic time or worse."""

LOOK_UPS = 1000


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", quick="a tenth of the length, one run each; the marks are for the full length")
    scale, runs = (10, 1) if options.quick else (1, 3)
    load_encoding("o200k_base")
    rows: list[dict[str, Any]] = []
    marks: list[Mark] = []

    def measure(name: str, limit_ms: float, seconds: float) -> None:
        rows.append({"input": name, "ms": 1e3 * seconds, "limit ms": limit_ms})
        marks.append(Mark(name, 1e3 * seconds, "ms", f"<= {limit_ms:g}", 1e3 * seconds <= limit_ms))

    for name, text in _unbroken(scale).items():
        measure(f"count tokens: {name}", 2000, best(runs, partial(exact_count, text, "o200k_base")))
    hostile = [(piece * (MEGABYTE // scale // len(piece))).encode() for piece in HOSTILE]
    slowest = max(best(runs, partial(redact, text)) for text in hostile)
    measure("redact a hostile megabyte, the slowest", 5000, slowest)
    mixed = "A sentence of prose.\n\ndef code(x):\n    return x\n" * (MEGABYTE // scale // 50)
    measure("classify a megabyte", 20, best(runs, lambda: classify(mixed)))
    measure("read a line of 10 MB", 5000, best(runs, lambda: _read_long_line(10 * MEGABYTE // scale)))
    prices.lookup("claude-opus-4-6")
    look_ups = best(7, lambda: [prices.lookup("claude-opus-4-6") for _ in range(LOOK_UPS)])
    measure(f"look up a price {LOOK_UPS} times", 2, look_ups)
    measure("load the table of prices", 30, best(7, prices._table.__wrapped__))  # noqa: SLF001  (without its memo)
    measure("apportion --help", 5000, _start_up(runs))
    report("large_inputs", rows, marks, packages=("tiktoken",), file=options.json, notes=(options.cut,))


def best(runs: int, work: Callable[[], object]) -> float:
    """Return the processor seconds of the fastest run, which other load on the machine disturbs least."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def _unbroken(scale: int) -> dict[str, str]:
    """Return texts without a boundary at which a tokenizer would cut."""
    rng = random.Random(3)  # noqa: S311  (no secret)
    million = MEGABYTE // scale
    return {
        "10 MB of base64": base64.b64encode(rng.randbytes(7 * million + million // 2)).decode(),
        "1 MB of one letter": "a" * million,
        "1 MB of blanks": " " * million + "x",
        "100k emoji": "".join(chr(0x1F600 + rng.randrange(80)) for _ in range(million // 10)),
        "1M Chinese characters": "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(million)),
    }


def _read_long_line(size: int) -> None:
    event = {"workflow_id": "w", "source": "s", "framework": "f", "agent": "a", "agent_run": "a", "step": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log.jsonl")
        path.write_text(json.dumps(event | {"kind": "user", "content": "x" * size}) + "\n", encoding="utf-8")
        skipped = SkipLog()
        assert len(list(read_logs([path], skipped))) == 1, skipped.messages


def _start_up(runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "apportion", "--help"], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
