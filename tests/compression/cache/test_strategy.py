from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.cache import Cache, CacheCounts, CachedStrategy
from apportion.compression.cache.sqlite_level import SqliteLevel
from apportion.compression.cache.strategy import decode, encode
from apportion.compression.markers import Lines
from apportion.compression.pipeline import Chain, Lossless
from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.compression.store import Handle, HandleStore
from apportion.compression.strategies.cutting import Cut, CutStrategy
from apportion.compression.strategies.literals import Literals
from apportion.compression.strategies.types import (
    BaseStrategy,
    Estimate,
    Gap,
    Held,
    Item,
    Outcome,
    Query,
    Span,
    Verdict,
    count_bytes,
)
from apportion.errors import InputError
from apportion.testing import check_strategy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROWS = json.dumps([{"name": f"row {n}", "size": n, "path": f"src/file_{n}.py"} for n in range(40)]).encode()
LOG = b"".join(b"line %d of a log that says nothing new\n" % number for number in range(60))


class Middle(CutStrategy):
    """Leaves out all but the first and the last lines, and counts how often it is asked."""

    name = "middle"

    def __init__(self, store: HandleStore | None = None) -> None:
        super().__init__(store)
        self.kept = 2

    def choose(
        self,
        lines: Sequence[bytes],
        item: Item,  # noqa: ARG002
        target_tokens: int | None,  # noqa: ARG002
        query: Query,  # noqa: ARG002
    ) -> Sequence[Cut]:
        return [Cut(Lines(self.kept + 1, len(lines) - self.kept), "the middle")] if len(lines) > 2 * self.kept else []


class Counting(BaseStrategy):
    """Another strategy, and how often it is asked."""

    def __init__(self, strategy: Any) -> None:
        self.name = strategy.name
        self.strategy = strategy
        self.executed = self.validated = 0

    def estimate(self, item: Item, query: Query) -> Estimate:
        estimate: Estimate = self.strategy.estimate(item, query)
        return estimate

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        self.executed += 1
        outcome: Outcome = self.strategy.execute(item, target_tokens, query)
        return outcome

    def validate(self, original: Item, result: Outcome) -> Verdict:
        self.validated += 1
        verdict: Verdict = self.strategy.validate(original, result)
        return verdict


def cached(strategy: Any, cache: Cache | None = None, **options: Any) -> tuple[Counting, CachedStrategy]:
    counting = Counting(strategy)
    options = {"tenant_salt": b"t", "parameters": {}} | options
    return counting, CachedStrategy(counting, Cache() if cache is None else cache, **options)


def test_a_result_is_made_and_proved_once() -> None:
    counting, strategy = cached(Lossless())
    first = strategy.execute(Item(ROWS), None, Query())
    again = strategy.execute(Item(bytes(bytearray(ROWS))), None, Query())
    assert first == again == Lossless().execute(Item(ROWS), None, Query())
    assert first.changed
    assert strategy.validate(Item(ROWS), again)
    assert (counting.executed, counting.validated) == (1, 1)
    assert strategy.rollback(again) == ROWS
    assert strategy.estimate(Item(ROWS), Query()) == Lossless().estimate(Item(ROWS), Query())


def test_a_cached_strategy_keeps_the_laws_of_all_strategies() -> None:
    for inner in (Lossless(), Literals(), Middle(), Chain([Middle(), Lossless()], name="both")):
        check_strategy(CachedStrategy(inner, Cache(), tenant_salt=b"t"))


def test_results_outlive_the_process_in_the_second_level(tmp_path: Path) -> None:
    for expected in (CacheCounts(misses=1), CacheCounts(second_hits=1)):
        cache = Cache(second=SqliteLevel(tmp_path / "cache"))
        with SqliteHandleStore(tmp_path / "originals") as store:
            _, strategy = cached(Middle(store), cache)
            outcome = strategy.execute(Item(LOG), None, Query(can_expand=True))
            assert outcome == Middle(store).execute(Item(LOG), None, Query(can_expand=True))
            assert store.expand(outcome.handles[0]) == LOG
        cache.close()
        assert cache.counts() == expected


def test_a_result_whose_original_is_gone_is_made_anew() -> None:
    cache = Cache()
    query = Query(can_expand=True)
    for turn in range(2):
        store = HandleStore()
        counting, strategy = cached(Middle(store), cache)
        outcome = strategy.execute(Item(LOG), None, query)
        assert store.expand(outcome.handles[0]) == LOG
        assert strategy.execute(Item(LOG), None, query) == outcome
        assert counting.executed == 1, turn


OTHERS: list[tuple[str, Any]] = [
    ("content", (Item(ROWS + b" "), None, Query())),
    ("name", (Item(ROWS, name="Read"), None, Query())),
    ("pins", (Item(ROWS, pinned=(Span(0, 30),)), None, Query())),
    ("other pins", (Item(ROWS, pinned=(Span(0, 31),)), None, Query())),
    ("held", (Item(ROWS, held=(Held("#1", b"x"),)), None, Query())),
    ("held elsewhere", (Item(ROWS, held=(Held("#2", b"x"),)), None, Query())),
    ("held otherwise", (Item(ROWS, held=(Held("#1", b"y"),)), None, Query())),
    ("target", (Item(ROWS), 100, Query())),
    ("target of nothing", (Item(ROWS), 0, Query())),
    ("task", (Item(ROWS), None, Query(task="find row 7"))),
    ("expansion", (Item(ROWS), None, Query(can_expand=True))),
    ("nonce", (Item(ROWS), None, Query(nonce="7f3a"))),
]


def test_whatever_a_result_depends_on_is_part_of_its_key() -> None:
    counting, strategy = cached(Lossless())
    strategy.execute(Item(ROWS), None, Query())
    for number, (what, arguments) in enumerate(OTHERS, start=2):
        strategy.execute(*arguments)
        assert counting.executed == number, what
    for _, arguments in OTHERS:
        strategy.execute(*arguments)
    assert counting.executed == 1 + len(OTHERS)


@pytest.mark.parametrize(
    "change",
    [{"tenant_salt": b"other"}, {"tokenizer": "cl100k_base"}, {"model_hash": "1"}, {"parameters": {"keep": 3}}],
)
def test_tenants_tokenizers_models_and_parameters_share_nothing(change: dict[str, Any]) -> None:
    cache = Cache()
    for options, executed in (({}, 1), (change, 1), ({}, 0), (change, 0)):
        counting, strategy = cached(Lossless(), cache, **options)
        strategy.execute(Item(ROWS), None, Query())
        assert counting.executed == executed


def test_parameters_are_taken_from_the_attributes_of_a_strategy() -> None:
    cache = Cache()
    query = Query(can_expand=True)
    two, three = Middle(store := HandleStore()), Middle(store)
    three.kept = 3
    outcomes = [
        CachedStrategy(inner, cache, tenant_salt=b"").execute(Item(LOG), None, query) for inner in (two, three, two)
    ]
    assert outcomes[0] == outcomes[2] != outcomes[1]
    assert cache.counts().hits == 1


def test_a_strategy_that_cannot_be_described_needs_its_parameters_named() -> None:
    strategy = Middle()
    strategy.model = object()  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"what middle\.model stands for"):
        CachedStrategy(strategy, Cache(), tenant_salt=b"")
    CachedStrategy(strategy, Cache(), tenant_salt=b"", parameters={"model": "m"})


def test_another_count_of_tokens_is_not_cached_unless_it_is_named() -> None:
    counting, strategy = cached(Lossless())
    for _ in range(2):
        strategy.execute(Item(ROWS), None, Query(count=len))
    assert counting.executed == 2
    counting, strategy = cached(Lossless(), count=len, tokenizer="bytes")
    for _ in range(2):
        assert strategy.execute(Item(ROWS), None, Query(count=len)).original_tokens == len(ROWS)
    assert counting.executed == 1


def test_what_cannot_be_made_shorter_is_not_tried_again() -> None:
    counting, strategy = cached(Lossless())
    for _ in range(2):
        outcome = strategy.execute(Item(b"short"), None, Query())
        assert (outcome.content, outcome.changed) == (b"short", False)
        assert outcome.reasons
    assert counting.executed == 1


def test_what_failed_is_tried_again() -> None:
    class Raising(Middle):
        def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:  # noqa: ARG002
            raise RuntimeError("broken")

    full = Middle(HandleStore(max_bytes=1))
    for inner, reason in ((Raising(), "RuntimeError: broken"), (full, "StoreError: ")):
        counting, strategy = cached(inner)
        for _ in range(2):
            outcome = strategy.execute(Item(LOG), None, Query(can_expand=True))
            assert outcome.content == LOG
            assert outcome.reasons[0].startswith(f"middle: {reason}")
        assert counting.executed == 2
    full.store.max_bytes = None
    assert strategy.execute(Item(LOG), None, Query(can_expand=True)).changed


@pytest.mark.parametrize(
    "kept", [b"", b"\0\0\0\1", b"\0\0\0\2{}", b"\xff\xff\xff\xff{}", b"\0\0\0\4null", b"\0\0\0\2[]"]
)
def test_what_is_no_result_is_made_anew(kept: bytes) -> None:
    class Wrong(Cache):
        def get_or_compute(self, key: bytes, compute: Any) -> bytes:  # noqa: ARG002
            return kept

    _, strategy = cached(Lossless(), Wrong())
    assert strategy.execute(Item(ROWS), None, Query()) == Lossless().execute(Item(ROWS), None, Query())


HANDLES = st.binary(max_size=4).map(Handle.of)
OUTCOMES = st.builds(
    Outcome,
    content=st.binary(max_size=20),
    original=st.binary(max_size=20),
    tokens=st.integers(0, 99),
    original_tokens=st.integers(0, 99),
    steps=st.lists(st.text(max_size=4), max_size=3).map(tuple),
    reasons=st.lists(st.text(st.sampled_from("a\n\0\ud800字"), max_size=4), max_size=3).map(tuple),
    handles=st.lists(HANDLES, max_size=3).map(tuple),
    gaps=st.lists(
        st.builds(Gap, st.builds(Span, st.integers(0, 9), st.integers(0, 9)), HANDLES, st.text(max_size=4)), max_size=3
    ).map(tuple),
)


@given(OUTCOMES, st.data())
def test_a_result_is_read_as_it_was_written_and_only_for_its_original(outcome: Outcome, data: st.DataObject) -> None:
    kept = encode(outcome)
    assert decode(kept, outcome.original) == outcome
    assert decode(kept, outcome.original + b"x") is None
    unchanged = replace(outcome, content=outcome.original)
    assert decode(encode(unchanged), outcome.original) == unchanged
    damaged = bytearray(kept)
    damaged[data.draw(st.integers(0, len(kept) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    decode(bytes(damaged), outcome.original)  # whatever it is, nothing is raised


def test_the_default_count_is_that_of_queries() -> None:
    assert Query().count is count_bytes
