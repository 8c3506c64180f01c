"""Real contents of all families, whole: what comes back, what stays visible, what is saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from apportion.compression.pipeline import Lossless, apply, restore
from apportion.compression.strategies.types import Held, Item, Query
from apportion.compression.validation.facts import extract_facts, missing_facts

CONTENTS = sorted((Path(__file__).parents[2] / "fixtures" / "content").glob("*.txt"))

each_content = pytest.mark.parametrize("path", CONTENTS, ids=lambda path: path.stem)


@each_content
def test_it_comes_back_and_hardly_a_fact_is_out_of_sight(path: Path) -> None:
    content = path.read_bytes()
    outcome = apply(Lossless(), Item(content), Query())
    assert restore(outcome, [Lossless()]) == content
    facts = extract_facts(content.decode())
    assert len(missing_facts(facts, outcome.content.decode())) <= 0.03 * len(facts)


@each_content
def test_sent_again_it_costs_next_to_nothing(path: Path) -> None:
    content = path.read_bytes()
    first = apply(Lossless(), Item(content), Query())
    again = apply(Lossless(), Item(content, held=(Held("#1", content),)), Query())
    assert again.tokens < 0.1 * first.original_tokens


def test_structured_contents_are_much_shorter() -> None:
    outcomes = {path.stem: apply(Lossless(), Item(path.read_bytes()), Query()) for path in CONTENTS}
    assert outcomes["json-taubench-airline"].saved_share > 0.6
    assert outcomes["grep-cipherbox"].saved_share > 0.3
    assert outcomes["code-entire-cli"].saved_share > 0.15
    assert sum(outcome.tokens for outcome in outcomes.values()) < 0.85 * sum(
        outcome.original_tokens for outcome in outcomes.values()
    )
