from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.validation.support import supports

ROOT = Path(__file__).parents[3]
TEXT = "Anna Weber restarted the database at 10:42. It had lost 120 of its 4,000 connections. Nobody was told."


@pytest.mark.parametrize(
    "statement",
    [
        "Anna Weber restarted the database.", "The database was restarted at 10:42.", "The database lost connections.",
        "120 connections were lost.", "",
    ],
)  # fmt: skip
def test_what_is_said_in_other_inflections_is_present(statement: str) -> None:
    assert supports(TEXT, statement).present


@pytest.mark.parametrize(
    ("statement", "missing"),
    [
        ("Carl Weber restarted the database at 11:55.", ("Carl", "11", "55")),
        ("The billing service was not restarted.", ("billing", "service", "not")),
        ("All customers were informed.", ("customers", "informed")),
    ],
)
def test_what_is_not_said_is_absent_and_the_missing_words_are_named(statement: str, missing: tuple[str, ...]) -> None:
    found = supports(TEXT, statement)
    assert not found.present
    assert set(missing) <= set(found.missing)


def test_words_must_stand_within_a_few_sentences() -> None:
    filler = " Nothing else happened there." * 10
    assert not supports("Anna came." + filler + " The database restarted.", "Anna restarted the database.").present


def test_similarity_is_asked_in_doubt_alone() -> None:
    asked: list[str] = []

    def alike(_text: str, statement: str) -> float:
        asked.append(statement)
        return 0.9

    doubtful = "Weber rebooted the database."
    assert not supports(TEXT, doubtful).present
    assert supports(TEXT, doubtful, similarity=alike).present
    assert supports(TEXT, "The database was restarted.", similarity=alike).present
    assert not supports(TEXT, "Elephants dance slowly.", similarity=alike).present
    assert asked == [doubtful]


@given(st.text(max_size=200))
def test_a_text_of_one_sentence_says_what_it_says(text: str) -> None:
    sentence = " ".join(text.split()).replace(".", "").replace("!", "").replace("?", "")
    assert supports(sentence, sentence).score == pytest.approx(1.0) or "。" in sentence or "！" in sentence


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("human_agreement")


def test_the_verdict_agrees_with_people_on_18_of_the_20_samples(benchmark: Any) -> None:
    pairs = benchmark.read_pairs([ROOT / "fixtures" / "human" / "realsumm-20.jsonl"])
    assert benchmark.draw(pairs) == pairs
    assert len({pair.document for pair in pairs}) == 20
    row = benchmark.agreement("ours", pairs, benchmark.verdict)
    assert [row[name] for name in ("accuracy", "kept, said kept", "kept, said lost", "lost, said kept")] == [
        0.9, 8, 2, 0,
    ]  # fmt: skip
    assert row["kappa"] == pytest.approx(0.8)
    assert (row["low"], row["high"]) == pytest.approx((0.699, 0.972), abs=0.001)
