"""What strategies make of the scenarios: tokens saved, and how many facts and answers are still there, per family.

    python benchmarks/scenarios.py [--quick] [--json FILE]

The scenarios are those of `fixtures/scenarios`; `_scenarios.py` says when a fact is exact, visible or recoverable. Each
strategy gets the task, and may leave out parts that a handle gives back. *Restored* are contents that validation
accepts and that come back byte for byte, from the visible result alone where no handle is named.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from _scenarios import is_exact, is_recoverable, is_visible, load_scenarios
from apportion.compression.pipeline import Lossless, apply, load_strategies, restore
from apportion.compression.store import HandleStore
from apportion.compression.strategies.types import Item, Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _scenarios import Scenario
    from apportion.compression.strategies.types import Outcome, Strategy


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick="2 scenarios of each family")
    scenarios = load_scenarios()
    families = {family: list(some) for family, some in groupby(scenarios, key=lambda scenario: scenario.family)}
    if asked.quick:
        families = {family: some[:2] for family, some in families.items()}
    strategies, broken = load_strategies()
    strategies.setdefault("lossless", Lossless())
    rows: list[dict[str, Any]] = []
    marks: list[Mark] = []
    lost: list[str] = []
    for name, strategy in sorted(strategies.items()):
        made = {
            family: [(scenario, applied(strategy, scenario)) for scenario in some] for family, some in families.items()
        }
        everything = [pair for pairs in made.values() for pair in pairs]
        found = {family: row(name, family, strategy, pairs) for family, pairs in (made | {"total": everything}).items()}
        rows += found.values() if any(outcome.changed for _, outcome in everything) else [found["total"]]
        gone = [*missing(strategy, everything)]
        lost += [f"{name} loses of {line}" for line in gone]
        total = found["total"]
        marks.append(Mark(f"{name}, facts and answers lost", len(gone), "of all", "0", holds=not gone))
        marks.append(
            Mark(
                f"{name}, contents restored",
                total["restored"],
                "contents",
                f"all {total['contents']}",
                holds=total["restored"] == total["contents"],
            )
        )
    report(
        "scenarios", rows, marks, packages=["apportion", "tiktoken"], file=asked.json, notes=[asked.cut, *broken, *lost]
    )


def applied(strategy: Strategy, scenario: Scenario) -> Outcome:
    """Apply a strategy to a scenario as the pipeline does."""
    return apply(strategy, Item(scenario.content), Query(task=scenario.task, can_expand=True))


def missing(strategy: Strategy, pairs: Sequence[tuple[Scenario, Outcome]]) -> list[str]:
    """Return the facts and answers that are neither visible nor recoverable, with the names of their scenarios."""
    store = getattr(strategy, "store", HandleStore())
    return [
        f"{scenario}: {string!r}"
        for scenario, outcome in pairs
        for string in (*scenario.facts, *(question.answer for question in scenario.questions))
        if not is_recoverable(string, outcome, store)
    ]


def row(name: str, family: str, strategy: Strategy, pairs: Sequence[tuple[Scenario, Outcome]]) -> dict[str, Any]:
    """Return a row of the table."""
    store = getattr(strategy, "store", HandleStore())
    facts = [(fact, outcome) for scenario, outcome in pairs for fact in scenario.facts]
    answers = [(question.answer, outcome) for scenario, outcome in pairs for question in scenario.questions]
    before, after = (sum(getattr(outcome, name) for _, outcome in pairs) for name in ("original_tokens", "tokens"))
    return {
        "strategy": name,
        "family": family,
        "contents": len(pairs),
        "tokens": before,
        "saved %": 100 - 100 * after / before,
        "changed": sum(outcome.changed for _, outcome in pairs),
        "facts": len(facts),
        "exact %": 100 * sum(is_exact(*fact) for fact in facts) / len(facts),
        "visible %": 100 * sum(is_visible(*fact) for fact in facts) / len(facts),
        "recoverable %": 100 * sum(is_recoverable(*fact, store) for fact in facts) / len(facts),
        "answers": len(answers),
        "kept %": 100 * sum(is_visible(*answer) for answer in answers) / len(answers),
        "restored": sum(is_restored(strategy, scenario, outcome) for scenario, outcome in pairs),
    }


def is_restored(strategy: Strategy, scenario: Scenario, outcome: Outcome) -> bool:
    """Say whether a content comes back byte for byte, and its result is accepted."""
    if not strategy.validate(Item(scenario.content), outcome) or strategy.rollback(outcome) != scenario.content:
        return False
    return bool(outcome.handles) or restore(outcome, [strategy]) == scenario.content


if __name__ == "__main__":
    main()
