"""Measure what compression saves per kind of content, and write `src/apportion/data/strategy_profiles.json`.

    python benchmarks/strategy_profiles.py LOGS... [--quick] [--json FILE] [--write]

Every distinct tool result and hand-back of at least 60 tokens is classified and written shorter in each way. For each
kind and way the table holds how often it applies, the share of all tokens that it saves, quartiles of that share over
single results, the share of the bytes that it leaves out, and its CPU time per 1,000 tokens. The planner expects of a
result which has not been tried what its kind has given here.
"""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import arguments, percentile, report
from apportion.compression.pipeline import apply
from apportion.compression.strategies.types import Item, Query
from apportion.content import classify
from apportion.planner.forms import ways
from apportion.planner.prompt import MIN_REPLACED_TOKENS, REPLACEABLE_KINDS
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.compression.strategies.types import Strategy

TABLE = Path(__file__).parents[1] / "src" / "apportion" / "data" / "strategy_profiles.json"
QUICK_RESULTS = 200
MAX_PER_WORKFLOW = 30
SEED = 20261130


class Tried(NamedTuple):
    """What a way of shortening made of one result."""

    tokens: int
    saved: int
    left_out: float
    cpu_ms: float


def results(paths: Sequence[Path]) -> Iterator[str]:
    """Yield distinct results, at most some of each workflow so that no long one rules."""
    seen: set[str] = set()
    for log in read_logs(paths, SkipLog()):
        texts = [event.content for event in log.events if event.kind in REPLACEABLE_KINDS]
        new = [text for text in dict.fromkeys(texts) if text not in seen and count_tokens(text) >= MIN_REPLACED_TOKENS]
        seen.update(new)
        yield from random.Random(f"{SEED} {log.id}").sample(  # noqa: S311  (no secret)
            new, min(len(new), MAX_PER_WORKFLOW)
        )


def tried(way: Strategy, text: str) -> Tried:
    """Write one result shorter, and time it."""
    began = time.process_time()
    outcome = apply(way, Item(text.encode("utf-8", "surrogatepass")), Query(can_expand=True))
    cpu_ms = (time.process_time() - began) * 1e3
    return Tried(outcome.original_tokens, outcome.original_tokens - outcome.tokens, outcome.left_out_share, cpu_ms)


def row(kind: str, action: str, group: Sequence[Tried]) -> dict[str, Any]:
    """Sum up what a way of shortening does to one kind of content."""
    shares = [one.saved / one.tokens for one in group]
    per_thousand = [1e3 * one.cpu_ms / one.tokens for one in group]
    return {
        "content": kind,
        "action": action,
        "results": len(group),
        "tokens": sum(one.tokens for one in group),
        "applies": round(sum(one.saved > 0 for one in group) / len(group), 3),
        "saved": round(sum(one.saved for one in group) / sum(one.tokens for one in group), 3),
        "saved_p25": round(percentile(shares, 0.25), 3),
        "saved_p50": round(percentile(shares, 0.5), 3),
        "saved_p75": round(percentile(shares, 0.75), 3),
        "left_out": round(sum(one.left_out * one.tokens for one in group) / sum(one.tokens for one in group), 3),
        "cpu_ms_per_1000_tokens": round(percentile(per_thousand, 0.5), 2),
    }


def main() -> None:
    """Measure, report, and write the table where asked to."""
    asked = arguments(__doc__ or "", quick=f"{QUICK_RESULTS} results", paths=True, writes=TABLE.name)
    texts = list(results(asked.paths))
    if asked.quick:
        texts = random.Random(SEED).sample(texts, min(len(texts), QUICK_RESULTS))  # noqa: S311  (no secret)
    groups: defaultdict[tuple[str, str], list[Tried]] = defaultdict(list)
    for text in texts:
        for action, way in ways().items():
            groups[classify(text), action].append(tried(way, text))
    rows = [row(kind, action, group) for (kind, action), group in sorted(groups.items())]
    if asked.write:
        TABLE.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    report("strategy_profiles", rows, packages=("apportion",), file=asked.json, notes=(asked.cut,))


if __name__ == "__main__":
    main()
