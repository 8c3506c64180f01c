"""What all benchmarks share: arguments, the machine, percentiles, a table, and one JSON form.

    {"benchmark": NAME, "machine": {...}, "rows": [{...}], "marks": [{"name", "value", "unit", "mark", "holds"}]}

A mark that does not hold is shown as MISSED, and nothing fails because of it: a benchmark reports. `--json -` prints
the JSON instead of the table.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from glob import has_magic
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


STDOUT = Path("-")
"""The file that stands for standard output."""

MISSED = (
    "MISSED: the number to beat, in brackets, was not reached here. It is a target, and nothing fails because of it."
)


class Mark(NamedTuple):
    """A number to beat, and whether it was beaten."""

    name: str
    value: float
    unit: str
    mark: str
    holds: bool


class Timing(NamedTuple):
    """Times of repeated calls, in milliseconds: CPU of the whole process, and wall clock."""

    cpu_ms: list[float]
    wall_ms: list[float]

    def columns(self) -> dict[str, float]:
        """Return medians and 95 % quantiles as columns of a row."""
        return {
            "cpu_ms_p50": percentile(self.cpu_ms, 0.5),
            "cpu_ms_p95": percentile(self.cpu_ms, 0.95),
            "wall_ms_p50": percentile(self.wall_ms, 0.5),
            "wall_ms_p95": percentile(self.wall_ms, 0.95),
        }


def arguments(
    description: str,
    *,
    quick: str = "measure less",
    paths: bool = False,
    writes: str | None = None,
    corpus: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> argparse.Namespace:
    """Read `--quick`, `--json FILE` and, where asked for, PATHS, `--write` and `--corpus PATH` from the command line.

    `options` are further ones, each with what `add_argument` takes. A path that does not exist ends the program with a
    message. `quick` says what `--quick` cuts.
    """
    parser = argparse.ArgumentParser(
        description=description.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the result there as well; - prints it instead of the table"
    )
    if writes:
        parser.add_argument("--write", action="store_true", help=f"write {writes} anew")
    if paths:
        parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="log files or folders of them")
    if corpus:
        parser.add_argument("--corpus", type=Path, metavar="PATH", help="logs of which problems are made as well")
    for name, described in (options or {}).items():
        parser.add_argument(name, **described)
    asked = parser.parse_args()
    asked.cut = f"--quick: {quick}" if asked.quick else None
    missing = [str(path) for path in (asked.paths if paths else ()) if not (path.exists() or has_magic(str(path)))]
    if missing:
        parser.error(f"no such file or directory: {', '.join(missing)}")
    return asked


def time_calls(calls: Sequence[Callable[[], object]], *, repetitions: int = 1) -> Timing:
    """Time each call, `repetitions` times over; a first round that is not counted warms up."""
    timing = Timing([], [])
    for turn in range(repetitions + 1):
        for call in calls:
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            call()
            cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
            if turn:
                timing.cpu_ms.append(cpu / 1e6)
                timing.wall_ms.append(wall / 1e6)
    return timing


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def machine(*packages: str) -> dict[str, Any]:
    """Describe the machine and the versions that matter."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def report(
    benchmark: str,
    rows: Sequence[dict[str, Any]],
    marks: Sequence[Mark] = (),
    *,
    packages: Sequence[str] = (),
    file: Path | None = None,
    notes: Sequence[str | None] = (),
) -> None:
    """Print the machine, the rows as a table and the marks; write them all to a file where one is given.

    Args:
        benchmark: Its name.
        rows: What was measured; the first row names the columns.
        marks: Numbers to beat.
        packages: Packages whose versions matter.
        file: Where the JSON goes as well; `-` prints it instead of all the rest.
        notes: What a reader of the table must know, a line each; `None` is left out.
    """
    described = machine(*packages)
    result = {
        "benchmark": benchmark,
        "machine": described,
        "rows": list(rows),
        "marks": [mark._asdict() for mark in marks],
    }
    if file == STDOUT:
        print(json.dumps(result, indent=2))
        return
    print(f"{benchmark}: " + ", ".join(f"{key} {value}" for key, value in described.items()))
    print_table(rows)
    for mark in marks:
        print(f"{'holds ' if mark.holds else 'MISSED'}  {mark.name}: {_cell(mark.value)} {mark.unit} ({mark.mark})")
    legend = MISSED if any(not mark.holds for mark in marks) else None
    for note in (*notes, legend):
        if note is not None:
            print(note)
    if file is not None:
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print rows as an aligned table; the first row names the columns."""
    if not rows:
        return
    lines = [[str(name) for name in rows[0]], *[[_cell(value) for value in row.values()] for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return " ".join(f"{key}:{count}" for key, count in value.items())
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
