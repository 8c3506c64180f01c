# ruff: noqa: ARG002  (the arguments are those of the protocol)
from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.pipeline import (
    GROUP,
    LEVELS,
    Best,
    Chain,
    Composite,
    Lossless,
    Recoverable,
    apply,
    load_strategies,
    recoverable,
    restore,
)
from apportion.compression.store import HandleStore
from apportion.compression.strategies.code_outline import CodeOutline
from apportion.compression.strategies.extractive import Extractive
from apportion.compression.strategies.grep_groups import GrepGroups
from apportion.compression.strategies.json_columns import JsonColumns
from apportion.compression.strategies.literals import Literals
from apportion.compression.strategies.log_templates import LogTemplates
from apportion.compression.strategies.ranges import Ranges
from apportion.compression.strategies.repeats import Repeats
from apportion.compression.strategies.types import (
    BaseStrategy,
    Estimate,
    Held,
    Item,
    Outcome,
    Query,
    Span,
    Strategy,
    Verdict,
)
from apportion.compression.strategies.white_space import WhiteSpace
from apportion.errors import InputError
from apportion.testing import check_strategy, contents

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][GROUP]
CHEAP = Query(count=len)
ROWS = json.dumps([{"id": number, "name": f"name {number}", "ok": True} for number in range(30)]).encode()


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declare entry points as an installed package would."""

    def declare(**points: str) -> None:
        found = [EntryPoint(name, value, GROUP) for name, value in points.items()]
        monkeypatch.setattr("apportion.plugins.entry_points", lambda **_: found)

    return declare


class Short(BaseStrategy):
    """Keeps the first half."""

    name = "short"

    def estimate(self, item: Item, query: Query) -> Estimate:
        outcome = self.execute(item, None, query)
        return Estimate(outcome.tokens, outcome.original_tokens, lossless=False)

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        half = item.content[: len(item.content) // 2]
        before, after = query.count(item.content), query.count(half)
        if after >= before or any(pin not in half for pin in item.pins()):
            return Outcome.unchanged(item.content, before, "short: does not apply")
        return Outcome(half, item.content, after, before, steps=(self.name,))


class Raising(Short):
    name = "raising"

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        raise RuntimeError("no")


class Growing(Short):
    name = "growing"

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        tokens = query.count(item.content)
        return Outcome(item.content * 2, item.content, 2 * tokens, tokens, steps=(self.name,))


class Lying(Growing):
    """Says that what grew did not, and accepts everything."""

    name = "lying"

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        return replace(super().execute(item, target_tokens, query), tokens=1)

    def validate(self, original: Item, result: Outcome) -> Verdict:
        return Verdict(accepted=True)


class Refusing(Short):
    name = "refusing"

    def validate(self, original: Item, result: Outcome) -> Verdict:
        return Verdict(accepted=False, reason="a whim")


class Text(Short):
    name = "text"

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Any:
        return replace(super().execute(item, target_tokens, query), content="text")  # type: ignore[arg-type]


class Nothing(Short):
    name = "nothing"

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Any:
        return None


class Changing(Short):
    name = "changing"

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        return replace(super().execute(item, target_tokens, query), original=b"another")


class Unlike(Short):
    """Does another thing each time."""

    name = "unlike"

    def __init__(self) -> None:
        self.calls = 0

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        self.calls += 1
        outcome = super().execute(item, target_tokens, query)
        return replace(outcome, reasons=(str(self.calls),))


class Hiding(Short):
    """Has no regard for pins."""

    name = "hiding"

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        return super().execute(replace(item, pinned=()), target_tokens, query)


class Credulous(Short):
    name = "credulous"

    def validate(self, original: Item, result: Outcome) -> Verdict:
        return Verdict(accepted=True)


def test_our_strategies_join_through_the_entry_point(entry_points: Callable[..., None]) -> None:
    entry_points(**DECLARED)
    strategies, broken = load_strategies()
    assert {name: type(strategy) for name, strategy in strategies.items()} == {
        "code_outline": CodeOutline,
        "extractive": Extractive,
        "grep_groups": GrepGroups,
        "json_columns": JsonColumns,
        "literals": Literals,
        "log_templates": LogTemplates,
        "lossless": Lossless,
        "ranges": Ranges,
        "recoverable": Recoverable,
        "repeats": Repeats,
        "white_space": WhiteSpace,
    }
    assert all(strategy.name == name for name, strategy in strategies.items())
    assert broken == ()


def test_broken_strategies_are_reported_and_the_others_work(entry_points: Callable[..., None]) -> None:
    entry_points(gone="no.such.module:Strategy", odd="json:dumps", **DECLARED)
    strategies, broken = load_strategies()
    assert len(strategies) == len(DECLARED)
    assert broken == (
        "unknown:gone: strategy does not load: ModuleNotFoundError: No module named 'no'",
        "unknown:odd: strategy does not load: function does not follow the strategy protocol",
    )


def test_the_default_conforms() -> None:
    check_strategy(Lossless())
    check_strategy(Literals())
    check_strategy(Short())
    check_strategy(Chain([Short(), JsonColumns()], name="both"))
    check_strategy(Best([Short(), JsonColumns()], name="either"))


@pytest.mark.parametrize(
    ("strategy", "law"),
    [
        (Raising(), "it raises nothing"),
        (Growing(), "it adds no tokens"),
        (Lying(), "it counts tokens as it was asked to"),
        (Text(), "the content of an outcome is bytes"),
        (Nothing(), "returns an Outcome, not NoneType"),
        (Changing(), "carries the original"),
        (Unlike(), "it does the same to the same item"),
        (Refusing(), "it accepts what it made"),
        (Hiding(), "it shows what is pinned"),
        (Credulous(), "it refuses a damaged result"),
        (object(), "it has name"),
    ],
)
def test_a_breach_of_the_protocol_is_named(strategy: Any, law: str) -> None:
    with pytest.raises(AssertionError, match=law.replace("(", r"\(")):
        check_strategy(strategy)


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (Raising(), "raising: RuntimeError: no"),
        (Growing(), "growing: refused: grew from 20 to 40 tokens"),
        (Lying(), "lying: refused: grew by 20 tokens"),
        (Refusing(), "refusing: refused: a whim"),
        (Nothing(), "nothing: AttributeError: 'NoneType' object has no attribute 'original'"),
        (Changing(), "changing: refused: the result is of another original"),
    ],
)
def test_a_failing_step_leaves_the_content_and_says_why(strategy: Strategy, reason: str) -> None:
    item = Item(b"a text of 20 letters")
    assert apply(strategy, item, CHEAP) == Outcome.unchanged(item.content, 20, reason)
    chain = Chain([strategy, Short()], name="chain")
    outcome = chain.execute(item, None, CHEAP)
    assert (outcome.content, outcome.steps, outcome.reasons) == (b"a text of ", ("short",), (reason,))


@settings(max_examples=settings().max_examples // 4)
@given(content=contents())
def test_the_default_restores_any_content_from_what_is_visible(content: bytes) -> None:
    item = Item(content)
    strategy = Lossless()
    outcome = strategy.execute(item, None, CHEAP)
    assert len(outcome.content) <= len(content)
    assert restore(outcome, [strategy]) == content
    assert strategy.validate(item, outcome)


@settings(max_examples=settings().max_examples // 4)
@given(texts=st.lists(contents(), max_size=3), data=st.data())
def test_the_default_keeps_pins_and_refers_to_what_is_held(texts: list[bytes], data: st.DataObject) -> None:
    content = b"\n".join([*texts, b"end"])
    start = data.draw(st.integers(0, len(content)))
    span = Span(start, data.draw(st.integers(start, len(content))))
    held = tuple(Held(f"#{number}", text) for number, text in enumerate(texts))
    outcome = Lossless().execute(Item(content, pinned=(span,), held=held), None, CHEAP)
    assert content[span.start : span.end] in outcome.content
    assert restore(outcome, [Lossless()], held) == content


def test_what_the_receiver_holds_is_not_sent_again() -> None:
    held = (Held("#3", ROWS), Held("#4", b"something else"))
    outcome = Lossless().execute(Item(ROWS, held=held), None, Query())
    assert outcome.steps == ("repeats",)
    assert outcome.content.endswith(b"@=#3:1")
    assert outcome.saved_share > 0.9
    with pytest.raises(KeyError):
        restore(outcome, [Lossless()])


def test_the_best_of_several_is_the_shortest() -> None:
    best = Best([GrepGroups(), JsonColumns(), LogTemplates()], name="best")
    outcome = best.execute(Item(ROWS), None, Query())
    assert outcome.steps == ("json_columns",)
    assert outcome.reasons == ("grep_groups: does not apply", "log_templates: does not apply")
    assert best.estimate(Item(ROWS), Query()) == Estimate(outcome.tokens, outcome.original_tokens, lossless=True)
    assert not best.execute(Item(b"text"), None, Query()).changed
    assert Best([], name="none").execute(Item(b"text"), None, Query()).reasons == ("none: no strategies",)


def test_a_damaged_result_of_a_chain_is_refused() -> None:
    item, strategy = Item(ROWS), Lossless()
    outcome = strategy.execute(item, None, Query())
    assert strategy.validate(item, outcome)
    other = strategy.validate(item, replace(outcome, content=outcome.content.replace(b"name 7", b"name 8")))
    assert other == (False, "does not restore the original")
    assert "cannot be restored" in (strategy.validate(item, replace(outcome, content=b"x")).reason or "")


def test_what_loses_something_cannot_be_restored_from_the_content_alone() -> None:
    chain = Chain([Short()], name="chain")
    outcome = chain.execute(Item(ROWS), None, Query())
    assert not chain.estimate(Item(ROWS), Query()).lossless
    assert chain.rollback(outcome) == ROWS
    with pytest.raises(ValueError, match="short cannot be undone"):
        restore(outcome, [chain])


def test_a_composite_leaves_to_others_what_it_does() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Composite([], name="nothing")  # type: ignore[abstract]


def test_literals_are_folded_for_receivers_that_can_expand_only() -> None:
    literal = "".join(chr(65 + number * 7 % 26) + f"x{number % 10}" for number in range(300)).encode()
    content = b'{"image":"data:image/png;base64,' + literal + b'","n":1}'
    store = HandleStore()
    strategy = Literals(store)
    assert strategy.execute(Item(content), None, Query()).reasons == ("literals: the receiver cannot expand",)
    able = Query(can_expand=True)
    outcome = strategy.execute(Item(content), None, able)
    assert len(outcome.content) < 120
    assert store.expand(outcome.handles[0]) == literal
    assert strategy.restore(outcome.content, outcome.handles) == content
    assert strategy.validate(Item(content), outcome)
    assert not strategy.validate(Item(content), replace(outcome, content=b"x"))
    assert not strategy.estimate(Item(content), able).lossless
    pinned = strategy.execute(Item(content, pinned=(Span(40, 50),)), None, able)
    assert pinned.reasons == ("literals: does not apply",)
    full = Literals(HandleStore(max_entries=0)).execute(Item(content), None, able)
    assert full.content == content
    assert "StoreError" in full.reasons[0]
    forged = Item(content + outcome.content)
    assert strategy.execute(forged, None, able).reasons == ("literals: ValueError: the content holds the stub already",)


CAN = Query(can_expand=True)
HITS = "".join(f"src/web/app.py:{number}:    return render({number * 7 + 100}, at=host)\n" for number in range(40))
KNOWN = Held("#1", HITS.replace("return", "return  ").encode())
NEW = "".join(f"src/web/other.py:{number}:    yield load({number * 13 + 100}, by=name)\n" for number in range(40))


def test_cuts_come_first_and_what_is_left_is_encoded() -> None:
    item = Item((NEW + HITS).encode(), held=(KNOWN,))
    outcome = Recoverable().execute(item, None, CAN)
    assert outcome.steps[0] == "ranges"
    assert outcome.steps[1:] == ("grep_groups", "log_templates")
    assert len(outcome.gaps) == 1
    assert outcome.tokens < Lossless().execute(item, None, CAN).tokens


def test_a_cut_and_encoded_result_is_undone_from_the_text_and_the_store_and_damage_is_refused() -> None:
    strategy = Recoverable()
    item = Item((NEW + HITS).encode(), held=(KNOWN,))
    outcome = strategy.execute(item, None, CAN)
    assert restore(outcome, [strategy], item.held) == item.content
    assert strategy.validate(item, outcome)
    damaged = replace(outcome, content=outcome.content.replace(b" 607", b" 608"))
    assert damaged.content != outcome.content
    assert not strategy.validate(item, damaged)
    assert not strategy.validate(item, replace(outcome, gaps=()))
    stranger = Recoverable()
    assert "StoreError" in str(stranger.validate(item, outcome).reason)


def test_where_nothing_can_be_cut_the_lossless_form_is_sent() -> None:
    assert (
        Recoverable().execute(Item(NEW.encode()), None, CAN).content
        == Lossless().execute(Item(NEW.encode()), None, CAN).content
    )
    assert Recoverable().execute(Item((NEW + HITS).encode(), held=(KNOWN,)), None, Query()).handles == ()


def test_a_target_that_the_lossless_form_reaches_cuts_nothing() -> None:
    item = Item((NEW + HITS).encode(), held=(KNOWN,))
    assert not Recoverable().execute(item, 10_000, CAN).gaps


def test_levels_are_named_by_what_stays_visible() -> None:
    tokens = [recoverable(level).execute(Item(NEW.encode()), None, CAN).tokens for level in LEVELS]
    assert tokens == sorted(tokens, reverse=True)
    assert tokens[-1] < tokens[0]
    assert [recoverable(level).name for level in LEVELS] == list(LEVELS)
    with pytest.raises(InputError):
        recoverable("recoverable_12")


def test_a_cut_after_another_step_is_not_undone() -> None:
    outcome = Outcome(b"x", b"y", 1, 1, steps=("grep_groups", "ranges"))
    with pytest.raises(ValueError, match="ranges cannot be undone"):
        restore(outcome, [Chain([GrepGroups(), Ranges()], name="wrong")])


@settings(max_examples=settings().max_examples // 4)
@given(contents(), contents())
def test_whatever_is_cut_and_encoded_comes_back(content: bytes, held: bytes) -> None:
    strategy = recoverable("recoverable_85")
    item = Item(content, held=(Held("#1", held),))
    outcome = strategy.execute(item, None, replace(CHEAP, can_expand=True))
    assert strategy.validate(item, outcome)
    assert restore(outcome, [strategy], item.held) == content


def test_recoverable_conforms() -> None:
    strategy = Recoverable()
    check_strategy(strategy)
    assert isinstance(strategy.store, HandleStore)
