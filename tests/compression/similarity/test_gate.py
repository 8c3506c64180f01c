from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings

from apportion.compression.similarity.chunks import chunks_of
from apportion.compression.similarity.gate import Coverage, Gate
from apportion.compression.similarity.vectors import Ingest, Vectors
from apportion.compression.store import Handle
from apportion.compression.strategies.types import Gap, Outcome, Span
from apportion.errors import InputError
from apportion.testing import contents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LINES = [f"Line {n} tells what happened in the {n}th year of the old town of Ulm." for n in range(60)]
TEXT = "\n".join(LINES).encode()


class Letters:
    """An embedder that sees nothing but how often each letter occurs, and counts what it is asked."""

    name = "letters"
    digest = "letters"

    def __init__(self, *, ready: bool = True) -> None:
        self.ready = ready
        self.texts: list[str] = []

    def warm(self) -> None:
        self.ready = True

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if "poison" in "".join(texts):
            raise ValueError("poison")
        self.texts += texts
        rows = np.array(
            [[text.lower().count(letter) + 1e-3 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
        )
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def without(*spans: Span, handle: bool = False) -> Outcome:
    known = Handle.of(TEXT)
    kept, position = b"", 0
    for span in spans:
        kept, position = kept + TEXT[position : span.start], span.end
    gaps = tuple(Gap(span, known, "a test") for span in spans)
    return Outcome(kept + TEXT[position:], TEXT, 1, 2, ("cut",), handles=(known,) if handle else (), gaps=gaps)


def test_a_chunk_that_is_whole_costs_nothing_and_one_that_is_gone_covers_nothing() -> None:
    embedder = Letters()
    chunks = chunks_of(TEXT)
    coverage = Gate(Vectors(embedder)).measure(without(chunks[1]))
    sizes = [len(TEXT[span.start : span.end].decode().strip()) for span in chunks]
    assert embedder.texts == []
    assert (coverage.chunks, coverage.whole, coverage.gone, coverage.minimum) == (len(chunks), len(chunks) - 1, 1, 0.0)
    assert coverage.mean == pytest.approx(1 - sizes[1] / sum(sizes))


def test_only_chunks_of_which_a_part_survived_are_embedded_and_only_once() -> None:
    gate = Gate(Vectors(Letters()))
    result = without(Span(10, 40))
    assert gate.measure(result).embedded == 2
    again = gate.measure(result)
    assert again.embedded == 0
    assert 0 < again.minimum < again.mean < 1


def test_deleting_half_is_refused_although_the_halves_are_alike() -> None:
    half = without(Span(0, len(TEXT) // 2))
    letters = Letters()
    whole, kept = letters.embed([TEXT.decode(), half.content.decode()])
    assert whole @ kept > 0.99
    verdict, coverage = Gate(Vectors(letters)).check(half)
    assert not verdict
    assert coverage is not None
    assert coverage.mean < 0.7
    assert "the mean is below 0.95" in (verdict.reason or "")


def test_what_is_behind_a_handle_is_not_lost_and_can_be_held_to_be() -> None:
    half = without(Span(0, len(TEXT) // 2), handle=True)
    verdict, coverage = Gate(Vectors(Letters())).check(half)
    assert verdict
    assert coverage is None
    measured = Gate(Vectors(Letters())).measure(half)
    assert measured.recoverable_mean == 1.0
    assert measured.mean < 0.7
    assert not Gate(Vectors(Letters()), visible=True).check(half)[0]


def test_the_least_coverage_of_a_chunk_can_be_a_limit_too() -> None:
    result = without(chunks_of(TEXT)[1])
    assert Gate(Vectors(Letters()), threshold=0.5).check(result)[0]
    verdict, _ = Gate(Vectors(Letters()), threshold=0.5, least=0.5).check(result)
    assert "the minimum is below 0.5" in (verdict.reason or "")


def test_what_was_not_compared_in_time_is_refused_and_is_there_the_next_time() -> None:
    ticks = count()
    gate = Gate(Vectors(Letters()), threshold=0.5, seconds=1.5, clock=lambda: float(next(ticks)))
    result = without(Span(10, 40), Span(1000, 1100), Span(2000, 2100))
    verdict, coverage = gate.check(result)
    assert (bool(verdict), coverage) == (False, None)
    assert "not validated: not yet: " in (verdict.reason or "")
    assert gate.ingest.wait(60)
    for _ in range(5):
        verdict, _ = gate.check(result)
    assert verdict


def test_a_model_that_is_not_loaded_yet_is_not_waited_for_where_time_is_short() -> None:
    embedder = Letters(ready=False)
    verdict, _ = Gate(Vectors(embedder), seconds=1.0).check(without(Span(10, 40)))
    assert "the model is being loaded" in (verdict.reason or "")
    assert embedder.ready


def test_a_result_that_does_not_say_what_it_left_out_is_refused() -> None:
    verdict, _ = Gate(Vectors(Letters())).check(Outcome(b"ab", b"abcd", 1, 2, ("short",)))
    assert "nothing tells what was left out" in (verdict.reason or "")
    verdict, coverage = Gate(Vectors(Letters())).check(Outcome.unchanged(b"abcd", 2))
    assert verdict
    assert coverage == Coverage(1.0, 1.0, 1.0, 0, 0, 0, 0)


def test_limits_are_shares() -> None:
    with pytest.raises(InputError, match=r"outside 0\.\.1"):
        Gate(Vectors(Letters()), threshold=95)


def test_vectors_stay_within_their_memory_and_the_oldest_go_first() -> None:
    vectors = Vectors(Letters(), max_bytes=3 * 26 * 4)
    for text in "abcd":
        vectors.of(text)
    assert (len(vectors), vectors.size) == (3, 3 * 26 * 4)
    assert [known is None for known in vectors.known(list("abcd"))] == [True, False, False, False]
    assert (vectors.hits, vectors.misses) == (3, 5)


def test_vectors_of_one_model_are_unknown_to_another() -> None:
    vectors = Vectors(Letters())
    vectors.of("a")
    vectors.embedder = type("Other", (Letters,), {"digest": "other"})()
    assert vectors.known(["a"]) == [None]


def test_ingest_embeds_in_the_background_counts_what_fails_and_drops_what_is_too_much() -> None:
    ingest = Ingest(Vectors(Letters()), max_waiting_bytes=len(TEXT) + 10)
    assert ingest.add(TEXT)
    assert not ingest.add(b"x" * (len(TEXT) + 11))
    assert ingest.wait(60)
    assert len(ingest.vectors) == len(chunks_of(TEXT))
    assert ingest.add(b"poison")
    assert ingest.wait(60)
    assert (ingest.dropped, ingest.failed, ingest.error) == (1, 1, "ValueError: poison")
    ingest.close()
    assert not ingest.add(b"late")


@settings(max_examples=settings().max_examples // 4)
@given(content=contents())
def test_chunks_cover_a_content_without_gaps(content: bytes) -> None:
    chunks = chunks_of(content)
    assert b"".join(content[start:end] for start, end in chunks) == content
    assert all(start < end for start, end in chunks)


def test_a_text_without_gaps_is_compared_by_what_both_have_in_common() -> None:
    embedder = Letters()
    gate = Gate(Vectors(embedder))
    chunks = chunks_of(TEXT)
    without_one = gate.compare(TEXT, TEXT[: chunks[1].start] + TEXT[chunks[1].end :])
    assert without_one == gate.measure(without(chunks[1]))
    assert gate.compare(TEXT, TEXT).mean == gate.compare(TEXT, TEXT).minimum == 1.0
    assert embedder.texts == []
    reworded = gate.compare(TEXT, TEXT.replace(LINES[30].encode(), b"Of line 30 and the 30th year of Ulm."))
    assert without_one.mean < reworded.mean < 1.0
    assert (reworded.whole, reworded.gone, len(embedder.texts)) == (len(chunks) - 1, 0, 2)
    assert gate.compare(TEXT, b"").mean == 0.0


class Broken(Letters):
    """An embedder that is asked for vectors and has none to give."""

    def __init__(self, made: object, *, ready: bool = True) -> None:
        super().__init__(ready=ready)
        self.made = made

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if isinstance(self.made, Exception):
            raise self.made
        return np.full((len(texts), 4), self.made, np.float32)

    def warm(self) -> None:
        """Never become ready."""


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (float("nan"), "has made no vector of a text"),
        (0.0, "has made no vector of a text"),
        (float("inf"), "has made no vector of a text"),
        (MemoryError("no room"), "no room"),
        (InputError("the weights are others", hint="Reinstall it"), "the weights are others. Reinstall it"),
    ],
)
def test_what_makes_no_vectors_refuses_and_says_why(made: object, said: str) -> None:
    gate = Gate(Vectors(Broken(made)))
    for _ in range(2):  # nothing of it is remembered
        verdict, coverage = gate.check(without(Span(10, 40)))
        assert not verdict
        assert coverage is None
        assert said in (verdict.reason or "")
    assert said in (gate.warm_up() or "")
    assert gate.warmth == "failed"
    assert not len(gate.vectors)


def test_a_model_that_cannot_be_loaded_is_not_said_to_be_loading_for_ever() -> None:
    gate = Gate(Vectors(Broken(InputError("the weights are others"), ready=False)), seconds=1.0)
    assert gate.warmth == "loading"
    first, _ = gate.check(without(Span(10, 40)))
    assert "being loaded" in (first.reason or "")
    assert gate.ingest.wait(10)
    again, _ = gate.check(without(Span(10, 40)))
    assert "the model cannot be loaded: InputError: the weights are others" in (again.reason or "")
    assert gate.warmth == "failed"


def test_warming_up_makes_ready() -> None:
    gate = Gate(Vectors(Letters()))
    assert gate.warm_up() is None
    assert gate.warmth == "ready"
