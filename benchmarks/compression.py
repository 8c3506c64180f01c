"""How much strategies save on real contents, what stays visible, and what a chat costs then.

    python benchmarks/compression.py PATH [PATH ...] [--gold FILE] [--only NAME ...] [--quick] [--json FILE]

PATHs are logs, files and folders; `_content.py` says which contents are taken from them. Each strategy, the default
chain and each level of `Recoverable` are applied to each content. In chats each message is written at its birth: it may
refer to earlier messages as they were sent, and what was sent never changes; only tool results and what other agents
handed back are rewritten, and the tokens of the whole chat count. `+code` cuts code as well, for a receiver that does
not edit files.

*Visible* are facts that the result states or holds word for word; *judged* the same by a second, independent reading
(`_judge.py`), for which nothing was optimised; *lines* are the distinct lines that still stand word for word;
*recoverable* are facts that are visible or in a content that was restored byte for byte, from the text and the handles;
*exact* are contents that were restored; *grown* those with more tokens than before; *of it %* is saved of what may be
rewritten at all; *warm* is the second time in the same process, of single contents. *bill* is what the chats cost, with
a cache that is read at 0.1 and written at 1.25 of the price of a token, output at 5; *stable %* is the share of each
prompt that begins as the one before it did.

Answers are read from JSON lines `{"content_digest": ..., "question": ..., "answer": ...}`; an answer is kept where the
text that is sent holds it, letters and white space apart.
"""

from __future__ import annotations

import gc
import json
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _content import FAMILIES, find_contents
from _harness import Mark, arguments, percentile, report, time_calls
from _judge import judged_facts, judged_missing
from apportion.compression.pipeline import LEVELS, Lossless, apply, load_strategies, recoverable, restore
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

LEVEL_MARKS = {
    "recoverable": (45.0, 99.5),
    "recoverable_95": (50.0, 95.0),
    "recoverable_90": (53.0, 90.0),
    "recoverable_85": (56.0, 85.0),
}
"""Tokens saved in per cent, and facts visible in per cent, that each level is to reach."""

JUDGED_MARK = (45.0, 95.0)
"""Tokens saved, and facts visible by the second reading, in per cent, that some level is to reach."""

BILL_MARK = 35.0
ANSWERS_MARK = 98.0
READ, WRITE, OUTPUT = 0.1, 1.25, 5.0
"""Prices of a token from the cache, into it, and as output, as shares of the price of one that is not cached."""

WITH_CODE = "+code"


class Result(NamedTuple):
    """What became of one content."""

    family: str
    tokens: int
    original_tokens: int
    rewritable_tokens: int
    facts: int
    visible: int
    recoverable: int
    judged: int
    judged_visible: int
    lines: int
    lines_visible: int
    exact: bool
    grown: bool
    cpu_ms: list[float]
    warm_ms: list[float]
    bill: float
    original_bill: float
    stable: float


class Answer(NamedTuple):
    """A question about a content, and the words that answer it."""

    question: str
    answer: str


def main() -> None:
    """Measure and report."""
    asked = arguments(
        __doc__ or "",
        quick="at most 3 contents of each family",
        paths=True,
        options={
            "--gold": {"type": Path, "metavar": "FILE", "help": "questions with answers, as JSON lines"},
            "--only": {"nargs": "+", "metavar": "NAME", "help": "only these strategies"},
        },
    )
    contents = find_contents(asked.paths, per_family=3 if asked.quick else 16)
    gold = read_gold(asked.gold) if asked.gold else {}
    strategies, broken = load_strategies()
    strategies |= {"lossless": Lossless(), **{level: recoverable(level) for level in LEVELS}}
    strategies |= {level + WITH_CODE: recoverable(level, keeps_code=False) for level in LEVELS}
    rows: list[dict[str, Any]] = []
    totals: dict[str, dict[str, Any]] = {}
    marks: list[Mark] = []
    for name, strategy in sorted(strategies.items()):
        if asked.only and name not in asked.only:
            continue
        results = [measure(strategy, content) for content in contents]
        groups = {family: [each for each in results if each.family == family] for family in FAMILIES}
        found = {family: row(name, family, some) for family, some in (groups | {"total": results}).items() if some}
        by_family = name == "lossless" or name.startswith("recoverable")
        rows += found.values() if by_family else [found["total"]]
        totals[name] = found["total"] | {"dearer": sum(each.bill > each.original_bill for each in results)}
        if name == "lossless":
            marks = [mark(family, found[family]) for family in MARKS if family in found]
        if gold:
            marks.append(answers_mark(name, strategy, contents, gold, found["total"]["saved %"]))
    marks += level_marks(totals)
    if "lossless" in totals:
        grown = growths(Lossless(), 2_000 if asked.quick else 100_000)
        kind, growth = max(grown.items(), key=lambda each: each[1])
        name = f"time for ten times as much hostile text, worst kind ({kind})"
        marks.append(Mark(name, growth, "x", "<= 12", growth <= 12))
    for name in ("lossless", "recoverable"):
        if name in totals:
            marks += latency_marks(name, totals[name])
    notes = [
        asked.cut,
        "recoverable % of chats counts earlier messages as visible; literals and levels need the expand tool",
        *broken,
    ]
    report("compression", rows, marks, packages=["apportion", "tiktoken"], file=asked.json, notes=notes)


def measure(strategy: Strategy, content: Content) -> Result:
    """Apply a strategy to a content, message by message."""
    query = Query(task=content.task, can_expand=True)
    held: list[Held] = []
    sizes: list[tuple[int, int]] = []
    rewritable = 0
    exact, grown = True, False
    cpu_ms: list[float] = []
    warm_ms: list[float] = []
    facts: set[str] = set()
    judged: set[str] = set()
    lines: set[str] = set()
    for number, message in enumerate(content.messages):
        item = Item(message.content, name=message.name, held=tuple(held))
        outcome = Outcome.unchanged(item.content, query.count(item.content))
        text = _text(item.content)
        if message.rewritable:
            start = time.process_time_ns()
            outcome = apply(strategy, item, query)
            middle = time.process_time_ns()
            cpu_ms.append((middle - start) / 1e6)
            if len(content.messages) == 1:
                apply(strategy, item, query)
                warm_ms.append((time.process_time_ns() - middle) / 1e6)
            rewritable += outcome.original_tokens
            exact &= _comes_back(strategy, outcome, item)
            grown |= outcome.tokens > outcome.original_tokens
            lines.update(text.splitlines())
        sizes.append((outcome.original_tokens, outcome.tokens))
        facts |= extract_facts(text)
        judged |= judged_facts(text)
        held.append(Held(f"#{number}", outcome.content))
    sent = "\n".join(_text(each.content) for each in held)
    visible = len(facts) - len(missing_facts(facts, sent))
    shown = len(judged) - len(judged_missing(frozenset(judged), sent))
    calls = [message.call for message in content.messages]
    return Result(
        content.family,
        sum(after for _, after in sizes),
        sum(before for before, _ in sizes),
        rewritable,
        len(facts),
        visible,
        len(facts) if exact else visible,
        len(judged),
        shown,
        len(lines),
        len(lines & set(sent.splitlines())),
        exact,
        grown,
        cpu_ms,
        warm_ms,
        bill([after for _, after in sizes], calls),
        bill([before for before, _ in sizes], calls),
        stability(held, calls),
    )


def bill(sizes: Sequence[int], calls: Sequence[int | None]) -> float:
    """Return what a chat costs: each completion reads what the one before it was sent, and writes what is new."""
    total = cached = prompt = 0.0
    last: int | None = None
    for size, call in zip(sizes, calls, strict=True):
        if call is not None and call != last:
            total += READ * cached + WRITE * (prompt - cached)
            cached, last = prompt, call
        total += OUTPUT * size if call is not None else 0.0
        prompt += size
    return total


def stability(held: Sequence[Held], calls: Sequence[int | None]) -> float:
    """Return the share of the prompts that begin as the one before them did, in [0, 1], by comparing what was sent."""
    prompts: list[bytes] = []
    last: int | None = None
    sent = b""
    for each, call in zip(held, calls, strict=True):
        if call is not None and call != last:
            prompts.append(sent)
            last = call
        sent += each.content
    same = sum(after.startswith(before) for before, after in pairwise(prompts))
    return same / (len(prompts) - 1) if len(prompts) > 1 else 1.0


def read_gold(file: Path) -> dict[str, list[Answer]]:
    """Return the questions by the digest of their content."""
    gold: dict[str, list[Answer]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            found = json.loads(line)
            gold.setdefault(found["content_digest"], []).append(Answer(found["question"], found["answer"]))
    return gold


def answers_mark(
    name: str, strategy: Strategy, contents: Sequence[Content], gold: dict[str, list[Answer]], saved: float
) -> Mark:
    """Return how many answers the sent text holds where its question is the task."""
    kept = asked = 0
    for content in contents:
        for each in gold.get(content.digest, ()):
            task = Query(task=each.question, can_expand=True)
            held: list[Held] = []
            for number, message in enumerate(content.messages):
                item = Item(message.content, name=message.name, held=tuple(held))
                sent = apply(strategy, item, task).content if message.rewritable else message.content
                held.append(Held(f"#{number}", sent))
            asked += 1
            kept += _plain(each.answer) in _plain("\n".join(_text(one.content) for one in held))
    share = 100 * kept / asked if asked else 0.0
    holds = asked > 0 and share >= ANSWERS_MARK and saved >= JUDGED_MARK[0]
    target = f">= {ANSWERS_MARK:.0f} of {asked} at >= {JUDGED_MARK[0]:.0f} % saved; {saved:.1f} % are"
    return Mark(f"{name}, answers kept", share, "%", target, holds)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def latency_marks(name: str, found: dict[str, Any]) -> list[Mark]:
    """Return whether a content of 10,000 tokens, seen before, takes as little CPU time as it is to."""
    return [
        Mark(f"{name}, 10,000 tokens, warm, {at}", value, "cpu ms", f"<= {limit}", value <= limit)
        for at, limit in (("p50", 30), ("p95", 100))
        for value in (found[f"warm ms/10k {at}"],)
    ]


def level_marks(totals: dict[str, dict[str, Any]]) -> list[Mark]:
    """Return whether the marks of the levels were reached, with code cut and with code left whole."""
    marks = []
    for level, (saved, visible) in LEVEL_MARKS.items():
        for name in (level, level + WITH_CODE):
            if name in totals:
                found = totals[name]
                target = f">= {saved:.0f} with >= {visible} % of the facts visible; {found['visible %']:.2f} % are"
                holds = found["saved %"] >= saved and found["visible %"] >= visible
                marks.append(Mark(name, found["saved %"], "% saved", target, holds))
    levels = {name: found for name, found in totals.items() if name.startswith("recoverable")}
    if levels:
        saved, visible = JUDGED_MARK
        judged = {name: found["saved %"] for name, found in levels.items() if found["judged %"] >= visible}
        best = max(judged, key=lambda name: judged[name], default="none")
        value = judged.get(best, 0.0)
        marks.append(
            Mark(
                f"judged by the second reading ({best})",
                value,
                "% saved",
                f">= {saved:.0f} at >= {visible} %",
                value >= saved,
            )
        )
        cheapest = max(levels, key=lambda name: levels[name]["bill saved %"])
        found = levels[cheapest]
        holds = found["bill saved %"] >= BILL_MARK and not found["dearer"] and found["stable %"] == 100
        target = (
            f">= {BILL_MARK:.0f}, no chat dearer ({found['dearer']} are), prompts stable ({found['stable %']:.0f} %)"
        )
        marks.append(Mark(f"bill of the chats ({cheapest})", found["bill saved %"], "% saved", target, holds))
        grown = sum(found["grown"] for found in totals.values())
        marks.append(Mark("contents that grew, all strategies", grown, "", "0", grown == 0))
        inexact = sum(found["inputs"] - found["exact"] for found in totals.values())
        marks.append(Mark("contents that did not come back, all strategies", inexact, "", "0", inexact == 0))
    return marks


def growths(strategy: Strategy, size: int) -> dict[str, float]:
    """Return by kind of hostile text how many times as long ten times as many bytes take, at least a millisecond each.

    Both sizes take turns, so that other work on the machine falls on both. Some texts grow by a little more than ten
    times, since their numbers do: their time is taken per byte. The garbage collector rests meanwhile, as in `timeit`:
    how often it runs depends on all else that is in memory.
    """
    gc.disable()
    try:
        return {kind: _growth(strategy, kind, size) for kind in hostile_texts(10)}
    finally:
        gc.enable()


def _growth(strategy: Strategy, kind: str, size: int) -> float:
    query = Query(count=len)
    items = [Item(hostile_texts(each)[kind].encode()) for each in (size, 10 * size)]
    times = time_calls([partial(apply, strategy, item, query) for item in items], repetitions=3).cpu_ms
    one, ten = min(times[::2]), min(times[1::2])
    return ten / max(1.0, one) * 10 * len(items[0].content) / len(items[1].content)


def _comes_back(strategy: Strategy, outcome: Outcome, item: Item) -> bool:
    if outcome.handles and not outcome.gaps:
        return bool(strategy.validate(item, outcome)) and strategy.rollback(outcome) == item.content
    return restore(outcome, [strategy], item.held) == item.content


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def row(name: str, family: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return a row of the table; times are CPU milliseconds: per 10,000 tokens of what may change, and per message."""

    def total(column: str) -> float:
        return float(sum(getattr(result, column) for result in results))

    tokens, rewritable = total("original_tokens"), max(1, total("rewritable_tokens"))
    saved = tokens - total("tokens")
    facts = max(1, total("facts"))
    chats = [result for result in results if result.family == "chats"]
    times = [time for result in results for time in result.cpu_ms] or [0.0]
    warm = [time for result in results for time in result.warm_ms] or [0.0]
    per_input = [10_000 * sum(each.warm_ms) / max(1, each.rewritable_tokens) for each in results if each.warm_ms]
    before = sum(each.original_bill for each in chats)
    return {
        "strategy": name,
        "family": family,
        "inputs": len(results),
        "tokens": tokens,
        "saved %": 100 * saved / max(1, tokens),
        "of it %": 100 * saved / rewritable,
        "facts": facts,
        "visible %": 100 * total("visible") / facts,
        "recoverable %": 100 * total("recoverable") / facts,
        "judged %": 100 * total("judged_visible") / max(1, total("judged")),
        "lines %": 100 * total("lines_visible") / max(1, total("lines")),
        "exact": sum(result.exact for result in results),
        "grown": sum(result.grown for result in results),
        "bill saved %": 100 * (1 - sum(each.bill for each in chats) / before) if before else 0.0,
        "stable %": 100 * min((each.stable for each in chats), default=1.0),
        "cpu ms/10k": 10_000 * sum(times) / rewritable,
        "warm ms/10k p50": percentile(per_input or [0.0], 0.5),
        "warm ms/10k p95": percentile(per_input or [0.0], 0.95),
        "cpu ms p50": percentile(times, 0.5),
        "cpu ms p95": percentile(times, 0.95),
        "warm ms p50": percentile(warm, 0.5),
        "warm ms p95": percentile(warm, 0.95),
    }


def mark(family: str, found: dict[str, Any]) -> Mark:
    """Return whether a family's mark was reached."""
    saved, visible = found["saved %"], found["visible %"]
    target = f">= {MARKS[family]:.0f} with >= {VISIBLE} % of the facts visible; {visible:.2f} % are"
    return Mark(f"lossless, {family}", saved, "% saved", target, saved >= MARKS[family] and visible >= VISIBLE)


if __name__ == "__main__":
    main()
