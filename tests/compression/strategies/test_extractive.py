from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from apportion.compression.pipeline import apply
from apportion.compression.similarity.gate import Gate
from apportion.compression.similarity.vectors import Vectors
from apportion.compression.strategies._pieces import pieces_of
from apportion.compression.strategies._relevance import names_in, terms_of
from apportion.compression.strategies.extractive import MAX_BYTES, Extractive, is_constraint
from apportion.compression.strategies.types import Item, Query, Span
from apportion.testing import check_strategy, contents, hostile_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from apportion.compression.strategies.types import Outcome

FILLER = " ".join(f"The market of town {n} sells apples, pears and cheese on every second morning." for n in range(40))
BRIDGES = (
    f"Old Bridge\nThe Old Bridge was designed by Clara Winter. {FILLER}\n\n"
    f"Town Hall\nThe hall has two towers. {FILLER}\n\n"
    f"Clara Winter\nClara Winter was an engineer. She was born in Ulm in 1831. {FILLER}\n"
)


class Letters:
    """An embedder that sees nothing but how often each letter occurs."""

    name = "letters"
    digest = "letters"
    ready = True

    def warm(self) -> None:
        """Do nothing."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array(
            [[text.lower().count(letter) + 1e-3 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        )
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def shortened(text: str, tokens: int | None, task: str = "", *, pinned: tuple[Span, ...] = ()) -> Outcome:
    strategy = Extractive(gate=Gate(Vectors(Letters())))
    item = Item(text.encode(), pinned=pinned)
    outcome = apply(strategy, item, Query(task=task, can_expand=True), target_tokens=tokens)
    assert not outcome.changed or strategy.restore(outcome) == item.content
    return outcome


def test_it_keeps_what_the_task_asks_for_with_its_title_and_reaches_the_target() -> None:
    outcome = shortened(BRIDGES, 200, "How many towers does the hall have?")
    said = outcome.content.decode()
    assert "Town Hall\nThe hall has two towers." in said
    assert outcome.tokens <= 200
    assert outcome.handles


def test_initials_end_no_sentence_and_an_apostrophe_leaves_no_word() -> None:
    said = "Asked by the U.N. General Assembly, J. R. Smith agreed. He left."
    assert [piece.text for piece in pieces_of(said)] == [said[:-8], said[-8:]]
    assert terms_of("It's the city's wall, isn't it?") == ["city", "wall", "isn"]


def test_names_in_what_was_found_lead_to_what_the_task_does_not_say() -> None:
    said = shortened(BRIDGES, 150, "Where was the designer of the Old Bridge born?").content.decode()
    assert "She was born in Ulm" in said
    assert "designed by Clara Winter" in said


def test_sentences_that_forbid_something_stay_even_if_the_task_is_about_something_else() -> None:
    text = f"{FILLER} You must never refund a used ticket. {FILLER}"
    said = shortened(text, 200, "apples of town 7").content.decode()
    assert "You must never refund a used ticket." in said
    assert "town 7 " in said


@pytest.mark.parametrize(
    ("text", "demands"),
    [
        ("Agents must ask first.", True),
        ("Never share a password.", True),
        ("2. Do not cancel it.", True),
        ("Refunds are only possible, unless the flight was late.", True),
        ("DO NOT COMMIT", True),
        ("He had always lived there.", False),
        ('"Never Mind" was their first album.', False),
    ],
)
def test_constraints_are_told_from_tales(text: str, *, demands: bool) -> None:
    assert is_constraint(text) is demands


def test_the_name_of_a_speaker_stays_with_what_he_says() -> None:
    text = "\n".join(
        f"{who}: {FILLER} The budget of {who} is {n} euros. {FILLER}" for n, who in enumerate(["Ann", "Bob"])
    )
    said = shortened(text, 120, "budget of Bob").content.decode()
    assert "The budget of Bob is 1 euros." in said
    assert "Bob: " in said


def test_a_heading_stays_with_what_stands_below_it() -> None:
    text = f"# Guide\n\n{FILLER}\n\n## Refunds\n\n{FILLER} A refund takes nine days. {FILLER}\n\n## Seats\n\n{FILLER}\n"
    said = shortened(text, 150, "how long does a refund take").content.decode()
    assert "# Guide" in said
    assert "## Refunds" in said
    assert "A refund takes nine days." in said


def test_languages_without_spaces_are_searched_too() -> None:
    filler = "".join(f"市場では毎朝りんごと梨を売っている、{n}番の店である。" for n in range(60))
    said = shortened(f"{filler}古い橋は千八百年に建てられた。{filler}", 150, "橋はいつ建てられたか").content.decode()
    assert "古い橋は千八百年に建てられた。" in said
    assert terms_of("สะพาน")[:2] == ["สะ", "ะพ"]


def test_pins_stay_whatever_the_target_is() -> None:
    text = f"{FILLER} The pin code is 1234. {FILLER}"
    start = text.encode().index(b"The pin")
    outcome = shortened(text, 20, "apples", pinned=(Span(start, start + 21),))
    assert outcome.changed
    assert b"The pin code is 1234." in outcome.content


def test_each_marker_has_a_nonce_and_the_first_one_says_how_to_have_the_rest_back() -> None:
    outcome = shortened(BRIDGES, 200, "towers")
    nonce = outcome.gaps[0].marker.partition(b":")[0].removeprefix(b"[").decode()
    assert f"[{nonce}:" not in BRIDGES
    assert outcome.content.count(f"[{nonce}: ".encode()) == len(outcome.gaps)
    assert b"left out; expand " + str(outcome.handles[0]).encode() in outcome.content


def test_a_receiver_that_cannot_expand_gets_what_the_gate_passes_or_the_original() -> None:
    item, query = Item(BRIDGES.encode()), Query(task="towers")
    lenient = Extractive(gate=Gate(Vectors(Letters()), threshold=0.5)).execute(item, 300, query)
    assert lenient.changed
    assert not lenient.handles
    assert b"expand" not in lenient.content
    strict = Extractive(gate=Gate(Vectors(Letters()), threshold=1.0)).execute(item, 300, query)
    assert strict.content == strict.original == item.content
    assert "the mean is below 1.0" in strict.reasons[0]


def test_without_the_extra_nothing_is_lost_and_the_outcome_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apportion.compression.strategies.gated.is_installed", lambda: False)
    outcome = Extractive().execute(Item(BRIDGES.encode()), 200, Query(task="towers"))
    assert outcome.content == BRIDGES.encode()
    assert "needs the extra 'semantic'" in outcome.reasons[0]
    assert "pip install" in outcome.reasons[0]


def test_vectors_that_are_there_count_beside_the_words() -> None:
    passages = [f"{word} " * 90 + "." for word in ("aaaa", "bbbb", "cccc", "dddd", "eeee")]
    text = "\n\n".join(passages)
    vectors = Vectors(Letters())
    strategy = Extractive(vectors=vectors, gate=Gate(vectors))
    query = Query(task="ddd", can_expand=True)
    blind = strategy.execute(Item(text.encode()), 400, query)
    for passage in passages:
        vectors.of(passage)
    seeing = strategy.execute(Item(text.encode()), 400, query)
    assert b"dddd" not in blind.content
    assert b"dddd" in seeing.content


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "does not apply"),
        (b"one sentence", "does not apply"),
        (b"\xff\xfe" * 100, "not UTF-8"),
        (b"x" * (MAX_BYTES + 1), "longer than"),
    ],
)
def test_what_cannot_be_selected_from_is_sent_as_it_is(content: bytes, reason: str) -> None:
    outcome = Extractive().execute(Item(content), 5, Query(task="x", can_expand=True, count=len))
    assert outcome.content == content
    assert reason in outcome.reasons[0]


@settings(max_examples=settings().max_examples // 4)
@given(content=contents())
def test_pieces_joined_are_the_text(content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    pieces = pieces_of(text)
    assert "".join(piece.text for piece in pieces) == text
    assert sum(piece.size for piece in pieces) == len(text.encode())
    assert all(piece.head is None or piece.head < number for number, piece in enumerate(pieces))


@settings(max_examples=settings().max_examples // 4)
@given(content=contents())
def test_any_content_comes_back(content: bytes) -> None:
    strategy = Extractive()
    outcome = strategy.execute(Item(content), len(content) // 3, Query(task="def app 12", can_expand=True, count=len))
    assert strategy.validate(Item(content), outcome)
    assert strategy.restore(outcome) == content or not outcome.changed


def test_it_conforms() -> None:
    check_strategy(Extractive(gate=Gate(Vectors(Letters()))))


@pytest.mark.parametrize("kind", ["empty lines", "many templates", "one long word", "quotes", "tables", "JSON strings"])
def test_time_grows_with_the_text_and_not_faster(kind: str, growth: Callable[..., float]) -> None:
    def prepare(size: int) -> Callable[[], object]:
        item = Item(hostile_texts(size)[kind].encode())
        return lambda: Extractive().execute(item, None, Query(task="line a x", count=len, can_expand=True))

    assert growth(prepare, 3_000) < 30


def test_names_end_where_a_sentence_does() -> None:
    assert names_in("It was Ana. Bob of Ulm came, Eve left") == ["Ana", "Bob of Ulm", "Eve"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (float("nan"), "has made no vector of a text"),
        (RuntimeError("out of memory"), "not validated: out of memory"),
        (None, "needs the extra 'semantic'"),
    ],
)
def test_a_cut_for_good_goes_back_to_the_original_where_nothing_can_compare_it(
    made: object, said: str, failing_embedder: Callable[[object], Letters], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apportion.compression.strategies.gated.is_installed", lambda: False)
    gate = Gate() if made is None else Gate(Vectors(failing_embedder(made)))
    item = Item(BRIDGES.encode())
    outcome = apply(Extractive(gate=gate), item, Query(task="Who was Clara Winter?"), target_tokens=200)
    assert outcome.content == item.content
    assert not outcome.changed
    assert any(said in reason for reason in outcome.reasons), outcome.reasons
    good = apply(Extractive(gate=Gate(Vectors(Letters()), threshold=0.1)), item, Query(), target_tokens=200)
    assert good.changed  # it is the embedder that makes the difference
