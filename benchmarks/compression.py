"""How much lossless strategies save on real contents, and what stays visible.

    python benchmarks/compression.py PATH [PATH ...] [--quick] [--json FILE]

PATHs are logs, files and folders; `_content.py` says which contents are taken from them. Each strategy and the default
chain are applied to each content. In chats each message is written at its birth: it may refer to earlier messages as
they were sent, and what was sent never changes; only tool results and what other agents handed back are rewritten, and
the tokens of the whole chat count.

*Visible* are facts that the result states or holds word for word; *exact* are contents that were restored byte for byte
from the visible result alone; *grown* are contents with more tokens than before.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from _content import FAMILIES, find_contents
from _harness import Mark, arguments, percentile, report, time_calls
from apportion.compression.pipeline import Lossless, apply, load_strategies, restore
from apportion.compression.strategies.types import Held, Item, Outcome, Query
from apportion.compression.validation.facts import extract_facts, missing_facts
from apportion.testing import hostile_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _content import Content
    from apportion.compression.strategies.types import Strategy

MARKS = {"json": 58.0, "logs": 63.0, "chats": 23.0, "grep": 28.0, "total": 34.0}
"""Tokens saved in per cent, to beat with at least `VISIBLE` per cent of the facts visible."""

VISIBLE = 99.5


class Result(NamedTuple):
    """What became of one content."""

    family: str
    tokens: int
    original_tokens: int
    rewritable_tokens: int
    facts: int
    visible: int
    recoverable: int
    exact: bool
    grown: bool
    cpu_ms: list[float]


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick="at most 3 contents of each family", paths=True)
    contents = find_contents(asked.paths, per_family=3 if asked.quick else 16)
    strategies, broken = load_strategies()
    strategies.setdefault("lossless", Lossless())
    rows: list[dict[str, Any]] = []
    marks: list[Mark] = []
    for name, strategy in sorted(strategies.items()):
        results = [measure(strategy, content) for content in contents]
        groups = {family: [each for each in results if each.family == family] for family in FAMILIES}
        found = {family: row(name, family, some) for family, some in (groups | {"total": results}).items() if some}
        rows += found.values() if name == "lossless" else [found["total"]]
        if name == "lossless":
            marks = [mark(family, found[family]) for family in MARKS if family in found]
    kind, growth = max(growths(Lossless(), 10_000 if asked.quick else 100_000).items(), key=lambda found: found[1])
    marks.append(
        Mark(f"time for ten times as much hostile text, worst kind ({kind})", growth, "x", "<= 12", growth <= 12)
    )
    notes = [
        asked.cut,
        "recoverable % of chats counts earlier messages as visible; literals need the expand tool",
        *broken,
    ]
    report("compression", rows, marks, packages=["apportion", "tiktoken"], file=asked.json, notes=notes)


def measure(strategy: Strategy, content: Content) -> Result:
    """Apply a strategy to a content, message by message."""
    query = Query(can_expand=True)
    held: list[Held] = []
    before = after = rewritable = 0
    exact, grown, cpu_ms = True, False, []
    facts: set[str] = set()
    for number, message in enumerate(content.messages):
        item = Item(message.content, held=tuple(held))
        outcome = Outcome.unchanged(item.content, query.count(item.content))
        if message.rewritable:
            start = time.process_time_ns()
            outcome = apply(strategy, item, query)
            cpu_ms.append((time.process_time_ns() - start) / 1e6)
            rewritable += outcome.original_tokens
            exact &= _comes_back(strategy, outcome, item)
            grown |= outcome.tokens > outcome.original_tokens
        before, after = before + outcome.original_tokens, after + outcome.tokens
        facts |= extract_facts(_text(item.content))
        held.append(Held(f"#{number}", outcome.content))
    missing = missing_facts(facts, "\n".join(_text(each.content) for each in held))
    recovered = len(facts) if exact else len(facts) - len(missing)
    visible = len(facts) - len(missing)
    return Result(content.family, after, before, rewritable, len(facts), visible, recovered, exact, grown, cpu_ms)


def growths(strategy: Strategy, size: int) -> dict[str, float]:
    """Return by kind of hostile text how many times as long ten times the size takes, at least a millisecond each.

    The garbage collector rests meanwhile, as in `timeit`: how often it runs depends on all else that is in memory.
    """
    gc.disable()
    try:
        return {kind: _growth(strategy, kind, size) for kind in hostile_texts(10)}
    finally:
        gc.enable()


def _growth(strategy: Strategy, kind: str, size: int) -> float:
    query = Query(count=len)
    items = [Item(hostile_texts(each)[kind].encode()) for each in (size, 10 * size)]
    one, ten = (min(time_calls([partial(apply, strategy, item, query)], repetitions=2).cpu_ms) for item in items)
    return ten / max(1.0, one)


def _comes_back(strategy: Strategy, outcome: Outcome, item: Item) -> bool:
    if outcome.handles:
        return bool(strategy.validate(item, outcome)) and strategy.rollback(outcome) == item.content
    return restore(outcome, [strategy], item.held) == item.content


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def row(name: str, family: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return a row of the table; times are CPU milliseconds: per 10,000 tokens of what may change, and per message."""
    tokens = sum(result.original_tokens for result in results)
    facts = max(1, sum(result.facts for result in results))
    times = [time for result in results for time in result.cpu_ms] or [0.0]
    return {
        "strategy": name,
        "family": family,
        "inputs": len(results),
        "tokens": tokens,
        "saved %": 100 - 100 * sum(result.tokens for result in results) / max(1, tokens),
        "facts": facts,
        "visible %": 100 * sum(result.visible for result in results) / facts,
        "recoverable %": 100 * sum(result.recoverable for result in results) / facts,
        "exact": sum(result.exact for result in results),
        "grown": sum(result.grown for result in results),
        "cpu ms/10k": 10_000 * sum(times) / max(1, sum(result.rewritable_tokens for result in results)),
        "cpu ms p50": percentile(times, 0.5),
        "cpu ms p95": percentile(times, 0.95),
    }


def mark(family: str, found: dict[str, Any]) -> Mark:
    """Return whether a family's mark was reached."""
    saved, visible = found["saved %"], found["visible %"]
    target = f">= {MARKS[family]:.0f} with >= {VISIBLE} % of the facts visible; {visible:.2f} % are"
    return Mark(f"lossless, {family}", saved, "% saved", target, saved >= MARKS[family] and visible >= VISIBLE)


if __name__ == "__main__":
    main()
