from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_benchmark_finds_budgets_that_hold_in_every_run(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "ledger.py"),
        "--quick",
        "--json",
        str(tmp_path / "result.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    rows = result["rows"]
    assert {"SQLite NORMAL", "SQLite FULL"} <= {row["store"] for row in rows}
    assert {row["run"] for row in rows} >= {"latency", "race, threads", "race, 4 processes"}
    assert [(row["oversubscribed"], row["leaked"], row["lost"]) for row in rows] == [(0, 0, 0)] * len(rows)
    held = [mark["holds"] for mark in result["marks"] if mark["name"].endswith("all runs")]
    assert held == [True] * 3
