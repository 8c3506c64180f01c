"""Measure how fast facts and quotable windows are found in logged text, and whether damage to a fact is noticed.

    python benchmarks/facts_speed.py PATHS... [--quick] [--json FILE]

PATHS are logs that any importer reads. `facts` rows read each distinct tool result of a framework once; `evidence` rows
build the evidence of the largest workflows, one prompt piece per event and one output per model call, and show the
peak of the memory allocated meanwhile. Damage changes one letter or digit of a fact, wherever a real tool result has
it; it is noticed where the fact is no longer among the facts of the text. Speed is judged on a megabyte or more only.
"""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import defaultdict
from heapq import nlargest
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import Mark, arguments, report
from apportion.compression.validation.facts import extract_facts
from apportion.planner.replay.evidence import Evidence, quotable
from apportion.records import Kind
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.telemetry.events import WorkflowLog

REPEATED = ("1", "12-", "12/", "a.", "a/", "/a", "aA", "a1+", "'", '"', "\\", '\\"', "a@", "a.b@c.", "Error: ",
            "1,234,", "0123abcd-", "https://", "2024-01-01T", "→12")  # fmt: skip
"""Texts that would take a backtracking matcher quadratic time or worse."""

MAX_DAMAGED = 20_000
"""Characters of the longest text that is damaged."""


class Texts(NamedTuple):
    """What a workflow may hold in a prompt, and what its calls wrote."""

    pieces: list[str]
    outputs: list[str]

    @property
    def characters(self) -> int:
        """Length of all pieces together."""
        return sum(map(len, self.pieces))


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", paths=True, quick="a fifth of the text, one workflow, a tenth of the damage")
    results: dict[str, dict[str, None]] = defaultdict(dict)
    workflows: list[Texts] = []
    for log in read_logs(options.paths, SkipLog()):
        results[log.framework].update(
            (event.content, None) for event in log.events if event.kind is Kind.TOOL_RESULT and event.content
        )
        workflows = nlargest(1 if options.quick else 3, [*workflows, texts_of(log)], key=lambda texts: texts.characters)
    extract_facts("compile the pattern")
    limit = 2_000_000 if options.quick else 10_000_000
    rows = [measure_facts(name, sample(list(texts), limit)) for name, texts in sorted(results.items()) if texts]
    evidence = [measure_evidence(texts) for texts in workflows]
    everything = [text for texts in results.values() for text in texts if len(text) < MAX_DAMAGED]
    noticed = noticed_damage(everything, 200 if options.quick else 2000)
    peak = max(row["peak_mb"] for row in evidence)
    ratio = max(map(growth, REPEATED))
    marks = [
        *_speed_marks("facts, slowest framework", rows, 8.0),
        *_speed_marks("evidence, slowest workflow", evidence, 5.0),  # 15 MB in 3 s
        Mark("evidence, peak memory", peak, "MB", "< 300", peak < 300),
        Mark("damage noticed", noticed, "share", ">= 0.995", noticed >= 0.995),
        Mark("time for ten times the text, worst case", ratio, "times", "<= 20", ratio <= 20),
    ]
    packages = ("google-re2", "numpy")
    report("facts_speed", [*rows, *evidence], marks, packages=packages, file=options.json, notes=(options.cut,))


def texts_of(log: WorkflowLog) -> Texts:
    """Return the texts of a workflow: a piece per event, an output per call."""
    outputs: dict[tuple[str, int], list[str]] = defaultdict(list)
    for event in log.events:
        if event.call is not None:
            outputs[event.agent_run, event.call].append(quotable(event.kind, event.content))
    return Texts([event.content for event in log.events], ["\n\0\n".join(written) for written in outputs.values()])


def sample(texts: list[str], limit: int) -> list[str]:
    """Choose texts at random, up to a number of characters, the same ones each time."""
    random.Random(0).shuffle(texts)  # noqa: S311  (reproducible, no secret)
    chosen: list[str] = []
    total = 0
    for text in texts:
        total += len(text)
        if chosen and total > limit:
            break
        chosen.append(text)
    return chosen


def measure_facts(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Time the extraction of facts from each text."""
    start = time.process_time()
    facts = sum(len(extract_facts(text)) for text in texts)
    return _row(f"facts {name}", len(texts), sum(map(len, texts)), time.process_time() - start, facts)


def measure_evidence(texts: Texts) -> dict[str, Any]:
    """Time the evidence of a workflow, then build it again under the memory tracer, which is slow."""
    start = time.process_time()
    evidence = Evidence.build(*texts)
    seconds = time.process_time() - start
    tracemalloc.start()
    Evidence.build(*texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    row = _row("evidence", len(texts.pieces), texts.characters, seconds, len(evidence.facts))
    return row | {"windows": evidence.window_count, "peak_mb": peak / 1e6}


def noticed_damage(texts: Sequence[str], count: int) -> float:
    """Return the share of small changes to a fact after which the text no longer has it."""
    chance = random.Random(1)  # noqa: S311  (reproducible, no secret)
    noticed = done = 0
    while done < count:
        text = chance.choice(texts)
        facts = sorted(fact for fact in extract_facts(text) if fact in text)
        if facts:
            fact = chance.choice(facts)
            done += 1
            noticed += fact not in extract_facts(text.replace(fact, _damaged(fact, chance)))
    return noticed / done


def _damaged(fact: str, chance: random.Random) -> str:
    place = chance.choice([place for place, mark in enumerate(fact) if mark.isalnum()] or [0])
    letters = "0123456789" if fact[place].isdigit() else "abcdefghijklmnopqrstuvwxyz"
    return fact[:place] + chance.choice(letters.replace(fact[place], "")) + fact[place + 1 :]


def growth(pattern: str) -> float:
    """Return how many times longer a million characters take than a hundred thousand."""
    seconds = []
    for size in (100_000, 1_000_000):
        text = (pattern * (size // len(pattern) + 1))[:size]
        start = time.process_time()
        extract_facts(text)
        seconds.append(max(time.process_time() - start, 1e-3))
    return seconds[1] / seconds[0]


def _speed_marks(name: str, rows: Sequence[dict[str, Any]], least: float) -> list[Mark]:
    speeds = [row["mb_per_s"] for row in rows if row["mb"] >= 1]
    return [Mark(name, min(speeds), "MB/s", f">= {least:g}", min(speeds) >= least)] if speeds else []


def _row(what: str, texts: int, characters: int, seconds: float, facts: int) -> dict[str, Any]:
    megabytes = characters / 1e6
    return {
        "what": what,
        "texts": texts,
        "mb": megabytes,
        "cpu_s": seconds,
        "mb_per_s": megabytes / seconds,
        "facts": facts,
        "windows": "-",
        "peak_mb": "-",
    }


if __name__ == "__main__":
    main()
