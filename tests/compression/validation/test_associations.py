from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.validation.associations import extract_pairs, extract_quantities
from apportion.compression.validation.constraints import constraint_sentences, is_negation, sentences


def test_exchanged_values_change_the_pairs() -> None:
    assert extract_pairs("a_1: 3, b: 5") != extract_pairs("a_1: 5, b: 3")
    assert extract_pairs("see https://x.org at 10:42") == frozenset()


def test_a_number_is_bound_to_its_unit() -> None:
    assert extract_quantities("30 ms, 30 s, 5%, €7 and sha 9f86d0") == {"30 ms", "30 s", "5 %", "€7 and"}


def test_constraints_are_found_in_several_languages() -> None:
    for text in (
        "Du darfst das nicht löschen.",
        "Il est interdit de fumer.",
        "Nunca borres esto.",
        "禁止删除。",
        "必ず保存する。",
    ):
        assert constraint_sentences(f"Hello there. {text} Bye.") == (text,)
    assert constraint_sentences("The sky is blue. Notes follow.") == ()


def test_a_wrapped_constraint_is_one_sentence() -> None:
    assert constraint_sentences("- You must never\n  delete it. Fine.") == ("You must never delete it.",)


def test_negations_are_words_of_their_own() -> None:
    assert all(map(is_negation, ("not", "Never", "won't", "kein", "不")))
    assert not any(map(is_negation, ("knot", "note", "now")))


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    assert all(each in sentences(text) for each in constraint_sentences(text))
    assert isinstance(extract_pairs(text) | extract_quantities(text), frozenset)
