from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings

from apportion.compression.pipeline import apply
from apportion.compression.strategies._code_units import units_of
from apportion.compression.strategies.code_outline import CodeOutline
from apportion.compression.strategies.types import Item, Query, Span
from apportion.testing import check_strategy, contents, hostile_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.compression.strategies.types import Outcome

BODY = "".join(f'    total = add(total, {n}, "some text that is long enough to be left out")\n' for n in range(12))
PYTHON = f'''import os

LIMIT = 3


class Parser:
    """Reads things."""

    strict = True

    @staticmethod
    def parse(text: str) -> int:
        """Parse a text.

        It takes long.
        """
{BODY.replace("    total", "        total")}        return total


def render(page: str) -> str:
{BODY}    return page


def short():
    return 1
'''
GO = f"""package main

// Parse reads }} and {{
func (p *Parser) Parse(text string,
	strict bool) error {{
	quote := "}}"
{BODY}	if strict {{
		return nil
	}}
	return nil
}}

type Page struct {{
	name string
	size int
	kind string
}}

func Render(page Page) string {{
{BODY}}}
"""
RUBY = f"class Parser\n  def parse(text)\n{BODY}{BODY}  end\n\n  def render\n{BODY}{BODY}  end\nend\n"


def outline(code: str, task: str = "", tokens: int | None = None, pinned: tuple[Span, ...] = ()) -> Outcome:
    strategy, item = CodeOutline(), Item(code.encode(), pinned=pinned)
    outcome = apply(strategy, item, Query(task=task, can_expand=True), target_tokens=tokens)
    assert not outcome.changed or strategy.restore(outcome) == item.content
    return outcome


def test_heads_and_the_first_line_of_documentation_stay_and_bodies_go() -> None:
    said = outline(PYTHON).content.decode()
    assert 'def parse(text: str) -> int:\n        """Parse a text.\n[' in said
    assert "left out: body of parse; expand h:" in said
    assert "LIMIT = 3" in said
    assert "strict = True" in said
    assert "def short():\n    return 1\n" in said
    assert "add(total" not in said


def test_the_body_that_the_task_is_about_stays() -> None:
    said = outline(PYTHON, "fix how a page is rendered by render()").content.decode()
    assert "body of parse" in said
    assert "body of render" not in said
    assert said.count("add(total") == 12


def test_bodies_stay_as_far_as_the_target_has_room() -> None:
    whole = Query().count(PYTHON.encode())
    outcome = outline(PYTHON, "render", tokens=whole * 2 // 3)
    assert outcome.tokens <= whole * 2 // 3
    assert "body of parse" in outcome.content.decode()
    assert "body of render" not in outcome.content.decode()


@pytest.mark.parametrize(("code", "names"), [(GO, ["Parse", "Render"]), (RUBY, ["parse", "render"])])
def test_other_languages_are_read_by_braces_or_indentation(code: str, names: list[str]) -> None:
    assert [unit.name for unit in units_of(code)] == names
    said = outline(code).content.decode()
    assert "add(total" not in said
    assert all(line in said for line in code.split("\n") if line[:4] in {"func", "type", "}", "clas"})


def test_line_numbers_in_front_of_the_code_do_no_harm() -> None:
    numbered = "\n".join(f"{number:6}→{line}" for number, line in enumerate(PYTHON.split("\n"), 1))
    assert [unit.name for unit in units_of(numbered)] == ["parse", "render"]
    assert "body of render" in outline(numbered).content.decode()


def test_code_with_a_syntax_error_is_read_by_its_indentation() -> None:
    assert [unit.name for unit in units_of("def broken(:\n" + PYTHON)][-2:] == ["render", "short"] or [
        unit.name for unit in units_of("if (:\n" + PYTHON)
    ] == ["parse", "render"]


def test_a_pinned_line_keeps_its_body() -> None:
    start = PYTHON.encode().rindex(b"total, 5")
    said = outline(PYTHON, pinned=(Span(start, start + 8),)).content.decode()
    assert "body of parse" in said
    assert "body of render" not in said


@pytest.mark.parametrize(
    "code",
    [
        "def f():\n    return " + "(" * 100_000,
        "def f():\n    return " + "-" * 100_000 + "1",
        "def f():\n    x = 1\n" + "{" * 100_000,
        "def f():\n  x\n\0\n",
        "func f() {\n" * 10_000,
        "def f():\r\n    return 1\r\n" * 3,
        "def " + "f" * 200_000,
    ],
    ids=["brackets", "signs", "braces", "NUL", "blocks", "CRLF", "long"],
)
def test_odd_code_is_sent_as_it_is_or_comes_back(code: str) -> None:
    outcome = outline(code)
    assert outcome.original == code.encode()
    assert not any("Error" in reason for reason in outcome.reasons)


@settings(max_examples=settings().max_examples // 4)
@given(content=contents())
def test_any_content_comes_back(content: bytes) -> None:
    strategy = CodeOutline()
    outcome = strategy.execute(Item(content), None, Query(can_expand=True, count=len))
    assert strategy.validate(Item(content), outcome)


def test_it_conforms() -> None:
    check_strategy(CodeOutline())


@pytest.mark.parametrize(
    "kind", ["braces", "quotes", "distinct objects", "torn quotes", "open comments", "escaped quotes"]
)
def test_time_grows_with_the_text_and_not_faster(kind: str, growth: Callable[..., float]) -> None:
    def prepare(size: int) -> Callable[[], object]:
        more = {"open comments": "/*{\n" * (size // 4), "escaped quotes": '"\\"{' * (size // 4)}
        text = (hostile_texts(size) | more)[kind]
        return lambda: units_of(text)

    assert growth(prepare, 5_000) < 30
