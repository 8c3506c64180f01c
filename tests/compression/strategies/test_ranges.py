from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.markers import Lines
from apportion.compression.store import HandleStore
from apportion.compression.strategies.ranges import Ranges, _best_ranges, _ends, is_code, relied_on
from apportion.compression.strategies.types import Held, Item, Outcome, Query, Span
from apportion.compression.validation.facts import extract_facts, missing_facts
from apportion.errors import InputError
from apportion.testing import check_strategy, contents, hostile_texts

if TYPE_CHECKING:
    from collections.abc import Callable

CAN = Query(can_expand=True)
REPORT = "".join(f"the host web-{number} answered in {number * 7 + 100} ms on the first try\n" for number in range(40))
KNOWN = Held("#1", REPORT.encode())


def cut(text: str, *held: Held, query: Query = CAN, **options: float | bool) -> Outcome:
    return Ranges(**options).execute(Item(text.encode(), held=held), None, query)  # type: ignore[arg-type]


def test_lines_that_say_what_is_held_already_go_behind_one_marker() -> None:
    outcome = cut(f"checked again at 10:20:30\n{REPORT}all of 41 answered\n", KNOWN)
    first, marker, last = outcome.content.decode().splitlines()
    assert (first, last) == ("checked again at 10:20:30", "all of 41 answered")
    assert "lines 2-41 left out: nothing new; expand h:" in marker
    assert outcome.handles
    assert [gap.span.start for gap in outcome.gaps] == [len(first) + 1]


def test_what_a_cut_relies_on_is_told() -> None:
    half = REPORT[: len(REPORT) // 2]
    held = (Held("#1", b"nothing"), Held("#2", half.encode()), Held("#3", KNOWN.content))
    item = Item(f"again\n{REPORT}".encode(), held=held)
    outcome = Ranges().execute(item, None, CAN)
    assert relied_on(item, outcome) == ("#2", "#3")
    assert relied_on(Item(REPORT.encode()), Ranges().execute(Item(REPORT.encode()), None, CAN)) == ()


def test_nothing_new_is_cut_and_each_fact_stays_visible_where_none_may_go() -> None:
    assert not cut(REPORT).changed
    outcome = cut(REPORT + "and once more:\n" + REPORT)
    assert not missing_facts(extract_facts(REPORT), outcome.content.decode())
    assert outcome.saved_share > 0.4


def test_prose_goes_only_where_it_is_said_elsewhere_in_the_same_words() -> None:
    policy = "\n".join(
        f"The {who} may ask the {whom} to {do} the request and the {whom} may then {do} the {who} instead."
        for who, whom, do in [("agent", "guest", "change"), ("guest", "owner", "refuse"), ("owner", "agent", "close")]
        * 2
    )
    other = " ".join(sorted(policy.split()))  # all of its words, none of its sentences
    assert not cut(policy[: len(policy) // 2], Held("#1", other.encode())).changed
    assert cut(policy, Held("#1", policy.encode() + b" ")).changed


def test_words_that_stand_nowhere_else_are_worth_what_they_cost() -> None:
    said = ["alpha waits for every neighbour", "beta sings while gamma sleeps", "delta forgot where epsilon lives"]
    prose = "\n".join(f"{line}; {line[::-1]}" for line in said + [line.upper()[::2] for line in said])
    assert not cut(prose).changed
    assert cut(prose, Held("#1", f"{prose} ".encode())).changed


def test_a_price_lets_facts_go_and_a_share_keeps_as_many_as_it_says() -> None:
    facts = extract_facts(REPORT)

    def shown(outcome: Outcome) -> float:
        return 1 - len(missing_facts(facts, outcome.content.decode())) / len(facts)

    cheap, dear = cut(REPORT, price=3), cut(REPORT, price=30)
    assert cheap.tokens < dear.tokens == cut(REPORT).tokens
    for share in (0.5, 0.85, 0.95):
        assert shown(cut(REPORT, visible=share)) >= share
    assert cut(REPORT, visible=0.5).tokens < cut(REPORT, visible=0.95).tokens


@pytest.mark.parametrize(
    "line",
    [
        "## Results of the first try",
        "ERROR: the host web-3 answered not",
        "You must never answer the host",
        "@@ -1,3 +1,3 @@",
    ],
)
def test_the_skeleton_stays(line: str) -> None:
    held = Held("#1", f"{REPORT}{line} \n".encode())
    outcome = cut(f"{REPORT[:700]}\n{line}\n{REPORT[700:]}", held)
    assert outcome.changed
    assert line in outcome.content.decode().splitlines()


def test_what_the_task_asks_about_stays_with_its_neighbours() -> None:
    held = Held("#1", REPORT.replace("web-17 ", "web-17  ").encode())
    task = Query(task="Why is web-17 slow?", can_expand=True)
    assert "web-17 answered" not in cut(REPORT, held).content.decode()
    shown = cut(REPORT, Held("#1", f" {REPORT}".replace("\n", " \n").encode()), query=task).content.decode()
    assert all(f"web-{number} answered" in shown for number in (16, 17, 18))


def test_pinned_lines_stay() -> None:
    text = f"again\n{REPORT}".encode()
    start = text.index(b"the host web-20")
    outcome = Ranges().execute(Item(text, pinned=(Span(start, start + 20),), held=(KNOWN,)), None, CAN)
    assert b"the host web-20 " in outcome.content


def test_a_title_never_goes_alone() -> None:
    lines = ["title:\n", "    below 1\n", "\n", "    below 2\n", "next\n"]
    assert _ends(lines) == [4, 2, 3, 4, 5]
    sizes, free = [10.0] * 5, [0.0] * 5
    assert _best_ranges(sizes, [0, 1e9, 0, 0, 0], _ends(lines)) == [(2, 5)]
    assert _best_ranges(sizes, free, _ends(lines)) == [(0, 5)]
    assert _ends(["Title: x\n", "Opened by: y\n", "\n", "text\n"]) == [2, 2, 3, 4]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), max_size=9))
def test_the_ranges_are_the_best_of_all(lines: list[tuple[int, int]]) -> None:
    sizes, losses = [float(size) for size, _ in lines], [float(loss) for _, loss in lines]

    def cost(kept: int) -> float:
        total, open_range = 0.0, False
        for number, size in enumerate(sizes):
            stays = bool(kept >> number & 1)
            total += size if stays else losses[number] + (0 if open_range else 16)
            open_range = not stays
        return total

    ranges = _best_ranges(sizes, losses, list(range(1, len(lines) + 1)))
    cut_lines = {number for first, last in ranges for number in range(first, last)}
    found = sum(1 << number for number in range(len(lines)) if number not in cut_lines)
    assert cost(found) == min(map(cost, range(1 << len(lines))))


def test_code_is_cut_only_for_those_who_do_not_edit_it() -> None:
    code = "".join(f"def step_{n}(value):\n    result = value * factor\n    return result\n\n\n" for n in range(30))
    held = Held("#1", f"# {code}".encode())
    assert is_code(code)
    assert not cut(code, held).changed
    assert cut("x = 1\n" + code.replace("def step", "step"), held, keeps_code=False).changed
    hits = "".join(f"src/app.py:{n}:def step_{n}(value):\n" for n in range(30))
    assert not is_code(hits)
    assert not is_code("@@ -1,3 +1,3 @@\n" + code)


def test_json_of_several_lines_is_left_whole() -> None:
    text = "{\n" + ",\n".join(f'  "web-{n}": {{"ms": {n * 7 + 100}}}' for n in range(40)) + "\n}\n"
    assert not cut(text, Held("#1", text.encode())).changed


def test_a_receiver_that_cannot_expand_gets_all_of_it() -> None:
    assert not cut(REPORT, KNOWN, query=Query()).changed


def test_a_full_store_sends_the_original() -> None:
    outcome = Ranges(HandleStore(max_bytes=10)).execute(Item(REPORT.encode(), held=(KNOWN,)), None, CAN)
    assert outcome.content == REPORT.encode()
    assert "StoreError" in outcome.reasons[0]


@settings(max_examples=settings().max_examples // 4)
@given(contents(), contents())
def test_whatever_is_cut_comes_back(content: bytes, held: bytes) -> None:
    strategy = Ranges(visible=0.5)
    item = Item(content, held=(Held("#1", held),))
    outcome = strategy.execute(item, None, CAN)
    assert strategy.validate(item, outcome)
    assert strategy.restore(outcome) == content


@pytest.mark.parametrize("kind", ["many templates", "bracket lines", "equal lines", "empty lines"])
def test_ten_times_as_much_hostile_text_takes_about_ten_times_as_long(kind: str, growth: Callable[..., float]) -> None:
    strategy = Ranges(visible=0.85, keeps_code=False)
    query = Query(task="find it in src/app.py", count=len, can_expand=True)

    def prepare(size: int) -> Callable[[], object]:
        item = Item(hostile_texts(size)[kind].encode())
        return lambda: strategy.execute(item, None, query)

    assert growth(prepare, 10_000) < 25


def test_it_conforms() -> None:
    check_strategy(Ranges())
    check_strategy(Ranges(price=4, keeps_code=False))


def test_lines_are_counted_from_1() -> None:
    assert str(Lines(3, 3)) == "3"


@pytest.mark.parametrize("options", [{"price": -1}, {"visible": 1.5}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Ranges(**options)  # type: ignore[arg-type]
