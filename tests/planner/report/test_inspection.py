from __future__ import annotations

import io
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from apportion.compression.markers import Lines
from apportion.compression.pipeline import Lossless, apply
from apportion.compression.store import HandleStore
from apportion.compression.strategies.cutting import Cut, CutStrategy
from apportion.compression.strategies.types import Item, Outcome, Query
from apportion.errors import InputError
from apportion.planner.report import inspection_html
from apportion.planner.report.inspection import Inspection, Row, inspect_outcome, side_by_side
from apportion.planner.report.inspection_html import inspection_page, write_inspection
from apportion.planner.report.inspection_terminal import MAX_LINE, folded, render_inspection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

EVIL = "</td></table></style></script><script>document.title='broken'</script><img src=x onerror=\"x\">{{7*7}}'\"&amp;"
HOSTILE = f"{EVIL}\n\x1b[31mred\x1b[0m\x07\u202etxt.exe\n[bold]markup[/bold]\n\ttabbed\r\n" + "x" * 5000

LINES = st.lists(st.sampled_from(["", "a", "b", "unique", "}", "}"]), max_size=12)


class Middle(CutStrategy):
    name = "middle"

    def choose(self, lines: Sequence[bytes], item: Item, target_tokens: int | None, query: Query) -> Sequence[Cut]:  # noqa: ARG002
        return [Cut(Lines(3, len(lines) - 2), "nothing new")] if len(lines) > 6 else []


class Page(HTMLParser):
    """The elements and the text of a page, as a parser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.policy: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]

    def handle_data(self, data: str) -> None:
        self.text += data


def cut(content: bytes, *, can_expand: bool = True) -> Outcome:
    return apply(Middle(HandleStore()), Item(content), Query(can_expand=can_expand))


def log(lines: int = 40) -> bytes:
    return b"".join(b"line %d took %dms in src/app_%d.py\n" % (n, 10 * n, n) for n in range(1, lines + 1))


def printed(inspection: Inspection, *, lines: int | None = 60, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    render_inspection(inspection, console, lines=lines)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@given(LINES, LINES)
def test_all_lines_of_both_texts_are_shown_once_and_in_their_order(before: list[str], after: list[str]) -> None:
    rows = list(side_by_side(before, after))
    assert [row.before for row in rows if row.before] == list(enumerate(before, 1))
    assert [row.after for row in rows if row.after] == list(enumerate(after, 1))
    for row in rows:
        assert row.before or row.after
        if row.same:
            assert row.before is not None
            assert row.after is not None
            assert row.before[1] == row.after[1]


@given(LINES, st.integers(0, 12), st.integers(0, 12))
def test_what_a_cut_left_is_beside_itself(lines: list[str], start: int, end: int) -> None:
    numbered = [f"{number} {line}" for number, line in enumerate(lines)]
    rows = side_by_side(numbered, [*numbered[:start], "marker", *numbered[max(start, end) :]])
    kept = [row.before[1] for row in rows if row.same and row.before]
    assert kept == [*numbered[:start], *numbered[max(start, end) :]]


def test_equal_texts_are_the_same_from_end_to_end() -> None:
    rows = list(side_by_side(["}"] * 9, ["}"] * 9))
    assert all(row.same for row in rows)
    assert list(folded(rows)) == [9]


def test_equal_lines_far_from_a_difference_are_folded() -> None:
    before = [str(number) for number in range(30)]
    rows = list(folded(list(side_by_side(before, [*before[:15], "new", *before[15:]]))))
    assert rows[0] == 13
    assert rows[-1] == 13
    assert [row.same for row in rows[1:-1] if isinstance(row, Row)] == [True, True, False, True, True]


def test_large_texts_are_compared_in_linear_time(
    growth: Callable[[Callable[[int], Callable[[], object]], int], float],
) -> None:
    def prepare(size: int) -> Callable[[], object]:
        before = [str(number) if number % 3 else "}" for number in range(size)]
        after = [line for number, line in enumerate(before) if number % 7]
        return lambda: list(side_by_side(before, after))

    assert growth(prepare, 5_000) < 40


def test_an_inspection_says_what_was_left_out_and_how_to_have_it_back() -> None:
    outcome = cut(log())
    inspection = inspect_outcome(outcome, name="build.log")
    assert inspection.left_out == ((3, 38, len(log(38)) - len(log(2)), "nothing new", str(outcome.handles[0])),)
    assert inspection.facts.total > 80
    assert inspection.facts.total == inspection.facts.visible + len(inspection.facts.missing)
    assert inspection.facts.back == "expanded"
    assert "src/app_20.py" in inspection.facts.missing
    assert inspection.saved_share == outcome.saved_share
    data = inspection.to_json()
    assert data["left_out"][0]["handle"] == str(outcome.handles[0])
    assert "rows" not in data
    text = printed(inspection)
    assert f"lines 3-38, {len(log(38)) - len(log(2)):,} bytes: nothing new" in text
    assert "had back by expanding a handle" in text


def test_nothing_is_said_to_come_back_that_does_not() -> None:
    outcome = cut(log())
    lost = Outcome(outcome.content, outcome.original, 1, 2, ("x",), gaps=outcome.gaps)
    inspection = inspect_outcome(lost, name="n")
    assert inspection.facts.back is None
    assert inspection.left_out[0].handle is None
    assert "cannot be had back" in printed(inspection)
    assert "lost" in printed(inspection)


def test_a_content_that_was_left_alone_shows_all_its_facts() -> None:
    inspection = inspect_outcome(apply(Lossless(), Item(b"see 12345 in a/b.py"), Query()), name="n")
    assert inspection.facts.missing == ()
    assert "none, the original is sent" in printed(inspection)
    assert "What strategies did not do" in printed(inspection)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_gets_no_code_from_a_content(width: int) -> None:
    outcome = cut(HOSTILE.encode() + b"\n" + log())
    text = printed(inspect_outcome(outcome, name=HOSTILE), width=width, lines=None)
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(text)
    if width == 200:
        assert "[bold]markup[/bold]" in text


def test_the_terminal_shows_as_many_rows_as_asked_for() -> None:
    inspection = inspect_outcome(cut(log(200)), name="n")
    assert "more rows; --lines shows them" in printed(inspection, lines=5)
    assert "--lines" not in printed(inspection, lines=None)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\n\n\n", "\ufeffBOM".encode(), b"a\r\nb\r\n"])
def test_any_content_can_be_shown(content: bytes) -> None:
    inspection = inspect_outcome(apply(Lossless(), Item(content), Query()), name="n")
    assert printed(inspection)
    assert inspection_page(inspection)


def test_the_page_shows_a_hostile_content_as_text_and_loads_nothing() -> None:
    outcome = cut(HOSTILE.encode() + b"\n" + log() + HOSTILE.encode() + b"\nlast\n")
    page = inspection_page(inspect_outcome(outcome, name=f"{EVIL}\x1b[31m\u202e"))
    seen = Page(page)
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "base", "form"}
    assert not {name for name in seen.attributes if name.startswith("on") or name in {"src", "href"}}
    assert "{{7*7}}" in seen.text
    assert "document.title" in seen.text
    assert "default-src 'none'; style-src 'unsafe-inline'" in str(seen.policy)
    assert "script-src" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert not {"\x1b", "\x07", "\u202e"} & set(page)
    assert "x" * (MAX_LINE + 1) not in page
    assert "apportion expand h:" in seen.text


def test_the_page_has_a_limit_of_rows_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection_html, "ROWS", 5)
    page = inspection_page(inspect_outcome(cut(log()), name="n"))
    assert "more rows" in page
    assert "line 30 took" not in page


def test_the_page_is_written_as_a_whole_and_never_over_a_device(tmp_path: Path) -> None:
    inspection = inspect_outcome(cut(log()), name="n")
    write_inspection(inspection, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == inspection_page(inspection)
    with pytest.raises(InputError):
        write_inspection(inspection, tmp_path)
