from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.markers import Lines
from apportion.compression.strategies.cutting import Cut, CutStrategy
from apportion.compression.strategies.types import Item, Query
from apportion.compression.validation.check import check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[3]
TEXTS = sorted((ROOT / "fixtures" / "content").glob("*.txt"))
POLICY = """## Deployment

1. Wait 30 seconds, then call src/app.py with timeout=1500.
2. Never push to `main` unless Anna Weber agrees.
3. If it fails, retry 3 times; the limit is -5 °C.

{"host": "db1.example.com", "port": 5432, "size": "12 MB"}
2026-01-02T10:20:30Z ERROR worker-7: ConnectionError: refused after 30s
"""
HARD = [
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbfx\r\n1", b"\xed\xa0\x80 x_1", "א 12 ـ \u202e34".encode(),
    b"\\ud800 \\u00e9",
    b"\x01" + b"1. a", "不得删除3个文件。".encode(), b"1. 1. 1)", b"> > 1. x", b"-" * 50, b'"' * 9, b"a" * 3000,
]  # fmt: skip


@given(st.one_of(st.binary(max_size=300), st.sampled_from(HARD), st.text(max_size=200).map(str.encode)))
def test_a_text_is_accepted_as_itself(content: bytes) -> None:
    found = check(content, content, associations=True)
    assert found.accepted, found.reasons
    assert (found.visible_share, found.lost, found.new, found.lost_associations) == (1.0, (), (), ())


@given(st.text(alphabet="ab1 2.,:\n-_\"'`>*/[](){}\\=é不\u202e\x00", max_size=120), st.data())
def test_white_space_between_words_makes_no_difference(text: str, data: st.DataObject) -> None:
    words = [f"{word}" for word in text.split()]
    spaced = " ".join(words).replace(" ", data.draw(st.sampled_from(["  ", " \t", "   "])))
    assert not check(" ".join(words).encode(), spaced.encode()).lost_passages


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_real_text_is_accepted_as_itself_and_with_other_line_ends(path: Path) -> None:
    content = path.read_bytes()
    for result in (content, content.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + content + b"\n\n"):
        found = check(content, result)
        assert found.accepted, found.reasons


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("30 seconds", "80 seconds"), ("30 seconds", "30 minutes"), ("Never", "Always"), ("unless", "if"), ("-5", "5"),
        ("timeout=1500", "timeout=150"), ("src/app.py", "src/apq.py"), ("Anna Weber", "Anna Huber"), ("5432", "5423"),
        ("01-02", "02-01"), ("10:20:30Z", "10:20:31Z"), ("3 times", "5 times"), ("°C", "°F"), ("retry", "do not retry"),
        ("12 MB", "12 GB"), ("db1", "db2"), ("2. Never push to `main` unless Anna Weber agrees.\n", ""),
        ("; the limit is -5 °C", ""), ("refused after 30s", "refused"), ("1. Wait", "Send the report. Wait"),
    ],
)  # fmt: skip
def test_what_changes_the_meaning_is_rejected(old: str, new: str) -> None:
    assert old in POLICY
    assert not check(POLICY.encode(), POLICY.replace(old, new).encode()).accepted


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1500", "1,500"), ("## ", ""), ("1. ", "1) "), ("`main`", "**main**"), ('"', "'"),
        ("\n", "\n\n"),
        (", ", ",\n    "), ("the limit", "limit"), (": ", ":"), ("\n", "\n> "), ("12 MB", "12MB"), ("`", '"'),
    ],
)  # fmt: skip
def test_what_changes_the_layout_alone_is_accepted(old: str, new: str) -> None:
    assert old in POLICY
    found = check(POLICY.encode(), POLICY.replace(old, new).encode())
    assert found.accepted, found.reasons


def test_exchanged_values_are_seen_though_every_fact_is_still_there() -> None:
    found = check(b"alpha: 30, beta: 50, gamma: 70.", b"alpha: 50, beta: 30, gamma: 70.", associations=True)
    assert (found.visible_share, found.lost) == (1.0, ())
    assert not found.accepted
    assert found.lost_associations == ("alpha: 30", "beta: 50")


def test_what_is_lost_is_told_by_kind() -> None:
    found = check(b"Use db_1. Never wait 30 ms.", b"Use db_2. Never wait 30 ms. OK")
    assert (found.lost, found.new, found.lost_passages, found.new_passages) == (
        ("db_1",), ("db_2",), ("db_1",), ("db_2", "OK"),
    )  # fmt: skip
    assert "1 fact lost, first: 'db_1'" in found.reasons
    gone = check(b"Use db_1. Do not wait.", b"Use db_1. Do wait.")
    assert gone.negations == ("not",)
    assert gone.lost_constraints == ("Do not wait.",)


def test_a_passage_that_still_stands_elsewhere_may_go() -> None:
    line = "worker-7 fetched 4812 rows in 318 ms\n"
    assert check((line + "other\n" + line).encode(), (line + "other\n").encode()).accepted
    assert not check(b"x y other x y", b"x y other").accepted
    templated = [
        "worker 3 failed on host 7 today",
        "worker 3 failed on host 8 today",
        "worker 4 failed on host 7 today",
    ]
    assert not check("\n".join(templated).encode(), "\n".join(templated[1:]).encode()).accepted


def test_a_changed_order_is_rejected_and_told() -> None:
    first, second = b"one two three four five six seven.\n", b"alpha beta gamma delta epsilon zeta.\n"
    found = check(first + second + b"end of it all here", second + first + b"end of it all here")
    assert not found.accepted
    assert found.moved_passages or found.new_passages


class EveryOther(CutStrategy):
    """Leaves out ten lines of every twenty."""

    name = "every_other"

    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:  # noqa: ARG002
        return [Cut(Lines(at, at + 9), f"passing 12 tests of {at}") for at in range(11, len(lines) - 9, 20)]


LOG = "".join(
    f"2026-01-02 10:20:{at % 60:02d} worker-{at} fetched {at * 37} rows from /var/db_{at}\n" for at in range(99)
)


def test_what_is_behind_a_handle_is_recoverable_and_our_markers_are_not_new() -> None:
    outcome = EveryOther().execute(Item(LOG.encode()), None, Query(can_expand=True))
    assert len(outcome.gaps) == 4
    found = check(outcome.original, outcome.content, gaps=outcome.gaps)
    assert found.accepted, found.reasons
    assert found.visible_share < 0.7
    assert found.recoverable_share == 1.0
    assert "worker-15" in found.hidden
    assert not check(outcome.original, outcome.content).accepted
    assert not check(outcome.original, outcome.content + b"and 99 more", gaps=outcome.gaps).accepted
    assert not check(outcome.original, outcome.content.replace(b"worker-7 ", b"worker-9 "), gaps=outcome.gaps).accepted


def test_what_can_be_had_back_is_counted_apart() -> None:
    original, result = b"id_1 is 30 ms. id_2 is 50 ms.", b"id_1 is 30 ms. [more]"
    found = check(original, result, recoverable=original, markers=[b"[more]"])
    assert found.accepted
    assert (found.visible_facts, found.hidden_facts, found.hidden) == (2, 2, ("50", "id_2"))
    assert not check(original, result, recoverable=b"id_2 is 40 ms.", markers=[b"[more]"]).accepted


def test_a_word_that_turns_the_meaning_may_not_go_though_it_can_be_had_back() -> None:
    original = b"The tests did not pass. It took 30 s."
    for result in (b"The tests did pass. It took 30 s.", b"The tests did not pass. It took."):
        assert not check(original, result, recoverable=original, constraints_may_hide=True).accepted
    outcome = EveryOther().execute(Item(LOG.replace("fetched", "not fetched").encode()), None, Query(can_expand=True))
    damaged = outcome.content.replace(b"worker-7 not", b"worker-7", 1)
    assert check(outcome.original, outcome.content, gaps=outcome.gaps).accepted
    assert not check(outcome.original, damaged, gaps=outcome.gaps).accepted


def test_a_constraint_must_be_visible_unless_the_caller_says_otherwise() -> None:
    original, result = b"All went well today. Never push it to main.", b"All went well today."
    hidden = check(original, result, recoverable=original)
    assert not hidden.accepted
    assert hidden.hidden_constraints == ("Never push it to main.",)
    assert check(original, result, recoverable=original, constraints_may_hide=True).accepted


def test_what_is_proved_is_accepted_and_its_shares_are_stated() -> None:
    found = check(b'[{"id": "a_1"}, {"id": "a_2"}]', b"row(id): a_1", proved=True)
    assert found.accepted
    assert (found.visible_share, found.lost) == (0.5, ("a_2",))


@pytest.mark.parametrize("pattern", ["a 1, ", "1. a\n", "must not ", "a: 1; ", "\\u0031", "不得", "x_1'>"])
def test_ten_times_the_text_takes_about_ten_times_as_long(
    pattern: str, growth: Callable[[Callable[[int], Callable[[], object]], int], float]
) -> None:
    def prepare(size: int) -> Callable[[], object]:
        original = (pattern * (size // len(pattern))).encode()
        result = original[: size // 3] + b" changed 12 " + original[size // 2 :]
        return lambda: check(original, result)

    assert growth(prepare, 4_000) < 30


@pytest.fixture(scope="module")
def cases() -> tuple[list[Any], list[Any]]:
    """About 200 damages and as many rewrites, by the generator of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        made = importlib.import_module("_damages")
    texts = [path.read_text() for path in TEXTS] + [(ROOT / "CONTRIBUTING.md").read_text(), POLICY]
    return made.draw(made.DAMAGES, texts, per_kind=9), made.draw(made.REWRITES, texts, per_kind=9)


def test_injected_damages_are_rejected_and_harmless_rewrites_are_not(cases: tuple[list[Any], list[Any]]) -> None:
    damages, rewrites = cases
    assert len(damages) >= 200
    missed = [case.kind for case in damages if check(case.original.encode(), case.changed.encode()).accepted]
    refused = [case.kind for case in rewrites if not check(case.original.encode(), case.changed.encode()).accepted]
    assert len(missed) <= 0.005 * len(damages), Counter(missed)
    assert len(refused) <= 0.02 * len(rewrites), Counter(refused)


@pytest.mark.parametrize(
    ("off", "kinds"),
    [
        ({"lost_passages": ()}, {"removed negation", "dropped line", "truncated"}),
        ({"new_passages": ()}, {"added negation", "invented"}),
        ({"lost_passages": (), "new_passages": (), "moved_passages": ()}, {"changed digit", "swapped values"}),
    ],
)
def test_with_one_of_its_parts_switched_off_the_check_misses_damages(
    cases: tuple[list[Any], list[Any]], off: dict[str, tuple[str, ...]], kinds: set[str]
) -> None:
    found = [check(case.original.encode(), case.changed.encode()) for case in cases[0] if case.kind in kinds]
    assert not any(each.accepted for each in found)
    assert sum(replace(each, **off).accepted for each in found) > 0.02 * len(found)  # type: ignore[arg-type]
